//! A request reached the services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request};
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;
use tower_service::Service;

use super::connections::Place;
use crate::grpc::PeerInfo;

/// What a connection's requests carry from the listener to [`ArrivalLayer`].
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Arrival {
    pub(super) place: Arc<Place>,
    pub(super) peer: PeerInfo,
    pub(super) local: Option<SocketAddr>,
}

/// The connection that a request came over.
#[derive(Clone, Debug)]
struct Guest(Arc<Place>);

/// Tells the listener, where it is ours, that a request's token verified.
pub(in crate::grpc) fn verified(extensions: &Extensions) {
    if let Some(Guest(place)) = extensions.get::<Guest>() {
        place.known();
    }
}

/// Tells the listener that a connection is not silent, and the services where a call came from.
#[derive(Clone, Copy, Debug)]
pub(in crate::grpc) struct ArrivalLayer;

impl<S> Layer<S> for ArrivalLayer {
    type Service = ArrivalService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ArrivalService { inner }
    }
}

/// Calls `inner`; see [`ArrivalLayer`].
#[derive(Clone, Debug)]
pub(in crate::grpc) struct ArrivalService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for ArrivalService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let extensions = request.extensions_mut();
        if let Some(arrival) = extensions.remove::<Arrival>() {
            arrival.place.heard();
            // For `tonic::Request::remote_addr`.
            extensions.insert(TcpConnectInfo {
                local_addr: arrival.local,
                remote_addr: Some(arrival.peer.address),
            });
            extensions.insert(arrival.peer);
            extensions.insert(Guest(arrival.place));
        }
        self.inner.call(request)
    }
}
