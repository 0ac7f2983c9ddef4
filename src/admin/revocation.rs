//! Revoking keys: what would stop working, the change, and whether it is active.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::change::{Change, EditedFile};
use super::deployments::{Trusts, WrittenKey};
use super::error::{Kind, Refused};
use super::greeting::Found;
use super::rotation::live::{Answer, ask_own_module, load};
use super::setting::{Setting, as_a_module_reads, key_settings, origin_of, record, revoked_key};
use super::source::SettingsFile;
use crate::config::{AsWritten, Home, ModuleKind, Settings, environment, main_of};
use crate::diagnostic::{Origin, redact, redact_word};
use crate::grpc::cause;
use crate::identity::DeploymentName;
use crate::jose::{Fingerprint, VerifyingKey};
use crate::properties::FileText;
use crate::properties::name::same;
use crate::proto::identity as wire;
use crate::storage::revoked_keys::Standing;
use crate::trust::{Deployment, TrustedKey};

/// Which keys to revoke.
#[derive(Clone, Debug)]
pub enum Which {
    /// Those of a deployment: all of them, or the one with this name in the file.
    Deployment(DeploymentName, Option<String>),
    /// The one with this fingerprint, configured or computed.
    Fingerprint(String),
}

/// The keys of one file that are revoked.
#[derive(Debug)]
pub struct RevokedFile {
    /// The file.
    pub path: PathBuf,
    which: Which,
    /// Whether they are revoked, or that is taken back.
    pub standing: Standing,
    /// The keys to revoke, including those that are revoked already.
    pub keys: Vec<RevokedKey>,
    /// Where documents begin that are not active and trust one of the keys.
    pub inactive: Vec<Origin>,
}

/// A key to revoke. Its texts never contain a private key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RevokedKey {
    /// The file.
    pub file: String,
    /// The deployment, as the file has it.
    pub deployment: String,
    /// Whether that is an engine.
    #[serde(skip)]
    pub is_engine: bool,
    /// What the file calls the key.
    #[serde(rename = "key")]
    pub name: String,
    /// The configured fingerprint, its placeholders resolved.
    pub fingerprint: String,
    /// Whether the file has it revoked already.
    pub was_revoked: bool,
    /// The names of the deployment's keys that are still trusted afterwards.
    pub left: Vec<String>,
}

/// Plans to revoke keys in the files at `paths` and in their homes' memories, or to take that back,
/// as `standing` says; returns the change, and the files with their keys. Nothing is written.
///
/// A file with faults is changed all the same: see [`RevokedFile::in_force`].
///
/// # Errors
///
/// When a file cannot be read, no file has such a key, or an import decides on it.
pub fn plan(
    paths: &[PathBuf],
    which: &Which,
    standing: Standing,
) -> Result<(Change, Vec<RevokedFile>), Refused> {
    let (mut edited, mut files) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    let mut own = None;
    let mut seen = BTreeSet::new();
    for path in paths {
        // The file of an active profile stands for its module.
        let main = main_of(path, &environment()).unwrap_or_else(|| path.clone());
        let path = &main;
        if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            continue;
        }
        let text = FileText::read(path)?;
        let checked = SettingsFile::of(path, text.clone()).ok();
        let taken = checked.as_ref().map(|file| &*file.checked.deployments);
        let (trusts, settings, file) =
            in_file(path, &text, taken.unwrap_or_default(), which, standing)?;
        if checked.is_some_and(|file| which.is_own_key_of(&file)) {
            own.get_or_insert_with(|| path.clone());
        }
        known.extend(trusts.keys.iter().map(|key| {
            let (name, deployment) = (redact_word(&key.name), redact_word(&key.deployment));
            format!("`{name}` of `{deployment}` ({})", shown_fingerprint(key))
        }));
        let mut planned = EditedFile::plan(path, Some(text), &settings, None)?;
        if let (Some(key), Some(main)) = (
            which.forgotten(path, standing, file.keys.is_empty())?,
            planned.first_mut(),
        ) {
            main.records.push(record(standing, key, "-"));
        }
        edited.extend(planned);
        files.push(file);
    }
    let change = Change::effective(edited)?;
    if change.is_empty() && files.iter().all(|file| file.keys.is_empty()) {
        let Some(own) = own else {
            return Err(not_there(which, known));
        };
        let what = "this is the module's own key in";
        let message = format!("{what} `{}`: only its peers trust it", own.display());
        return Err(Refused::new(Kind::Conflict, message).with_help(
            "name the peers with `--home`; to replace the key: `countersign rotate replace`",
        ));
    }
    Ok((change, files))
}

/// Finds the keys that `which` means in the file at `path`, which has this text, and of which a
/// module reads the deployments `taken`; returns what the file trusts, the settings that revoke the
/// keys, or take that back, and what becomes of them.
pub(super) fn in_file(
    path: &Path,
    text: &FileText,
    taken: &[Deployment],
    which: &Which,
    standing: Standing,
) -> Result<(Trusts, Vec<Setting>, RevokedFile), Refused> {
    let trusts = Trusts::of(as_a_module_reads(path, Some(text))?, taken);
    let meant: Vec<_> = trusts.keys.iter().filter(|key| which.means(key)).collect();
    let settings = meant
        .iter()
        .map(|key| revoked_key(&key.deployment, &key.name, key.computed(), standing))
        .collect();
    let keys = meant.iter().map(|key| described(key, &trusts, which));
    let file = RevokedFile {
        path: path.to_owned(),
        which: which.clone(),
        standing,
        keys: keys.collect(),
        inactive: inactive(&trusts, which),
    };
    Ok((trusts, settings, file))
}

/// Returns the error if no file has the keys; the files trust those that are `known`.
fn not_there(which: &Which, known: BTreeSet<String>) -> Refused {
    let mut keys = Vec::from_iter(known);
    if keys.is_empty() {
        keys.push("none".to_owned());
    }
    let (what, trusted) = (which.described(), keys.join(", "));
    let message = format!("no file has {what}; the files trust: {trusted}");
    Refused::new(Kind::Conflict, message)
}

/// Finds the documents of the module's files that are not active and trust one of the keys; returns
/// the places where they begin.
fn inactive(active: &Trusts, which: &Which) -> Vec<Origin> {
    let document = active.file.document();
    let files = 0..document.file_starts().count();
    let all = files.flat_map(|file| document.documents_of(file));
    let hidden = all.filter(|one| !active.file.reads(*one));
    let trusting = hidden.filter(|one| {
        let [from, to] = [*one, one.saturating_add(1)].map(|at| document.start_of(at));
        let alone = document.text().get(from..to).unwrap_or_default();
        let trusts = Trusts::of(AsWritten::parse(document.path(), alone), &[]);
        let mut keys = trusts.keys.iter();
        keys.any(|key| which.means(key) && !key.revoked)
    });
    trusting
        .map(|one| document.origin(document.start_of(one)))
        .collect()
}

/// Describes `key`, one of the matching keys in `trusts`.
fn described(key: &WrittenKey, trusts: &Trusts, which: &Which) -> RevokedKey {
    let of = key.deployment.as_str();
    let others = trusts.keys.iter().filter(|other| other.deployment == of);
    let left = others.filter(|other| !other.revoked && !which.means(other));
    RevokedKey {
        file: trusts.file.document().path().display().to_string(),
        deployment: redact_word(of),
        is_engine: trusts.module(of) == Some("dpe"),
        name: redact_word(&key.name),
        fingerprint: shown_fingerprint(key),
        was_revoked: key.is_revoked.as_deref() == Some("true"),
        left: left.map(|other| redact_word(&other.name)).collect(),
    }
}

/// Returns the configured fingerprint, redacted: the file may have a private key in its place.
fn shown_fingerprint(key: &WrittenKey) -> String {
    let text = redact(key.fingerprint.as_deref().unwrap_or_default());
    let scalar = text.parse::<Fingerprint>().ok();
    let public = scalar.and_then(|scalar| VerifyingKey::of_scalar(scalar.as_bytes()));
    match &key.content {
        Some((key, _)) if public.as_ref() == Some(key) => redact_word(&text),
        _ => text,
    }
}

impl RevokedFile {
    /// Checks that a module accepts the file as it is now, and no longer trusts the keys with it.
    /// Returns whether the module reloads a changed file by
    /// itself.
    ///
    /// # Errors
    ///
    /// When it does not accept the file, or still trusts one of the keys.
    pub fn in_force(&self, kind: &ModuleKind) -> Result<bool, Refused> {
        let loaded = Settings::load(&self.path, kind, environment(), &[]);
        let settings = loaded.map_err(|error| {
            let (path, why) = (self.path.display(), cause(&error));
            let message = format!("a module does not accept `{path}` as it is: {why}");
            Refused::new(Kind::Unreadable, message)
                .with_help("correct the file; the module then follows it")
                .with_findings(error.findings().cloned().unwrap_or_default())
        })?;
        let is_revoked = self.standing == Standing::Revoked;
        let mut meant = self.meant(&settings);
        match meant.find(|(_, key)| key.revoked != is_revoked) {
            Some((of, key)) => {
                let [.., setting] = key_settings(of.name.as_str(), &key.name);
                let place = origin_of(&self.path, &setting)?.unwrap_or(Origin::Default);
                let name = redact_word(&key.name);
                let message = format!("{place} decides on `{name}` of `{}`", of.name);
                let help = format!("have it say `{}={is_revoked}`", redact_word(&setting));
                Err(Refused::new(Kind::Conflict, message).with_help(help))
            }
            None => Ok(settings.options.reload),
        }
    }

    /// Asks the running module whether it refuses the keys: it must list them as revoked, or list
    /// all of its keys without them. Where the revocation is taken back, it must accept one.
    pub async fn confirmed(&self, kind: &ModuleKind) -> Answer {
        let settings = load(&self.path, kind)?;
        let (target, answer) = ask_own_module(&settings).await?;
        let what = match self.accepts(&settings, &answer.trusted_keys) {
            Some(accepts) if accepts == (self.standing == Standing::Undone) => {
                return Ok(format!("asked at {target}"));
            }
            Some(true) => "still accepts the key",
            Some(false) => "still refuses the key",
            None => "does not say whether it accepts the key",
        };
        Err(Found::Refused.because(format!("the module at {target} {what}")))
    }

    /// Returns whether a module that lists the keys `listed` accepts one of those that were to be
    /// revoked; `None` if the list does not say.
    fn accepts(&self, settings: &Settings, listed: &[wire::TrustedKey]) -> Option<bool> {
        let keys: Vec<_> = self.meant(settings).map(|(_, key)| key).collect();
        let mut active = listed.iter().filter(|key| !key.revoked);
        let is_accepted = active.any(|listed| {
            let fingerprints = [&*listed.fingerprint, &*listed.computed_fingerprint].map(Some);
            self.which.is([&*listed.deployment, ""], fingerprints)
                || keys.iter().any(|key| is_listed_as(key, listed))
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

    /// Finds the keys that were to be revoked, as a module with these settings has them.
    fn meant<'a>(
        &self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = (&'a Deployment, &'a TrustedKey)> {
        let deployments = settings.deployments.iter();
        let all = deployments.flat_map(|d| d.keys.iter().map(move |key| (d, key)));
        all.filter(|(of, key)| {
            let computed = key.key.fingerprint().to_string();
            let fingerprints = [key.key_id.as_str(), &computed].map(Some);
            self.which.is([of.name.as_str(), &key.name], fingerprints)
        })
    }
}

fn is_listed_as(key: &TrustedKey, listed: &wire::TrustedKey) -> bool {
    listed.fingerprint == key.key_id.as_str()
        || listed.computed_fingerprint == key.key.fingerprint().to_string()
}

impl Which {
    fn described(&self) -> String {
        match self {
            Self::Deployment(name, None) => format!("deployment `{name}`"),
            Self::Deployment(name, Some(key)) => format!("key `{key}` of `{name}`"),
            Self::Fingerprint(fingerprint) => format!("key `{fingerprint}`"),
        }
    }

    /// Returns `true` if a key is meant: by the names of its deployment and of itself, or by its
    /// configured or computed fingerprint. A name that is not known is empty.
    fn is(&self, [deployment, name]: [&str; 2], fingerprints: [Option<&str>; 2]) -> bool {
        match self {
            Self::Fingerprint(wanted) => fingerprints.contains(&Some(wanted.as_str())),
            Self::Deployment(wanted, key) => {
                let is_named = key
                    .as_ref()
                    .is_none_or(|key| !name.is_empty() && same(key, name));
                is_named && !deployment.is_empty() && same(deployment, wanted.as_str())
            }
        }
    }

    /// Returns the key whose revocation is to be taken back and that the file at `path` no longer
    /// has, if its home remembers it.
    fn forgotten(
        &self,
        path: &Path,
        standing: Standing,
        is_absent: bool,
    ) -> Result<Option<Fingerprint>, Refused> {
        let Self::Fingerprint(text) = self else {
            return Ok(None);
        };
        let is_asked = standing == Standing::Undone && is_absent;
        let key: Option<Fingerprint> = text.parse().ok().filter(|_| is_asked);
        let remembered = Home::new(path).remembered()?;
        Ok(key.filter(|key| remembered.has(*key)))
    }

    fn means(&self, key: &WrittenKey) -> bool {
        let computed = key.computed().map(|computed| computed.to_string());
        let fingerprints = [key.fingerprint.as_deref(), computed.as_deref()];
        self.is([&*key.deployment, &*key.name], fingerprints)
    }

    /// Returns `true` if the key of `file` itself has the fingerprint.
    fn is_own_key_of(&self, file: &SettingsFile) -> bool {
        file.checked.own.as_ref().is_some_and(|(key, id)| {
            let computed = key.fingerprint().to_string();
            self.is(["", ""], [id.as_str(), &computed].map(Some))
        })
    }
}

#[cfg(test)]
mod tests;
