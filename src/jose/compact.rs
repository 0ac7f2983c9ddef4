//! JWS in compact form ([RFC 7515, 3.1]), restricted to what a countersign token may be.
//!
//! [RFC 7515, 3.1]: https://www.rfc-editor.org/rfc/rfc7515#section-3.1

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{CompactError, KeyError};
use super::json;
use super::key::{SigningKey, VerifyingKey};
use super::key_id::KeyId;

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// A token taken apart: well formed, ES256 by its own word, and not verified.
///
/// *Checked, in this order*: at most 8 KiB; three parts; every part canonical base64url without
/// padding; the header a JSON object without duplicate members; `alg` the text `ES256`; `typ`
/// text or absent; `crit`, `b64` and `zip` absent; `kid` text.
///
/// *Not checked*: the signature (see [`Compact::verify`]), the value of `typ`, and everything in
/// the payload, which is decoded and not parsed. Other header members are ignored, `jwk`, `jku`,
/// `x5u` and `x5c` among them.
#[derive(Clone, Debug)]
pub struct Compact<'a> {
    signing_input: &'a str,
    header: Header,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    ///
    /// When one of the checks above fails; the first one that does.
    pub fn parse(token: &'a str) -> Result<Self, CompactError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(CompactError::TooLarge(token.len()));
        }
        let (signing_input, parts) = split(token)?;
        let [header, payload, signature] = parts;
        let header = part("header", header)?;
        let payload = part("payload", payload)?;
        let signature = part("signature", signature)?;
        let header = json::object(&header).map_err(CompactError::Header)?;
        Ok(Self {
            signing_input,
            header: Header::checked(header)?,
            payload,
            signature,
        })
    }

    /// Tells whether `key` signed this token.
    pub fn verify(&self, key: &VerifyingKey) -> bool {
        key.verify(self.signing_input.as_bytes(), &self.signature)
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the decoded payload, which nobody vouches for before [`Compact::verify`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the decoded signature; 64 bytes if it can be one.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Returns what is signed: the first two parts and the dot between them.
    pub fn signing_input(&self) -> &'a str {
        self.signing_input
    }
}

/// The members of a token's header that are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    kid: String,
    typ: Option<String>,
}

impl Header {
    fn checked(mut members: Map<String, Value>) -> Result<Self, CompactError> {
        if members.get("alg").and_then(Value::as_str) != Some("ES256") {
            return Err(CompactError::Algorithm);
        }
        let typ = text(&mut members, "typ")?;
        for refused in ["crit", "b64", "zip"] {
            if members.contains_key(refused) {
                return Err(CompactError::Refused(refused));
            }
        }
        let kid = text(&mut members, "kid")?.ok_or(CompactError::KeyIdMissing)?;
        Ok(Self { kid, typ })
    }

    /// Returns the `kid`: any text, it only selects a key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the `typ`, if there is one.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }
}

/// What the header of a new token says besides `alg`.
#[derive(Clone, Copy, Debug)]
pub struct HeaderSpec<'a> {
    /// The type of the token, such as `JWT`.
    pub typ: &'a str,
    /// The name of the key that signs.
    pub kid: &'a KeyId,
}

/// Signs `payload`; the header's members stand in the order `alg`, `typ`, `kid`.
///
/// # Errors
///
/// When the key cannot sign.
pub fn sign(header: &HeaderSpec<'_>, payload: &[u8], key: &SigningKey) -> Result<String, KeyError> {
    #[derive(Serialize)]
    struct Members<'a> {
        alg: &'static str,
        typ: &'a str,
        kid: &'a str,
    }
    let members = Members {
        alg: "ES256",
        typ: header.typ,
        kid: header.kid.as_str(),
    };
    let members = serde_json::to_vec(&members).map_err(|_cause| KeyError::Encode)?;
    let mut token = BASE64_URL_SAFE_NO_PAD.encode(members);
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// Splits a token into what is signed and its three parts.
fn split(token: &str) -> Result<(&str, [&str; 3]), CompactError> {
    let parts = || CompactError::Parts(token.split('.').count());
    let (signing_input, signature) = token.rsplit_once('.').ok_or_else(parts)?;
    let (header, payload) = signing_input.split_once('.').ok_or_else(parts)?;
    if payload.contains('.') {
        return Err(parts());
    }
    Ok((signing_input, [header, payload, signature]))
}

fn part(name: &'static str, text: &str) -> Result<Vec<u8>, CompactError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_cause| CompactError::Encoding(name))
}

fn text(
    members: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, CompactError> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(CompactError::NotText(name)),
    }
}

#[cfg(test)]
mod tests;
