//! The modules that a file trusts, as it is written, and what it must say to trust another one.

use std::path::Path;

use super::error::{Kind, Refused};
use super::setting::{DEPLOYMENT, Setting, trusted_key};
use crate::config::AsWritten;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, PublicJwk, VerifyingKey};
use crate::properties::name::{Pattern, uniform};
use crate::trust::{Deployment, TrustedKey};

const DEPLOYMENTS: &str = "ataccama.one.platform.deployments";
const KEYS: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys";
pub(super) const MODULE: &str = "ataccama.one.platform.deployments.<name>.module";
pub(super) const ENVIRONMENT: &str = "ataccama.one.platform.deployments.<name>.environment";
pub(super) const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";

/// A trusted key as a file describes it.
#[derive(Debug)]
pub(super) struct WrittenKey {
    /// The name of its deployment, as written.
    pub(super) deployment: String,
    /// Its own name, as written.
    pub(super) name: String,
    pub(super) fingerprint: Option<String>,
    /// The key and the `kid` in its content, if that can be read.
    pub(super) content: Option<(VerifyingKey, Option<KeyId>)>,
    /// The word of `is-revoked`.
    pub(super) is_revoked: Option<String>,
    /// Whether a module takes the word for a revocation: anything but a plain "no".
    pub(super) revoked: bool,
}

/// Reads the keys of all deployments in `file`, those with faults too, sorted by their names.
///
/// What a module reads, `checked`, replaces what is written where it takes the key: placeholders
/// are resolved, and the files of active profiles stand above the main file.
pub(super) fn keys(file: &AsWritten, checked: &[Deployment]) -> Vec<WrittenKey> {
    let mut keys = Vec::new();
    for deployment in file.names(DEPLOYMENTS, &[]) {
        let known = checked
            .iter()
            .find(|known| known.name.uniform() == uniform(deployment));
        for name in file.names(KEYS, &[deployment]) {
            let mut taken = known.iter().flat_map(|known| &known.keys);
            let taken = taken.find(|key| uniform(&key.name) == uniform(name));
            keys.push(WrittenKey::read(file, deployment, name, taken));
        }
    }
    keys.sort_by_cached_key(|key| (uniform(&key.deployment), uniform(&key.name)));
    keys
}

/// Returns the name of the deployment in `keys` that has `key`, as written.
pub(super) fn owner_of<'a>(keys: &'a [WrittenKey], key: &VerifyingKey) -> Option<&'a str> {
    let owned = keys.iter().find(|known| known.is(key))?;
    Some(&owned.deployment)
}

impl WrittenKey {
    fn read(file: &AsWritten, deployment: &str, name: &str, checked: Option<&TrustedKey>) -> Self {
        let members = ["fingerprint", "content", "is-revoked"];
        let [fingerprint, content, is_revoked] =
            members.map(|member| file.text(&format!("{KEYS}.<key>.{member}"), &[deployment, name]));
        let content = content.and_then(|content| PublicJwk::parse(content).ok());
        let no = ["false", "no", "off", "0"];
        let mut read = Self {
            deployment: deployment.to_owned(),
            name: name.to_owned(),
            fingerprint: fingerprint.map(str::to_owned),
            content: content.map(|jwk| (jwk.key, jwk.kid)),
            revoked: is_revoked
                .is_some_and(|word| !no.iter().any(|no| word.eq_ignore_ascii_case(no))),
            is_revoked: is_revoked.map(str::to_owned),
        };
        if let Some(key) = checked {
            read.fingerprint = Some(key.key_id.to_string());
            read.content = Some((key.key.clone(), None));
            read.revoked = key.revoked;
            read.is_revoked.get_or_insert_with(|| "false".to_owned());
        }
        read
    }

    /// Returns `true` if this is `key`: by its content, or by its fingerprint where the content
    /// cannot be read.
    fn is(&self, key: &VerifyingKey) -> bool {
        match &self.content {
            Some((known, _)) => known == key,
            None => self.fingerprint.as_deref() == Some(&key.fingerprint().to_string()),
        }
    }
}

/// A module that a file is to trust.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// What the file calls it.
    pub name: &'a DeploymentName,
    /// Its type.
    pub module: &'a ModuleType,
    /// Its environment; none where the file may say any or none.
    pub environment: Option<&'a Environment>,
    /// Its public key.
    pub key: &'a VerifyingKey,
    /// The `kid` of its tokens.
    pub key_id: &'a KeyId,
    /// What the key is called, where the file does not have it; by default `key`.
    pub key_name: Option<&'a str>,
    /// The roles that it is to have there.
    pub roles: &'a [Role],
}

impl Peer<'_> {
    /// Returns what `file` at `path` must say to trust this module. What it says already, as written
    /// or as a module reads it in `checked`, is left out.
    pub(super) fn trusted_by(
        &self,
        path: &Path,
        file: &AsWritten,
        checked: &[Deployment],
    ) -> Result<Vec<Setting>, Refused> {
        let keys = keys(file, checked);
        match owner_of(&keys, self.key) {
            Some(owner) if uniform(owner) != self.name.uniform() => {
                return Err(other_owner(path, owner, self.name));
            }
            _ => {}
        }
        let names = file.names(DEPLOYMENTS, &[]);
        let written = names
            .iter()
            .find(|name| uniform(name) == self.name.uniform());
        let written = written.map_or(self.name.as_str(), String::as_str);
        let known = checked
            .iter()
            .find(|known| known.name.uniform() == self.name.uniform());
        let (module, environment) = match known {
            Some(known) => (
                Some(known.module.as_str()),
                known.environment.as_ref().map(Environment::as_str),
            ),
            None => (
                file.text(MODULE, &[written]),
                file.text(ENVIRONMENT, &[written]),
            ),
        };
        let prefix = Pattern::new(DEPLOYMENT).with_keys(&[written.to_owned()]);
        let mut settings = Vec::new();
        match module.filter(|found| !found.is_empty()) {
            Some(found) if found == self.module.as_str() => {}
            Some(found) => {
                let (path, name, wanted) = (path.display(), self.name, self.module);
                let message =
                    format!("`{path}` has `{name}` with the module `{found}`, not `{wanted}`");
                return Err(Refused::new(Kind::Taken, message).with_help(
                    "choose another name for the new deployment, or remove that deployment first",
                ));
            }
            None => {
                let module = self.module.as_str();
                settings.push(Setting::new(format!("{prefix}.module"), module));
            }
        }
        if let Some(wanted) = self.environment.map(Environment::as_str)
            && environment != Some(wanted)
        {
            settings.push(Setting::new(format!("{prefix}.environment"), wanted));
        }
        settings.extend(self.key_settings(path, written, &keys)?);
        let roles = known.iter().flat_map(|known| known.roles.iter());
        let held: Vec<_> = roles.map(Role::as_str).collect();
        settings.extend(self.role_settings(file, written, &held));
        Ok(settings)
    }

    /// Returns fingerprint, content and revocation of the key where they are not right yet in the
    /// deployment `written`.
    fn key_settings(
        &self,
        path: &Path,
        written: &str,
        keys: &[WrittenKey],
    ) -> Result<Vec<Setting>, Refused> {
        let known: Vec<_> = keys
            .iter()
            .filter(|key| key.deployment == written)
            .collect();
        let Some(present) = known.iter().find(|key| key.is(self.key)) else {
            let name = self.new_key_name(path, &known)?;
            return Ok(trusted_key(written, name, self.key, self.key_id).into());
        };
        if present.revoked {
            return Err(revoked(path, self.name));
        }
        let kid = present.content.as_ref().map(|(_, kid)| kid.as_ref());
        let kept = [
            present.fingerprint.as_deref() == Some(self.key_id.as_str()),
            kid.is_some_and(|kid| kid.is_none_or(|kid| kid == self.key_id)),
            present.is_revoked.is_some(),
        ];
        let settings = trusted_key(written, &present.name, self.key, self.key_id);
        let missing = settings.into_iter().zip(kept).filter(|(_, kept)| !kept);
        Ok(missing.map(|(setting, _)| setting).collect())
    }

    /// Chooses the name of a key that the file does not have yet beside those that are `known`.
    fn new_key_name(&self, path: &Path, known: &[&WrittenKey]) -> Result<&str, Refused> {
        let (path, name) = (path.display(), self.name);
        let (message, help) = match self.key_name {
            Some(key)
                if known
                    .iter()
                    .any(|known| uniform(&known.name) == uniform(key)) =>
            {
                (
                    format!("`{path}` has another key called `{key}` for `{name}`"),
                    "choose another `--key-name`",
                )
            }
            Some(key) => return Ok(key),
            None if known.is_empty() => return Ok("key"),
            // A second key makes two modules one, unless it is the same module's: the operator must
            // ask for that.
            None => (
                format!("`{path}` trusts another key as `{name}`"),
                "another module? give it a name of its own. The same one with a second key? say so \
                 with `--key-name key2`",
            ),
        };
        Err(Refused::new(Kind::OtherKey, message).with_help(help))
    }

    /// Returns the settings that give the deployment `written` the roles that it does not have;
    /// `held` are those that a module reads there.
    fn role_settings(&self, file: &AsWritten, written: &str, held: &[&str]) -> Vec<Setting> {
        let mut roles = Vec::new();
        let mut is_one_setting = false;
        // The first index that is free.
        let mut next: usize = 0;
        for (index, entry) in file.all(ROLES, &[written]) {
            match index.map(str::parse::<usize>) {
                None => is_one_setting = true,
                Some(index) => next = next.max(index.unwrap_or_default().saturating_add(1)),
            }
            let listed = entry.value().split(',').map(str::trim);
            roles.extend(listed.filter(|role| !role.is_empty()));
        }
        let all = [roles.as_slice(), held].concat();
        let wanted = self.roles.iter().map(Role::as_str);
        let missing: Vec<_> = wanted
            .filter(|role| !all.iter().any(|known| known.eq_ignore_ascii_case(role)))
            .collect();
        let prefix = Pattern::new(ROLES).with_keys(&[written.to_owned()]);
        if !is_one_setting {
            let numbered = missing.into_iter().zip(next..);
            return numbered
                .map(|(role, at)| Setting::new(format!("{prefix}[{at}]"), role))
                .collect();
        }
        if missing.is_empty() {
            return Vec::new();
        }
        roles.extend(missing);
        vec![Setting::new(prefix, roles.join(","))]
    }
}

fn other_owner(path: &Path, found: &str, wanted: &DeploymentName) -> Refused {
    let kind = Kind::OtherOwner {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    let path = path.display();
    let message = format!("`{path}` trusts this key as `{found}`, not as `{wanted}`");
    Refused::new(kind, message).with_help(format!(
        "write `countersign.deployment.name={found}` into its own file, or where that has none \
         use `--name <module>={found}`; or remove that deployment"
    ))
}

/// Returns the settings with which a file that trusts `deployment` trusts `key` of it too.
pub(super) fn trusting_too(
    deployment: &Deployment,
    key: &VerifyingKey,
    key_id: &KeyId,
) -> Vec<Setting> {
    let numbered = (2_u32..).map(|number| format!("key{number}"));
    let free = std::iter::once("key".to_owned())
        .chain(numbered)
        .find(|name| {
            let mut taken = deployment.keys.iter();
            !taken.any(|key| uniform(&key.name) == *name)
        });
    let name = free.unwrap_or_default();
    trusted_key(deployment.name.as_str(), &name, key, key_id).into()
}

/// The file at `path` has revoked the key of `name`.
pub(super) fn revoked(path: &Path, name: &DeploymentName) -> Refused {
    let kind = Kind::Revoked {
        path: path.to_owned(),
        name: name.to_string(),
    };
    let path = path.display();
    Refused::new(kind, format!("`{path}` has revoked the key of `{name}`"))
}
