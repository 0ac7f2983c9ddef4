//! Pairing: the vendor guide's procedure for two modules, as one plan for both files, or for the
//! one file that is on this machine.
//!
//! Both sides exchange the same [`HandOver`], whether both files are here or a block goes from one
//! machine to the other. A plan changes nothing, can be shown, and is then carried out whole or not
//! at all.

mod member;
mod view;

use std::collections::BTreeSet;
use std::path::Path;

pub use member::{Address, Member, Options};
pub use view::Side;
use view::View;

use super::change::Change;
use super::deployments::{not_there, revoked, trusting_too};
use super::error::{Kind, Refused};
use super::handover::{HandOver, Introduction, Purpose};
use super::revocation::RevokedFile;
use super::rotation::replace::trusting;
use super::setting::is_not_remembered;
use super::source::SettingsFile;
use super::write::place_of;
use crate::config::names::{DEPLOYMENTS, OWN_NAME};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::name::uniform;
use crate::trust::Deployment;

/// What pairing would change.
#[derive(Debug, Default)]
pub struct Plan {
    /// The sides, in the order of the arguments; empty if only a key is accepted.
    pub sides: Vec<Side>,
    /// What would change, in the order of the sides.
    pub change: Change,
    /// The keys that no longer work, if a key is accepted in their place.
    pub revoked: Vec<RevokedFile>,
}

/// Plans the pairing of the modules whose files are here: the first one with each of the others.
/// Nothing is written.
///
/// One module gets its own settings: its key and its name. With `theirs`, the other machine's
/// block, it also trusts another module, or another key of a module that it trusts. A module that
/// has a key keeps it. An existing private key, name, or trusted key is never replaced.
///
/// # Errors
///
/// When a file cannot be read, or pairing would have to replace something in it; when the file does
/// not trust the key that signs for the module of a new key.
pub fn plan(
    members: &[Member],
    theirs: Option<&HandOver>,
    options: &Options,
) -> Result<Plan, Refused> {
    have_files_of_their_own(members)?;
    let mut settled = options.clone();
    settled.tls |= !options.plaintext && members.iter().any(Member::is_remote);
    match (theirs.map(|theirs| (theirs, &theirs.purpose)), members) {
        (Some((_, Purpose::Pair(theirs))), _) => {
            let environment = &mut settled.environment;
            environment.get_or_insert_with(|| theirs.environment.clone());
            settled.tls |= theirs.tls.is_some();
        }
        (Some((theirs, _)), [member]) => return accept_key(&member.path, theirs),
        _ => {}
    }
    let views = (0..)
        .zip(members)
        .map(|(at, member)| View::read(member, &peers_of(members, at)))
        .collect::<Result<Vec<_>, _>>()?;
    if let [view] = &*views {
        // Its block must not promise what its listener refuses.
        settled.tls |= view.has_tls();
    }
    if let Some(Purpose::Pair(theirs)) = theirs.map(|theirs| &theirs.purpose) {
        agrees(theirs, &views, options)?;
    }
    has_a_way_back(members, &views)?;
    let sides = settle(&views, &settled)?;
    let mut files = Vec::new();
    for (at, (view, side)) in views.iter().zip(&sides).enumerate() {
        let here = peers_of(&sides, at);
        let known = here.iter().map(|peer| (&peer.hand_over, Some(&*peer.file)));
        let peers: Vec<_> = known.chain(theirs.map(|theirs| (theirs, None))).collect();
        if side.certificate.is_some() {
            view.has_no_other_in_plaintext(&peers, &peers_of(members, at))?;
        }
        files.extend(view.trusting(side, &peers, &settled)?);
    }
    let certificates = sides.iter().filter_map(|side| side.certificate.as_ref());
    let mut first: Vec<_> = certificates.flat_map(|own| own.new.clone()).collect();
    // A certificate comes after its key.
    first.reverse();
    // No file names a key that could still be lost: another side's new key is written before the
    // first file, which trusts it, and the first side's before the other files trust it.
    for (view, side) in views.iter().zip(&sides).skip(1) {
        if side.is_key_new {
            first.extend(view.edited(&side.own)?);
        }
    }
    let change = Change::checked(files, first)?;
    let before = Change::checked_before(&change.files)?;
    if change.findings.errors() > before.errors() {
        let message = "this change would add errors to the files; nothing is written";
        let help =
            "either all modules of a DPM use TLS (`--tls`) or none, and each needs its own key";
        return Err(Refused::new(Kind::Conflict, message)
            .with_help(help)
            .with_findings(change.findings));
    }
    Ok(Plan {
        sides,
        change,
        ..Plan::default()
    })
}

fn have_files_of_their_own(members: &[Member]) -> Result<(), Refused> {
    let mut places = BTreeSet::new();
    for member in members {
        if !places.insert(place_of(&member.path)?) {
            let file = member.path.display();
            let message = format!("two modules have the same file, `{file}`");
            return Err(Refused::new(Kind::Usage, message));
        }
    }
    Ok(())
}

/// Fails if `theirs` would do without TLS where it is on here, or beyond its own host.
fn agrees(theirs: &Introduction, views: &[View<'_>], options: &Options) -> Result<(), Refused> {
    let (message, help) = if theirs.tls.is_some() {
        return Ok(());
    } else if views.iter().any(View::has_tls) {
        (
            "the block is for a connection without TLS, but this file has TLS on",
            "create the block again with `--tls`",
        )
    } else if theirs.is_remote() && !options.plaintext {
        (
            "the block is for a connection to another host without TLS",
            "create the block again without `--plaintext`; on a trusted network, add `--plaintext` here too",
        )
    } else {
        return Ok(());
    };
    Err(Refused::new(Kind::Conflict, message).with_help(help))
}

/// Settles the name and the key of each module.
fn settle(views: &[View<'_>], options: &Options) -> Result<Vec<Side>, Refused> {
    let mut taken = names_of(views);
    let mut names = BTreeSet::new();
    let mut sides = Vec::new();
    for (at, view) in views.iter().enumerate() {
        let side = view.settle(&peers_of(views, at), &taken, options)?;
        let name = &side.hand_over.deployment;
        taken.insert(name.uniform());
        if !names.insert(name.uniform()) {
            let message = format!("both deployments would be called `{name}`");
            return Err(Refused::new(Kind::Usage, message));
        }
        sides.push(side);
    }
    Ok(sides)
}

/// Fails if an engine is on another host than a DPM that listens on its own alone.
fn has_a_way_back(members: &[Member], views: &[View<'_>]) -> Result<(), Refused> {
    let Some((hub, view)) = members.iter().zip(views).next() else {
        return Ok(());
    };
    let is_far = members.iter().skip(1).any(Member::is_remote);
    if !is_far || hub.module.as_str() != "dpm" || hub.is_remote() || view.is_open() {
        return Ok(());
    }
    let message = "an engine is on another host, but the DPM listens on its own host only";
    let help = "give the DPM an address too: `--address dpm=HOST`";
    Err(Refused::new(Kind::Usage, message).with_help(help))
}

/// Returns the names that none of several engines may get by default.
fn names_of(views: &[View<'_>]) -> BTreeSet<String> {
    let Some(hub) = views.first().filter(|_| views.len() > 2) else {
        return BTreeSet::new();
    };
    let trusted = hub.trusts.file.names(DEPLOYMENTS, &[]);
    let written = views.iter().filter_map(|view| view.text(OWN_NAME));
    let given = views.iter().filter_map(|view| {
        let name = view.member.name.as_ref()?;
        Some(name.as_str())
    });
    trusted
        .into_iter()
        .chain(written)
        .chain(given)
        .map(uniform)
        .collect()
}

/// Returns those with which the one at `at` is paired: the first with all others, they with it.
fn peers_of<T>(all: &[T], at: usize) -> Vec<&T> {
    let hub = all.iter().take(usize::from(at > 0));
    hub.chain(all.iter().skip(1).filter(|_| at == 0)).collect()
}

/// Plans to trust the key of `theirs`, which is for a module that the file at `path` trusts.
fn accept_key(path: &Path, theirs: &HandOver) -> Result<Plan, Refused> {
    is_not_remembered(path, &theirs.key)?;
    let file = SettingsFile::read(path)?;
    let (name, new) = (&theirs.deployment, theirs.key.fingerprint());
    let deployment = match theirs.purpose {
        Purpose::Rotate { signs } => trusting_already(&file, name, signs)?,
        _ => file.find(name).ok_or_else(|| not_there(&file, name))?,
    };
    let is_replacement = theirs.purpose == Purpose::Replace;
    let mut others = deployment.active_keys().filter(|key| key.key != theirs.key);
    let (edited, keys) = match (deployment.key(new), others.next()) {
        (None, _) if is_replacement => {
            let (edited, keys) = trusting(&file, deployment, &theirs.key, &theirs.key_id)?;
            (edited, vec![keys])
        }
        (None, _) => {
            let settings = trusting_too(deployment, &theirs.key, &theirs.key_id);
            (file.edited(&settings)?, Vec::new())
        }
        (Some(key), _) if key.revoked => return Err(revoked(path, new, name, None)),
        // What came after it is not revoked for an old block.
        (Some(_), Some(later)) if is_replacement => {
            let (path, later) = (path.display(), later.key.fingerprint());
            let message = format!(
                "`{path}` has accepted this block already, and trusts `{name}` by the key {later} \
                 too"
            );
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("have the other side print a new block, if it has lost that key"));
        }
        (Some(_), _) => (file.edited(&[])?, Vec::new()),
    };
    Ok(Plan {
        sides: Vec::new(),
        change: file.change(edited)?,
        revoked: keys,
    })
}

/// Finds the deployment `name` of `file`, which must trust the key that signs now.
fn trusting_already<'a>(
    file: &'a SettingsFile,
    name: &DeploymentName,
    signs: Fingerprint,
) -> Result<&'a Deployment, Refused> {
    let known = file.find(name);
    let trusting = known.filter(|known| known.key(signs).is_some_and(|key| !key.revoked));
    trusting.ok_or_else(|| {
        let path = file.path.display();
        let message = format!("`{path}` does not trust `{signs}` as a key of `{name}`");
        Refused::new(Kind::Conflict, message)
            .with_help("pair the two modules first; only a trusted module can hand over a new key")
    })
}

#[cfg(test)]
mod tests;
