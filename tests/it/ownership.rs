//! Which deployment owns an engine, how many there may be, and what becomes of it when its owner's
//! trust goes.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use countersign::clock::{Clock, ManualClock, SystemClock};
use countersign::engine::EngineStatus;
use countersign::grpc::reason_of;
use countersign::identity::Roles;
use countersign::internals::{Format, LogLayer};
use countersign::proto::registry as wire;
use countersign::testing::{self, own_deployment, trusted};
use countersign::trust::Deployment;
use countersign::{Module, Reason};
use jiff::tz::TimeZone;
use prost::Message as _;
use tonic::Code;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::support::raw::call_registry;
use crate::support::relay::Relay;
use crate::support::world::{
    Keys, RegistryClient, RunningDpe, RunningDpm, free_port, fresh_id, module, now_trusts,
    registration_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_of_two_deployments_for_one_id_leaves_one_owner() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm_module = module(&keys.dpm, &[&keys.dpe, &other]);
    let dpm = RunningDpm::start_with(dpm_module, free_port().await, |options| {
        options.limits.max_new_engines_per_second = 1000;
    });
    let mut mine = dpm.client(&keys.dpe_module()).await;
    let mut others = dpm.client(&module(&other, &[&keys.dpm])).await;
    let address = free_port().await.local_addr().unwrap();

    let mut won = [0, 0];
    for _ in 0..100 {
        let id = fresh_id();
        let request = registration_of(id, address);
        let (a, b) = tokio::join!(
            mine.register_engine(request.clone()),
            others.register_engine(request)
        );

        let (owner, refused) = match (a, b) {
            (Ok(_), Err(refused)) => ("dpe-dev", refused),
            (Err(refused), Ok(_)) => ("dpe-other", refused),
            both => panic!("{both:?}"),
        };
        won[usize::from(owner == "dpe-other")] += 1;
        assert_eq!(reason_of(&refused), Some(Reason::EngineNotOwned));
        assert_eq!(refused.code(), Code::PermissionDenied);
        let engine = dpm.registry.find(id).await.unwrap().unwrap();
        assert_eq!(&*engine.owner.deployment, owner);
    }

    assert_eq!(won[0] + won[1], 100);
    assert_eq!(dpm.registry.list(None, 1000).await.unwrap().len(), 100);
}

#[tokio::test]
async fn ids_that_differ_in_case_are_one_engine() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let address = free_port().await.local_addr().unwrap();
    let lower = registration_of(fresh_id(), address);
    let upper = wire::RegisterEngineRequest {
        engine_id: lower.engine_id.to_uppercase(),
        ..lower.clone()
    };

    for request in [lower.clone(), upper, lower] {
        client.register_engine(request).await.unwrap();
    }

    assert_eq!(dpm.registry.list(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn thousand_new_ids_in_a_second_are_a_hundred_records() {
    let other = own_deployment("dpe", "dpe-other");
    let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
    let ticking = |own, peers: &[&Deployment]| {
        let builder = Module::builder(own).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let trust = |builder: countersign::grpc::ModuleBuilder, peer: &&Deployment| {
            builder.trust((*peer).clone())
        };
        peers.iter().fold(builder, trust).build().unwrap()
    };
    let keys = Keys::new();
    let (dpe, theirs, registry) = (trusted(&keys.dpe), trusted(&other), trusted(&keys.dpm));
    let dpm = RunningDpm::start(ticking(keys.dpm.clone(), &[&dpe, &theirs])).await;
    let mut mine = dpm.client(&ticking(keys.dpe.clone(), &[&registry])).await;
    let mut others = dpm.client(&ticking(other, &[&registry])).await;
    let address = free_port().await.local_addr().unwrap();

    let mut accepted = 0;
    for _ in 0..1000 {
        match mine
            .register_engine(registration_of(fresh_id(), address))
            .await
        {
            Ok(_) => accepted += 1,
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
        }
    }

    assert_eq!(accepted, 100);
    // What was refused left nothing behind.
    assert_eq!(dpm.registry.list(None, 2000).await.unwrap().len(), 100);
    let register = async |client: &mut RegistryClient| {
        let request = registration_of(fresh_id(), address);
        client.register_engine(request).await
    };
    assert!(register(&mut others).await.is_ok());
    clock.advance(Duration::from_secs(1));
    assert!(register(&mut mine).await.is_ok());
}

#[tokio::test]
async fn revoked_deployment_leaves_ready_within_two_seconds() {
    let keys = Keys::new();
    let dpm_module = keys.dpm_module();
    let dpm = RunningDpm::start_with(dpm_module.clone(), free_port().await, |options| {
        // No check by the clock would notice.
        options.monitor.check_connected_interval = Duration::from_secs(3600);
    });
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let mut client = dpm.client(&keys.dpe_module()).await;

    let mut revoked = trusted(&keys.dpe);
    revoked.keys[0].revoked = true;
    #[expect(
        clippy::disallowed_methods,
        reason = "the promise is in seconds of the clock"
    )]
    let began = Instant::now();
    now_trusts(&dpm_module, vec![revoked]);
    dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;

    assert!(began.elapsed() < Duration::from_secs(2));
    let engine_id = dpe.id.to_string();
    let refused = client
        .heartbeat(wire::HeartbeatRequest {
            engine_id,
            ..Default::default()
        })
        .await;
    assert_eq!(reason_of(&refused.unwrap_err()), Some(Reason::KeyRevoked));
    dpe.stop().await;
}

#[tokio::test]
async fn deployment_without_its_role_is_denied_and_its_engine_leaves_ready() {
    let keys = Keys::new();
    let dpm_module = keys.dpm_module();
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let engine_id = dpe.id.to_string();
    let alive = wire::HeartbeatRequest {
        engine_id,
        ..Default::default()
    };
    client.heartbeat(alive.clone()).await.unwrap();

    let mut without_role = trusted(&keys.dpe);
    without_role.roles = Roles::default();
    now_trusts(&dpm_module, vec![without_role]);

    let refused = client.heartbeat(alive.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
    dpm.reason(
        dpe.id,
        "ROLE_MISSING: `dpe-dev` lacks the role IMPERSONATION",
    )
    .await;
    dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;
    now_trusts(&dpm_module, vec![trusted(&keys.dpe)]);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    client.heartbeat(alive).await.unwrap();
    dpe.stop().await;
}

#[tokio::test]
async fn engine_that_stops_answering_is_disconnected_once_and_comes_back_by_itself() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let proxy = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
    proxy.reroute(Some(dpe.address));
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let before = dpm.written.borrow().len();
    let closed = free_port().await.local_addr().unwrap();

    for nowhere in [None, Some(closed), None] {
        proxy.reroute(nowhere);
        dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;
        let client = &mut dpm.client(&keys.dpe_module()).await;
        let engine_id = dpe.id.to_string();
        // Has it checked at once.
        client
            .heartbeat(wire::HeartbeatRequest {
                engine_id,
                ..Default::default()
            })
            .await
            .unwrap();
    }
    proxy.reroute(Some(dpe.address));
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    let mut statuses = dpm.written.borrow().clone().split_off(before);
    statuses.insert(0, EngineStatus::Ready);
    statuses.dedup();
    let expected = [
        EngineStatus::Ready,
        EngineStatus::Disconnected,
        EngineStatus::Ready,
    ];
    assert_eq!(statuses, expected);
    dpe.stop().await;
}

/// Keeps the log lines of this thread.
fn log() -> (tracing::subscriber::DefaultGuard, Arc<Mutex<Vec<String>>>) {
    // A second subscriber makes tracing ask both, whichever thread meets an event first.
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));

    let lines = Arc::<Mutex<Vec<String>>>::default();
    let sink = Arc::clone(&lines);
    let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC).with_output(
        Format::Json,
        move |line| {
            sink.lock().unwrap().push(line.into());
        },
    );
    let subscriber = tracing_subscriber::registry().with(layer);
    (tracing::subscriber::set_default(subscriber), lines)
}

#[tokio::test]
async fn engine_whose_clock_is_ahead_is_refused_and_the_log_says_by_how_much() {
    let (_guard, lines) = log();
    let pair = testing::pair();
    let ahead = Arc::new(ManualClock::at_unix(1_800_000_000 + 600));
    let dpe = Module::builder(pair.dpe.own())
        .trust(trusted(&pair.dpm.own()))
        // What the DPM says is looked at here, not what the engine makes of its proof's time.
        .proof_mode(countersign::grpc::ProofMode::Off)
        .clock(ahead as Arc<dyn Clock>)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(pair.dpm.clone()).await;
    let mut client = dpm.client(&dpe).await;
    let address = free_port().await.local_addr().unwrap();

    let refused = client
        .register_engine(registration_of(fresh_id(), address))
        .await
        .unwrap_err();

    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason_of(&refused), Some(Reason::TokenNotYetValid));
    let hint = "600 s in the future, leeway 30 s; check NTP on both hosts";
    assert!(refused.message().contains(hint), "{refused}");
    let lines = lines.lock().unwrap().join("\n");
    let rejected = lines
        .lines()
        .find(|line| line.contains("TOKEN_NOT_YET_VALID"))
        .unwrap();
    assert!(rejected.contains(hint), "{rejected}");
}

#[tokio::test]
async fn refused_address_is_one_line_of_the_log_with_its_rule() {
    let (_guard, lines) = log();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut request = registration_of(fresh_id(), dpm.address);
    request.address.as_mut().unwrap().hostname = "169.254.169.254".to_owned();

    client.register_engine(request).await.unwrap_err();

    let lines = lines.lock().unwrap().join("\n");
    let rejected: Vec<serde_json::Value> = lines
        .lines()
        .filter(|line| line.contains("authRejected"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rejected.len(), 1, "{lines}");
    assert_eq!(rejected[0]["reason"], "ADDRESS_NOT_ALLOWED");
    assert_eq!(rejected[0]["fingerprint"], keys.dpe.key_id.as_str());
    let message = rejected[0]["message"].as_str().unwrap();
    assert!(
        message.contains("169.254.169.254 is the metadata"),
        "{message}"
    );
}

/// A field of the wire format with bytes in it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut encoded).unwrap();
    encoded.extend_from_slice(bytes);
    encoded
}

#[tokio::test]
async fn messages_that_no_client_writes_are_answered_and_leave_nothing() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = keys.dpe_module();
    let address = free_port().await.local_addr().unwrap();
    let valid = registration_of(fresh_id(), address).encode_to_vec();
    let with = |extra: &[u8]| [&valid, extra].concat();
    // Groups 15 and up, opened and closed.
    let groups = |depth: usize| [vec![0x7b; depth], vec![0x7c; depth]].concat();
    let port_beyond = [
        field(1, b"0031debd-6130-4b4a-8eaf-7a834555cf33"),
        // `port`, varint 2^32, which protobuf takes for the int32 0.
        field(2, b"\x0a\x01a\x10\x80\x80\x80\x80\x10"),
    ]
    .concat();
    let pair = field(1, &[field(1, b"a"), field(2, b"b")].concat());

    for (name, message, code) in [
        ("empty", Vec::new(), Code::InvalidArgument),
        ("port of 2^32", port_beyond, Code::InvalidArgument),
        (
            "text that is no UTF-8",
            field(1, b"\xff\xfe"),
            Code::Internal,
        ),
        (
            "key that is no UTF-8",
            with(&field(3, &field(1, &field(1, b"\xff")))),
            Code::Internal,
        ),
        ("length beyond the end", with(&[0x1a, 0x7f]), Code::Internal),
        ("group without an end", with(&[0x7b; 200]), Code::Internal),
        (
            "200 groups in each other",
            with(&groups(200)),
            Code::Internal,
        ),
    ] {
        let refused = call_registry(&dpm, &dpe, "RegisterEngine", &message).await;
        assert_eq!(refused.unwrap_err().code(), code, "{name}");
    }
    assert!(dpm.registry.list(None, 10).await.unwrap().is_empty());

    for (name, message) in [
        ("unknown field", with(&field(14, b"x"))),
        ("50 groups in each other", with(&groups(50))),
        (
            "one key twice",
            with(&field(3, &[pair.clone(), pair].concat())),
        ),
    ] {
        let accepted = call_registry(&dpm, &dpe, "RegisterEngine", &message).await;
        assert!(accepted.is_ok(), "{name}: {accepted:?}");
    }
    assert_eq!(dpm.registry.list(None, 10).await.unwrap().len(), 1);
}
