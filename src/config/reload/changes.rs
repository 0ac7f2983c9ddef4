//! What a reload changed, by name and fingerprint.

use std::collections::{BTreeSet, HashMap};

use crate::config::Settings;
use crate::diagnostic::quote;
use crate::jose::KeyId;
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

/// Lists what differs in `after` from `before`: this module first, then its peers in the
/// files' order. Each line names what changed; none holds a private key.
pub(super) fn between(before: &Settings, after: &Settings) -> Vec<String> {
    let mut changes = own(&before.own, &after.own);
    let next = |of: &Settings| of.rotation.next.as_ref().map(|(key, _)| key.fingerprint());
    match (next(before), next(after)) {
        (was, Some(next)) if was != Some(next) => {
            changes.push(format!("next own key {next} prepared"));
        }
        (Some(was), None) if was != after.own.fingerprint() => {
            changes.push(format!("next own key {was} dropped"));
        }
        _ => {}
    }
    let known: HashMap<_, _> = before.deployments.iter().map(|d| (&d.name, d)).collect();
    let mut gone = known.clone();
    for deployment in &after.deployments {
        gone.remove(&deployment.name);
        match known.get(&deployment.name) {
            Some(was) => changes.extend(of_deployment(was, deployment)),
            None => changes.push(added(deployment)),
        }
    }
    let removed = before.deployments.iter();
    let removed = removed.filter(|deployment| gone.contains_key(&deployment.name));
    changes.extend(removed.map(|deployment| format!("deployment {} removed", deployment.name)));
    changes.extend(addresses(before, after));
    if before.reload != after.reload {
        let state = if after.reload { "on" } else { "off" };
        changes.push(format!("watching of the files switched {state}"));
    }
    changes
}

fn own(before: &OwnDeployment, after: &OwnDeployment) -> Vec<String> {
    let mut changes = Vec::new();
    if before.key.verifying_key() != after.key.verifying_key() || before.key_id != after.key_id {
        changes.push(format!(
            "own key {} swapped for {}",
            shown(&before.key_id),
            shown(&after.key_id)
        ));
    } else if before.key.made_at() != after.key.made_at() {
        let key = shown(&after.key_id);
        changes.push(format!("own key {key} has a different creation time"));
    }
    if before.name != after.name {
        let name = |own: &OwnDeployment| {
            let name = own.name.as_ref();
            name.map_or_else(|| "none".to_owned(), ToString::to_string)
        };
        changes.push(format!("own name {} → {}", name(before), name(after)));
    }
    changes
}

fn added(deployment: &Deployment) -> String {
    let keys: Vec<_> = deployment.keys.iter().map(key).collect();
    format!(
        "deployment {} added: module {}, roles {}, keys {}",
        deployment.name,
        deployment.module,
        deployment.roles,
        keys.join(" ")
    )
}

fn of_deployment(before: &Deployment, after: &Deployment) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let mut changes = keys(before, after);
    for ((what, was), (_, now)) in facts(before).into_iter().zip(facts(after)) {
        if was != now {
            changes.push(format!("{what} of {} {was} → {now}", after.name));
        }
    }
    changes
}

/// Returns what a deployment has besides its keys; two different values have different texts.
fn facts(deployment: &Deployment) -> [(&'static str, String); 5] {
    let pins = deployment.tls_pins.iter().map(ToString::to_string);
    let pins = pins.collect::<Vec<_>>().join(", ");
    let environment = deployment.environment.as_ref().map(ToString::to_string);
    [
        ("roles", deployment.roles.to_string()),
        ("module", deployment.module.to_string()),
        (
            "environment",
            // A name has no blank, so this text differs from every environment.
            environment.unwrap_or_else(|| "not set".to_owned()),
        ),
        (
            "single-use-tokens",
            deployment.single_use_tokens.to_string(),
        ),
        ("tls-keys", format!("[{pins}]")),
    ]
}

fn keys(before: &Deployment, after: &Deployment) -> Vec<String> {
    let name = &after.name;
    let mut changes = Vec::new();
    for now in &after.keys {
        let was = before.keys.iter().find(|was| was.key == now.key);
        let word = match was {
            None if now.revoked => "added as revoked",
            None => "added",
            Some(was) if was.revoked != now.revoked && now.revoked => "revoked",
            Some(was) if was.revoked != now.revoked => "no longer revoked",
            Some(was) if was.key_id != now.key_id || was.name != now.name => "renamed",
            Some(_) => continue,
        };
        changes.push(format!("key {} of {name} {word}", key(now)));
    }
    for was in &before.keys {
        if !after.keys.iter().any(|now| now.key == was.key) {
            changes.push(format!("key {} of {name} removed", key(was)));
        }
    }
    changes
}

fn key(key: &TrustedKey) -> String {
    format!("{} {}", quote(&key.name), shown(&key.key_id))
}

/// A fingerprint as it is; any other `kid`, which may hold anything, in quotes.
fn shown(key_id: &KeyId) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if key_id.as_str().chars().all(plain) {
        key_id.to_string()
    } else {
        quote(key_id.as_str())
    }
}

fn addresses(before: &Settings, after: &Settings) -> Vec<String> {
    let names = before.addresses.keys().chain(after.addresses.keys());
    let names: BTreeSet<_> = names.collect();
    let rules = |of: &Settings, name: &str| of.addresses.get(name).cloned().unwrap_or_default();
    let differ = names
        .iter()
        .filter(|name| rules(before, name) != rules(after, name));
    differ
        .map(|name| format!("addresses allowed for {name}"))
        .collect()
}
