//! The layers on a service of one's own, over a real socket: unary and streaming.

use std::net::SocketAddr;
use std::time::Duration;

use countersign::grpc::{Proved, Tokens, reason_of};

use countersign::Module;
use countersign::identity::Role;
use countersign::testing::{self, Pair};
use countersign::token::proof::EngineClaim;
use countersign::{MethodRules, Reason, Rule};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use tower::util::MapResponseLayer;
use tower_layer::Layer as _;

use crate::support::world::now_trusts;
use greeter::greeter_service_client::GreeterServiceClient as Client;
use greeter::greeter_service_server::{GreeterService, GreeterServiceServer};
use greeter::{GreetOftenRequest, GreetOftenResponse, GreetRequest, GreetResponse};

#[path = "../../examples/greeter/mod.rs"]
pub(super) mod greeter;

/// Greets by identity; says that it is `engine`, where one is given.
pub(super) struct Greeter {
    pub(super) engine: Option<EngineClaim>,
}

#[tonic::async_trait]
impl GreeterService for Greeter {
    async fn greet(&self, call: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let text = countersign::grpc::caller(&call)
            .map_or_else(|_unknown| "unknown".into(), ToString::to_string);
        let mut response = Response::new(GreetResponse { text });
        if let Some(engine) = &self.engine {
            response.extensions_mut().insert(engine.clone());
        }
        Ok(response)
    }

    type GreetOftenStream = ReceiverStream<Result<GreetOftenResponse, Status>>;

    async fn greet_often(
        &self,
        call: Request<GreetOftenRequest>,
    ) -> Result<Response<Self::GreetOftenStream>, Status> {
        let text = countersign::grpc::caller(&call)?.id().to_owned();
        let times = call.into_inner().times;
        if times == 0 {
            return Err(Status::invalid_argument("no times"));
        }
        let (greetings, stream) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            for _ in 0..times {
                let sent = greetings
                    .send(Ok(GreetOftenResponse { text: text.clone() }))
                    .await;
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

const GREET: &str = "/greeter.v1.GreeterService/Greet";

/// Serves the DPM's half of `pair` and connects to it.
async fn serve(pair: &Pair, rules: MethodRules, engine: Option<EngineClaim>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(pair.dpm.server_layer(rules))
        .add_service(GreeterServiceServer::new(Greeter { engine }))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub(super) fn any_identity() -> MethodRules {
    MethodRules::deny_all()
        .allow("/greeter.v1.GreeterService/*", Rule::any_identity())
        .unwrap()
}

/// Calls `path` as it stands, with the layer of `module` around the channel.
async fn greet_at(path: &'static str, module: &Module, channel: Channel) -> Result<(), Status> {
    let mut client = Grpc::new(
        module
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<GreetRequest, GreetResponse>::default();
    let path = PathAndQuery::from_static(path);
    let reply = client.unary(Request::new(GreetRequest {}), path, codec);
    reply.await.map(|_| ())
}

#[tokio::test]
async fn query_in_a_path_does_not_replace_the_methods_rule_by_its_services() {
    let pair = testing::pair();
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    for all in [Rule::any_identity(), Rule::everyone()] {
        let rules = MethodRules::deny_all()
            .allow("/greeter.v1.GreeterService/*", all)
            .unwrap()
            .allow(GREET, admin.clone())
            .unwrap();
        let channel = serve(&pair, rules, None).await;

        let plain = greet_at(GREET, &pair.dpe, channel.clone()).await;
        assert_eq!(plain.unwrap_err().code(), Code::PermissionDenied);
        for path in [
            "/greeter.v1.GreeterService/Greet?",
            "/greeter.v1.GreeterService/Greet?x",
            "/greeter.v1.GreeterService/Greet?/Greet",
        ] {
            let queried = greet_at(path, &pair.dpe, channel.clone()).await;
            assert_eq!(queried.unwrap_err().code(), Code::Unimplemented, "{path}");
        }
    }
}

fn bearer(token: &str) -> Request<GreetRequest> {
    let mut request = Request::new(GreetRequest {});
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn paired_caller_is_known_by_the_callees_own_file() {
    let pair = testing::pair();
    let channel = serve(&pair, any_identity(), None).await;
    let mut client = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );

    let greeting = client.greet(GreetRequest {}).await.unwrap().into_inner();

    assert_eq!(
        greeting.text,
        "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])"
    );
}

#[tokio::test]
async fn streaming_call_carries_the_identity_too() {
    let pair = testing::pair();
    let channel = serve(&pair, any_identity(), None).await;
    let mut client = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );

    let greetings = client
        .greet_often(GreetOftenRequest { times: 5 })
        .await
        .unwrap();
    let mut greetings = greetings.into_inner();

    for _ in 0..5 {
        assert_eq!(greetings.message().await.unwrap().unwrap().text, "dpe-dev");
    }
    assert!(greetings.message().await.unwrap().is_none());
}

#[tokio::test]
async fn call_without_a_token_is_refused_with_its_reason() {
    let pair = testing::pair();
    let mut client = Client::new(serve(&pair, any_identity(), None).await);

    let unary = client.greet(GreetRequest {}).await.unwrap_err();
    let streaming = client
        .greet_often(GreetOftenRequest { times: 1 })
        .await
        .unwrap_err();

    for status in [unary, streaming] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(reason_of(&status), Some(Reason::TokenMissing));
    }
}

#[tokio::test]
async fn detail_is_given_only_to_a_caller_whose_signature_verified() {
    let pair = testing::pair();
    let mut client = Client::new(serve(&pair, any_identity(), None).await);
    let stranger = testing::pair();

    let callee = testing::trusted(&pair.dpm.own());
    let expired = pair.dpe.issuer().issue(&callee).unwrap();
    pair.clock.advance(Duration::from_secs(1000));
    let known = client.greet(bearer(expired.expose())).await.unwrap_err();
    let unknown = stranger.dpe.issuer().issue(&callee).unwrap();
    let unknown = client.greet(bearer(unknown.expose())).await.unwrap_err();

    assert_eq!(reason_of(&known), Some(Reason::TokenExpired));
    assert!(
        known.message().contains("expired 700 s ago"),
        "{}",
        known.message()
    );
    assert_eq!(reason_of(&unknown), Some(Reason::KeyUnknown));
    assert_eq!(
        unknown.message(),
        "KEY_UNKNOWN: the token names a key that is not trusted here"
    );
}

#[tokio::test]
async fn method_without_a_rule_is_unimplemented_to_the_known_and_refused_to_strangers() {
    let pair = testing::pair();
    let channel = serve(&pair, MethodRules::deny_all(), None).await;
    let mut known = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel.clone()),
    );

    let status = known.greet(GreetRequest {}).await.unwrap_err();
    let stranger = Client::new(channel)
        .greet(GreetRequest {})
        .await
        .unwrap_err();

    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(stranger.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn caller_without_the_role_is_denied() {
    let pair = testing::pair();
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    let channel = serve(
        &pair,
        MethodRules::deny_all().allow(GREET, admin).unwrap(),
        None,
    )
    .await;
    let mut client = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );

    let status = client.greet(GreetRequest {}).await.unwrap_err();

    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&status), Some(Reason::RoleMissing));
}

#[tokio::test]
async fn token_is_reused_until_half_of_its_life_is_over() {
    let pair = testing::pair();
    let channel = serve(&pair, any_identity(), None).await;
    let mut client = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );
    let mut greet = async || client.greet(GreetRequest {}).await.map(drop);

    // Far beyond one token's life: each renewal must come in time, or the callee refuses.
    for _ in 0..20 {
        greet().await.unwrap();
        pair.clock.advance(Duration::from_secs(149));
    }
    // And a clock that steps back makes a new token as well.
    pair.clock
        .set(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    greet().await.unwrap();
}

#[tokio::test]
async fn own_module_is_admitted_over_loopback_where_the_rule_says_so() {
    let pair = testing::pair();
    let rules = MethodRules::deny_all()
        .allow(GREET, Rule::any_identity().or_own_module())
        .unwrap();
    let channel = serve(
        &pair,
        rules
            .allow(
                "/greeter.v1.GreeterService/GreetOften",
                Rule::any_identity(),
            )
            .unwrap(),
        None,
    )
    .await;
    let mut client = Client::new(pair.dpm.own_module_layer().layer(channel));

    let greeting = client.greet(GreetRequest {}).await.unwrap().into_inner();
    let often = client
        .greet_often(GreetOftenRequest { times: 1 })
        .await
        .unwrap_err();
    for header in ["forwarded", "x-forwarded-for"] {
        let mut passed_on = Request::new(GreetRequest {});
        let value = "for=192.0.2.1".parse().unwrap();
        passed_on.metadata_mut().insert(header, value);
        let refused = client.greet(passed_on).await.unwrap_err();
        assert_eq!(
            reason_of(&refused),
            Some(Reason::TokenMalformed),
            "{header}"
        );
    }

    assert_eq!(
        greeting.text,
        "ServiceIdentity(module=dpm, id=dpm-dev, roles=[])"
    );
    assert_eq!(reason_of(&often), Some(Reason::TokenMalformed));
}

#[tokio::test]
async fn callee_proves_itself_on_unary_streaming_and_trailers_only_replies() {
    let pair = testing::pair();
    let channel = serve(&pair, any_identity(), None).await;
    let layer = pair
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let layer = layer.require_proof(pair.dpe.proof_verifier(), None);
    let mut client = Client::new(layer.layer(channel));

    let unary = client.greet(GreetRequest {}).await.unwrap();
    assert!(unary.extensions().get::<Proved>().is_some());
    let stream = client
        .greet_often(GreetOftenRequest { times: 1 })
        .await
        .unwrap();
    assert!(stream.extensions().get::<Proved>().is_some());
    let refused = client
        .greet_often(GreetOftenRequest { times: 0 })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.metadata().contains_key("countersign-proof"));
}

#[tokio::test]
async fn reply_without_or_with_another_modules_proof_is_not_believed() {
    let pair = testing::pair();
    let engine = |id: &str| EngineClaim {
        id: id.into(),
        hostname: "h".into(),
        port: 1,
        instance: None,
    };
    let channel = serve(&pair, any_identity(), Some(engine("e1"))).await;
    let layer = pair
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let verifier = pair.dpe.proof_verifier();

    let expected = layer.require_proof(verifier.clone(), Some(engine("e1")));
    assert!(
        Client::new(expected.layer(channel.clone()))
            .greet(GreetRequest {})
            .await
            .is_ok()
    );

    let other = layer.require_proof(verifier.clone(), Some(engine("e2")));
    let status = Client::new(other.layer(channel))
        .greet(GreetRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::ProofInvalid));

    let without_proof = MapResponseLayer::new(|mut reply: http::Response<_>| {
        reply.headers_mut().remove("countersign-proof");
        reply
    });
    let unproving = Server::builder()
        .layer(without_proof)
        .layer(pair.dpm.server_layer(any_identity()))
        .add_service(GreeterServiceServer::new(Greeter { engine: None }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(unproving.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let asking = layer.require_proof(verifier, None);
    let status = Client::new(asking.layer(channel))
        .greet(GreetRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::ProofMissing));
}

#[tokio::test]
async fn no_proof_is_signed_for_a_stranger_or_a_malformed_nonce() {
    let pair = testing::pair();
    let mut client = Client::new(serve(&pair, any_identity(), None).await);
    let callee = testing::trusted(&pair.dpm.own());
    let token = pair.dpe.issuer().issue(&callee).unwrap();

    let mut stranger = Request::new(GreetRequest {});
    stranger.metadata_mut().insert(
        "countersign-nonce",
        "AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(),
    );
    let refused = client.greet(stranger).await.unwrap_err();
    assert!(!refused.metadata().contains_key("countersign-proof"));

    let mut malformed = bearer(token.expose());
    malformed
        .metadata_mut()
        .insert("countersign-nonce", "short".parse().unwrap());
    let answered = client.greet(malformed).await.unwrap();
    assert!(!answered.metadata().contains_key("countersign-proof"));
}

#[tokio::test]
async fn revoking_the_callee_stops_calls_before_they_leave() {
    let pair = testing::pair();
    let channel = serve(&pair, any_identity(), None).await;
    let mut client = Client::new(
        pair.dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap()
            .layer(channel),
    );
    client.greet(GreetRequest {}).await.unwrap();

    let mut callee = testing::trusted(&pair.dpm.own());
    callee.keys[0].revoked = true;
    now_trusts(&pair.dpe, vec![callee]);
    let status = client.greet(GreetRequest {}).await.unwrap_err();

    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "not called: every key of deployment `dpm-dev` is revoked here"
    );
}

#[tokio::test]
async fn without_required_tokens_a_bad_one_is_still_refused() {
    let strict = testing::pair();
    let open = Module::builder(strict.dpm.own())
        .trust(testing::trusted(&strict.dpe.own()))
        .dangerous_tokens(Tokens::OptionalOnLoopback)
        .build()
        .unwrap();
    let mut pair = strict;
    pair.dpm = open;
    let mut client = Client::new(serve(&pair, any_identity(), None).await);

    let anonymous = client.greet(GreetRequest {}).await.unwrap();
    let forged = client.greet(bearer("a.b.c")).await.unwrap_err();

    assert_eq!(anonymous.into_inner().text, "unknown");
    assert_eq!(reason_of(&forged), Some(Reason::TokenMalformed));
}

/// Serves the greeter, which answers with the `authorization` values that it got.
async fn serve_mirror(pair: &Pair) -> Channel {
    let mirror = tower::util::MapRequestLayer::new(|mut call: http::Request<_>| {
        let seen = call.headers().get_all("authorization").iter();
        let values: Vec<_> = seen
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        call.extensions_mut().insert(Seen(values.join(", ")));
        call
    });
    let greeter =
        GreeterServiceServer::with_interceptor(Greeter { engine: None }, |call: Request<()>| {
            let Seen(values) = call.extensions().get::<Seen>().unwrap();
            Err(Status::aborted(values.clone()))
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(pair.dpm.server_layer(any_identity()))
        .layer(mirror)
        .add_service(greeter)
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    channel.connect().await.unwrap()
}

#[derive(Clone)]
struct Seen(String);

/// What the application sees of a call of `module` with these values of its own.
async fn mirrored(pair: &Pair, channel: &Channel, own: &[(&'static str, &str)]) -> Status {
    let layer = pair
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback());
    let layer = layer
        .unwrap()
        .require_proof(pair.dpe.proof_verifier(), None);
    let mut client = Client::new(layer.layer(channel.clone()));
    let mut request = Request::new(GreetRequest {});
    for (name, value) in own {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    client.greet(request).await.unwrap_err()
}

#[tokio::test]
async fn callers_own_authorization_reaches_the_application_and_the_identity_too() {
    let pair = testing::pair();
    let channel = serve_mirror(&pair).await;
    let own = ("authorization", "Bearer a-users-token");
    let forwarded = ("countersign-authorization", "Bearer what-a-handler-got");

    for values in [&[own][..], &[own, forwarded], &[own, own]] {
        let status = mirrored(&pair, &channel, values).await;

        let users = values
            .iter()
            .filter(|value| **value == own)
            .map(|(_, text)| *text);
        let users: Vec<_> = users.collect();
        assert_eq!(status.code(), Code::Aborted, "{values:?}: {status:?}");
        assert_eq!(status.message(), users.join(", "));
        // The proof names the token that was sent.
        assert!(countersign::grpc::is_proved(&status));
    }
}

#[tokio::test]
async fn single_name_is_used_where_it_is_free() {
    let pair = testing::pair();
    let channel = serve_mirror(&pair).await;

    for own in [
        &[][..],
        &[("countersign-authorization", "Bearer what-a-handler-got")],
    ] {
        let status = mirrored(&pair, &channel, own).await;

        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert!(
            status.message().starts_with("Bearer ey"),
            "{}",
            status.message()
        );
    }
}

#[tokio::test]
async fn two_tokens_under_the_name_that_counts_are_refused() {
    let pair = testing::pair();
    let mut client = Client::new(serve(&pair, any_identity(), None).await);
    let callee = testing::trusted(&pair.dpm.own());
    let token = pair.dpe.issuer().issue(&callee).unwrap();
    let value: MetadataValue<_> = format!("Bearer {}", token.expose()).parse().unwrap();
    let mut call = Request::new(GreetRequest {});
    call.metadata_mut()
        .append("countersign-authorization", value.clone());
    client.greet(call).await.unwrap();

    let mut call = Request::new(GreetRequest {});
    for _ in 0..2 {
        call.metadata_mut()
            .append("countersign-authorization", value.clone());
    }
    let refused = client.greet(call).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::TokenMalformed));
}

#[tokio::test]
async fn rule_whose_condition_panics_refuses_the_call_and_nothing_else() {
    let pair = testing::pair();
    let rule = Rule::when(|caller| panic!("as asked, for {caller}"));
    let rules = MethodRules::deny_all().allow(GREET, rule).unwrap();
    let channel = serve(&pair, rules, None).await;

    for _twice in 0..2 {
        let refused = greet_at(GREET, &pair.dpe, channel.clone()).await;

        assert_eq!(refused.unwrap_err().code(), Code::Internal);
    }
}
