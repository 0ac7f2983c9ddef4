//! JWS in compact form ([RFC 7515, 3.1]), restricted to what a countersign token may be.
//!
//! [RFC 7515, 3.1]: https://www.rfc-editor.org/rfc/rfc7515#section-3.1

use std::fmt;

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
#[derive(Clone)]
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
        let (parts, members) = Parts::read(token)?;
        let mut header = Optional::checked(members)?;
        let kid = header.kid.take().ok_or(CompactError::KeyIdMissing)?;
        Ok(Self {
            signing_input: parts.signing_input,
            header: Header {
                kid,
                typ: header.typ,
            },
            payload: parts.payload,
            signature: parts.signature,
        })
    }

    /// Returns `true` if `key` signed this token.
    pub fn verify(&self, key: &VerifyingKey) -> bool {
        key.verify(self.signing_input.as_bytes(), &self.signature)
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the decoded payload, which is not trustworthy before [`Compact::verify`].
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

/// Shows the header only: the whole would be a usable token.
impl fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compact")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// The members of a token's header that are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    kid: String,
    typ: Option<String>,
}

impl Header {
    /// Returns the `kid`: any text, it only selects a key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the `typ`, if there is one.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }
}

/// Returns `true` if `jws` is a compact JWS that `key` signed with ES256: [`Compact`]'s checks, except
/// that `kid` may be absent.
///
/// # Errors
///
/// When the form or the header is refused before the signature is looked at.
pub fn verify(jws: &str, key: &VerifyingKey) -> Result<bool, CompactError> {
    let (parts, members) = Parts::read(jws)?;
    Optional::checked(members)?;
    Ok(key.verify(parts.signing_input.as_bytes(), &parts.signature))
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

/// The decoded parts of a compact JWS, without the header.
struct Parts<'a> {
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes `jws` apart; the header comes as its members.
    fn read(jws: &'a str) -> Result<(Self, Map<String, Value>), CompactError> {
        if jws.len() > MAX_TOKEN_BYTES {
            return Err(CompactError::TooLarge(jws.len()));
        }
        let (signing_input, [header, payload, signature]) = split(jws)?;
        let header = part("header", header)?;
        let parts = Self {
            signing_input,
            payload: part("payload", payload)?,
            signature: part("signature", signature)?,
        };
        let members = json::object(&header).map_err(CompactError::Header)?;
        Ok((parts, members))
    }
}

/// The members of a header that are read, any of them absent.
struct Optional {
    kid: Option<String>,
    typ: Option<String>,
}

impl Optional {
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
        let kid = text(&mut members, "kid")?;
        Ok(Self { kid, typ })
    }
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

pub(super) fn part(name: &'static str, text: &str) -> Result<Vec<u8>, CompactError> {
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
