//! Streams end with their token, or with its key.

use std::time::Duration;

use countersign::clock::Clock as _;
use countersign::grpc::{CallToken, reason_of};
use countersign::identity::{ModuleType, Role, Roles};
use countersign::testing::{self, Pair, own_deployment, trusted};
use countersign::{MethodRules, Module, Reason, Rule};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tower_layer::Layer as _;

use crate::support::echo::{Client, Echo};
use crate::support::logs::Logs;
use crate::support::world::{
    Keys, RunningDpm, channel, free_port, fresh_id, now_trusts, registration_of, soon,
};

/// Serves `module` in memory, where paused time harms no connection.
async fn in_memory(module: &Module) -> Channel {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (connections, accepted) = mpsc::channel(1);
    connections
        .send(Ok::<_, std::io::Error>(far))
        .await
        .unwrap();
    let rules = MethodRules::deny_all()
        .allow("/test.v1.Echo/*", Rule::any_identity())
        .unwrap();
    let server = Server::builder()
        .layer(module.server_layer(rules).dangerous_any_transport())
        .add_service(Echo)
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::spawn(async move {
        let _open = connections;
        server.await
    });
    let mut near = Some(hyper_util::rt::TokioIo::new(near));
    let connector = tower::service_fn(move |_: Uri| {
        let near = near
            .take()
            .ok_or_else(|| std::io::Error::other("connected once"));
        async { near }
    });
    let endpoint = Endpoint::from_static("http://in.memory");
    endpoint.connect_with_connector(connector).await.unwrap()
}

fn layered<S>(pair: &Pair, channel: S) -> countersign::grpc::AttachIdentity<S> {
    pair.dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap()
        .layer(channel)
}

#[tokio::test]
async fn message_above_the_servers_size_is_refused_whatever_its_service_allows() {
    let pair = testing::pair();
    let listener = free_port().await;
    let address = listener.local_addr().unwrap();
    let rules = MethodRules::deny_all()
        .allow("/test.v1.Echo/*", Rule::any_identity())
        .unwrap();
    let layer = pair.dpm.server_layer(rules);
    let mut options = countersign::grpc::ServerOptions::default();
    options.max_message_bytes = 16;
    let routes = tonic::service::Routes::new(Echo);
    let forever = std::future::pending();
    tokio::spawn(countersign::grpc::serve(
        listener, layer, routes, options, forever,
    ));
    let mut client = Client::new(layered(&pair, channel(address).await));

    client.say("short").await.unwrap();
    let refused = client.say("longer than 16 bytes").await.unwrap_err();

    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let setting = "ataccama.server.grpc.max-message-size";
    assert!(refused.message().contains(setting), "{refused}");
    client.say("short").await.unwrap();
}

#[tokio::test]
async fn compressed_message_that_grows_above_the_limit_is_refused_at_the_limit() {
    let pair = testing::pair();
    let address = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel(address).await)).compressing();

    let fits = "x".repeat(1024);
    assert_eq!(client.say(&fits).await.unwrap().into_inner(), fits);
    // A thousandth of it, compressed.
    let refused = client.say(&"x".repeat(64 << 20)).await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let limit = pair.dpm.max_message_size();
    let at = format!("size limit, of {limit} bytes, exceeded");
    assert!(refused.message().contains(&at), "{refused}");
    assert_eq!(client.say(&fits).await.unwrap().into_inner(), fits);
}

#[tokio::test]
async fn own_services_decompress_nothing() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let client = dpm.client(&keys.dpe_module()).await;
    let mut client = client.send_compressed(CompressionEncoding::Gzip);
    let address = dpm.address;

    let refused = client.register_engine(registration_of(fresh_id(), address));

    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    assert!(refused.message().contains("gzip"), "{refused}");
    assert!(dpm.registry.list(None, 1).await.unwrap().is_empty());
}

/// How long a stream may go on that is opened with a fresh token.
const WHOLE_LIFE: Duration = Duration::from_secs(300 + CallToken::GRACE.as_secs());

#[tokio::test(start_paused = true)]
async fn reply_stream_ends_ten_seconds_after_its_token() {
    let mut logs = Logs::start();
    let pair = testing::pair();
    let mut client = Client::new(layered(&pair, in_memory(&pair.dpm).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    send.send("one".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");

    pair.clock
        .advance(Duration::from_secs(WHOLE_LIFE.as_secs() - 1));
    send.send("two".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "two");
    pair.clock.advance(Duration::from_secs(1));
    let ended = replies.message().await.unwrap_err();

    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(reason_of(&ended), Some(Reason::TokenExpired));
    assert!(ended.message().contains("expired 10 s ago"), "{ended:?}");
    logs.line(&["authRejected", "TOKEN_EXPIRED", "/test.v1.Echo/Chat"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn request_stream_ends_with_its_token_whatever_the_handler_makes_of_it() {
    let pair = testing::pair();
    let mut client = Client::new(layered(&pair, in_memory(&pair.dpm).await));
    let (send, messages) = mpsc::channel(4);
    send.send("one".to_owned()).await.unwrap();
    let call = tokio::spawn(async move { client.collect(messages).await });
    tokio::task::yield_now().await;

    pair.clock.advance(WHOLE_LIFE);
    let ended = call.await.unwrap().unwrap_err();

    assert_eq!(reason_of(&ended), Some(Reason::TokenExpired));
    drop(send);
}

#[tokio::test(start_paused = true)]
async fn busy_stream_ends_between_two_messages() {
    let pair = testing::pair();
    let mut client = Client::new(layered(&pair, in_memory(&pair.dpm).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();

    let mut heard = 0;
    let ended = loop {
        // The sender may have been cut off already.
        let _ = send.try_send("more".to_owned());
        match replies.message().await {
            Ok(_) => heard += 1,
            Err(ended) => break ended,
        }
        assert!(heard < 100, "no end");
        pair.clock.advance(Duration::from_secs(10));
    };

    assert_eq!(reason_of(&ended), Some(Reason::TokenExpired));
    assert_eq!(heard, 31);
}

#[tokio::test(start_paused = true)]
async fn unary_call_is_not_interrupted() {
    let pair = testing::pair();
    let channel = in_memory(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel));

    for _ in 0..10 {
        assert_eq!(client.say("x").await.unwrap().into_inner(), "x");
        pair.clock.advance(Duration::from_secs(149));
    }
}

#[tokio::test(start_paused = true)]
async fn call_admitted_within_the_leeway_has_its_grace() {
    let pair = testing::pair();
    let callee = trusted(&pair.dpm.own());
    let token = pair.dpe.issuer().issue(&callee).unwrap();
    pair.clock.advance(Duration::from_secs(300 + 29));
    let channel = in_memory(&pair.dpm).await;
    let value = format!("Bearer {}", token.expose());
    let with_token = tower::ServiceBuilder::new()
        .map_request(move |mut request: http::Request<tonic::body::Body>| {
            let value = value.parse().unwrap();
            request.headers_mut().insert("authorization", value);
            request
        })
        .service(channel);
    let mut client = Client::new(with_token);

    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    send.send("one".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    pair.clock.advance(CallToken::GRACE);
    let ended = replies.message().await.unwrap_err();

    assert_eq!(reason_of(&ended), Some(Reason::TokenExpired));
}

#[tokio::test]
async fn revoked_key_ends_its_streams_at_once() {
    let mut logs = Logs::start();
    let pair = testing::pair();
    let callee = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel(callee).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    send.send("one".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    let (_collecting, messages) = mpsc::channel(1);
    let mut other = Client::new(layered(&pair, channel(callee).await));
    let collect = tokio::spawn(async move { other.collect(messages).await });
    tokio::task::yield_now().await;

    let mut revoked = trusted(&pair.dpe.own());
    revoked.keys[0].revoked = true;
    now_trusts(&pair.dpm, vec![revoked]);

    let ended = soon("the reply stream's end", replies.message()).await;
    assert_eq!(reason_of(&ended.unwrap_err()), Some(Reason::KeyRevoked));
    let ended = soon("the request stream's end", collect).await.unwrap();
    assert_eq!(reason_of(&ended.unwrap_err()), Some(Reason::KeyRevoked));
    logs.line(&[
        "authRejected",
        "KEY_REVOKED",
        pair.dpe.own().key_id.as_str(),
    ])
    .await;
}

#[tokio::test]
async fn key_that_is_no_longer_listed_ends_its_streams() {
    let pair = testing::pair();
    let callee = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel(callee).await));
    let (_send, mut replies) = client.chat().await.unwrap().into_inner();

    now_trusts(&pair.dpm, vec![]);

    let ended = soon("the stream's end", replies.message()).await;
    assert_eq!(reason_of(&ended.unwrap_err()), Some(Reason::KeyUnknown));
}

#[tokio::test]
async fn streams_end_as_a_new_call_is_refused_where_the_rule_no_longer_admits_their_caller() {
    let role = Rule::role(Role::impersonation());
    let module = Rule::module(ModuleType::new("dpe").unwrap());
    let mut without_role = trusted(&own_deployment("dpe", "dpe-dev"));
    without_role.roles = Roles::default();
    let mut other_module = without_role.clone();
    other_module.module = ModuleType::new("ledger").unwrap();
    for (rule, now) in [(role, without_role), (module, other_module)] {
        let pair = testing::pair();
        let callee = Echo::serve_by(&pair.dpm, rule).await;
        let mut client = Client::new(layered(&pair, channel(callee).await));
        let (_send, mut replies) = client.chat().await.unwrap().into_inner();
        let (_messages, waiting) = mpsc::channel(1);
        let mut collecting = Client::new(layered(&pair, channel(callee).await));
        let collect = tokio::spawn(async move { collecting.collect(waiting).await });
        tokio::task::yield_now().await;

        let mut changed = trusted(&pair.dpe.own());
        (changed.roles, changed.module) = (now.roles, now.module);
        now_trusts(&pair.dpm, vec![changed]);

        let ended = soon("the reply stream's end", replies.message()).await;
        let collected = soon("the request stream's end", collect).await.unwrap();
        let refused = client.say("after").await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
        for ended in [ended.unwrap_err(), collected.unwrap_err()] {
            assert_eq!(ended.code(), refused.code());
            assert_eq!(ended.message(), refused.message());
            assert_eq!(ended.details(), refused.details());
        }
    }
}

#[tokio::test]
async fn role_that_no_rule_asks_for_ends_no_stream_when_it_goes() {
    let pair = testing::pair();
    let callee = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel(callee).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();

    let mut without_role = trusted(&pair.dpe.own());
    without_role.roles = Roles::default();
    now_trusts(&pair.dpm, vec![without_role]);

    for text in ["one", "two"] {
        send.send(text.to_owned()).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap(), text);
    }
}

#[tokio::test]
async fn change_of_trust_that_keeps_the_key_ends_no_stream() {
    let pair = testing::pair();
    let callee = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(layered(&pair, channel(callee).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();

    let more = own_deployment("dpe", "dpe-two");
    let known = vec![trusted(&pair.dpe.own()), trusted(&more)];
    now_trusts(&pair.dpm, known);

    for text in ["one", "two"] {
        send.send(text.to_owned()).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn next_stream_can_be_opened_with_a_new_token_before_the_old_one_ends() {
    let pair = testing::pair();
    let mut client = Client::new(layered(&pair, in_memory(&pair.dpm).await));
    let now = pair.clock.now();
    let first = client.chat().await.unwrap();
    let token = *first.extensions().get::<CallToken>().unwrap();
    assert_eq!(token.renewed_at, now + Duration::from_secs(150));
    assert_eq!(token.expires_at, now + Duration::from_secs(300));
    let (send, mut replies) = first.into_inner();

    pair.clock.set(token.renewed_at);
    let second = client.chat().await.unwrap();
    let renewed = *second.extensions().get::<CallToken>().unwrap();
    let (send_second, mut second) = second.into_inner();

    assert_eq!(
        renewed.expires_at,
        token.renewed_at + Duration::from_secs(300)
    );
    pair.clock.set(token.expires_at + CallToken::GRACE);
    let ended = replies.message().await.unwrap_err();
    assert_eq!(reason_of(&ended), Some(Reason::TokenExpired));
    send_second.send("still here".to_owned()).await.unwrap();
    assert_eq!(second.message().await.unwrap().unwrap(), "still here");
    drop(send);
}
