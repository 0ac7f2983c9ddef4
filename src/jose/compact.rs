//! JWS in compact form ([RFC 7515, 3.1]), restricted to what a countersign token may be.
//!
//! [RFC 7515, 3.1]: https://www.rfc-editor.org/rfc/rfc7515#section-3.1

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{CompactError, KeyError};
use super::fingerprint::KeyId;
use super::json;
use super::key::{SigningKey, VerifyingKey};

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
    header: Header,
    parts: Unverified<'a>,
}

impl<'a> Compact<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    ///
    /// When one of the checks above fails; the first one that does.
    pub fn parse(token: &'a str) -> Result<Self, CompactError> {
        let compact = Self::read(token)?;
        match compact.header.kid {
            Some(_) => Ok(compact),
            None => Err(CompactError::KeyIdMissing),
        }
    }

    /// Does what [`parse`](Self::parse) does, but takes a header without `kid`, too.
    fn read(token: &'a str) -> Result<Self, CompactError> {
        let mut parts = Unverified::up_to(MAX_TOKEN_BYTES, token)?;
        let members = &mut parts.header;
        if members.get("alg").and_then(Value::as_str) != Some("ES256") {
            return Err(CompactError::Algorithm);
        }
        let typ = text(members, "typ")?;
        for refused in ["crit", "b64", "zip"] {
            if members.contains_key(refused) {
                return Err(CompactError::Refused(refused));
            }
        }
        let kid = text(members, "kid")?;
        Ok(Self {
            header: Header { kid, typ },
            parts,
        })
    }

    /// Returns `true` if `key` signed this token.
    pub fn verify(&self, key: &VerifyingKey) -> bool {
        key.verify(self.signing_input().as_bytes(), self.signature())
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the decoded payload, which is not trustworthy before [`Compact::verify`].
    pub fn payload(&self) -> &[u8] {
        &self.parts.payload
    }

    /// Returns the decoded signature; 64 bytes if it can be one.
    pub fn signature(&self) -> &[u8] {
        &self.parts.signature
    }

    /// Returns the signed text: the first two parts and the dot between them.
    pub fn signing_input(&self) -> &'a str {
        self.parts.signing_input
    }
}

/// Shows the members of the header that are read: the whole would be a usable token.
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
    /// Always there, except in [`verify`].
    kid: Option<String>,
    typ: Option<String>,
}

impl Header {
    /// Returns the `kid`: any text, it only selects a key.
    pub fn kid(&self) -> &str {
        self.kid.as_deref().unwrap_or_default()
    }

    /// Returns the `typ`, if there is one.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }
}

/// Returns `true` if `jws` is a compact JWS that `key` signed with ES256: [`Compact`]'s checks,
/// except that `kid` may be absent.
///
/// # Errors
///
/// When the form or the header is refused before the signature is looked at.
pub fn verify(jws: &str, key: &VerifyingKey) -> Result<bool, CompactError> {
    Ok(Compact::read(jws)?.verify(key))
}

/// What the header of a new token says besides `alg`.
#[derive(Clone, Copy, Debug)]
pub struct HeaderSpec<'a> {
    /// The type of the token, such as `JWT`.
    pub typ: &'a str,
    /// The name of the key that signs.
    pub kid: &'a KeyId,
}

/// Signs `payload`; the header's members are in the order `alg`, `typ`, `kid`.
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

/// Longest token that is taken apart, in bytes: other products' tokens are longer than ours.
pub(crate) const MAX_UNVERIFIED_BYTES: usize = 64 * 1024;

/// A token taken apart, whatever its `alg`; nothing of it is verified.
///
/// *Checked*: at most 64 KiB; three parts; every part canonical base64url without padding; the
/// header a JSON object without duplicate members. *Not checked*: all the rest. Never decide
/// anything by it.
#[derive(Clone)]
pub(crate) struct Unverified<'a> {
    /// The first two parts and the dot between them.
    pub(super) signing_input: &'a str,
    /// The header's members.
    pub(crate) header: Map<String, Value>,
    /// The decoded payload.
    pub(crate) payload: Vec<u8>,
    /// The decoded signature; empty if `alg` is `none`.
    pub(crate) signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    ///
    /// When one of the checks above fails; the first one that does.
    pub fn read(token: &'a str) -> Result<Self, CompactError> {
        Self::up_to(MAX_UNVERIFIED_BYTES, token)
    }

    /// Takes `token` apart if it has at most `most` bytes.
    pub(super) fn up_to(most: usize, token: &'a str) -> Result<Self, CompactError> {
        if token.len() > most {
            return Err(CompactError::TooLarge(token.len()));
        }
        let cut = token
            .rsplit_once('.')
            .and_then(|(signing_input, signature)| {
                let (header, payload) = signing_input.split_once('.')?;
                (!payload.contains('.')).then_some((signing_input, [header, payload, signature]))
            });
        let Some((signing_input, [header, payload, signature])) = cut else {
            return Err(CompactError::Parts(token.split('.').count()));
        };
        let header = part("header", header)?;
        Ok(Self {
            signing_input,
            payload: part("payload", payload)?,
            signature: part("signature", signature)?,
            header: json::object(&header).map_err(CompactError::Header)?,
        })
    }
}

fn part(name: &'static str, text: &str) -> Result<Vec<u8>, CompactError> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text);
    decoded.map_err(|_cause| CompactError::Encoding(name))
}

/// Shows the header only: the whole would be a usable token.
impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unverified").field(&self.header).finish()
    }
}

#[cfg(test)]
mod tests;
