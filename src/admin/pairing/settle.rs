//! What one side is, and what either file must say about it.

use std::path::Path;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::names::{OWN_KEY, OWN_NAME};
use super::view::{Trusted, TrustedKey, View};
use super::{Member, Options};
use crate::admin::edited::Setting;
use crate::admin::error::PairError;
use crate::identity::{DeploymentName, Environment};
use crate::jose::{KeyId, PrivateJwk, PublicJwk, SigningKey, VerifyingKey};
use crate::properties::name::uniform;
use crate::secret::Secret;

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
    ) -> Result<Self, PairError> {
        let (key, key_id, is_key_new) = settle_key(member, own, options.now)?;
        let owner = peer.owner_of(key.verifying_key());
        let environment = options
            .environment
            .clone()
            .or_else(|| Environment::new(owner?.environment.as_deref()?).ok());
        let environment = match environment {
            Some(environment) => environment,
            None => Environment::new("dev").map_err(|source| PairError::Name {
                path: member.path.clone(),
                source,
            })?,
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

    /// Returns what the side's own file must say.
    pub(super) fn own_settings(
        &self,
        member: &Member,
        view: &View,
    ) -> Result<Vec<Setting>, PairError> {
        let mut settings = Vec::new();
        if view.key.is_none() {
            let jwk = PrivateJwk::write(&self.key, &self.key_id);
            let value = Secret::new(BASE64_STANDARD.encode(jwk.expose()));
            settings.push(Setting::private(OWN_KEY, value));
        }
        match &view.name {
            Some(found) if found != self.name.as_str() => Err(PairError::OtherName {
                path: member.path.clone(),
                found: found.clone(),
                wanted: self.name.clone(),
            }),
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
    ) -> Result<Vec<Setting>, PairError> {
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
    ) -> Result<Vec<Setting>, PairError> {
        let nobody = Trusted::default();
        let known = view.find(&self.name).unwrap_or(&nobody);
        if let Some(owner) = view.owner_of(&self.key)
            && uniform(&owner.name) != self.name.uniform()
        {
            return Err(PairError::OtherOwner {
                path: path.to_owned(),
                found: owner.name.clone(),
                wanted: self.name.clone(),
            });
        }
        let written = if known.name.is_empty() {
            self.name.as_str()
        } else {
            &known.name
        };
        let prefix = format!("ataccama.one.platform.deployments.{written}");
        let mut settings = self.description(path, known, options, &prefix)?;
        settings.extend(self.key_settings(path, known, options, &prefix)?);
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
    ) -> Result<Vec<Setting>, PairError> {
        let mut settings = Vec::new();
        match known.module.as_deref() {
            Some(found) if !found.is_empty() && found != self.module => {
                return Err(PairError::OtherModule {
                    path: path.to_owned(),
                    name: self.name.clone(),
                    found: found.to_owned(),
                    wanted: self.module.clone(),
                });
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
        prefix: &str,
    ) -> Result<Vec<Setting>, PairError> {
        let public = &self.key;
        let nothing = TrustedKey::default();
        let present = known.keys.values().find(|key| key.is(public));
        let name = match present {
            Some(key) if key.is_revoked() => {
                return Err(PairError::Revoked {
                    path: path.to_owned(),
                    name: self.name.clone(),
                });
            }
            Some(key) => key.name.clone(),
            None => self.key_name(path, known, options)?,
        };
        let present = present.unwrap_or(&nothing);
        let prefix = format!("{prefix}.security.jwt-keys.{name}");
        let mut settings = Vec::new();
        if present.fingerprint.as_deref() != Some(self.key_id.as_str()) {
            let fingerprint = self.key_id.as_str();
            settings.push(Setting::new(format!("{prefix}.fingerprint"), fingerprint));
        }
        let content = present.read();
        let is_right = |jwk: PublicJwk| jwk.kid.is_none_or(|kid| kid == self.key_id);
        if !content.is_some_and(is_right) {
            let content = PublicJwk::write(public, &self.key_id);
            settings.push(Setting::new(format!("{prefix}.content"), content));
        }
        if present.is_revoked.is_none() {
            settings.push(Setting::new(format!("{prefix}.is-revoked"), "false"));
        }
        Ok(settings)
    }

    /// Chooses the name of a key that the file does not have yet.
    fn key_name(
        &self,
        path: &Path,
        known: &Trusted,
        options: &Options,
    ) -> Result<String, PairError> {
        let is_free = |name: &str| !known.keys.contains_key(&uniform(name));
        match &options.key_name {
            Some(name) if is_free(name) => Ok(name.clone()),
            Some(name) => Err(PairError::KeyNameTaken {
                path: path.to_owned(),
                name: self.name.clone(),
                key: name.clone(),
            }),
            // Whoever is trusted under this name is somebody else: to add a key there is to let
            // two modules be one, and must be asked for.
            None if known.keys.is_empty() => Ok("key".to_owned()),
            None => Err(PairError::NameTaken {
                path: path.to_owned(),
                name: self.name.clone(),
            }),
        }
    }
}

fn settle_key(
    member: &Member,
    own: &View,
    now: SystemTime,
) -> Result<(SigningKey, KeyId, bool), PairError> {
    match (&member.key, &own.key) {
        (Some((wanted, _)), Some((found, _)))
            if wanted.verifying_key() != found.verifying_key() =>
        {
            Err(PairError::OtherKey(member.path.clone()))
        }
        (_, Some((key, kid))) | (Some((key, kid)), None) => Ok((key.clone(), kid.clone(), false)),
        (None, None) => {
            let key = SigningKey::generate().map_err(PairError::NewKey)?;
            let key = key.with_made_at(now);
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
) -> Result<DeploymentName, PairError> {
    if let Some(name) = &member.name {
        return Ok(name.clone());
    }
    let known = own
        .name
        .clone()
        .or_else(|| owner.map(|owner| owner.name.clone()));
    let name = known.unwrap_or_else(|| format!("{}-{environment}", member.module));
    DeploymentName::new(&name).map_err(|source| PairError::Name {
        path: member.path.clone(),
        source,
    })
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
