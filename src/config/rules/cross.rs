//! What only two files together show: whether each knows the other.

use crate::config::inspect::Inspected;
use crate::config::parts::OwnKey;
use crate::config::settings::Replay;
use crate::diagnostic::{Code, Finding, Severity};

use super::cross_tls;
use super::deployments::LIFETIME;

/// Compares every file with every other.
pub(in crate::config) fn check(files: &[Inspected]) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (n, this) in files.iter().enumerate() {
        for (m, other) in files.iter().enumerate().filter(|(m, _)| n != *m) {
            let mut of_two = Vec::from_iter(known_there(this, other, files.len() == 2));
            of_two.extend(name_there(this, other));
            of_two.extend(cross_tls::check(this, other));
            of_two.extend(message_sizes(this, other));
            of_two.extend(single_use(this, other));
            of_two.extend(lifetimes(this, other));
            if n < m {
                of_two.extend(shared_key(this, other));
                of_two.extend(environments(this, other));
            }
            for finding in of_two {
                let is_same = |other: &Finding| {
                    (other.code(), other.origin(), other.message())
                        == (finding.code(), finding.origin(), finding.message())
                };
                // Two ends of one fault, as where one certificate serves and calls.
                if !found.iter().any(is_same) {
                    found.push(finding);
                }
            }
        }
    }
    found
}

/// CS0401, CS0402: does the other file trust this one's key?
fn known_there(this: &Inspected, other: &Inspected, only_two: bool) -> Option<Finding> {
    let own = this.own.as_ref()?;
    let (here, there) = (this.shown_path(), other.shown_path());
    let id = &own.key_id;
    let Some((deployment, key)) = other.trusted(own) else {
        let trusts_other = |own: &OwnKey| this.trusted(own).is_some();
        let is_meant = only_two || other.own.as_ref().is_some_and(trusts_other);
        return (is_meant && !shares_key(this, other)).then(|| unknown_there(this, other, own));
    };
    let key = &key.trusted;
    if key.revoked {
        let message = format!("{there} has this key, `{id}`, as revoked");
        let help = format!(
            "give this module a new key: `countersign rotate run --file {here} --peer-file {there} --now`; \
             or, if it was revoked by mistake, write `is-revoked=false` there"
        );
        return Some(this.report(Code::Cs0402, &own.at, message, help));
    }
    (key.key_id != *id).then(|| {
        let message = format!(
            "{there} has this key as `{}`, but its tokens name it `{id}`",
            key.key_id
        );
        let setting = format!(
            "ataccama.one.platform.deployments.{}.security.jwt-keys.{}.fingerprint",
            deployment.name, key.name
        );
        let help = format!("in {there} write `{setting}={id}`, and the same `kid` in `content`");
        this.report(Code::Cs0401, &own.at, message, help)
    })
}

fn unknown_there(this: &Inspected, other: &Inspected, own: &OwnKey) -> Finding {
    let (here, there) = (this.shown_path(), other.shown_path());
    let keys = other
        .deployments
        .iter()
        .flat_map(|d| d.keys.iter().map(move |key| (&d.name, &key.trusted.key_id)));
    let has = keys.map(|(name, key_id)| format!("`{key_id}` of {name}"));
    let has = match has.take(4).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "none".to_owned(),
        some => some,
    };
    let message = format!(
        "{there} does not trust this key, `{}`; it trusts {has}",
        own.key_id
    );
    // A module that has a key there gets another beside it only with this option.
    let name = this.options.name.as_ref().map(|(name, _)| name.as_str());
    let mut known = other.deployments.iter();
    let option = if known.any(|d| Some(&*d.name) == name && !d.keys.is_empty()) {
        " --key-name key2"
    } else {
        ""
    };
    let help =
        format!("pair the two files: `countersign pair <module>={here} <module>={there}{option}`");
    this.report(Code::Cs0401, &own.at, message, help)
}

/// CS0403: is this module called there what it calls itself?
fn name_there(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (name, at) = this.options.name.as_ref()?;
    let (deployment, key) = other.trusted(this.own.as_ref()?)?;
    let (there, called) = (other.shown_path(), &deployment.name);
    if called == name.as_str() {
        return None;
    }
    let message = format!(
        "this module's name is `{name}`, but {there} calls it `{called}`, at {}",
        key.at.origin()
    );
    let help = format!("write `countersign.deployment.name={called}`");
    let found = this.report(Code::Cs0403, at, message, help);
    Some(found.with_severity(Severity::Error))
}

/// CS0403: do the two files put each other into one environment?
fn environments(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (deployment, _) = this.trusted(other.own.as_ref()?)?;
    let here = deployment.environment.as_ref()?;
    let (deployment, _) = other.trusted(this.own.as_ref()?)?;
    let there = deployment.environment.as_ref()?;
    if here.text() == there.text() {
        return None;
    }
    let message = format!(
        "the environment is `{}` here and `{}` at {}",
        here.text(),
        there.text(),
        there.origin()
    );
    let help = "write the same environment in both files";
    Some(this.report(Code::Cs0403, here, message, help))
}

fn shares_key(this: &Inspected, other: &Inspected) -> bool {
    let own = this.own.iter().zip(&other.own);
    own.into_iter()
        .any(|(own, theirs)| own.key.verifying_key() == theirs.key.verifying_key())
}

/// CS0404.
fn shared_key(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (own, theirs) = (this.own.as_ref()?, other.own.as_ref()?);
    if !shares_key(this, other) {
        return None;
    }
    let message = format!("the same private key is at {}", theirs.at.origin());
    let help = "make a new key for one of the two: `countersign key gen --out key.jwk`";
    Some(this.report(Code::Cs0404, &own.at, message, help))
}

/// CS0306: does the other file accept tokens that live as long as this one's?
fn lifetimes(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let own = this.own.as_ref()?;
    other.trusted(own)?;
    let lifetime = this.options.policy.lifetime().as_secs();
    let accepted = other.options.policy.max_lifetime().as_secs();
    if lifetime <= accepted {
        return None;
    }
    let message = format!(
        "tokens would live {lifetime} s; {} accepts at most {accepted} s and would refuse them",
        other.shown_path()
    );
    let help =
        format!("write a number up to {accepted}, or raise `countersign.token.max-lifetime` there");
    let at = this.set(LIFETIME).unwrap_or(&own.at);
    Some(
        this.report(Code::Cs0306, at, message, help)
            .with_key(LIFETIME),
    )
}

/// CS0406: may one side send more than the other accepts?
fn message_sizes(this: &Inspected, other: &Inspected) -> Option<Finding> {
    this.leads_to(other)?;
    let client = this.options.client.max_message_bytes;
    let server = other.options.server.options.max_message_bytes;
    if client == server {
        return None;
    }
    let here = this.set("ataccama.client.grpc.properties.max-message-size");
    let there = other.set("ataccama.server.grpc.max-message-size");
    let (file, at) = here
        .map(|at| (this, at))
        .or_else(|| there.map(|at| (other, at)))?;
    let message = format!("the client accepts {client} bytes, the server {server}");
    let help = "write the same size on both sides";
    Some(file.report(Code::Cs0406, at, message, help))
}

/// CS0306: does this file reuse tokens for a module that takes each once?
fn single_use(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (callee, _) = this.trusted(other.own.as_ref()?)?;
    if other.options.replay != Replay::Strict || callee.deployment.as_ref()?.single_use_tokens {
        return None;
    }
    let at = other.set("countersign.token.replay")?;
    let here = this.shown_path();
    let message = format!(
        "this module accepts each token once, but {here} would send it the same token again"
    );
    let name = &callee.name;
    let help = format!("in {here} write `countersign.deployments.{name}.single-use-tokens=true`");
    Some(other.report(Code::Cs0306, at, message, help))
}
