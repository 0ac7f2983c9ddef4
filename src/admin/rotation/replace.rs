//! A new key for a module whose own is lost, broken or leaked: its peers trust the new one and
//! revoke all that were before it, at once.

use std::path::PathBuf;
use std::time::SystemTime;

use super::replicas::{Files, faults, faulty};
use super::{Rotation, owner_of};
use crate::admin::change::{Change, EditedFile};
use crate::admin::deployments::{free_name, trusting_too};
use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{HandOver, Purpose};
use crate::admin::revocation::{self, RevokedFile, Which};
use crate::admin::setting::{Setting, new_key, own_key};
use crate::admin::source::SettingsFile;
use crate::config::names::{ACTIVATED_AT, NEXT_KEY, OWN_KEY, PREVIOUS};
use crate::diagnostic::Severity;
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{KeyId, VerifyingKey};
use crate::storage::revoked_keys::Standing;
use crate::trust::Deployment;

/// Whose key is replaced.
#[derive(Clone, Debug)]
pub struct Request {
    /// The file of the module whose key is replaced, or those of all its replicas.
    pub owners: Vec<PathBuf>,
    /// The files of the modules that trust it.
    pub peers: Vec<PathBuf>,
    /// What they call it; by default what its own file says, or they by a key of it.
    pub name: Option<DeploymentName>,
    /// Whether modules on other machines trust it, too: they get a block.
    pub one_side: bool,
}

/// What would change.
#[derive(Debug)]
pub struct Replacement {
    /// The files: those of the peers first, since a key that leaked is revoked before all else.
    pub change: Change,
    /// The keys that no longer work, in the order of the peers.
    pub revoked: Vec<RevokedFile>,
    /// The new key, for modules on other machines.
    pub hand_over: HandOver,
    /// Those modules, as the module's own file calls them, with their types.
    pub elsewhere: Vec<(DeploymentName, ModuleType)>,
    /// The first of the files that its module does not follow by itself.
    pub without_reload: Option<PathBuf>,
}

impl Replacement {
    /// Plans to replace the key. Nothing is written. Each plan has a new key.
    ///
    /// It does not matter whether the module's own key can be read, nor how far a rotation is: that
    /// ends with it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or would still have faults; when a peer's file does not show what
    /// it calls the module; when a peer is left out.
    pub fn plan(request: &Request, now: SystemTime) -> Result<Self, Refused> {
        let files = Files::read(&request.owners, &request.peers)?;
        // The key that signs from now on.
        let rotation = Rotation::with(files, new_key(now)?);
        rotation.is_in_file()?;
        let (key, key_id) = &rotation.own;
        let (mut edits, mut revoked) = (Vec::new(), Vec::new());
        let mut known = Vec::new();
        for peer in &rotation.peers {
            let deployment = called(&rotation, peer, request.name.as_ref())?;
            let (edited, revocation) = trusting(peer, deployment, key.verifying_key(), key_id)?;
            loads(peer, &edited)?;
            edits.extend(edited);
            revoked.push(revocation);
            known.push(deployment);
        }
        let unnamed = left_out(&rotation);
        if let Some(name) = unnamed.first().filter(|_| !request.one_side) {
            let message = format!("`{name}` trusts this module too, and its file is not named");
            return Err(Refused::new(Kind::Conflict, message).with_help(
                "name its file with `--peer-file`; if that is on another machine, or the module is \
                 gone, add `--one-side`",
            ));
        }
        let own = [
            own_key(OWN_KEY, key, key_id),
            Setting::removed(NEXT_KEY),
            Setting::removed(ACTIVATED_AT),
            Setting::removed(PREVIOUS),
        ];
        for owner in rotation.owners() {
            let edited = owner.edited(&own)?;
            loads(owner, &edited)?;
            edits.extend(edited);
        }
        let named = request.name.as_ref().or_else(|| rotation.name());
        let name = named.or_else(|| known.first().map(|deployment| &deployment.name));
        let hand_over = HandOver {
            purpose: Purpose::Replace,
            deployment: name.ok_or_else(|| nameless(&rotation.owner))?.clone(),
            key_id: key_id.clone(),
            key: key.verifying_key().clone(),
        };
        let elsewhere = unnamed.iter().filter_map(|name| {
            let deployment = rotation.owner.find(name)?;
            Some((name.clone(), deployment.module.clone()))
        });
        let still = rotation.files().find(|file| !file.checked.options.reload);
        Ok(Self {
            elsewhere: elsewhere.collect(),
            without_reload: still.map(|file| file.path.clone()),
            change: Change::effective(edits)?,
            revoked,
            hand_over,
        })
    }
}

/// Plans that `file` trusts `key` of `deployment`, and no other key of it any more.
pub(in crate::admin) fn trusting(
    file: &SettingsFile,
    deployment: &Deployment,
    key: &VerifyingKey,
    key_id: &KeyId,
) -> Result<(Vec<EditedFile>, RevokedFile), Refused> {
    let which = Which::Deployment(deployment.name.clone(), None);
    let taken = &file.checked.deployments;
    let (_, mut settings, mut revoked) =
        revocation::in_file(&file.path, &file.text, taken, &which, Standing::Revoked)?;
    for old in &mut revoked.keys {
        old.left.push(free_name(deployment));
    }
    settings.extend(trusting_too(deployment, key, key_id));
    Ok((file.edited(&settings)?, revoked))
}

/// Finds what `peer` calls the module: `name` if that is given, else the name in the module's own
/// file, or the deployment that has a key of it. The last two must agree: the key may be a copy of
/// another module's.
fn called<'a>(
    rotation: &Rotation,
    peer: &'a SettingsFile,
    name: Option<&DeploymentName>,
) -> Result<&'a Deployment, Refused> {
    let (owner, path) = (&rotation.owner, peer.path.display());
    let own = owner.checked.own.iter().chain(&rotation.state().next);
    let keys = own.map(|(key, _)| key.fingerprint());
    let by_key = owner_of(keys.chain(rotation.before()), peer).filter(|_| name.is_none());
    let own_name = name.or_else(|| rotation.name());
    let by_name = own_name.and_then(|name| peer.find(name));
    let message = match (own_name, by_name, by_key) {
        (None, _, Some(found)) | (_, Some(found), None) => return Ok(found),
        (_, Some(found), Some(same)) if found.name == same.name => return Ok(found),
        (Some(own), _, Some(other)) => format!(
            "`{path}` has this module's key as `{}`, but the module calls itself `{own}`",
            other.name
        ),
        _ if peer.findings.errors() > 0 => return Err(faults(peer)),
        (Some(own), ..) => format!("`{path}` does not trust a deployment `{own}`"),
        (None, ..) => format!("nothing in `{path}` shows what it calls this module"),
    };
    let all = peer.checked.deployments.iter();
    let names: Vec<_> = all.map(|one| format!("`{}`", one.name)).collect();
    let help = match &*names {
        [] => "it trusts no module: pair the two with `countersign pair`".to_owned(),
        names => format!("say it with `--name`; it trusts: {}", names.join(", ")),
    };
    Err(Refused::new(Kind::Conflict, message).with_help(help))
}

/// Names the peers whose files are not named. One that has lost its own key is known by its name.
fn left_out(rotation: &Rotation) -> Vec<DeploymentName> {
    let here = rotation.peers.iter().filter_map(|peer| {
        let (name, _) = peer.checked.options.name.as_ref()?;
        Some(name.uniform())
    });
    let known: Vec<_> = here.collect();
    let unknown = rotation.left_out();
    let others = unknown.filter(|name| !known.contains(&name.uniform()));
    others.cloned().collect()
}

/// Checks that a module accepts `file` with its new texts, once it has a key of its own.
fn loads(file: &SettingsFile, edited: &[EditedFile]) -> Result<(), Refused> {
    let findings = Change::checked(edited.to_vec(), Vec::new())?.findings;
    let mut errors = findings.iter().filter(|f| f.severity == Severity::Error);
    if errors.any(|found| found.key.as_deref() != Some(OWN_KEY)) {
        return Err(faulty(&file.path, findings));
    }
    Ok(())
}

fn nameless(owner: &SettingsFile) -> Refused {
    let path = owner.path.display();
    let message = format!("`{path}` has no `countersign.deployment.name`");
    Refused::new(Kind::Unreadable, message).with_help("say what its peers call it: `--name`")
}
