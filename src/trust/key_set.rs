//! From a token's `kid` to the key and its owner.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::DeploymentName;
use crate::jose::{Fingerprint, VerifyingKey};

use super::{Deployment, OwnDeployment, TrustedKey};

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
    pub(super) fn continuing(mut self, before: &Self) -> Self {
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
    pub(super) fn is_same(&self, before: &Self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ModuleType, Roles};
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
}
