//! The trust that is in force now.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::KeySet;

/// Holds the [`KeySet`] in force. Readers never wait; a change is seen whole or not at all.
#[derive(Debug)]
pub struct TrustStore(ArcSwap<KeySet>);

impl TrustStore {
    /// Starts with `keys`.
    pub fn new(keys: KeySet) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// Borrows the set in force for a short look.
    pub fn current(&self) -> Guard<Arc<KeySet>> {
        self.0.load()
    }

    /// Returns the set in force, to be kept.
    pub fn load(&self) -> Arc<KeySet> {
        self.0.load_full()
    }

    /// Puts `keys` in force for every later look.
    pub fn replace(&self, keys: KeySet) {
        self.0.store(Arc::new(keys));
    }
}
