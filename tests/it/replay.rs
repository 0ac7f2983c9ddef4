//! Each token once: `countersign.token.replay=strict`, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::clock::{Clock, ManualClock};
use countersign::engine::EngineStatus;
use countersign::grpc::reason_of;
use countersign::identity::Role;
use countersign::proto::registry::ListEnginesRequest;
use countersign::testing::{own_deployment, trusted};
use countersign::token::{Accept, Policy, Replay};
use countersign::trust::{Deployment, OwnDeployment};
use countersign::{Module, Reason, Rule};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

use crate::support::echo::{Client, Echo};
use crate::support::world::{Keys, RunningDpe, RunningDpm, channel, soon};

/// What the other file says of a strict module.
fn taking_each_once(own: &OwnDeployment) -> Deployment {
    let mut deployment = trusted(own);
    deployment.single_use_tokens = true;
    deployment
}

/// Without leeway a strict module is ready a second after it started.
fn quickly_ready() -> Policy {
    let default = Policy::default();
    Policy::new(default.lifetime(), Duration::ZERO, default.max_lifetime()).unwrap()
}

/// A strict DPM and a DPE on one clock, which shows a time when tokens are accepted.
struct Strict {
    keys: Keys,
    dpm: Module,
    clock: Arc<ManualClock>,
}

impl Strict {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let keys = Keys::new();
        let dpm = Module::builder(keys.dpm.clone())
            .trust(taking_each_once(&keys.dpe))
            .replay(Replay::Strict)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .build()
            .unwrap();
        clock.advance(dpm.not_ready_for().unwrap());
        Self { keys, dpm, clock }
    }

    fn dpe(&self, about_dpm: Deployment) -> Module {
        Module::builder(self.keys.dpe.clone())
            .trust(about_dpm)
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
            .build()
            .unwrap()
    }

    /// A token of the DPE's.
    fn token(&self) -> String {
        let callee = trusted(&self.keys.dpm);
        let dpe = self.dpe(callee.clone());
        dpe.issuer().issue(&callee).unwrap().expose().to_owned()
    }
}

fn bearer(token: &str) -> Request<String> {
    let mut request = Request::new("x".to_owned());
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The same signature spelled otherwise: `n - s` in place of `s`.
fn other_spelling(token: &str) -> String {
    // The order of P-256, big endian (FIPS 186-4, D.1.2.3).
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(N[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn second_use_of_a_token_is_refused() {
    let strict = Strict::new();
    let mut client = Client::new(channel(Echo::serve(&strict.dpm).await).await);
    let token = strict.token();

    client.say_with(bearer(&token)).await.unwrap();
    let again = client.say_with(bearer(&token)).await.unwrap_err();

    assert_eq!(again.code(), Code::Unauthenticated);
    assert_eq!(reason_of(&again), Some(Reason::TokenReplayed));
    client.say_with(bearer(&strict.token())).await.unwrap();
}

#[tokio::test]
async fn other_spelling_of_a_signature_is_the_same_use() {
    let strict = Strict::new();
    let mut client = Client::new(channel(Echo::serve(&strict.dpm).await).await);
    let token = strict.token();
    let spelled = other_spelling(&token);
    assert_ne!(token, spelled);
    let examined = strict.dpm.verifier().examine(&spelled, Accept::Peers);
    examined.unwrap();

    client.say_with(bearer(&token)).await.unwrap();
    let again = client.say_with(bearer(&spelled)).await.unwrap_err();

    assert_eq!(reason_of(&again), Some(Reason::TokenReplayed));
}

#[tokio::test]
async fn token_for_another_module_is_not_counted_and_a_missing_role_is_after_it() {
    let strict = Strict::new();
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    let callee = Echo::serve_by(&strict.dpm, admin).await;
    let mut client = Client::new(channel(callee).await);
    let token = strict.token();
    let other = strict.dpe(trusted(&strict.keys.dpm)).issuer();
    let other = other.issue_for(&["elsewhere".to_owned()], Duration::from_secs(300));
    let other = other.unwrap();
    let mut reason = async |token: &str| {
        let refused = client.say_with(bearer(token)).await.unwrap_err();
        reason_of(&refused).unwrap()
    };

    // The audience is checked before, the role after.
    assert_eq!(reason(other.expose()).await, Reason::AudienceMismatch);
    assert_eq!(reason(other.expose()).await, Reason::AudienceMismatch);
    assert_eq!(reason(&token).await, Reason::RoleMissing);
    assert_eq!(reason(&token).await, Reason::TokenReplayed);
}

#[tokio::test]
async fn of_many_uses_at_once_exactly_one_is_answered() {
    let strict = Strict::new();
    let channel = channel(Echo::serve(&strict.dpm).await).await;
    for _ in 0..10 {
        let token = strict.token();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (mut client, request) = (Client::new(channel.clone()), bearer(&token));
            calls.spawn(async move { client.say_with(request).await });
        }
        let (mut answered, mut replayed) = (0, 0);
        while let Some(call) = calls.join_next().await {
            match call.unwrap() {
                Ok(_) => answered += 1,
                Err(status) => {
                    assert_eq!(reason_of(&status), Some(Reason::TokenReplayed));
                    replayed += 1;
                }
            }
        }
        assert_eq!((answered, replayed), (1, 19));
    }
}

#[tokio::test]
async fn caller_mints_a_token_per_call_where_its_file_says_so() {
    let strict = Strict::new();
    let callee = Echo::serve(&strict.dpm).await;
    let minting = strict.dpe(taking_each_once(&strict.keys.dpm));
    let layer = minting
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(callee).await));
    for _ in 0..5 {
        client.say("x").await.unwrap();
    }

    let reusing = strict.dpe(trusted(&strict.keys.dpm));
    let layer = reusing
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(callee).await));
    client.say("x").await.unwrap();
    let refused = client.say("x").await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::TokenReplayed));
}

#[tokio::test]
async fn restarted_module_refuses_what_the_one_before_it_accepted() {
    let strict = Strict::new();
    let mut client = Client::new(channel(Echo::serve(&strict.dpm).await).await);
    let token = strict.token();
    client.say_with(bearer(&token)).await.unwrap();

    let restarted = Module::builder(strict.keys.dpm.clone())
        .trust(trusted(&strict.keys.dpe))
        .replay(Replay::Strict)
        .clock(Arc::clone(&strict.clock) as Arc<dyn Clock>)
        .build()
        .unwrap();
    let mut client = Client::new(channel(Echo::serve(&restarted).await).await);
    let too_soon = client.say_with(bearer(&strict.token())).await.unwrap_err();
    strict.clock.advance(restarted.not_ready_for().unwrap());
    let again = client.say_with(bearer(&token)).await.unwrap_err();

    assert_eq!(reason_of(&too_soon), Some(Reason::TokenReplayed));
    assert!(
        too_soon.message().contains("has just started"),
        "{too_soon:?}"
    );
    assert_eq!(reason_of(&again), Some(Reason::TokenReplayed));
    client.say_with(bearer(&strict.token())).await.unwrap();
}

#[tokio::test]
async fn strict_dpm_is_not_serving_until_the_watermark_has_passed() {
    let keys = Keys::new();
    let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
    let module = Module::builder(keys.dpm.clone())
        .trust(trusted(&keys.dpe))
        .replay(Replay::Strict)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(module.clone()).await;
    let mut health = HealthClient::new(channel(dpm.address).await);
    let request = HealthCheckRequest::default;

    let early = health.check(request()).await.unwrap().into_inner();
    assert_eq!(early.status(), ServingStatus::NotServing);

    clock.advance(Duration::from_secs(31));
    let mut watched = health.watch(request()).await.unwrap().into_inner();
    let serving = async {
        while watched.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    };
    soon("SERVING", serving).await;
}

#[tokio::test]
async fn strict_pair_registers_and_stays_ready() {
    let keys = Keys::new();
    let strict = |own: &OwnDeployment, peer: &OwnDeployment| {
        let builder = Module::builder(own.clone()).trust(taking_each_once(peer));
        builder
            .policy(quickly_ready())
            .replay(Replay::Strict)
            .build()
            .unwrap()
    };
    let dpm_module = strict(&keys.dpm, &keys.dpe);
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let dpe = RunningDpe::start(strict(&keys.dpe, &keys.dpm), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    // The checks between carry a token of their own each, and so do the heartbeats.
    let since = dpm
        .engine_is(dpe.id, EngineStatus::Ready)
        .await
        .last_seen_at;
    let seen = dpm
        .engine_seen_after(dpe.id, since + Duration::from_millis(200))
        .await;
    assert_eq!(seen.status, EngineStatus::Ready);

    // So do the pages that an operator asks for.
    let mut client = dpm.client_with(&dpm_module.own_module_layer()).await;
    for _ in 0..3 {
        client
            .list_engines(ListEnginesRequest::default())
            .await
            .unwrap();
    }
    dpe.stop().await;
}

#[tokio::test]
async fn two_deployments_with_one_jti_are_both_answered() {
    let strict = Strict::new();
    let other = own_deployment("dpe", "dpe-two");
    let callee = Module::builder(strict.keys.dpm.clone())
        .trust(trusted(&strict.keys.dpe))
        .trust(trusted(&other))
        .replay(Replay::Strict)
        .clock(Arc::clone(&strict.clock) as Arc<dyn Clock>)
        .build()
        .unwrap();
    strict.clock.advance(callee.not_ready_for().unwrap());
    let mut client = Client::new(channel(Echo::serve(&callee).await).await);
    let with_id = |own: &OwnDeployment, id: serde_json::Value| {
        let name = own.name.as_ref().unwrap().as_str();
        let now = strict.clock.now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let mut claims = serde_json::json!({
            "iss": name, "sub": name, "aud": "dpm-dev", "iat": now, "exp": now + 60,
        });
        if !id.is_null() {
            claims["jti"] = id;
        }
        let header = countersign::jose::compact::HeaderSpec {
            typ: "JWT",
            kid: &own.key_id,
        };
        countersign::jose::compact::sign(&header, claims.to_string().as_bytes(), &own.key).unwrap()
    };
    let same = || serde_json::json!("same");

    let first = with_id(&strict.keys.dpe, same());
    client.say_with(bearer(&first)).await.unwrap();
    client
        .say_with(bearer(&with_id(&other, same())))
        .await
        .unwrap();
    let again = client.say_with(bearer(&first)).await.unwrap_err();
    assert_eq!(reason_of(&again), Some(Reason::TokenReplayed));

    let nameless = with_id(&other, serde_json::Value::Null);
    let refused = client.say_with(bearer(&nameless)).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::TokenMalformed));
    assert!(
        refused.message().contains("`jti` is missing"),
        "{refused:?}"
    );
}
