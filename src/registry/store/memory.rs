//! Engines in memory: they are lost when the process ends.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Counts, EngineStore, Expected, Revision, StoreFuture, Stored};
use crate::engine::{Engine, EngineId};

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
        Box::pin(async move { Ok(self.state().replace(engine, expected)) })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(self.state().remove(id, revision)) })
    }
}

impl State {
    fn replace(&mut self, engine: Engine, expected: Expected) -> Option<Stored> {
        let id = engine.id;
        let found = match self.engines.get(&id) {
            Some(stored) => Expected::At(stored.revision),
            None => Expected::Absent,
        };
        if found != expected {
            return None;
        }
        self.last_revision += 1;
        let stored = Stored {
            engine: Arc::new(engine),
            revision: Revision(self.last_revision),
        };
        self.engines.insert(id, stored.clone());
        Some(stored)
    }

    fn remove(&mut self, id: EngineId, revision: Revision) -> bool {
        if self.engines.get(&id).map(|stored| stored.revision) != Some(revision) {
            return false;
        }
        self.engines.remove(&id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::conforms;
    use super::*;

    #[tokio::test]
    async fn memory_store_conforms() {
        conforms(|| Arc::new(MemoryStore::default())).await;
    }
}
