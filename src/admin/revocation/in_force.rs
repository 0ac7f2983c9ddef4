//! Whether revocations hold in the module that runs.

use std::path::PathBuf;

use super::{IS_REVOKED, RevokedFile, Which};
use crate::admin::overrides::{self, Overriding};
use crate::admin::rotation::live::{Answer, ask_own_module};
use crate::config::{LoadError, ModuleKind, Settings, environment, main_of};
use crate::properties::name::{Name, Pattern, uniform};
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

const KEY: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>";

impl RevokedFile {
    /// Tells whether a reload takes the file as it is now, and with it and the files of active
    /// profiles trusts the keys no more.
    pub fn in_force(&self, kind: &ModuleKind) -> InForce {
        let settings = match Settings::load(&self.main(), kind, environment(), &[]) {
            Ok(settings) => settings,
            Err(error) => return InForce::Refused(error),
        };
        if let Some((deployment, key)) = self.trusted(&settings) {
            return self.overridden(deployment, key);
        }
        if settings.reload {
            InForce::Loads
        } else {
            InForce::NoReload
        }
    }

    /// Asks the running module whether it refuses the keys.
    pub async fn confirmed(&self, kind: &ModuleKind) -> Answer {
        let settings = match Settings::load(&self.main(), kind, environment(), &[]) {
            Ok(settings) => settings,
            Err(error) => return Answer::NotAsked(crate::grpc::cause(&error)),
        };
        let (target, answer) = match ask_own_module(&settings).await {
            Ok(answer) => answer,
            Err(answer) => return answer,
        };
        let mut trusted = answer.trusted_keys.iter().filter(|key| !key.revoked);
        let is_taken = |fingerprint: &str| {
            let mut keys = self.keys.iter();
            keys.any(|key| key.fingerprint == fingerprint)
        };
        match trusted.find(|key| is_taken(&key.fingerprint)) {
            None => Answer::Accepted(format!("asked at {target}")),
            Some(_) => Answer::Refused(format!("the module at {target} still accepts the key")),
        }
    }

    /// Returns the file that a module is started with: this one, unless it is an active profile's.
    fn main(&self) -> PathBuf {
        let path = self.edited.path();
        main_of(path, &environment()).unwrap_or_else(|| path.to_owned())
    }

    /// Finds a key that was to be revoked and that a module with these settings trusts.
    fn trusted<'a>(&self, settings: &'a Settings) -> Option<(&'a Deployment, &'a TrustedKey)> {
        let deployments = settings.deployments.iter();
        let mut active = deployments.flat_map(|d| d.active_keys().map(move |key| (d, key)));
        active.find(|(deployment, key)| match &self.which {
            Which::Deployment(name, wanted) => {
                let wanted = wanted.as_ref().map(|wanted| uniform(wanted));
                deployment.name.uniform() == name.uniform()
                    && wanted.is_none_or(|wanted| wanted == uniform(&key.name))
            }
            Which::Fingerprint(wanted) => {
                key.key_id.as_str() == wanted || key.key.fingerprint().to_string() == *wanted
            }
        })
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
