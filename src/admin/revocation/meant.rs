//! Which keys of a file are meant.

use std::path::Path;

use super::{IS_REVOKED, RevokedKey, Which};
use crate::admin::pairing::view::{Trusted, TrustedKey};
use crate::config::{self, Checked};
use crate::diagnostic::redact;
use crate::properties::FileText;
use crate::properties::name::{Pattern, uniform};
use crate::trust;

/// What a module reads in a file: placeholders are resolved, and the files of active profiles stand
/// above it. Empty where that cannot be told; then the file's own text counts.
pub(super) struct Resolved(Option<Checked>);

impl Resolved {
    /// Reads the file at `path`, which holds `text`; an active profile's with its main file.
    pub(super) fn of(path: &Path, text: &FileText) -> Self {
        let environment = config::environment();
        let main = config::main_of(path, &environment);
        let main = main.and_then(|main| Some((FileText::read(&main).ok()?, main)));
        let (text, main) = main.unwrap_or_else(|| (text.clone(), path.to_owned()));
        let report = config::check_texts(&[(main, text)], &environment, &[]).ok();
        Self(report.and_then(|report| report.files.into_iter().next()))
    }

    /// Tells whether the key that is meant is the file's own.
    pub(super) fn is_own(&self, which: &Which) -> bool {
        let own = self.0.as_ref().and_then(|checked| checked.own.as_ref());
        own.is_some_and(|(key, key_id)| match which {
            Which::Deployment(..) => false,
            Which::Fingerprint(wanted) => {
                key_id.as_str() == wanted || key.fingerprint().to_string() == *wanted
            }
        })
    }

    /// Finds the keys of a deployment that are meant.
    pub(super) fn meant(&self, deployment: &Trusted, which: &Which) -> Vec<RevokedKey> {
        let all = deployment.keys.values();
        let (taken, kept): (Vec<_>, Vec<_>) =
            all.partition(|key| self.is_meant(deployment, key, which));
        let is_revoked = |key: &TrustedKey| {
            let known = self.key(deployment, key);
            known.map_or_else(|| key.is_revoked(), |known| known.revoked)
        };
        let kept = kept.into_iter().filter(|key| !is_revoked(key));
        let left: Vec<_> = kept.map(|key| redact(&key.name)).collect();
        let revoked = |key: &TrustedKey| RevokedKey {
            setting: Pattern::new(IS_REVOKED)
                .with_keys(&[deployment.name.clone(), key.name.clone()]),
            deployment: redact(&deployment.name),
            is_engine: deployment.module.as_deref() == Some("dpe"),
            name: redact(&key.name),
            fingerprint: self.fingerprint(deployment, key),
            // Anything but a plain `true` is written anew.
            was_revoked: key.is_revoked.as_deref() == Some("true"),
            left: left.clone(),
        };
        taken.into_iter().map(revoked).collect()
    }

    /// Describes the keys of a deployment.
    pub(super) fn names(&self, deployment: &Trusted) -> Vec<String> {
        let keys = deployment.keys.values();
        let named = |key: &TrustedKey| {
            let fingerprint = self.fingerprint(deployment, key);
            let (name, deployment) = (redact(&key.name), redact(&deployment.name));
            format!("`{name}` of `{deployment}` ({fingerprint})")
        };
        keys.map(named).collect()
    }

    fn is_meant(&self, deployment: &Trusted, key: &TrustedKey, which: &Which) -> bool {
        match (self.key(deployment, key), which) {
            (Some(known), _) => which.is(&deployment.name, known),
            (None, Which::Deployment(..)) => which.is_called(&deployment.name, &key.name),
            (None, Which::Fingerprint(wanted)) => {
                let computed = key.read().map(|jwk| jwk.key.fingerprint().to_string());
                key.fingerprint.as_ref() == Some(wanted) || computed.as_ref() == Some(wanted)
            }
        }
    }

    /// Returns the configured fingerprint: somebody may have put a private key in its place.
    fn fingerprint(&self, deployment: &Trusted, key: &TrustedKey) -> String {
        let known = self.key(deployment, key).map(|known| known.key_id.as_str());
        redact(known.or(key.fingerprint.as_deref()).unwrap_or_default())
    }

    fn key(&self, deployment: &Trusted, key: &TrustedKey) -> Option<&trust::TrustedKey> {
        let mut deployments = self.0.iter().flat_map(|checked| &checked.deployments);
        let name = uniform(&deployment.name);
        let found = deployments.find(|deployment| deployment.name.uniform() == name)?;
        let name = uniform(&key.name);
        found.keys.iter().find(|key| uniform(&key.name) == name)
    }
}

impl Which {
    /// Tells whether this is the trusted `key` of `deployment`.
    pub(super) fn is(&self, deployment: &str, key: &trust::TrustedKey) -> bool {
        match self {
            Self::Deployment(..) => self.is_called(deployment, &key.name),
            Self::Fingerprint(wanted) => {
                key.key_id.as_str() == wanted || key.key.fingerprint().to_string() == *wanted
            }
        }
    }

    /// Tells whether the key that is called so is one of those of a deployment.
    fn is_called(&self, deployment: &str, key: &str) -> bool {
        let Self::Deployment(name, wanted) = self else {
            return false;
        };
        let is_wanted = |wanted: &String| uniform(wanted) == uniform(key);
        uniform(deployment) == name.uniform() && wanted.as_ref().is_none_or(is_wanted)
    }
}
