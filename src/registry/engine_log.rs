//! What the log says of engines: a few lines a minute for each, however often it changes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::engine::{Engine, EngineId, EngineStatus};
use crate::telemetry::{Ledger, events};

/// How many kinds of events of engines are counted one by one.
const MOST: usize = 2048;

/// How many lines a minute an engine gets for each kind.
const BURST: u32 = 4;

/// How many causes of a store's failures are counted one by one.
const MOST_CAUSES: usize = 16;

/// Which events of engines are logged. The last status of an engine always is, some time later
/// where it changed too often.
#[derive(Debug)]
pub(super) struct EngineLog(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    ledger: Ledger<(EngineId, News)>,
    /// The status that the log knows, of engines whose status has changed since.
    unlogged: HashMap<EngineId, EngineStatus>,
    /// Failures of the store, by their cause.
    store: Ledger<String>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum News {
    Registered,
    Deregistered,
    Status,
    Failure,
}

impl Default for EngineLog {
    fn default() -> Self {
        Self(Mutex::new(Lines {
            ledger: Ledger::new(MOST, BURST),
            unlogged: HashMap::new(),
            store: Ledger::new(MOST_CAUSES, 1),
        }))
    }
}

impl EngineLog {
    /// If `news` of `engine` is to be logged, returns how many like it were not.
    pub(super) fn admit(&self, engine: &Engine, news: News) -> Option<u64> {
        let kind = (engine.id, news);
        self.lines().ledger.admit(kind, Instant::now())
    }

    /// Logs the status of `engine`, and why it has it, if the log knows another, once it may. `old`
    /// is its status before, if it has just changed.
    pub(super) fn status(&self, old: Option<EngineStatus>, engine: &Engine, why: Option<&str>) {
        let (kind, now) = ((engine.id, News::Status), Instant::now());
        let mut lines = self.lines();
        let admitted = match old {
            Some(old) => {
                lines.unlogged.entry(engine.id).or_insert(old);
                lines.ledger.admit(kind, now)
            }
            None if lines.unlogged.contains_key(&engine.id) => lines.ledger.admit_late(kind, now),
            None => None,
        };
        if let Some(suppressed) = admitted
            && let Some(known) = lines.unlogged.remove(&engine.id)
        {
            drop(lines);
            events::set_engine_status(engine, known, why, suppressed);
        }
    }

    /// Notes that `engine` is gone.
    pub(super) fn forgotten(&self, engine: &Engine) {
        self.lines().unlogged.remove(&engine.id);
        events::forget_engine(engine);
    }

    pub(super) fn store_failed(&self, cause: &str) {
        let admitted = self.lines().store.admit(cause.to_owned(), Instant::now());
        if let Some(suppressed) = admitted {
            events::registry_failed(cause, suppressed);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
