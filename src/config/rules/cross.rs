//! What only several files together show: whether each knows the other, and whether the certificates
//! of each are accepted.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::iter;
use std::path::Path;

use super::deployments::LIFETIME;
use super::keys::replacing;
use super::replicas::{self, are_replicas};
use super::tls::DIAL_BACK;
use crate::clock::{Clock as _, SystemClock};
use crate::config::inspect::Inspected;
use crate::config::schema::TlsEnd;
use crate::config::settings::{OwnKey, ReadDeployment, Replay};
use crate::config::view::Limited;
use crate::diagnostic::{Code, CommandLine, Finding, Severity};
use crate::grpc::tls::{ClientAuth, Shown};
use crate::jose::Fingerprint;
use crate::properties::name::{free_key_name, uniform};

/// Compares every file with every other. Two ends of one fault, as where one certificate serves and
/// calls, are one finding.
pub fn check(files: &[&Inspected], findings: &mut Limited) {
    for (n, this) in files.iter().enumerate() {
        for (m, other) in files.iter().enumerate().filter(|(m, _)| n != *m) {
            if are_replicas(this, other) {
                findings.extend(replicas::check(this, other, n < m));
                continue;
            }
            findings.extend(known_there(this, other, files.len() == 2));
            findings.extend(name_there(this, other));
            findings.extend(tls(this, other));
            findings.extend(message_sizes(this, other));
            findings.extend(single_use(this, other));
            findings.extend(lifetimes(this, other));
            if n < m {
                findings.extend(shared_key(this, other));
                findings.extend(environments(this, other));
            }
        }
    }
}

/// CS0401, CS0402: does the other file trust this one's key?
fn known_there(this: &Inspected, other: &Inspected, only_two: bool) -> Option<Finding> {
    let own = this.own.as_ref()?;
    let id = &own.key_id;
    let Some((deployment, key)) = other.trusted(own) else {
        let theirs = other.own.as_ref();
        let is_meant = only_two || theirs.is_some_and(|own| this.trusted(own).is_some());
        return (is_meant && same_key(this, other).is_none())
            .then(|| unknown_there(this, other, own));
    };
    let theirs = &key.trusted;
    if theirs.revoked {
        let message = format!("{other} has this key, `{id}`, as revoked");
        let replace = replacing(path_of(this), &[path_of(other)]);
        let help = format!("give this module a new key: {replace}");
        return Some(this.report(Code::Cs0402, &own.at, message, help));
    }
    if theirs.key_id == *id {
        return None;
    }
    let named = &theirs.key_id;
    let message = format!("{other} has this key as `{named}`, but its tokens name it `{id}`");
    let (deployment, key) = (&deployment.name, &theirs.name);
    let help = format!(
        "in {other} write `ataccama.one.platform.deployments.{deployment}.security.jwt-keys.{key}.fingerprint={id}`, and the same `kid` in `content`"
    );
    Some(this.report(Code::Cs0401, &own.at, message, help))
}

fn unknown_there(this: &Inspected, other: &Inspected, own: &OwnKey) -> Finding {
    let known = &other.deployments;
    let keys = known
        .iter()
        .flat_map(|d| d.keys.iter().zip(iter::repeat(&d.name)));
    let has = keys.map(|(key, name)| format!("`{}` of {name}", key.trusted.key_id));
    let mut trusts = has.take(4).collect::<Vec<_>>().join(", ");
    if trusts.is_empty() {
        trusts.push_str("none");
    }
    let id = &own.key_id;
    let message = format!("{other} does not trust this key, `{id}`; it trusts {trusts}");
    let help = match [this, other].map(module_of) {
        [Some(one), Some(two)] if one != two => {
            let pair = CommandLine::new("countersign pair").named(one, path_of(this));
            let both = pair.named(two, path_of(other));
            // A module that has a key there gets another beside it only with this option.
            let name = this.options.name.as_ref().map(|(name, _)| name.as_str());
            let same_name = known.iter().filter(|d| Some(&*d.name) == name);
            let keys = same_name.flat_map(|d| &d.keys).map(|key| &key.trusted.name);
            let taken: HashSet<_> = keys.map(|name| uniform(name)).collect();
            let free = free_key_name(|name| taken.contains(name));
            if taken.is_empty() {
                format!("pair the two files: {both}")
            } else {
                format!("pair the two files: {}", both.option("key-name", free))
            }
        }
        _ => "pair the two files with `countersign pair`".to_owned(),
    };
    this.report(Code::Cs0401, &own.at, message, help)
}

fn path_of(file: &Inspected) -> &Path {
    file.view.document.path()
}

/// Returns the module type of `file`, by the name of its home or of the file itself.
fn module_of(file: &Inspected) -> Option<&str> {
    let parts = path_of(file).iter().rev().filter_map(OsStr::to_str);
    let mut names = parts.map(|part| part.trim_end_matches(".properties"));
    names.find(|name| ["dpm", "dpe"].contains(name))
}

/// CS0403: does the other file use this module's own name?
fn name_there(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (name, at) = this.options.name.as_ref()?;
    let (deployment, key) = other.trusted(this.own.as_ref()?)?;
    let called = &deployment.name;
    if called == name.as_str() {
        return None;
    }
    let place = key.at.origin();
    let message =
        format!("this module's name is `{name}`, but {other} calls it `{called}`, at {place}");
    let help = format!("write `countersign.deployment.name={called}`");
    let found = this.report(Code::Cs0403, at, message, help);
    Some(found.with_severity(Severity::Error))
}

/// CS0403: do the two files put each other into one environment?
fn environments(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (theirs, _) = this.trusted(other.own.as_ref()?)?;
    let (ours, _) = other.trusted(this.own.as_ref()?)?;
    let (at, there) = theirs.environment.as_ref().zip(ours.environment.as_ref())?;
    let (here, differs, origin) = (at.text(), there.text(), there.origin());
    if here == differs {
        return None;
    }
    let message = format!("the environment is `{here}` here and `{differs}` at {origin}");
    let help = "write the same environment in both files";
    Some(this.report(Code::Cs0403, at, message, help))
}

/// Returns the own keys of the two if they are one key.
fn same_key<'a>(this: &'a Inspected, other: &'a Inspected) -> Option<(&'a OwnKey, &'a OwnKey)> {
    let both = this.own.as_ref().zip(other.own.as_ref());
    both.filter(|(own, theirs)| own.key.verifying_key() == theirs.key.verifying_key())
}

/// CS0404.
fn shared_key(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (own, theirs) = same_key(this, other)?;
    let message = format!("the same private key is at {}", theirs.at.origin());
    let explain = Code::Cs0404.explain();
    let help = format!("give one of the two a key of its own; {explain} says how");
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
        "tokens would live {lifetime} s; {other} accepts at most {accepted} s and would refuse them"
    );
    let help =
        format!("write a number up to {accepted}, or raise `countersign.token.max-lifetime` there");
    let at = this.set(LIFETIME).unwrap_or(&own.at);
    let found = this.report(Code::Cs0306, at, message, help);
    Some(found.with_key(LIFETIME))
}

// The vendor's sample values: of a client small in a DPE and large in a DPM, of a server medium and
// large. Small is also what applies where a file sets none.
const SMALL: usize = 4 << 20;
const MEDIUM: usize = 10 << 20;
const LARGE: usize = 1 << 30;

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
    let ends = [(this, here), (other, there)];
    let (file, at) = ends.into_iter().find_map(|(file, at)| Some((file, at?)))?;
    let message = format!("the client accepts {client} bytes, the server {server}");
    let help = "write the same size on both sides";
    let severity = match (client, server) {
        (SMALL | LARGE, SMALL | MEDIUM | LARGE) => Severity::Note,
        _ => Severity::Warning,
    };
    let found = file.report(Code::Cs0406, at, message, help);
    Some(found.with_severity(severity))
}

/// CS0306: does this file reuse tokens for a module that takes each once?
fn single_use(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (callee, _) = this.trusted(other.own.as_ref()?)?;
    if other.options.replay != Replay::Strict || callee.deployment.as_ref()?.single_use_tokens {
        return None;
    }
    let at = other.set("countersign.token.replay")?;
    let message = format!(
        "this module accepts each token once, but {this} would send it the same token again"
    );
    let name = &callee.name;
    let help = format!("in {this} write `countersign.deployments.{name}.single-use-tokens=true`");
    Some(other.report(Code::Cs0306, at, message, help))
}

/// CS0405: does TLS fit? Compares the connection of `this` that leads to `other` with the server of
/// `other`.
fn tls(this: &Inspected, other: &Inspected) -> Vec<Finding> {
    let connection = match this.leads_to(other) {
        Some(connection) => connection,
        // An engine that registers there is dialled back from there.
        None if other.leads_to(this) == Some("dpm") => DIAL_BACK,
        None => return Vec::new(),
    };
    let is_served = other.options.tls.server.on;
    match (this.options.tls.is_on(connection), is_served) {
        (false, false) => Vec::new(),
        (true, true) => {
            let client = client_pin(this, other, connection);
            server_pin(this, other).into_iter().chain(client).collect()
        }
        _ => Vec::from_iter(one_side(this, other, connection)),
    }
}

/// TLS on one side only.
fn one_side(this: &Inspected, other: &Inspected, connection: &str) -> Option<Finding> {
    let client = this.options.tls.clients.get(connection)?;
    let (file, at, calls, serves) = if client.on {
        (this, &client.at, "with", "without")
    } else {
        (other, &other.options.tls.server.at, "without", "with")
    };
    let message = format!(
        "connection `{connection}` of {this} is {calls} TLS, but the server of {other} is {serves} it"
    );
    let help = "turn TLS on or off on both sides; `countersign pair --tls` turns it on for both";
    Some(file.report(Code::Cs0405, at.as_ref()?, message, help))
}

/// Does `this` pin the certificate that the server of `other` shows?
fn server_pin(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (deployment, _) = this.trusted(other.own.as_ref()?)?;
    let server = other.options.tls.server.options.as_ref()?;
    missing_pin(this, deployment, other, server.own.fingerprint().ok()?)
}

/// Does `other` pin the certificate that `this` shows when it calls?
fn client_pin(this: &Inspected, other: &Inspected, connection: &str) -> Option<Finding> {
    let side = this.options.tls.clients.get(connection)?;
    let (deployment, _) = other.trusted(this.own.as_ref()?)?;
    let server = other.options.tls.server.options.as_ref()?;
    let client = side.options.as_ref()?;
    let is_asked = match server.client_auth {
        None => other.deployments.iter().any(|read| !read.pins.is_empty()),
        Some(auth) => auth != ClientAuth::None,
    };
    match &client.own {
        Some(own) if is_asked => {
            let shown = own.fingerprint().ok()?;
            if !deployment.pins.is_empty() || server.trust.is_some() {
                return missing_pin(other, deployment, this, shown);
            }
            let message = format!("{this} calls with a certificate that is not pinned here");
            let at = other.options.tls.server.at.as_ref()?;
            let name = &deployment.name;
            let help =
                format!("write `countersign.deployments.{name}.tls-keys.key.fingerprint={shown}`");
            Some(other.report(Code::Cs0405, at, message, help))
        }
        None if is_asked && server.client_auth != Some(ClientAuth::Optional) => {
            let message = format!(
                "the server of {other} requires a client certificate, but connection `{connection}` does not present one"
            );
            let at = side.cert_chain_at.as_ref().or(side.at.as_ref())?;
            let start = &client.settings;
            let help = format!("set `{start}.cert-chain` and `{start}.private-key`");
            Some(this.report(Code::Cs0405, at, message, help))
        }
        _ => None,
    }
}

/// Reports that `holder` pins other certificates for `deployment` than the one with the key
/// `shown`, which `owner` has.
fn missing_pin(
    holder: &Inspected,
    deployment: &ReadDeployment,
    owner: &Inspected,
    shown: Fingerprint,
) -> Option<Finding> {
    let (_, first) = deployment.pins.first()?;
    if deployment.pins.iter().any(|(pin, _)| *pin == shown) {
        return None;
    }
    let message = format!(
        "the certificate of {owner} has the key `{shown}`, which is not pinned here for {}",
        deployment.name
    );
    let setting = first.setting().unwrap_or_default();
    let help = format!("write `{setting}={shown}`");
    Some(holder.report(Code::Cs0405, first, message, help))
}

/// Checks the certificates of `files`; no finding is more severe than `most`.
pub fn certificates(files: &[Inspected], most: Severity) -> Vec<Finding> {
    let now = SystemClock.now();
    let mut all = Vec::new();
    for file in files {
        for (end, own, at) in file.options.tls.own() {
            // One that cannot be read is CS0306.
            let judged = own.judge(now, end == TlsEnd::Server);
            let (shown, severity, why) = match judged {
                Ok((shown, Some(fault))) => (shown, Severity::Error, fault),
                Ok((shown, None)) if shown.days_left(now) < Shown::SOON => {
                    (shown, Severity::Warning, "it must be renewed soon")
                }
                _ => continue,
            };
            let (key, validity) = (shown.fingerprint, shown.validity(now));
            let message = format!("the certificate in {}: {why} ({validity})", own.cert_chain);
            let help = format!(
                "peers refuse it unless they pin it: make another, as `countersign explain CS0308` shows, or write at every peer `countersign.deployments.<this module>.tls-keys.key.fingerprint={key}`"
            );
            let most_here = if is_pinned(file, files, key) {
                Severity::Note
            } else {
                most
            };
            let found = file.report(Code::Cs0308, at, message, help);
            all.push(found.with_severity(severity.min(most_here)));
        }
    }
    all
}

/// Returns `true` if every peer among `files` pins the certificate of `file` with this `key`;
/// without a peer, if `file` pins every peer's: `pair --tls` pins both.
fn is_pinned(file: &Inspected, files: &[Inspected], key: Fingerprint) -> bool {
    let own = file.own.as_ref();
    let peers: Vec<_> = files
        .iter()
        .filter_map(|other| other.trusted(own?))
        .collect();
    if peers.is_empty() {
        let known = &file.deployments;
        return !known.is_empty() && known.iter().all(|peer| !peer.pins.is_empty());
    }
    let mut pins = peers.iter().map(|(known, _)| known.pins.iter());
    pins.all(|mut pins| pins.any(|(pin, _)| *pin == key))
}
