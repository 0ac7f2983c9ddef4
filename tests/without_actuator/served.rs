//! What `Module::serve` refuses and accepts.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::future::{Ready, pending, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::grpc::ServeError;
use countersign::jose::{PrivateJwk, PublicJwk};
use countersign::testing::{own_deployment, trusted};
use countersign::trust::OwnDeployment;
use countersign::{MethodRules, Module, Rule, Transport};
use http::uri::PathAndQuery;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_layer::Layer as _;
use tower_service::Service;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A home whose file has the key of `own`, trusts `peer`, and has `more` lines.
fn home(own: &OwnDeployment, peer: &OwnDeployment, more: &str) -> TempDir {
    let jwk = BASE64_STANDARD.encode(PrivateJwk::write(&own.key, &own.key_id).expose());
    let mut text = format!("ataccama.authentication.internal.jwt.generator.key={jwk}\n");
    let name = own.name.as_ref().unwrap();
    writeln!(text, "countersign.deployment.name={name}\n{more}").unwrap();
    let below = format!(
        "ataccama.one.platform.deployments.{}",
        peer.name.as_ref().unwrap()
    );
    writeln!(text, "{below}.module={}", peer.module).unwrap();
    let key = format!("{below}.security.jwt-keys.key");
    let content = PublicJwk::write(peer.key.verifying_key(), &peer.key_id);
    writeln!(
        text,
        "{key}.fingerprint={}\n{key}.content={content}",
        peer.key_id
    )
    .unwrap();
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("etc")).unwrap();
    fs::write(home.path().join("etc/application.properties"), text).unwrap();
    home
}

fn greeter_and_caller() -> [OwnDeployment; 2] {
    [("greeter", "greeter-dev"), ("caller", "caller-dev")]
        .map(|(module, name)| own_deployment(module, name))
}

#[tokio::test]
async fn http_port_that_is_set_is_an_error_that_names_the_missing_feature() {
    let [greeter, caller] = greeter_and_caller();
    let ports = "ataccama.server.grpc.port=0\nserver.port=0";
    let home = home(&greeter, &caller, ports);
    let module = Module::open(home.path()).unwrap();

    let served = module
        .serve(MethodRules::deny_all(), Routes::default())
        .await;

    let error = served.unwrap_err();
    assert!(matches!(error, ServeError::Refused(_)), "{error:?}");
    for part in ["`server.port`", "feature `actuator`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// A health service of the application's own, which answers with nothing.
#[derive(Clone)]
struct OwnHealth;

impl NamedService for OwnHealth {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl UnaryService<()> for OwnHealth {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl Service<http::Request<Body>> for OwnHealth {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<(), ()>::default());
            Ok(grpc.unary(Self, request).await)
        })
    }
}

#[tokio::test]
async fn health_service_of_an_applications_own_is_served_with_its_own_rule() {
    let [greeter, caller] = greeter_and_caller();
    let home = home(&greeter, &caller, "");
    let module = Module::open(home.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rules = MethodRules::deny_all().allow(CHECK, Rule::any_identity());
    let (rules, routes) = (rules.unwrap(), Routes::new(OwnHealth));
    tokio::spawn(async move { module.serve_on(listener, rules, routes, pending()).await });
    let caller = Module::builder(caller).trust(trusted(&greeter));
    let layer = caller.build().unwrap();
    let layer = layer.client_layer("greeter-dev", Transport::loopback());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_lazy();
    let path = PathAndQuery::from_static(CHECK);

    let mut known = tonic::client::Grpc::new(layer.unwrap().layer(channel.clone()));
    known.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    known
        .unary(Request::new(()), path.clone(), codec)
        .await
        .unwrap();

    let mut stranger = tonic::client::Grpc::new(channel);
    stranger.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let refused = stranger.unary(Request::new(()), path, codec).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unauthenticated);
}
