//! A proxy between caller and callee, which reads and changes HTTP/2 as a test likes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use countersign::grpc::Connection;
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower_layer::layer_fn;
use tower_service::Service;

use super::world::{channel, free_port};
use tonic_health::server::health_reporter;

/// What is done to an exchange: the request as it came, the reply as it comes back.
type Mischief = Arc<dyn Fn(&http::request::Parts, &mut Response<Body>) + Send + Sync>;

/// Passes calls on to one callee; notes each request's head.
pub(crate) struct Middlebox {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<http::request::Parts>>>,
}

impl Middlebox {
    /// Listens on a free port and passes calls on to `callee`; `mischief` may change each reply.
    pub(crate) async fn before(
        callee: SocketAddr,
        mischief: impl Fn(&http::request::Parts, &mut Response<Body>) + Send + Sync + 'static,
    ) -> Self {
        let listener = free_port().await;
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let relay = Relay {
            far: channel(callee).await,
            mischief: Arc::new(mischief),
            seen: Arc::clone(&seen),
        };
        // A service that is never asked: the layer answers everything.
        let (_, unasked) = health_reporter();
        tokio::spawn(async move {
            Server::builder()
                .layer(layer_fn(move |_| relay.clone()))
                .add_service(unasked)
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        Self { address, seen }
    }

    /// Returns `true` if the last request for `path` asked for a proof.
    pub(crate) fn last_asked(&self, path: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        let last = seen.iter().rfind(|head| head.uri.path() == path).unwrap();
        last.headers.contains_key(countersign::grpc::NONCE)
    }

    /// Returns how often `path` was called.
    pub(crate) fn calls(&self, path: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|head| head.uri.path() == path).count()
    }
}

#[derive(Clone)]
struct Relay {
    far: Connection,
    mischief: Mischief,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
}

impl Service<Request<Body>> for Relay {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut relay = self.clone();
        let (head, body) = request.into_parts();
        self.seen.lock().unwrap().push(head.clone());
        Box::pin(async move {
            let mut onward = Request::new(body);
            *onward.method_mut() = head.method.clone();
            *onward.uri_mut() = head.uri.path().parse().unwrap();
            *onward.headers_mut() = head.headers.clone();
            std::future::poll_fn(|cx| relay.far.poll_ready(cx))
                .await
                .unwrap();
            let mut reply = match relay.far.call(onward).await {
                Ok(reply) => reply,
                Err(error) => tonic::Status::unavailable(error.to_string()).into_http(),
            };
            (relay.mischief)(&head, &mut reply);
            Ok(reply)
        })
    }
}
