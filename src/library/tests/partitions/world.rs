//! One DPM and its engines, as library code of their own hosts.

use std::cell::RefCell;
use std::error::Error;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::dpe::{self, Dpe, Registration, StatusCheckerOptions};
use crate::dpm::{self, Dpm};
use crate::engine::{Engine, EngineId, EngineStatus};
use crate::grpc::Module;
use crate::grpc::network::{Network, Port};
use crate::grpc::{ConnectionOptions, Target};
use crate::registry::EngineRegistry;
use crate::registry::store::MemoryStore;
use crate::storage::Storage;
use crate::testing::{own_deployment, trusted};
use crate::trust::OwnDeployment;
use tempfile::TempDir;
use tokio::sync::watch;
use turmoil::{Builder, Sim};

use super::faults::{Fault, Kind};
use super::network::{Host, START, SimulatedClock};

pub(super) const ENGINES: usize = 3;

/// Between two heartbeats of an engine.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

const DPM_PORT: u16 = 8531;
const DPE_PORT: u16 = 8532;

/// How much time passes at once in the network.
const TICK: Duration = Duration::from_millis(20);

/// An engine, as it sees itself.
#[derive(Default)]
struct Inside {
    /// Its id, once it has started.
    id: Option<EngineId>,
    /// How it is registered, while it runs.
    registration: Option<watch::Receiver<Registration>>,
}

impl Inside {
    fn registration(&self) -> Registration {
        let known = self.registration.as_ref();
        known.map_or(Registration::Absent, |registration| *registration.borrow())
    }
}

pub(super) struct World {
    sim: Sim<'static>,
    registry: Rc<RefCell<Option<Arc<EngineRegistry>>>>,
    engines: Vec<Rc<RefCell<Inside>>>,
    _homes: Vec<TempDir>,
}

impl World {
    pub(super) fn start(seed: u64, is_silent: bool) -> Self {
        let mut sim = Builder::new()
            .rng_seed(seed)
            .epoch(SystemTime::UNIX_EPOCH + START)
            .tick_duration(TICK)
            .max_message_latency(Duration::from_millis(20))
            .simulation_duration(Duration::MAX)
            .build();
        let dpm = own_deployment("dpm", "dpm-dev");
        let engine = own_deployment("dpe", "dpe-dev");
        let homes: Vec<_> = (0..=ENGINES)
            .map(|_| tempfile::tempdir().unwrap())
            .collect();
        let folder = |number: usize| homes[number].path().to_owned();
        let registry = Rc::default();
        let (keys, home) = ((dpm.clone(), engine.clone()), folder(ENGINES));
        let shown = Rc::clone(&registry);
        sim.host("dpm", move || {
            run_dpm(keys.clone(), home.clone(), is_silent, Rc::clone(&shown))
        });
        let mut engines = Vec::new();
        for number in 0..ENGINES {
            let inside = Rc::<RefCell<Inside>>::default();
            engines.push(Rc::clone(&inside));
            let (keys, home) = ((engine.clone(), dpm.clone()), folder(number));
            sim.host(name_of(number), move || {
                let host = (name_of(number), is_silent);
                run_dpe(keys.clone(), home.clone(), host, Rc::clone(&inside))
            });
        }
        Self {
            sim,
            registry,
            engines,
            _homes: homes,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(super) fn step(&mut self) {
        self.sim.step().unwrap();
    }

    pub(super) fn inflict(&mut self, fault: &Fault) {
        let engine = name_of(fault.engine);
        match fault.kind {
            Kind::Partition => self.sim.partition(engine, "dpm"),
            Kind::Hold => self.sim.hold(engine, "dpm"),
            Kind::FromDpm => self.sim.partition_oneway("dpm", engine),
            Kind::FromEngine => self.sim.partition_oneway(engine, "dpm"),
            Kind::Kill => {
                self.sim.crash(engine);
                self.engines[fault.engine].borrow_mut().registration = None;
            }
        }
    }

    pub(super) fn repair(&mut self, fault: &Fault) {
        let engine = name_of(fault.engine);
        match fault.kind {
            Kind::Partition | Kind::FromDpm | Kind::FromEngine => self.sim.repair(engine, "dpm"),
            Kind::Hold => self.sim.release(engine, "dpm"),
            Kind::Kill => self.sim.bounce(engine),
        }
    }

    /// The status of each engine that has a record, as the DPM lists it.
    pub(super) fn statuses(&self) -> Vec<EngineStatus> {
        let records = self.records();
        let statuses = self.engines.iter().filter_map(|inside| {
            let id = inside.borrow().id?;
            let record = records.iter().find(|record| record.id == id)?;
            Some(record.status)
        });
        statuses.collect()
    }

    /// An engine that knows itself registered has a record, and no engine has two.
    pub(super) fn no_registration_is_lost_or_doubled(&self) {
        let records = self.records();
        assert!(records.len() <= ENGINES, "{records:#?}");
        for inside in &self.engines {
            let inside = inside.borrow();
            let here = records
                .iter()
                .filter(|record| Some(record.id) == inside.id)
                .filter(|record| record.status != EngineStatus::Inactive);
            let is_registered = inside.registration() != Registration::Absent;
            assert!(
                here.count() == 1 || !is_registered,
                "{:?}: {records:#?}",
                inside.id
            );
        }
    }

    /// Goes on until the DPM lists all engines as READY, and all of them know it.
    pub(super) fn run_until_all_are_ready(&mut self, within: Duration) {
        let end = self.elapsed() + within;
        loop {
            self.step();
            self.no_registration_is_lost_or_doubled();
            let known = self.engines.iter().all(|inside| {
                inside.borrow().registration() == Registration::Present(EngineStatus::Ready)
            });
            if known && self.statuses() == [EngineStatus::Ready; ENGINES] {
                return;
            }
            assert!(
                self.elapsed() < end,
                "not READY within {within:?}: {:#?}",
                self.records()
            );
        }
    }

    fn records(&self) -> Vec<Arc<Engine>> {
        let Some(registry) = self.registry.borrow().clone() else {
            return Vec::new();
        };
        let mut listing = pin!(registry.all());
        // In memory nothing waits.
        match listing
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(all) => all.unwrap(),
            Poll::Pending => panic!("the store waits"),
        }
    }
}

fn name_of(engine: usize) -> String {
    format!("dpe-{engine}")
}

type Ended = Result<(), Box<dyn Error>>;

/// The keys of the module that runs, and of the one that it trusts.
type Keys = (OwnDeployment, OwnDeployment);

async fn run_dpm(
    keys: Keys,
    home: PathBuf,
    is_silent: bool,
    seen: Rc<RefCell<Option<Arc<EngineRegistry>>>>,
) -> Ended {
    let host = Host::open("dpm", DPM_PORT, is_silent).await?;
    let mut options = dpm::Options::default();
    options.monitor.connection = over(&host);
    let (port, store) = (Port::Simulated(host), Arc::new(MemoryStore::default()));
    let dpm = Dpm::on(module(&keys), storage(&home)?, port, store, options)?;
    seen.replace(Some(Arc::clone(dpm.registry())));
    dpm.run(pending()).await?;
    Ok(())
}

async fn run_dpe(
    keys: Keys,
    home: PathBuf,
    (name, is_silent): (String, bool),
    inside: Rc<RefCell<Inside>>,
) -> Ended {
    let host = Host::open(&name, DPE_PORT, is_silent).await?;
    let mut checker = StatusCheckerOptions::new(Target::new("dpm", DPM_PORT));
    checker.check_connection_interval = HEARTBEAT;
    checker.connection = over(&host);
    let mut options = dpe::Options::new(checker);
    options.hostname = turmoil::lookup(name).to_string();
    let port = Some(Port::Simulated(host));
    let dpe = Dpe::on(module(&keys), storage(&home)?, port, options)?;
    inside.replace(Inside {
        id: Some(dpe.engine_id()),
        registration: Some(dpe.registration()),
    });
    dpe.run(pending()).await?;
    Ok(())
}

fn module((own, peer): &Keys) -> Module {
    let builder = Module::builder(own.clone()).trust(trusted(peer));
    let ticking = builder.clock(Arc::new(SimulatedClock));
    ticking.dangerous_plaintext().build().unwrap()
}

fn storage(home: &Path) -> Result<Storage, Box<dyn Error>> {
    Ok(Storage::lock(&home.join("storage"))?)
}

/// Connections over the network of `host`.
fn over(host: &Arc<Host>) -> ConnectionOptions {
    ConnectionOptions {
        allow_plaintext: true,
        network: Network::Simulated(Arc::clone(host) as _),
        ..ConnectionOptions::default()
    }
}
