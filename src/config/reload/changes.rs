//! What a reload changed, by name and fingerprint.

use std::collections::{BTreeSet, HashMap};

use crate::config::Settings;
use crate::diagnostic::quote;
use crate::jose::KeyId;
use crate::registry::AddressRules;
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

/// Lists what differs in `after` from `before`: this module first, then its peers in the
/// files' order. Each line names what changed; none holds a private key.
pub fn between(before: &Settings, after: &Settings) -> Vec<String> {
    let mut changes = own(&before.own, &after.own);
    let [was, now] = [before, after].map(|of| {
        let next = of.options.rotation.next.as_ref();
        next.map(|(key, _)| key.fingerprint())
    });
    match (was, now) {
        (was, Some(next)) if was != Some(next) => {
            changes.push(format!("next key {next} added"));
        }
        (Some(was), None) if was != after.own.fingerprint() => {
            changes.push(format!("next key {was} removed"));
        }
        _ => {}
    }
    let mut gone: HashMap<_, _> = before.deployments.iter().map(|d| (&d.name, d)).collect();
    for deployment in &after.deployments {
        match gone.remove(&deployment.name) {
            Some(was) => changes.extend(of_deployment(was, deployment)),
            None => changes.push(added(deployment)),
        }
    }
    let names = before.deployments.iter().map(|deployment| &deployment.name);
    let removed = names.filter(|name| gone.contains_key(name));
    changes.extend(removed.map(|name| format!("deployment {name} removed")));
    changes.extend(addresses(before, after));
    if before.options.reload != after.options.reload {
        let state = if after.options.reload { "on" } else { "off" };
        changes.push(format!("automatic reload turned {state}"));
    }
    changes
}

fn own(before: &OwnDeployment, after: &OwnDeployment) -> Vec<String> {
    let mut changes = Vec::new();
    let [was, now] = [before, after].map(|own| shown(&own.key_id));
    if before.key.verifying_key() != after.key.verifying_key() || before.key_id != after.key_id {
        changes.push(format!("own key changed from {was} to {now}"));
    } else if before.key.made_at() != after.key.made_at() {
        changes.push(format!("own key {now} has a different creation time"));
    }
    if before.name != after.name {
        let names = [before, after].map(|own| own.name.as_ref().map(ToString::to_string));
        let [was, now] = names.map(|name| name.unwrap_or_else(|| "none".to_owned()));
        changes.push(format!("own name changed from {was} to {now}"));
    }
    changes
}

fn added(deployment: &Deployment) -> String {
    let (name, module, roles) = (&deployment.name, &deployment.module, &deployment.roles);
    let keys: Vec<_> = deployment.keys.iter().map(key).collect();
    let named = keys.join(" ");
    format!("deployment {name} added: module {module}, roles {roles}, keys {named}")
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
    let keys = deployment.tls_pins.iter().map(ToString::to_string);
    let pins = keys.collect::<Vec<_>>().join(", ");
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
    let [was, now] = [before, after].map(|of| &of.options.addresses);
    let none = AddressRules::default();
    let names: BTreeSet<_> = was.keys().chain(now.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        if was.get(name).unwrap_or(&none) != now.get(name).unwrap_or(&none) {
            changes.push(format!("addresses allowed for {name}"));
        }
    }
    changes
}
