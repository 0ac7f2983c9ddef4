//! This module's own key, `generator.key`: what it is, or what else it is.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::diagnostic::{Code, Finding};
use crate::jose::{
    JwkError, JwkProblem, KeyError, KeyFormat, KeyId, KeyMaterial, PrivateJwk, SigningKey,
    published,
};
use crate::properties::Sourced;

use super::check::Purpose;
use super::read::Reader;

pub(super) const NAME: &str = "ataccama.authentication.internal.jwt.generator.key";

/// The own key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct OwnKey {
    pub(super) key: SigningKey,
    pub(super) key_id: KeyId,
    pub(super) at: Sourced,
}

/// Reads the own key and reports what is wrong or unusual with it; none where there is none.
pub(super) fn read(reader: &mut Reader<'_>, purpose: Purpose) -> Option<OwnKey> {
    private_key(reader, NAME, purpose)
}

/// Reads the private key in the setting `name`, as [`read`] reads the own key.
pub(super) fn private_key(
    reader: &mut Reader<'_>,
    name: &'static str,
    purpose: Purpose,
) -> Option<OwnKey> {
    let at = reader.raw(name, &[])?.clone();
    let text = Zeroizing::new(at.text().trim().to_owned());
    let place = &Place {
        name,
        at: at.clone(),
    };
    if let Some(kind) = other_kind(&text) {
        let found = another_kind(reader, place, kind);
        reader.findings.push(found);
        return None;
    }
    match KeyMaterial::read(text.as_bytes()) {
        Ok((KeyMaterial::Private(key, kid), format)) => {
            let own = OwnKey {
                key_id: key_id(&key, kid)?,
                key,
                at,
            };
            report_unusual(reader, &own, place.name, (&text, format));
            report_published(reader, &own, (place.name, purpose));
            Some(own)
        }
        Ok((KeyMaterial::Public(..), format)) => {
            let found = match format {
                KeyFormat::Jwk | KeyFormat::Base64Jwk => unusable(reader, place, "`d` is missing"),
                _ => another_kind(reader, place, "a public key"),
            };
            reader.findings.push(found);
            None
        }
        Err(error) => {
            let found = refused(reader, place, &error);
            reader.findings.push(found);
            None
        }
    }
}

fn key_id(key: &SigningKey, kid: Option<KeyId>) -> Option<KeyId> {
    kid.or_else(|| KeyId::new(&key.fingerprint().to_string()).ok())
}

/// The setting, and where it stands.
struct Place {
    name: &'static str,
    at: Sourced,
}

/// Nobody makes a next key by hand.
const BEGIN_ANEW: &str = "forget it, and begin anew: `countersign rotate abort`";

const BLANKS: &str = "a text with blanks in it";

/// Names what stands there instead of a key, where the first characters tell.
fn other_kind(text: &str) -> Option<&'static str> {
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|s| s.eq_ignore_ascii_case(prefix))
    };
    match text {
        "" => Some("nothing"),
        _ if text.contains("${") => Some("a placeholder"),
        _ if text.starts_with('<') => Some("the placeholder of a template"),
        _ if starts("crypted:") || starts("ENC(") => Some("an encrypted value"),
        _ if starts("file:") => Some("a file name"),
        _ if starts("-----BEGIN") => Some("PEM"),
        _ if !text.starts_with('{') && text.contains(char::is_whitespace) => Some(BLANKS),
        _ => None,
    }
}

fn another_kind(reader: &Reader<'_>, at: &Place, kind: &str) -> Finding {
    let message = format!(
        "`{}` holds {kind}, not the base64 of a private JWK",
        at.name
    );
    let help = match kind {
        _ if at.name != NAME => BEGIN_ANEW,
        "PEM" => {
            "import it with `countersign key import FILE --out key.jwk`, then write the output of `base64 -w0 key.jwk`"
        }
        BLANKS => "write the key on one line and without blanks, as `base64 -w0 key.jwk` prints it",
        "a placeholder" => {
            "set the environment variable `ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY` instead"
        }
        _ => {
            "make a key with `countersign key gen --out key.jwk`, or pair the two modules with `countersign pair`"
        }
    };
    reader
        .finding(Code::Cs0206, &at.at, message)
        .with_key(at.name)
        .with_help(help)
}

fn unusable(reader: &Reader<'_>, at: &Place, why: &str) -> Finding {
    let help = if at.name == NAME {
        "copy the whole \"Public and Private Keypair\" again, or make a key with `countersign key gen --out key.jwk`"
    } else {
        BEGIN_ANEW
    };
    reader
        .finding(
            Code::Cs0204,
            &at.at,
            format!("`{}` cannot sign: {why}", at.name),
        )
        .with_key(at.name)
        .with_help(help)
}

fn refused(reader: &Reader<'_>, at: &Place, error: &KeyError) -> Finding {
    match error {
        KeyError::Jwk(jwk) => match jwk.problem() {
            JwkProblem::KeySet => another_kind(reader, at, "a set of keys"),
            JwkProblem::Pem => another_kind(reader, at, "PEM"),
            JwkProblem::KeyType(_)
            | JwkProblem::Curve(_)
            | JwkProblem::Algorithm(_)
            | JwkProblem::Use(_) => {
                another_kind(reader, at, &format!("another kind of key ({jwk})"))
            }
            _ => unusable(reader, at, &jwk_fault(jwk)),
        },
        KeyError::Base64Twice => unusable(reader, at, "it was encoded in base64 twice"),
        other => another_kind(reader, at, &format!("something else ({other})")),
    }
}

fn jwk_fault(error: &JwkError) -> String {
    error.to_string()
}

/// Notes what is allowed and yet not as the guide has it.
fn report_unusual(
    reader: &mut Reader<'_>,
    own: &OwnKey,
    name: &str,
    (text, format): (&str, KeyFormat),
) {
    let mut notes = Vec::new();
    if matches!(format, KeyFormat::Jwk) {
        notes.push("it is JSON; other modules expect the base64 of it".to_owned());
    }
    if let Some(jwk) = decoded(text).and_then(|json| PrivateJwk::parse(&json).ok()) {
        let absent = [
            ("kid", jwk.kid.is_some()),
            ("alg", jwk.alg_present),
            ("use", jwk.use_present),
        ];
        let absent = absent.iter().filter(|(_, present)| !present);
        notes.extend(absent.map(|(member, _)| format!("`{member}` is absent")));
    }
    let computed = own.key.fingerprint().to_string();
    if own.key_id.as_str() != computed {
        let rfc = own.key_id.as_str() == own.key.verifying_key().thumbprint();
        let kind = if rfc {
            "the RFC 7638 thumbprint"
        } else {
            "free text"
        };
        notes.push(format!(
            "its `kid` is {kind}, not the SHA-256 of the key, {computed}"
        ));
    }
    let what = if name == NAME {
        "the own key"
    } else {
        "the next key"
    };
    for note in notes {
        let found = reader.finding(Code::Cs0205, &own.at, format!("{what} is unusual: {note}"));
        reader
            .findings
            .push(found.with_key(name).with_help("nothing has to be done"));
    }
}

fn report_published(reader: &mut Reader<'_>, own: &OwnKey, (name, purpose): (&str, Purpose)) {
    if !published(own.key.fingerprint()) {
        return;
    }
    let what = if name == NAME { "own" } else { "next" };
    let message =
        format!("the {what} key is one of those printed in the vendor's guide: everybody knows it");
    let found = reader
        .finding(Code::Cs0209, &own.at, message)
        .with_key(name)
        .with_severity(purpose.published_severity())
        .with_help("make your own keys: `countersign pair` writes them");
    reader.findings.push(found);
}

/// The JSON behind the setting: itself, or what its base64 stands for.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    if text.starts_with('{') {
        return Some(Zeroizing::new(text.to_owned()));
    }
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [&alphabet::STANDARD, &alphabet::URL_SAFE];
    alphabets.iter().find_map(|alphabet| {
        let engine = GeneralPurpose::new(alphabet, config);
        let bytes = engine.decode(text.as_bytes()).ok()?;
        String::from_utf8(bytes).ok().map(Zeroizing::new)
    })
}
