//! The layers among those of tonic, tower and tower-http: around them, inside them, and twice.
//! Each test compiles a composition, and calls through it.

use std::time::Duration;

use countersign::grpc::caller;
use countersign::testing::{self, Pair};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Bytes, StdError};
use tonic::server::NamedService;
use tonic::service::{InterceptorLayer, LayerExt as _, Routes};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::set_header::SetRequestHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::layers::greeter::GreetRequest;
use crate::layers::greeter::greeter_service_client::GreeterServiceClient as Client;
use crate::layers::greeter::greeter_service_server::GreeterServiceServer;
use crate::layers::{Greeter, any_identity};

const HELLO: &str = "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])";
const LONG: Duration = Duration::from_secs(60);

fn greeter() -> GreeterServiceServer<Greeter> {
    GreeterServiceServer::new(Greeter { engine: None })
}

/// Serves `router` on loopback, and connects to it.
async fn served<L, B>(router: Router<L>) -> Channel
where
    L: Layer<Routes> + Send + 'static,
    L::Service: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send,
    <L::Service as Service<http::Request<Body>>>::Error: Into<StdError> + Send,
    B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    channel.connect().await.unwrap()
}

/// Serves the greeter behind the DPM's own layer alone.
async fn plain(pair: &Pair) -> Channel {
    let layer = pair.dpm.server_layer(any_identity());
    served(Server::builder().layer(layer).add_service(greeter())).await
}

/// Calls with the DPE's identity.
async fn greeted_over(pair: &Pair, channel: Channel) -> String {
    greeted(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    )
    .await
}

async fn greeted<T>(service: T) -> String
where
    T: GrpcService<Body, Error: Into<StdError>>,
    T::ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    let reply = Client::new(service).greet(GreetRequest {}).await;
    reply.unwrap().into_inner().text
}

#[expect(clippy::unnecessary_wraps, reason = "an interceptor")]
fn pass(request: Request<()>) -> Result<Request<()>, Status> {
    Ok(request)
}

fn known(request: Request<()>) -> Result<Request<()>, Status> {
    caller(&request)?;
    Ok(request)
}

#[tokio::test]
async fn interceptor_stands_around_a_layered_channel() {
    let pair = testing::pair();
    let layer = pair
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let channel = layer.layer(plain(&pair).await);

    let mut client = Client::with_interceptor(channel, pass);
    let reply = client.greet(GreetRequest {}).await.unwrap();

    assert_eq!(reply.into_inner().text, HELLO);
}

#[tokio::test]
async fn interceptor_inside_the_server_layer_sees_the_caller() {
    let pair = testing::pair();
    let greeter = GreeterServiceServer::with_interceptor(Greeter { engine: None }, known);
    let layer = pair.dpm.server_layer(any_identity());
    let around = Server::builder().layer(InterceptorLayer::new(pass));
    let mut inside = around.layer(layer).layer(InterceptorLayer::new(known));

    let channel = served(inside.add_service(greeter)).await;

    assert_eq!(greeted_over(&pair, channel).await, HELLO);
}

#[tokio::test]
async fn either_layer_may_be_an_option() {
    let pair = testing::pair();
    let server = option_layer(Some(pair.dpm.server_layer(any_identity())));
    let client = option_layer(Some(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap(),
    ));

    let channel = served(Server::builder().layer(server).add_service(greeter())).await;

    assert_eq!(greeted(client.layer(channel)).await, HELLO);
}

#[tokio::test]
async fn named_layer_keeps_the_name_of_the_service() {
    fn name_of<S: NamedService>(_service: &S) -> &'static str {
        S::NAME
    }
    let pair = testing::pair();
    let named = pair.dpm.server_layer(any_identity()).named_layer(greeter());

    assert_eq!(name_of(&named), "greeter.v1.GreeterService");
    let channel = served(Server::builder().add_service(named)).await;
    assert_eq!(greeted_over(&pair, channel).await, HELLO);
}

#[tokio::test]
async fn either_layer_may_stand_inside_another_of_its_kind() {
    let pair = testing::pair();
    let server = pair.dpm.server_layer(any_identity());
    let twice = Server::builder().layer(server.clone().counted());
    let client = pair
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();

    let channel = served(twice.layer(server).add_service(greeter())).await;

    let greeting = greeted(client.layer(client.layer(channel))).await;
    assert_eq!(greeting, HELLO);
}

#[tokio::test]
async fn layers_of_tower_stand_around_and_inside() {
    let pair = testing::pair();
    let server = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(4)
        .timeout(LONG)
        .layer(pair.dpm.server_layer(any_identity()))
        .timeout(LONG)
        .map_request(|request: http::Request<Body>| request);
    let client = ServiceBuilder::new()
        .buffer(4)
        .load_shed()
        .concurrency_limit(4)
        .timeout(LONG)
        .layer(
            pair.dpe
                .client_layer("dpm-dev", countersign::Transport::loopback())
                .unwrap(),
        )
        .map_response(|reply: http::Response<Body>| reply)
        .timeout(LONG)
        .buffer(4);

    let mut router = Server::builder().layer(server.into_inner());
    let channel = served(router.add_service(greeter())).await;

    assert_eq!(greeted(client.service(channel)).await, HELLO);
}

#[tokio::test]
async fn layers_of_tower_http_stand_around_and_inside() {
    let pair = testing::pair();
    let id = HeaderName::from_static("x-request-id");
    let set = SetRequestHeaderLayer::if_not_present(id.clone(), HeaderValue::from_static("1"));
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, LONG);
    let server = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_grpc())
        .layer(timeout)
        .layer(PropagateHeaderLayer::new(id.clone()))
        .layer(pair.dpm.server_layer(any_identity()))
        .layer(set.clone())
        .layer(TraceLayer::new_for_grpc())
        .layer(CatchPanicLayer::new())
        .layer(timeout);
    let client = ServiceBuilder::new()
        .layer(TraceLayer::new_for_grpc())
        .layer(set.clone())
        .layer(PropagateHeaderLayer::new(id))
        .layer(timeout)
        .layer(
            pair.dpe
                .client_layer("dpm-dev", countersign::Transport::loopback())
                .unwrap(),
        )
        .layer(TraceLayer::new_for_grpc())
        .layer(timeout)
        .layer(set);

    let mut router = Server::builder().layer(server.into_inner());
    let channel = served(router.add_service(greeter())).await;

    assert_eq!(greeted(client.service(channel)).await, HELLO);
}

#[tokio::test]
async fn router_of_axum_takes_the_server_layer() {
    let pair = testing::pair();
    let router = Routes::new(greeter()).into_axum_router();

    let layered = router.layer(pair.dpm.server_layer(any_identity()));

    let channel = served(Server::builder().add_routes(Routes::from(layered))).await;
    assert_eq!(greeted_over(&pair, channel).await, HELLO);
}
