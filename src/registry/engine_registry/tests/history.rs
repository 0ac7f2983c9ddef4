//! Random histories of a registry, each compared with a simple model, step by step.
//!
//! A failure names the seed of its history; `COUNTERSIGN_SEED` has that history run alone.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::model::{
    Checked, Delta, LIMITS, Model, NOT_SEEN, Outcome, Shown, Step, Why, process, why,
};
use super::{caller, id};
use crate::clock::{Clock, ManualClock};
use crate::engine::{
    Engine, EngineAddress, EngineConstraints, EngineId, EngineStatus, FailureKind,
};
use crate::registry::store::changes::{Change, Changes};
use crate::registry::store::{EngineStore, FileStore, MemoryStore};
use crate::registry::{EngineRegistry, Limits};

/// Where the engines of a history are kept.
trait Place: Default {
    /// Whether they outlast a restart.
    const KEEPS: bool;

    fn open(&self) -> Arc<dyn EngineStore>;

    /// Ends `store` as at SIGTERM, or as at SIGKILL once it has said that all is kept.
    async fn end(&mut self, store: Arc<dyn EngineStore>, is_killed: bool);
}

#[derive(Default)]
struct Memory;

impl Place for Memory {
    const KEEPS: bool = false;

    fn open(&self) -> Arc<dyn EngineStore> {
        Arc::new(MemoryStore::default())
    }

    async fn end(&mut self, _: Arc<dyn EngineStore>, _: bool) {}
}

struct InFile {
    folder: TempDir,
    number: usize,
}

impl Default for InFile {
    fn default() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            number: 0,
        }
    }
}

impl InFile {
    fn path(&self) -> PathBuf {
        self.folder.path().join(self.number.to_string())
    }
}

impl Place for InFile {
    const KEEPS: bool = true;

    fn open(&self) -> Arc<dyn EngineStore> {
        Arc::new(FileStore::open(&self.path()).unwrap())
    }

    async fn end(&mut self, store: Arc<dyn EngineStore>, is_killed: bool) {
        assert!(store.flush().await.unwrap());
        if is_killed {
            // What the disk has at this moment.
            let now = self.path();
            self.number += 1;
            std::fs::copy(now, self.path()).unwrap();
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn every_history_of_engines_in_memory_is_that_of_the_model() {
    histories::<Memory>().await;
}

#[tokio::test]
async fn every_history_of_engines_in_a_file_is_that_of_the_model() {
    histories::<InFile>().await;
}

/// How many steps a history has.
const STEPS: usize = 1_000;

async fn histories<P: Place>() {
    let seed = env::var_os("COUNTERSIGN_SEED");
    let seeds: Vec<u64> = match seed {
        Some(seed) => vec![seed.to_str().unwrap().parse().unwrap()],
        None if env::var_os("COUNTERSIGN_LONG").is_some() => (0..10).map(|_| fresh()).collect(),
        None => vec![fresh()],
    };
    for seed in seeds {
        let _named = Named(seed);
        History::<P>::begin(seed).run(STEPS).await;
    }
}

fn fresh() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Names the seed of a history that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this history again: COUNTERSIGN_SEED={}", self.0);
        }
    }
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

const DEPLOYMENTS: [&str; 3] = ["dpe-dev", "dpe-two", "dpe-three"];
const IDS: u8 = 16;

/// One who lists page by page while the registry changes.
struct Lister {
    from: u64,
    seen: BTreeMap<EngineId, Shown>,
    after: Option<EngineId>,
}

struct History<P> {
    random: Random,
    clock: Arc<ManualClock>,
    place: P,
    store: Arc<dyn EngineStore>,
    registry: EngineRegistry,
    model: Model,
    /// Records of some time ago.
    known: Vec<Arc<Engine>>,
    /// Every change since the last restart.
    log: Vec<Delta>,
    /// From where one goes on who reads only now and then.
    resumed: String,
    lister: Option<Lister>,
}

fn registry(store: &Arc<dyn EngineStore>, clock: &Arc<ManualClock>) -> EngineRegistry {
    let limits = Limits {
        max_engines: LIMITS.0,
        max_engines_per_deployment: LIMITS.1,
        max_new_engines_per_second: u32::MAX,
    };
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    EngineRegistry::new(Arc::clone(store), clock, limits)
}

fn delta(change: Change) -> Delta {
    match change {
        Change::Put(engine) => (engine.id, Some(Shown::of(&engine))),
        Change::Removed(id) => (id, None),
    }
}

impl<P: Place> History<P> {
    fn begin(seed: u64) -> Self {
        let place = P::default();
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let store = place.open();
        Self {
            random: Random(seed),
            registry: registry(&store, &clock),
            resumed: changes(&store).revision(0),
            clock,
            place,
            store,
            model: Model::default(),
            known: Vec::new(),
            log: Vec::new(),
            lister: None,
        }
    }

    async fn run(mut self, steps: usize) {
        let (mut done, mut refused) = (0, 0);
        for number in 0..steps {
            let pause = self.random.of(&[0, 0, 1, 1_000, 20_000]);
            self.clock.advance(Duration::from_millis(pause));
            let step = self.next();
            let at = format!("step {number}, {step:?}");
            let before = self.model.clone();
            let answer = self.perform(step, &at).await;
            match answer {
                Ok(()) => done += 1,
                Err(_) => refused += 1,
            }
            if !matches!(step, Step::Restart { .. }) {
                self.changes_are(&before, &at);
            }
            self.engines_are(&at).await;
            self.read_now_and_then(&at).await;
        }
        assert!(done > steps / 4 && refused > steps / 20, "{done} {refused}");
    }

    fn next(&mut self) -> Step {
        let random = &mut self.random;
        let by = random.of(&DEPLOYMENTS);
        let n = 1 + u8::try_from(random.below(IDS.into())).unwrap();
        // An id is mostly called for by the same deployment: the others try to take it over.
        let by = if random.below(6) == 0 {
            by
        } else {
            DEPLOYMENTS[usize::from(n) % DEPLOYMENTS.len()]
        };
        let operator = random.of(&[None, Some(by)]);
        // One process, a clone of it, and one that does not say.
        let process = random.of(&[Some(1), Some(1), Some(2), None]);
        match random.below(100) {
            0..30 => {
                let port = random.of(&[8532, 8532, 8533, 8534]);
                Step::Register(by, n, port, process, random.of(&[0, 0, 0, 1]))
            }
            30..42 => Step::Heartbeat(by, n, process),
            42..48 => Step::Deregister(by, n, process),
            48..53 => Step::Inactivate(operator, n),
            53..58 => Step::Forget(operator, n),
            58..92 => {
                let checked = match random.below(4) {
                    0 => Checked::Before(usize::try_from(random.below(50)).unwrap()),
                    _ => Checked::Now(n),
                };
                let outcome = random.of(&[
                    Outcome::Proved,
                    Outcome::Proved,
                    Outcome::Alive,
                    Outcome::Failed(FailureKind::TimedOut),
                    Outcome::Failed(FailureKind::NotReached),
                ]);
                Step::Checked(checked, outcome)
            }
            92..98 => Step::Expire,
            _ => Step::Restart {
                is_killed: random.below(2) == 0,
            },
        }
    }

    /// Does `step` to the registry and to the model, which must answer alike.
    async fn perform(&mut self, step: Step, at: &str) -> Result<(), Why> {
        let (registry, now) = (&self.registry, self.clock.now());
        let mut then = None;
        let answer = match step {
            Step::Register(by, n, port, instance, offers) => {
                let address = EngineAddress::new("dpe.example.org", port.into()).unwrap();
                let offers = EngineConstraints::new(
                    BTreeMap::new(),
                    BTreeMap::new(),
                    vec![offers.to_string()],
                );
                let by = process(by, instance);
                let registered = registry.register(&by, id(n), address, offers.unwrap());
                registered.await.map(drop)
            }
            Step::Heartbeat(by, n, instance) => {
                let alive = registry.heartbeat(&process(by, instance), id(n)).await;
                alive.map(drop)
            }
            Step::Deregister(by, n, instance) => {
                let left = registry.deregister(&process(by, instance), id(n)).await;
                left.map(drop)
            }
            Step::Inactivate(by, n) => {
                let by = by.map(caller);
                registry.inactivate(by.as_ref(), id(n)).await.map(drop)
            }
            Step::Forget(by, n) => {
                let by = by.map(caller);
                registry.forget(by.as_ref(), id(n)).await
            }
            Step::Checked(checked, outcome) => {
                then = match checked {
                    Checked::Now(n) => registry.find(id(n)).await.unwrap(),
                    Checked::Before(index) => self.known.get(index).cloned(),
                };
                match &then {
                    Some(then) => {
                        self.known.truncate(49);
                        self.known.insert(0, Arc::clone(then));
                        let outcome = outcome.as_outcome();
                        registry.record_check(then, &outcome).await.map(drop)
                    }
                    None => Ok(()),
                }
            }
            Step::Expire => registry.inactivate_not_seen(NOT_SEEN).await.map(drop),
            Step::Restart { is_killed } => {
                self.restart(is_killed, at).await;
                Ok(())
            }
        };
        let answer = answer.map_err(|error| why(&error));
        let expected = self.model.step(step, then.as_deref(), now);
        assert_eq!(answer, expected, "{at}");
        answer
    }

    async fn restart(&mut self, is_killed: bool, at: &str) {
        let old = changes(&self.store).revision(changes(&self.store).now());
        self.place.end(Arc::clone(&self.store), is_killed).await;
        self.store = self.place.open();
        self.registry = registry(&self.store, &self.clock);
        if !P::KEEPS {
            self.model.0.clear();
        }
        for (id, (engine, seen)) in &mut self.model.0 {
            engine.suspect = engine.status == EngineStatus::Ready;
            engine.reason = Some("not checked since the registry started".to_owned());
            engine.failure = None;
            let kept = self.registry.find(*id).await.unwrap().unwrap();
            if is_killed {
                let possible = engine.registered..=*seen;
                assert!(possible.contains(&kept.last_seen_at), "{at}: {kept:?}");
                *seen = kept.last_seen_at;
            }
            // As the DPM does at its start.
            self.registry.note(&kept);
        }
        let changes = changes(&self.store);
        assert_eq!((changes.now(), changes.position(&old)), (0, None), "{at}");
        self.resumed = changes.revision(0);
        self.log.clear();
        self.lister = None;
    }

    /// Compares the changes of one step with those of the model.
    fn changes_are(&mut self, before: &Model, at: &str) {
        let changes = changes(&self.store);
        let new: Vec<_> = read(&changes, self.log.len() as u64);
        let shown: BTreeSet<_> = new
            .iter()
            .map(|(id, shown)| (*id, format!("{shown:?}")))
            .collect();
        // No engine changes twice in one step.
        assert_eq!(shown.len(), new.len(), "{at}: {new:?}");
        assert_eq!(shown, self.model.since(before), "{at}");
        self.log.extend(new);
    }

    /// Compares every record with the model's.
    async fn engines_are(&self, at: &str) {
        let all = self.registry.all().await.unwrap();
        let all = all.iter();
        let found: Vec<_> = all
            .map(|engine| (engine.id, (Shown::of(engine), engine.last_seen_at)))
            .collect();
        let expected: Vec<_> = self.model.0.clone().into_iter().collect();
        assert_eq!(found, expected, "{at}");
    }

    /// Has one who is slow read on from a revision, and one who lists read a page.
    async fn read_now_and_then(&mut self, at: &str) {
        let changes = changes(&self.store);
        if self.random.below(20) == 0 {
            let position = changes.position(&self.resumed).unwrap();
            let from = usize::try_from(position).unwrap();
            assert_eq!(read(&changes, position), self.log[from..], "{at}");
            self.resumed = changes.revision(changes.now());
        }
        let mut lister = self.lister.take().unwrap_or_else(|| Lister {
            from: changes.now(),
            seen: BTreeMap::new(),
            after: None,
        });
        if self.random.below(3) > 0 {
            self.lister = Some(lister);
            return;
        }
        let page = self.registry.list(lister.after, 3).await.unwrap();
        lister.after = page.last().map(|engine| engine.id);
        let shown = page.iter().map(|engine| (engine.id, Shown::of(engine)));
        lister.seen.extend(shown);
        if lister.after.is_some() {
            self.lister = Some(lister);
            return;
        }
        for (id, shown) in read(&changes, lister.from) {
            match shown {
                Some(shown) => drop(lister.seen.insert(id, shown)),
                None => drop(lister.seen.remove(&id)),
            }
        }
        let engines = self.model.0.iter();
        let expected: BTreeMap<_, _> = engines
            .map(|(id, (shown, _))| (*id, shown.clone()))
            .collect();
        assert_eq!(lister.seen, expected, "{at}");
    }
}

fn changes(store: &Arc<dyn EngineStore>) -> Arc<Changes> {
    store.changes().unwrap()
}

fn read(changes: &Changes, from: u64) -> Vec<Delta> {
    let all = (from..).map_while(|position| changes.after(position).unwrap());
    all.map(delta).collect()
}
