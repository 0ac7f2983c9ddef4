//! Changing a module's certificate while it and its peers run: for a while the peers pin both.
//!
//! The file of the private key holds both keys for that time, and a module takes the one of its
//! certificate: it can start after each write. The next certificate, and later the old one, stand
//! beside the one in use. The files show how far it is.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use super::Rotation;
use crate::admin::certificate::{FILES, fingerprint, issue, key_in_use, named, pin, shown};
use crate::admin::change::{Change, EditedFile};
use crate::admin::error::{Kind, Refused};
use crate::admin::setting::{Setting, as_a_module_reads};
use crate::admin::source::SettingsFile;
use crate::admin::write::Privacy;
use crate::config::names::{PIN, PINS};
use crate::config::{AsWritten, TlsEnd};
use crate::grpc::tls::{CERTIFICATE, sections};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::FileText;
use crate::properties::name::Pattern;

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
        alone(rotation)?;
        let (owner, path) = (&rotation.owner, &rotation.owner.path);
        let file = as_a_module_reads(path, Some(&owner.text))?;
        let entries = FILES.map(|property| file.tls(TlsEnd::Server, property));
        let ([Some(cert_chain), Some(private_key)], Some(name)) = (entries, rotation.name()) else {
            let message = format!("`{}` names no certificate to replace", path.display());
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("turn TLS on first: `countersign pair --tls`"));
        };
        let [chain, key] = named(path, [cert_chain, private_key])?;
        if chain.canonicalize().ok() == key.canonicalize().ok() {
            let message = format!("`{}` holds a certificate and its key", chain.display());
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("put the key into a file of its own, and set `private-key` to that"));
        }
        let [next, before] = ["next", "old"].map(|which| beside(&chain, which));
        let used = shown(path, chain.clone())?;
        if let Some(old) = there(path, &before)?.filter(|old| *old != used) {
            return Self::unpin(rotation, (old, used), [&chain, &key], vec![next, before]);
        }
        let pending = there(path, &next)?.filter(|new| *new != used);
        let ready = pending.filter(|_| fingerprint(path, [next.clone(), key.clone()]).is_ok());
        let (new, first) = match ready {
            Some(new) => (new, Vec::new()),
            None => made(path, name, [&chain, &key], &next)?,
        };
        let mut edited = owner.edited(&[])?;
        for peer in &rotation.peers {
            edited.extend(pinning(rotation, peer, used, new)?);
        }
        let is_pinned = first.is_empty() && edited.iter().all(EditedFile::is_empty);
        let (step, change) = if is_pinned {
            let (in_use, text) = (FileText::read(&chain)?, FileText::read(&next)?);
            let old = sections(in_use.text(), CERTIFICATE)
                .collect::<Vec<_>>()
                .join("\n");
            let change = [
                written(&before, &old, Privacy::Public)?,
                written(&chain, text.text(), Privacy::Public)?,
            ];
            (
                TlsStep::Use,
                Change::of(change.into_iter().flatten().collect()),
            )
        } else {
            rotation.adds_no_fault(&edited)?;
            let change = Change::effective([first, edited].concat())?;
            (TlsStep::Pin, change)
        };
        Ok(Self {
            step,
            change,
            old: used,
            new,
            sets: naming(&file, cert_chain.value(), &next),
            left_over: Vec::new(),
        })
    }

    /// Plans that no peer pins `old` any more, and that its key is gone.
    fn unpin(
        rotation: &Rotation,
        (old, new): (Fingerprint, Fingerprint),
        [chain, key]: [&Path; 2],
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
        rotation.adds_no_fault(&edited)?;
        let alone = key_in_use(&rotation.owner.path, [chain, key])?;
        edited.extend(written(key, &alone, Privacy::Owner)?);
        Ok(Self {
            step: TlsStep::Unpin,
            change: Change::effective(edited)?,
            old,
            new,
            sets: Vec::new(),
            left_over,
        })
    }

    /// Removes what is left over once the change is made.
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
        let setting = Pattern::new(PIN).with_keys(&[name.to_string(), pin_name(self.new)]);
        format!("{setting}={}", self.new)
    }
}

/// Returns the file beside the certificates in `chain` for those that are `next` or `old`.
fn beside(chain: &Path, which: &str) -> PathBuf {
    let mut name = chain.as_os_str().to_owned();
    name.extend([".countersign-", which].map(str::as_ref));
    name.into()
}

/// Returns the fingerprint of the certificate at `pem`, if it is there; the settings file `of` is
/// named in an error.
fn there(of: &Path, pem: &Path) -> Result<Option<Fingerprint>, Refused> {
    let is_there = pem.symlink_metadata().is_ok();
    is_there.then(|| shown(of, pem.to_owned())).transpose()
}

/// Makes the next certificate of `name`: its key beside the one in use, and the certificate at
/// `next`.
fn made(
    of: &Path,
    name: &DeploymentName,
    [chain, key]: [&Path; 2],
    next: &Path,
) -> Result<(Fingerprint, Vec<EditedFile>), Refused> {
    let (new, certificate, private_key) = issue(name)?;
    let both = [key_in_use(of, [chain, key])?, private_key].join("\n");
    let first = [
        written(key, &both, Privacy::Owner)?,
        written(next, &certificate, Privacy::Public)?,
    ];
    Ok((new, first.into_iter().flatten().collect()))
}

/// Plans that the file at `path` has `text`, unless it has.
fn written(path: &Path, text: &str, privacy: Privacy) -> Result<Option<EditedFile>, Refused> {
    Ok(match FileText::read_if_there(path)? {
        Some(before) if before.text() == text => None,
        Some(before) => Some(EditedFile::replaced(path, before, text, privacy)),
        None => {
            let (path, new) = (path.to_owned(), text.to_owned());
            Some(EditedFile::created(path, new, privacy))
        }
    })
}

/// Names the pin of `fingerprint`, so that no other has the name.
fn pin_name(fingerprint: Fingerprint) -> String {
    let text = fingerprint.to_string().to_lowercase();
    let short = text.chars().filter(char::is_ascii_alphanumeric).take(8);
    iter::once("tls-".to_owned())
        .chain(short.map(String::from))
        .collect()
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
    let added = pin(
        &peer.path,
        &file,
        &deployment.name,
        new,
        Some(&pin_name(new)),
    )?;
    peer.edited(&Vec::from_iter(added))
}

/// Returns the settings of `file` that name the certificate `used`, with `next` as their values.
fn naming(file: &AsWritten, used: &str, next: &Path) -> Vec<(String, String)> {
    let connections = file.names("ataccama.client.connection", &[]).into_iter();
    let clients = connections.map(TlsEnd::Client);
    let ends = iter::once(TlsEnd::Server).chain(clients);
    let entries = ends.filter_map(|end| file.tls(end, FILES[0]));
    let ours = entries.filter(|entry| entry.value().trim() == used.trim());
    let next = std::path::absolute(next).unwrap_or_else(|_| next.to_owned());
    ours.map(|entry| (entry.key().to_owned(), format!("file:{}", next.display())))
        .collect()
}

/// Refuses several replicas.
fn alone(rotation: &Rotation) -> Result<(), Refused> {
    if rotation.replicas.is_empty() {
        return Ok(());
    }
    let message = "each replica has a certificate of its own: it is replaced there";
    let help = "name one replica at a time; peers pin the certificates of all";
    Err(Refused::new(Kind::Usage, message).with_help(help))
}
