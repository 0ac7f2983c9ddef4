//! EC P-256 JSON Web Keys ([RFC 7517], [RFC 7518, 6.2]): strict in, mkjwk's member order out.
//!
//! [RFC 7517]: https://www.rfc-editor.org/rfc/rfc7517
//! [RFC 7518, 6.2]: https://www.rfc-editor.org/rfc/rfc7518#section-6.2

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::error::{JwkError, JwkProblem};
use super::fingerprint::KeyId;
use super::json::{self, shown};
use super::key::{SigningKey, VerifyingKey};
use super::repair::{Text, with_quotes};
use crate::secret::Secret;

/// A key as a JWK, and which of the members that may be absent were there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Jwk<K> {
    /// The key.
    pub key: K,
    /// The member `kid`.
    pub kid: Option<KeyId>,
    /// Whether `alg` was there.
    pub alg_present: bool,
    /// Whether `use` was there.
    pub use_present: bool,
    /// Whether backslashes before the quotes had to be taken off first.
    pub unescaped: bool,
}

/// A public key as a JWK.
///
/// *Checked*: strict JSON, each member once; `kty` `EC`; `crv` `P-256`; `x` and `y` canonical
/// base64url of exactly 32 bytes and a point of the curve; no `d`; `use` absent or `sig`;
/// `key_ops` absent or only `verify`; `alg` absent or `ES256`; `kid` absent or a [`KeyId`].
/// *Not checked*: that `kid` is the fingerprint of the key. Other members are ignored.
pub type PublicJwk = Jwk<VerifyingKey>;

/// A private key as a JWK.
///
/// Checked like [`PublicJwk`], but `d` is required, in range, and must belong to `x` and `y`;
/// `key_ops` must allow `sign` if present. A member `iat`, when the key was made ([OpenID
/// Federation 1.0, 8.7.2]), is taken where it is a `NumericDate` from 1970 to 9999, else ignored.
///
/// [OpenID Federation 1.0, 8.7.2]: https://openid.net/specs/openid-federation-1_0.html
pub type PrivateJwk = Jwk<SigningKey>;

impl PublicJwk {
    /// Parses a public JWK.
    ///
    /// # Errors
    ///
    /// When one of the checks above fails; a `d` is reported before anything else of the key.
    pub fn parse(json: &str) -> Result<Self, JwkError> {
        let text = Text::new(json);
        text.locate(Self::read(&text))
    }

    fn read(text: &Text<'_>) -> Result<Self, JwkProblem> {
        let mut members = text.members()?;
        if let Some(private) = members.remove("d") {
            if let Value::String(d) = private {
                drop(Zeroizing::new(d));
            }
            return Err(JwkProblem::PrivatePart);
        }
        common(&members, "verify", text, Ok)
    }

    /// Writes `key` on one line in mkjwk's member order without `d` and `use`:
    /// `kty`, `crv`, `kid`, `x`, `y`, `alg`, as the guide writes `content`.
    pub fn write(key: &VerifyingKey, kid: &KeyId) -> String {
        write(key, None, kid, LINE)
    }

    /// Writes `key` like [`PublicJwk::write`], one member a line, indented by four.
    pub fn write_pretty(key: &VerifyingKey, kid: &KeyId) -> String {
        write(key, None, kid, PRETTY)
    }
}

impl PrivateJwk {
    /// Parses a private JWK.
    ///
    /// # Errors
    ///
    /// When one of the checks above fails.
    pub fn parse(json: &str) -> Result<Self, JwkError> {
        let text = Text::new(json);
        text.locate(Self::read(&text))
    }

    fn read(text: &Text<'_>) -> Result<Self, JwkProblem> {
        let mut members = text.members()?;
        let private = match members.remove("d") {
            None if members.contains_key("kty") => return Err(JwkProblem::of("d", PUBLIC_ONLY)),
            None => return Err(missing("kty")),
            Some(private) => private,
        };
        let d = match private {
            Value::String(d) => Zeroizing::new(d),
            other => return Err(wrong_type("d", &other, "text")),
        };
        common(&members, "sign", text, |public| {
            let bytes = Zeroizing::new(decode("d", &d)?);
            let exact = bytes.as_slice().try_into();
            let scalar = exact.map_err(|_cause| wrong_length("d", bytes.len()))?;
            let key = SigningKey::from_scalar(scalar)
                .ok_or_else(|| JwkProblem::of("d", "`d` is out of range"))?
                .map_err(|_cause| JwkProblem::of(None, SELF_TEST))?;
            if *key.verifying_key() != public {
                let text = "`d` does not belong to `x` and `y`";
                return Err(JwkProblem::of("d", text));
            }
            Ok(match members.get("iat").and_then(moment) {
                Some(made_at) => key.with_made_at(made_at),
                None => key,
            })
        })
    }

    /// Writes `key` on one line in mkjwk's member order:
    /// `kty`, `d`, `use`, `crv`, `kid`, `x`, `y`, `alg`, then `iat` if it is known.
    pub fn write(key: &SigningKey, kid: &KeyId) -> Secret<String> {
        write(key.verifying_key(), Some(key), kid, LINE).into()
    }

    /// Writes `key` like [`PrivateJwk::write`], one member a line, indented by four, as mkjwk
    /// shows its "Public and Private Keypair".
    pub fn write_pretty(key: &SigningKey, kid: &KeyId) -> Secret<String> {
        write(key.verifying_key(), Some(key), kid, PRETTY).into()
    }
}

/// Puts back the quotes that are missing around member names, as in `{kty":"EC",crv":…`.
///
/// Returns the repaired text only if it is a valid key; `None` also if nothing is missing.
pub fn repair(json: &str) -> Option<String> {
    let repaired = with_quotes(json)?;
    let is_valid = PublicJwk::parse(&repaired).is_ok() || PrivateJwk::parse(&repaired).is_ok();
    is_valid.then(|| repaired.to_string())
}

/// Reads what public and private keys have in common, then `key` by its public half.
fn common<K>(
    members: &Map<String, Value>,
    operation: &'static str,
    text: &Text<'_>,
    key: impl FnOnce(VerifyingKey) -> Result<K, JwkProblem>,
) -> Result<Jwk<K>, JwkProblem> {
    for (member, only) in [
        ("kty", "EC"),
        ("crv", "P-256"),
        ("alg", "ES256"),
        ("use", "sig"),
    ] {
        let is_required = matches!(member, "kty" | "crv");
        match optional(members, member)? {
            None if is_required => return Err(missing(member)),
            Some(found) if found != only => {
                let found = shown(found);
                return Err(JwkProblem::Value {
                    member,
                    found,
                    only,
                });
            }
            _ => {}
        }
    }
    operations(members, operation)?;
    let named = optional(members, "kid")?.map(KeyId::new).transpose();
    let kid =
        named.map_err(|error| JwkProblem::of("kid", format!("`kid` is not usable: {error}")))?;
    let x = coordinate(members, "x")?;
    let y = coordinate(members, "y")?;
    let public = VerifyingKey::from_coordinates(&x, &y)
        .ok_or_else(|| JwkProblem::of("x", "`x` and `y` are not a point of the curve P-256"))?
        .map_err(|_cause| JwkProblem::of(None, SELF_TEST))?;
    Ok(Jwk {
        key: key(public)?,
        kid,
        alg_present: members.contains_key("alg"),
        use_present: members.contains_key("use"),
        unescaped: text.unescaped(),
    })
}

fn wrong_type(member: &'static str, found: &Value, expected: &'static str) -> JwkProblem {
    let found = json::kind(found);
    let text = format!("`{member}` is {found}; it must be {expected}");
    JwkProblem::of(member, text)
}

fn wrong_length(member: &'static str, bytes: usize) -> JwkProblem {
    JwkProblem::of(
        member,
        format!("`{member}` has {bytes} bytes, 32 are required"),
    )
}

fn missing(member: &'static str) -> JwkProblem {
    JwkProblem::of(member, format!("`{member}` is missing"))
}

const PUBLIC_ONLY: &str = "`d` is missing: this is a public key, but a private key is needed";
const SELF_TEST: &str = "the key failed its own test";

fn optional<'a>(
    members: &'a Map<String, Value>,
    member: &'static str,
) -> Result<Option<&'a str>, JwkProblem> {
    match members.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(member, other, "text")),
    }
}

/// Checks `key_ops` ([RFC 7517, 4.3]): absent, or only the operation, or for `sign` both.
///
/// [RFC 7517, 4.3]: https://www.rfc-editor.org/rfc/rfc7517#section-4.3
fn operations(members: &Map<String, Value>, operation: &'static str) -> Result<(), JwkProblem> {
    let listed = match members.get("key_ops") {
        None => return Ok(()),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(wrong_type("key_ops", other, "an array")),
    };
    let names: Vec<_> = listed.iter().map(Value::as_str).collect();
    match (operation, names.as_slice()) {
        (_, [Some(one)]) if *one == operation => Ok(()),
        ("sign", [Some("sign"), Some("verify")] | [Some("verify"), Some("sign")]) => Ok(()),
        _ => Err(JwkProblem::of(
            "key_ops",
            format!("`key_ops` must allow `{operation}` and nothing but signatures"),
        )),
    }
}

fn coordinate(members: &Map<String, Value>, member: &'static str) -> Result<[u8; 32], JwkProblem> {
    let text = optional(members, member)?.ok_or_else(|| missing(member))?;
    let bytes = decode(member, text)?;
    let length = bytes.len();
    match bytes.as_slice().try_into() {
        Ok(exact) => Ok(exact),
        Err(_) if (24..32).contains(&length) => {
            let mut padded = vec![0; 32 - length];
            padded.extend(bytes);
            Err(JwkProblem::ShortCoordinate {
                member,
                bytes: length,
                padded: BASE64_URL_SAFE_NO_PAD.encode(padded),
            })
        }
        Err(_) => Err(wrong_length(member, length)),
    }
}

fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, JwkProblem> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_cause| {
        let typeset = json::typeset(text);
        let why = if let Some((_, what)) = &typeset {
            what
        } else if text.contains('=') {
            "it is padded with `=`"
        } else if text.contains(['+', '/']) {
            "it uses `+` or `/`, the alphabet of plain base64"
        } else if text.contains(char::is_whitespace) {
            "it holds white space"
        } else if text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            "its last character is not canonical or one is missing"
        } else {
            "it contains an invalid character"
        };
        let text = format!("`{member}` is not unpadded base64url: {why}");
        JwkProblem::of(member, text)
    })
}

/// How a JWK is laid out: what stands before its members, between them, after a name, and at the
/// end.
type Layout = [&'static str; 4];

const LINE: Layout = ["{", ",", ":", "}"];
const PRETTY: Layout = ["{\n    ", ",\n    ", ": ", "\n}"];

/// Writes a public key, with its `private` half where there is one. Room is made first, so that no
/// copy of a secret is left behind.
fn write(
    public: &VerifyingKey,
    private: Option<&SigningKey>,
    kid: &KeyId,
    [open, between, colon, close]: Layout,
) -> String {
    let (x, y) = (public.x(), public.y());
    let d =
        private.map(|key| Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(key.scalar().as_slice())));
    let secret = d.as_ref().map(|d| [("d", d.as_str()), ("use", "sig")]);
    let public = [
        ("crv", "P-256"),
        ("kid", kid.as_str()),
        ("x", &x),
        ("y", &y),
        ("alg", "ES256"),
    ];
    let mut text = Vec::with_capacity(1024);
    // Writing to a vector cannot fail.
    let _ = write!(text, "{open}\"kty\"{colon}\"EC\"");
    for (name, value) in secret.into_iter().flatten().chain(public) {
        let _ = write!(text, "{between}\"{name}\"{colon}");
        let _ = serde_json::to_writer(&mut text, value);
    }
    let made_at = private.and_then(SigningKey::made_at);
    if let Some(since) = made_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        let _ = write!(text, "{between}\"iat\"{colon}{}", since.as_secs());
    }
    text.extend_from_slice(close.as_bytes());
    String::from_utf8(text).unwrap_or_default()
}

/// Returns the time of a `NumericDate` ([RFC 7519, 2]), up to the year 9999.
///
/// [RFC 7519, 2]: https://www.rfc-editor.org/rfc/rfc7519#section-2
fn moment(date: &Value) -> Option<SystemTime> {
    let seconds = date
        .as_f64()
        .filter(|seconds| (0.0..253_402_300_800.0).contains(seconds))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
