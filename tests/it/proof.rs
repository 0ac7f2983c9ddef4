//! Who answered? The callee's proof, over real sockets and with a middlebox in between.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign::clock::SystemClock;
use countersign::dpe::Registration;
use countersign::engine::EngineStatus;
use countersign::grpc::{
    AttachIdentity, Connection, NONCE, PROOF, ProofMode, Proved, is_proved, reason_of,
};
use countersign::identity::{Role, Roles};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::proto::registry::{HeartbeatRequest, ListEnginesRequest};
use countersign::testing::{own_deployment, trusted};
use countersign::token::Nonce;
use countersign::token::proof::{Exchange, ProofSigner};
use countersign::trust::TrustStore;
use countersign::{Module, Reason, Rule, testing};
use http::header::HeaderValue;
use http::{HeaderMap, Response};
use http_body::Frame;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tower_layer::Layer as _;

use crate::support::echo::{Client, Echo};
use crate::support::logs::Logs;
use crate::support::middlebox::Middlebox;
use crate::support::world::{
    Keys, RegistryClient, RunningDpe, RunningDpm, channel, module, registration_of, soon,
};

const REGISTER: &str = "/countersign.registry.v1.EngineRegistryService/RegisterEngine";
const HEARTBEAT: &str = "/countersign.registry.v1.EngineRegistryService/Heartbeat";
const LIST: &str = "/countersign.registry.v1.EngineRegistryService/ListEngines";
const WHO_AM_I: &str = "/countersign.identity.v1.IdentityService/WhoAmI";

fn dpe_that_asks(keys: &Keys, mode: ProofMode) -> Module {
    Module::builder(keys.dpe.clone())
        .trust(trusted(&keys.dpm))
        .proof_mode(mode)
        .build()
        .unwrap()
}

/// A DPM's echo, a middlebox before it, and a DPE that asks for every proof.
async fn tampered(
    mischief: impl Fn(&http::request::Parts, &mut Response<Body>) + Send + Sync + 'static,
) -> (Middlebox, Client<AttachIdentity<Connection>>) {
    let keys = Keys::new();
    let callee = Echo::serve(&keys.dpm_module()).await;
    let middlebox = Middlebox::before(callee, mischief).await;
    let dpe = dpe_that_asks(&keys, ProofMode::EveryCall);
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let client = Client::new(layer.layer(channel(middlebox.address).await));
    (middlebox, client)
}

/// Turns a reply of trailers alone into headers and trailers, as proxies may.
fn split(reply: &mut Response<Body>) {
    let trailers: HeaderMap = std::mem::take(reply.headers_mut());
    let content_type = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert("content-type", content_type);
    *reply.body_mut() = Body::new(OneFrame(Some(Frame::trailers(trailers))));
}

struct OneFrame(Option<Frame<Bytes>>);

impl http_body::Body for OneFrame {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Status>>> {
        std::task::Poll::Ready(self.0.take().map(Ok))
    }
}

#[tokio::test]
async fn mode_decides_which_calls_ask() {
    use ProofMode::{EveryCall, Handshake, Off};
    for (mode, who_am_i, register, others) in [
        (Off, false, false, false),
        (Handshake, true, true, false),
        (EveryCall, true, true, true),
    ] {
        let keys = Keys::new();
        let dpm = RunningDpm::start(keys.dpm_module()).await;
        let middlebox = Middlebox::before(dpm.address, |_, _| ()).await;
        let module = dpe_that_asks(&keys, mode);
        let layer = module
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        let channel = layer.layer(channel(middlebox.address).await);

        let mut client = IdentityServiceClient::new(channel.clone());
        let answer = client.who_am_i(WhoAmIRequest {}).await.unwrap();
        assert_eq!(answer.extensions().get::<Proved>().is_some(), who_am_i);
        let id = crate::support::world::fresh_id();
        let mut client = RegistryClient::new(channel);
        let request = registration_of(id, middlebox.address);
        let answer = client.register_engine(request).await.unwrap();
        assert_eq!(answer.extensions().get::<Proved>().is_some(), register);
        let engine_id = id.to_string();
        client
            .heartbeat(HeartbeatRequest {
                engine_id,
                ..Default::default()
            })
            .await
            .unwrap();
        let list = ListEnginesRequest::default();
        client.list_engines(list).await.unwrap();

        let asked = [WHO_AM_I, REGISTER, HEARTBEAT, LIST].map(|path| middlebox.last_asked(path));
        assert_eq!(asked, [who_am_i, register, others, others], "{mode:?}");
    }
}

#[tokio::test]
async fn module_asks_itself_for_no_proof() {
    let keys = Keys::new();
    let module = Module::builder(keys.dpm.clone())
        .trust(trusted(&keys.dpe))
        .proof_mode(ProofMode::EveryCall)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(module.clone()).await;
    let middlebox = Middlebox::before(dpm.address, |_, _| ()).await;
    let layer = module.own_module_layer();
    let mut client = RegistryClient::new(layer.layer(channel(middlebox.address).await));

    client
        .list_engines(ListEnginesRequest::default())
        .await
        .unwrap();

    assert!(!middlebox.last_asked(LIST));
}

#[tokio::test]
async fn every_call_is_proved_unary_and_streaming() {
    let (_middlebox, mut client) = tampered(|_, _| ()).await;

    let said = client.say("x").await.unwrap();
    assert!(said.extensions().get::<Proved>().is_some());
    let (more, messages) = tokio::sync::mpsc::channel(1);
    more.send("x".to_owned()).await.unwrap();
    drop(more);
    assert_eq!(client.collect(messages).await.unwrap(), "1");
    let chat = client.chat().await.unwrap();
    assert!(chat.extensions().get::<Proved>().is_some());
    let (send, mut replies) = chat.into_inner();
    send.send("x".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn ok_reply_without_its_proof_is_not_handed_over() {
    let (_middlebox, mut client) = tampered(|_, reply| {
        reply.headers_mut().remove(PROOF).unwrap();
    })
    .await;

    let said = client.say("x").await.unwrap_err();
    assert_eq!(reason_of(&said), Some(Reason::ProofMissing));
    assert_eq!(said.code(), Code::Unauthenticated);
    let (more, messages) = tokio::sync::mpsc::channel(1);
    drop(more);
    let collected = client.collect(messages).await.unwrap_err();
    assert_eq!(reason_of(&collected), Some(Reason::ProofMissing));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    send.send("x".to_owned()).await.unwrap();
    let heard = replies.message().await.unwrap_err();
    assert_eq!(reason_of(&heard), Some(Reason::ProofMissing));
    assert!(!is_proved(&heard));
}

#[tokio::test]
async fn stream_that_ends_well_without_a_message_or_proof_is_not_believed() {
    for headers_only in [true, false] {
        let (_middlebox, mut client) = tampered(move |_, reply| {
            reply.headers_mut().remove(PROOF).unwrap();
            *reply.body_mut() = Body::empty();
            let ok = HeaderValue::from_static("0");
            reply.headers_mut().insert(Status::GRPC_STATUS, ok);
            if !headers_only {
                split(reply);
            }
        })
        .await;

        let refused = match client.chat().await {
            Err(refused) => refused,
            Ok(chat) => chat.into_inner().1.message().await.unwrap_err(),
        };

        assert_eq!(
            reason_of(&refused),
            Some(Reason::ProofMissing),
            "{headers_only}"
        );
    }
}

#[tokio::test]
async fn refusal_without_a_proof_is_passed_on_unchanged_and_unproved() {
    for split_up in [false, true] {
        let (_middlebox, mut client) = tampered(move |_, reply| {
            reply.headers_mut().remove(PROOF).unwrap();
            if split_up {
                split(reply);
            }
        })
        .await;

        let refused = client.say("").await.unwrap_err();

        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.message(), "nothing was said");
        assert!(!is_proved(&refused), "{split_up}");
    }
}

#[tokio::test]
async fn refusal_with_a_proof_is_proved_in_headers_or_trailers() {
    for split_up in [false, true] {
        let (_middlebox, mut client) = tampered(move |_, reply| {
            if split_up {
                split(reply);
            }
        })
        .await;

        let refused = client.say("").await.unwrap_err();

        assert_eq!(refused.code(), Code::NotFound);
        assert!(is_proved(&refused), "{split_up}");
    }
}

#[tokio::test]
async fn refusals_after_verification_are_proved_and_those_before_are_not() {
    let keys = Keys::new();
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    let callee = Echo::serve_by(&keys.dpm_module(), admin).await;
    let dpe = dpe_that_asks(&keys, ProofMode::EveryCall);
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();

    let mut client = Client::new(layer.layer(channel(callee).await));
    let refused = client.say("x").await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
    assert!(is_proved(&refused));

    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut unserved = Client::new(layer.layer(channel(dpm.address).await));
    let refused = unserved.say("x").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(is_proved(&refused));

    let stranger = module(&own_deployment("dpe", "dpe-dev"), &[&keys.dpm]);
    let layer = stranger
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let asking = layer.require_proof(stranger.proof_verifier(), None);
    let mut client = Client::new(asking.layer(channel(callee).await));
    let refused = client.say("x").await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::KeyUnknown));
    assert!(!is_proved(&refused));
}

#[tokio::test]
async fn expired_token_is_refused_with_a_proof_and_one_for_another_module_without() {
    let pair = testing::pair();
    let callee = Echo::serve(&pair.dpm).await;
    let mut client = Client::new(channel(callee).await);
    let issue = |audience: &str| {
        let life = std::time::Duration::from_secs(300);
        let token = pair.dpe.issuer().issue_for(&[audience.to_owned()], life);
        token.unwrap().expose().to_owned()
    };
    let (ours, other) = (issue("dpm-dev"), issue("dpm-prod"));
    let mut refused = async |token: &str| {
        let mut request = Request::new("x".to_owned());
        let metadata = request.metadata_mut();
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        metadata.insert("authorization", value);
        metadata.insert(NONCE, "AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap());
        let refused = client.say_with(request).await.unwrap_err();
        let signed = refused.metadata().contains_key(PROOF);
        (reason_of(&refused).unwrap(), signed)
    };

    assert_eq!(refused(&other).await, (Reason::AudienceMismatch, false));
    pair.clock.advance(std::time::Duration::from_secs(1000));
    assert_eq!(refused(&ours).await, (Reason::TokenExpired, true));
    assert_eq!(refused(&other).await, (Reason::TokenExpired, false));
}

#[tokio::test]
async fn two_proofs_are_none() {
    let (_middlebox, mut client) = tampered(|_, reply| {
        let proof = reply.headers()[PROOF].clone();
        reply.headers_mut().append(PROOF, proof);
    })
    .await;

    let refused = client.say("x").await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid));
    assert!(refused.message().contains("two proofs"), "{refused:?}");
}

#[tokio::test]
async fn proof_of_an_earlier_call_does_not_hold() {
    let first: Arc<Mutex<Option<HeaderValue>>> = Arc::default();
    let (_middlebox, mut client) = tampered(move |_, reply| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = reply.headers()[PROOF].clone();
        let replayed = first.get_or_insert(fresh).clone();
        reply.headers_mut().insert(PROOF, replayed);
    })
    .await;

    client.say("x").await.unwrap();
    let refused = client.say("x").await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid));
    let expected = "its `nonce` is not this call's";
    assert!(refused.message().contains(expected), "{refused:?}");
}

#[tokio::test]
async fn proof_of_another_callee_method_or_token_does_not_hold() {
    let other = own_deployment("dpm", "dpm-dev");
    for (part, expected) in [
        ("key", "which is not an active key of `dpm-dev`"),
        ("method", "its `m` is not this call's"),
        ("token", "its `th` is not this call's"),
        ("caller", "its `aud` is not this call's"),
    ] {
        let keys = Keys::new();
        let signer = match part {
            "key" => other.clone(),
            _ => keys.dpm.clone(),
        };
        let callee = Echo::serve(&keys.dpm_module()).await;
        let middlebox = Middlebox::before(callee, move |head, reply| {
            let header = |name| head.headers[name].to_str().unwrap();
            let token = header("authorization").strip_prefix("Bearer ").unwrap();
            let nonce: Nonce = header(NONCE).parse().unwrap();
            let changed = |of: &str| part == of;
            let exchange = Exchange {
                caller: if changed("caller") {
                    "dpe-prod"
                } else {
                    "dpe-dev"
                },
                nonce,
                token: if changed("token") { "a.b.c" } else { token },
                path: if changed("method") {
                    "/a.B/C"
                } else {
                    head.uri.path()
                },
            };
            let signer = ProofSigner::new(
                Arc::new(TrustStore::alone(signer.clone())),
                Arc::new(SystemClock),
            );
            let proof = signer.sign(&exchange, None).unwrap();
            let proof = HeaderValue::try_from(proof).unwrap();
            reply.headers_mut().insert(PROOF, proof);
        })
        .await;
        let dpe = dpe_that_asks(&keys, ProofMode::EveryCall);
        let layer = dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        let mut client = Client::new(layer.layer(channel(middlebox.address).await));

        let refused = client.say("x").await.unwrap_err();

        assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid), "{part}");
        assert!(refused.message().contains(expected), "{refused:?}");
    }
}

#[tokio::test]
async fn token_is_never_taken_for_a_proof() {
    let keys = Keys::new();
    let dpm = keys.dpm_module();
    let callee = Echo::serve(&dpm).await;
    let about_us = trusted(&keys.dpe);
    let middlebox = Middlebox::before(callee, move |_, reply| {
        let token = dpm.issuer().issue(&about_us).unwrap();
        let value = HeaderValue::from_str(token.expose()).unwrap();
        reply.headers_mut().insert(PROOF, value);
    })
    .await;
    let dpe = dpe_that_asks(&keys, ProofMode::EveryCall);
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(middlebox.address).await));

    let refused = client.say("x").await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid));
    assert!(
        refused.message().contains("its `typ` is `JWT`"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn proof_is_never_taken_for_a_token() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    // Both are called `dpe-dev` and `dpm-dev` to each other, and each serves.
    let proofs: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&proofs);
    let callee = Echo::serve(&keys.dpm_module()).await;
    let middlebox = Middlebox::before(callee, move |_, reply| {
        let proof = reply.headers()[PROOF].to_str().unwrap().to_owned();
        kept.lock().unwrap().push(proof);
    })
    .await;
    let dpe = dpe_that_asks(&keys, ProofMode::EveryCall);
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(middlebox.address).await));
    client.say("x").await.unwrap();
    let proof = proofs.lock().unwrap().pop().unwrap();

    let mut own = Client::new(channel(Echo::serve(&dpe).await).await);
    let mut request = Request::new("x".to_owned());
    let value = MetadataValue::try_from(format!("Bearer {proof}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    let refused = own.say_with(request).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::TokenMalformed));
    let detail = "`typ` is `countersign-proof+jwt`, expected `JWT` or none";
    logs.line(&["authRejected", "TOKEN_MALFORMED", detail])
        .await;
}

#[tokio::test]
async fn proof_that_was_not_requested_is_ignored() {
    let keys = Keys::new();
    let callee = Echo::serve(&keys.dpm_module()).await;
    let middlebox = Middlebox::before(callee, |_, reply| {
        let forged = HeaderValue::from_static("a.b.c");
        reply.headers_mut().insert(PROOF, forged);
    })
    .await;
    let dpe = dpe_that_asks(&keys, ProofMode::Off);
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(middlebox.address).await));

    let said = client.say("x").await.unwrap();
    let refused = client.say("").await.unwrap_err();

    assert!(!said.metadata().contains_key(PROOF));
    assert!(!is_proved(&refused));
}

#[tokio::test]
async fn broken_status_details_harm_no_caller() {
    for split_up in [false, true] {
        let (_middlebox, mut client) = tampered(move |_, reply| {
            let broken = HeaderValue::from_static("!");
            let name = Status::GRPC_STATUS_DETAILS;
            reply.headers_mut().insert(name, broken);
            if split_up {
                split(reply);
            }
        })
        .await;

        let refused = client.say("").await.unwrap_err();

        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.details(), b"");
    }
}

#[tokio::test]
async fn engine_does_not_register_with_a_dpm_that_proves_nothing() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let middlebox = Middlebox::before(dpm.address, |head, reply| {
        if head.uri.path() == REGISTER {
            reply.headers_mut().remove(PROOF);
        }
    })
    .await;
    let dpe = RunningDpe::start(keys.dpe_module(), middlebox.address);

    // Two refused registrations: it keeps trying, and believes none.
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let twice = async {
        while middlebox.calls(REGISTER) < 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("a second registration", twice).await;

    assert_eq!(*dpe.registration.borrow(), Registration::Absent);
    assert_eq!(middlebox.calls(HEARTBEAT), 0);
    dpe.stop().await;
}

#[tokio::test]
async fn unproved_refusal_of_a_heartbeat_changes_nothing() {
    for status in [
        Status::not_found("no such engine"),
        countersign::grpc::refuse(Reason::KeyRevoked, None),
    ] {
        let keys = Keys::new();
        let dpm = RunningDpm::start(keys.dpm_module()).await;
        let middlebox = Middlebox::before(dpm.address, move |head, reply| {
            if head.uri.path() == HEARTBEAT {
                *reply = status.clone().into_http();
            }
        })
        .await;
        let dpe = RunningDpe::start(keys.dpe_module(), middlebox.address);
        let mut registration = dpe.registration.clone();
        let present = |seen: &Registration| *seen != Registration::Absent;
        soon("a registration", registration.wait_for(present))
            .await
            .unwrap();
        let before = middlebox.calls(REGISTER);

        // Each forged refusal makes the engine ask again, and the proved answer settles it.
        let lost = async {
            registration.wait_for(|seen| !present(seen)).await.unwrap();
        };
        let asked = async {
            while middlebox.calls(REGISTER) < before + 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = lost => panic!("a forged refusal unregistered the engine"),
            () = soon("three more registrations", asked) => {}
        }
        dpe.stop().await;
    }
}

#[tokio::test]
async fn engine_that_was_refused_without_proof_still_deregisters() {
    const DEREGISTER: &str = "/countersign.registry.v1.EngineRegistryService/DeregisterEngine";
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let middlebox = Middlebox::before(dpm.address, move |head, reply| {
        if head.uri.path() == REGISTER {
            *reply = countersign::grpc::refuse(Reason::KeyUnknown, None).into_http();
        }
    })
    .await;
    let dpe = RunningDpe::start(keys.dpe_module(), middlebox.address);
    let id = dpe.id;
    dpm.engine_is(id, EngineStatus::Ready).await;

    dpe.stop().await;

    assert_eq!(middlebox.calls(DEREGISTER), 1);
    dpm.engine_is(id, EngineStatus::Inactive).await;
}

#[tokio::test]
async fn role_that_is_missing_at_the_dpm_is_a_proved_refusal() {
    let keys = Keys::new();
    let mut without_role = trusted(&keys.dpe);
    without_role.roles = Roles::default();
    let dpm_module = Module::builder(keys.dpm.clone())
        .trust(without_role)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(dpm_module).await;

    let mut client = dpm.client(&keys.dpe_module()).await;
    let request = registration_of(crate::support::world::fresh_id(), dpm.address);
    let refused = client.register_engine(request).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
    assert!(is_proved(&refused));
}
