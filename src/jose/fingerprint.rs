//! The names of keys: fingerprints, and the texts that select a key.
//!
//! Ataccama-style properties name a key by [`Fingerprint`]. It is not the RFC 7638 thumbprint;
//! tools that follow that RFC print a different value for the same key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::error::{FingerprintError, KeyIdError};

/// SHA-256 of a P-256 public key, as `kid` and `…key.fingerprint` carry it.
///
/// The digest is over the DER `SubjectPublicKeyInfo` ([RFC 5280, 4.1.2.7]), 91 bytes for P-256;
/// its text form is unpadded base64url, 43 characters.
///
/// [RFC 5280, 4.1.2.7]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a key in DER `SubjectPublicKeyInfo` form. Does not check that it
    /// is one.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// Returns the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the digest in lower-case hexadecimal, as other tools print it: 64 characters.
    pub fn to_hex(&self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let digest = bytes.and_then(|bytes| bytes.try_into().ok());
        digest.map(Self).ok_or(FingerprintError)
    }
}

/// The two key pairs printed in Ataccama's guide, by fingerprint: they are public.
const PUBLISHED: [&str; 2] = [
    "vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI",
    "KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0",
];

/// Returns `true` if this is one of the keys printed in the public guide, which protect nothing.
pub fn published(fingerprint: Fingerprint) -> bool {
    PUBLISHED
        .iter()
        .any(|known| known.parse() == Ok(fingerprint))
}

/// A `kid`, or a configured fingerprint: text that selects a key and says nothing about it.
///
/// 1 to 128 characters, no control characters. For most keys it is the [`Fingerprint`]'s text, but
/// nothing here relies on that.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(Arc<str>);

const MAX_CHARACTERS: usize = 128;

impl KeyId {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// When `text` is empty, longer than 128 characters, or holds a control character.
    pub fn new(text: &str) -> Result<Self, KeyIdError> {
        if text.is_empty() {
            return Err(KeyIdError::Empty);
        }
        let characters = text.chars().count();
        if characters > MAX_CHARACTERS {
            return Err(KeyIdError::TooLong(characters));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(odd) => Err(KeyIdError::Control(odd)),
            None => Ok(Self(text.into())),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Fingerprint> for KeyId {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::PublicJwk;
    use super::*;

    /// The keys of Ataccama's guide.
    const DPM_DEV: &str = r#"{"kty":"EC","crv":"P-256","kid":"vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI","x":"Hbs53V5zC-1DjNf5RtJ1bNHlxvzM5jST7J1ADVePV9g","y":"4pVfzrF7FMHt_Xx2FgLauvLZuJqbpL9crdOxvTXWb64","alg":"ES256"}"#;
    const DPE_DEV: &str = r#"{"kty":"EC","crv":"P-256","kid":"KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0","x":"KsJKpmDA03Js3o8JWWiH5tyUfv80kaJy60_7BOrwmKo","y":"7kfcrUzl95MQEZnCjhWA0dIIhzK-jvdaAtGRAuBzZbk","alg":"ES256"}"#;

    #[test]
    fn fingerprints_of_the_documented_keys_are_their_kids() {
        for jwk in [DPM_DEV, DPE_DEV] {
            let jwk = PublicJwk::parse(jwk).unwrap();

            assert_eq!(jwk.key.fingerprint().to_string(), jwk.kid.unwrap().as_str());
            assert_eq!(jwk.key.to_spki_der().len(), 91);
            assert!(published(jwk.key.fingerprint()));
        }
    }

    #[test]
    fn a_new_key_is_not_a_published_one() {
        let key = super::super::SigningKey::generate().unwrap();

        assert!(!published(key.fingerprint()));
    }

    #[test]
    fn fingerprint_text_parses_back_equal_and_nothing_else_parses() {
        let text = PUBLISHED[0];
        let fingerprint: Fingerprint = text.parse().unwrap();

        assert_eq!(fingerprint.to_string(), text);
        for odd in [
            "",
            "abc",
            text.trim_start_matches('v'),
            &format!("{text}="),
            &text.replace("pBI", "pBJ"),
        ] {
            assert_eq!(odd.parse::<Fingerprint>(), Err(FingerprintError), "{odd}");
        }
    }

    #[test]
    fn key_ids_are_short_text_without_control_characters() {
        assert_eq!(KeyId::new("my key").unwrap().as_str(), "my key");
        assert!(KeyId::new(&"é".repeat(128)).is_ok());
        assert_eq!(KeyId::new(""), Err(KeyIdError::Empty));
        assert_eq!(KeyId::new(&"a".repeat(129)), Err(KeyIdError::TooLong(129)));
        assert_eq!(KeyId::new("a\nb"), Err(KeyIdError::Control('\n')));
        assert_eq!(KeyId::new("a\u{0}"), Err(KeyIdError::Control('\u{0}')));
    }
}
