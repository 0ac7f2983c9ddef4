//! A compact JWS for a person to look at: of any algorithm, and believed in nothing.

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Map, Value};

use super::error::CompactError;
use super::json;

/// Longest token that is taken apart, in bytes: other products' tokens are longer than ours.
pub const MAX_UNVERIFIED_BYTES: usize = 64 * 1024;

/// A token taken apart, whatever its `alg`; nothing of it is verified.
///
/// *Checked*: at most 64 KiB; three parts; every part canonical base64url without padding; the
/// header a JSON object without duplicate members. *Not checked*: all the rest. Never decide
/// anything by it.
#[derive(Clone)]
pub struct Unverified<'a> {
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
mod tests {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

    use super::*;

    fn token(header: &str) -> String {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        format!("{header}.e30.")
    }

    #[test]
    fn any_algorithm_is_shown() {
        for alg in ["RS256", "HS256", "none"] {
            let token = token(&format!(r#"{{"alg":"{alg}"}}"#));
            let read = Unverified::read(&token).unwrap();

            assert_eq!(read.header["alg"], alg);
            assert_eq!((read.payload, read.signature), (b"{}".to_vec(), Vec::new()));
        }
    }

    #[test]
    fn what_is_no_jws_is_named() {
        let rows = [
            ("", CompactError::Parts(1)),
            ("a.b.c.d.e", CompactError::Parts(5)),
            ("e30.e3.", CompactError::Encoding("payload")),
            ("e30=.e30.", CompactError::Encoding("header")),
        ];
        for (token, expected) in rows {
            let error = Unverified::read(token).unwrap_err();
            assert_eq!(error.to_string(), expected.to_string(), "{token}");
        }
        let twice = Unverified::read(&token(r#"{"alg":"a","alg":"b"}"#)).unwrap_err();
        assert!(matches!(twice, CompactError::Header(_)), "{twice}");
        let long = "a".repeat(MAX_UNVERIFIED_BYTES + 1);
        assert!(matches!(
            Unverified::read(&long).unwrap_err(),
            CompactError::TooLarge(_)
        ));
    }
}
