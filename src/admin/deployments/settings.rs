//! Which settings are about a deployment.

use std::fmt;
use std::path::Path;

use super::{Addition, TrustFile, same};
use crate::admin::edited::{OTHER_KEY_NAME, SECOND_KEY, Setting, trusted_key};
use crate::admin::error::{Kind, Refused};
use crate::admin::overrides;
use crate::identity::{DeploymentName, Role};
use crate::properties::name::{Name, Pattern};
use crate::properties::{Document, FileText};
use crate::trust::{Deployment, TrustedKey};

const DEPLOYMENT: &str = "ataccama.one.platform.deployments.<name>";
const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";
const EXTRAS: &str = "countersign.deployments.<name>";
const CONNECTION: &str = "countersign.client.connection.<c>.deployment";

/// What a new deployment may do where nothing is said: register its engines, as with `pair`.
const DEFAULT_ROLE: &str = "IMPERSONATION";

/// Returns what `file` must say to trust `addition`; `known` is what it says already.
pub(super) fn adding(
    file: &TrustFile,
    known: Option<&Deployment>,
    addition: &Addition,
) -> Result<Vec<Setting>, Refused> {
    let name = known.map_or(&addition.name, |known| &known.name);
    let prefix = Pattern::new(DEPLOYMENT).with_keys(&[name.to_string()]);
    let mut settings = description(&prefix, known, addition)?;
    settings.extend(key(known, addition)?);
    let default = match known {
        None => Role::new(DEFAULT_ROLE).ok(),
        Some(_) => None,
    };
    let wanted = match addition.roles.as_slice() {
        [] => default.iter().collect::<Vec<_>>(),
        roles => roles.iter().collect(),
    };
    settings.extend(roles(file, known, name, &wanted));
    Ok(settings)
}

fn description(
    prefix: &str,
    known: Option<&Deployment>,
    addition: &Addition,
) -> Result<Vec<Setting>, Refused> {
    let name = &addition.name;
    let mut settings = Vec::new();
    match known.map(|known| &known.module) {
        Some(module) if *module != addition.module => {
            return Err(other(name, "module", module));
        }
        Some(_) => {}
        None => settings.push(Setting::new(
            format!("{prefix}.module"),
            addition.module.as_str(),
        )),
    }
    let there = known.and_then(|known| known.environment.as_ref());
    match (there, &addition.environment) {
        (_, None) => {}
        (Some(there), Some(wanted)) if there == wanted => {}
        (Some(there), Some(_)) => return Err(other(name, "environment", there)),
        (None, Some(wanted)) => {
            let key = format!("{prefix}.environment");
            settings.push(Setting::new(key, wanted.as_str()));
        }
    }
    Ok(settings)
}

fn key(known: Option<&Deployment>, addition: &Addition) -> Result<Vec<Setting>, Refused> {
    let keys: &[TrustedKey] = known.map_or(&[], |known| &known.keys);
    if let Some(present) = keys.iter().find(|key| key.key == addition.key) {
        let (name, key) = (&addition.name, &present.name);
        return match &addition.key_name {
            _ if present.revoked => {
                let message = format!("the key `{key}` of `{name}` is revoked");
                Err(Refused::new(Kind::Taken, message)
                    .with_help("a revoked key stays revoked: ask for another one"))
            }
            Some(wanted) if !same(wanted, key) => Err(other(name, "key under the name", key)),
            _ if present.key_id != addition.key_id => {
                Err(other(name, "key with the fingerprint", &present.key_id))
            }
            _ => Ok(Vec::new()),
        };
    }
    let name = match &addition.key_name {
        Some(name) if keys.iter().any(|key| same(&key.name, name)) => {
            let deployment = &addition.name;
            let message = format!("the deployment `{deployment}` has another key called `{name}`");
            return Err(Refused::new(Kind::Taken, message).with_help(OTHER_KEY_NAME));
        }
        Some(name) => name.as_str(),
        None if keys.is_empty() => "key",
        // A second key makes two modules one, unless it is the same one's: that must be said.
        None => {
            let deployment = &addition.name;
            let message = format!("the deployment `{deployment}` is trusted by another key");
            return Err(Refused::new(Kind::Taken, message).with_help(SECOND_KEY));
        }
    };
    let written = known.map_or(&addition.name, |known| &known.name);
    Ok(trusted_key(written.as_str(), name, &addition.key, &addition.key_id).into())
}

fn other(name: &DeploymentName, what: &str, found: &dyn fmt::Display) -> Refused {
    let message = format!("the deployment `{name}` has the {what} `{found}`");
    Refused::new(Kind::Taken, message)
        .with_help("give what is there, or remove the deployment first")
}

/// Returns the settings that give the deployment those of the roles that it does not have.
fn roles(
    file: &TrustFile,
    known: Option<&Deployment>,
    name: &DeploymentName,
    wanted: &[&Role],
) -> Vec<Setting> {
    let has = |role: &Role| known.is_some_and(|known| known.roles.contains(role));
    let missing: Vec<_> = wanted.iter().filter(|role| !has(role)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let prefix = Pattern::new(ROLES).with_keys(&[name.to_string()]);
    let pattern = Pattern::new(ROLES);
    let document = Document::parse(&file.path, file.text.text());
    let mut next: usize = 0;
    for entry in document.entries() {
        let found = pattern.matches(&Name::parse(entry.key()));
        let Some(found) = found.filter(|found| is_of(&found.keys, name)) else {
            continue;
        };
        match found.rest.first().map(|index| index.parse::<usize>()) {
            // All roles in one setting, separated by commas.
            None => {
                let all = std::iter::once(entry.value().trim());
                let all = all.chain(missing.iter().map(|role| role.as_str()));
                let all: Vec<_> = all.filter(|role| !role.is_empty()).collect();
                return vec![Setting::new(prefix, all.join(","))];
            }
            Some(index) => next = next.max(index.unwrap_or_default().saturating_add(1)),
        }
    }
    let numbered = missing.iter().zip(next..);
    let setting =
        |(role, at): (&&&Role, usize)| Setting::new(format!("{prefix}[{at}]"), role.as_str());
    numbered.map(setting).collect()
}

/// Tells whether `key` gives roles.
pub(super) fn is_role(key: &str) -> bool {
    Pattern::new(ROLES).matches(&Name::parse(key)).is_some()
}

/// Tells whether the file says anything of the deployment.
pub(super) fn mentions(path: &Path, text: &FileText, name: &DeploymentName) -> bool {
    let pattern = Pattern::new(DEPLOYMENT);
    let document = Document::parse(path, text.text());
    let mut names = document.entries().iter().map(|e| Name::parse(e.key()));
    names.any(|key| {
        pattern
            .matches(&key)
            .is_some_and(|found| is_of(&found.keys, name))
    })
}

/// Makes sure that the files of active profiles say nothing of the deployment: only the main file is
/// changed. Of what is of us alone only a removal makes sure.
pub(super) fn is_in_main_file(
    file: &TrustFile,
    name: &DeploymentName,
    removes: bool,
) -> Result<(), Refused> {
    let (deployment, extras) = (Pattern::new(DEPLOYMENT), Pattern::new(EXTRAS));
    let connection = Pattern::new(CONNECTION);
    let is_about = |key: &Name<'_>, value: &str| {
        let has = |pattern: &Pattern| {
            let found = pattern.matches(key);
            found.is_some_and(|found| is_of(&found.keys, name))
        };
        let calls = || connection.matches(key).is_some() && same(value.trim(), name.as_str());
        has(&deployment) || removes && (has(&extras) || calls())
    };
    match overrides::find(&file.path, &file.text, &is_about)? {
        None => Ok(()),
        Some(by) => Err(Refused::in_profile(&file.path, &by)),
    }
}

/// Returns the settings that are about the deployment, as they are written, and the connections
/// that name it.
pub(super) fn about(
    path: &Path,
    text: &FileText,
    name: &DeploymentName,
) -> (Vec<String>, Vec<String>) {
    let of_it = [Pattern::new(DEPLOYMENT), Pattern::new(EXTRAS)];
    let connection = Pattern::new(CONNECTION);
    let document = Document::parse(path, text.text());
    let (mut keys, mut connections): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for entry in document.entries() {
        let key = Name::parse(entry.key());
        let is_about = |pattern: &Pattern| {
            let found = pattern.matches(&key);
            found.is_some_and(|found| is_of(&found.keys, name))
        };
        let named = connection.matches(&key);
        let named = named.filter(|_| same(entry.value().trim(), name.as_str()));
        if named.is_none() && !of_it.iter().any(is_about) {
            continue;
        }
        if !keys.iter().any(|known| Name::parse(known) == key) {
            keys.push(entry.key().to_owned());
        }
        connections.extend(named.and_then(|found| found.keys.first().cloned()));
    }
    (keys, connections)
}

fn is_of(keys: &[String], name: &DeploymentName) -> bool {
    keys.first().is_some_and(|key| same(key, name.as_str()))
}
