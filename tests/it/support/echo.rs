//! A service with every kind of call, for streams of any length.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use countersign::{MethodRules, Module, Rule};
use http::uri::PathAndQuery;
use http::{Request, Response};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::server::{ClientStreamingService, Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::world::free_port;

/// The stream that a test sends, and the one that it receives.
pub(crate) type Chat = (mpsc::Sender<String>, Streaming<String>);

/// `Say` answers with the text that it got, `Collect` with the number of messages, `Chat` with each
/// message.
#[derive(Clone)]
pub(crate) struct Echo;

pub(crate) const SAY: &str = "/test.v1.Echo/Say";
pub(crate) const COLLECT: &str = "/test.v1.Echo/Collect";
pub(crate) const CHAT: &str = "/test.v1.Echo/Chat";

impl Echo {
    /// Serves it as `module`, to any identity that it trusts, on a free port.
    pub(crate) async fn serve(module: &Module) -> SocketAddr {
        Self::serve_by(module, Rule::any_identity()).await
    }

    pub(crate) async fn serve_by(module: &Module, rule: Rule) -> SocketAddr {
        let listener = free_port().await;
        let address = listener.local_addr().unwrap();
        let rules = MethodRules::deny_all()
            .allow("/test.v1.Echo/*", rule)
            .unwrap();
        let server = Server::builder()
            .layer(module.server_layer(rules))
            .add_service(Self)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        address
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.v1.Echo";
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let text = request.into_inner();
        Box::pin(async move {
            match text.as_str() {
                "" => Err(Status::not_found("nothing was said")),
                _ => Ok(tonic::Response::new(text)),
            }
        })
    }
}

impl ClientStreamingService<String> for Echo {
    type Response = String;
    type Future = Answer<String>;

    /// Does not care how the stream ended.
    fn call(&mut self, request: tonic::Request<Streaming<String>>) -> Self::Future {
        let mut messages = request.into_inner();
        Box::pin(async move {
            let mut count = 0;
            while let Ok(Some(_)) = messages.message().await {
                count += 1;
            }
            Ok(tonic::Response::new(count.to_string()))
        })
    }
}

impl StreamingService<String> for Echo {
    type Response = String;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<String, Status>> + Send>>;
    type Future = Answer<Self::ResponseStream>;

    /// Goes on for ever, whatever becomes of the request.
    fn call(&mut self, request: tonic::Request<Streaming<String>>) -> Self::Future {
        let heard = request.into_inner().filter(Result::is_ok);
        let replies: Self::ResponseStream = Box::pin(heard.chain(tokio_stream::pending()));
        Box::pin(async move { Ok(tonic::Response::new(replies)) })
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(codec()).accept_compressed(CompressionEncoding::Gzip);
            Ok(match request.uri().path() {
                SAY => grpc.unary(Self, request).await,
                COLLECT => grpc.client_streaming(Self, request).await,
                CHAT => grpc.streaming(Self, request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

/// Calls [`Echo`] over `channel`, with whatever stands before it.
pub(crate) struct Client<C>(tonic::client::Grpc<C>);

impl<C> Client<C>
where
    C: GrpcService<Body>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(channel: C) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    /// Compresses what it sends.
    pub(crate) fn compressing(self) -> Self {
        Self(self.0.send_compressed(CompressionEncoding::Gzip))
    }

    pub(crate) async fn say(&mut self, text: &str) -> Result<tonic::Response<String>, Status> {
        let request = tonic::Request::new(text.to_owned());
        self.say_with(request).await
    }

    pub(crate) async fn say_with(
        &mut self,
        request: tonic::Request<String>,
    ) -> Result<tonic::Response<String>, Status> {
        self.ready().await;
        let path = PathAndQuery::from_static(SAY);
        self.0.unary(request, path, codec()).await
    }

    /// Sends what comes through the receiver's other end.
    pub(crate) async fn collect(&mut self, sent: mpsc::Receiver<String>) -> Result<String, Status> {
        self.ready().await;
        let request = tonic::Request::new(ReceiverStream::new(sent));
        let path = PathAndQuery::from_static(COLLECT);
        let answer = self.0.client_streaming(request, path, codec()).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn chat(&mut self) -> Result<tonic::Response<Chat>, Status> {
        self.ready().await;
        let (send, messages) = mpsc::channel(4);
        let request = tonic::Request::new(ReceiverStream::new(messages));
        let path = PathAndQuery::from_static(CHAT);
        let answer = self.0.streaming(request, path, codec()).await?;
        Ok(answer.map(|replies| (send, replies)))
    }

    async fn ready(&mut self) {
        let ready = self.0.ready().await;
        assert!(ready.is_ok());
    }
}
