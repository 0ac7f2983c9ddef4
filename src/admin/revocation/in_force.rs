//! Whether revocations hold in the module that runs.

use std::path::PathBuf;

use super::{RevokedFile, Which};
use crate::admin::edited::TRUSTED_KEY;
use crate::admin::profiles::{is_of, winning};
use crate::admin::rotation::live::{Answer, ask_own_module};
use crate::config::{LoadError, ModuleKind, Settings, environment, main_of};
use crate::properties::name::uniform;
use crate::proto::identity as wire;
use crate::trust::{Deployment, TrustedKey};

/// Whether a file's revocations hold in the module that runs.
#[derive(Debug)]
pub enum InForce {
    /// A reload, or a start, takes the file.
    Loads,
    /// It does not.
    Refused(LoadError),
    /// The file says that changes of it take no effect.
    NoReload,
    /// A key is trusted still, by what stands above the file or beside it.
    Overridden {
        /// The deployment.
        deployment: String,
        /// What the key is called.
        key: String,
        /// File and line of the setting that wins; none where that is a variable of the environment.
        by: Option<(PathBuf, u32)>,
    },
}

const IS_REVOKED: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";

impl RevokedFile {
    /// Returns whether a reload takes the file as it is now, and with it and the files of active
    /// profiles no longer trusts the keys.
    pub fn in_force(&self, kind: &ModuleKind) -> InForce {
        let settings = match Settings::load(&self.main(), kind, environment(), &[]) {
            Ok(settings) => settings,
            Err(error) => return InForce::Refused(error),
        };
        let mut trusted = self.meant(&settings).filter(|(_, key)| !key.revoked);
        if let Some((deployment, key)) = trusted.next() {
            return self.overridden(deployment, key);
        }
        if settings.reload {
            InForce::Loads
        } else {
            InForce::NoReload
        }
    }

    /// Asks the running module whether it refuses the keys: it has to list them as revoked, or every
    /// key that it knows and none of them.
    pub async fn confirmed(&self, kind: &ModuleKind) -> Answer {
        let settings = match Settings::load(&self.main(), kind, environment(), &[]) {
            Ok(settings) => settings,
            Err(error) => return Answer::NotAsked(crate::grpc::cause(&error)),
        };
        let (target, answer) = match ask_own_module(&settings).await {
            Ok(answer) => answer,
            Err(answer) => return answer,
        };
        match self.accepts(&settings, &answer.trusted_keys) {
            Some(false) => Answer::Accepted(format!("asked at {target}")),
            Some(true) => Answer::Refused(format!("the module at {target} still accepts the key")),
            None => {
                let why = "does not say whether it accepts the key";
                Answer::Refused(format!("the module at {target} {why}"))
            }
        }
    }

    /// Returns whether a module that lists the keys `listed` accepts one of those that were to be
    /// revoked; none where the list does not say.
    pub(super) fn accepts(&self, settings: &Settings, listed: &[wire::TrustedKey]) -> Option<bool> {
        let keys: Vec<_> = self.meant(settings).map(|(_, key)| key).collect();
        let is = |listed: &wire::TrustedKey, key: &TrustedKey| {
            listed.fingerprint == key.key_id.as_str()
                || listed.computed_fingerprint == key.key.fingerprint().to_string()
        };
        let is_meant = |listed: &wire::TrustedKey| {
            let by_itself = match &self.which {
                Which::Deployment(name, None) => uniform(&listed.deployment) == name.uniform(),
                Which::Deployment(..) => false,
                Which::Fingerprint(wanted) => {
                    listed.fingerprint == *wanted || listed.computed_fingerprint == *wanted
                }
            };
            by_itself || keys.iter().any(|key| is(listed, key))
        };
        if listed.iter().any(|key| !key.revoked && is_meant(key)) {
            return Some(true);
        }
        let is_listed = |key: &&TrustedKey| listed.iter().any(|listed| is(listed, key));
        let are_listed = !keys.is_empty() && keys.iter().all(is_listed);
        let mut computed = listed.iter().map(|key| &key.computed_fingerprint);
        let is_whole = !listed.is_empty() && computed.all(|computed| !computed.is_empty());
        (are_listed || is_whole).then_some(false)
    }

    /// Returns the file that a module is started with: this one, unless it is an active profile's.
    fn main(&self) -> PathBuf {
        main_of(&self.path, &environment()).unwrap_or_else(|| self.path.clone())
    }

    /// Finds the keys that were to be revoked, as a module with these settings has them.
    fn meant<'a>(
        &self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = (&'a Deployment, &'a TrustedKey)> {
        let deployments = settings.deployments.iter();
        let all = deployments.flat_map(|d| d.keys.iter().map(move |key| (d, key)));
        all.filter(|(of, key)| {
            let fingerprint = Some(key.key_id.as_str());
            self.which
                .is(of.name.as_str(), &key.name, fingerprint, Some(&key.key))
        })
    }

    fn overridden(&self, deployment: &Deployment, key: &TrustedKey) -> InForce {
        let main = self.main();
        let keys = [deployment.name.as_str(), key.name.as_str()];
        let wins = |pattern| winning(&main, |entry| is_of(entry, pattern, &keys));
        let by = wins(IS_REVOKED).or_else(|| wins(TRUSTED_KEY));
        InForce::Overridden {
            deployment: deployment.name.to_string(),
            key: key.name.clone(),
            // What the files say is not what holds.
            by: by
                .filter(|(.., value)| value != "true")
                .map(|(path, line, _)| (path, line)),
        }
    }
}
