//! The settings that procedures write, those of keys most of all, and where they take effect: another
//! document, file or variable may decide.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::{Kind, Refused};
use crate::clock::to_rfc3339;
use crate::clock::{Clock as _, SystemClock};
use crate::config::names::{CONTENT, FINGERPRINT, OWN_KEY, REVOKED};
use crate::config::{self, AsWritten, Home, is_service_link};
use crate::diagnostic::{CommandLine, Origin, redact_name};
use crate::identity::DeploymentName;
use crate::jose::{
    Fingerprint, KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey, published,
};
use crate::properties::name::{Name, Pattern, variable_for};
use crate::properties::{Entry, FileText, ReadError};
use crate::secret::Secret;
use crate::storage::revoked_keys::{Record, Standing};

/// A setting with the value that it must have.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    pub(super) key: String,
    /// `None` if it must not be there.
    pub(super) value: Option<Secret<String>>,
    /// The value with a remark in place of a private key.
    pub(super) shown: String,
    /// Whether it revokes a key, or takes that back.
    pub(super) revokes: bool,
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
            ..Self::default()
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
        revokes: true,
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
    let undo = CommandLine::new("countersign revoke --undo").option("home", path);
    Err(Refused::new(Kind::Conflict, message)
        .with_help(format!(
            "make a new key for that module: remove the line `{OWN_KEY}` from its own file, and \
             pair again; only if this one was never lost:"
        ))
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
        ..Setting::default()
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

/// What the names of a rotation's settings begin with.
const ROTATION: &str = "countersign.rotation.";

/// Returns what the module of the file at `path`, which holds `text` or is not there, reads.
pub(super) fn as_a_module_reads(
    path: &Path,
    text: Option<&FileText>,
) -> Result<AsWritten, ReadError> {
    match text {
        Some(text) => {
            let texts = [(path.to_owned(), text.clone())];
            AsWritten::of_module(path, &texts, &config::environment())
        }
        None => Ok(AsWritten::parse(path, "")),
    }
}

/// The entries of each name, in the form in which spellings agree; the last one decides.
pub(super) type ByName<'a> = HashMap<String, Vec<&'a Entry>>;

pub(super) fn by_name(read: &AsWritten) -> ByName<'_> {
    let mut all = ByName::new();
    for entry in read.active_entries() {
        let name = Name::parse(entry.key()).uniform();
        all.entry(name).or_default().push(entry);
    }
    all
}

/// Finds the files in which `setting` is written for the module of the file at `main`: a revocation
/// or a removal everywhere, so that it holds without the active profiles too.
pub(super) fn places<'a>(
    read: &'a AsWritten,
    names: &ByName<'a>,
    main: &'a Path,
    setting: &Setting,
) -> Result<Vec<&'a Path>, Refused> {
    let name = Name::parse(&setting.key).uniform();
    let mut there = names.get(&name).cloned().unwrap_or_default();
    if there.is_empty() && setting.key.starts_with(ROTATION) {
        // With the key, so that a step of a rotation writes one file.
        let own = names.get(&Name::parse(OWN_KEY).uniform());
        there.extend(own.and_then(|own| own.last()));
    } else if there.is_empty() && (setting.revokes || setting.key.ends_with(']')) {
        // Without the rest of its key, or of its list, it would be a fault, or have no effect.
        let above = name.rsplit_once('.').map_or("", |(above, _)| above);
        let mut beside = read.active_entries().filter(|entry| {
            let name = Name::parse(entry.key()).uniform();
            name.strip_prefix(above)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        there.extend(if setting.revokes {
            beside.next()
        } else {
            beside.next_back()
        });
    } else if !setting.revokes && setting.value.is_some() {
        there.drain(..there.len().saturating_sub(1));
    }
    if there.is_empty() {
        return Ok(vec![main]);
    }
    let mut files = Vec::new();
    for entry in there {
        match read.file_of(entry) {
            (file, true) => files.push(file),
            (_, false) if Some(entry.value()) == setting.text() => {}
            (_, false) => {
                let origin = read.document().origin(entry.key_span.start);
                return Err(no_effect(main, setting, &origin));
            }
        }
    }
    Ok(files)
}

/// Finds what decides on the setting `key` of a module: a variable, or the last entry. Returns its
/// place and value.
pub(super) fn deciding(
    read: &AsWritten,
    names: &ByName<'_>,
    key: &str,
    environment: &[(String, String)],
) -> Option<(Origin, String)> {
    if let Some((variable, value)) = variable_above(key, environment) {
        return Some((Origin::Environment(variable.into()), value));
    }
    let entry = names.get(&Name::parse(key).uniform())?.last()?;
    let origin = read.document().origin(entry.key_span.start);
    Some((origin, entry.value().to_owned()))
}

/// Finds the place that decides on the setting `key` of the module of the file at `main`.
pub(super) fn origin_of(main: &Path, key: &str) -> Result<Option<Origin>, Refused> {
    let environment = config::environment();
    let read = AsWritten::of_module(main, &[], &environment)?;
    let found = deciding(&read, &by_name(&read), key, &environment);
    Ok(found.map(|(origin, _)| origin))
}

/// What is written in the file at `path` would not take effect: `origin` decides on `setting`.
pub(super) fn no_effect(path: &Path, setting: &Setting, origin: &Origin) -> Refused {
    let (name, file) = (redact_name(&setting.key), path.display());
    let message = format!("a change of `{name}` in `{file}` has no effect: {origin} decides");
    let help = match (origin, &setting.value) {
        (Origin::Environment(_), _) => {
            "start the module without it, unset it here too, and run this command again; nothing is \
             written"
                .to_owned()
        }
        (_, Some(_)) if setting.shown.starts_with('«') => {
            format!("have the own key in `{file}` alone; nothing is written")
        }
        (_, Some(_)) => format!("write `{name}={}` there; nothing is written", setting.shown),
        (_, None) => "remove it there; nothing is written".to_owned(),
    };
    Refused::new(Kind::Conflict, message).with_help(help)
}

/// Finds a variable of `environment` that overrides `setting` in any file; returns it with its
/// value.
pub(super) fn variable_above(
    setting: &str,
    environment: &[(String, String)],
) -> Option<(String, String)> {
    let list = setting.split('[').next().unwrap_or_default();
    let wanted = [setting, list].map(|name| letters(&variable_for(name)));
    let mut variables = environment
        .iter()
        .filter(|(name, value)| !is_service_link(name, value, environment));
    let found = variables.find(|(name, _)| wanted.contains(&letters(name)));
    found.cloned()
}

/// Returns the part of a variable's name that all its spellings share: an underscore may replace a
/// dash or be left out, and dots and brackets may stand for themselves.
fn letters(name: &str) -> String {
    name.replace(['_', '-', '.', '[', ']'], "")
        .to_ascii_uppercase()
}
