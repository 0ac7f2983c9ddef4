//! A request reached the services.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

use crate::admission::{Full, Shown, Standing};
use crate::grpc::PeerInfo;
use crate::token::VerifiedToken;
use crate::trust::TrustStore;

/// What a connection's requests carry from the listener to [`arrived`].
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Arrival {
    pub(super) standing: Arc<Standing>,
    pub(super) peer: PeerInfo,
    pub(super) local: Option<SocketAddr>,
}

/// Notes in the listener, if it is ours, that a request's `token` verified.
///
/// # Errors
///
/// When the token's deployment has all the connections that it may have.
pub(in crate::grpc) fn verified(
    extensions: &Extensions,
    token: &VerifiedToken,
    trust: &Arc<TrustStore>,
) -> Result<(), Full> {
    let Some(standing) = extensions.get::<Arc<Standing>>() else {
        return Ok(());
    };
    let key = token.key_id().as_str();
    standing.show(token.owner(), key, || {
        let (token, trust) = (token.clone(), Arc::clone(trust));
        Shown {
            key: key.into(),
            still: Box::new(move || token.still_trusted(&trust.current()).is_ok()),
        }
    })
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
