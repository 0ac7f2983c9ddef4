//! The deployments that this module trusts, its own identity, and the current trust.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::identity::{DeploymentName, Environment, ModuleType, Roles};
use crate::jose::{Fingerprint, KeyId, SigningKey, VerifyingKey};

/// Why deployments do not make a [`KeySet`], as a sentence.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

crate::failure::debug_as_text!(TrustError);

/// Who this module is and which deployments it trusts at one moment, indexed by key id. Never
/// changes; a reload makes another.
#[derive(Debug)]
pub struct KeySet {
    own: Arc<OwnDeployment>,
    deployments: Vec<Arc<Deployment>>,
    by_name: HashMap<Box<str>, usize>,
    by_key_id: HashMap<Box<str>, (usize, usize)>,
    by_pin: HashMap<Fingerprint, usize>,
}

/// A trusted key and the deployment that owns it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The owner.
    pub deployment: &'a Arc<Deployment>,
    /// The key.
    pub key: &'a TrustedKey,
}

impl KeySet {
    /// Indexes `deployments`, which the module `own` trusts.
    ///
    /// Every key id and every public key belongs to exactly one deployment, and none of them to
    /// `own`: otherwise a signature would not tell who signed.
    ///
    /// # Errors
    ///
    /// When names agree but for case and dashes, a key or key id stands twice or is `own`'s, a TLS
    /// pin stands in two deployments, or one has more active keys than a token can name.
    pub fn new(
        deployments: Vec<Deployment>,
        own: impl Into<Arc<OwnDeployment>>,
    ) -> Result<Self, TrustError> {
        let mut set = Self::alone(own);
        let mut names: HashMap<String, DeploymentName> = HashMap::new();
        let mut owners: HashMap<VerifyingKey, DeploymentName> = HashMap::new();
        for (at, deployment) in deployments.iter().enumerate() {
            let second = &deployment.name;
            if let Some(first) = names.insert(second.uniform(), second.clone()) {
                return Err(TrustError(format!(
                    "deployments `{first}` and `{second}` differ only in case or dashes"
                )));
            }
            let most = Deployment::MOST_ACTIVE_KEYS;
            if deployment.active_keys().count() > most {
                // A module with one of the others would refuse this one's calls.
                return Err(TrustError(format!(
                    "deployment `{second}` has more than {most} active keys, and a token can name only {most}"
                )));
            }
            for (key_at, key) in deployment.keys.iter().enumerate() {
                if is_own(&set.own, key) {
                    // Its own tokens would come back as a peer's.
                    return Err(TrustError(format!(
                        "deployment `{second}` has this module's own key"
                    )));
                }
                if let Some(first) = owners.insert(key.key.clone(), second.clone()) {
                    let fingerprint = key.key.fingerprint();
                    return Err(TrustError(format!(
                        "one public key, `{fingerprint}`, is in deployment `{first}` and again in `{second}`"
                    )));
                }
                let key_id = &key.key_id;
                let id: Box<str> = key_id.as_str().into();
                if let Some((first, _)) = set.by_key_id.insert(id, (at, key_at)) {
                    let first = deployments.get(first).map_or(second, |d| &d.name);
                    return Err(TrustError(format!(
                        "key id `{key_id}` is in deployment `{first}` and again in `{second}`"
                    )));
                }
            }
        }
        let listed = (0..).zip(&deployments);
        let by_name = listed.map(|(at, d)| (Box::from(d.name.as_str()), at));
        set.by_name = by_name.collect();
        set.by_pin = pins(&deployments)?;
        set.deployments = deployments.into_iter().map(Arc::new).collect();
        Ok(set)
    }

    /// Makes the set of a module that trusts no deployment.
    pub fn alone(own: impl Into<Arc<OwnDeployment>>) -> Self {
        Self {
            own: own.into(),
            deployments: Vec::new(),
            by_name: HashMap::new(),
            by_key_id: HashMap::new(),
            by_pin: HashMap::new(),
        }
    }

    /// Makes the set of the same module where it trusts `deployments` in place of those here.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn trusting(&self, deployments: Vec<Deployment>) -> Result<Self, TrustError> {
        Self::new(deployments, Arc::clone(&self.own))
    }

    /// Takes over from `before` what is the same in both, so that code that remembers it by its
    /// pointer sees that it did not change.
    fn continuing(mut self, before: &Self) -> Self {
        if self.own.is_same(&before.own) {
            self.own = Arc::clone(&before.own);
        }
        for deployment in &mut self.deployments {
            let known = before.deployment(deployment.name.as_str());
            if let Some(known) = known.filter(|known| *known == deployment) {
                *deployment = Arc::clone(known);
            }
        }
        self
    }

    /// Returns `true` if everything in this set was taken over from `before`.
    fn is_same(&self, before: &Self) -> bool {
        let mut both = self.deployments.iter().zip(&before.deployments);
        Arc::ptr_eq(&self.own, &before.own)
            && self.deployments.len() == before.deployments.len()
            && both.all(|(now, was)| Arc::ptr_eq(now, was))
    }

    /// Returns who this module is.
    pub fn own(&self) -> &Arc<OwnDeployment> {
        &self.own
    }

    /// Finds the key that `kid` names. Compares bytes; revoked keys are found too.
    pub fn find(&self, kid: &str) -> Option<Found<'_>> {
        let (deployment, key) = *self.by_key_id.get(kid)?;
        let deployment = self.deployments.get(deployment)?;
        let key = deployment.keys.get(key)?;
        Some(Found { deployment, key })
    }

    /// Finds the deployment that has a TLS certificate with the key `pin`.
    pub fn pin_owner(&self, pin: Fingerprint) -> Option<&Arc<Deployment>> {
        self.deployments.get(*self.by_pin.get(&pin)?)
    }

    /// Returns the deployment called `name`, compared byte for byte.
    pub fn deployment(&self, name: &str) -> Option<&Arc<Deployment>> {
        self.deployments.get(*self.by_name.get(name)?)
    }

    /// Returns all deployments, in the file's order.
    pub fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }
}

/// Indexes the TLS pins: each belongs to one deployment.
fn pins(deployments: &[Deployment]) -> Result<HashMap<Fingerprint, usize>, TrustError> {
    let mut owners = HashMap::new();
    for (at, deployment) in deployments.iter().enumerate() {
        for pin in &deployment.tls_pins {
            let first = owners.insert(*pin, at).filter(|first| *first != at);
            if let Some(first) = first.and_then(|first| deployments.get(first)) {
                let (first, second) = (&first.name, &deployment.name);
                return Err(TrustError(format!(
                    "one TLS key, `{pin}`, is pinned for deployment `{first}` and for `{second}`"
                )));
            }
        }
    }
    Ok(owners)
}

fn is_own(own: &OwnDeployment, key: &TrustedKey) -> bool {
    key.key == *own.key.verifying_key() || key.key_id.as_str() == own.key_id.as_str()
}

/// A public key that a deployment may sign with.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TrustedKey {
    /// What the file calls it, the `<key>` of `jwt-keys.<key>`.
    pub name: String,
    /// The configured fingerprint: what a token's `kid` is compared with, byte for byte.
    pub key_id: KeyId,
    /// The key itself.
    pub key: VerifyingKey,
    /// A revoked key stays listed, so that its use differs from an unknown key's.
    pub revoked: bool,
}

impl TrustedKey {
    /// Returns `key`, not revoked, known by its computed fingerprint.
    pub fn new(name: &str, key: VerifyingKey) -> Self {
        Self {
            name: name.to_owned(),
            key_id: key.fingerprint().into(),
            key,
            revoked: false,
        }
    }
}

/// A module that this one trusts: who it is, its keys, and the roles it has here.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Deployment {
    /// Its name, the same in every module's file.
    pub name: DeploymentName,
    /// Its module type.
    pub module: ModuleType,
    /// Its environment, where one is configured.
    pub environment: Option<Environment>,
    /// The roles of every caller that signs with one of its keys.
    pub roles: Roles,
    /// Its keys, in the file's order.
    pub keys: Vec<TrustedKey>,
    /// Whether it takes each token once, so that a caller must mint one per call.
    pub single_use_tokens: bool,
    /// The keys of its TLS certificates. Where there are any, no other certificate is its own.
    pub tls_pins: Vec<Fingerprint>,
}

impl Deployment {
    /// How many active keys the `aud` of a token has room for, beside the name.
    pub(crate) const MOST_ACTIVE_KEYS: usize = 7;

    /// Returns a deployment with `keys`: without environment, roles and pins.
    pub fn new(name: DeploymentName, module: ModuleType, keys: Vec<TrustedKey>) -> Self {
        Self {
            name,
            module,
            environment: None,
            roles: Roles::default(),
            keys,
            single_use_tokens: false,
            tls_pins: Vec::new(),
        }
    }

    /// Returns `true` if it has a revoked key that tokens name by `key_id`.
    pub(crate) fn has_revoked(&self, key_id: &str) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| key.revoked && key.key_id.as_str() == key_id)
    }

    /// Finds the key with this computed fingerprint, revoked or not.
    pub(crate) fn key(&self, fingerprint: Fingerprint) -> Option<&TrustedKey> {
        let mut keys = self.keys.iter();
        keys.find(|trusted| trusted.key.fingerprint() == fingerprint)
    }

    /// Returns the keys that are not revoked.
    pub fn active_keys(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(|key| !key.revoked)
    }

    /// Returns the `aud` of a token for this deployment: its name and the computed fingerprints of
    /// its active keys, 8 strings at most. Configured text never enters an audience.
    pub fn audience(&self) -> Vec<String> {
        let keys = self
            .active_keys()
            .map(|key| key.key.fingerprint().to_string());
        std::iter::once(self.name.to_string())
            .chain(keys)
            .take(1 + Self::MOST_ACTIVE_KEYS)
            .collect()
    }
}

/// This module itself: its name and the key that it signs with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OwnDeployment {
    /// Its module type.
    pub module: ModuleType,
    /// Its deployment name; without one it calls itself by its key id.
    pub name: Option<DeploymentName>,
    /// Its signing key.
    pub key: SigningKey,
    /// The `kid` of its tokens: what its peers' files hold as the fingerprint.
    pub key_id: KeyId,
    /// The fingerprints of its other keys, the next one of a rotation and earlier ones: a token may
    /// still, or already, be addressed to them.
    pub accepted: Vec<Fingerprint>,
}

impl OwnDeployment {
    /// Returns a module that signs with `key`, known by its computed fingerprint.
    pub fn new(module: ModuleType, name: DeploymentName, key: SigningKey) -> Self {
        Self {
            module,
            name: Some(name),
            key_id: key.fingerprint().into(),
            key,
            accepted: Vec::new(),
        }
    }

    /// Returns the `iss` and `sub` of this module's tokens: its name, or its key id.
    pub fn issuer(&self) -> &str {
        self.name
            .as_ref()
            .map_or_else(|| self.key_id.as_str(), DeploymentName::as_str)
    }

    /// Returns the computed fingerprint of its key: what a token's `aud` may hold.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// Returns `true` if `other` is the same in all that others see.
    fn is_same(&self, other: &Self) -> bool {
        self.module == other.module
            && self.name == other.name
            && self.key.verifying_key() == other.key.verifying_key()
            && self.key_id == other.key_id
            && self.accepted == other.accepted
    }

    /// Returns `true` if one of `audience` is the computed fingerprint of a key of its own: the
    /// current one, the next, or an earlier one.
    pub fn is_named_in(&self, audience: &[String]) -> bool {
        let accepted = self.accepted.iter().copied();
        std::iter::once(self.fingerprint())
            .chain(accepted)
            .any(|own| audience.contains(&own.to_string()))
    }
}

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

    fn trusted(key: &SigningKey, key_id: &str) -> TrustedKey {
        TrustedKey {
            name: "key".to_owned(),
            key_id: KeyId::new(key_id).unwrap(),
            key: key.verifying_key().clone(),
            revoked: false,
        }
    }

    fn own() -> OwnDeployment {
        let key = SigningKey::generate().unwrap();
        OwnDeployment {
            module: ModuleType::new("dpm").unwrap(),
            name: None,
            key_id: KeyId::new("mine").unwrap(),
            key,
            accepted: Vec::new(),
        }
    }

    fn deployment(name: &str, keys: Vec<TrustedKey>) -> Deployment {
        Deployment {
            name: DeploymentName::new(name).unwrap(),
            module: ModuleType::new("dpe").unwrap(),
            environment: None,
            roles: Roles::default(),
            keys,
            single_use_tokens: false,
            tls_pins: Vec::new(),
        }
    }

    #[test]
    fn key_is_found_by_its_configured_id_alone() {
        let key = SigningKey::generate().unwrap();

        let set = KeySet::new(
            vec![deployment("dpe-dev", vec![trusted(&key, "K1")])],
            own(),
        )
        .unwrap();

        assert_eq!(set.find("K1").unwrap().deployment.name.as_str(), "dpe-dev");
        assert!(set.find("k1").is_none());
        assert!(set.find(&key.fingerprint().to_string()).is_none());
    }

    #[test]
    fn one_key_in_two_deployments_is_refused() {
        let key = SigningKey::generate().unwrap();
        let twice = vec![
            deployment("a", vec![trusted(&key, "one")]),
            deployment("b", vec![trusted(&key, "two")]),
        ];

        let refused = KeySet::new(twice, own()).unwrap_err().to_string();
        assert!(refused.starts_with("one public key, `"), "{refused}");
        assert!(refused.ends_with("in deployment `a` and again in `b`"));
    }

    #[test]
    fn one_key_id_in_two_deployments_is_refused() {
        let (a, b) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let twice = vec![
            deployment("a", vec![trusted(&a, "same")]),
            deployment("b", vec![trusted(&b, "same")]),
        ];

        assert_eq!(
            KeySet::new(twice, own()).unwrap_err().to_string(),
            "key id `same` is in deployment `a` and again in `b`"
        );
    }

    #[test]
    fn one_tls_pin_in_two_deployments_is_refused() {
        let pin = SigningKey::generate().unwrap().fingerprint();
        let pinned = |name| Deployment {
            tls_pins: vec![pin],
            ..deployment(name, vec![])
        };

        let alone = KeySet::new(vec![pinned("a"), deployment("b", vec![])], own()).unwrap();
        let twice = KeySet::new(vec![pinned("a"), pinned("b")], own());

        assert_eq!(alone.pin_owner(pin).unwrap().name.as_str(), "a");
        assert_eq!(
            twice.unwrap_err().to_string(),
            format!("one TLS key, `{pin}`, is pinned for deployment `a` and for `b`")
        );
    }

    #[test]
    fn eighth_active_key_is_refused_and_seven_are_all_named() {
        let keys = |count: usize| -> Vec<_> {
            let made = (0..count).map(|n| {
                let key = SigningKey::generate().unwrap();
                trusted(&key, &format!("key{n}"))
            });
            made.collect()
        };
        let mut with_revoked = keys(8);
        with_revoked[3].revoked = true;

        let seven = deployment("a", with_revoked);
        assert_eq!(seven.audience().len(), 8);
        KeySet::new(vec![seven], own()).unwrap();
        let eight = KeySet::new(vec![deployment("a", keys(8))], own());

        let error = eight.unwrap_err();
        assert!(
            error.to_string().contains("more than 7 active keys"),
            "{error}"
        );
    }

    #[test]
    fn names_that_differ_only_in_dashes_are_refused() {
        let pair = vec![deployment("dpe-dev", vec![]), deployment("DPEdev", vec![])];

        assert_eq!(
            KeySet::new(pair, own()).unwrap_err().to_string(),
            "deployments `dpe-dev` and `DPEdev` differ only in case or dashes"
        );
    }

    #[test]
    fn own_key_among_the_trusted_is_refused() {
        let own = own();
        let theirs = vec![deployment("a", vec![trusted(&own.key, "theirs")])];
        let set = KeySet::new(theirs, own);

        assert_eq!(
            set.unwrap_err().to_string(),
            "deployment `a` has this module's own key"
        );
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
