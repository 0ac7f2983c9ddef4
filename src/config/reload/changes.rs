//! What a reload changed, by name and fingerprint.

use std::collections::HashMap;

use crate::config::Settings;
use crate::diagnostic::quote;
use crate::jose::KeyId;
use crate::registry::AddressRules;
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

/// Lists what is another in `after` than in `before`: this module first, then its peers in the
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
        changes.push(format!("own key {key} tells another time of its making"));
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
    let name = &after.name;
    let mut changes = keys(before, after);
    if before.roles != after.roles {
        changes.push(format!(
            "roles of {name} {} → {}",
            before.roles, after.roles
        ));
    }
    if before.module != after.module {
        changes.push(format!(
            "module of {name} {} → {}",
            before.module, after.module
        ));
    }
    if before.environment != after.environment {
        changes.push(format!("environment of {name}"));
    }
    if before.single_use_tokens != after.single_use_tokens {
        let value = after.single_use_tokens;
        changes.push(format!("single-use-tokens of {name} {value}"));
    }
    if before.tls_pins != after.tls_pins {
        let pins: Vec<_> = after.tls_pins.iter().map(ToString::to_string).collect();
        changes.push(format!("tls-keys of {name} [{}]", pins.join(", ")));
    }
    changes
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

/// A fingerprint as it is; another `kid`, which may hold anything, in quotes.
fn shown(key_id: &KeyId) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if key_id.as_str().chars().all(plain) {
        key_id.to_string()
    } else {
        quote(key_id.as_str())
    }
}

fn addresses(before: &Settings, after: &Settings) -> Vec<String> {
    let (before, after) = (before.address_rules(), after.address_rules());
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| {
            let rules = |of: &HashMap<String, AddressRules>| of.get(*name).cloned();
            rules(&before).unwrap_or_default() != rules(&after).unwrap_or_default()
        })
        .map(|name| format!("addresses allowed for {name}"))
        .collect()
}
