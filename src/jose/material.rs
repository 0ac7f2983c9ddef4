//! A key in whatever form people have it.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use base64::{alphabet, decoded_len_estimate};
use zeroize::Zeroizing;

use super::error::{JwkProblem, KeyError};
use super::fingerprint::KeyId;
use super::json::{JsonProblem, shown};
use super::jwk::{PrivateJwk, PublicJwk};
use super::key::{SigningKey, VerifyingKey};
use super::repair::only_key;

/// A key that was read, and its `kid` if its form has one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyMaterial {
    /// A private key.
    Private(SigningKey, Option<KeyId>),
    /// A public key.
    Public(VerifyingKey, Option<KeyId>),
}

/// The form in which a key was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyFormat {
    /// JSON Web Key.
    Jwk,
    /// Base64 or base64url of a JWK, as `generator.key` holds it.
    Base64Jwk,
    /// A JWK that is alone in a set.
    JwkSet,
    /// A JWK in UTF-16, in base64 of text with a byte order mark, or with `\n` written out.
    RewrittenJwk,
    /// `-----BEGIN PRIVATE KEY-----`.
    Pkcs8Pem,
    /// PKCS#8 in DER.
    Pkcs8Der,
    /// `-----BEGIN EC PRIVATE KEY-----`.
    Sec1Pem,
    /// SEC1 in DER.
    Sec1Der,
    /// `-----BEGIN PUBLIC KEY-----`.
    SpkiPem,
    /// `SubjectPublicKeyInfo` in DER.
    SpkiDer,
}

impl KeyFormat {
    /// Returns `true` for the forms in which a properties file holds a key.
    pub fn fits_a_setting(self) -> bool {
        matches!(self, Self::Jwk | Self::Base64Jwk)
    }
}

/// Longest key file that is looked at, in bytes.
const MAX_BYTES: usize = 64 * 1024;

const BYTE_ORDER_MARK: char = '\u{feff}';

impl KeyMaterial {
    /// Reads a key and returns in which form it was.
    ///
    /// Read are: a JWK, also one that is alone in a set; PKCS#8, SEC1 and `SubjectPublicKeyInfo`,
    /// each in PEM or DER; base64 or base64url of any of these, padded or not, on one line or
    /// wrapped. Text is UTF-8 or UTF-16, with or without a byte order mark, and may have its line
    /// ends written out as `\n`. Of PEM an `EC PARAMETERS` block and text around the blocks are
    /// passed over, as `openssl ecparam -genkey` writes them.
    ///
    /// # Errors
    ///
    /// When the bytes are something else, which is named where it is known: another kind of key,
    /// a certificate, a passphrase, a set of several keys, a whole mkjwk page.
    pub fn read(bytes: &[u8]) -> Result<(Self, KeyFormat), KeyError> {
        if bytes.len() > MAX_BYTES {
            return Err(KeyError::TooLarge(bytes.len()));
        }
        let mark = BYTE_ORDER_MARK.to_string();
        found(bytes.strip_prefix(mark.as_bytes()).unwrap_or(bytes), false)
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        match self {
            Self::Private(key, _) => key.verifying_key(),
            Self::Public(key, _) => key,
        }
    }

    /// Returns the `kid` that stood beside the key.
    pub fn kid(&self) -> Option<&KeyId> {
        match self {
            Self::Private(_, kid) | Self::Public(_, kid) => kid.as_ref(),
        }
    }
}

/// Reads a key of any form; base64 `inside` base64 is refused.
fn found(bytes: &[u8], inside: bool) -> Result<(KeyMaterial, KeyFormat), KeyError> {
    if let Some(found) = from_der(bytes) {
        return Ok(found);
    }
    let whole = text_of(bytes).ok_or_else(|| refused_der(bytes))?;
    let text = whole.trim_start_matches(BYTE_ORDER_MARK).trim();
    if text.is_empty() {
        Err(KeyError::Empty)
    } else if text.starts_with(['{', '[']) {
        let (key, format) = from_jwk(text)?;
        let as_written = bytes.trim_ascii() == text.as_bytes();
        Ok((
            key,
            if as_written {
                format
            } else {
                KeyFormat::RewrittenJwk
            },
        ))
    } else if text.contains("-----BEGIN ") {
        from_pem(text)
    } else if text.contains('{') {
        Err(KeyError::SeveralTexts)
    } else if inside {
        let twice = decode(text.as_bytes()).is_some_and(|text| text.trim_ascii().starts_with(b"{"));
        Err(if twice {
            KeyError::Base64Twice
        } else {
            KeyError::Unrecognised
        })
    } else {
        let inner = decode(text.as_bytes()).ok_or(KeyError::Unrecognised)?;
        match found(&inner, true) {
            Ok((key, KeyFormat::Jwk)) => Ok((key, KeyFormat::Base64Jwk)),
            Err(KeyError::Unrecognised | KeyError::Empty) => Err(KeyError::Base64OfOther),
            other => other,
        }
    }
}

/// Returns `bytes` as text, with line ends where `\n` is written out; `None` if they are neither
/// UTF-8 nor UTF-16.
fn text_of(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let unit: Option<fn([u8; 2]) -> u16> = match bytes {
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => Some(u16::from_be_bytes),
        _ => None,
    };
    // A character that takes two bytes in UTF-16 takes up to three in UTF-8.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    if let Some(unit) = unit {
        let (pairs, []) = bytes.as_chunks() else {
            return None;
        };
        for character in char::decode_utf16(pairs.iter().copied().map(unit)) {
            text.push(character.ok()?);
        }
    } else {
        text.push_str(std::str::from_utf8(bytes).ok()?);
    }
    // In JSON `\n` belongs to a string, unless the first thing in the object is escaped.
    let inside = text.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    let is_json = inside
        .strip_prefix('{')
        .is_some_and(|inside| !inside.trim_start().starts_with('\\'));
    if is_json || !text.contains("\\n") {
        return Some(text);
    }
    let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.split("\\n") {
        lines.push_str(line.strip_suffix("\\r").unwrap_or(line));
        lines.push('\n');
    }
    Some(lines)
}

fn from_jwk(text: &str) -> Result<(KeyMaterial, KeyFormat), KeyError> {
    match from_one_jwk(text) {
        Err(KeyError::Jwk(error)) if *error.problem() == JwkProblem::KeySet => {
            Ok((from_one_jwk(&only_key(text)?)?, KeyFormat::JwkSet))
        }
        read => Ok((read?, KeyFormat::Jwk)),
    }
}

fn from_one_jwk(text: &str) -> Result<KeyMaterial, KeyError> {
    let public = match PublicJwk::parse(text) {
        Ok(jwk) => return Ok(KeyMaterial::Public(jwk.key, jwk.kid)),
        Err(error) => error,
    };
    match public.problem() {
        JwkProblem::PrivatePart => {
            let jwk = PrivateJwk::parse(text)?;
            Ok(KeyMaterial::Private(jwk.key, jwk.kid))
        }
        JwkProblem::Json(error)
            if *error.problem() == JsonProblem::Trailing && text.contains("\"kty\"") =>
        {
            Err(KeyError::SeveralTexts)
        }
        _ => Err(public.into()),
    }
}

/// Base64 of the standard alphabet, with or without padding.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let letters = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    plain.extend(letters.map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    }));
    decoded(&BASE64, &plain)
}

/// Returns the JSON in `text`: the text itself, or what its base64 or base64url stands for.
pub fn json_of(text: &str) -> Option<Zeroizing<String>> {
    if text.starts_with('{') {
        return Some(Zeroizing::new(text.to_owned()));
    }
    let bytes = decode(text.as_bytes())?;
    let json = std::str::from_utf8(&bytes).ok()?;
    Some(Zeroizing::new(json.to_owned()))
}

fn from_pem(text: &str) -> Result<(KeyMaterial, KeyFormat), KeyError> {
    let found = blocks(text);
    let all = found.iter().filter(|block| block.label != "EC PARAMETERS");
    let (keys, others): (Vec<_>, Vec<_>) = all.partition(|block| block.label.ends_with("KEY"));
    let block = match (keys.as_slice(), others.first()) {
        ([], None) if found.is_empty() => return Err(KeyError::DamagedPem("?")),
        ([], None) => return Err(KeyError::ParametersOnly),
        ([], Some(other)) => {
            let certificate = other.certificate().map(KeyError::Certificate);
            return Err(certificate.unwrap_or_else(|| KeyError::OtherLabel(shown(other.label))));
        }
        ([key], None) => key,
        ([_], Some(other)) => {
            let what = other.certificate().unwrap_or("different PEM block");
            return Err(KeyError::Beside(what));
        }
        (several, _) => return Err(KeyError::SeveralKeys(several.len())),
    };
    if block.is_encrypted() {
        return Err(KeyError::Encrypted);
    }
    let (label, format) = match block.label {
        "PRIVATE KEY" => ("PRIVATE KEY", KeyFormat::Pkcs8Pem),
        "EC PRIVATE KEY" => ("EC PRIVATE KEY", KeyFormat::Sec1Pem),
        "PUBLIC KEY" => ("PUBLIC KEY", KeyFormat::SpkiPem),
        "RSA PRIVATE KEY" | "RSA PUBLIC KEY" => return Err(KeyError::OtherKind("RSA")),
        "DSA PRIVATE KEY" => return Err(KeyError::OtherKind("DSA")),
        other => return Err(KeyError::OtherLabel(shown(other))),
    };
    let der = block.der().ok_or(KeyError::DamagedPem(label))?;
    let key = match format {
        KeyFormat::Pkcs8Pem => SigningKey::from_pkcs8_der(&der).map(private),
        KeyFormat::Sec1Pem => SigningKey::from_sec1_der(&der).map(private),
        _ => VerifyingKey::from_spki_der(&der).map(public),
    };
    match key {
        Ok(key) => Ok((key, format)),
        Err(KeyError::Der) => Err(refused_der(&der)),
        Err(other) => Err(other),
    }
}

fn from_der(der: &[u8]) -> Option<(KeyMaterial, KeyFormat)> {
    if der.first() != Some(&0x30) {
        return None;
    }
    if let Ok(key) = SigningKey::from_pkcs8_der(der) {
        return Some((private(key), KeyFormat::Pkcs8Der));
    }
    if let Ok(key) = SigningKey::from_sec1_der(der) {
        return Some((private(key), KeyFormat::Sec1Der));
    }
    let key = VerifyingKey::from_spki_der(der).ok()?;
    Some((public(key), KeyFormat::SpkiDer))
}

fn private(key: SigningKey) -> KeyMaterial {
    KeyMaterial::Private(key, None)
}

fn public(key: VerifyingKey) -> KeyMaterial {
    KeyMaterial::Public(key, None)
}

/// Beginnings of object identifiers in DER, to name the kind of a refused key.
const KINDS: [(&[u8], &str); 16] = [
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "RSA"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSA-PSS"),
    (b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01", "DH"),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x01", "EC P-192"),
    (b"\x06\x05\x2b\x81\x04\x00\x21", "EC P-224"),
    (b"\x06\x05\x2b\x81\x04\x00\x22", "EC P-384"),
    (b"\x06\x05\x2b\x81\x04\x00\x23", "EC P-521"),
    (b"\x06\x05\x2b\x81\x04\x00\x0a", "EC secp256k1"),
    (b"\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01", "EC brainpool"),
    (b"\x06\x08\x2a\x81\x1c\xcf\x55\x01\x82\x2d", "SM2"),
    (b"\x06\x03\x2b\x65\x70", "Ed25519"),
    (b"\x06\x03\x2b\x65\x71", "Ed448"),
    (b"\x06\x03\x2b\x65\x6e", "X25519"),
    (b"\x06\x03\x2b\x65\x6f", "X448"),
    (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03", "ML-DSA"),
];

/// Object identifiers of encryption (PKCS#5, PKCS#12), of names as certificates have, of the fields
/// that explicit curve parameters name, of EC keys, and of P-256.
const ENCRYPTION: [&[u8]; 2] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x05",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01",
];
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04";
const FIELD: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x01";
const EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

fn holds(der: &[u8], oid: &[u8]) -> bool {
    der.windows(oid.len()).any(|window| window == oid)
}

/// Returns what follows the tag and the length that `der` begins with.
fn content(der: &[u8]) -> &[u8] {
    match der {
        [_, 0..=0x7f, content @ ..] => content,
        [_, long, rest @ ..] => rest.get(usize::from(long & 0x7f)..).unwrap_or_default(),
        _ => &[],
    }
}

fn refused_der(der: &[u8]) -> KeyError {
    if der.first() != Some(&0x30) {
        return KeyError::Unrecognised;
    }
    let inside = content(der);
    // A request says its version where a certificate has a tag or its number.
    if inside.first() == Some(&0x30) && content(inside).starts_with(&[2, 1, 0]) {
        return KeyError::Certificate(REQUEST);
    }
    if holds(der, COMMON_NAME) {
        return KeyError::Certificate(CERTIFICATE);
    }
    if ENCRYPTION.iter().any(|oid| holds(der, oid)) {
        return KeyError::Encrypted;
    }
    // PKCS#1 has no identifier: version 0 if it is private, then a long modulus.
    if matches!(inside, [2, 1, 0, 2, 0x82, ..] | [2, 0x82, ..]) {
        return KeyError::OtherKind("RSA");
    }
    if holds(der, FIELD) {
        let public = inside.first() != Some(&2);
        return KeyError::ExplicitParameters { public };
    }
    let named = KINDS.iter().find(|(oid, _)| holds(der, oid));
    match named {
        Some((_, name)) => KeyError::OtherKind(name),
        None if holds(der, EC) && !holds(der, P256) => KeyError::OtherKind("EC on another curve"),
        None => KeyError::Der,
    }
}

const CERTIFICATE: &str = "certificate";
const REQUEST: &str = "certificate request";

/// One block: its label and the text between its lines.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    body: &'a str,
}

impl Block<'_> {
    /// Returns `true` if the body is encrypted the old way ([RFC 1421] headers).
    ///
    /// [RFC 1421]: https://www.rfc-editor.org/rfc/rfc1421
    pub(super) fn is_encrypted(&self) -> bool {
        self.label.starts_with("ENCRYPTED") || self.body.contains("ENCRYPTED")
    }

    /// Returns what it is if it is a certificate or the request for one.
    fn certificate(&self) -> Option<&'static str> {
        match self.label {
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Some(REQUEST),
            label => label.contains("CERTIFICATE").then_some(CERTIFICATE),
        }
    }

    /// Decodes the body.
    pub(super) fn der(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len()));
        text.extend(self.body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        decoded(&BASE64_STANDARD, &text)
    }
}

/// Decodes `text` without leaving a part of it in freed memory, as a buffer does that grows.
pub(super) fn decoded(base64: &GeneralPurpose, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; decoded_len_estimate(text.len())]);
    let length = base64.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Finds the blocks of `text`; a block without its end line is given an empty body.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((label, after)) = after.split_once(DASHES) else {
            break;
        };
        let end = format!("-----END {label}{DASHES}");
        let (body, after) = after.split_once(&end).unwrap_or(("", after));
        found.push(Block { label, body });
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests;
