//! Which engines are being created.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::store::Counts;

/// The engines that are being created: what a store has not counted yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Rooms(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<HashMap<Arc<str>, usize>>,
    freed: Notify,
}

impl Rooms {
    /// Counts the engines that are being created, and those of `deployment`.
    pub(super) fn taken(&self, deployment: &str) -> Counts {
        let taken = self.0.lock();
        Counts {
            total: taken.values().sum(),
            of_deployment: taken.get(deployment).copied().unwrap_or_default(),
        }
    }

    /// Takes room for one more engine of `deployment`.
    pub(super) fn take(&self, deployment: &Arc<str>) -> Room {
        *self.0.lock().entry(Arc::clone(deployment)).or_default() += 1;
        Room {
            rooms: self.clone(),
            deployment: Arc::clone(deployment),
        }
    }

    /// Waits until an engine is created, or was since this was called last.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room of one engine, until it is created or is not.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Rooms,
    deployment: Arc<str>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.rooms.0.lock();
        if let Some(count) = taken.get_mut(&self.deployment) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.deployment);
            }
        }
        drop(taken);
        self.rooms.0.freed.notify_one();
    }
}
