//! The settings that procedures write: the keys of this module, and those that it trusts.

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::{Kind, Refused};
use crate::config;
use crate::jose::{KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey, published};
use crate::properties::name::{Pattern, variable_for};
use crate::secret::Secret;

/// The comment above the settings that pairing writes.
pub(super) const PAIRED: &str =
    "Written by `countersign pair`: this module's key, and the modules it trusts.";

/// The comment above a deployment that is added.
pub(super) const ADDED: &str =
    "Written by `countersign deployment add`: a module that this one trusts.";

/// A deployment that a file trusts.
pub(super) const DEPLOYMENT: &str = "ataccama.one.platform.deployments.<name>";

/// The key of this module.
pub(super) const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// A key of a trusted deployment.
pub(super) const TRUSTED_KEY: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>";

/// A setting with the value that it must have.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    /// `None` if it must not be there.
    pub(super) value: Option<Secret<String>>,
    is_private: bool,
}

impl Setting {
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            value: Some(Secret::new(value.into())),
            ..Self::removed(key)
        }
    }

    pub(super) fn removed(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            is_private: false,
        }
    }

    /// Returns the value that one of `settings` gives to `key`, with a remark in place of a private
    /// key.
    pub(super) fn shown(settings: &[Self], key: &str) -> String {
        let setting = settings.iter().find(|setting| setting.key == key);
        match setting.and_then(|setting| Some((setting.is_private, setting.value.as_ref()?))) {
            None => String::new(),
            Some((true, value)) => format!("«private key, {} chars»", value.expose().len()),
            Some((false, value)) => value.expose().clone(),
        }
    }
}

/// Returns the settings with which a file trusts `key`, called `name`, of `deployment`.
pub(super) fn trusted_key(
    deployment: &str,
    name: &str,
    key: &VerifyingKey,
    key_id: &KeyId,
) -> [Setting; 3] {
    let [fingerprint, content, is_revoked] = key_settings(deployment, name);
    [
        Setting::new(fingerprint, key_id.as_str()),
        Setting::new(content, PublicJwk::write(key, key_id)),
        Setting::new(is_revoked, "false"),
    ]
}

/// Returns the settings with which a file no longer mentions the key called `name`.
pub(super) fn untrusted_key(deployment: &str, name: &str) -> [Setting; 3] {
    key_settings(deployment, name).map(Setting::removed)
}

/// Returns the setting that revokes the key called `name` of `deployment`.
pub(super) fn revoked_key(deployment: &str, name: &str) -> Setting {
    let [.., is_revoked] = key_settings(deployment, name);
    Setting::new(is_revoked, "true")
}

/// Names the settings of a trusted key: `fingerprint`, `content`, `is-revoked`.
fn key_settings(deployment: &str, name: &str) -> [String; 3] {
    let prefix = Pattern::new(TRUSTED_KEY).with_keys(&[deployment.to_owned(), name.to_owned()]);
    ["fingerprint", "content", "is-revoked"].map(|tail| format!("{prefix}.{tail}"))
}

/// Returns the setting `name` that holds a private key of this module.
pub(super) fn own_key(name: &str, key: &SigningKey, key_id: &KeyId) -> Setting {
    let jwk = PrivateJwk::write(key, key_id);
    Setting {
        is_private: true,
        ..Setting::new(name, BASE64_STANDARD.encode(jwk.expose()))
    }
}

/// Makes a key at `now`, with the `kid` of its tokens.
pub(super) fn new_key(now: SystemTime) -> Result<(SigningKey, KeyId), Refused> {
    let key =
        SigningKey::generate().map_err(Refused::caused(Kind::Internal, "cannot make a key"))?;
    let key_id = key.fingerprint().into();
    Ok((key.with_made_at(now), key_id))
}

/// Returns a private key that a module may use, and its `kid`, or why it may not.
pub fn private_key(material: KeyMaterial) -> Result<(SigningKey, KeyId), &'static str> {
    match material {
        KeyMaterial::Public(..) => Err("it is a public key"),
        KeyMaterial::Private(key, _) if published(key.fingerprint()) => {
            Err("it is printed in a public guide and protects nothing")
        }
        KeyMaterial::Private(key, Some(kid)) => Ok((key, kid)),
        KeyMaterial::Private(key, None) => {
            let kid = key.fingerprint().into();
            Ok((key, kid))
        }
    }
}

/// Names a variable of this process's environment that overrides `setting` in any file.
pub(super) fn variable_above(setting: &str) -> Option<String> {
    let list = setting.split('[').next().unwrap_or_default();
    let wanted = [setting, list].map(|name| without_underscores(&variable_for(name)));
    let mut variables = config::environment().into_iter().map(|(name, _)| name);
    variables.find(|name| wanted.contains(&without_underscores(name)))
}

/// An underscore may replace a dash, which a variable may also omit.
fn without_underscores(name: &str) -> String {
    name.replace('_', "").to_ascii_uppercase()
}
