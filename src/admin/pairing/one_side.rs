//! Pairing where only one of the two files is here.

use std::path::Path;

use super::settle::{Peer, Side};
use super::view::View;
use super::{Member, Options};
use crate::admin::edited::{EditedFile, PAIRED, read, write_all};
use crate::admin::error::PairError;
use crate::admin::handover::{HandOver, Purpose};
use crate::admin::rotation::trusting;
use crate::config::{self, Report, check_texts};
use crate::jose::Fingerprint;
use crate::properties::FileText;

/// What pairing would change in the one file that is here, and what to tell the other machine.
#[derive(Debug)]
pub struct OneSide {
    file: EditedFile,
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
pub fn plan_own(member: &Member, options: &Options) -> Result<OneSide, PairError> {
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
) -> Result<OneSide, PairError> {
    match &theirs.purpose {
        Purpose::Pair { .. } => plan(member, options, Some(theirs)),
        Purpose::Rotate { signs } => accept_key(&member.path, theirs, *signs),
    }
}

fn plan(
    member: &Member,
    options: &Options,
    theirs: Option<&HandOver>,
) -> Result<OneSide, PairError> {
    let path = &member.path;
    let before = read(path).map_err(PairError::Read)?;
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
    if let Some(theirs) = theirs {
        let Purpose::Pair { module, .. } = &theirs.purpose else {
            return Err(PairError::Internal(path.clone()));
        };
        if own.key.verifying_key() == &theirs.key {
            return Err(PairError::SharedKey);
        }
        if own.name.uniform() == theirs.deployment.uniform() {
            return Err(PairError::SameName(own.name));
        }
        let peer = Peer {
            name: theirs.deployment.clone(),
            key: theirs.key.clone(),
            key_id: theirs.key_id.clone(),
            module: module.to_string(),
            environment: own.environment.clone(),
        };
        settings.extend(peer.trusted_by(path, &view, &options)?);
    }
    let hand_over = HandOver {
        purpose: Purpose::Pair {
            module: member.module.clone(),
            environment: own.environment.clone(),
            role: options.role,
        },
        deployment: own.name.clone(),
        key_id: own.key_id.clone(),
        key: own.key.verifying_key().clone(),
    };
    let file = EditedFile::plan(path, before, &settings, Some(PAIRED));
    Ok(OneSide {
        report: report(&file)?,
        hand_over: Some(hand_over),
        file,
    })
}

fn accept_key(path: &Path, theirs: &HandOver, signs: Fingerprint) -> Result<OneSide, PairError> {
    let text = FileText::read(path).map_err(PairError::Read)?;
    let texts = [(path.to_owned(), text.clone())];
    let checked = check_texts(&texts, &config::environment(), &[])?;
    let deployments = checked.files.iter().flat_map(|file| &file.deployments);
    let mut named = deployments.filter(|known| known.name == theirs.deployment);
    let deployment = named.next().filter(|known| {
        let mut keys = known.active_keys();
        keys.any(|key| key.key.fingerprint() == signs)
    });
    let deployment = deployment.ok_or_else(|| PairError::OtherSigner {
        path: path.to_owned(),
        name: theirs.deployment.clone(),
        signs,
    })?;
    let known = deployment.keys.iter().find(|key| key.key == theirs.key);
    let settings = match known {
        None => trusting(deployment, &theirs.key, &theirs.key_id),
        Some(key) if key.revoked => {
            return Err(PairError::Revoked {
                path: path.to_owned(),
                name: theirs.deployment.clone(),
            });
        }
        Some(_) => Vec::new(),
    };
    let file = EditedFile::plan(path, Some(text), &settings, None);
    Ok(OneSide {
        report: report(&file)?,
        hand_over: None,
        file,
    })
}

/// Reads the new text as if it were the file.
fn report(file: &EditedFile) -> Result<Report, PairError> {
    let path = file.path().to_owned();
    let text = FileText::from_bytes(file.text().as_bytes());
    let text = text.map_err(|_fault| PairError::Internal(path.clone()))?;
    Ok(check_texts(&[(path, text)], &config::environment(), &[])?)
}

impl OneSide {
    /// Returns the file.
    pub fn file(&self) -> &EditedFile {
        &self.file
    }

    /// Writes the file; removes what a killed run left beside it.
    ///
    /// # Errors
    ///
    /// When the file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), PairError> {
        Ok(write_all(std::slice::from_ref(&self.file))?)
    }
}
