//! A request reached the services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request};
use tonic::transport::server::TcpConnectInfo;
use tower_service::Service;

use super::connections::Standing;
use crate::grpc::PeerInfo;

/// What a connection's requests carry from the listener to [`Arrived`].
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

/// Notes in the listener that a connection is not silent, and in the request where the call came
/// from; then calls the service that it wraps.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Arrived<S>(pub(in crate::grpc) S);

impl<S, B> Service<Request<B>> for Arrived<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let extensions = request.extensions_mut();
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
        self.0.call(request)
    }
}
