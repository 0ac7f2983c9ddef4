//! What each engine has between two checks: a task where it is connected, or an entry by when it is due.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::EngineId;

#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Who waits for the next check of an engine, and which was last asked for.
    pub(super) wake: HashMap<EngineId, watch::Sender<Asked>>,
    /// Engines without a task.
    pub(super) parked: Parked,
    pub(super) running: JoinSet<()>,
}

/// A check that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) by: Instant,
    /// How long the last check must have been over.
    pub(super) after: Duration,
}

impl Tasks {
    /// Has `engine` wait for its next check without a task; notifies `due_earlier` if it is due first.
    pub(super) fn park(&mut self, engine: EngineId, rest: Rest, due_earlier: &Notify) {
        if self.parked.put(engine, rest) {
            due_earlier.notify_one();
        }
    }
}

/// Engines that wait for their next check, by when it is due.
#[derive(Debug, Default)]
pub(super) struct Parked {
    rests: HashMap<EngineId, Rest>,
    order: BTreeSet<(Instant, EngineId)>,
}

/// How an engine waits, and what is known of its last check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// When its last check was over.
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// How many checks in a row have failed, of the engine as it was registered then.
    pub(super) failures: u32,
    pub(super) registered_at: Option<SystemTime>,
}

impl Parked {
    /// Parks `engine`, or changes how it waits; returns `true` if no other is due before it.
    fn put(&mut self, engine: EngineId, rest: Rest) -> bool {
        if let Some(before) = self.rests.insert(engine, rest) {
            self.order.remove(&(before.until, engine));
        }
        self.order.insert((rest.until, engine));
        self.next() == Some(rest.until)
    }

    pub(super) fn get(&self, engine: EngineId) -> Option<Rest> {
        self.rests.get(&engine).copied()
    }

    /// Returns when the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(until, _)| *until)
    }

    /// Takes the one that has been due for longest at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<(EngineId, Rest)> {
        let (_, engine) = *self.order.first().filter(|(until, _)| *until <= now)?;
        self.order.pop_first();
        self.rests.remove(&engine).map(|rest| (engine, rest))
    }
}
