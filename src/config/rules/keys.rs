//! Keys: this module's own, `generator.key`, and the next one: what each is, or what else it is, and
//! how far its change is; and the trusted ones: how `fingerprint`, `content` and `is-revoked` fit.

use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use crate::clock::from_rfc3339;
use crate::config::read::Reader;
use crate::config::settings::{OwnKey, ReadDeployment, ReadKey, RotationSettings};
use crate::config::view::{Part, add_public_parts};
use crate::diagnostic::{Code, CommandLine, Origin, Public, quote, quote_except, redact_except};
use crate::jose::{
    Fingerprint, JwkError, JwkProblem, KeyError, KeyFormat, KeyId, KeyMaterial, PrivateJwk,
    PublicJwk, VerifyingKey, json_of, missing_quotes, published, repair,
};
use crate::properties::Sourced;
use crate::trust::TrustedKey;

pub const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

const COPY: &str = "copy the whole \"Public and Private Keypair\" again, or, if the module was not paired yet, remove this line and let `countersign pair` make a key";
pub const IMPORT: &str = "save the key as a file, remove this line, and pass that file to `countersign pair` with `--key`, which writes the setting";
const MAKE: &str = "remove this line and let `countersign pair` make a key";
pub const ONE_LINE: &str = "write the key on one line and without blanks";
const VARIABLE: &str =
    "set the environment variable `ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY` instead";

/// Says how to get rid of a next key `at` this place: only `rotate` makes one.
pub fn discard(at: &Sourced) -> String {
    let Origin::File { path, .. } = at.origin() else {
        return "unset it: only `rotate` makes a next key".to_owned();
    };
    let abort = CommandLine::new("countersign rotate abort").option("home", &**path);
    format!("discard it and start again: {}", abort.flag("one-side"))
}

/// Returns the command that gives the module of the file `own` a new key in place of a lost one;
/// `peers` are the files that trust it, if any is here.
pub fn replacing(own: &Path, peers: &[&Path]) -> CommandLine {
    let replace = CommandLine::new("countersign rotate replace").option("home", own);
    let all = peers.iter();
    let command = all.fold(replace, |command, peer| command.option("peer-file", peer));
    command.flag_if(peers.is_empty(), "one-side")
}

/// Why a text is not a private key that can be used: the code, what is wrong, and the fix.
struct Fault(Code, String, &'static str);

/// Reads the private key in the setting `name`, and reports what is wrong or unusual with it;
/// `None` if the setting is absent or its key cannot be used.
pub fn private(reader: &mut Reader<'_>, name: &str) -> Option<OwnKey> {
    let at = reader.raw(name, &[])?.clone();
    let text = Zeroizing::new(at.text().trim().to_owned());
    let Fault(code, what, help) = match material(&text) {
        Ok((_, KeyFormat::JwkSet)) => other("a set of keys", MAKE),
        Ok((_, format)) if !format.fits_a_setting() => other("a key in another form", IMPORT),
        Ok((KeyMaterial::Private(key, kid), format)) => {
            let key_id = kid.or_else(|| KeyId::new(&key.fingerprint().to_string()).ok())?;
            let own = OwnKey { key, key_id, at };
            let what = match name {
                OWN_KEY => "this module's own key",
                _ => "the next key",
            };
            unusual(reader, &own.at, what, notes(&own, &text, format));
            report_published(reader, own.key.verifying_key(), &own.at, what);
            return Some(own);
        }
        Ok((KeyMaterial::Public(..), _)) => unusable("`d` is missing"),
        Err(fault) => fault,
    };
    let fix = match (name, at.origin()) {
        (OWN_KEY, Origin::File { path, .. }) if code == Code::Cs0204 => {
            let replace = replacing(path, &[]);
            format!("{help}; if its peers trust a key that is lost, replace it: {replace}")
        }
        (OWN_KEY, _) => help.to_owned(),
        _ => discard(&at),
    };
    reader.report(code, &at, format!("`{name}` {what}"), fix);
    None
}

fn other(kind: &str, help: &'static str) -> Fault {
    let what = format!("holds {kind}, not the base64 of a private JWK");
    Fault(Code::Cs0206, what, help)
}

fn unusable(why: &str) -> Fault {
    Fault(Code::Cs0204, format!("cannot sign: {why}"), COPY)
}

fn material(text: &str) -> Result<(KeyMaterial, KeyFormat), Fault> {
    // The first characters show what stands there instead of a key.
    Err(match text {
        "" => other("nothing", MAKE),
        _ if text.contains("${") => other("a placeholder", VARIABLE),
        _ if text.starts_with('<') => other("the placeholder of a template", MAKE),
        _ if starts(text, "crypted:") || starts(text, "ENC(") => other("an encrypted value", MAKE),
        _ if starts(text, "file:") => other("a file name", MAKE),
        _ if starts(text, "-----BEGIN") => other("PEM", IMPORT),
        _ if !text.starts_with('{') && text.contains(char::is_whitespace) => {
            other("a text with blanks in it", ONE_LINE)
        }
        _ => return KeyMaterial::read(text.as_bytes()).map_err(|error| refused(&error)),
    })
}

/// Returns `true` if `text` is a private key that a module can have.
pub fn is_usable(text: &str) -> bool {
    matches!(material(text), Ok((KeyMaterial::Private(..), format)) if format.fits_a_setting())
}

fn starts(text: &str, prefix: &str) -> bool {
    let start = text.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn refused(error: &KeyError) -> Fault {
    match error {
        KeyError::Jwk(jwk) => match jwk.problem() {
            JwkProblem::KeySet => other("a set of keys", MAKE),
            JwkProblem::Pem => other("PEM", IMPORT),
            JwkProblem::Value { .. } => other(&format!("an unsupported kind of key ({jwk})"), MAKE),
            _ => unusable(&jwk.to_string()),
        },
        KeyError::KeySet(_) => other("a set of keys", MAKE),
        KeyError::Base64Twice => unusable("it is encoded in base64 twice"),
        error => other(&format!("something else ({error})"), MAKE),
    }
}

/// Notes what is allowed and yet not as the guide has it.
fn notes(own: &OwnKey, text: &str, format: KeyFormat) -> Vec<String> {
    let mut notes = Vec::new();
    if matches!(format, KeyFormat::Jwk) {
        notes.push("the key is JSON, but other modules expect its base64".to_owned());
    }
    if let Some(jwk) = json_of(text).and_then(|json| PrivateJwk::parse(&json).ok()) {
        notes.extend(absent("kid", jwk.kid.is_some()));
        notes.extend(absent("alg", jwk.alg_present));
        notes.extend(absent("use", jwk.use_present));
    }
    notes.extend(other_name(&own.key_id, own.key.verifying_key(), "`kid`"));
    notes
}

/// Notes that the `member` of a JWK is absent.
pub fn absent(member: &str, present: bool) -> Option<String> {
    (!present).then(|| format!("`{member}` is absent"))
}

/// Notes that a key has another name than the SHA-256 of it; `what` is where the name stands.
pub fn other_name(key_id: &KeyId, key: &VerifyingKey, what: &str) -> Option<String> {
    let computed = key.fingerprint().to_string();
    let kind = match key_id.as_str() {
        name if name == computed => return None,
        name if name == key.thumbprint() => "the RFC 7638 thumbprint",
        _ => "free text",
    };
    Some(format!(
        "the {what} is {kind}; the SHA-256 of the key is `{computed}`"
    ))
}

pub fn unusual(reader: &mut Reader<'_>, at: &Sourced, what: &str, notes: Vec<String>) {
    for note in notes {
        let message = format!("{what} is unusual: {note}");
        reader.report(Code::Cs0205, at, message, "no action is needed");
    }
}

/// Reports a key that is published in the vendor's guide.
pub fn report_published(reader: &mut Reader<'_>, key: &VerifyingKey, at: &Sourced, what: &str) {
    if published(key.fingerprint()) {
        let message = format!("{what} is printed in the vendor's guide, so it is not secret");
        let found = reader.finding(Code::Cs0209, at, message);
        let help = "make your own keys: `countersign pair` writes them";
        reader.push(found.error_if(reader.question.is_run()).with_help(help));
    }
}

pub const NEXT_KEY: &str = "countersign.rotation.next-key";
pub const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
pub const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// Reads the settings, and reports a next key that could never take the own key's place.
pub fn rotation(
    reader: &mut Reader<'_>,
    own: Option<&OwnKey>,
    deployments: &[ReadDeployment],
) -> RotationSettings {
    let next = private(reader, NEXT_KEY);
    if let Some(next) = &next {
        let public = next.key.verifying_key();
        if own.is_some_and(|own| own.key.verifying_key() == public) {
            let message = "the next key is the current key; a rotation would change nothing";
            reader.report(Code::Cs0204, &next.at, message, discard(&next.at));
        }
        let mut keys = deployments.iter().flat_map(|deployment| &deployment.keys);
        if let Some(key) = keys.find(|key| key.trusted.key == *public) {
            let message = format!("the next key is a peer's, at {}", key.at.origin());
            reader.report(Code::Cs0207, &next.at, message, discard(&next.at));
        }
    }
    let activated_at = reader.parsed(ACTIVATED_AT, &[], |text| {
        from_rfc3339(text).ok_or("is not a time such as `2026-01-31T12:00:00Z`")
    });
    let previous = reader.named(PREVIOUS, &[], "a fingerprint", |text| {
        let keys = text.split(',').map(|key| key.trim().parse());
        keys.collect::<Result<Vec<Fingerprint>, _>>()
    });
    RotationSettings {
        next: next.map(|next| (next.key, next.key_id)),
        activated_at: activated_at.map(|(time, _)| time),
        previous: previous.map(|(keys, _)| keys).unwrap_or_default(),
    }
}

pub const FINGERPRINT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.fingerprint";
pub const CONTENT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.content";
pub const REVOKED: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";
const COPY_PUBLIC: &str = "JSON on one line, without `d` and `use`";

/// Reads the key `name` of `deployment`; `None` if something required is missing or wrong.
pub fn trusted(reader: &mut Reader<'_>, deployment: &str, name: &str) -> Option<ReadKey> {
    let keys = &[deployment, name];
    let revoked = reader.switch(REVOKED, keys);
    let fingerprint = required(reader, FINGERPRINT, keys);
    let content = required(reader, CONTENT, keys);
    let named = fingerprint.and_then(|_| reader.named(FINGERPRINT, keys, "a key id", KeyId::new));
    let jwk = public_key(reader, content.as_ref()?);
    let (key_id, at) = named?;
    let (jwk, content) = jwk.zip(content)?;
    if fits(reader, &at, &key_id, &jwk) {
        let mut notes = Vec::from_iter(other_name(&key_id, &jwk.key, "fingerprint"));
        notes.extend(absent("kid", jwk.kid.is_some()));
        notes.extend(absent("alg", jwk.alg_present));
        unusual(reader, &content, "this key", notes);
    }
    report_published(reader, &jwk.key, &content, "this key");
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
    let found = reader.finding(Code::Cs0210, at, message);
    let judged = found.error_if(!reader.question.is_run());
    let file = reader.view.document.path();
    let undo = CommandLine::new("countersign revoke --undo").option("home", file);
    let command = undo.option("fingerprint", fingerprint.to_string());
    reader.push(judged.with_help(format!(
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
        Err(error) => refused_public(reader, value, error),
    }
    parsed.ok()
}

/// Points at the place in the JSON and offers the corrected line.
fn refused_public(reader: &mut Reader<'_>, value: &Sourced, error: &JwkError) {
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
            add_public_parts(&mut public, [&**repaired]);
            let shown = redact_except(repaired, &public);
            format!("write `{setting}={shown}`")
        }
        (_, _, JwkProblem::ShortCoordinate { member, padded, .. }) => {
            format!("write `\"{member}\":\"{padded}\"` in it")
        }
        (_, _, JwkProblem::Pem) => {
            "convert it with `countersign key import`, and copy the public JWK".to_owned()
        }
        _ => format!("copy the peer's public key again: {COPY_PUBLIC}"),
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
