//! The store against a real etcd.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use super::*;
use crate::clock::SystemClock;
use crate::engine::{EngineAddress, EngineConstraints, EngineStatus, Held, Instance};
use crate::identity::{DeploymentName, ModuleType, Roles, ServiceIdentity};
use crate::jose::SigningKey;
use crate::registry::store::tests::{conforms, engine, id};
use crate::registry::{CheckOutcome, EngineRegistry, Limits, Registrant};
use crate::trust::{Deployment, KeySet, OwnDeployment, TrustedKey};

/// An etcd on ports of its own, until it is dropped.
struct Etcd {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Etcd {
    /// Starts it; returns `None` if it is not installed and need not be.
    fn start() -> Option<Self> {
        let [port, peers] = [(); 2].map(|()| {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        });
        let folder = tempfile::tempdir().unwrap();
        let (own, peers) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path())
            .args([
                "--listen-client-urls",
                &own,
                "--advertise-client-urls",
                &own,
            ])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let required = env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
        assert!(started.is_ok() || !required, "there is no `etcd`");
        Some(Self {
            child: started.ok()?,
            port,
            _folder: folder,
        })
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Opens a store of the deployment `name`, and waits until it has read everything.
    async fn open(&self, name: &str, key: &SigningKey) -> EtcdStore {
        self.open_at(name, key, Arc::new(SystemClock)).await
    }

    async fn open_at(&self, name: &str, key: &SigningKey, clock: Arc<dyn Clock>) -> EtcdStore {
        let own = OwnDeployment::new(
            ModuleType::new("dpm").unwrap(),
            DeploymentName::new(name).unwrap(),
            key.clone(),
        );
        let owner = SigningKey::generate().unwrap();
        let owner = Deployment::new(
            DeploymentName::new("dpe-dev").unwrap(),
            ModuleType::new("dpe").unwrap(),
            vec![TrustedKey::new("key", owner.verifying_key().clone())],
        );
        let trust = TrustStore::new(KeySet::new(vec![owner], own).unwrap());
        let options = EtcdOptions {
            endpoints: vec![format!("127.0.0.1:{}", self.port)],
            ..EtcdOptions::default()
        };
        let store = EtcdStore::open(options, trust, clock).await;
        let mut condition = store.condition().unwrap();
        condition.wait_for(|now| !now.is_stale).await.unwrap();
        store
    }

    /// Changes a key as another program would.
    async fn put(&self, store: &EtcdStore, id: EngineId, value: Vec<u8>) {
        let mut kv = self.client().await.kv_client();
        kv.put(store.keys.engine(id), value, None).await.unwrap();
    }

    async fn client(&self) -> etcd_client::Client {
        let member = [format!("127.0.0.1:{}", self.port)];
        etcd_client::Client::connect(member, None).await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the store has `id` as `is_meant` says.
async fn until(store: &EtcdStore, id: EngineId, is_meant: impl Fn(Option<&Engine>) -> bool) {
    let mut news = store.others().unwrap();
    loop {
        let found = store.find(id).await.unwrap();
        if is_meant(found.as_ref().map(|found| &*found.engine)) {
            return;
        }
        let heard = timeout(Duration::from_secs(30), news.recv()).await;
        assert!(heard.is_ok(), "no news; it has {found:?}");
    }
}

fn ready(n: u8) -> Engine {
    let mut engine = engine(n, "dpe-dev");
    engine.status = EngineStatus::Ready;
    engine.status_reason = None;
    engine.dial_back_failure = None;
    // As exact as a record is.
    let since = SystemClock.now().duration_since(SystemTime::UNIX_EPOCH);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(since.unwrap().as_secs());
    (engine.registered_at, engine.last_seen_at) = (now, now);
    engine
}

#[tokio::test]
async fn etcd_store_conforms() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    // Each has keys of its own.
    let mut stores = Vec::new();
    for n in 0..7 {
        stores.push(Arc::new(etcd.open(&format!("dpm-{n}"), &key).await));
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    conforms(|| {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::clone(&stores[n]) as Arc<dyn EngineStore>
    })
    .await;
}

#[tokio::test]
async fn record_comes_to_the_other_replicas_as_it_was_written() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let two = etcd.open("dpm-dev", &key).await;
    let written = [engine(1, "dpe-dev"), ready(2)];

    for engine in &written {
        let created = one.replace(engine.clone(), Expected::Absent).await;
        created.unwrap().unwrap();
        until(&two, engine.id, |found| found == Some(engine)).await;
    }

    let third = etcd.open("dpm-dev", &key).await;
    for engine in &written {
        let found = third.find(engine.id).await.unwrap().unwrap();
        let is_to_check = engine.status == EngineStatus::Ready && third.is_mine(engine.id);
        assert_eq!(found.engine.suspect, is_to_check);
        let read = Engine {
            suspect: false,
            status_reason: engine.status_reason.clone(),
            ..Engine::clone(&found.engine)
        };
        assert_eq!(read, *engine);
    }
    let found = two.find(id(1)).await.unwrap().unwrap();
    assert!(two.remove(id(1), found.revision).await.unwrap());
    until(&one, id(1), |found| found.is_none()).await;
}

#[tokio::test]
async fn of_two_replicas_writers_one_wins_and_the_other_sees_what_it_wrote() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let two = etcd.open("dpm-dev", &key).await;
    for n in 1..100 {
        let (mine, theirs) = (engine(n, "dpe-dev"), engine(n, "other"));

        let (first, second) = tokio::join!(
            one.replace(mine, Expected::Absent),
            two.replace(theirs, Expected::Absent)
        );

        let won = [first.unwrap(), second.unwrap()];
        assert_eq!(won.iter().flatten().count(), 1, "{n}");
        let lost = if won[0].is_none() { &one } else { &two };
        let winner = won.iter().flatten().next().unwrap();
        let seen = lost.find(id(n)).await.unwrap().unwrap();
        assert_eq!(seen.engine, winner.engine);
    }
}

#[tokio::test]
async fn what_the_deployment_did_not_sign_is_new() {
    let Some(etcd) = Etcd::start() else { return };
    let [key, foreign] = [(); 2].map(|()| SigningKey::generate().unwrap());
    let store = etcd.open("dpm-dev", &key).await;
    let forger = etcd.open("other", &foreign).await;
    let own = forger.mirror.trust.own();
    let now = SystemClock.now();
    let foreign_record = record::seal(&ready(1), 0, now, &own).unwrap();

    etcd.put(&store, id(1), foreign_record).await;
    etcd.put(&store, id(2), b"no record".to_vec()).await;
    etcd.put(
        &store,
        id(3),
        record::seal(&ready(4), 0, now, &store.mirror.trust.own()).unwrap(),
    )
    .await;

    until(&store, id(1), |found| {
        found.is_some_and(|found| found.status == EngineStatus::New && !found.over_loopback)
    })
    .await;
    for n in [2, 3] {
        assert!(store.find(id(n)).await.unwrap().is_none(), "{n}");
        // A registration takes its place.
        let taken = store.replace(engine(n, "dpe-dev"), Expected::Absent).await;
        assert!(taken.unwrap().is_some(), "{n}");
    }
}

#[tokio::test]
async fn old_record_that_is_put_back_is_not_believed() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = etcd.open("dpm-dev", &key).await;
    let created = store.replace(ready(1), Expected::Absent).await;
    let created = created.unwrap().unwrap();
    let mut kv = etcd.client().await.kv_client();
    let old = kv.get(store.keys.engine(id(1)), None).await.unwrap();
    let lost = engine(1, "dpe-dev");
    let replaced = store.replace(lost, Expected::At(created.revision)).await;
    replaced.unwrap().unwrap();

    etcd.put(&store, id(1), old.kvs()[0].value().to_vec()).await;

    until(&store, id(1), |found| {
        found.is_some_and(|found| found.status == EngineStatus::New)
    })
    .await;
}

#[tokio::test]
async fn ready_counts_for_fifteen_minutes() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let created = one.replace(ready(1), Expected::Absent).await;
    created.unwrap().unwrap();
    let after = |minutes: u64| {
        let then = SystemClock.now() + Duration::from_secs(60 * minutes);
        Arc::new(crate::clock::ManualClock::new(then))
    };

    let soon = etcd.open_at("dpm-dev", &key, after(14)).await;
    let late = etcd.open_at("dpm-dev", &key, after(16)).await;

    let found = soon.find(id(1)).await.unwrap().unwrap();
    assert_eq!(found.engine.status, EngineStatus::Ready);
    let found = late.find(id(1)).await.unwrap().unwrap();
    assert_eq!(found.engine.status, EngineStatus::New);
}

#[tokio::test]
async fn writes_fail_while_etcd_is_away_and_reads_go_on_until_it_is_back() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = etcd.open("dpm-dev", &key).await;
    let created = store.replace(engine(1, "dpe-dev"), Expected::Absent).await;
    created.unwrap().unwrap();
    let mut condition = store.condition().unwrap();

    etcd.signal("-STOP");
    let refused = store.replace(engine(2, "dpe-dev"), Expected::Absent).await;
    condition.wait_for(|now| now.is_stale).await.unwrap();
    let found = store.find(id(1)).await.unwrap();
    etcd.signal("-CONT");
    condition.wait_for(|now| !now.is_stale).await.unwrap();

    refused.unwrap_err();
    assert!(found.is_some());
    assert!(condition.borrow().failing.is_none());
    let created = store.replace(engine(3, "dpe-dev"), Expected::Absent).await;
    created.unwrap().unwrap();
}

#[tokio::test]
async fn replica_without_its_presence_key_writes_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = etcd.open("dpm-dev", &key).await;
    let mut kv = etcd.client().await.kv_client();
    let own = store.keys.replica(store.mirror.own);

    kv.delete(own, None).await.unwrap();
    let refused = store.replace(engine(1, "dpe-dev"), Expected::Absent).await;

    refused.unwrap_err();
    // It becomes present again by itself.
    loop {
        if store
            .replace(engine(2, "dpe-dev"), Expected::Absent)
            .await
            .is_ok()
        {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn share_of_a_replica_that_leaves_is_taken_over_and_suspect() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let two = etcd.open("dpm-dev", &key).await;
    let mut news = one.others().unwrap();
    let share = |store: &EtcdStore| (1..100).filter(|n| store.is_mine(id(*n))).count();
    while share(&one) == 99 {
        let _ = news.recv().await;
    }
    let theirs = (1..100).find(|n| two.is_mine(id(*n))).unwrap();
    let created = one.replace(ready(theirs), Expected::Absent).await;
    assert!(!created.unwrap().unwrap().engine.suspect);

    assert_eq!(share(&one) + share(&two), 99);
    assert!((20..80).contains(&share(&one)), "{}", share(&one));
    two.close().await.unwrap();

    while share(&one) < 99 {
        let _ = news.recv().await;
    }
    let taken = one.find(id(theirs)).await.unwrap().unwrap();
    assert_eq!(taken.engine.status, EngineStatus::Ready);
    assert!(taken.engine.suspect);
}

#[tokio::test]
async fn every_replica_judges_owners_by_its_own_trust() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let two = etcd.open("dpm-dev", &key).await;
    let trusted = two.mirror.trust.load();
    let without = trusted.trusting(Vec::new()).unwrap();
    two.mirror.trust.replace(without);

    let created = one.replace(ready(1), Expected::Absent).await;
    created.unwrap().unwrap();

    let has = |status| move |found: Option<&Engine>| found.is_some_and(|e| e.status == status);
    until(&two, id(1), has(EngineStatus::Disconnected)).await;
    let here = one.find(id(1)).await.unwrap().unwrap();
    assert_eq!(here.engine.status, EngineStatus::Ready);
    let owner = Deployment::clone(trusted.deployment("dpe-dev").unwrap());
    two.mirror
        .trust
        .replace(trusted.trusting(vec![owner]).unwrap());
    until(&two, id(1), has(EngineStatus::Ready)).await;
}

#[tokio::test]
async fn large_values_of_others_stop_no_replica() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = etcd.open("dpm-dev", &key).await;
    let created = one.replace(ready(200), Expected::Absent).await;
    created.unwrap().unwrap();
    // Together more than is read at once.
    for n in 1..=60 {
        etcd.put(&one, id(n), vec![b'x'; 1_400_000]).await;
    }

    let two = etcd.open("dpm-dev", &key).await;

    let found = two.find(id(200)).await.unwrap().unwrap();
    assert_eq!(found.engine.status, EngineStatus::Ready);
    assert_eq!(two.count("dpe-dev").await.unwrap().total, 1);
}

/// Returns the records of `store` as the registry changes them.
fn registry(store: &Arc<EtcdStore>) -> EngineRegistry {
    let store = Arc::clone(store) as Arc<dyn EngineStore>;
    EngineRegistry::new(store, Arc::new(SystemClock), Limits::default())
}

/// A one-way engine that `registry` has recorded.
async fn one_way(registry: &EngineRegistry, n: u8) -> Arc<Engine> {
    let module = ModuleType::new("dpe").unwrap();
    let caller = Registrant {
        identity: ServiceIdentity::new(module, "dpe-dev", Roles::default()),
        environment: None,
        fingerprint: "k".into(),
        over_loopback: true,
        instance: Some(Instance::from_random([n; 16])),
        heartbeat_interval: None,
    };
    let address = EngineAddress::one_way("dpe.example.org").unwrap();
    let registered = registry.register(&caller, id(n), address, EngineConstraints::default());
    registered.await.unwrap()
}

#[tokio::test]
async fn one_way_engine_is_the_share_of_the_replica_to_which_it_proved_itself_last() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let one = Arc::new(etcd.open("dpm-dev", &key).await);
    let two = Arc::new(etcd.open("dpm-dev", &key).await);
    let [here, there] = [&one, &two].map(registry);
    let mut news = one.others().unwrap();
    while (1..100).all(|n| one.is_mine(id(n))) {
        let _ = news.recv().await;
    }
    // The draw gives one engine to each.
    let draws = [&one, &two].map(|store| (1..100).find(|n| store.is_mine(id(*n))).unwrap());
    let held = |is_open| {
        let by = Some(two.mirror.own);
        move |found: Option<&Engine>| found.is_some_and(|e| e.held == Some(Held { by, is_open }))
    };
    for n in draws {
        let engine = one_way(&here, n).await;
        here.hold(&engine).await.unwrap();
        until(&two, id(n), |found| {
            found.is_some_and(|e| e.status == EngineStatus::Ready && e.is_held_elsewhere())
        })
        .await;
        assert!(one.is_mine(id(n)) && !two.is_mine(id(n)));

        there.hold(&engine).await.unwrap();
        until(&one, id(n), held(true)).await;
        assert!(!one.is_mine(id(n)) && two.is_mine(id(n)));
        // A proof over the stream that was here does not bring it back.
        here.record_check(&engine, &CheckOutcome::Proved)
            .await
            .unwrap();
        here.release(id(n)).await.unwrap();
        assert!(!one.is_mine(id(n)));

        there.release(id(n)).await.unwrap();
        until(&one, id(n), held(false)).await;
        assert!(!one.is_mine(id(n)) && two.is_mine(id(n)));
        there.hold(&engine).await.unwrap();
        until(&one, id(n), held(true)).await;
    }

    two.close().await.unwrap();

    for n in draws {
        until(&one, id(n), held(false)).await;
        let taken = one.find(id(n)).await.unwrap().unwrap().engine;
        assert!(one.is_mine(id(n)) && taken.suspect, "{taken:?}");
        assert_eq!(taken.status, EngineStatus::Ready);
    }
}

#[tokio::test]
async fn proofs_over_the_stream_of_a_one_way_engine_write_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let store = Arc::new(etcd.open("dpm-dev", &SigningKey::generate().unwrap()).await);
    let registry = registry(&store);
    let engine = one_way(&registry, 1).await;
    let start = revision(&etcd).await;

    // READY and the stream are one write.
    registry.hold(&engine).await.unwrap();
    assert_eq!(revision(&etcd).await, start + 1);
    for _ in 0..10 {
        registry.hold(&engine).await.unwrap();
        registry
            .record_check(&engine, &CheckOutcome::Proved)
            .await
            .unwrap();
    }

    assert_eq!(revision(&etcd).await, start + 1);
}

/// Returns the revision of etcd, which each of its writes makes one higher.
async fn revision(etcd: &Etcd) -> i64 {
    let mut kv = etcd.client().await.kv_client();
    let read = kv.get("x", None).await.unwrap();
    read.header().unwrap().revision()
}

#[tokio::test]
async fn changes_that_arrive_together_share_transactions_and_one_that_loses_stops_no_other() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = Arc::new(etcd.open("dpm-dev", &key).await);
    let before = revision(&etcd).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 1..=250 {
        let store = Arc::clone(&store);
        let mut mine = engine(n, "dpe-dev");
        mine.status = EngineStatus::Inactive;
        writers.spawn(async move { store.replace(mine, Expected::Absent).await.unwrap() });
    }
    let written = writers.join_all().await;

    assert_eq!(written.iter().flatten().count(), 250);
    let transactions = revision(&etcd).await - before;
    assert!((2..100).contains(&transactions), "{transactions}");

    // One record is gone, and the store may not know yet.
    let mut kv = etcd.client().await.kv_client();
    let mut writers = tokio::task::JoinSet::new();
    let stored = store.find(id(7)).await.unwrap().unwrap();
    let all = store.page(None, 250).await.unwrap();
    kv.delete(store.keys.engine(id(7)), None).await.unwrap();
    for found in all {
        let store = Arc::clone(&store);
        let mut mine = Engine::clone(&found.engine);
        mine.status = EngineStatus::New;
        writers.spawn(async move {
            let at = Expected::At(found.revision);
            store.replace(mine, at).await.unwrap()
        });
    }
    let written = writers.join_all().await;
    assert_eq!(written.iter().flatten().count(), 249);
    let gone = store.find(stored.engine.id).await.unwrap();
    assert!(gone.is_none());
}

#[tokio::test]
async fn only_a_late_signature_of_an_engine_that_answers_is_written_again() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let clock = Arc::new(crate::clock::ManualClock::new(SystemClock.now()));
    let one = etcd.open_at("dpm-dev", &key, Arc::clone(&clock) as _).await;
    let created = one.replace(ready(1), Expected::Absent).await;
    created.unwrap().unwrap();
    let seen = async || {
        let found = one.find(id(1)).await.unwrap().unwrap();
        let seen = Engine {
            last_seen_at: clock.now(),
            ..Engine::clone(&found.engine)
        };
        let at = Expected::At(found.revision);
        one.replace(seen, at).await.unwrap().unwrap();
        revision(&etcd).await
    };
    let start = revision(&etcd).await;

    clock.advance(Duration::from_secs(60));
    assert_eq!(seen().await, start);
    clock.advance(Duration::from_secs(8 * 60));
    assert_eq!(seen().await, start + 1);
    clock.advance(Duration::from_secs(60));
    assert_eq!(seen().await, start + 1);
}

#[tokio::test]
async fn ready_engine_whose_dpm_signs_no_more_becomes_new() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let clock = Arc::new(crate::clock::ManualClock::new(SystemClock.now()));
    let one = etcd.open("dpm-dev", &key).await;
    let two = etcd.open_at("dpm-dev", &key, Arc::clone(&clock) as _).await;
    let mut news = one.others().unwrap();
    while (1..100).all(|n| one.is_mine(id(n))) {
        let _ = news.recv().await;
    }
    let theirs = (1..100).find(|n| !two.is_mine(id(*n))).unwrap();
    let created = one.replace(ready(theirs), Expected::Absent).await;
    created.unwrap().unwrap();
    let status = |found: Option<&Engine>| found.map(|found| found.status);
    until(&two, id(theirs), |found| {
        status(found) == Some(EngineStatus::Ready)
    })
    .await;

    clock.advance(Duration::from_secs(14 * 60));
    two.mirror.expire();
    let before = two.find(id(theirs)).await.unwrap().unwrap();
    clock.advance(Duration::from_secs(2 * 60));
    two.mirror.expire();
    let after = two.find(id(theirs)).await.unwrap().unwrap();

    assert_eq!(before.engine.status, EngineStatus::Ready);
    assert_eq!(after.engine.status, EngineStatus::New);
    let there = one.find(id(theirs)).await.unwrap().unwrap();
    assert_eq!(there.engine.status, EngineStatus::Ready);
}

/// Claims the use `n`.
async fn claimed(claims: &mpsc::Sender<Claim>, n: u8) -> Option<bool> {
    let (done, claimed) = oneshot::channel();
    let id = [n; 32];
    claims.send(Claim { id, done }).await.unwrap();
    claimed.await.unwrap().ok()
}

#[tokio::test]
async fn use_is_claimed_by_one_replica_under_a_lease_that_outlasts_the_token() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let kept_for = Duration::from_secs(990);
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let store = etcd.open("dpm-dev", &key).await;
        replicas.push((store.claims(kept_for), store));
    }
    let before = revision(&etcd).await;
    let mut claims = tokio::task::JoinSet::new();
    for n in 1..=250 {
        for (replica, _) in &replicas {
            let replica = replica.clone();
            claims.spawn(async move { (n, claimed(&replica, n).await.unwrap()) });
        }
    }

    let mut first: Vec<_> = claims.join_all().await;

    first.retain(|(_, is_first)| *is_first);
    first.sort_unstable();
    let all: Vec<_> = (1..=250).map(|n| (n, true)).collect();
    assert_eq!(first, all);
    let transactions = revision(&etcd).await - before;
    assert!((2..100).contains(&transactions), "{transactions}");
    let mut leases = etcd.client().await.lease_client();
    let mut claimed = 0;
    for lease in leases.leases().await.unwrap().leases() {
        let keys = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
        let held = leases.time_to_live(lease.id(), Some(keys)).await.unwrap();
        // The others are of presence keys.
        if held
            .keys()
            .iter()
            .any(|key| !key.starts_with(&replicas[0].1.keys.replicas()))
        {
            assert!(held.granted_ttl() >= 990 + 60, "{}", held.granted_ttl());
            claimed += held.keys().len();
        }
    }
    assert_eq!(claimed, 250);
}

#[tokio::test]
async fn claims_fail_while_etcd_is_away_and_succeed_once_it_is_back() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = etcd.open("dpm-dev", &key).await;
    let claims = store.claims(Duration::from_secs(990));
    assert_eq!(claimed(&claims, 1).await, Some(true));
    let mut condition = store.condition().unwrap();

    etcd.signal("-STOP");
    let late = claimed(&claims, 2).await;
    condition.wait_for(|now| now.is_stale).await.unwrap();
    let away = claimed(&claims, 3).await;
    etcd.signal("-CONT");
    condition.wait_for(|now| !now.is_stale).await.unwrap();

    assert_eq!((late, away), (None, None));
    assert_eq!(claimed(&claims, 3).await, Some(true));
    assert_eq!(claimed(&claims, 1).await, Some(false));
}

#[tokio::test]
async fn lease_that_is_gone_is_replaced() {
    let Some(etcd) = Etcd::start() else { return };
    let key = SigningKey::generate().unwrap();
    let store = etcd.open("dpm-dev", &key).await;
    let claims = store.claims(Duration::from_secs(990));
    assert_eq!(claimed(&claims, 1).await, Some(true));
    let client = etcd.client().await;
    let mut kv = client.kv_client();
    let claim = kv.get(store.keys.claim(&[1; 32]), None).await.unwrap();
    let lease = claim.kvs()[0].lease();
    client.lease_client().revoke(lease).await.unwrap();

    assert_eq!(claimed(&claims, 2).await, None);
    assert_eq!(claimed(&claims, 3).await, Some(true));
}
