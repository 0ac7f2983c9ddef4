//! The settings that procedures write: those of keys, most of all.

use std::path::Path;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::{Kind, Refused};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Home;
use crate::config::names::{CONTENT, FINGERPRINT, REVOKED};
use crate::diagnostic::CommandLine;
use crate::identity::DeploymentName;
use crate::jose::{
    Fingerprint, KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey, published,
};
use crate::properties::name::Pattern;
use crate::secret::Secret;
use crate::storage::revoked_keys::{Record, Standing};
use crate::telemetry::to_rfc3339;

/// A setting with the value that it must have.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    pub(super) key: String,
    /// `None` if it must not be there.
    pub(super) value: Option<Secret<String>>,
    /// The value with a remark in place of a private key.
    pub(super) shown: String,
    /// What the file's home is to remember with it.
    pub(super) record: Option<Record>,
}

impl Setting {
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        let shown = value.into();
        Self {
            key: key.into(),
            value: Some(Secret::new(shown.clone())),
            shown,
            record: None,
        }
    }

    /// Returns the value; `None` if it must not be there.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_ref().map(|value| value.expose().as_str())
    }

    pub(super) fn removed(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
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

/// Returns the setting that revokes the key called `name` of `deployment`, or takes that back:
/// `key`, where that is known.
pub(super) fn revoked_key(
    deployment: &str,
    name: &str,
    key: Option<Fingerprint>,
    standing: Standing,
) -> Setting {
    let [.., is_revoked] = key_settings(deployment, name);
    let word = standing == Standing::Revoked;
    Setting {
        record: key.map(|key| record(standing, key, deployment)),
        ..Setting::new(is_revoked, word.to_string())
    }
}

/// Returns what a home is to remember of `key` although its file does not have it.
pub(super) fn record(standing: Standing, key: Fingerprint, deployment: &str) -> Record {
    let name = DeploymentName::new(deployment);
    Record {
        standing,
        key,
        time: to_rfc3339(SystemClock.now()).unwrap_or_default(),
        // Nothing is decided by it.
        deployment: name.map_or_else(|_unfit| "-".to_owned(), |name| name.to_string()),
    }
}

/// Fails if the home of the file at `path` remembers `key` as revoked: the file would trust it, and
/// the module would still refuse it.
pub(super) fn is_not_remembered(path: &Path, key: &VerifyingKey) -> Result<(), Refused> {
    let fingerprint = key.fingerprint();
    if !Home::new(path).remembered()?.has(fingerprint) {
        return Ok(());
    }
    let shown = path.display();
    let message = format!("the home of `{shown}` remembers the key {fingerprint} as revoked");
    let undo = CommandLine::new("countersign revoke --undo").option("file", path);
    Err(Refused::new(Kind::Conflict, message)
        .with_help("make a new key for that module; only if this one was never lost:")
        .with_commands([undo.option("fingerprint", fingerprint.to_string())]))
}

/// Names the settings of a trusted key: `fingerprint`, `content`, `is-revoked`.
pub(super) fn key_settings(deployment: &str, name: &str) -> [String; 3] {
    let keys = [deployment, name].map(str::to_owned);
    [FINGERPRINT, CONTENT, REVOKED].map(|setting| Pattern::new(setting).with_keys(&keys))
}

/// Returns the setting `name` that holds a private key of this module.
pub(super) fn own_key(name: &str, key: &SigningKey, key_id: &KeyId) -> Setting {
    let jwk = PrivateJwk::write(key, key_id);
    let value = Secret::new(BASE64_STANDARD.encode(jwk.expose()));
    Setting {
        key: name.to_owned(),
        shown: format!("«private key, {} chars»", value.expose().len()),
        value: Some(value),
        record: None,
    }
}

/// Makes a key at `now`, with the `kid` of its tokens.
pub(super) fn new_key(now: SystemTime) -> Result<(SigningKey, KeyId), Refused> {
    let key =
        SigningKey::generate().map_err(Refused::caused(Kind::Internal, "cannot make a key"))?;
    let key_id = key.fingerprint().into();
    Ok((key.with_made_at(now), key_id))
}

/// Returns a private key that a module may use, and its `kid`. The error for any other key begins
/// with `cannot`.
pub fn private_key(material: KeyMaterial, cannot: &str) -> Result<(SigningKey, KeyId), Refused> {
    let why = match material {
        KeyMaterial::Private(key, kid) if !published(key.fingerprint()) => {
            let key_id = kid.unwrap_or_else(|| key.fingerprint().into());
            return Ok((key, key_id));
        }
        KeyMaterial::Private(..) => "it is printed in a public guide and protects nothing",
        KeyMaterial::Public(..) => "it is a public key",
    };
    Err(Refused::new(Kind::Unreadable, format!("{cannot}: {why}")))
}
