//! Where engines are kept.

pub(crate) mod changes;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
#[cfg(feature = "registry")]
mod file;
mod memory;
pub(crate) mod record;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use crate::engine::{Engine, EngineId};

pub use changes::Changes;
#[cfg(feature = "registry")]
pub use file::FileStore;
pub use memory::MemoryStore;

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

    /// Returns the INACTIVE record of `deployment` that was not seen for longest.
    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>>;

    /// Waits until every change made before outlasts the process; returns `false` if it does not.
    ///
    /// When an engine was last seen is no such change: it may be a minute old after a restart.
    fn flush(&self) -> StoreFuture<'_, bool> {
        Box::pin(async { Ok(false) })
    }

    /// Writes all pending changes and closes the store; later changes are not kept.
    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Returns whether changes are kept, and follows it. Default: `None`, as nothing is kept.
    fn condition(&self) -> Option<watch::Receiver<Condition>> {
        None
    }

    /// Returns `true` if it is for this process to check the engine `id`. Default: it always is.
    fn is_mine(&self, _id: EngineId) -> bool {
        true
    }

    /// Follows what other processes change: an engine's record, or, where it is `None`, which engines
    /// are for this process to check. Default: `None`, as there are no other processes.
    fn others(&self) -> Option<broadcast::Receiver<Option<EngineId>>> {
        None
    }

    /// Returns the last changes. Default: `None`, as none are noted, and engines are not watched.
    ///
    /// Every write is noted, also of another process, before a read shows it.
    fn changes(&self) -> Option<Arc<Changes>> {
        None
    }
}

/// Whether a durable store works.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Condition {
    /// Why changes do not outlast the process for now. They are written as soon as they can be.
    pub failing: Option<Arc<str>>,
    /// Whether other processes may have changed what this one does not know yet; until then it can
    /// change nothing.
    pub is_stale: bool,
    /// Why the file could not be read at the start, and its new name.
    pub set_aside: Option<Arc<str>>,
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

impl Counts {
    /// Returns the sum of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            of_deployment: self.of_deployment.saturating_add(other.of_deployment),
        }
    }

    /// Returns the counts after one more record of the deployment is gone.
    pub(super) fn less_one(self) -> Self {
        Self {
            total: self.total.saturating_sub(1),
            of_deployment: self.of_deployment.saturating_sub(1),
        }
    }
}

/// The store failed; nothing is known about the write.
#[derive(Debug, thiserror::Error)]
#[error("the engine store failed")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

#[cfg(test)]
pub(super) mod tests;
