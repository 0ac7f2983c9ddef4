//! Changes to several settings files, shown before they are written.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::{Kind, Refused, WriteError};
use super::profiles::variable_above;
use super::write::{Privacy, Staged, mode_after};
use crate::config::holds_private_key;
use crate::diagnostic::redact_name;
use crate::jose::{KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey, published};
use crate::properties::name::Pattern;
use crate::properties::{Change, Edit, FileText, Outcome, ReadError, ReadFault};
use crate::secret::Secret;

/// What stands above the settings that pairing writes.
pub(super) const PAIRED: &str =
    "Written by `countersign pair`: this module's key, and the modules it trusts.";

/// What stands above a deployment that is added.
pub(super) const ADDED: &str =
    "Written by `countersign deployment add`: a module that this one trusts.";

/// The key of this module.
pub(super) const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// A key of a trusted deployment.
pub(super) const TRUSTED_KEY: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>";

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
pub(super) fn key_settings(deployment: &str, name: &str) -> [String; 3] {
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
    let key = SigningKey::generate();
    let key =
        key.map_err(|error| Refused::new(Kind::Internal, "cannot make a key").caused_by(error))?;
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
        KeyMaterial::Private(key, kid) => {
            let kid = kid.unwrap_or_else(|| key.fingerprint().into());
            Ok((key, kid))
        }
    }
}

/// A setting with the value that it must have.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    key: String,
    /// None where it must not be there.
    value: Option<Secret<String>>,
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

    fn shown(&self) -> String {
        match &self.value {
            None => String::new(),
            Some(value) if self.is_private => {
                format!("«private key, {} chars»", value.expose().len())
            }
            Some(value) => value.expose().clone(),
        }
    }
}

/// What would change in one file.
#[derive(Debug)]
pub struct EditedFile {
    path: PathBuf,
    before: Option<FileText>,
    after: Option<Secret<String>>,
    changes: Vec<SettingChange>,
    /// Whether it is a repair, which keeps the mode and removes a byte order mark.
    is_fix: bool,
}

/// A setting that would change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingChange {
    /// The setting, without anything that looks like a private key.
    pub key: String,
    /// Its new value; a private key is replaced by a remark. Empty where it is removed.
    pub shown: String,
    /// What becomes of it.
    pub kind: ChangeKind,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It was there with another value.
    Replaced,
    /// It is there no more.
    Removed,
}

impl EditedFile {
    /// Plans that the file at `path`, which is `before` or not there yet, says what `settings` say.
    pub(super) fn plan(
        path: &Path,
        before: Option<FileText>,
        settings: &[Setting],
        heading: Option<&str>,
    ) -> Self {
        let mut edit = Edit::new();
        if let Some(heading) = heading {
            edit.heading(heading);
        }
        // What this program wrote above settings goes with the last of them.
        edit.forget_heading(PAIRED).forget_heading(ADDED);
        for setting in settings {
            match &setting.value {
                Some(value) => edit.set(&setting.key, value.expose()),
                None => edit.remove(&setting.key),
            };
        }
        let outcome = edit.apply(before.as_ref().map_or("", FileText::text));
        let (after, changes) = match outcome {
            Outcome::Unchanged => (None, Vec::new()),
            Outcome::Changed(edited) => {
                let changes = edited.changes().iter();
                let changes = changes.map(|change| shown(change, settings)).collect();
                (Some(Secret::new(edited.text().to_owned())), changes)
            }
        };
        Self {
            path: path.to_owned(),
            before,
            after,
            changes,
            is_fix: false,
        }
    }

    /// Plans that the file at `path`, which is `before`, has the text `after`. It keeps its mode, and
    /// has no byte order mark.
    pub(super) fn fixed(path: &Path, before: FileText, after: &str) -> Self {
        Self {
            path: path.to_owned(),
            before: Some(before),
            after: Some(Secret::new(after.to_owned())),
            changes: Vec::new(),
            is_fix: true,
        }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what would change, in the order in which it is written.
    pub fn changes(&self) -> &[SettingChange] {
        &self.changes
    }

    /// Returns `true` if nothing would change.
    pub fn is_empty(&self) -> bool {
        self.after.is_none()
    }

    /// Returns `true` if the file exists already.
    pub fn is_there(&self) -> bool {
        self.before.is_some()
    }

    /// Names the variables of this process's environment that stand above what would change, each
    /// with the setting.
    pub fn overridden_by(&self) -> Vec<(String, &str)> {
        let overriding = self.changes.iter().filter_map(|change| {
            let variable = variable_above(&change.key)?;
            Some((variable, change.key.as_str()))
        });
        overriding.collect()
    }

    /// Returns the permission bits before and after, if writing takes some away.
    pub fn mode_change(&self) -> Option<(u32, u32)> {
        let before = self.before.as_ref()?.mode()? & 0o777;
        let after = mode_after(before, self.privacy());
        (before != after && self.after.is_some()).then_some((before, after))
    }

    /// Returns the file as it will be.
    pub(super) fn after(&self) -> Result<FileText, Refused> {
        let text = FileText::from_bytes(self.text().as_bytes());
        text.map_err(|_fault| Refused::internal(&self.path))
    }

    /// Returns the text as it will be.
    fn text(&self) -> &str {
        match (&self.after, &self.before) {
            (Some(after), _) => after.expose(),
            (None, Some(before)) => before.text(),
            (None, None) => "",
        }
    }

    /// Writes the new text beside the file, if it changes.
    pub(super) fn staged(&self) -> Result<Option<Staged>, WriteError> {
        let Some(after) = &self.after else {
            return Ok(None);
        };
        let now = read(&self.path).ok();
        let unchanged = match (&self.before, now) {
            (None, Some(None)) => true,
            (Some(before), Some(Some(now))) => {
                before.text() == now.text() && before.has_mark() == now.has_mark()
            }
            _ => false,
        };
        if !unchanged {
            return Err(WriteError::Changed(self.path.clone()));
        }
        let bytes = match &self.before {
            Some(file) if self.is_fix => file.edited("").encode(after.expose()),
            Some(file) => file.encode(after.expose()),
            None => after.expose().clone().into_bytes().into(),
        };
        Staged::new(&self.path, &bytes, self.privacy()).map(Some)
    }

    /// A file that is there keeps its mode, unless its first private key goes in.
    fn privacy(&self) -> Privacy {
        let is_first =
            |before: &FileText| holds_private_key(self.text()) && !holds_private_key(before.text());
        match &self.before {
            Some(_) if self.is_fix => Privacy::Public,
            Some(before) if !is_first(before) => Privacy::Public,
            _ => Privacy::Private,
        }
    }
}

fn shown(change: &Change, settings: &[Setting]) -> SettingChange {
    let (key, kind) = match change {
        Change::Added(key) => (key, ChangeKind::Added),
        Change::Replaced(key) => (key, ChangeKind::Replaced),
        Change::Removed(key) => (key, ChangeKind::Removed),
    };
    let setting = settings.iter().find(|setting| setting.key == *key);
    SettingChange {
        key: redact_name(key),
        shown: setting.map_or_else(String::new, Setting::shown),
        kind,
    }
}

/// Reads a file that need not be there.
pub(super) fn read(path: &Path) -> Result<Option<FileText>, ReadError> {
    match FileText::read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.fault(), ReadFault::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}
