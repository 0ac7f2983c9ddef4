mod history;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::instrument::WithSubscriber as _;

use super::*;
use crate::clock::ManualClock;
use crate::engine::{DialBackFailure, FailureKind, Instance};
use crate::identity::{ModuleType, Role, Roles, ServiceIdentity};
use crate::registry::store::{
    Counts, EngineStore, Expected, MemoryStore, Revision, StoreError, StoreFuture, Stored,
};
use crate::telemetry::{Format, capture};

struct World {
    clock: Arc<ManualClock>,
    registry: Arc<EngineRegistry>,
}

impl World {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        Self::with_store(MemoryStore::default(), limits)
    }

    fn with_store(store: impl EngineStore, limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let dyn_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let registry = EngineRegistry::new(Arc::new(store), dyn_clock, limits);
        Self {
            clock,
            registry: Arc::new(registry),
        }
    }

    async fn register(&self, deployment: &str, n: u8) -> Result<Arc<Engine>, RegistryError> {
        self.register_at(deployment, n, 8532).await
    }

    async fn register_at(
        &self,
        deployment: &str,
        n: u8,
        port: i64,
    ) -> Result<Arc<Engine>, RegistryError> {
        let address = EngineAddress::new("dpe.example.org", port).unwrap();
        let constraints = EngineConstraints::default();
        self.registry
            .register(&caller(deployment), id(n), address, constraints)
            .await
    }

    async fn checked(&self, engine: &Engine, outcome: CheckOutcome) -> Arc<Engine> {
        self.registry.record_check(engine, &outcome).await.unwrap()
    }

    async fn ready(&self, n: u8) -> Arc<Engine> {
        let engine = self.register("dpe-dev", n).await.unwrap();
        self.checked(&engine, CheckOutcome::Proved).await
    }
}

fn id(n: u8) -> EngineId {
    EngineId::from_random([n; 16])
}

fn caller(deployment: &str) -> Registrant {
    let roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);
    Registrant {
        identity: ServiceIdentity::new(ModuleType::new("dpe").unwrap(), deployment, roles),
        environment: None,
        fingerprint: "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM".into(),
        over_loopback: true,
        instance: None,
        heartbeat_interval: None,
    }
}

fn failed(detail: &str) -> CheckOutcome {
    CheckOutcome::Failed(DialBackFailure::new(FailureKind::NotReached, detail))
}

/// What the record says of the dial-back that failed.
fn detail(engine: &Engine) -> Option<&str> {
    Some(&engine.dial_back_failure.as_ref()?.detail)
}

/// Runs `scene` and returns the ids of the events that it logs, with two members of interest.
async fn logged(scene: impl Future<Output = ()>) -> Vec<String> {
    let clock = Arc::new(ManualClock::at_unix(0));
    let (subscriber, lines) = capture::subscriber(Format::Json, clock);
    scene.with_subscriber(subscriber).await;
    let words = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let member = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let words = ["eventId", "oldStatus", "newStatus", "detail"].map(member);
        words.join(" ").trim().to_owned()
    };
    lines.take().iter().map(words).collect()
}

fn process(n: u8) -> Registrant {
    Registrant {
        instance: Some(Instance::from_random([n; 16])),
        ..caller("dpe-dev")
    }
}

#[tokio::test]
async fn call_of_another_process_changes_nothing() {
    let world = World::new();
    let (address, constraints) = (
        EngineAddress::new("dpe.example.org", 8532).unwrap(),
        EngineConstraints::default(),
    );
    let registered = world
        .registry
        .register(&process(1), id(1), address, constraints)
        .await
        .unwrap();
    let ready = world.checked(&registered, CheckOutcome::Proved).await;
    world.clock.advance(Duration::from_secs(1));

    let answer = world.registry.heartbeat(&process(2), id(1)).await.unwrap();
    assert_eq!((&answer, answer.instance), (&ready, process(1).instance));
    let left = world.registry.deregister(&process(2), id(1)).await.unwrap();
    assert_eq!(left, ready);
    // An older engine names no process.
    let alive = world.registry.heartbeat(&caller("dpe-dev"), id(1)).await;
    assert!(alive.unwrap().last_seen_at > ready.last_seen_at);
    let left = world.registry.deregister(&process(1), id(1)).await.unwrap();
    assert_eq!(left.status, EngineStatus::Inactive);
}

#[tokio::test]
async fn another_process_at_the_recorded_address_is_not_counted_as_a_new_engine() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 1,
        ..Limits::default()
    });
    let register = |n: u8, port| {
        let address = EngineAddress::new("dpe.example.org", port).unwrap();
        let (world, constraints) = (&world, EngineConstraints::default());
        async move {
            let process = process(n);
            let registered = world
                .registry
                .register(&process, id(1), address, constraints);
            registered.await
        }
    };

    for n in 0..10 {
        assert_eq!(
            register(n, 8532).await.unwrap().instance,
            process(n).instance
        );
    }

    let moved = register(0, 8533).await;
    assert!(matches!(moved, Err(RegistryError::TooFast(1))));
}

#[tokio::test]
async fn another_process_at_the_same_address_begins_as_new_and_an_unnamed_one_does_not() {
    for (before, now, status) in [
        (process(1), process(2), EngineStatus::New),
        (process(1), process(1), EngineStatus::Ready),
        (caller("dpe-dev"), process(1), EngineStatus::Ready),
        (process(1), caller("dpe-dev"), EngineStatus::Ready),
    ] {
        let world = World::new();
        let register = async |process: &Registrant| {
            let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
            let constraints = EngineConstraints::default();
            let registered = world
                .registry
                .register(process, id(1), address, constraints);
            registered.await.unwrap()
        };
        let first = register(&before).await;
        world.checked(&first, CheckOutcome::Proved).await;

        let second = register(&now).await;

        assert_eq!(second.status, status, "{:?}", now.instance);
        assert_eq!(second.instance, now.instance);
    }
}

#[tokio::test]
async fn registration_makes_a_new_engine_of_the_callers_deployment() {
    let world = World::new();

    let engine = world.register("dpe-dev", 1).await.unwrap();

    assert_eq!(engine.status, EngineStatus::New);
    assert_eq!(engine.status_reason.as_deref(), Some(NOT_CHECKED));
    assert_eq!(&*engine.owner.deployment, "dpe-dev");
    assert_eq!(&*engine.owner.module, "dpe");
    assert_eq!(engine.registered_at, world.clock.now());
}

#[tokio::test]
async fn same_registration_again_is_one_record_and_one_line() {
    let world = World::new();

    let lines = logged(async {
        let new = world.register("dpe-dev", 1).await.unwrap();
        let again = world.register("dpe-dev", 1).await.unwrap();
        assert_eq!(new, again);
        world.checked(&new, CheckOutcome::Proved).await;
        let ready = world.register("dpe-dev", 1).await.unwrap();
        assert_eq!(ready.status, EngineStatus::Ready);
        assert_eq!(ready.status_reason, None);
    })
    .await;

    assert_eq!(lines, ["registerEngine", "setEngineStatus NEW READY"]);
    assert_eq!(world.registry.list(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn new_address_leads_back_to_new() {
    let world = World::new();

    let lines = logged(async {
        world.ready(1).await;
        let moved = world.register_at("dpe-dev", 1, 9000).await.unwrap();
        assert_eq!(moved.status, EngineStatus::New);
        assert_eq!(moved.address.port(), 9000);
        let moved = world.register_at("dpe-dev", 1, 9001).await.unwrap();
        assert_eq!(moved.status, EngineStatus::New);
    })
    .await;

    assert_eq!(
        lines,
        [
            "registerEngine",
            "setEngineStatus NEW READY",
            "registerEngine",
            "setEngineStatus READY NEW",
            "registerEngine",
        ]
    );
}

#[tokio::test]
async fn another_deployment_gets_engine_not_owned_and_changes_nothing() {
    let world = World::new();
    let mine = world.ready(1).await;
    let stranger = caller("dpe-other");

    let registered = world.register_at("dpe-other", 1, 9000).await;
    let alive = world.registry.heartbeat(&stranger, id(1)).await;
    let gone = world.registry.deregister(&stranger, id(1)).await;

    for refused in [registered, alive, gone] {
        assert!(matches!(refused, Err(RegistryError::EngineNotOwned(_))));
    }
    assert_eq!(world.registry.find(id(1)).await.unwrap(), Some(mine));
}

#[tokio::test]
async fn inactive_engine_keeps_its_owner() {
    let world = World::new();
    world.ready(1).await;
    world
        .registry
        .deregister(&caller("dpe-dev"), id(1))
        .await
        .unwrap();

    let stolen = world.register("dpe-other", 1).await;
    let back = world.register("dpe-dev", 1).await.unwrap();

    assert!(matches!(stolen, Err(RegistryError::EngineNotOwned(_))));
    assert_eq!(back.status, EngineStatus::New);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_for_one_id_leaves_one_owner() {
    let world = Arc::new(World::new());
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..100 {
        let world = Arc::clone(&world);
        racers.spawn(async move { world.register(&format!("dpe-{n}"), 1).await });
    }

    let results = racers.join_all().await;

    let won: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(world.registry.list(None, 9).await.unwrap(), won);
}

#[tokio::test]
async fn limits_hold_for_a_deployment_and_for_all() {
    let world = World::with_limits(Limits {
        max_engines: 3,
        max_engines_per_deployment: 2,
        ..Limits::default()
    });
    for n in [1, 2] {
        world.register("dpe-a", n).await.unwrap();
    }

    let third = world.register("dpe-a", 3).await;
    assert!(matches!(third, Err(RegistryError::DeploymentFull(2))));
    world.register("dpe-b", 4).await.unwrap();
    let fifth = world.register("dpe-c", 5).await;
    assert!(matches!(fifth, Err(RegistryError::RegistryFull(3))));
    world.register("dpe-a", 1).await.unwrap();
}

/// A store that writes once so many writers are there.
#[derive(Debug)]
struct Together(MemoryStore, tokio::sync::Barrier);

impl EngineStore for Together {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        self.0.find(id)
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        self.0.page(after, limit)
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        self.0.count(deployment)
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move {
            self.1.wait().await;
            self.0.replace(engine, expected).await
        })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        self.0.remove(id, revision)
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.0.stalest(deployment)
    }
}

#[tokio::test(start_paused = true)]
async fn engines_are_written_side_by_side_and_the_limit_is_exact() {
    let limits = Limits {
        max_engines_per_deployment: 6,
        ..Limits::default()
    };
    let store = Together(MemoryStore::default(), tokio::sync::Barrier::new(3));
    let world = Arc::new(World::with_store(store, limits));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let world = Arc::clone(&world);
        callers.spawn(async move { world.register("dpe-a", n).await });
    }

    let all = tokio::time::timeout(Duration::from_secs(60), callers.join_all());
    let results = all.await.unwrap();

    let created = results.iter().filter(|done| done.is_ok()).count();
    assert_eq!(created, 6);
    let refused = results.iter().filter_map(|done| done.as_ref().err());
    for error in refused {
        assert!(matches!(error, RegistryError::DeploymentFull(6)), "{error}");
    }
}

#[tokio::test]
async fn oldest_inactive_engine_of_the_deployment_makes_room() {
    let world = World::with_limits(Limits {
        max_engines_per_deployment: 3,
        ..Limits::default()
    });
    let leave = async |deployment, n| {
        let gone = world.registry.deregister(&caller(deployment), id(n)).await;
        gone.unwrap();
    };
    let known = async |n| world.registry.find(id(n)).await.unwrap().is_some();
    world.register("dpe-b", 9).await.unwrap();
    leave("dpe-b", 9).await;
    for n in [1, 3, 2] {
        world.register("dpe-a", n).await.unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
    for n in [2, 3] {
        leave("dpe-a", n).await;
    }

    let lines = logged(async {
        world.register("dpe-a", 4).await.unwrap();
    })
    .await;

    // 3 was seen before 2; 1 is not INACTIVE; 9 is another's.
    assert_eq!(lines, ["forgetEngine", "registerEngine"]);
    assert!(known(1).await && known(2).await && !known(3).await && known(9).await);
    world.register("dpe-a", 5).await.unwrap();
    assert!(!known(2).await);
    let full = world.register("dpe-a", 6).await;
    assert!(matches!(full, Err(RegistryError::DeploymentFull(3))));
    // Any deployment may take a forgotten id.
    world.register("dpe-b", 3).await.unwrap();
}

#[tokio::test]
async fn full_registry_forgets_no_engine_of_another_deployment() {
    let world = World::with_limits(Limits {
        max_engines: 2,
        ..Limits::default()
    });
    for n in [1, 2] {
        world.register("dpe-a", n).await.unwrap();
        let gone = world.registry.deregister(&caller("dpe-a"), id(n)).await;
        gone.unwrap();
    }

    let full = world.register("dpe-b", 3).await;

    assert!(matches!(full, Err(RegistryError::RegistryFull(2))));
    world.register("dpe-a", 3).await.unwrap();
    let stolen = world.register("dpe-b", 2).await;
    assert!(matches!(stolen, Err(RegistryError::EngineNotOwned(_))));
}

#[tokio::test]
async fn record_says_whether_it_was_last_registered_over_loopback() {
    let world = World::new();
    let here = world.register("dpe-dev", 1).await.unwrap();
    let elsewhere = Registrant {
        over_loopback: false,
        ..caller("dpe-dev")
    };

    let renewed = world.registry.register(
        &elsewhere,
        id(1),
        here.address.clone(),
        here.constraints.clone(),
    );

    assert!(here.over_loopback);
    assert!(!renewed.await.unwrap().over_loopback);
}

#[tokio::test]
async fn new_ids_are_limited_by_the_second_and_the_deployment() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 2,
        ..Limits::default()
    });
    for n in [1, 2, 1, 2] {
        world.register("dpe-a", n).await.unwrap();
    }

    let third = world.register("dpe-a", 3).await;
    assert!(matches!(third, Err(RegistryError::TooFast(2))));
    world.register("dpe-b", 4).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.register("dpe-a", 3).await.unwrap();
}

#[tokio::test]
async fn moving_engine_counts_against_the_rate_limit() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 3,
        ..Limits::default()
    });
    for port in [1001, 1002, 1003, 1003] {
        world.register_at("dpe-a", 1, port).await.unwrap();
    }

    let fourth = world.register_at("dpe-a", 1, 1004).await;

    assert!(matches!(fourth, Err(RegistryError::TooFast(3))));
    // It is still where it was, may stay there, and takes nothing from others.
    world.register_at("dpe-a", 1, 1003).await.unwrap();
    let other = world.register_at("dpe-b", 1, 1005).await;
    assert!(matches!(other, Err(RegistryError::EngineNotOwned(_))));
    world.register_at("dpe-b", 2, 1005).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let moved = world.register_at("dpe-a", 1, 1004).await.unwrap();
    assert_eq!(moved.address.port(), 1004);
}

/// What an engine offers.
fn offer(word: &str) -> EngineConstraints {
    EngineConstraints::new(BTreeMap::new(), BTreeMap::new(), vec![word.to_owned()]).unwrap()
}

/// A process of `dpe-dev` that signs with the key `fingerprint`.
fn signing_with(fingerprint: &str, n: u8) -> Registrant {
    Registrant {
        fingerprint: fingerprint.into(),
        ..process(n)
    }
}

#[tokio::test]
async fn engine_that_says_something_new_of_itself_counts_as_a_new_one_does() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 3,
        ..Limits::default()
    });
    let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
    let register = async |caller: &Registrant, word: &str| {
        let registered = world
            .registry
            .register(caller, id(1), address.clone(), offer(word));
        registered.await
    };
    let changes = world.registry.store().changes().unwrap();
    let (one, other) = (signing_with("one", 1), signing_with("other", 1));
    register(&one, "a").await.unwrap();
    register(&one, "b").await.unwrap();
    register(&other, "b").await.unwrap();
    let noted = changes.now();

    for (caller, word) in [(&one, "b"), (&other, "c"), (&signing_with("one", 2), "b")] {
        let refused = register(caller, word).await;
        assert!(matches!(refused, Err(RegistryError::TooFast(3))), "{word}");
    }

    // What is known already is no change, and an engine that starts again is let in.
    register(&other, "b").await.unwrap();
    assert_eq!(changes.now(), noted);
    register(&signing_with("other", 2), "b").await.unwrap();
    world.register("dpe-b", 2).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    register(&other, "c").await.unwrap();
}

#[tokio::test]
async fn ten_times_as_many_engines_start_again_in_a_second_as_may_be_new() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 2,
        ..Limits::default()
    });
    let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
    let start = async |caller: &Registrant| {
        let constraints = EngineConstraints::default();
        let registered = world
            .registry
            .register(caller, id(1), address.clone(), constraints);
        registered.await
    };
    start(&process(0)).await.unwrap();
    for n in 1..=10 {
        start(&process(n)).await.unwrap();
        // One that does not say which process it is, too.
        start(&caller("dpe-dev")).await.unwrap();
    }

    for again in [process(11), process(12)] {
        let refused = start(&again).await;
        assert!(matches!(refused, Err(RegistryError::TooFast(20))));
    }

    world.clock.advance(Duration::from_secs(1));
    start(&process(11)).await.unwrap();
    for _ in 1..20 {
        world
            .registry
            .deregister(&process(11), id(1))
            .await
            .unwrap();
        start(&process(11)).await.unwrap();
    }
    world
        .registry
        .deregister(&process(11), id(1))
        .await
        .unwrap();
    let refused = start(&process(11)).await;
    assert!(matches!(refused, Err(RegistryError::TooFast(20))));
}

#[tokio::test]
async fn heartbeats_that_alternate_keys_are_signs_of_life_and_few_changes() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: 3,
        ..Limits::default()
    });
    let keys = ["one", "other"].map(|key| signing_with(key, 1));
    let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
    let registered = world
        .registry
        .register(&keys[0], id(1), address, offer("a"));
    registered.await.unwrap();
    let changes = world.registry.store().changes().unwrap();
    let noted = changes.now();

    for n in 1..100 {
        world.clock.advance(Duration::from_millis(1));
        let answer = world.registry.heartbeat(&keys[n % 2], id(1)).await.unwrap();
        assert_eq!(answer.last_seen_at, world.clock.now());
    }

    assert_eq!(changes.now(), noted + 2);
    world.clock.advance(Duration::from_secs(1));
    for key in &keys {
        let answer = world.registry.heartbeat(key, id(1)).await.unwrap();
        assert_eq!(answer.owner.fingerprint, key.fingerprint);
    }
}

#[tokio::test(start_paused = true)]
async fn engine_that_flaps_is_a_few_lines_and_its_last_status_is_logged() {
    let world = World::new();
    let flaps = logged(async {
        for n in 0..500 {
            let engine = world.ready(1).await;
            let why = failed(["no route", "refused"][n % 2]);
            world.checked(&engine, why).await;
        }
        let engine = world.ready(1).await;
        assert_eq!(engine.status, EngineStatus::Ready);
    });
    let flaps = flaps.await;

    let calm = logged(async {
        for _ in 0..120 {
            tokio::time::advance(Duration::from_secs(1)).await;
            world.ready(1).await;
        }
    });

    assert!(flaps.len() <= 16, "{flaps:#?}");
    let last = flaps
        .iter()
        .rfind(|line| line.starts_with("setEngineStatus"));
    let known = last.unwrap().split(' ').nth(2).unwrap();
    let settled = format!("setEngineStatus {known} READY");
    assert_eq!(calm.await, [settled]);
}

#[tokio::test(start_paused = true)]
async fn engine_whose_last_change_was_not_logged_is_logged_when_it_is_swept() {
    let world = World::new();
    let owner = caller("dpe-dev");
    let flaps = logged(async {
        for _ in 0..10 {
            world.register("dpe-dev", 1).await.unwrap();
            world.registry.deregister(&owner, id(1)).await.unwrap();
        }
    });
    assert!(flaps.await.len() <= 12);
    tokio::time::advance(Duration::from_secs(60)).await;

    let swept = logged(async {
        let day = Duration::from_secs(86_400);
        world.registry.inactivate_not_seen(day).await.unwrap();
    });

    let swept = swept.await;
    assert_eq!(swept.len(), 1, "{swept:?}");
    let ends = "INACTIVE deregistered by its owner";
    assert!(swept[0].ends_with(ends), "{swept:?}");
}

#[tokio::test(start_paused = true)]
async fn engine_that_is_swept_while_its_lines_are_held_back_is_logged_once_later() {
    let world = World::new();
    for n in 0..10 {
        let engine = world.ready(1).await;
        world.checked(&engine, failed(&n.to_string())).await;
    }
    world.clock.advance(Duration::from_secs(3600));
    let hour = Duration::from_secs(3600);

    let held_back = logged(async {
        assert_eq!(world.registry.inactivate_not_seen(hour).await.unwrap(), 1);
    });
    assert_eq!(held_back.await, [""; 0]);
    let later = logged(async {
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60)).await;
            assert_eq!(world.registry.inactivate_not_seen(hour).await.unwrap(), 0);
        }
    });

    let later = later.await;
    assert_eq!(later.len(), 1, "{later:?}");
    let ends = "INACTIVE not seen for 3600 s";
    assert!(later[0].ends_with(ends), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn engine_that_is_not_heard_of_for_three_intervals_is_disconnected_and_logged_once() {
    let world = World::new();
    let every_minute = Registrant {
        heartbeat_interval: Some(Duration::from_secs(60)),
        ..caller("dpe-dev")
    };
    let engine = world.ready(1).await;
    let alive = world.registry.heartbeat(&every_minute, id(1)).await;
    assert_eq!(
        alive.unwrap().heartbeat_interval,
        every_minute.heartbeat_interval
    );
    tokio::time::advance(Duration::from_secs(100)).await;
    // What answers a check has as long as what calls.
    let alive = world.registry.find(id(1)).await.unwrap().unwrap();
    assert!(engine.is_still(&alive));
    world.checked(&alive, CheckOutcome::Alive).await;

    tokio::time::advance(Duration::from_secs(179)).await;
    world.registry.end_leases().await.unwrap();
    assert_eq!(
        world.registry.find(id(1)).await.unwrap().unwrap().status,
        EngineStatus::Ready
    );
    assert_eq!(
        world.registry.next_look(),
        Instant::now() + Duration::from_secs(1)
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    let lines = logged(async {
        for _ in 0..3 {
            world.registry.end_leases().await.unwrap();
            tokio::time::advance(Duration::from_secs(60)).await;
        }
    });

    assert_eq!(
        lines.await,
        [
            "setEngineStatus READY DISCONNECTED not heard from for 180s",
            "leaseExpired   not heard from for 180s"
        ]
    );
    let lost = world
        .registry
        .heartbeat(&every_minute, id(1))
        .await
        .unwrap();
    assert_eq!(lost.status, EngineStatus::Disconnected);
    assert_eq!(
        lost.status_reason.as_deref(),
        Some("not heard from for 180s")
    );
    let back = world.checked(&lost, CheckOutcome::Proved).await;
    assert_eq!(
        (back.status, back.status_reason.as_deref()),
        (EngineStatus::Ready, None)
    );
}

#[tokio::test(start_paused = true)]
async fn many_engines_that_are_not_heard_of_at_once_stay_ready_and_suspect_for_ten_intervals() {
    let world = World::new();
    for n in 0..20 {
        world.ready(n).await;
    }
    let statuses = async || {
        let all = world.registry.all().await.unwrap();
        let count = |status, suspect| {
            let those = all
                .iter()
                .filter(|engine| (engine.status, engine.suspect) == (status, suspect));
            those.count()
        };
        [
            count(EngineStatus::Ready, true),
            count(EngineStatus::Ready, false),
            count(EngineStatus::Disconnected, false),
        ]
    };
    tokio::time::advance(Duration::from_secs(15)).await;

    let held = logged(async { world.registry.end_leases().await.unwrap() });
    assert_eq!(held.await, ["evictionHeld"]);
    assert_eq!(statuses().await, [20, 0, 0]);
    // Its own checks have failed three times.
    let first = world.registry.find(id(0)).await.unwrap().unwrap();
    world.checked(&first, failed("refused")).await;
    // Another one calls; its check clears it.
    let second = world
        .registry
        .heartbeat(&caller("dpe-dev"), id(1))
        .await
        .unwrap();
    assert!(second.suspect);
    let second = world.checked(&second, CheckOutcome::Alive).await;
    assert_eq!(
        (second.suspect, second.status_reason.as_deref()),
        (false, None)
    );
    assert_eq!(statuses().await, [18, 1, 1]);
    for _ in 0..9 {
        tokio::time::advance(Duration::from_secs(5)).await;
        world
            .registry
            .heartbeat(&caller("dpe-dev"), id(1))
            .await
            .unwrap();
        world.registry.end_leases().await.unwrap();
        assert_eq!(statuses().await, [18, 1, 1]);
    }
    tokio::time::advance(Duration::from_secs(5)).await;

    let resumed = logged(async { world.registry.end_leases().await.unwrap() }).await;

    assert_eq!(resumed[0], "evictionReleased");
    assert_eq!(statuses().await, [0, 1, 19]);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_that_an_engine_overtakes_by_leaving_keeps_no_lease() {
    let world = World::new();
    let ready = world.ready(1).await;
    world
        .registry
        .deregister(&caller("dpe-dev"), id(1))
        .await
        .unwrap();

    // What the heartbeat has read.
    world.registry.renew_lease(&ready);
    tokio::time::advance(Duration::from_secs(15)).await;
    world.registry.end_leases().await.unwrap();

    let soon = Instant::now() + Duration::from_secs(1);
    assert_eq!(world.registry.next_look(), soon);
}

#[tokio::test]
async fn heartbeat_names_the_key_that_signs_now() {
    let world = World::new();
    world.ready(1).await;
    let rotated = Registrant {
        fingerprint: "another key".into(),
        ..caller("dpe-dev")
    };

    let engine = world.registry.heartbeat(&rotated, id(1)).await.unwrap();

    assert_eq!(&*engine.owner.fingerprint, "another key");
    assert_eq!(engine.status, EngineStatus::Ready);
}

#[tokio::test(start_paused = true)]
async fn moving_engine_is_a_few_lines_a_minute() {
    let world = World::with_limits(Limits {
        max_new_engines_per_second: u32::MAX,
        ..Limits::default()
    });

    let lines = logged(async {
        for port in 1..=5_000 {
            world.register_at("dpe-dev", 1, port).await.unwrap();
        }
    });

    assert!(lines.await.len() <= 4);
}

#[tokio::test]
async fn store_that_fails_is_one_line_a_minute_for_each_cause() {
    let world = World::new();

    let lines = logged(async {
        for n in 0..1_000 {
            world.registry.log_failure(["timed out", "refused"][n % 2]);
        }
    });

    let lines = lines.await;
    let causes: Vec<_> = lines
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(
        causes,
        [
            ["registryFailed", "timed", "out"].as_slice(),
            &["registryFailed", "refused"]
        ]
    );
}

#[tokio::test]
async fn heartbeat_of_an_unknown_or_inactive_engine_is_not_found() {
    let world = World::new();
    let owner = caller("dpe-dev");

    let unknown = world.registry.heartbeat(&owner, id(1)).await;
    world.ready(1).await;
    world.registry.deregister(&owner, id(1)).await.unwrap();
    let inactive = world.registry.heartbeat(&owner, id(1)).await;

    for refused in [unknown, inactive] {
        assert!(matches!(refused, Err(RegistryError::NotFound(_))));
    }
}

#[tokio::test]
async fn failed_check_of_a_new_engine_keeps_it_new_with_the_reason() {
    let world = World::new();

    let lines = logged(async {
        let engine = world.register("dpe-dev", 1).await.unwrap();
        for reason in ["a", "a", "b"] {
            let checked = world.checked(&engine, failed(reason)).await;
            assert_eq!(checked.status, EngineStatus::New);
            assert_eq!(detail(&checked), Some(reason));
        }
        let kept = world.register("dpe-dev", 1).await.unwrap();
        assert_eq!(detail(&kept), Some("b"));
        let text = kept.status_reason.as_deref();
        assert_eq!(text, Some("the engine cannot be reached: b"));
    })
    .await;

    assert_eq!(
        lines,
        [
            "registerEngine",
            "engineCheckFailed   a",
            "engineCheckFailed   b"
        ]
    );
}

#[tokio::test]
async fn lost_engine_is_disconnected_once_and_comes_back() {
    let world = World::new();

    let lines = logged(async {
        let ready = world.ready(1).await;
        for _ in 0..3 {
            let lost = world.checked(&ready, failed("timed out")).await;
            assert_eq!(lost.status, EngineStatus::Disconnected);
        }
        let back = world.checked(&ready, CheckOutcome::Proved).await;
        assert_eq!(
            (back.status, &back.status_reason, detail(&back)),
            (EngineStatus::Ready, &None, None)
        );
    })
    .await;

    assert_eq!(
        lines,
        [
            "registerEngine",
            "setEngineStatus NEW READY",
            "setEngineStatus READY DISCONNECTED",
            "engineCheckFailed   timed out",
            "setEngineStatus DISCONNECTED READY",
        ]
    );
}

#[tokio::test]
async fn answer_without_proof_makes_no_engine_ready() {
    let world = World::new();
    let new = world.register("dpe-dev", 1).await.unwrap();

    assert_eq!(
        world.checked(&new, CheckOutcome::Alive).await.status,
        EngineStatus::New
    );
    world.checked(&new, CheckOutcome::Proved).await;
    world.checked(&new, failed("lost")).await;

    let lost = world.checked(&new, CheckOutcome::Alive).await;
    assert_eq!(lost.status, EngineStatus::Disconnected);
    assert_eq!(detail(&lost), Some("lost"));
}

#[tokio::test]
async fn outcome_of_a_check_of_the_old_address_is_dropped() {
    let world = World::new();
    let old = world.register("dpe-dev", 1).await.unwrap();
    let moved = world.register_at("dpe-dev", 1, 9000).await.unwrap();

    let after = world.checked(&old, CheckOutcome::Proved).await;

    assert_eq!(after, moved);
}

#[tokio::test]
async fn outcome_for_an_inactive_engine_is_dropped() {
    let world = World::new();
    let ready = world.ready(1).await;
    let gone = world
        .registry
        .deregister(&caller("dpe-dev"), id(1))
        .await
        .unwrap();

    for outcome in [CheckOutcome::Proved, CheckOutcome::Alive, failed("late")] {
        assert_eq!(world.checked(&ready, outcome).await, gone);
    }
}

#[tokio::test]
async fn engines_not_seen_become_inactive() {
    let world = World::new();
    world.ready(1).await;
    world.clock.advance(Duration::from_secs(3600));
    world.ready(2).await;

    let lines = logged(async {
        let limit = Duration::from_secs(3600);
        assert_eq!(world.registry.inactivate_not_seen(limit).await.unwrap(), 1);
        assert_eq!(world.registry.inactivate_not_seen(limit).await.unwrap(), 0);
    })
    .await;

    assert_eq!(
        lines,
        ["setEngineStatus READY INACTIVE not seen for 3600 s"]
    );
    let status = async |n| world.registry.find(id(n)).await.unwrap().unwrap().status;
    assert_eq!(status(1).await, EngineStatus::Inactive);
    assert_eq!(status(2).await, EngineStatus::Ready);
}

/// A store that lists engine 1, which another DPM forgets meanwhile, and engine 2, which it cannot
/// read.
#[derive(Debug, Default)]
struct Torn {
    engines: MemoryStore,
    is_torn: Arc<AtomicBool>,
}

impl EngineStore for Torn {
    fn find(&self, engine: EngineId) -> StoreFuture<'_, Option<Stored>> {
        if !self.is_torn.load(Ordering::Relaxed) {
            return self.engines.find(engine);
        }
        match engine {
            _ if engine == id(1) => Box::pin(async { Ok(None) }),
            _ if engine == id(2) => Box::pin(async { Err(StoreError("torn page".into())) }),
            _ => self.engines.find(engine),
        }
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        self.engines.page(after, limit)
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        self.engines.count(deployment)
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        self.engines.replace(engine, expected)
    }

    fn remove(&self, engine: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        self.engines.remove(engine, revision)
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.engines.stalest(deployment)
    }
}

#[tokio::test]
async fn sweep_goes_on_past_an_engine_that_is_gone_and_one_that_cannot_be_read() {
    let store = Torn::default();
    let is_torn = Arc::clone(&store.is_torn);
    let world = World::with_store(store, Limits::default());
    for n in 1..=4 {
        world.ready(n).await;
    }
    world.clock.advance(Duration::from_secs(3600));
    is_torn.store(true, Ordering::Relaxed);

    let swept = world.registry.inactivate_not_seen(Duration::from_secs(60));

    assert!(matches!(swept.await, Err(RegistryError::Store(_))));
    for n in [3, 4] {
        let engine = world.registry.find(id(n)).await.unwrap().unwrap();
        assert_eq!(engine.status, EngineStatus::Inactive);
    }
}

#[tokio::test]
async fn engine_that_does_not_come_back_is_inactivated_and_forgotten_by_owner_or_operator() {
    for owner in [Some(caller("dpe-dev")), None] {
        let world = World::new();
        world.ready(1).await;
        let (registry, owner) = (&world.registry, owner.as_ref());

        let lines = logged(async {
            assert!(matches!(
                registry.forget(owner, id(1)).await,
                Err(RegistryError::Live(_, EngineStatus::Ready))
            ));
            for _ in 0..2 {
                let engine = registry.inactivate(owner, id(1)).await.unwrap();
                assert_eq!(engine.status, EngineStatus::Inactive);
            }
            registry.forget(owner, id(1)).await.unwrap();
        })
        .await;

        let inactive = "setEngineStatus READY INACTIVE inactivated by an operator";
        assert_eq!(lines, [inactive, "forgetEngine"]);
        for gone in [
            registry.forget(owner, id(1)).await.err(),
            registry.inactivate(owner, id(1)).await.err(),
        ] {
            assert!(matches!(gone, Some(RegistryError::NotFound(_))));
        }
    }
}

#[tokio::test]
async fn another_deployment_neither_inactivates_nor_forgets_an_engine() {
    let world = World::new();
    let engine = world.ready(1).await;
    world.checked(&engine, failed("x")).await;
    let (registry, other) = (&world.registry, caller("dpe-other"));

    for refused in [
        registry.inactivate(Some(&other), id(1)).await.err(),
        registry.forget(Some(&other), id(1)).await.err(),
    ] {
        assert!(matches!(refused, Some(RegistryError::EngineNotOwned(_))));
    }

    registry
        .forget(Some(&caller("dpe-dev")), id(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn new_engine_that_proves_itself_at_the_same_address_replaces_the_stale_ones() {
    let world = World::new();
    let lost = world.ready(1).await;
    world.checked(&lost, failed("gone")).await;
    world.register("dpe-dev", 2).await.unwrap();
    world
        .registry
        .deregister(&caller("dpe-dev"), id(2))
        .await
        .unwrap();
    // These stay: of another deployment, elsewhere, and one that is not stale.
    for (deployment, n, port) in [("dpe-other", 3, 8532), ("dpe-dev", 4, 8533)] {
        let engine = world.register_at(deployment, n, port).await.unwrap();
        let engine = world.checked(&engine, CheckOutcome::Proved).await;
        world.checked(&engine, failed("gone")).await;
    }
    world.register("dpe-dev", 5).await.unwrap();
    let new = world.register("dpe-dev", 6).await.unwrap();

    let lines = logged(async {
        world.checked(&new, CheckOutcome::Proved).await;
    })
    .await;

    let left = world.registry.all().await.unwrap();
    let left: Vec<_> = left.iter().map(|engine| engine.id).collect();
    assert_eq!(left, [3, 4, 5, 6].map(id));
    let forgotten = lines.iter().filter(|line| *line == "forgetEngine");
    assert_eq!(forgotten.count(), 2);
}

#[tokio::test]
async fn engine_that_came_back_elsewhere_is_not_replaced() {
    let world = World::new();
    let lost = world.ready(1).await;
    world.checked(&lost, failed("gone")).await;
    world.register_at("dpe-dev", 1, 8533).await.unwrap();
    let new = world.register("dpe-dev", 2).await.unwrap();

    world.checked(&new, CheckOutcome::Proved).await;

    assert_eq!(world.registry.all().await.unwrap().len(), 2);
}

#[tokio::test]
async fn stale_records_of_before_a_restart_are_replaced_once_they_are_noted() {
    let world = World::new();
    let lost = world.ready(1).await;
    let lost = world.checked(&lost, failed("gone")).await;
    *lock(&world.registry.stale) = Stale::default();
    world.registry.note(&lost);
    let new = world.register("dpe-dev", 2).await.unwrap();

    world.checked(&new, CheckOutcome::Proved).await;

    assert_eq!(world.registry.find(id(1)).await.unwrap(), None);
}
