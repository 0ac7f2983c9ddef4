//! 2.9, as far as a gRPC client can go: methods, paths, bodies, deadlines, and many calls at once.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign::Reason::{
    AlgorithmNotAllowed, AudienceMismatch, IssuerMismatch, KeyRevoked, KeyUnknown, RoleMissing,
    SignatureInvalid, TokenExpired, TokenMalformed, TokenMissing,
};
use tokio::task::JoinSet;
use tonic::Code;

use super::callee::{Callee, Raw, ended, request};
use super::peers::Peers;
use super::row::{Call, Outcome};
use crate::support::draft::text;

/// Makes one test a side for each behaviour.
macro_rules! both_sides {
    ($($name:ident $at_the_dpm:ident $at_the_dpe:ident)*) => {
        $(#[tokio::test]
        async fn $at_the_dpm() {
            $name(Callee::dpm().await).await;
        }

        #[tokio::test]
        async fn $at_the_dpe() {
            $name(Callee::dpe().await).await;
        })*
    };
}

both_sides! {
    misspelt_path paths_are_compared_as_bytes_at_the_dpm paths_are_compared_as_bytes_at_the_dpe
    open_methods open_methods_answer_everyone_at_the_dpm open_methods_answer_everyone_at_the_dpe
    streaming strangers_open_no_stream_at_the_dpm strangers_open_no_stream_at_the_dpe
    body identity_comes_before_the_body_at_the_dpm identity_comes_before_the_body_at_the_dpe
    many_headers many_headers_are_answered_at_the_dpm many_headers_are_answered_at_the_dpe
    impatience impatient_callers_do_no_harm_at_the_dpm impatient_callers_do_no_harm_at_the_dpe
    crowd parallel_verdicts_are_not_mixed_up_at_the_dpm parallel_verdicts_are_not_mixed_up_at_the_dpe
}

/// Spellings of a path that some router takes for `path`, and methods that are not served.
fn other_paths(path: &str) -> Vec<String> {
    let (service, method) = path.rsplit_once('/').unwrap();
    vec![
        path.to_lowercase(),
        path.to_uppercase(),
        format!("{service}/{}", method.to_lowercase()),
        format!("/{path}"),
        format!("{service}//{method}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{service}/x/../{method}"),
        format!("{service}/./{method}"),
        format!("/x/..{path}"),
        path.replacen("Engine", "%45ngine", 1),
        format!("{service}%2f{method}"),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path};x=1"),
        format!("{path}?x=1"),
        format!("{path}?"),
        path.replacen('.', "..", 1),
        format!("{service}/"),
        service.to_owned(),
        "/".to_owned(),
        "/*".to_owned(),
        format!("{service}/*"),
        format!("{service}/Unknown"),
        "/countersign.identity.v1.IdentityService/Unknown".to_owned(),
        "/countersign.registry.v2.EngineRegistryService/ListEngines".to_owned(),
        "/unknown.v1.Service/Method".to_owned(),
        "/grpc.channelz.v1.Channelz/GetTopChannels".to_owned(),
    ]
}

/// UNIMPLEMENTED to a known caller, and nothing at all to others.
async fn misspelt_path(callee: Callee) {
    let token = callee.peers.good();
    let forged = callee.peers.draft().sign(&callee.peers.stranger.key);
    for path in other_paths(callee.method) {
        let known = callee
            .call_at(&path, Call::bearer(&token), Vec::new())
            .await;
        let anonymous = callee.call_at(&path, Call::default(), Vec::new()).await;
        let impostor = callee
            .call_at(&path, Call::bearer(&forged), Vec::new())
            .await;

        let answered = Outcome::Answered(Code::Unimplemented).check(&known);
        answered.unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let missing = Outcome::Refused(TokenMissing).check(&anonymous);
        missing.unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let refused = Outcome::Refused(SignatureInvalid).check(&impostor);
        refused.unwrap_or_else(|fault| panic!("{path}: {fault}"));
    }
    callee.still_serves().await;
}

/// Health, and reflection where it is on; with whatever token.
async fn open_methods(callee: Callee) {
    let forged = callee.peers.draft().sign(&callee.peers.stranger.key);
    let health = "/grpc.health.v1.Health/Check";
    for call in [
        Call::default(),
        Call::bearer(&forged),
        Call::bearer("a.b.c"),
    ] {
        let status = callee.call_at(health, call.clone(), Vec::new()).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let messages = tokio_stream::iter([Vec::new()]);
            let mut grpc = callee.client().await;
            let call = request(call.clone(), messages);
            let reply = grpc.streaming(call, path.parse().unwrap(), Raw).await;
            assert_eq!(ended(reply).code(), Code::Ok);
        }
    }
}

async fn streaming(callee: Callee) {
    let forged = callee.peers.draft().sign(&callee.peers.stranger.key);
    let path = || callee.method.parse().unwrap();
    for (call, reason) in [
        (Call::default(), TokenMissing),
        (Call::bearer("a.b"), TokenMalformed),
        (Call::bearer(&forged), SignatureInvalid),
    ] {
        let messages = || tokio_stream::iter([Vec::new(), Vec::new()]);
        let mut grpc = callee.client().await;
        let one_to_many = grpc
            .server_streaming(request(call.clone(), Vec::new()), path(), Raw)
            .await;
        let mut grpc = callee.client().await;
        let many_to_one = grpc
            .client_streaming(request(call.clone(), messages()), path(), Raw)
            .await;
        let mut grpc = callee.client().await;
        let many_to_many = grpc.streaming(request(call, messages()), path(), Raw).await;

        for status in [ended(one_to_many), ended(many_to_one), ended(many_to_many)] {
            Outcome::Refused(reason).check(&status).unwrap();
        }
    }
    callee.still_serves().await;
}

async fn body(callee: Callee) {
    let garbage = || vec![0xff; 100];
    let large = || vec![0; 5 << 20];
    let token = callee.peers.good();
    for (call, message, outcome) in [
        (Call::default(), garbage(), Outcome::Refused(TokenMissing)),
        (
            Call::bearer("x"),
            garbage(),
            Outcome::Refused(TokenMalformed),
        ),
        (Call::default(), large(), Outcome::Refused(TokenMissing)),
        (
            Call::bearer(&token),
            garbage(),
            Outcome::Answered(Code::Internal),
        ),
        (
            Call::bearer(&token),
            large(),
            Outcome::Answered(Code::OutOfRange),
        ),
        (
            Call::bearer(&token).with("grpc-encoding", "unknown"),
            Vec::new(),
            Outcome::Answered(Code::Unimplemented),
        ),
    ] {
        let status = callee.call_at(callee.method, call, message).await;
        outcome.check(&status).unwrap();
        callee.still_serves().await;
    }
}

/// The header list of a call is bounded at 16 KiB; what fits is judged, what does not is cut off.
async fn many_headers(callee: Callee) {
    let token = callee.peers.good();
    let bearer = format!("Bearer {token}");
    let times = |n: usize, call: Call, name: &str, value: &str| {
        (0..n).fold(call, |call, _| call.with(name, value))
    };
    let malformed = Outcome::Refused(TokenMalformed);
    for (call, outcome) in [
        (
            times(20, Call::default(), "authorization", &bearer),
            malformed,
        ),
        (
            times(300, Call::default(), "authorization", "Bearer x"),
            malformed,
        ),
        (times(200, Call::bearer(&token), "x-junk", "j"), Outcome::Ok),
    ] {
        let status = callee.call(call).await;
        outcome.check(&status).unwrap();
    }
    for call in [
        times(300, Call::default(), "authorization", &bearer),
        times(500, Call::bearer(&token), "x-junk", &"j".repeat(20)),
        Call::bearer(&token).with("x-junk", &"j".repeat(64_000)),
        Call::bearer(&"a".repeat(20_000)),
        Call::bearer(&"a".repeat(60_000)),
    ] {
        let status = callee.call(call).await;
        assert_ne!(status.code(), Code::Ok);
        callee.still_serves().await;
    }
}

/// Deadlines of all sizes, and callers that go away.
async fn impatience(callee: Callee) {
    let token = callee.peers.good();
    for timeout in ["0n", "1m", "99999999H", "-1S", "1x", "", "999999999S"] {
        let call = Call::bearer(&token).with("grpc-timeout", timeout);
        let status = callee.call(call).await;
        let allowed = [Code::Ok, Code::DeadlineExceeded, Code::Cancelled];
        assert!(allowed.contains(&status.code()), "{timeout:?}: {status:?}");
    }
    for _ in 0..50 {
        let call = callee.call(Call::bearer(&token));
        // Dropped after its request left, or before.
        let _left = tokio::time::timeout(Duration::from_micros(300), call).await;
    }
    callee.still_serves().await;
}

/// Calls of every kind, and what each must come to.
fn kinds(peers: &Peers) -> Vec<(Call, Outcome)> {
    let draft = peers.draft();
    let key = &peers.caller.key;
    let revoked = text(&peers.revoked.fingerprint().to_string());
    let reader = peers.draft_of(&peers.reader).sign(&peers.reader.key);
    let unknown = peers.draft_of(&peers.stranger).sign(&peers.stranger.key);
    let refused = [
        (draft.sign(&peers.stranger.key), SignatureInvalid),
        (unknown, KeyUnknown),
        (reader, RoleMissing),
        ("a.b.c".to_owned(), TokenMalformed),
        (
            draft.clone().header("alg", "\"none\"").sign(key),
            AlgorithmNotAllowed,
        ),
        (draft.clone().claim("exp", "1").sign(key), TokenExpired),
        (
            draft.clone().claim("iss", "\"x\"").sign(key),
            IssuerMismatch,
        ),
        (
            draft.clone().claim("aud", "\"x\"").sign(key),
            AudienceMismatch,
        ),
        (
            draft.header("kid", revoked).sign(&peers.revoked),
            KeyRevoked,
        ),
    ];
    let refused = refused.map(|(token, reason)| (Call::bearer(&token), Outcome::Refused(reason)));
    let mut kinds = vec![(Call::default(), Outcome::Refused(TokenMissing))];
    kinds.extend(refused);
    // As many good ones again.
    let good = (0..10).map(|_| (Call::bearer(&peers.good()), Outcome::Ok));
    kinds.extend(good);
    kinds
}

async fn crowd(callee: Callee) {
    let kinds = kinds(&callee.peers);
    assert_eq!(kinds.len(), 20);
    let mut calls = JoinSet::new();
    for n in 0..400 {
        let (call, outcome) = kinds[n % kinds.len()].clone();
        let mut grpc = callee.client().await;
        let path = callee.method.parse().unwrap();
        calls.spawn(async move {
            let status = ended(grpc.unary(request(call, Vec::new()), path, Raw).await);
            outcome.check(&status)
        });
    }

    let mut verdicts = BTreeMap::new();
    while let Some(verdict) = calls.join_next().await {
        let verdict = verdict.unwrap().err().unwrap_or_default();
        *verdicts.entry(verdict).or_insert(0) += 1;
    }

    assert_eq!(verdicts, BTreeMap::from([(String::new(), 400)]));
}
