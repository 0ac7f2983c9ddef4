//! The current trust.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{KeySet, OwnDeployment};

/// Holds the current [`KeySet`]: who this module is and which deployments it trusts. Readers never
/// wait; a change is seen whole or not at all.
#[derive(Debug)]
pub struct TrustStore {
    shared: Arc<Shared>,
    keeper: OnceLock<Keeper>,
}

#[derive(Debug)]
struct Shared {
    keys: ArcSwap<KeySet>,
    changes: watch::Sender<()>,
}

/// Ends the task that changes a store, with the store.
#[derive(Debug)]
struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl TrustStore {
    /// Starts with `keys`.
    pub fn new(keys: KeySet) -> Self {
        let shared = Shared {
            keys: ArcSwap::from_pointee(keys),
            changes: watch::Sender::new(()),
        };
        Self {
            shared: Arc::new(shared),
            keeper: OnceLock::new(),
        }
    }

    /// Returns a store with the same keys, now and later, which keeps no task going.
    pub(crate) fn twin(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            keeper: OnceLock::new(),
        }
    }

    /// Lets `task`, which changes a [`twin`](Self::twin) of this store, run no longer than the
    /// store is used: by a module, or by a layer that was made of one.
    pub(crate) fn keep(&self, task: AbortHandle) {
        let keeper = self.keeper.set(Keeper(task));
        debug_assert!(keeper.is_ok(), "one task changes a store");
    }

    /// Starts with a module that trusts no deployment.
    pub fn alone(own: impl Into<Arc<OwnDeployment>>) -> Self {
        Self::new(KeySet::alone(own))
    }

    /// Borrows the current set for a short look.
    pub fn current(&self) -> Guard<Arc<KeySet>> {
        self.shared.keys.load()
    }

    /// Returns the current set, to be kept.
    pub fn load(&self) -> Arc<KeySet> {
        self.shared.keys.load_full()
    }

    /// Returns who this module is now.
    pub fn own(&self) -> Arc<OwnDeployment> {
        Arc::clone(self.current().own())
    }

    /// Makes `keys` the current set, then wakes those who subscribed.
    ///
    /// A deployment that is the same as before keeps its `Arc`, and so does the module itself.
    pub fn replace(&self, keys: KeySet) {
        let next = keys.continuing(&self.current());
        self.shared.keys.store(Arc::new(next));
        self.shared.changes.send_replace(());
    }

    /// Does what [`replace`](Self::replace) does if `keys` differ from the current set in anything;
    /// returns `true` if they do.
    pub(crate) fn update(&self, keys: KeySet) -> bool {
        let current = self.load();
        let next = keys.continuing(&current);
        let differs = !next.is_same(&current);
        if differs {
            self.replace(next);
        }
        differs
    }

    /// Follows the changes from now on: woken after each, several at once count as one.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DeploymentName, ModuleType, Roles};
    use crate::jose::{KeyId, SigningKey};
    use crate::trust::{Deployment, TrustedKey};

    fn own() -> OwnDeployment {
        let key = SigningKey::generate().unwrap();
        OwnDeployment {
            module: ModuleType::new("dpm").unwrap(),
            name: None,
            key_id: KeyId::from(key.fingerprint()),
            key,
            accepted: Vec::new(),
        }
    }

    fn peer(name: &str) -> Deployment {
        let key = SigningKey::generate().unwrap();
        Deployment {
            name: DeploymentName::new(name).unwrap(),
            module: ModuleType::new("dpe").unwrap(),
            environment: None,
            roles: Roles::default(),
            keys: vec![TrustedKey {
                name: "key".to_owned(),
                key_id: KeyId::from(key.fingerprint()),
                key: key.verifying_key().clone(),
                revoked: false,
            }],
            single_use_tokens: false,
            tls_pins: Vec::new(),
        }
    }

    #[test]
    fn change_is_current_before_any_subscriber_is_woken() {
        let store = TrustStore::alone(own());
        let before = store.load();
        let changes = store.subscribe();

        assert!(!changes.has_changed().unwrap());
        store.replace(before.trusting(Vec::new()).unwrap());

        assert!(changes.has_changed().unwrap());
        assert!(!Arc::ptr_eq(&before, &store.load()));
    }

    #[test]
    fn change_of_one_deployment_leaves_the_others_and_the_module_as_they_are() {
        let other = own();
        let (own, a, b) = (own(), peer("a"), peer("b"));
        let keys = KeySet::new(vec![a.clone(), b.clone()], own.clone());
        let store = TrustStore::new(keys.unwrap());
        let before = store.load();

        let revoked = Deployment { keys: vec![], ..b };
        store.replace(KeySet::new(vec![a, revoked], own).unwrap());
        let after = store.load();

        let same = |name: &str| {
            let deployments = [&before, &after].map(|keys| keys.deployment(name).unwrap());
            Arc::ptr_eq(deployments[0], deployments[1])
        };
        assert!(Arc::ptr_eq(before.own(), after.own()));
        assert!(same("a") && !same("b"));
        store.replace(KeySet::alone(other));
        assert!(!Arc::ptr_eq(before.own(), &store.own()));
    }
}
