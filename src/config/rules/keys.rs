//! This module's own key, `generator.key`, and the next one: what it is, or what else it is, and how
//! far its change is.

use zeroize::Zeroizing;

use crate::config::read::Reader;
use crate::config::settings::{OwnKey, ReadDeployment, RotationSettings};
use crate::diagnostic::{Code, CommandLine, Origin, Severity};
use crate::jose::{
    Fingerprint, JwkProblem, KeyError, KeyFormat, KeyId, KeyMaterial, PrivateJwk, VerifyingKey,
    json_of, published,
};
use crate::properties::Sourced;
use crate::telemetry::from_rfc3339;

pub const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

const COPY: &str = "copy the whole \"Public and Private Keypair\" again, or remove this line and let `countersign pair` make a key";
pub const IMPORT: &str = "save it as a file, remove this line, and name the file with `--key` of `countersign pair`, which writes it";
const MAKE: &str = "remove this line and let `countersign pair` make a key";
pub const ONE_LINE: &str = "write the key on one line and without blanks";
const VARIABLE: &str =
    "set the environment variable `ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY` instead";

/// Says how to get rid of a next key `at` this place: only `rotate` makes one.
pub fn discard(at: &Sourced) -> String {
    let Origin::File { path, .. } = at.origin() else {
        return "unset it: only `rotate` makes a next key".to_owned();
    };
    let abort = CommandLine::new("countersign rotate abort").option("file", &**path);
    format!("discard it and start again: {}", abort.flag("one-side"))
}

/// Why a text is not a private key that can be used: the code, what is wrong, and the fix.
struct Fault(Code, String, &'static str);

/// Reads the private key in the setting `name`, and reports what is wrong or unusual with it;
/// `None` if the setting is absent or its key cannot be used.
pub fn private(reader: &mut Reader<'_>, name: &str) -> Option<OwnKey> {
    let at = reader.raw(name, &[])?.clone();
    let text = Zeroizing::new(at.text().trim().to_owned());
    let Fault(code, what, help) = match material(&text) {
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
        Ok((KeyMaterial::Public(..), KeyFormat::Jwk | KeyFormat::Base64Jwk)) => {
            unusable("`d` is missing")
        }
        Ok((KeyMaterial::Public(..), _)) => other("a public key", MAKE),
        Err(fault) => fault,
    };
    let fix = match name {
        OWN_KEY => help.to_owned(),
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
    let read = material(text);
    use KeyFormat::{Base64Jwk, Jwk};
    matches!(read, Ok((KeyMaterial::Private(..), Jwk | Base64Jwk)))
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
        let severity = if reader.question.is_run() {
            Severity::Error
        } else {
            Severity::Warning
        };
        reader.push(found.with_severity(severity).with_help(help));
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
