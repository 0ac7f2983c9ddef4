//! Keeps the status of every engine true: one task for each that is dialled back or connected.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::time::{Instant, sleep_until};

use super::check::{Checker, Context, MOST_CHECKS, check_owner};
use super::dialer::Dialer;
use super::failures::log_failure;
use super::keeper::{Keeper, MIN_PAUSE, is_kept};
use super::options::MonitorOptions;
use super::pulse::Pulse;
use super::streams::Streams;
use super::sweeps::{end_leases, inactivate};
use super::tasks::{Asked, Parked, Rest, Tasks};
use crate::engine::{Engine, EngineId, EngineStatus};
use crate::grpc::{Module, up_to};
use crate::registry::{
    AddressPolicy, AddressRefusal, CheckOutcome, Destination, EngineRegistry, RegistryError,
};
use crate::trust::{Deployment, KeySet};

/// Dials engines back and keeps their status. Cloning is cheap; the tasks end with the last clone.
///
/// An engine is checked when it registers, when it calls while it is not READY, and by the clock:
/// READY ones at a fixed interval, the others with a growing one. Each pause is jittered. A READY
/// engine is lost after a few failed checks in a row, and the next follows at once; so it does where
/// its connection has ended, and where its owner's entry changed. What the trust forbids, and what an
/// engine answers after its owner's entry changed, needs no second check; one that this process was
/// itself late for is no check. A check of an address that the engine has left is given up. Of one
/// deployment at most 8 engines are dialled at once, first attempts before retries, each name is
/// resolved within 2 s and each answer read up to 1 MiB. Nothing here decides a status:
/// [`EngineRegistry`] does.
#[derive(Clone, Debug)]
pub struct Monitor {
    pub(super) context: Arc<Context>,
    tasks: Arc<Mutex<Tasks>>,
}

impl Monitor {
    /// Makes a monitor of the engines in `registry`, which dials what `policy` allows. To be made
    /// within a tokio runtime.
    pub fn new(
        module: Module,
        registry: Arc<EngineRegistry>,
        policy: AddressPolicy,
        options: MonitorOptions,
    ) -> Self {
        let (pulse, beating) = Pulse::begin();
        let context = Arc::new(Context {
            module,
            registry,
            dialer: Dialer::new(policy, options.resolver.clone(), options.connection.clone()),
            options,
            pulse,
            checking: Semaphore::new(MOST_CHECKS),
            due_earlier: Notify::new(),
            streams: Arc::new(Streams::default()),
        });
        let monitor = Self {
            context: Arc::clone(&context),
            tasks: Arc::default(),
        };
        let tasks = Arc::downgrade(&monitor.tasks);
        let mut running = monitor.lock();
        let changes = context.module.trust().subscribe();
        let trust = follow_trust(Arc::clone(&context), tasks, changes);
        running.running.spawn(trust);
        let tasks = Arc::downgrade(&monitor.tasks);
        running
            .running
            .spawn(check_when_due(Arc::clone(&context), tasks));
        running.running.spawn(beating);
        if let Some(others) = context.registry.others() {
            let tasks = Arc::downgrade(&monitor.tasks);
            let following = follow_others(Arc::clone(&context), tasks, others);
            running.running.spawn(following);
        }
        running.running.spawn(inactivate(Arc::clone(&context)));
        running.running.spawn(end_leases(context));
        drop(running);
        monitor
    }

    /// Checks the address that an engine registers, so that what is never dialled is not
    /// registered either. A name that does not resolve now passes; it is judged when it does.
    ///
    /// # Errors
    ///
    /// The rule that refuses it.
    pub async fn judge(&self, destination: &Destination<'_>) -> Result<(), AddressRefusal> {
        self.context.dialer.judge(destination).await
    }

    /// Has every engine checked that the registry holds, as after a restart: those that are READY
    /// first, each kind spread over a time. Those that are no longer trusted leave READY at once.
    ///
    /// # Errors
    ///
    /// When the registry's store fails.
    pub async fn check_all(&self) -> Result<(), RegistryError> {
        let Context {
            registry, module, ..
        } = &*self.context;
        let (soon, trust) = (self.context.options.soon(), module.trust().load());
        for engine in registry.all().await? {
            registry.note(&engine);
            self.owner_of(&engine, &trust).await;
            match engine.status {
                _ if !self.is_to_check(&engine) => {}
                EngineStatus::Ready => self.check_in(up_to(soon), engine.id, MIN_PAUSE),
                EngineStatus::Inactive => {}
                _ => self.check_in(soon + up_to(soon), engine.id, MIN_PAUSE),
            }
        }
        Ok(())
    }

    /// Has `engine` checked as soon as its running check, if any, is over.
    pub fn check_now(&self, engine: EngineId) {
        self.check_in(Duration::ZERO, engine, MIN_PAUSE);
    }

    /// Has `engine` checked, which called while it was not READY: as often as the first retry
    /// follows, however often it calls.
    pub(super) fn heard(&self, engine: EngineId) {
        let after = self.context.options.soon().max(MIN_PAUSE);
        self.check_in(Duration::ZERO, engine, after);
    }

    /// Has `engine` checked in `time` at the latest, and so long after its last check.
    fn check_in(&self, time: Duration, engine: EngineId, after: Duration) {
        let now = Instant::now();
        let by = now + time;
        let asked = Asked { by, after };
        let mut tasks = self.lock();
        if let Some(wake) = tasks.wake.get(&engine).filter(|wake| !wake.is_closed()) {
            wake.send_replace(asked);
            return;
        }
        let rest = match tasks.parked.get(engine) {
            Some(rest) => Rest {
                until: rest.until.min(by.max(rest.since + after)),
                ..rest
            },
            None => Rest {
                since: now,
                until: by,
                failures: 0,
                registered_at: None,
            },
        };
        tasks.park(engine, rest, &self.context.due_earlier);
    }

    /// Gives each engine that is due a task; returns when the next one is due.
    fn check_due(&self) -> Option<Instant> {
        let context = &self.context;
        let now = Instant::now();
        let mut tasks = self.lock();
        // What has ended is forgotten, so that the set does not grow.
        while tasks.running.try_join_next().is_some() {}
        while let Some((engine, rest)) = tasks.parked.due(now) {
            if rest.registered_at.is_some() && !context.registry.is_mine(engine) {
                context.streams.forget(engine);
                continue;
            }
            let after = MIN_PAUSE;
            let (wake, woken) = watch::channel(Asked { by: now, after });
            tasks.wake.insert(engine, wake);
            let keeper = Keeper {
                engine,
                context: Arc::clone(context),
                tasks: Arc::downgrade(&self.tasks),
                woken,
            };
            let mut checker = Checker::new(Arc::clone(context));
            (checker.failures, checker.registered_at) = (rest.failures, rest.registered_at);
            tasks.running.spawn(keeper.run(checker));
        }
        tasks.parked.next()
    }

    /// Ends every task, and the streams of one-way engines. Engines keep the status they have.
    pub fn stop(&self) {
        let mut tasks = self.lock();
        tasks.wake.clear();
        tasks.parked = Parked::default();
        tasks.running.abort_all();
        self.context.streams.close();
    }

    /// Returns the owner of `engine` if `trust` lets it register the engine; else the engine leaves
    /// READY.
    async fn owner_of(&self, engine: &Engine, trust: &KeySet) -> Option<Arc<Deployment>> {
        let Context {
            registry, module, ..
        } = &*self.context;
        match check_owner(trust, engine, module) {
            Ok(owner) => Some(owner),
            Err(failure) => {
                let failed = CheckOutcome::Failed(failure);
                log_failure(registry, registry.record_check(engine, &failed).await);
                None
            }
        }
    }

    /// Judges every engine by the trust of `now`.
    async fn judge_all(&self, before: &KeySet, now: &KeySet) -> Result<(), RegistryError> {
        let all = self.context.registry.all().await?;
        for engine in all.iter().filter(|engine| is_kept(engine)) {
            let was = before.deployment(&engine.owner.deployment);
            let owner = self.owner_of(engine, now).await;
            let is_same =
                owner.is_some_and(|owner| was.is_some_and(|was| Arc::ptr_eq(was, &owner)));
            let within = if is_same {
                up_to(self.context.options.soon())
            } else {
                // A check under way is given up.
                Duration::ZERO
            };
            if self.is_to_check(engine) {
                self.check_in(within, engine.id, MIN_PAUSE);
            }
        }
        Ok(())
    }

    /// Looks at what another DPM has changed: an engine, or which engines are this one's to check. The
    /// DPM that changed an engine has a moment to check it itself.
    async fn look(&self, changed: Option<EngineId>) -> Result<(), RegistryError> {
        let Context {
            registry, module, ..
        } = &*self.context;
        let soon = self.context.options.soon();
        let (engines, within) = match changed {
            Some(id) => (registry.find(id).await?.into_iter().collect(), soon),
            None => (registry.all().await?, Duration::ZERO),
        };
        if let Some(id) = changed.filter(|_| engines.is_empty()) {
            registry.note_gone(id);
            if self.is_watched(id) {
                self.check_now(id);
            }
        }
        let trust = module.trust().load();
        for engine in engines {
            registry.note(&engine);
            if engine.is_held_elsewhere() {
                self.context.streams.forget(engine.id);
            }
            if !is_kept(&engine) || self.owner_of(&engine, &trust).await.is_none() {
                continue;
            }
            let is_known = changed.is_none() && !engine.suspect && self.is_watched(engine.id);
            if self.is_to_check(&engine) && !is_known {
                self.check_in(within, engine.id, MIN_PAUSE);
            }
        }
        Ok(())
    }

    /// Returns `true` if this DPM asks `engine` by itself. A one-way engine whose DPM has gone says by its
    /// calls that it lives, until it has a stream to another.
    fn is_to_check(&self, engine: &Engine) -> bool {
        self.context.registry.is_mine(engine.id) && !engine.is_held_elsewhere()
    }

    /// Returns `true` if `engine` has a next check.
    fn is_watched(&self, engine: EngineId) -> bool {
        let tasks = self.lock();
        let wake = tasks.wake.get(&engine);
        wake.is_some_and(|wake| !wake.is_closed()) || tasks.parked.get(engine).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the trust: an engine whose owner has lost it leaves READY without a dial, those of an
/// owner whose entry changed are checked at once, and all others in a while.
async fn follow_trust(
    context: Arc<Context>,
    tasks: Weak<Mutex<Tasks>>,
    mut changes: watch::Receiver<()>,
) {
    let mut before = context.module.trust().load();
    while changes.changed().await.is_ok() {
        let Some(tasks) = tasks.upgrade() else {
            return;
        };
        let context = Arc::clone(&context);
        let monitor = Monitor { context, tasks };
        let now = monitor.context.module.trust().load();
        let judged = monitor.judge_all(&before, &now).await;
        log_failure(&monitor.context.registry, judged);
        before = now;
    }
}

/// Has each engine checked that is due.
async fn check_when_due(context: Arc<Context>, tasks: Weak<Mutex<Tasks>>) {
    while let Some(tasks) = tasks.upgrade() {
        let monitor = Monitor {
            context: Arc::clone(&context),
            tasks,
        };
        let next = monitor.check_due();
        drop(monitor);
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = context.due_earlier.notified() => {}
        }
    }
}

/// Follows what other DPMs change.
async fn follow_others(
    context: Arc<Context>,
    tasks: Weak<Mutex<Tasks>>,
    mut others: broadcast::Receiver<Option<EngineId>>,
) {
    loop {
        let changed = match others.recv().await {
            Ok(changed) => changed,
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return,
        };
        let Some(tasks) = tasks.upgrade() else {
            return;
        };
        let context = Arc::clone(&context);
        let monitor = Monitor { context, tasks };
        log_failure(&monitor.context.registry, monitor.look(changed).await);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::runtime::Handle;
    use tokio::sync::mpsc;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::clock::ManualClock;
    use crate::dpm::Resolver;
    use crate::dpm::keeper::Checked;
    use crate::dpm::options::jittered;
    use crate::dpm::sweeps::LEASE;
    use crate::engine::{DialBackFailure, EngineAddress, EngineConstraints, FailureKind};
    use crate::engine::{Held, Instance};
    use crate::identity::Roles;
    use crate::registry::store::{Counts, EngineStore, Expected, MemoryStore, Revision};
    use crate::registry::store::{StoreFuture, Stored};
    use crate::registry::{Limits, Registrant};
    use crate::testing;
    use crate::trust::Deployment;

    /// A store that other DPMs share: `mine` says whether this one checks its engines.
    #[derive(Debug)]
    struct Shared {
        memory: MemoryStore,
        mine: AtomicBool,
        others: broadcast::Sender<Option<EngineId>>,
    }

    impl EngineStore for Shared {
        fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
            self.memory.find(id)
        }

        fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
            self.memory.page(after, limit)
        }

        fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
            self.memory.count(deployment)
        }

        fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
            self.memory.replace(engine, expected)
        }

        fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
            self.memory.remove(id, revision)
        }

        fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
            self.memory.stalest(deployment)
        }

        fn is_mine(&self, _id: EngineId) -> bool {
            self.mine.load(Ordering::SeqCst)
        }

        fn others(&self) -> Option<broadcast::Receiver<Option<EngineId>>> {
            Some(self.others.subscribe())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn engine_that_another_dpm_keeps_is_dialled_once_when_it_calls_and_at_once_when_its_dpm_goes()
     {
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let options = MonitorOptions {
            resolver: Resolver::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Vec::new())
            }),
            ..MonitorOptions::default()
        };
        let shared = Arc::new(Shared {
            memory: MemoryStore::default(),
            mine: AtomicBool::new(false),
            others: broadcast::Sender::new(8),
        });
        let pair = testing::pair();
        let store: Arc<dyn EngineStore> = Arc::clone(&shared) as _;
        let clock = Arc::clone(pair.dpm.clock());
        let registry = Arc::new(EngineRegistry::new(store, clock, Limits::default()));
        let policy = AddressPolicy::default();
        let monitor = Monitor::new(pair.dpm.clone(), Arc::clone(&registry), policy, options);
        let id = EngineId::from_random([1; 16]);
        let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
        let constraints = EngineConstraints::default();
        registry
            .register(&owner(), id, address, constraints)
            .await
            .unwrap();
        let dials = async |seconds| {
            sleep(Duration::from_secs(seconds)).await;
            dialled.swap(0, Ordering::SeqCst)
        };

        monitor.check_all().await.unwrap();
        shared.others.send(Some(id)).unwrap();
        let by_itself = dials(60).await;
        monitor.heard(id);
        let heard = dials(60).await;
        shared.mine.store(true, Ordering::SeqCst);
        shared.others.send(None).unwrap();
        let taken_over = dials(2).await;
        shared.mine.store(false, Ordering::SeqCst);
        let given = dials(600).await;

        assert_eq!((by_itself, heard), (0, 1));
        assert!(taken_over >= 1, "{taken_over}");
        assert_eq!(given, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn stream_of_an_engine_that_proved_itself_to_another_dpm_since_is_closed() {
        let shared = Arc::new(Shared {
            memory: MemoryStore::default(),
            mine: AtomicBool::new(false),
            others: broadcast::Sender::new(8),
        });
        let pair = testing::pair();
        let store: Arc<dyn EngineStore> = Arc::clone(&shared) as _;
        let clock = Arc::clone(pair.dpm.clock());
        let registry = Arc::new(EngineRegistry::new(store, clock, Limits::default()));
        let (policy, options) = (AddressPolicy::default(), MonitorOptions::default());
        let monitor = Monitor::new(pair.dpm.clone(), Arc::clone(&registry), policy, options);
        let id = EngineId::from_random([1; 16]);
        let address = EngineAddress::one_way("dpe.example.org").unwrap();
        let instance = Instance::from_random([2; 16]);
        let caller = Registrant {
            instance: Some(instance),
            ..owner()
        };
        let constraints = EngineConstraints::default();
        let registered = registry.register(&caller, id, address, constraints);
        let engine = registered.await.unwrap();
        let streams = &monitor.context.streams;
        let (stream, _asked) = streams.open(instance, String::new().into(), "dpe-dev");
        registry.hold(&engine).await.unwrap();
        streams.install(id, stream.clone());

        shared.others.send(Some(id)).unwrap();
        let ended = timeout(Duration::from_secs(1), stream.ended()).await;
        let found = shared.find(id).await.unwrap().unwrap();
        let elsewhere = Engine {
            held: Some(Held {
                by: Some(uuid::Uuid::new_v4()),
                is_open: true,
            }),
            ..Engine::clone(&found.engine)
        };
        let moved = shared.replace(elsewhere, Expected::At(found.revision));
        moved.await.unwrap().unwrap();
        shared.others.send(Some(id)).unwrap();

        stream.ended().await;
        ended.unwrap_err();
    }

    /// A DPM of one engine, whose checks a test makes one by one.
    struct World {
        clock: Arc<ManualClock>,
        module: Module,
        monitor: Monitor,
        keeper: Keeper,
        checker: Checker,
        _wake: watch::Sender<Asked>,
    }

    fn owner() -> Registrant {
        Registrant {
            identity: testing::identity("dpe", "dpe-dev", &["IMPERSONATION"]),
            environment: None,
            fingerprint: "k".into(),
            over_loopback: true,
            instance: None,
            heartbeat_interval: None,
        }
    }

    impl World {
        /// Registers an engine at `address`.
        async fn new(
            address: EngineAddress,
            change: impl FnOnce(&mut MonitorOptions, Arc<MemoryStore>),
        ) -> Self {
            let pair = testing::pair();
            let (module, clock) = (pair.dpm, pair.clock);
            let store = Arc::new(MemoryStore::default());
            let mut options = MonitorOptions::default();
            change(&mut options, Arc::clone(&store));
            let registry =
                EngineRegistry::new(store, Arc::clone(module.clock()), Limits::default());
            let policy = AddressPolicy::default();
            let monitor = Monitor::new(module.clone(), Arc::new(registry), policy, options);
            let context = Arc::clone(&monitor.context);
            let (wake, woken) = watch::channel(Asked {
                by: Instant::now(),
                after: MIN_PAUSE,
            });
            let keeper = Keeper {
                engine: EngineId::from_random([1; 16]),
                context: Arc::clone(&context),
                tasks: Arc::downgrade(&monitor.tasks),
                woken,
            };
            let world = Self {
                clock,
                module,
                monitor,
                keeper,
                checker: Checker::new(context),
                _wake: wake,
            };
            world.register(1, address).await;
            world
        }

        async fn register(&self, id: u8, address: EngineAddress) -> Arc<Engine> {
            let id = EngineId::from_random([id; 16]);
            let registry = &self.monitor.context.registry;
            let constraints = EngineConstraints::default();
            registry
                .register(&owner(), id, address, constraints)
                .await
                .unwrap()
        }

        /// Has `engine` READY.
        async fn prove(&self, engine: Arc<Engine>) {
            let registry = &self.monitor.context.registry;
            let proved = registry.record_check(&engine, &CheckOutcome::Proved).await;
            assert_eq!(proved.unwrap().status, EngineStatus::Ready);
        }

        /// Registers an engine where nothing listens, and has it READY.
        async fn lost() -> Self {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            let address = EngineAddress::new("127.0.0.1", port.into()).unwrap();
            let world = Self::new(address, |_, _| ()).await;
            world.prove(world.engine().await).await;
            world
        }

        async fn engine(&self) -> Arc<Engine> {
            let registry = &self.monitor.context.registry;
            registry.find(self.keeper.engine).await.unwrap().unwrap()
        }

        /// Checks the engine; returns what that means, and its status.
        async fn check(&mut self) -> (Checked, EngineStatus) {
            let checked = self.keeper.check(&mut self.checker).await.unwrap();
            (checked, self.engine().await.status)
        }

        /// Has the owner as one that proved itself.
        fn vouch(&mut self) {
            let trust = self.module.trust().load();
            self.checker.vouched = trust.deployment("dpe-dev").cloned();
        }

        /// Has the owner's entry changed.
        fn trust(&self, change: impl FnOnce(&mut Deployment)) {
            let trust = self.module.trust().load();
            let mut owner = Deployment::clone(trust.deployment("dpe-dev").unwrap());
            change(&mut owner);
            let trust = trust.trusting(vec![owner]).unwrap();
            self.module.trust().replace(trust);
        }
    }

    #[tokio::test]
    async fn engine_that_is_forgotten_while_it_is_dialled_is_left() {
        let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
        let mut world = World::new(address, |options, engines| {
            options.resolver = Resolver::new(move |_| {
                Handle::current().block_on(async {
                    let engine = EngineId::from_random([1; 16]);
                    let found = engines.find(engine).await.unwrap().unwrap();
                    engines.remove(engine, found.revision).await.unwrap();
                });
                Ok(Vec::new())
            });
        })
        .await;

        let checked = world.keeper.check(&mut world.checker).await;

        assert!(matches!(checked, Ok(Checked::Left)), "{checked:?}");
    }

    #[tokio::test]
    async fn ready_engine_is_disconnected_by_the_third_failed_check_in_a_row() {
        let mut world = World::lost().await;
        world.vouch();

        for failed in 1..3 {
            let (checked, status) = world.check().await;
            assert!(matches!(checked, Checked::Missed), "{failed}: {checked:?}");
            assert_eq!(status, EngineStatus::Ready, "{failed}");
            assert_eq!(world.engine().await.status_reason, None, "{failed}");
        }
        let (checked, status) = world.check().await;

        assert!(matches!(checked, Checked::Lost), "{checked:?}");
        assert_eq!(status, EngineStatus::Disconnected);
        let reason = world.engine().await.status_reason.clone().unwrap();
        assert!(reason.contains("cannot be reached"), "{reason}");
    }

    #[tokio::test]
    async fn what_the_trust_forbids_disconnects_a_ready_engine_at_once() {
        for change in [
            (|owner: &mut Deployment| owner.keys[0].revoked = true) as fn(&mut Deployment),
            |owner| owner.roles = Roles::default(),
        ] {
            let mut world = World::lost().await;
            world.vouch();
            world.trust(change);

            let (checked, status) = world.check().await;

            assert!(matches!(checked, Checked::Lost), "{checked:?}");
            assert_eq!(status, EngineStatus::Disconnected);
        }
    }

    #[tokio::test]
    async fn answer_after_its_owners_entry_changed_decides_about_a_ready_engine() {
        let mut world = World::lost().await;
        world.vouch();
        let engine = world.engine().await;
        let decides = |world: &World, kind| {
            let failure = DialBackFailure::new(kind, "x");
            world.checker.is_final(&failure, &engine)
        };
        for kind in FailureKind::ALL {
            let is_final = decides(&world, kind);
            assert_eq!(is_final, kind == FailureKind::NotDialled, "{kind:?}");
        }

        world.trust(|owner| owner.single_use_tokens = true);

        for kind in FailureKind::ALL {
            let is_networks = matches!(
                kind,
                FailureKind::NotReached | FailureKind::TimedOut | FailureKind::ConnectionLost
            );
            assert_eq!(decides(&world, kind), !is_networks, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn revocation_takes_an_engine_out_of_ready_without_a_dial() {
        let world = World::lost().await;

        world.trust(|owner| owner.keys[0].revoked = true);

        while world.engine().await.status == EngineStatus::Ready {
            tokio::task::yield_now().await;
        }
        let reason = world.engine().await.status_reason.clone().unwrap();
        assert!(
            reason.contains("every key of `dpe-dev` is revoked"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn revocation_of_one_key_takes_out_those_that_registered_with_it() {
        let world = World::lost().await;
        let registry = &world.monitor.context.registry;
        let other = testing::own_deployment("dpe", "dpe-dev");
        let mut keys = testing::trusted(&other).keys;
        world.trust(|owner| owner.keys.append(&mut keys));
        let trust = world.module.trust().load();
        let keys = &trust.deployment("dpe-dev").unwrap().keys;
        let registrant = |n: usize| Registrant {
            fingerprint: keys[n].key_id.as_str().into(),
            ..owner()
        };
        let id = world.engine().await.id;
        let alive = async |n| registry.heartbeat(&registrant(n), id).await.unwrap();
        alive(0).await;

        world.trust(|owner| owner.keys[0].revoked = true);
        while world.engine().await.status == EngineStatus::Ready {
            tokio::task::yield_now().await;
        }

        let engine = world.engine().await;
        let failure = engine.dial_back_failure.as_ref().unwrap();
        assert_eq!(failure.reason.as_deref(), Some("KEY_REVOKED"));
        // It signs with its other key from then on.
        let engine = alive(1).await;
        let trust = world.module.trust().load();
        assert!(check_owner(&trust, &engine, &world.module).is_ok());
    }

    #[tokio::test]
    async fn leases_that_are_over_because_this_process_was_late_last_for_one_more_call() {
        let world = World::lost().await;
        let registry = &world.monitor.context.registry;
        let registrant = Registrant {
            heartbeat_interval: Some(Duration::from_millis(100)),
            ..owner()
        };
        let id = world.engine().await.id;
        registry.heartbeat(&registrant, id).await.unwrap();
        tokio::task::yield_now().await;

        // What another process or a stop does to this one.
        std::thread::sleep(Duration::from_millis(1_100));
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert_eq!(world.engine().await.status, EngineStatus::Ready);
        }

        while world.engine().await.status == EngineStatus::Ready {
            tokio::task::yield_now().await;
        }
        let reason = world.engine().await.status_reason.clone();
        assert_eq!(reason.as_deref(), Some("not heard from for 1s"));
    }

    #[tokio::test]
    async fn check_during_which_this_process_was_late_counts_for_nothing() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let address = EngineAddress::new("127.0.0.1", port.into()).unwrap();
        let mut world = World::new(address, |options, _| {
            options.connection.connect_timeout = Duration::from_millis(100);
            options.checker_timeout = Duration::from_millis(1);
            options.check_failures = 1;
        })
        .await;
        world.prove(world.engine().await).await;

        let stall = async {
            tokio::task::yield_now().await;
            // What another process or a stop does to this one.
            std::thread::sleep(Duration::from_millis(150));
        };
        let ((stalled, status), ()) = tokio::join!(world.check(), stall);
        // The machine that runs this test may be late once more.
        let (mut checked, mut then) = world.check().await;
        while matches!(checked, Checked::Void) {
            (checked, then) = world.check().await;
        }

        assert!(matches!(stalled, Checked::Void), "{stalled:?}");
        assert_eq!(status, EngineStatus::Ready);
        assert!(matches!(checked, Checked::Lost), "{checked:?}");
        assert_eq!(then, EngineStatus::Disconnected);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_of_all_engines_are_spread_and_those_that_were_ready_come_first() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&asked);
        let address = EngineAddress::new("new.example.org", 8532).unwrap();
        let world = World::new(address, |options, _| {
            options.resolver = Resolver::new(move |name| {
                note.lock().unwrap().push((name.to_owned(), Instant::now()));
                Ok(Vec::new())
            });
        })
        .await;
        for n in 2..42 {
            let host = if n % 2 == 0 { "ready" } else { "new" };
            let address = EngineAddress::new(&format!("{host}.example.org"), 8532).unwrap();
            let engine = world.register(n, address).await;
            if host == "ready" {
                world.prove(engine).await;
            }
        }
        let start = Instant::now();

        world.monitor.check_all().await.unwrap();
        sleep(Duration::from_millis(2_100)).await;

        let asked = asked.lock().unwrap();
        let of = |host| asked.iter().filter(move |(name, _)| name.starts_with(host));
        let times = |host| of(host).map(|(_, at)| *at - start).collect::<BTreeSet<_>>();
        let (ready, new) = (times("ready"), times("new"));
        let second = Duration::from_secs(1);
        assert!(ready.range(..second).count() > 5, "{ready:?}");
        assert!(new.len() > 5 && new.range(..second).count() == 0, "{new:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn engine_that_calls_without_end_is_dialled_once_a_second() {
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
        let world = World::new(address, |options, _| {
            options.check_disconnected_multiplier = 100.0;
            options.resolver = Resolver::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Vec::new())
            });
        })
        .await;
        let engine = world.keeper.engine;
        world.monitor.check_now(engine);

        for _ in 0..200 {
            sleep(Duration::from_millis(50)).await;
            world.monitor.heard(engine);
        }

        let dialled = dialled.load(Ordering::SeqCst);
        assert!((9..=12).contains(&dialled), "{dialled}");
    }

    #[tokio::test(start_paused = true)]
    async fn engine_without_a_connection_has_no_task_between_its_checks() {
        let (asked, mut dialled) = mpsc::unbounded_channel();
        let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
        let world = World::new(address, |options, _| {
            options.check_disconnected_interval = Duration::from_secs(10);
            options.resolver = Resolver::new(move |_| {
                asked.send(Instant::now()).unwrap();
                Ok(Vec::new())
            });
        })
        .await;
        let engine = world.keeper.engine;
        let tasks = || world.monitor.lock().wake.len();
        world.monitor.check_now(engine);
        let first = dialled.recv().await.unwrap();
        assert_eq!(tasks(), 1);

        sleep(Duration::from_secs(2)).await;
        assert_eq!(tasks(), 0);
        let second = dialled.recv().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        world.monitor.check_now(engine);
        let third = dialled.recv().await.unwrap();

        assert!(second - first >= Duration::from_secs(9));
        assert!(third - second < Duration::from_secs(3));
        let failed = world.monitor.lock().parked.get(engine);
        assert!(failed.is_none_or(|rest| rest.failures == 3), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn engines_not_seen_are_looked_for_as_often_as_is_set() {
        let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
        let world = World::new(address, |options, _| {
            options.inactivate_not_seen_for = Duration::from_secs(60);
            options.inactivate_period = Duration::from_secs(3);
        })
        .await;
        // The first look is after a lease, the next one 3 s later.
        sleep(LEASE + Duration::from_secs(1)).await;
        world.clock.advance(Duration::from_secs(61));

        sleep(Duration::from_millis(1_900)).await;
        let before = world.engine().await.status;
        sleep(Duration::from_millis(200)).await;

        assert_eq!(before, EngineStatus::New);
        assert_eq!(world.engine().await.status, EngineStatus::Inactive);
    }

    #[test]
    fn pauses_are_jittered_by_a_tenth() {
        let pause = Duration::from_secs(10);

        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();

        let [shortest, longest] = [Duration::from_secs(9), Duration::from_secs(11)];
        assert!(pauses.iter().all(|one| (shortest..=longest).contains(one)));
        assert!(pauses.iter().any(|one| *one != pauses[0]));
    }

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let options = MonitorOptions::default();

        let seconds = [1, 2, 3, 4, 10, 11, u32::MAX].map(|n| options.back_off(n).as_secs());

        assert_eq!(seconds, [1, 2, 4, 8, 512, 600, 600]);
    }

    #[test]
    fn back_off_of_an_odd_multiplier_stays_within_bounds() {
        let options = |check_disconnected_multiplier| MonitorOptions {
            check_disconnected_multiplier,
            ..MonitorOptions::default()
        };

        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            for failures in [1, 2, 3, u32::MAX] {
                let pause = options(odd).back_off(failures);
                assert!(pause <= options(odd).check_disconnected_max, "{odd}");
            }
        }
    }
}
