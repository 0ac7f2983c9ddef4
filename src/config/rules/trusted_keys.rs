//! One trusted key: `fingerprint`, `content` and `is-revoked`, and how they fit.

use std::collections::HashMap;

use crate::config::read::Reader;
use crate::config::settings::{OwnKey, ReadDeployment, ReadKey};
use crate::config::view::{Part, add_public_parts};
use crate::diagnostic::{Code, CommandLine, Public, Severity, quote, quote_except, redact_except};
use crate::jose::{JwkError, JwkProblem, KeyId, PublicJwk, VerifyingKey, missing_quotes, repair};
use crate::properties::Sourced;
use crate::trust::TrustedKey;

use super::keys;

pub const FINGERPRINT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.fingerprint";
pub const CONTENT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.content";
pub const REVOKED: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";
const COPY: &str = "JSON on one line, without `d` and `use`";

/// Reads the key `name` of `deployment`; `None` if something required is missing or wrong.
pub fn read(reader: &mut Reader<'_>, deployment: &str, name: &str) -> Option<ReadKey> {
    let keys = &[deployment, name];
    let revoked = reader.switch(REVOKED, keys);
    let fingerprint = required(reader, FINGERPRINT, keys);
    let content = required(reader, CONTENT, keys);
    let named = fingerprint.and_then(|_| reader.named(FINGERPRINT, keys, "a key id", KeyId::new));
    let jwk = public_key(reader, content.as_ref()?);
    let (key_id, at) = named?;
    let (jwk, content) = jwk.zip(content)?;
    if fits(reader, &at, &key_id, &jwk) {
        let mut notes = Vec::from_iter(keys::other_name(&key_id, &jwk.key, "fingerprint"));
        notes.extend(keys::absent("kid", jwk.kid.is_some()));
        notes.extend(keys::absent("alg", jwk.alg_present));
        keys::unusual(reader, &content, "this key", notes);
    }
    keys::report_published(reader, &jwk.key, &content, "this key");
    let remembered = !revoked && is_remembered(reader, &jwk.key, &at);
    Some(ReadKey {
        trusted: TrustedKey {
            name: name.to_owned(),
            key: jwk.key,
            key_id,
            revoked: revoked || remembered,
        },
        at,
        revoked_at: reader.raw(REVOKED, keys).cloned(),
        remembered,
    })
}

/// Returns `true`, and reports it, if the home remembers `key` as revoked.
fn is_remembered(reader: &mut Reader<'_>, key: &VerifyingKey, at: &Sourced) -> bool {
    let fingerprint = key.fingerprint();
    if !reader.remembered.has(fingerprint) {
        return false;
    }
    let message =
        format!("this module's home remembers that key {fingerprint} is revoked; it stays refused");
    let severity = if reader.question.is_run() {
        Severity::Warning
    } else {
        Severity::Error
    };
    let found = reader
        .finding(Code::Cs0210, at, message)
        .with_severity(severity);
    let file = reader.view.document.path();
    let undo = CommandLine::new("countersign revoke --undo").option("file", file);
    let command = undo.option("fingerprint", fingerprint.to_string());
    reader.push(found.with_help(format!(
        "write `is-revoked=true`; only if the key was never lost: {command}"
    )));
    true
}

fn required(reader: &mut Reader<'_>, name: &str, keys: &[&str; 2]) -> Option<Sourced> {
    let (_, member) = name.rsplit_once('.')?;
    let [_, key] = keys;
    let what = format!("key {} has no `{member}`", quote(key));
    reader.required(name, keys, what, "copied from the peer's key")
}

fn public_key(reader: &mut Reader<'_>, value: &Sourced) -> Option<PublicJwk> {
    let parsed = PublicJwk::parse(value.text());
    match &parsed {
        Ok(jwk) if jwk.unescaped => {
            let message = "the quotes of this key are escaped with backslashes";
            reader.push(reader.finding(Code::Cs0110, value, message));
        }
        Ok(_) => {}
        Err(error) => refused(reader, value, error),
    }
    parsed.ok()
}

/// Points at the place in the JSON and offers the corrected line.
fn refused(reader: &mut Reader<'_>, value: &Sourced, error: &JwkError) {
    let setting = value.setting().unwrap_or_default();
    let repaired = repair(value.text());
    let reparsed = repaired.as_deref().map(PublicJwk::parse);
    let again = reparsed.as_ref().and_then(|read| read.as_ref().err());
    let mut errors = [Some(error), again].into_iter().flatten();
    if errors.any(|error| matches!(error.problem(), JwkProblem::PrivatePart)) {
        let message = format!("`{setting}` holds a private key: it has the member `d`");
        let found = reader.finding(Code::Cs0203, value, message);
        let help = "treat the key as leaked: make a new one for the peer, and put only its public part here, without `d` and `use`";
        reader.push(found.with_label("a private key").with_help(help));
        return;
    }
    let part = match error.offset() {
        Some(offset) if reader.stands_as_written(value) => Part::Offset(offset),
        _ => Part::Value,
    };
    let message = format!("`{setting}` is not a valid public P-256 JWK: {error}");
    let mut found = reader.view.about(Code::Cs0201, value, part, message);
    if let [_, more @ ..] = missing_quotes(value.text()).as_slice() {
        let label = match more {
            [] => "a quote is missing before this".to_owned(),
            [at] => {
                let column = reader.column(value, *at);
                format!("a quote is missing before this, and in column {column}")
            }
            [_, _, ..] => format!(
                "quotes are missing before this, and in {} more places",
                more.len()
            ),
        };
        found = found.with_label(label);
    }
    let help = match (&reparsed, &repaired, error.problem()) {
        (Some(Ok(_)), Some(repaired), _) => {
            let mut public = Public::default();
            add_public_parts(&mut public, repaired);
            let shown = redact_except(repaired, &public);
            format!("write `{setting}={shown}`")
        }
        (_, _, JwkProblem::ShortCoordinate { member, padded, .. }) => {
            format!("write `\"{member}\":\"{padded}\"` in it")
        }
        (_, _, JwkProblem::Pem) => {
            "convert it with `countersign key import`, and copy the public JWK".to_owned()
        }
        _ => format!("copy the peer's public key again: {COPY}"),
    };
    reader.push(found.with_help(help));
}

/// Compares the fingerprint with the key; returns `false` if they are of two keys.
fn fits(reader: &mut Reader<'_>, at: &Sourced, key_id: &KeyId, jwk: &PublicJwk) -> bool {
    if jwk.kid.as_ref() == Some(key_id) {
        return true;
    }
    let computed = jwk.key.fingerprint().to_string();
    let is_thumbprint = key_id.as_str() == jwk.key.thumbprint();
    let configured = key_id.as_str();
    let (expected, what) = match &jwk.kid {
        Some(kid) => (kid.as_str(), "the `kid` of `content`"),
        None if configured == computed || is_thumbprint => return true,
        None => (computed.as_str(), "the fingerprint of `content`"),
    };
    let equals = if configured == computed {
        "it is the SHA-256 of that key, so the `kid` is of a different key or is free text"
    } else if is_thumbprint {
        "it is the RFC 7638 thumbprint of that key"
    } else if configured.eq_ignore_ascii_case(&jwk.key.fingerprint().to_hex()) {
        "it is the SHA-256 of that key in hexadecimal; write it in base64url"
    } else if expected == computed {
        "it is the name of another key"
    } else {
        &*format!("the SHA-256 of that key is `{computed}`")
    };
    let public = reader.view.public();
    let message = format!(
        "`fingerprint` is {}, but {what} is {}; {equals}",
        quote_except(configured, public),
        quote_except(expected, public)
    );
    let setting = at.setting().unwrap_or_default();
    let help = format!(
        "if `content` is the peer's key, write `{setting}={expected}`; otherwise copy `content` again from the peer"
    );
    let found = reader.finding(Code::Cs0202, at, message);
    reader.push(found.with_label("not this key's").with_help(help));
    false
}

/// Reports keys and key IDs that are in two places, and the module's own key if it is trusted.
pub fn ambiguous(reader: &mut Reader<'_>, own: Option<&OwnKey>, deployments: &[ReadDeployment]) {
    let mut by_key = HashMap::new();
    let mut by_id = HashMap::new();
    for ReadKey { trusted, at, .. } in deployments.iter().flat_map(|read| &read.keys) {
        let is_own = own
            .filter(|own| *own.key.verifying_key() == trusted.key || own.key_id == trusted.key_id);
        if let Some(own) = is_own {
            let message = format!(
                "this is the module's own key; its private part is at {}",
                own.at.origin()
            );
            let help = "put the peer's public key here; check if the two were swapped";
            reader.report(Code::Cs0207, at, message, help);
        }
        let same_key = by_key.insert(&trusted.key, at);
        let same_id = by_id.insert(&trusted.key_id, at);
        let (what, other) = match (same_key, same_id) {
            (Some(other), _) => ("key", other),
            (None, Some(other)) => ("fingerprint", other),
            (None, None) => continue,
        };
        let message = format!("this {what} is also at {}", other.origin());
        let help = "keep one of the two; each deployment has its own keys";
        reader.report(Code::Cs0208, at, message, help);
    }
}
