//! Pairing where only one of the two files is here.

use std::path::Path;

use super::settle::{Peer, Side, revoked};
use super::tls::{Certificate, made, stage};
use super::view::View;
use super::{Member, Options};
use crate::admin::edited::{EditedFile, PAIRED, Setting, read, write_after};
use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{HandOver, Purpose};
use crate::admin::rotation::trusting;
use crate::config::{self, Report, check_texts};
use crate::identity::ModuleType;
use crate::jose::Fingerprint;
use crate::properties::FileText;

/// What pairing would change in the one file that is here, and what to tell the other machine.
#[derive(Debug)]
pub struct OneSide {
    file: EditedFile,
    certificate: Option<Certificate>,
    /// What the other machine needs; none where it waits for nothing.
    pub hand_over: Option<HandOver>,
    /// What `check` finds in the file as it will be.
    pub report: Report,
}

/// Plans `member`'s own part: its key and its name. Nothing is written.
///
/// # Errors
///
/// As [`plan`](super::plan()).
pub fn plan_own(member: &Member, options: &Options) -> Result<OneSide, Refused> {
    plan(member, options, None)
}

/// Plans that `member` trusts what was handed over: another module, with its own part too, or
/// another key of a module that it trusts. Nothing is written.
///
/// # Errors
///
/// As [`plan`](super::plan()), and when the file does not trust the key that hands over.
pub fn plan_accept(
    member: &Member,
    options: &Options,
    theirs: &HandOver,
) -> Result<OneSide, Refused> {
    match &theirs.purpose {
        Purpose::Pair { .. } => plan(member, options, Some(theirs)),
        Purpose::Rotate { signs } => accept_key(&member.path, theirs, *signs),
    }
}

fn plan(member: &Member, options: &Options, theirs: Option<&HandOver>) -> Result<OneSide, Refused> {
    let path = &member.path;
    let before = read(path)?;
    let text = before.as_ref().map_or("", FileText::text);
    let view = View::read(path, text)?;
    let environment = theirs.and_then(|theirs| match &theirs.purpose {
        Purpose::Pair { environment, .. } => Some(environment.clone()),
        Purpose::Rotate { .. } => None,
    });
    let options = Options {
        environment: options.environment.clone().or(environment),
        ..options.clone()
    };
    let own = Side::settle(member, &view, &View::default(), &options)?;
    let mut settings = own.own_settings(member, &view)?;
    let mut peer = None;
    let mut is_tls = options.tls;
    if let Some(theirs) = theirs {
        let Purpose::Pair { module, tls, .. } = &theirs.purpose else {
            return Err(Refused::internal(path));
        };
        settings.extend(trust(theirs, module, &own, (path, &view), &options)?);
        if let Some(tls) = tls {
            settings.extend(view.tls.pin(&theirs.deployment, *tls, path, &options)?);
            is_tls = true;
        }
        peer = Some(module.as_str());
    }
    let certificate = is_tls.then(|| Certificate::settle(member, &own.name, &view.tls));
    let certificate = certificate.transpose()?;
    if let Some(certificate) = &certificate {
        settings.extend(certificate.own_settings(&view.tls, peer));
    }
    let hand_over = HandOver {
        purpose: Purpose::Pair {
            module: member.module.clone(),
            environment: own.environment.clone(),
            role: options.role,
            tls: certificate.as_ref().map(|own| own.fingerprint),
        },
        deployment: own.name.clone(),
        key_id: own.key_id.clone(),
        key: own.key.verifying_key().clone(),
    };
    let file = EditedFile::plan(path, before, &settings, Some(PAIRED));
    Ok(OneSide {
        report: report(&file, certificate.as_ref())?,
        hand_over: Some(hand_over),
        file,
        certificate,
    })
}

/// Returns what the file at `path` must say, so that it trusts the module that handed over.
fn trust(
    theirs: &HandOver,
    module: &ModuleType,
    own: &Side,
    (path, view): (&Path, &View),
    options: &Options,
) -> Result<Vec<Setting>, Refused> {
    own.differs_from(&theirs.deployment, &theirs.key)?;
    let peer = Peer {
        name: theirs.deployment.clone(),
        key: theirs.key.clone(),
        key_id: theirs.key_id.clone(),
        module: module.to_string(),
        environment: own.environment.clone(),
    };
    peer.trusted_by(path, view, options)
}

fn accept_key(path: &Path, theirs: &HandOver, signs: Fingerprint) -> Result<OneSide, Refused> {
    let text = FileText::read(path)?;
    let texts = [(path.to_owned(), text.clone())];
    let checked = check_texts(&texts, &config::environment(), &[])?;
    let deployments = checked.files.iter().flat_map(|file| &file.deployments);
    let mut named = deployments.filter(|known| known.name == theirs.deployment);
    let deployment = named.next().filter(|known| {
        let mut keys = known.active_keys();
        keys.any(|key| key.key.fingerprint() == signs)
    });
    let deployment = deployment.ok_or_else(|| {
        let (path, name) = (path.display(), &theirs.deployment);
        let message = format!("`{path}` does not trust `{signs}` as a key of `{name}`");
        Refused::new(Kind::Conflict, message)
            .with_help("pair the two first; a key is handed over by the module that is trusted")
    })?;
    let known = deployment.keys.iter().find(|key| key.key == theirs.key);
    let settings = match known {
        None => trusting(deployment, &theirs.key, &theirs.key_id),
        Some(key) if key.revoked => return Err(revoked(path, &theirs.deployment)),
        Some(_) => Vec::new(),
    };
    let file = EditedFile::plan(path, Some(text), &settings, None);
    Ok(OneSide {
        report: report(&file, None)?,
        hand_over: None,
        file,
        certificate: None,
    })
}

/// Reads the new text as if it were the file, and the files of `certificate` were there.
fn report(file: &EditedFile, certificate: Option<&Certificate>) -> Result<Report, Refused> {
    let path = file.path().to_owned();
    let text = FileText::from_bytes(file.text().as_bytes());
    let text = text.map_err(|_fault| Refused::internal(&path))?;
    let made: Vec<_> = certificate
        .into_iter()
        .flat_map(Certificate::paths)
        .collect();
    Ok(check_texts(&[(path, text)], &config::environment(), &made)?)
}

impl OneSide {
    /// Returns the file.
    pub fn file(&self) -> &EditedFile {
        &self.file
    }

    /// Returns the TLS files that would be made, the certificate first.
    pub fn tls_files(&self) -> Vec<&Path> {
        let files = made(self.certificate.as_ref()).iter();
        files.map(|file| file.path.as_path()).collect()
    }

    /// Writes the file, after the TLS files that it names; removes what a killed run left beside it.
    ///
    /// # Errors
    ///
    /// When the file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), Refused> {
        Ok(write_after(
            || stage(made(self.certificate.as_ref())),
            &[&self.file],
        )?)
    }
}
