//! What the log says of engines: a few lines a minute for each, however often it changes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::engine::{Engine, EngineId, EngineStatus};
use crate::identity::ServiceIdentity;
use crate::telemetry::{Ledger, events};

/// How many kinds of events of engines are counted one by one.
const MOST: usize = 2048;

/// How many lines a minute an engine gets for each kind.
const BURST: u32 = 4;

/// How many causes of a store's failures are counted one by one.
const MOST_CAUSES: usize = 16;

/// Logs what happens to engines. The last status of an engine, and the last reason why it is not
/// READY, are always logged, some time later where it changed too often.
#[derive(Debug)]
pub(super) struct EngineLog(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    ledger: Ledger<Kind>,
    /// Failures of the store, by their cause.
    store: Ledger<String>,
    /// What was not logged: the status before.
    unlogged: HashMap<Kind, EngineStatus>,
}

type Kind = (EngineId, News);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum News {
    Registered,
    Deregistered,
    Status,
    Failure,
}

impl Default for EngineLog {
    fn default() -> Self {
        Self(Mutex::new(Lines {
            ledger: Ledger::new(MOST, BURST),
            store: Ledger::new(MOST_CAUSES, 1),
            unlogged: HashMap::new(),
        }))
    }
}

impl EngineLog {
    pub(super) fn registered(&self, caller: &ServiceIdentity, engine: &Engine) {
        if let Some(suppressed) = self.admit((engine.id, News::Registered)) {
            events::register_engine(caller, engine, suppressed);
        }
    }

    pub(super) fn deregistered(&self, caller: &ServiceIdentity, engine: &Engine) {
        if let Some(suppressed) = self.admit((engine.id, News::Deregistered)) {
            events::deregister_engine(caller, engine, suppressed);
        }
    }

    /// Notes that the status of `engine` was `old`; `detail` says why it changed.
    pub(super) fn status(&self, old: EngineStatus, engine: &Engine, detail: Option<&str>) {
        let admitted = self.lines().admit((engine.id, News::Status), old);
        if let Some((old, suppressed)) = admitted {
            events::set_engine_status(engine, old, engine.status, detail, suppressed);
        }
    }

    /// Notes that the reason why `engine` is not READY changed, if there is one.
    pub(super) fn failure(&self, engine: &Engine) {
        let Some(failure) = &engine.dial_back_failure else {
            return;
        };
        let admitted = self
            .lines()
            .admit((engine.id, News::Failure), engine.status);
        if let Some((_, suppressed)) = admitted {
            events::engine_check_failed(engine, failure, suppressed);
        }
    }

    /// Logs what was not logged of `engine` and still holds, once it may be.
    pub(super) fn settle(&self, engine: &Engine) {
        let [status, failed] = self.lines().settle(engine.id);
        if let Some((old, suppressed)) = status {
            let detail = engine.status_reason.as_deref();
            let detail = detail.filter(|_| engine.dial_back_failure.is_none());
            events::set_engine_status(engine, old, engine.status, detail, suppressed);
        }
        if let Some(((_, suppressed), failure)) = failed.zip(engine.dial_back_failure.as_ref()) {
            events::engine_check_failed(engine, failure, suppressed);
        }
    }

    /// Notes that `engine` is gone.
    pub(super) fn forgotten(&self, engine: &Engine) {
        self.lines().unlogged.retain(|(id, _), _| *id != engine.id);
        events::forget_engine(engine);
    }

    pub(super) fn store_failed(&self, cause: &str) {
        let admitted = self.lines().store.admit(cause.to_owned(), Instant::now());
        if let Some(suppressed) = admitted {
            events::registry_failed(cause, suppressed);
        }
    }

    fn admit(&self, kind: Kind) -> Option<u64> {
        self.lines().ledger.admit(kind, Instant::now())
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// If an event of `kind` is to be logged, returns the status that the log knows, and how many
    /// were not logged.
    fn admit(&mut self, kind: Kind, before: EngineStatus) -> Option<(EngineStatus, u64)> {
        let admitted = self.ledger.admit(kind, Instant::now());
        match admitted {
            Some(suppressed) => Some((self.unlogged.remove(&kind).unwrap_or(before), suppressed)),
            None => {
                self.unlogged.entry(kind).or_insert(before);
                None
            }
        }
    }

    /// What is to be logged late of `engine`: of its status, and of its failure. Each with the status
    /// that the log knows, and how many events were not logged.
    fn settle(&mut self, engine: EngineId) -> [Option<(EngineStatus, u64)>; 2] {
        if self.unlogged.is_empty() {
            return [None, None];
        }
        [News::Status, News::Failure].map(|news| {
            let kind = (engine, news);
            let known = *self.unlogged.get(&kind)?;
            let suppressed = self.ledger.admit_late(kind, Instant::now())?;
            self.unlogged.remove(&kind);
            Some((known, suppressed))
        })
    }
}
