//! The trust that is in force now.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{KeySet, OwnDeployment};

/// Holds the [`KeySet`] in force: who this module is and whom it trusts. Readers never wait; a change
/// is seen whole or not at all.
#[derive(Debug)]
pub struct TrustStore {
    keys: ArcSwap<KeySet>,
    changes: watch::Sender<()>,
}

impl TrustStore {
    /// Starts with `keys`.
    pub fn new(keys: KeySet) -> Self {
        Self {
            keys: ArcSwap::from_pointee(keys),
            changes: watch::Sender::new(()),
        }
    }

    /// Starts with a module that trusts nobody.
    pub fn alone(own: impl Into<Arc<OwnDeployment>>) -> Self {
        Self::new(KeySet::alone(own))
    }

    /// Borrows the set in force for a short look.
    pub fn current(&self) -> Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// Returns the set in force, to be kept.
    pub fn load(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// Returns who this module is now.
    pub fn own(&self) -> Arc<OwnDeployment> {
        Arc::clone(self.current().own())
    }

    /// Puts `keys` in force for every later look, then wakes those who subscribed.
    pub fn replace(&self, keys: KeySet) {
        self.keys.store(Arc::new(keys));
        self.changes.send_replace(());
    }

    /// Follows the changes from now on: woken after each, several at once count as one.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ModuleType;
    use crate::jose::{KeyId, SigningKey};

    #[test]
    fn change_is_in_force_before_anybody_is_woken() {
        let key = SigningKey::generate().unwrap();
        let store = TrustStore::alone(OwnDeployment {
            module: ModuleType::new("dpm").unwrap(),
            name: None,
            key_id: KeyId::from(key.fingerprint()),
            key,
            accepted: Vec::new(),
        });
        let before = store.load();
        let changes = store.subscribe();

        assert!(!changes.has_changed().unwrap());
        store.replace(before.trusting(Vec::new()).unwrap());

        assert!(changes.has_changed().unwrap());
        assert!(!Arc::ptr_eq(&before, &store.load()));
    }
}
