//! What one side is, and what either file must say about it.

use std::path::Path;
use std::time::SystemTime;

use super::names::{OWN_KEY, OWN_NAME};
use super::view::{Trusted, TrustedKey, View};
use super::{Member, Options};
use crate::admin::edited::{OTHER_KEY_NAME, SECOND_KEY, Setting, new_key, own_key, trusted_key};
use crate::admin::error::{Kind, Refused};
use crate::identity::{DeploymentName, Environment, NameError};
use crate::jose::{KeyId, PublicJwk, SigningKey, VerifyingKey};
use crate::properties::name::uniform;

const OTHER_NAME: &str = "give the name that is there with `--name`";

/// One side of the pair: its name and key, wherever they came from.
pub(super) struct Side {
    pub(super) name: DeploymentName,
    pub(super) key: SigningKey,
    pub(super) is_key_new: bool,
    pub(super) port: u16,
    pub(super) key_id: KeyId,
    pub(super) module: String,
    pub(super) environment: Environment,
}

/// What a file must say of a module that it trusts.
pub(super) struct Peer {
    pub(super) name: DeploymentName,
    pub(super) key: VerifyingKey,
    pub(super) key_id: KeyId,
    pub(super) module: String,
    pub(super) environment: Environment,
}

impl Side {
    /// Decides name and key of `member` from what its own file and the peer's say.
    pub(super) fn settle(
        member: &Member,
        own: &View,
        peer: &View,
        options: &Options,
    ) -> Result<Self, Refused> {
        let (key, key_id, is_key_new) = settle_key(member, own, options.now)?;
        let owner = peer.owner_of(key.verifying_key());
        let environment = options
            .environment
            .clone()
            .or_else(|| Environment::new(owner?.environment.as_deref()?).ok());
        let environment = match environment {
            Some(environment) => environment,
            None => Environment::new("dev").map_err(|error| no_name(&member.path, error))?,
        };
        Ok(Self {
            name: settle_name(member, own, owner, &environment)?,
            port: own.port.unwrap_or_else(|| default_port(member)),
            module: member.module.to_string(),
            environment,
            key,
            key_id,
            is_key_new,
        })
    }

    /// Makes sure that the other side has a name and a key of its own.
    pub(super) fn differs_from(
        &self,
        name: &DeploymentName,
        key: &VerifyingKey,
    ) -> Result<(), Refused> {
        if self.key.verifying_key() == key {
            let message = "both modules have the same private key; each needs its own";
            return Err(Refused::new(Kind::Unreadable, message));
        }
        if self.name.uniform() == name.uniform() {
            let message = format!("both deployments would be called `{}`", self.name);
            return Err(Refused::new(Kind::Usage, message));
        }
        Ok(())
    }

    /// Returns what the side's own file must say.
    pub(super) fn own_settings(
        &self,
        member: &Member,
        view: &View,
    ) -> Result<Vec<Setting>, Refused> {
        let mut settings = Vec::new();
        if view.key.is_none() {
            settings.push(own_key(OWN_KEY, &self.key, &self.key_id));
        }
        match &view.name {
            Some(found) if found != self.name.as_str() => {
                let (path, wanted) = (member.path.display(), &self.name);
                let message = format!("`{path}` says that it is called `{found}`, not `{wanted}`");
                Err(Refused::new(Kind::Taken, message).with_help(OTHER_NAME))
            }
            Some(_) => Ok(settings),
            None => {
                settings.push(Setting::new(OWN_NAME, self.name.as_str()));
                Ok(settings)
            }
        }
    }

    /// Returns what the other side's file must say, so that it trusts this side.
    pub(super) fn trusted_by(
        &self,
        path: &Path,
        view: &View,
        options: &Options,
    ) -> Result<Vec<Setting>, Refused> {
        let peer = Peer {
            name: self.name.clone(),
            key: self.key.verifying_key().clone(),
            key_id: self.key_id.clone(),
            module: self.module.clone(),
            environment: self.environment.clone(),
        };
        peer.trusted_by(path, view, options)
    }
}

impl Peer {
    /// Returns what a file must say, so that it trusts this module.
    pub(super) fn trusted_by(
        &self,
        path: &Path,
        view: &View,
        options: &Options,
    ) -> Result<Vec<Setting>, Refused> {
        let nobody = Trusted::default();
        let known = view.find(&self.name).unwrap_or(&nobody);
        if let Some(owner) = view.owner_of(&self.key)
            && uniform(&owner.name) != self.name.uniform()
        {
            return Err(other_owner(path, &owner.name, &self.name));
        }
        let written = if known.name.is_empty() {
            self.name.as_str()
        } else {
            &known.name
        };
        let prefix = format!("ataccama.one.platform.deployments.{written}");
        let mut settings = self.description(path, known, options, &prefix)?;
        settings.extend(self.key_settings(path, known, options, written)?);
        settings.extend(role_setting(known, options, &prefix));
        Ok(settings)
    }

    /// Returns module and environment where they are not there yet.
    fn description(
        &self,
        path: &Path,
        known: &Trusted,
        options: &Options,
        prefix: &str,
    ) -> Result<Vec<Setting>, Refused> {
        let mut settings = Vec::new();
        match known.module.as_deref() {
            Some(found) if !found.is_empty() && found != self.module => {
                let (path, name, wanted) = (path.display(), &self.name, &self.module);
                let message = format!("`{path}` has `{name}` as a `{found}`, not a `{wanted}`");
                return Err(Refused::new(Kind::Taken, message).with_help(OTHER_NAME));
            }
            Some(found) if found == self.module => {}
            _ => settings.push(Setting::new(
                format!("{prefix}.module"),
                self.module.clone(),
            )),
        }
        let environment = self.environment.as_str();
        let keep = known.environment.is_some() && options.environment.is_none();
        if !keep && known.environment.as_deref() != Some(environment) {
            settings.push(Setting::new(format!("{prefix}.environment"), environment));
        }
        Ok(settings)
    }

    /// Returns fingerprint, content and revocation of the key where they are not right yet.
    fn key_settings(
        &self,
        path: &Path,
        known: &Trusted,
        options: &Options,
        deployment: &str,
    ) -> Result<Vec<Setting>, Refused> {
        let public = &self.key;
        let nothing = TrustedKey::default();
        let present = known.keys.values().find(|key| key.is(public));
        let name = match present {
            Some(key) if key.is_revoked() => return Err(revoked(path, &self.name)),
            Some(key) => key.name.clone(),
            None => self.key_name(path, known, options)?,
        };
        let present = present.unwrap_or(&nothing);
        let kept = [
            present.fingerprint.as_deref() == Some(self.key_id.as_str()),
            present
                .read()
                .is_some_and(|jwk: PublicJwk| jwk.kid.is_none_or(|kid| kid == self.key_id)),
            present.is_revoked.is_some(),
        ];
        let settings = trusted_key(deployment, &name, public, &self.key_id);
        let missing = settings.into_iter().zip(kept).filter(|(_, kept)| !kept);
        Ok(missing.map(|(setting, _)| setting).collect())
    }

    /// Chooses the name of a key that the file does not have yet.
    fn key_name(&self, path: &Path, known: &Trusted, options: &Options) -> Result<String, Refused> {
        let is_free = |name: &str| !known.keys.contains_key(&uniform(name));
        let (path, name) = (path.display(), &self.name);
        match &options.key_name {
            Some(key) if is_free(key) => Ok(key.clone()),
            Some(key) => {
                let message = format!("`{path}` has another key called `{key}` for `{name}`");
                Err(Refused::new(Kind::OtherKey, message).with_help(OTHER_KEY_NAME))
            }
            // Whoever is trusted under this name is somebody else: to add a key there is to let
            // two modules be one, and must be asked for.
            None if known.keys.is_empty() => Ok("key".to_owned()),
            None => {
                let message = format!("`{path}` trusts another key as `{name}`");
                Err(Refused::new(Kind::OtherKey, message).with_help(SECOND_KEY))
            }
        }
    }
}

fn settle_key(
    member: &Member,
    own: &View,
    now: SystemTime,
) -> Result<(SigningKey, KeyId, bool), Refused> {
    match (&member.key, &own.key) {
        (Some((wanted, _)), Some((found, _)))
            if wanted.verifying_key() != found.verifying_key() =>
        {
            let path = member.path.display();
            let message = format!("`{path}` has a private key already, and it is another one");
            Err(Refused::new(Kind::Taken, message).with_help(
                "a private key is never replaced; leave out `--key`, or remove it by hand",
            ))
        }
        (_, Some((key, kid))) | (Some((key, kid)), None) => Ok((key.clone(), kid.clone(), false)),
        (None, None) => {
            let key = new_key(now)?;
            let kid = KeyId::from(key.fingerprint());
            Ok((key, kid, true))
        }
    }
}

fn settle_name(
    member: &Member,
    own: &View,
    owner: Option<&Trusted>,
    environment: &Environment,
) -> Result<DeploymentName, Refused> {
    if let Some(name) = &member.name {
        return Ok(name.clone());
    }
    let known = own
        .name
        .clone()
        .or_else(|| owner.map(|owner| owner.name.clone()));
    let name = known.unwrap_or_else(|| format!("{}-{environment}", member.module));
    DeploymentName::new(&name).map_err(|error| no_name(&member.path, error))
}

fn no_name(path: &Path, error: NameError) -> Refused {
    let path = path.display();
    let message = format!("`countersign.deployment.name` in `{path}` is not a name");
    Refused::new(Kind::Unreadable, message).caused_by(error)
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

/// The file at `path` has revoked the key of `name`.
pub(super) fn revoked(path: &Path, name: &DeploymentName) -> Refused {
    let kind = Kind::Revoked {
        path: path.to_owned(),
        name: name.to_string(),
    };
    let path = path.display();
    Refused::new(kind, format!("`{path}` has revoked the key of `{name}`"))
}

fn default_port(member: &Member) -> u16 {
    if member.module.as_str() == "dpe" {
        8532
    } else {
        8531
    }
}

/// Returns the setting that gives the deployment its role, if it does not have it.
fn role_setting(known: &Trusted, options: &Options, prefix: &str) -> Option<Setting> {
    let role = options.role.as_str();
    if known
        .roles
        .iter()
        .any(|known| known.eq_ignore_ascii_case(role))
    {
        return None;
    }
    let key = format!("{prefix}.security.roles");
    Some(if known.roles_in_one {
        let mut roles = known.roles.clone();
        roles.push(role.to_owned());
        Setting::new(key, roles.join(","))
    } else {
        Setting::new(format!("{key}[{}]", known.next_role), role)
    })
}
