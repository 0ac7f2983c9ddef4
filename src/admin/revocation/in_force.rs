//! Whether revocations hold in the module that runs.

use std::path::PathBuf;

use super::{RevokedFile, Which};
use crate::admin::edited::TRUSTED_KEY;
use crate::admin::error::{Kind, Refused};
use crate::admin::profiles::read_with_profiles;
use crate::admin::rotation::live::{Answer, DoubtKind, ask_own_module, load};
use crate::config::{LoadError, ModuleKind, Settings, environment, main_of};
use crate::diagnostic::Origin;
use crate::grpc::cause;
use crate::properties::name::uniform;
use crate::proto::identity as wire;
use crate::trust::{Deployment, TrustedKey};

impl RevokedFile {
    /// Makes sure that a module takes the file as it is now, and with it and the files of active
    /// profiles no longer trusts the keys. Returns whether it reads changes of the file by itself.
    ///
    /// # Errors
    ///
    /// When it does not take the file, or still trusts one of the keys.
    pub fn in_force(&self, kind: &ModuleKind) -> Result<bool, Refused> {
        let settings = Settings::load(&self.main(), kind, environment(), &[]);
        let settings = settings.map_err(|error| self.not_taken(&error))?;
        let mut trusted = self.meant(&settings).filter(|(_, key)| !key.revoked);
        match trusted.next() {
            Some((deployment, key)) => Err(self.overridden(deployment, key)),
            None => Ok(settings.reload),
        }
    }

    fn not_taken(&self, error: &LoadError) -> Refused {
        let (path, why) = (self.path.display(), cause(error));
        let message = format!("a module does not accept `{path}` as it is: {why}");
        Refused::new(Kind::Unreadable, message)
            .with_help("correct the file; the module then follows it")
            .with_findings(error.findings().cloned().unwrap_or_default())
    }

    /// A key is still trusted, by what stands above the file or beside it.
    fn overridden(&self, deployment: &Deployment, key: &TrustedKey) -> Refused {
        let files = read_with_profiles(&self.main());
        let names = [deployment.name.as_str(), &key.name];
        let decides = files.as_ref().and_then(|files| {
            let [is_revoked, others @ ..] = ["is-revoked", "fingerprint", "content"]
                .map(|member| files.get(&format!("{TRUSTED_KEY}.{member}"), &names));
            let others = others.into_iter().flatten();
            is_revoked.or_else(|| others.max_by_key(|entry| entry.key_span().start))
        });
        // What the files say is not what holds.
        let decides = decides.filter(|entry| entry.value().trim() != "true");
        let origin = files.as_ref().zip(decides);
        let origin = origin.map(|(files, entry)| files.document().origin(entry.key_span().start));
        let (place, help) = match origin {
            Some(Origin::File { path, line, .. }) => {
                let path = path.display();
                let help = format!("revoke it there too: `--file {path}`");
                (format!("{path}:{line}"), help)
            }
            _ => (
                "a variable of the environment".to_owned(),
                "change it there".to_owned(),
            ),
        };
        let (key, deployment) = (&key.name, &deployment.name);
        let message = format!("`{key}` of `{deployment}` is still trusted, by {place}");
        Refused::new(Kind::Conflict, message).with_help(help)
    }

    /// Asks the running module whether it refuses the keys: it has to list them as revoked, or every
    /// key that it knows and none of them.
    pub async fn confirmed(&self, kind: &ModuleKind) -> Answer {
        let settings = load(&self.main(), kind)?;
        let (target, answer) = ask_own_module(&settings).await?;
        let what = match self.accepts(&settings, &answer.trusted_keys) {
            Some(false) => return Ok(format!("asked at {target}")),
            Some(true) => "still accepts the key",
            None => "does not say whether it accepts the key",
        };
        Err(DoubtKind::Refused.because(format!("the module at {target} {what}")))
    }

    /// Returns whether a module that lists the keys `listed` accepts one of those that were to be
    /// revoked; none where the list does not say.
    pub(super) fn accepts(&self, settings: &Settings, listed: &[wire::TrustedKey]) -> Option<bool> {
        let keys: Vec<_> = self.meant(settings).map(|(_, key)| key).collect();
        let mut active = listed.iter().filter(|key| !key.revoked);
        let is_accepted = active.any(|listed| {
            let by_itself = match &self.which {
                Which::Deployment(name, None) => uniform(&listed.deployment) == name.uniform(),
                Which::Deployment(..) => false,
                Which::Fingerprint(wanted) => {
                    listed.fingerprint == *wanted || listed.computed_fingerprint == *wanted
                }
            };
            by_itself || keys.iter().any(|key| is_listed_as(key, listed))
        });
        if is_accepted {
            return Some(true);
        }
        let mut all = keys.iter();
        let are_listed = !keys.is_empty()
            && all.all(|key| listed.iter().any(|listed| is_listed_as(key, listed)));
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
            let (of, key, name) = (of.name.as_str(), &key.key, &key.name);
            self.which.is(of, name, fingerprint, Some(key))
        })
    }
}

fn is_listed_as(key: &TrustedKey, listed: &wire::TrustedKey) -> bool {
    listed.fingerprint == key.key_id.as_str()
        || listed.computed_fingerprint == key.key.fingerprint().to_string()
}
