//! The deployments that one file trusts: as they are written, added from a public key, and removed.

pub mod prune;

use std::path::Path;

use super::change::{ADDED, Change, ChangeKind, EditedFile};
use super::error::{Kind, Refused};
use super::setting::{Setting, as_a_module_reads, is_not_remembered, trusted_key};
use super::source::SettingsFile;
use crate::config::names::{
    CHOSEN, CONTENT, DEPLOYMENT, DEPLOYMENTS, ENVIRONMENT, FINGERPRINT, KEYS, MODULE, REVOKED,
    ROLES,
};
use crate::config::{AsWritten, replacing};
use crate::diagnostic::CommandLine;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{Fingerprint, KeyId, PublicJwk, VerifyingKey, published};
use crate::properties::Entry;
use crate::properties::bind::{list, switch};
use crate::properties::name::{Name, Pattern, free_key_name, same, uniform};
use crate::trust::{Deployment, TrustedKey};

const EXTRAS: &str = "countersign.deployments.<name>";

/// A module that a file will trust.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// What the file calls it.
    pub name: &'a DeploymentName,
    /// Its type.
    pub module: &'a ModuleType,
    /// Its environment; `None` if the file may have any, or no environment.
    pub environment: Option<&'a Environment>,
    /// Its public key.
    pub key: &'a VerifyingKey,
    /// The `kid` of its tokens.
    pub key_id: &'a KeyId,
    /// The name of the key if the file does not have it yet; by default `key`.
    pub key_name: Option<&'a str>,
    /// The roles that it gets there.
    pub roles: &'a [Role],
    /// Its own file, if that is on this machine.
    pub file: Option<&'a Path>,
}

/// A trusted key as a file describes it.
#[derive(Debug)]
pub(super) struct WrittenKey {
    /// The name of its deployment, as written.
    pub(super) deployment: String,
    /// The deployment's name, as written.
    pub(super) name: String,
    pub(super) fingerprint: Option<String>,
    /// The key and the `kid` in its content, if that can be read.
    pub(super) content: Option<(VerifyingKey, Option<KeyId>)>,
    /// The word of `is-revoked`.
    pub(super) is_revoked: Option<String>,
    /// Whether a module takes the word for a revocation: anything but a plain "no".
    pub(super) revoked: bool,
}

impl WrittenKey {
    fn read(file: &AsWritten, deployment: &str, name: &str, taken: Option<&TrustedKey>) -> Self {
        let [fingerprint, content, is_revoked] =
            [FINGERPRINT, CONTENT, REVOKED].map(|setting| file.text(setting, &[deployment, name]));
        let jwk = content.and_then(|content| PublicJwk::parse(content).ok());
        let mut read = Self {
            deployment: deployment.to_owned(),
            name: name.to_owned(),
            fingerprint: fingerprint.map(str::to_owned),
            content: jwk.map(|jwk| (jwk.key, jwk.kid)),
            revoked: is_revoked.is_some_and(|word| switch(word).unwrap_or(true)),
            is_revoked: is_revoked.map(str::to_owned),
        };
        if let Some(key) = taken {
            read.fingerprint = Some(key.key_id.to_string());
            read.content = Some((key.key.clone(), None));
            read.revoked = key.revoked;
            read.is_revoked.get_or_insert_with(|| "false".to_owned());
        }
        read
    }

    /// Returns the fingerprint of its content, or, where that cannot be read, the configured one.
    pub(super) fn computed(&self) -> Option<Fingerprint> {
        match &self.content {
            Some((key, _)) => Some(key.fingerprint()),
            None => self.fingerprint.as_deref()?.parse().ok(),
        }
    }

    /// Returns `true` if this is `key`: by its content, or by its fingerprint where the content
    /// cannot be read.
    fn is(&self, key: &VerifyingKey) -> bool {
        match &self.content {
            Some((known, _)) => known == key,
            None => self.fingerprint.as_deref() == Some(&key.fingerprint().to_string()),
        }
    }
}

/// The deployments that a file trusts, those with faults too.
///
/// For a deployment without faults, the values are those that a module reads: placeholders are
/// resolved.
#[derive(Debug)]
pub(super) struct Trusts {
    pub(super) file: AsWritten,
    /// As a module reads them; empty if only what is written counts.
    taken: Vec<Deployment>,
    /// The keys of all deployments, sorted by their names.
    pub(super) keys: Vec<WrittenKey>,
}

impl Trusts {
    /// Reads the keys of `file`, of which a module reads `taken`.
    pub(super) fn of(file: AsWritten, taken: &[Deployment]) -> Self {
        let mut keys = Vec::new();
        for deployment in file.names(DEPLOYMENTS, &[]) {
            let known = find(taken, deployment);
            for name in file.names(KEYS, &[deployment]) {
                let mut read = known.iter().flat_map(|known| &known.keys);
                let taken = read.find(|key| same(&key.name, name));
                keys.push(WrittenKey::read(&file, deployment, name, taken));
            }
        }
        keys.sort_by_cached_key(|key| (uniform(&key.deployment), uniform(&key.name)));
        Self {
            taken: taken.to_vec(),
            file,
            keys,
        }
    }

    /// Returns the module type of the deployment `name`.
    pub(super) fn module(&self, name: &str) -> Option<&str> {
        match find(&self.taken, name) {
            Some(taken) => Some(taken.module.as_str()),
            None => self.file.text(MODULE, &[name]),
        }
    }

    /// Returns the environment of the deployment `name`.
    pub(super) fn environment(&self, name: &str) -> Option<&str> {
        match find(&self.taken, name) {
            Some(taken) => taken.environment.as_ref().map(Environment::as_str),
            None => self.file.text(ENVIRONMENT, &[name]),
        }
    }

    /// Returns the name of the deployment that has `key`, as written.
    pub(super) fn owner_of(&self, key: &VerifyingKey) -> Option<&str> {
        let owned = self.keys.iter().find(|known| known.is(key))?;
        Some(&owned.deployment)
    }

    /// Returns the settings that the file lacks to trust `peer`.
    pub(super) fn settings_for(&self, peer: &Peer<'_>) -> Result<Vec<Setting>, Refused> {
        let mut known = self.keys.iter().filter(|key| key.is(peer.key));
        // A file that has it revoked says so itself.
        if known.all(|key| key.is_revoked.as_deref() != Some("true")) {
            is_not_remembered(self.file.document().path(), peer.key)?;
        }
        let (path, name) = (self.file.document().path().display(), peer.name.as_str());
        let owner = self.owner_of(peer.key);
        if let Some(found) = owner.filter(|owner| !same(owner, name)) {
            let kind = Kind::OtherOwner {
                path: self.file.document().path().to_owned(),
                found: found.to_owned(),
            };
            let message = format!("`{path}` trusts this key as `{found}`, not as `{name}`");
            return Err(Refused::new(kind, message).with_help(format!(
                "write `countersign.deployment.name={found}` into its own file, or where that \
                 has none use `--name {}={found}`; or remove that deployment",
                peer.module
            )));
        }
        let mut names = self.file.names(DEPLOYMENTS, &[]).into_iter();
        let found = names.find(|written| same(written, name));
        let written = found.unwrap_or(name);
        let prefix = Pattern::new(DEPLOYMENT).with_keys(&[written.to_owned()]);
        let mut settings = Vec::new();
        let module = peer.module.as_str();
        match self.module(written).filter(|found| !found.is_empty()) {
            Some(found) if found == module => {}
            Some(found) => {
                let message =
                    format!("`{path}` has `{name}` with the module `{found}`, not `{module}`");
                return Err(Refused::new(Kind::Taken, message)
                    .with_help("choose a different name, or remove that deployment first"));
            }
            None => settings.push(Setting::new(format!("{prefix}.module"), module)),
        }
        if let Some(wanted) = peer.environment.map(Environment::as_str)
            && self.environment(written) != Some(wanted)
        {
            settings.push(Setting::new(format!("{prefix}.environment"), wanted));
        }
        settings.extend(self.key_settings(peer, written)?);
        settings.extend(self.role_settings(peer, written));
        Ok(settings)
    }

    /// Returns the settings of the key that are missing or wrong in the deployment `written`.
    fn key_settings(&self, peer: &Peer<'_>, written: &str) -> Result<Vec<Setting>, Refused> {
        let mut known = self.keys.iter().filter(|key| key.deployment == written);
        let Some(present) = known.find(|key| key.is(peer.key)) else {
            let name = self.new_key_name(peer, written)?;
            return Ok(trusted_key(written, name, peer.key, peer.key_id).into());
        };
        if present.revoked {
            let (file, key) = (self.file.document().path(), peer.key.fingerprint());
            return Err(revoked(file, key, peer.name, peer.file));
        }
        let kid = present.content.as_ref().map(|(_, kid)| kid.as_ref());
        let kept = [
            present.fingerprint.as_deref() == Some(peer.key_id.as_str()),
            kid.is_some_and(|kid| kid.is_none_or(|kid| kid == peer.key_id)),
            present.is_revoked.is_some(),
        ];
        let settings = trusted_key(written, &present.name, peer.key, peer.key_id);
        let missing = settings.into_iter().zip(kept).filter(|(_, kept)| !kept);
        Ok(missing.map(|(setting, _)| setting).collect())
    }

    /// Chooses the name of a key that the deployment `written` does not have yet.
    fn new_key_name<'p>(&self, peer: &Peer<'p>, written: &str) -> Result<&'p str, Refused> {
        let known = self.keys.iter().filter(|key| key.deployment == written);
        let names: Vec<_> = known.map(|key| &key.name).collect();
        let free = free_key_name(|name| names.iter().any(|known| same(known, name)));
        let (file, name) = (self.file.document().path(), peer.name);
        let path = file.display();
        let (place, replace) = new_key(peer.file, file);
        let (message, help) = match peer.key_name {
            Some(key) if names.iter().any(|known| same(known, key)) => (
                format!("`{path}` already has a different key called `{key}` for `{name}`"),
                format!("choose a different name: `--key-name {free}`"),
            ),
            Some(key) => return Ok(key),
            None if names.is_empty() => return Ok("key"),
            // A second key makes two modules one, unless it is the same module's: the operator must
            // ask for that.
            None => (
                format!("`{path}` trusts a different key as `{name}`"),
                format!(
                    "if it is a different module, give it a different name; if it is the same \
                     module with a second key, use `--key-name {free}`; if it has lost the first \
                     one, replace that{place}"
                ),
            ),
        };
        Err(Refused::new(Kind::OtherKey(free), message)
            .with_help(help)
            .with_commands(peer.key_name.is_none().then_some(replace)))
    }

    /// Returns the settings that give the deployment `written` the roles that it does not have.
    fn role_settings(&self, peer: &Peer<'_>, written: &str) -> Vec<Setting> {
        let entries: Vec<_> = self.file.all(ROLES, &[written]).collect();
        let listed = entries.iter().flat_map(|(_, entry)| list(entry.value()));
        let mut roles: Vec<_> = listed.filter(|role| !role.is_empty()).collect();
        let taken = find(&self.taken, written).into_iter();
        let taken_roles = taken.flat_map(|taken| taken.roles.iter().map(Role::as_str));
        let held: Vec<_> = taken_roles.chain(roles.iter().copied()).collect();
        let mut missing: Vec<_> = peer.roles.iter().map(Role::as_str).collect();
        missing.retain(|role| !held.iter().any(|held| held.eq_ignore_ascii_case(role)));
        let prefix = Pattern::new(ROLES).with_keys(&[written.to_owned()]);
        if !missing.is_empty() && entries.iter().any(|(index, _)| index.is_none()) {
            roles.append(&mut missing);
            return vec![Setting::new(prefix, roles.join(","))];
        }
        let indices = entries.iter().filter_map(|(index, _)| *index);
        let taken_numbers = indices.map(|index| index.parse::<usize>().unwrap_or_default());
        let free = taken_numbers.max().map_or(0, |last| last.saturating_add(1));
        let numbered = missing.into_iter().zip(free..);
        let settings = numbered.map(|(role, at)| Setting::new(format!("{prefix}[{at}]"), role));
        settings.collect()
    }
}

/// Finds the deployment called `name`, in whatever spelling.
fn find<'a>(all: &'a [Deployment], name: &str) -> Option<&'a Deployment> {
    let mut known = all.iter();
    known.find(|one| same(one.name.as_str(), name))
}

/// The file at `path` has revoked `key`, which belongs to `name`, whose own file is `own`.
pub(super) fn revoked(
    path: &Path,
    key: Fingerprint,
    name: &DeploymentName,
    own: Option<&Path>,
) -> Refused {
    let message = format!("`{}` has revoked the key of `{name}`", path.display());
    let (place, replace) = new_key(own, path);
    let undo = CommandLine::new("countersign revoke --undo").option("home", path);
    Refused::new(Kind::Taken, message)
        .with_help(format!(
            "give its module a new key{place} or, only if the key was revoked by mistake, undo that:"
        ))
        .with_commands([replace, undo.option("fingerprint", key.to_string())])
}

/// Returns the command that replaces the key of the module with the file `own`, which the one at
/// `path` trusts, and where it is typed.
fn new_key(own: Option<&Path>, path: &Path) -> (&'static str, CommandLine) {
    match own {
        Some(own) => (":", replacing(own, &[path])),
        None => (
            ", on its host and in its home folder:",
            replacing(Path::new("."), &[]),
        ),
    }
}

/// Returns the settings with which a file that trusts `deployment` trusts `key` of it too.
pub(super) fn trusting_too(
    deployment: &Deployment,
    key: &VerifyingKey,
    key_id: &KeyId,
) -> Vec<Setting> {
    let name = free_name(deployment);
    trusted_key(deployment.name.as_str(), &name, key, key_id).into()
}

/// Returns the name that the next key of `deployment` gets.
pub(super) fn free_name(deployment: &Deployment) -> String {
    free_key_name(|name| deployment.keys.iter().any(|key| same(&key.name, name)))
}

/// Plans that `file` trusts `peer`. Nothing is written; the plan is empty if it is trusted already.
/// A new deployment without roles gets `IMPERSONATION`.
///
/// # Errors
///
/// When the deployment exists with other settings, its key belongs to another deployment, or the
/// new text has a fault that the file does not have.
pub fn add(file: &SettingsFile, peer: &Peer<'_>) -> Result<Change, Refused> {
    let (path, name) = (&file.path, peer.name);
    if published(peer.key.fingerprint()) {
        let message = "the key is printed in a public guide, and so is its private half";
        let made = CommandLine::new("countersign key gen").option("out", format!("{name}.jwk"));
        let public = made.option("public-out", format!("{name}-public.jwk"));
        return Err(Refused::new(Kind::Unreadable, message)
            .with_help("have its owner make a new key, and send its public half:")
            .with_commands([public]));
    }
    let own = file.checked.own.as_ref();
    if own.is_some_and(|(own, _)| own.verifying_key() == peer.key) {
        let message = "this is the module's own key; only its peers trust it";
        return Err(Refused::new(Kind::Taken, message)
            .with_help("name the other module's file, or give the other module's key"));
    }
    let read = as_a_module_reads(path, Some(&file.text))?;
    let trusts = Trusts::of(read, &file.checked.deployments);
    // Misspelt settings count too: they were meant for this deployment.
    let mut entries = trusts.file.document().entries().iter();
    let is_written = entries.any(|entry| is_of(entry, DEPLOYMENT, name));
    let default = [Role::impersonation()];
    let roles = match file.find(name) {
        Some(known) => is_as_asked(known, peer).map(|()| peer.roles)?,
        None if is_written => return Err(incomplete(path, name)),
        None if peer.roles.is_empty() => &default,
        None => peer.roles,
    };
    let planned = trusts.settings_for(&Peer { roles, ..*peer });
    let settings = planned.map_err(|refused| match refused.kind() {
        Kind::OtherOwner { found, .. } => {
            let remove = CommandLine::new("countersign deployment remove").arg(found);
            let command = remove.option("home", path);
            refused
                .with_help("use that name, or first:")
                .with_commands([command])
        }
        _ => refused,
    })?;
    let text = Some(file.text.clone());
    let change = file.change(EditedFile::plan(path, text, &settings, Some(ADDED))?)?;
    // What cannot be read may be another key, or may be this one: a person must decide that.
    let roles = Pattern::new(ROLES);
    let mut changes = change.files.iter().flat_map(|file| &file.changes);
    if changes.any(|change| {
        change.kind == ChangeKind::Replaced && roles.matches(&Name::parse(&change.key)).is_none()
    }) {
        return Err(incomplete(path, name));
    }
    Ok(change)
}

/// Fails if the file has another environment, or has the key under another name or fingerprint.
fn is_as_asked(known: &Deployment, peer: &Peer<'_>) -> Result<(), Refused> {
    // A revoked key is refused as such later.
    let mut keys = known.keys.iter().filter(|key| !key.revoked);
    let named = keys.find(|key| key.key == *peer.key);
    let (what, found) = match (&known.environment, peer.environment, named, peer.key_name) {
        (Some(found), Some(wanted), ..) if found != wanted => ("environment", found.as_str()),
        (.., Some(key), Some(wanted)) if !same(&key.name, wanted) => {
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
        .with_help("use the existing value, or remove the deployment first"))
}

/// What stops working without a deployment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// The deployment.
    pub name: DeploymentName,
    /// The configured fingerprints of its keys that are not revoked.
    pub keys: Vec<String>,
    /// The connections of this module that name it.
    pub connections: Vec<String>,
}

/// Plans that `file` no longer trusts the deployment called `name`. Nothing is written. Comments
/// are kept, except those that this program wrote above the removed settings.
///
/// # Errors
///
/// When no setting of the file is about it, or the new text has a fault that the file does not
/// have. That no setting is left is no such fault.
pub fn remove(file: &SettingsFile, name: &DeploymentName) -> Result<(Change, Removed), Refused> {
    let (mut settings, mut connections) = (Vec::new(), Vec::new());
    let written = as_a_module_reads(&file.path, Some(&file.text))?;
    for entry in written.active_entries() {
        let connection = connection_to(entry, name);
        let mut about = [DEPLOYMENT, EXTRAS].into_iter();
        if connection.is_some() || about.any(|of| is_of(entry, of, name)) {
            settings.push(Setting::removed(entry.key()));
        }
        connections.extend(connection);
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
    let files = file.edited(&settings)?;
    // A file that has no setting left is a fault until the module is paired again.
    let change = if written.active_entries().count() == settings.len() {
        Change::of(files)
    } else {
        file.change(files)?
    };
    Ok((change, removed))
}

/// Returns `true` if `entry` is a setting of the deployment `name`, below `pattern`.
fn is_of(entry: &Entry, pattern: &'static str, name: &DeploymentName) -> bool {
    let found = Pattern::new(pattern).matches(&Name::parse(entry.key()));
    found.is_some_and(|found| found.keys.iter().any(|key| same(key, name.as_str())))
}

/// Returns the connection that `entry` leads to the deployment `name`.
fn connection_to(entry: &Entry, name: &DeploymentName) -> Option<String> {
    let found = Pattern::new(CHOSEN).matches(&Name::parse(entry.key()))?;
    let is_named = same(entry.value().trim(), name.as_str());
    found.keys.into_iter().next().filter(|_| is_named)
}

/// Returns the error for a deployment that `file` does not have.
pub fn not_there(file: &SettingsFile, name: &DeploymentName) -> Refused {
    let all = file.checked.deployments.iter();
    let known: Vec<_> = all.map(|one| one.name.as_str()).collect();
    let help = match known.as_slice() {
        [] => "none is trusted".to_owned(),
        known => format!("trusted are: {}", known.join(", ")),
    };
    let message = format!("no deployment is called `{name}`");
    Refused::new(Kind::NotThere, message).with_help(help)
}

fn incomplete(path: &Path, name: &DeploymentName) -> Refused {
    let message = format!("the deployment `{name}` exists, but it has faults");
    Refused::new(Kind::Unreadable, message)
        .with_help("fix them first, or remove the deployment; this command shows them:")
        .with_commands([CommandLine::new("countersign check").arg(path)])
}
