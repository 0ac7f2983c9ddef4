//! Where engines are kept.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{Engine, EngineId};

/// Keeps engines by their id.
///
/// Records change by compare-and-set: each write names the revision that it replaces, so of
/// several writers one wins and the others look again. What a write may change is the registry's
/// business, not the store's.
pub trait EngineStore: Debug + Send + Sync + 'static {
    /// Returns the record of `id`.
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>>;

    /// Returns up to `limit` records in the order of their ids, from the first one after `after`.
    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>>;

    /// Counts the records, and those that `deployment` owns.
    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts>;

    /// Writes `engine` if its id is as `expected`; returns `None`, with nothing written, if not.
    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>>;

    /// Removes the record of `id` if it is at `revision`. Returns `true` if it was.
    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool>;
}

/// The future of a store's answer.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A record and its revision. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub engine: Arc<Engine>,
    /// The revision at which it was written.
    pub revision: Revision,
}

/// Identifies one version of a record. Never used twice for one ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revision(pub u64);

/// What a writer believes to be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// No record of this id.
    Absent,
    /// The record of this revision.
    At(Revision),
}

/// How many records there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Those of the deployment asked for.
    pub of_deployment: usize,
}

/// The store failed; nothing is known about the write.
#[derive(Debug, thiserror::Error)]
#[error("the engine store failed")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Keeps engines in memory.
///
/// After a restart it is empty; the engines come back by registering again.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    engines: BTreeMap<EngineId, Stored>,
    last_revision: u64,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineStore for MemoryStore {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move { Ok(self.state().engines.get(&id).cloned()) })
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        Box::pin(async move {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let state = self.state();
            let engines = state.engines.range((from, Bound::Unbounded));
            Ok(engines
                .take(limit)
                .map(|(_, stored)| stored.clone())
                .collect())
        })
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        Box::pin(async move {
            let state = self.state();
            let engines = state.engines.values();
            let owned = engines.filter(|stored| *stored.engine.owner.deployment == *deployment);
            Ok(Counts {
                total: state.engines.len(),
                of_deployment: owned.count(),
            })
        })
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move {
            let mut state = self.state();
            let found = state.engines.get(&engine.id);
            let is = found.map_or(Expected::Absent, |stored| Expected::At(stored.revision));
            if is != expected {
                return Ok(None);
            }
            state.last_revision += 1;
            let stored = Stored {
                revision: Revision(state.last_revision),
                engine: Arc::new(engine),
            };
            state.engines.insert(stored.engine.id, stored.clone());
            Ok(Some(stored))
        })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let mut state = self.state();
            let found = state.engines.get(&id);
            let is_there = found.is_some_and(|stored| stored.revision == revision);
            if is_there {
                state.engines.remove(&id);
            }
            Ok(is_there)
        })
    }
}

#[cfg(test)]
mod tests;
