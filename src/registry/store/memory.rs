//! Engines in memory: what every store reads from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::changes::{Change, Changes};
use super::{Counts, EngineStore, Expected, Revision, StoreFuture, Stored};
use crate::engine::{Engine, EngineId, EngineStatus, Owner};

/// Keeps engines in memory.
///
/// After a restart it is empty; the engines come back by registering again.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    /// Written while the state is locked.
    changes: Arc<Changes>,
    /// Signalled when a change is to be kept.
    marked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    engines: BTreeMap<EngineId, Stored>,
    /// How many records each deployment owns, and as which owner the last of them: most share its texts.
    owned: HashMap<Arc<str>, (usize, Owner)>,
    /// INACTIVE records: by owner, then by when they were last seen.
    inactive: BTreeSet<(Arc<str>, SystemTime, EngineId)>,
    last_revision: u64,
    unkept: Option<Unkept>,
}

/// What has changed and is not kept yet, for a store that outlasts the process.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// Whose records have changed: also those that are gone.
    pub(super) engines: BTreeSet<EngineId>,
    /// How many changes there were.
    pub(super) changes: u64,
    /// Whether there will be no more.
    pub(super) is_last: bool,
}

impl MemoryStore {
    /// Starts with `engines`, whose later changes are [noted](Self::changed).
    pub(super) fn noting(engines: impl IntoIterator<Item = Engine>) -> Self {
        let mut state = State::default();
        for engine in engines {
            state.put(engine, None);
        }
        state.unkept = Some(Unkept::default());
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    /// Waits until there are changes to keep and `takes_any`, for `patience` at most, and returns
    /// them.
    pub(super) fn changed(&self, patience: Duration, takes_any: bool) -> Unkept {
        let waited = self
            .marked
            .wait_timeout_while(self.state(), patience, |state| {
                let unkept = state.unkept.as_ref();
                unkept.is_some_and(|unkept| {
                    !unkept.is_last && (unkept.engines.is_empty() || !takes_any)
                })
            });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(unkept) = &mut state.unkept else {
            return Unkept::default();
        };
        Unkept {
            engines: std::mem::take(&mut unkept.engines),
            ..*unkept
        }
    }

    /// Returns the number of the last change.
    pub(super) fn last_change(&self) -> u64 {
        let state = self.state();
        state.unkept.as_ref().map_or(0, |unkept| unkept.changes)
    }

    /// Says that there will be no more changes to keep.
    pub(super) fn end(&self) {
        if let Some(unkept) = &mut self.state().unkept {
            unkept.is_last = true;
        }
        self.marked.notify_all();
    }

    #[cfg(feature = "etcd")]
    pub(super) fn len(&self) -> usize {
        self.state().engines.len()
    }

    pub(super) fn get(&self, id: EngineId) -> Option<Stored> {
        self.state().engines.get(&id).cloned()
    }

    pub(super) fn after(&self, after: Option<EngineId>, limit: usize) -> Vec<Stored> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let engines = state.engines.range((from, Bound::Unbounded));
        let page = engines.take(limit).map(|(_, stored)| stored.clone());
        page.collect()
    }

    /// Returns all records, a page at a time.
    pub(super) fn all(&self) -> impl Iterator<Item = Stored> {
        let pages = std::iter::successors(Some(self.after(None, PAGE)), |page| {
            Some(self.after(Some(page.last()?.engine.id), PAGE))
        });
        pages.flatten()
    }

    /// Writes `engine` if its id is as `expected`.
    pub(super) fn swap(&self, engine: Engine, expected: Expected) -> Option<Stored> {
        let mut state = self.state();
        let is_expected = state.revision_of(engine.id) == expected;
        let stored = is_expected.then(|| state.put(engine, Some(&self.changes)));
        drop(state);
        self.marked.notify_one();
        stored
    }

    /// Removes the record of `id` if what is there `is_meant`; returns whether it was.
    pub(super) fn unset(&self, id: EngineId, is_meant: impl FnOnce(Expected) -> bool) -> bool {
        let mut state = self.state();
        let is_there = is_meant(state.revision_of(id));
        if is_there {
            if let Some(removed) = state.engines.remove(&id) {
                state.unlist(&removed.engine);
                self.changes.note(Change::Removed(id));
            }
            state.mark(id);
        }
        drop(state);
        self.marked.notify_one();
        is_there
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records are copied while no other caller can read.
const PAGE: usize = 1000;

impl State {
    /// Writes `engine`, and notes it among `changes` where a caller sees a difference.
    fn put(&mut self, mut engine: Engine, changes: Option<&Changes>) -> Stored {
        self.last_revision += 1;
        if let Some((_, owner)) = self.owned.get(&engine.owner.deployment)
            && *owner == engine.owner
        {
            engine.owner.clone_from(owner);
        }
        let stored = Stored {
            revision: Revision(self.last_revision),
            engine: Arc::new(engine),
        };
        let engine = &stored.engine;
        let before = self.engines.insert(engine.id, stored.clone());
        let seen_before = before.as_ref().map(|before| &before.engine);
        if let Some(changes) = changes
            && seen_before.is_none_or(|before| !before.is_shown_as(engine))
        {
            changes.note(Change::Put(Arc::clone(engine)));
        }
        if before
            .as_ref()
            .is_none_or(|before| !before.engine.is_kept_as(engine))
        {
            self.mark(engine.id);
            if let Some(before) = before {
                self.unlist(&before.engine);
            }
            self.list(engine);
        }
        stored
    }

    fn list(&mut self, engine: &Engine) {
        let (deployment, owner) = (Arc::clone(&engine.owner.deployment), &engine.owner);
        let entry = self.owned.entry(deployment);
        let (count, last) = entry.or_insert_with(|| (0, owner.clone()));
        *count += 1;
        last.clone_from(owner);
        self.inactive.extend(listed(engine));
    }

    fn unlist(&mut self, engine: &Engine) {
        if let Some((owned, _)) = self.owned.get_mut(&engine.owner.deployment) {
            *owned -= 1;
            if *owned == 0 {
                self.owned.remove(&engine.owner.deployment);
            }
        }
        if let Some(listed) = listed(engine) {
            self.inactive.remove(&listed);
        }
    }

    fn mark(&mut self, id: EngineId) {
        if let Some(unkept) = &mut self.unkept {
            unkept.engines.insert(id);
            unkept.changes += 1;
        }
    }

    fn revision_of(&self, id: EngineId) -> Expected {
        let found = self.engines.get(&id);
        found.map_or(Expected::Absent, |stored| Expected::At(stored.revision))
    }
}

/// Returns where an INACTIVE engine is listed.
fn listed(engine: &Engine) -> Option<(Arc<str>, SystemTime, EngineId)> {
    let owner = Arc::clone(&engine.owner.deployment);
    let is_inactive = engine.status == EngineStatus::Inactive;
    is_inactive.then_some((owner, engine.last_seen_at, engine.id))
}

impl EngineStore for MemoryStore {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move { Ok(self.get(id)) })
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        Box::pin(async move { Ok(self.after(after, limit)) })
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        Box::pin(async move {
            let state = self.state();
            Ok(Counts {
                total: state.engines.len(),
                of_deployment: state.owned.get(deployment).map_or(0, |(owned, _)| *owned),
            })
        })
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move { Ok(self.swap(engine, expected)) })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(self.unset(id, |found| found == Expected::At(revision))) })
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        Box::pin(async move {
            let state = self.state();
            let from = (
                Arc::from(deployment),
                SystemTime::UNIX_EPOCH,
                EngineId::FIRST,
            );
            let mut listed = state.inactive.range(from..);
            let stalest = listed.next().filter(|(owner, ..)| **owner == *deployment);
            Ok(stalest.and_then(|(_, _, id)| state.engines.get(id).cloned()))
        })
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        Some(Arc::clone(&self.changes))
    }
}
