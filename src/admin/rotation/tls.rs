//! Changing a module's certificate while it and its peers run: for a while the peers pin both.
//!
//! The next certificate and its key stand beside those that the settings name, whose content they
//! replace: a running module follows the content of the files, not their names. The files show how
//! far it is.

use std::fs;
use std::path::{Path, PathBuf};

use super::Rotation;
use crate::admin::change::{Change, EditedFile};
use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::tls::{FILES, at, named, pin, shown};
use crate::admin::setting::{Setting, as_a_module_reads};
use crate::admin::source::SettingsFile;
use crate::admin::write::Privacy;
use crate::config::names::{PIN, PINS};
use crate::config::{AsWritten, TlsEnd};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::FileText;
use crate::properties::name::{Pattern, free_key_name, same};

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsStep {
    /// Have the peers pin the next certificate, too.
    Pin,
    /// Use the next certificate.
    Use,
    /// Have the peers pin the old certificate no more.
    Unpin,
}

impl TlsStep {
    /// Returns the step's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Use => "use",
            Self::Unpin => "unpin",
        }
    }
}

/// What a step would change.
#[derive(Debug)]
pub struct TlsPlan {
    /// The step.
    pub step: TlsStep,
    /// What changes.
    pub change: Change,
    /// The certificate that is replaced.
    pub old: Fingerprint,
    /// The one that replaces it.
    pub new: Fingerprint,
    /// The settings that name the next certificate before it is used, with their values.
    pub sets: Vec<(String, String)>,
    /// What is removed once the change is made.
    left_over: Vec<PathBuf>,
}

impl TlsPlan {
    /// Plans the next step. Nothing is written.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, the module has no certificate, or a peer does not pin it.
    pub fn of(rotation: &Rotation) -> Result<Self, Refused> {
        let (owner, path) = (&rotation.owner, &rotation.owner.path);
        let file = as_a_module_reads(path, Some(&owner.text))?;
        let entries = FILES.map(|property| file.tls(TlsEnd::Server, property));
        let ([Some(cert_chain), Some(private_key)], Some(name)) = (entries, rotation.name()) else {
            let message = format!("`{}` names no certificate to replace", path.display());
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("turn TLS on first: `countersign pair --tls`"));
        };
        let files = named(path, [cert_chain, private_key])?;
        let [chain, key] = &files;
        let (next, before) = (
            files.each_ref().map(|pem| beside(pem, "next")),
            beside(chain, "old"),
        );
        let used = shown(path, chain.clone())?;
        // Until the certificate is replaced, too, it is the same.
        let replaced_one = before
            .exists()
            .then(|| shown(path, before.clone()))
            .transpose()?;
        if let Some(old) = replaced_one.filter(|old| *old != used) {
            let left_over = [before].into_iter().chain(next);
            return Self::unpin(rotation, old, used, left_over.collect());
        }
        let (new, made) = at(path, name, next.clone())?;
        let mut edited = owner.edited(&[])?;
        for peer in &rotation.peers {
            edited.extend(pinning(rotation, peer, used, new)?);
        }
        let is_pinned = made.is_empty() && edited.iter().all(EditedFile::is_empty);
        let (step, change) = if is_pinned {
            let mut change = Vec::new();
            if replaced_one.is_none() {
                let text = FileText::read(chain)?.text().to_owned();
                change.push(EditedFile::created(before, text, Privacy::Public));
            }
            let [next_chain, next_key] = &next;
            change.push(replaced(key, next_key, Privacy::Owner)?);
            change.push(replaced(chain, next_chain, Privacy::Public)?);
            (TlsStep::Use, Change::of(change))
        } else {
            (TlsStep::Pin, Change::checked(edited, made)?)
        };
        Ok(Self {
            step,
            change,
            old: used,
            new,
            sets: naming(&file, [cert_chain.value(), private_key.value()], &next),
            left_over: Vec::new(),
        })
    }

    /// Plans that no peer pins `old` any more.
    fn unpin(
        rotation: &Rotation,
        old: Fingerprint,
        new: Fingerprint,
        left_over: Vec<PathBuf>,
    ) -> Result<Self, Refused> {
        let mut edited = rotation.owner.edited(&[])?;
        for peer in &rotation.peers {
            let Some(deployment) = rotation.deployment(peer) else {
                continue;
            };
            let file = as_a_module_reads(&peer.path, Some(&peer.text))?;
            let pinned = pins(&file, &deployment.name).into_iter();
            let outdated = pinned.filter(|(_, pin)| *pin == old.to_string());
            let removed: Vec<_> = outdated.map(|(key, _)| Setting::removed(key)).collect();
            edited.extend(peer.edited(&removed)?);
        }
        Ok(Self {
            step: TlsStep::Unpin,
            change: Change::checked(edited, Vec::new())?,
            old,
            new,
            sets: Vec::new(),
            left_over,
        })
    }

    /// Removes what is left over once the change is made: a copy of the key among it.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn clean(&self) -> Result<(), Refused> {
        let mut there = self.left_over.iter().filter(|path| path.exists());
        there.try_for_each(|path| fs::remove_file(path).map_err(Refused::not_written(path)))
    }

    /// Returns the setting with which peers on other machines pin the new certificate.
    pub fn pin(&self, name: &DeploymentName) -> String {
        let setting = Pattern::new(PIN).with_keys(&[name.to_string(), "key2".to_owned()]);
        format!("{setting}={}", self.new)
    }
}

/// Returns the file beside `pem` that has `end` at the end of its name.
fn beside(pem: &Path, end: &str) -> PathBuf {
    let mut name = pem.as_os_str().to_owned();
    name.extend([".", end].map(str::as_ref));
    name.into()
}

/// Plans that the file at `path` has what stands at `next`.
fn replaced(path: &Path, next: &Path, privacy: Privacy) -> Result<EditedFile, Refused> {
    let (before, next) = (FileText::read(path)?, FileText::read(next)?);
    Ok(EditedFile::replaced(path, before, next.text(), privacy))
}

/// Returns the names of the pins of `deployment` in `file`, as they are written, and the pins.
fn pins<'a>(file: &'a AsWritten, deployment: &DeploymentName) -> Vec<(&'a str, &'a str)> {
    let name = deployment.as_str();
    let keys = file.names(PINS, &[name]).into_iter();
    let found = keys.filter_map(|key| file.get(PIN, &[name, key]));
    found
        .map(|entry| (entry.key(), entry.value().trim()))
        .collect()
}

/// Plans that `peer`, which pins `used`, pins `new` beside it.
fn pinning(
    rotation: &Rotation,
    peer: &SettingsFile,
    used: Fingerprint,
    new: Fingerprint,
) -> Result<Vec<EditedFile>, Refused> {
    let file = as_a_module_reads(&peer.path, Some(&peer.text))?;
    let deployment = rotation.deployment(peer);
    let pinned = deployment.filter(|one| {
        let known = pins(&file, &one.name);
        known.iter().any(|(_, pin)| *pin == used.to_string())
    });
    let Some(deployment) = pinned else {
        let message = format!(
            "`{}` does not pin the certificate of this module (`{used}`)",
            peer.path.display()
        );
        return Err(Refused::new(Kind::Conflict, message).with_help(
            "a certificate of an authority is renewed by what issued it; to pin one, see \
             `countersign pair --tls`",
        ));
    };
    let known = file.names(PINS, &[deployment.name.as_str()]);
    let free = free_key_name(|name| known.iter().any(|key| same(key, name)));
    let added = pin(&peer.path, &file, &deployment.name, new, Some(&free))?;
    peer.edited(&Vec::from_iter(added))
}

/// Returns the settings of `file` that name the certificate and key `used`, with `next` as values.
fn naming(file: &AsWritten, used: [&str; 2], next: &[PathBuf; 2]) -> Vec<(String, String)> {
    let connections = file.names("ataccama.client.connection", &[]).into_iter();
    let clients = connections.map(TlsEnd::Client);
    let ends = [TlsEnd::Server].into_iter().chain(clients);
    let found = ends.flat_map(|end| {
        let properties = FILES.into_iter().zip(used).zip(next);
        properties.filter_map(move |((property, used), next)| {
            let entry = file.tls(end, property)?;
            let is_it = entry.value().trim() == used.trim();
            let next = std::path::absolute(next).ok()?;
            is_it.then(|| (entry.key().to_owned(), format!("file:{}", next.display())))
        })
    });
    found.collect()
}
