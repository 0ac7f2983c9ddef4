//! The modules that a file trusts, as it is written, and what it must say to trust another one.

use std::collections::BTreeMap;
use std::path::Path;

use super::edited::{Setting, trusted_key};
use super::error::{Kind, Refused};
use super::profiles::DEPLOYMENT;
use crate::config::AsWritten;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, PublicJwk, VerifyingKey};
use crate::properties::name::{Pattern, uniform};
use crate::trust::Deployment;

const DEPLOYMENTS: &str = "ataccama.one.platform.deployments";
const KEYS: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys";
pub(super) const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";

/// A deployment as a file describes it.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    /// The name as written.
    pub(super) name: String,
    pub(super) module: Option<String>,
    pub(super) environment: Option<String>,
    roles: Vec<String>,
    /// The roles that a module reads there, with placeholders resolved.
    held: Vec<String>,
    /// The first index that is free.
    next_role: usize,
    /// Whether the roles stand in one setting, separated by commas.
    roles_in_one: bool,
    /// By their names in the form in which spellings agree.
    pub(super) keys: BTreeMap<String, TrustedKey>,
}

/// A key of a deployment, as a file describes it.
#[derive(Debug, Default)]
pub(super) struct TrustedKey {
    /// The name as written.
    pub(super) name: String,
    pub(super) fingerprint: Option<String>,
    /// The key and the `kid` in its content, if that can be read.
    pub(super) content: Option<(VerifyingKey, Option<KeyId>)>,
    /// The word of `is-revoked`.
    pub(super) is_revoked: Option<String>,
    /// Whether a module takes the word for a revocation: anything but a plain "no".
    pub(super) revoked: bool,
}

/// The deployments of a file, by their names in the form in which spellings agree.
#[derive(Debug, Default)]
pub(super) struct Trusts(BTreeMap<String, Trusted>);

impl Trusts {
    /// Reads the deployments of `file`.
    pub(super) fn read(file: &AsWritten) -> Self {
        let names = file.names(DEPLOYMENTS, &[]).iter();
        Self(
            names
                .map(|name| (uniform(name), Trusted::read(file, name)))
                .collect(),
        )
    }

    /// Puts what a module reads in place of what is written, where it takes the deployment:
    /// placeholders are resolved, and the files of active profiles stand above the main file.
    pub(super) fn resolved(mut self, checked: &[Deployment]) -> Self {
        for deployment in checked {
            let Some(known) = self.0.get_mut(&deployment.name.uniform()) else {
                continue;
            };
            known.module = Some(deployment.module.to_string());
            let environment = deployment.environment.as_ref();
            known.environment = environment.map(ToString::to_string);
            let roles = deployment.roles.iter();
            known.held = roles.map(|role| role.as_str().to_owned()).collect();
            for key in &deployment.keys {
                if let Some(known) = known.keys.get_mut(&uniform(&key.name)) {
                    known.fingerprint = Some(key.key_id.to_string());
                    known.content = Some((key.key.clone(), None));
                    known.revoked = key.revoked;
                    known.is_revoked.get_or_insert_with(|| "false".to_owned());
                }
            }
        }
        self
    }

    /// Goes through the deployments.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Trusted> {
        self.0.values()
    }

    /// Finds the deployment called `name`, in whatever spelling.
    pub(super) fn find(&self, name: &DeploymentName) -> Option<&Trusted> {
        self.0.get(&name.uniform())
    }

    /// Finds the deployment that has this key.
    pub(super) fn owner_of(&self, key: &VerifyingKey) -> Option<&Trusted> {
        let mut all = self.iter();
        all.find(|deployment| deployment.keys.values().any(|known| known.is(key)))
    }
}

impl Trusted {
    fn read(file: &AsWritten, name: &str) -> Self {
        let text = |member: &str| {
            let entry = file.get(&format!("{DEPLOYMENT}.{member}"), &[name])?;
            Some(entry.value().trim().to_owned())
        };
        let mut read = Self {
            name: name.to_owned(),
            module: text("module"),
            environment: text("environment"),
            ..Self::default()
        };
        for (index, entry) in file.all(ROLES, &[name]) {
            match index.map(str::parse::<usize>) {
                None => read.roles_in_one = true,
                Some(index) => {
                    let next = index.unwrap_or_default().saturating_add(1);
                    read.next_role = read.next_role.max(next);
                }
            }
            let roles = entry.value().split(',').map(|role| role.trim().to_owned());
            read.roles.extend(roles.filter(|role| !role.is_empty()));
        }
        let keys = file.names(KEYS, &[name]).iter();
        let keys = keys.map(|key| (uniform(key), TrustedKey::read(file, name, key)));
        read.keys = keys.collect();
        read
    }
}

impl TrustedKey {
    fn read(file: &AsWritten, deployment: &str, name: &str) -> Self {
        let text = |member: &str| {
            let entry = file.get(&format!("{KEYS}.<key>.{member}"), &[deployment, name])?;
            Some(entry.value().trim().to_owned())
        };
        let content = text("content").and_then(|content| PublicJwk::parse(&content).ok());
        let is_revoked = text("is-revoked");
        let no = ["false", "no", "off", "0"];
        let is_no = |word: &str| no.iter().any(|no| word.eq_ignore_ascii_case(no));
        Self {
            name: name.to_owned(),
            fingerprint: text("fingerprint"),
            content: content.map(|jwk| (jwk.key, jwk.kid)),
            revoked: is_revoked.as_deref().is_some_and(|word| !is_no(word)),
            is_revoked,
        }
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
    /// Returns what the file at `path`, which says `trusts`, must say to trust this module. What it
    /// says already is left out.
    pub(super) fn trusted_by(&self, path: &Path, trusts: &Trusts) -> Result<Vec<Setting>, Refused> {
        if let Some(owner) = trusts.owner_of(self.key)
            && uniform(&owner.name) != self.name.uniform()
        {
            return Err(other_owner(path, &owner.name, self.name));
        }
        let new = Trusted {
            name: self.name.to_string(),
            ..Trusted::default()
        };
        let known = trusts.find(self.name).unwrap_or(&new);
        let prefix = Pattern::new(DEPLOYMENT).with_keys(std::slice::from_ref(&known.name));
        let mut settings = Vec::new();
        match known.module.as_deref().filter(|found| !found.is_empty()) {
            Some(found) if found == self.module.as_str() => {}
            Some(found) => {
                let (path, name, wanted) = (path.display(), self.name, self.module);
                let message =
                    format!("`{path}` has `{name}` with the module `{found}`, not `{wanted}`");
                return Err(Refused::new(Kind::Taken, message).with_help(
                    "choose another name for the new deployment, or remove that deployment first",
                ));
            }
            None => settings.push(Setting::new(
                format!("{prefix}.module"),
                self.module.as_str(),
            )),
        }
        if let Some(environment) = self.environment.map(Environment::as_str)
            && known.environment.as_deref() != Some(environment)
        {
            settings.push(Setting::new(format!("{prefix}.environment"), environment));
        }
        settings.extend(self.key_settings(path, known)?);
        settings.extend(self.role_settings(known, &format!("{prefix}.security.roles")));
        Ok(settings)
    }

    /// Returns fingerprint, content and revocation of the key where they are not right yet.
    fn key_settings(&self, path: &Path, known: &Trusted) -> Result<Vec<Setting>, Refused> {
        let present = known.keys.values().find(|key| key.is(self.key));
        let Some(present) = present else {
            let name = self.new_key_name(path, known)?;
            return Ok(trusted_key(&known.name, name, self.key, self.key_id).into());
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
        let settings = trusted_key(&known.name, &present.name, self.key, self.key_id);
        let missing = settings.into_iter().zip(kept).filter(|(_, kept)| !kept);
        Ok(missing.map(|(setting, _)| setting).collect())
    }

    /// Chooses the name of a key that the file does not have yet.
    fn new_key_name(&self, path: &Path, known: &Trusted) -> Result<&str, Refused> {
        let (path, name) = (path.display(), self.name);
        match self.key_name {
            Some(key) if known.keys.contains_key(&uniform(key)) => {
                let message = format!("`{path}` has another key called `{key}` for `{name}`");
                Err(Refused::new(Kind::OtherKey, message).with_help("choose another `--key-name`"))
            }
            Some(key) => Ok(key),
            None if known.keys.is_empty() => Ok("key"),
            // A second key makes two modules one, unless it is the same module's: the operator must
            // ask for that.
            None => {
                let message = format!("`{path}` trusts another key as `{name}`");
                Err(Refused::new(Kind::OtherKey, message).with_help(
                    "another module? give it a name of its own. The same one with a second key? \
                     say so with `--key-name key2`",
                ))
            }
        }
    }

    /// Returns the settings that give the deployment the roles that it does not have.
    fn role_settings(&self, known: &Trusted, prefix: &str) -> Vec<Setting> {
        let is_missing = |role: &&Role| {
            let mut roles = known.roles.iter().chain(&known.held);
            !roles.any(|known| known.eq_ignore_ascii_case(role.as_str()))
        };
        let missing = self.roles.iter().filter(is_missing).map(Role::as_str);
        if !known.roles_in_one {
            let numbered = missing.zip(known.next_role..);
            return numbered
                .map(|(role, at)| Setting::new(format!("{prefix}[{at}]"), role))
                .collect();
        }
        let all: Vec<_> = known.roles.iter().map(String::as_str).collect();
        let with_missing: Vec<_> = all.iter().copied().chain(missing).collect();
        if with_missing.len() == all.len() {
            return Vec::new();
        }
        vec![Setting::new(prefix, with_missing.join(","))]
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
    let taken: Vec<_> = deployment
        .keys
        .iter()
        .map(|key| uniform(&key.name))
        .collect();
    let names = (2..).map(|number: u32| format!("key{number}"));
    let mut names = std::iter::once("key".to_owned()).chain(names);
    let free = names.find(|name| !taken.contains(&uniform(name)));
    trusted_key(
        deployment.name.as_str(),
        &free.unwrap_or_default(),
        key,
        key_id,
    )
    .into()
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
