//! A request reached the services.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

use super::connections::Standing;
use crate::grpc::PeerInfo;

/// What a connection's requests carry from the listener to [`arrived`].
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Arrival {
    pub(super) standing: Arc<Standing>,
    pub(super) peer: PeerInfo,
    pub(super) local: Option<SocketAddr>,
}

/// Notes in the listener, if it is ours, that a request's token verified.
pub(in crate::grpc) fn verified(extensions: &Extensions) {
    if let Some(standing) = extensions.get::<Arc<Standing>>() {
        standing.known();
    }
}

/// Notes in the listener, if it is ours, that a connection is not silent, and in the request where
/// the call came from.
pub(in crate::grpc) fn arrived(extensions: &mut Extensions) {
    if let Some(arrival) = extensions.remove::<Arrival>() {
        arrival.standing.heard();
        // For `tonic::Request::remote_addr`.
        extensions.insert(TcpConnectInfo {
            local_addr: arrival.local,
            remote_addr: Some(arrival.peer.address),
        });
        extensions.insert(arrival.peer);
        extensions.insert(arrival.standing);
    }
}
