//! The text that selects a key.

use std::fmt;
use std::sync::Arc;

use super::error::KeyIdError;

/// A `kid`, or a configured fingerprint: text that selects a key and says nothing about it.
///
/// 1 to 128 characters, no control characters. For most keys it is the [`Fingerprint`]'s text, but
/// nothing here relies on that.
///
/// [`Fingerprint`]: super::Fingerprint
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

impl From<super::Fingerprint> for KeyId {
    fn from(fingerprint: super::Fingerprint) -> Self {
        Self(fingerprint.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
