//! The deployments that one file trusts: added from a public key, and removed.

use super::change::{Change, ChangeKind, EditedFile};
use super::error::{Kind, Refused};
use super::setting::{ADDED, DEPLOYMENT, Setting};
use super::source::{SettingsFile, is_of};
pub use super::trusts::Peer;
use super::trusts::ROLES;
use crate::config::AsWritten;
use crate::identity::{DeploymentName, Role};
use crate::jose::published;
use crate::properties::name::{Name, Pattern, uniform};
use crate::properties::{Document, Entry};
use crate::trust::Deployment;

const EXTRAS: &str = "countersign.deployments.<name>";
const CONNECTION: &str = "countersign.client.connection.<c>.deployment";

/// What a deployment is for, and would be missed for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// The deployment.
    pub name: DeploymentName,
    /// The configured fingerprints of its keys that are not revoked.
    pub keys: Vec<String>,
    /// The connections of this module that name it.
    pub connections: Vec<String>,
}

/// Plans that `file` trusts `peer`. Nothing is written; where it is trusted already, the plan is
/// empty. A new deployment without roles gets `IMPERSONATION`.
///
/// # Errors
///
/// When something else is there in its place, its key belongs to another deployment, or the new text
/// has a fault that the file does not have.
pub fn add(file: &SettingsFile, peer: &Peer<'_>) -> Result<Change, Refused> {
    let (path, name) = (&file.path, peer.name);
    file.alone_has(|entry| is_of(entry, DEPLOYMENT, &[name.as_str()]))?;
    if published(peer.key.fingerprint()) {
        let message = "the key is printed in a public guide, and so is its private half";
        return Err(Refused::new(Kind::Unreadable, message)
            .with_help("make another one: countersign key gen --out FILE"));
    }
    let own = file.checked.own.as_ref();
    if own.is_some_and(|(own, _)| own.verifying_key() == peer.key) {
        let message = "the key is this module's own; its peers are to trust it";
        return Err(Refused::new(Kind::Taken, message)
            .with_help("name the other module's file, or give the other module's key"));
    }
    let known = file.find(name);
    // Misspelt settings count too: they were meant for this deployment.
    let document = Document::parse(path, file.text.text());
    let mut entries = document.entries().iter();
    if known.is_none() && entries.any(|entry| is_of(entry, DEPLOYMENT, &[name.as_str()])) {
        return Err(incomplete(name));
    }
    let default = [Role::impersonation()];
    let roles = match (peer.roles, known) {
        ([], None) => &default,
        (roles, _) => roles,
    };
    if let Some(known) = known {
        is_as_asked(known, peer)?;
    }
    let written = AsWritten::parse(path, file.text.text());
    let settings = Peer { roles, ..*peer }.trusted_by(path, &written, file.deployments());
    let settings = settings.map_err(|refused| match refused.kind() {
        Kind::OtherOwner { found, .. } => {
            let help = format!("use that name, or first: countersign deployment remove {found}");
            refused.with_help(help)
        }
        Kind::Revoked { .. } => {
            refused.with_help("a revoked key stays revoked: ask for another one")
        }
        _ => refused,
    })?;
    let text = Some(file.text.clone());
    let change = file.change(EditedFile::plan(path, text, &settings, Some(ADDED)))?;
    // What cannot be read may be another key, or may be this one: a person must decide that.
    let is_role = |key: &str| Pattern::new(ROLES).matches(&Name::parse(key)).is_some();
    let mut changes = change.files.iter().flat_map(|file| &file.changes);
    if changes.any(|change| change.kind == ChangeKind::Replaced && !is_role(&change.key)) {
        return Err(incomplete(name));
    }
    Ok(change)
}

/// Refuses where the file has another environment, or has the key under another name or
/// fingerprint.
fn is_as_asked(known: &Deployment, peer: &Peer<'_>) -> Result<(), Refused> {
    // A revoked key is refused as such later.
    let mut keys = known.keys.iter().filter(|key| !key.revoked);
    let named = keys.find(|key| key.key == *peer.key);
    let (what, found) = match (&known.environment, peer.environment, named, peer.key_name) {
        (Some(found), Some(wanted), ..) if found != wanted => ("environment", found.as_str()),
        (.., Some(key), Some(wanted)) if uniform(&key.name) != uniform(wanted) => {
            ("key under the name", key.name.as_str())
        }
        (.., Some(key), _) if key.key_id != *peer.key_id => {
            ("key with the fingerprint", key.key_id.as_str())
        }
        _ => return Ok(()),
    };
    let name = peer.name;
    let message = format!("the deployment `{name}` has the {what} `{found}`");
    Err(Refused::new(Kind::Taken, message)
        .with_help("give what is there, or remove the deployment first"))
}

/// Plans that `file` no longer trusts the deployment called `name`. Nothing is written. Comments
/// stay, but those that this program wrote above what goes.
///
/// # Errors
///
/// When nothing in the file is about it, or the new text has a fault that the file does not have.
pub fn remove(file: &SettingsFile, name: &DeploymentName) -> Result<(Change, Removed), Refused> {
    let calls = |entry: &Entry| {
        let pattern = Pattern::new(CONNECTION);
        let found = pattern.matches(&Name::parse(entry.key()))?;
        let is_named = uniform(entry.value().trim()) == name.uniform();
        found.keys.into_iter().next().filter(|_| is_named)
    };
    let is_about = |entry: &Entry| {
        let mut patterns = [DEPLOYMENT, EXTRAS].into_iter();
        patterns.any(|pattern| is_of(entry, pattern, &[name.as_str()])) || calls(entry).is_some()
    };
    file.alone_has(is_about)?;
    let (mut settings, mut connections) = (Vec::new(), Vec::new());
    let document = Document::parse(&file.path, file.text.text());
    for entry in document.entries().iter().filter(|entry| is_about(entry)) {
        settings.push(Setting::removed(entry.key()));
        connections.extend(calls(entry));
    }
    if settings.is_empty() {
        return Err(not_there(file, name));
    }
    let known = file.find(name);
    let keys = known.into_iter().flat_map(Deployment::active_keys);
    let removed = Removed {
        name: known.map_or(name, |known| &known.name).clone(),
        keys: keys.map(|key| key.key_id.to_string()).collect(),
        connections,
    };
    Ok((file.change(file.edited(&settings))?, removed))
}

/// Refuses a deployment that `file` does not have.
pub fn not_there(file: &SettingsFile, name: &DeploymentName) -> Refused {
    let known = file.deployments().iter().map(|d| d.name.to_string());
    let known: Vec<_> = known.collect();
    let help = match known.as_slice() {
        [] => "none is trusted".to_owned(),
        known => format!("trusted are: {}", known.join(", ")),
    };
    let message = format!("no deployment is called `{name}`");
    Refused::new(Kind::NotThere, message).with_help(help)
}

fn incomplete(name: &DeploymentName) -> Refused {
    let message = format!("the deployment `{name}` is there, and has faults");
    Refused::new(Kind::Unreadable, message)
        .with_help("fix them first: countersign check FILE, or remove the deployment")
}
