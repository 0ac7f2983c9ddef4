//! The caller's challenge to the callee.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

/// 128 random bits, fresh for each attempt: what a proof must repeat. 22 base64url characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nonce([u8; 16]);

/// The machine gave no random bytes.
#[derive(thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness(#[source] getrandom::Error);

crate::failure::debug_as_text!(NoRandomness);

/// The text is not a nonce.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a nonce is 22 characters of canonical base64url")]
pub struct NonceError;

impl Nonce {
    /// Draws a fresh one.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(NoRandomness)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, NonceError> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or(NonceError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonce_reads_back_what_it_prints() {
        let nonce = Nonce::generate().unwrap();

        assert_eq!(nonce.to_string().parse(), Ok(nonce));
        assert_eq!(nonce.to_string().len(), 22);
    }

    #[test]
    fn nonce_of_another_length_or_with_stray_bits_is_refused() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(text.parse::<Nonce>(), Err(NonceError), "{text}");
        }
    }
}
