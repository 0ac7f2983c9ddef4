//! One trusted key: `fingerprint`, `content` and `is-revoked`, and how they fit.

use std::collections::HashMap;

use crate::diagnostic::{Code, Finding, Public, quote, quote_except, redact_except};
use crate::jose::{
    JwkError, JwkProblem, KeyId, PublicJwk, VerifyingKey, missing_quotes, published, repair,
};
use crate::properties::Sourced;
use crate::properties::placeholder::has_placeholder;

use super::check::Purpose;
use super::deployments::{ReadDeployment, ReadKey, Said};
use super::own_key::OwnKey;
use super::public_text;
use super::read::Reader;
use super::schema;
use super::view::{Part, View, finding};

const FINGERPRINT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.fingerprint";
const CONTENT: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.content";
const REVOKED: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";

/// Reads the key `name` of `deployment`; none where something required is missing or wrong.
pub(super) fn read(
    reader: &mut Reader<'_>,
    deployment: &str,
    name: &str,
    purpose: Purpose,
) -> Option<ReadKey> {
    let keys = [deployment.to_owned(), name.to_owned()];
    let revoked = reader.switch(REVOKED, &keys);
    let fingerprint = required(reader, FINGERPRINT, &keys);
    let content = required(reader, CONTENT, &keys);
    let key_id = fingerprint.and_then(|value| key_id(reader, &keys, value));
    let jwk = content.and_then(|value| public_key(reader, &keys, value));
    let (key_id, at) = key_id?;
    let (jwk, content) = jwk?;
    let fits = fits(reader, &keys, (&key_id, &at), &jwk);
    if fits {
        report_unusual(reader, &keys, (&key_id, &content), &jwk);
    }
    report_published(reader, &keys, (&jwk.key, &content), purpose);
    Some(ReadKey {
        name: name.to_owned(),
        key: jwk.key,
        key_id,
        // One that cannot be read is an error, and nothing runs on a file with errors.
        revoked: revoked.unwrap_or(false),
        said: reader.raw(REVOKED, &keys).map(|value| Said {
            origin: value.origin().clone(),
            literally: !has_placeholder(value.text()),
        }),
        at,
    })
}

fn required(reader: &mut Reader<'_>, name: &str, keys: &[String]) -> Option<Sourced> {
    let value = reader.text(name, keys);
    if value.as_ref().is_some_and(|value| !value.text().is_empty()) {
        return value;
    }
    let setting = schema::path(name, keys).join(".");
    let (at, part) = match (value, reader.is_set(name, keys)) {
        (Some(value), _) if name == CONTENT => {
            let message = format!("`{setting}` is not a valid public P-256 JWK: it is empty");
            let found = reader.finding(Code::Cs0201, &value, message);
            let help = "copy the peer's public key: JSON on one line, without `d` and `use`";
            reader
                .findings
                .push(found.with_key(setting).with_help(help));
            return None;
        }
        (Some(value), _) => (value, Part::Value),
        // A placeholder that cannot be resolved is reported already.
        (None, true) => return None,
        (None, false) => {
            let mut path = schema::path(name, keys);
            path.pop();
            (reader.first_below(&path), Part::Name)
        }
    };
    let missing = name.rsplit('.').next().unwrap_or(name);
    let key = keys.last().map(String::as_str).unwrap_or_default();
    let message = format!("key {} has no `{missing}`", quote(key));
    let found = finding(reader.view(), Code::Cs0301, &at, part, message);
    reader.findings.push(
        found
            .with_help(format!("add `{setting}=`, copied from the peer's key"))
            .with_key(setting),
    );
    None
}

fn key_id(reader: &mut Reader<'_>, keys: &[String], value: Sourced) -> Option<(KeyId, Sourced)> {
    match KeyId::new(value.text()) {
        Ok(key_id) => Some((key_id, value)),
        Err(error) => {
            reader.wrong(FINGERPRINT, keys, &value, &format!("names no key: {error}"));
            None
        }
    }
}

fn public_key(
    reader: &mut Reader<'_>,
    keys: &[String],
    value: Sourced,
) -> Option<(PublicJwk, Sourced)> {
    match PublicJwk::parse(value.text()) {
        Ok(jwk) => {
            if jwk.unescaped {
                let message = "the quotes of this key are escaped with backslashes";
                let found = reader.finding(Code::Cs0110, &value, message);
                let setting = schema::path(CONTENT, keys).join(".");
                reader.findings.push(found.with_key(setting));
            }
            Some((jwk, value))
        }
        Err(error) => {
            let found = refused(reader, keys, &value, &error);
            reader.findings.push(found);
            None
        }
    }
}

/// Points at the place in the JSON and offers the corrected line.
fn refused(reader: &Reader<'_>, keys: &[String], value: &Sourced, error: &JwkError) -> Finding {
    let setting = schema::path(CONTENT, keys).join(".");
    let mended = repair(value.text());
    let reparsed = mended.as_deref().map(PublicJwk::parse);
    let is_private = |error: &JwkError| matches!(error.problem(), JwkProblem::PrivatePart);
    if is_private(error) || matches!(&reparsed, Some(Err(error)) if is_private(error)) {
        let message = format!("`{setting}` holds a private key: the member `d` is there");
        return reader
            .finding(Code::Cs0203, value, message)
            .with_key(setting)
            .with_label("a private key")
            .with_help("treat the key as leaked: make a new one for the peer, and put only its public part here, without `d` and `use`");
    }
    let part = match error.offset() {
        Some(offset) if reader.stands_as_written(value) => Part::Offset(offset),
        _ => Part::Value,
    };
    let message = format!("`{setting}` is not a valid public P-256 JWK: {error}");
    let found = finding(reader.view(), Code::Cs0201, value, part, message);
    let found = match missing_quotes(value.text()).as_slice() {
        [] => found,
        [_] => found.with_label("a quote is missing before this"),
        [_, more @ ..] => {
            let columns: Vec<_> = more.iter().map(|at| reader.column(value, *at)).collect();
            found.with_label(format!(
                "a quote is missing before this, and in column {}",
                columns.join(", ")
            ))
        }
    };
    let help = match (reparsed, mended, error.problem()) {
        (Some(Ok(_)), Some(mended), _) => {
            let mended = redact_except(&mended, &public_text::within(&mended));
            format!("write `{setting}={mended}`")
        }
        (_, _, JwkProblem::ShortCoordinate { member, padded, .. }) => {
            format!("write `\"{member}\":\"{padded}\"` in it")
        }
        (_, _, JwkProblem::Pem) => {
            "convert it with `countersign key import FILE`, and copy the public JWK".to_owned()
        }
        _ => "copy the peer's public key again: JSON on one line, without `d` and `use`".to_owned(),
    };
    found.with_key(setting).with_help(help)
}

/// Holds the fingerprint against the key; false where they are of two keys.
fn fits(
    reader: &mut Reader<'_>,
    keys: &[String],
    (key_id, at): (&KeyId, &Sourced),
    jwk: &PublicJwk,
) -> bool {
    if jwk.kid.as_ref() == Some(key_id) {
        return true;
    }
    let computed = jwk.key.fingerprint().to_string();
    let thumbprint = jwk.key.thumbprint();
    let configured = key_id.as_str();
    let (expected, what) = match &jwk.kid {
        Some(kid) => (kid.as_str(), "the `kid` of `content`"),
        None if configured == computed || configured == thumbprint => return true,
        None => (computed.as_str(), "the fingerprint of `content`"),
    };
    let equals = if configured == computed {
        "; it is the SHA-256 of that key, so the `kid` is another key's or free text".to_owned()
    } else if configured == thumbprint {
        "; it is the RFC 7638 thumbprint of that key".to_owned()
    } else if configured.eq_ignore_ascii_case(&jwk.key.fingerprint().to_hex()) {
        "; it is the SHA-256 of that key in hexadecimal, base64url belongs here".to_owned()
    } else if expected == computed {
        "; it is the name of another key".to_owned()
    } else {
        format!("; the SHA-256 of that key is `{computed}`")
    };
    let setting = schema::path(FINGERPRINT, keys).join(".");
    let none = Public::default();
    let public = reader.view().map_or(&none, View::public);
    let message = format!(
        "`fingerprint` is {}, but {what} is {}{equals}",
        quote_except(configured, public),
        quote_except(expected, public)
    );
    let found = reader.finding(Code::Cs0202, at, message);
    reader.findings.push(
        found
            .with_label("not this key's")
            .with_help(format!(
                "if `content` is the peer's key write `{setting}={expected}`; else copy `content` again from the peer"
            ))
            .with_key(setting),
    );
    false
}

/// Notes what is allowed and yet not as the guide has it.
fn report_unusual(
    reader: &mut Reader<'_>,
    keys: &[String],
    (key_id, at): (&KeyId, &Sourced),
    jwk: &PublicJwk,
) {
    let mut notes = Vec::new();
    let computed = jwk.key.fingerprint().to_string();
    if key_id.as_str() != computed {
        let is_thumbprint = key_id.as_str() == jwk.key.thumbprint();
        let what = if is_thumbprint {
            "the RFC 7638 thumbprint"
        } else {
            "free text"
        };
        notes.push(format!(
            "the fingerprint is {what}; the SHA-256 of the key is `{computed}`"
        ));
    }
    if jwk.kid.is_none() {
        notes.push("`kid` is absent".to_owned());
    }
    if !jwk.alg_present {
        notes.push("`alg` is absent".to_owned());
    }
    for note in notes {
        let setting = schema::path(CONTENT, keys).join(".");
        let found = reader.finding(Code::Cs0205, at, format!("this key is unusual: {note}"));
        let found = found.with_help("nothing has to be done");
        reader.findings.push(found.with_key(setting));
    }
}

fn report_published(
    reader: &mut Reader<'_>,
    keys: &[String],
    (key, at): (&VerifyingKey, &Sourced),
    purpose: Purpose,
) {
    if !published(key.fingerprint()) {
        return;
    }
    let message = "this is one of the keys printed in the vendor's guide: everybody knows it";
    let found = reader
        .finding(Code::Cs0209, at, message)
        .with_severity(purpose.published_severity())
        .with_key(schema::path(CONTENT, keys).join("."))
        .with_help("make your own keys: `countersign pair` writes them");
    reader.findings.push(found);
}

/// Reports keys and key ids that stand in two places, and the own key among the trusted ones.
pub(super) fn ambiguous(
    reader: &mut Reader<'_>,
    own: Option<&OwnKey>,
    deployments: &[ReadDeployment],
) {
    let mut by_key: HashMap<&VerifyingKey, &Sourced> = HashMap::new();
    let mut by_id: HashMap<&KeyId, &Sourced> = HashMap::new();
    let all = deployments.iter();
    for (deployment, key) in all.flat_map(|d| d.keys.iter().map(move |key| (d, key))) {
        let keys = [deployment.name.clone(), key.name.clone()];
        let is_own = own.filter(|own| {
            *own.key.verifying_key() == key.key || own.key_id.as_str() == key.key_id.as_str()
        });
        if let Some(own) = is_own {
            let message = format!(
                "this is the module's own key, whose private part stands at {}",
                own.at.origin()
            );
            let found = reader.finding(Code::Cs0207, &key.at, message);
            reader.findings.push(
                found
                    .with_key(schema::path(FINGERPRINT, &keys).join("."))
                    .with_help("put the peer's public key here; were the two swapped?"),
            );
        }
        let same_key = by_key.insert(&key.key, &key.at);
        let same_id = by_id.insert(&key.key_id, &key.at);
        let (what, other) = match (same_key, same_id) {
            (Some(other), _) => ("key", other),
            (None, Some(other)) => ("fingerprint", other),
            (None, None) => continue,
        };
        let message = format!("this {what} also stands at {}", other.origin());
        let found = reader.finding(Code::Cs0208, &key.at, message);
        reader.findings.push(
            found
                .with_key(schema::path(FINGERPRINT, &keys).join("."))
                .with_help("keep one of the two; each deployment has its own keys"),
        );
    }
}
