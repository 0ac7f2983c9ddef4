//! What can only be told from two files: whether each knows the other.

use crate::diagnostic::{Code, Finding, Severity};

use super::check::Inspected;
use super::cross_tls;
use super::deployments::{ReadDeployment, ReadKey};
use super::own::Replay;
use super::own_check;
use super::own_key::{self, OwnKey};
use super::view::{Part, finding};

/// Holds every file against every other.
pub(super) fn check(files: &[Inspected]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (n, this) in files.iter().enumerate() {
        for (m, other) in files.iter().enumerate() {
            if n == m {
                continue;
            }
            let meant = files.len() == 2 || trusts(this, other);
            found.extend(known_there(this, other, meant));
            found.extend(name_there(this, other));
            found.extend(cross_tls::check(this, other));
            found.extend(message_sizes(this, other));
            found.extend(single_use(this, other));
            found.extend(lifetimes(this, other));
            if n < m {
                found.extend(shared_key(this, other));
                found.extend(environments(this, other));
            }
        }
    }
    // Two ends of one fault, as where one certificate serves and calls.
    let mut told: Vec<Finding> = Vec::new();
    for finding in found {
        let same = |other: &Finding| {
            (other.code(), other.origin(), other.message())
                == (finding.code(), finding.origin(), finding.message())
        };
        if !told.iter().any(same) {
            told.push(finding);
        }
    }
    told
}

pub(super) fn path(file: &Inspected) -> String {
    file.view.document().path().display().to_string()
}

fn at_key(file: &Inspected, code: Code, own: &OwnKey, message: String) -> Finding {
    finding(Some(&file.view), code, &own.at, Part::Value, message).with_key(own_key::NAME)
}

/// Finds `own` among the trusted keys of `file`.
pub(super) fn trusted<'a>(
    file: &'a Inspected,
    own: &OwnKey,
) -> Option<(&'a ReadDeployment, &'a ReadKey)> {
    let keys = file
        .deployments
        .iter()
        .flat_map(|d| d.keys.iter().map(move |key| (d, key)));
    let mut ours = keys.filter(|(_, key)| key.key == *own.key.verifying_key());
    ours.next()
}

fn trusts(this: &Inspected, other: &Inspected) -> bool {
    other
        .own
        .as_ref()
        .is_some_and(|own| trusted(this, own).is_some())
}

/// CS0401, CS0402: does the other file trust this one's key?
fn known_there(this: &Inspected, other: &Inspected, meant: bool) -> Option<Finding> {
    let own = this.own.as_ref()?;
    let there = path(other);
    // Who has a key there already gets another beside it only where that is said.
    let name = this.options.name.as_ref().map(|(name, _)| name.as_str());
    let mut known = other.deployments.iter();
    let known = known.any(|d| Some(&*d.name) == name && !d.keys.is_empty());
    let fix = format!(
        "pair the two files: `countersign pair <module>={} <module>={there}{}`",
        path(this),
        if known { " --key-name key2" } else { "" }
    );
    let Some((deployment, key)) = trusted(other, own) else {
        if !meant || shares_key(this, other) {
            return None;
        }
        let has: Vec<_> = other
            .deployments
            .iter()
            .flat_map(|d| {
                d.keys
                    .iter()
                    .map(|key| format!("`{}` of {}", key.key_id, d.name))
            })
            .take(4)
            .collect();
        let has = if has.is_empty() {
            "none".to_owned()
        } else {
            has.join(", ")
        };
        let message = format!(
            "{there} does not trust this key, `{}`; it trusts {has}",
            own.key_id
        );
        return Some(at_key(this, Code::Cs0401, own, message).with_help(fix));
    };
    if key.revoked {
        let message = format!("{there} trusts this key, `{}`, as revoked", own.key_id);
        let help = format!(
            "give this module a new key: `countersign rotate run --file {} --peer-file {there} --now`; \
             or, where that is a mistake, write `is-revoked=false` there",
            path(this)
        );
        return Some(at_key(this, Code::Cs0402, own, message).with_help(help));
    }
    (key.key_id != own.key_id).then(|| {
        let message = format!(
            "{there} knows this key as `{}`, but its tokens name it `{}`",
            key.key_id, own.key_id
        );
        let setting = format!(
            "ataccama.one.platform.deployments.{}.security.jwt-keys.{}.fingerprint",
            deployment.name, key.name
        );
        let help = format!(
            "in {there} write `{setting}={}`, and the same `kid` in `content`",
            own.key_id
        );
        at_key(this, Code::Cs0401, own, message).with_help(help)
    })
}

/// CS0403: is this module called there what it calls itself?
fn name_there(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let own = this.own.as_ref()?;
    let (name, at) = this.options.name.as_ref()?;
    let (deployment, key) = trusted(other, own)?;
    if deployment.name == name.as_str() {
        return None;
    }
    let message = format!(
        "this module calls itself `{name}`, {} calls it `{}`, at {}",
        path(other),
        deployment.name,
        key.at.origin()
    );
    let found = finding(Some(&this.view), Code::Cs0403, at, Part::Value, message);
    Some(
        found
            .with_severity(Severity::Error)
            .with_key("countersign.deployment.name")
            .with_help(format!(
                "write `countersign.deployment.name={}`",
                deployment.name
            )),
    )
}

/// CS0403: do the two files put each other into one environment?
fn environments(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let entry = |file: &Inspected, own: &OwnKey| {
        let (deployment, _) = trusted(file, own)?;
        deployment.environment.clone()
    };
    let here = entry(this, other.own.as_ref()?)?;
    let there = entry(other, this.own.as_ref()?)?;
    if here.text() == there.text() {
        return None;
    }
    let message = format!(
        "the environment is `{}` here and `{}` at {}",
        here.text(),
        there.text(),
        there.origin()
    );
    let found = finding(Some(&this.view), Code::Cs0403, &here, Part::Value, message);
    Some(found.with_help("write the same environment in both files"))
}

fn shares_key(this: &Inspected, other: &Inspected) -> bool {
    let public = |file: &Inspected| file.own.as_ref().map(|own| own.key.verifying_key().clone());
    public(this).is_some() && public(this) == public(other)
}

/// CS0404.
fn shared_key(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let theirs = other.own.as_ref()?;
    if !shares_key(this, other) {
        return None;
    }
    let message = format!("the same private key stands at {}", theirs.at.origin());
    let own = this.own.as_ref()?;
    let help = "make a new key for one of the two: `countersign key gen --out key.jwk`";
    Some(at_key(this, Code::Cs0404, own, message).with_help(help))
}

/// The connection of `this` that leads to `other`.
pub(super) fn leads_to(this: &Inspected, other: &Inspected) -> Option<String> {
    let own = other.own.as_ref()?;
    let (deployment, _) = trusted(this, own)?;
    let module = deployment.deployment.as_ref()?.module.clone();
    let connections = this.options.client.connections.iter();
    let mut named = connections.filter(|connection| connection.name == module.as_str());
    named.next().map(|connection| connection.name.clone())
}

/// CS0306: does the other file accept tokens that live as long as this one's?
fn lifetimes(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let own = this.own.as_ref()?;
    trusted(other, own)?;
    let lifetime = this.options.policy.lifetime();
    let accepted = other.options.policy.max_lifetime();
    if lifetime <= accepted {
        return None;
    }
    let message = format!(
        "tokens would live {} s; {} accepts {} s at most and refuses them",
        lifetime.as_secs(),
        path(other),
        accepted.as_secs()
    );
    let at = this.lifetime_at.as_ref().unwrap_or(&own.at);
    let found = finding(Some(&this.view), Code::Cs0306, at, Part::Value, message);
    Some(found.with_key(own_check::LIFETIME).with_help(format!(
        "write a number up to {}, or raise `countersign.token.max-lifetime` there",
        accepted.as_secs()
    )))
}

/// CS0406: may one side send more than the other accepts?
fn message_sizes(this: &Inspected, other: &Inspected) -> Option<Finding> {
    leads_to(this, other)?;
    let client = this.options.client.max_message_bytes;
    let server = other.options.server.max_message_bytes;
    if client == server {
        return None;
    }
    let [_, client_at] = &this.message_bytes_at;
    let [server_at, _] = &other.message_bytes_at;
    let message = format!("the client accepts {client} bytes, the server {server}");
    let help = "write the same size on both sides";
    let found = match (client_at, server_at) {
        (Some(at), _) => finding(Some(&this.view), Code::Cs0406, at, Part::Value, message),
        (None, Some(at)) => finding(Some(&other.view), Code::Cs0406, at, Part::Value, message),
        (None, None) => return None,
    };
    Some(found.with_help(help))
}

/// CS0306: does this file reuse tokens for a module that takes each once?
fn single_use(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (callee, _) = trusted(this, other.own.as_ref()?)?;
    let reuses = callee
        .deployment
        .as_ref()
        .is_some_and(|d| !d.single_use_tokens);
    if other.options.replay != Replay::Strict || !reuses {
        return None;
    }
    let setting = format!("countersign.deployments.{}.single-use-tokens", callee.name);
    let message = format!(
        "this module takes each token once, but {} would send it the same one again",
        path(this)
    );
    let at = other.replay_at.as_ref()?;
    let found = finding(Some(&other.view), Code::Cs0306, at, Part::Value, message);
    let help = format!("in {} write `{setting}=true`", path(this));
    Some(found.with_key("countersign.token.replay").with_help(help))
}
