//! Whether revocations hold in the module that runs.

use std::path::PathBuf;

use super::{IS_REVOKED, RevokedFile, Which};
use crate::admin::overrides::{self, Overriding};
use crate::admin::rotation::live::{Answer, ask_own_module};
use crate::config::{LoadError, ModuleKind, Settings, environment, main_of};
use crate::properties::name::{Name, Pattern, uniform};
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
        /// The setting that wins; none where that is a variable of the environment.
        by: Option<Overriding>,
    },
}

/// How a running module stands to the keys that were to be revoked.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It refuses all of them.
    Refused,
    /// It still accepts one.
    Accepted,
    /// It does not say.
    Unknown,
}

const KEY: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>";

impl RevokedFile {
    /// Tells whether a reload takes the file as it is now, and with it and the files of active
    /// profiles trusts the keys no more.
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
        match self.standing(&settings, &answer.trusted_keys) {
            Standing::Refused => Answer::Accepted(format!("asked at {target}")),
            Standing::Accepted => {
                Answer::Refused(format!("the module at {target} still accepts the key"))
            }
            Standing::Unknown => {
                let why = "does not say whether it accepts the key";
                Answer::Refused(format!("the module at {target} {why}"))
            }
        }
    }

    /// Tells how a module that lists the keys `told` stands to those that were to be revoked.
    pub(super) fn standing(&self, settings: &Settings, told: &[wire::TrustedKey]) -> Standing {
        let keys: Vec<_> = self.meant(settings).map(|(_, key)| key).collect();
        let is = |told: &wire::TrustedKey, key: &TrustedKey| {
            told.fingerprint == key.key_id.as_str()
                || told.computed_fingerprint == key.key.fingerprint().to_string()
        };
        let is_meant = |told: &wire::TrustedKey| {
            let by_itself = match &self.which {
                Which::Deployment(name, None) => uniform(&told.deployment) == name.uniform(),
                Which::Deployment(..) => false,
                Which::Fingerprint(wanted) => {
                    told.fingerprint == *wanted || told.computed_fingerprint == *wanted
                }
            };
            by_itself || keys.iter().any(|key| is(told, key))
        };
        if told.iter().any(|told| !told.revoked && is_meant(told)) {
            return Standing::Accepted;
        }
        let is_listed = |key: &&TrustedKey| told.iter().any(|told| is(told, key));
        let are_listed = !keys.is_empty() && keys.iter().all(is_listed);
        let tells_all = told
            .iter()
            .all(|told| !told.computed_fingerprint.is_empty());
        if are_listed || tells_all && !told.is_empty() {
            Standing::Refused
        } else {
            Standing::Unknown
        }
    }

    /// Returns the file that a module is started with: this one, unless it is an active profile's.
    fn main(&self) -> PathBuf {
        let path = self.edited.path();
        main_of(path, &environment()).unwrap_or_else(|| path.to_owned())
    }

    /// Finds the keys that were to be revoked, as a module with these settings has them.
    fn meant<'a>(
        &self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = (&'a Deployment, &'a TrustedKey)> {
        let deployments = settings.deployments.iter();
        let all = deployments.flat_map(|d| d.keys.iter().map(move |key| (d, key)));
        all.filter(|(deployment, key)| self.which.is(deployment.name.as_str(), key))
    }

    fn overridden(&self, deployment: &Deployment, key: &TrustedKey) -> InForce {
        let main = self.main();
        let names = [uniform(deployment.name.as_str()), uniform(&key.name)];
        let winning = |pattern: &'static str| {
            let pattern = Pattern::new(pattern);
            let is_meant = |name: &Name<'_>, _: &str| {
                let found = pattern.matches(name).map(|found| found.keys);
                found.is_some_and(|keys| keys.iter().map(|key| uniform(key)).eq(names.clone()))
            };
            overrides::winning(&main, &is_meant)
        };
        let by = winning(IS_REVOKED).or_else(|| winning(KEY));
        InForce::Overridden {
            deployment: deployment.name.to_string(),
            key: key.name.clone(),
            // What the files say is not what holds.
            by: by.filter(|(_, value)| value != "true").map(|(by, _)| by),
        }
    }
}
