//! The name that an engine gives itself once and keeps.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not an engine id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is not a UUID of the form 0031debd-6130-4b4a-8eaf-7a834555cf33")]
pub struct EngineIdError;

/// An engine's id: a UUID, made once by the engine.
///
/// Read in the hyphenated form of [RFC 9562, 4], in any case; printed in lower case, so that two
/// spellings are one id.
///
/// [RFC 9562, 4]: https://www.rfc-editor.org/rfc/rfc9562#section-4
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EngineId(Uuid);

impl EngineId {
    /// Makes a version 4 id from `random` bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }
}

impl FromStr for EngineId {
    type Err = EngineIdError;

    fn from_str(text: &str) -> Result<Self, EngineIdError> {
        const HYPHENATED: usize = 36;
        if text.len() != HYPHENATED {
            return Err(EngineIdError);
        }
        Uuid::try_parse(text).map(Self).or(Err(EngineIdError))
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_in_case_are_one() {
        let lower: EngineId = "0031debd-6130-4b4a-8eaf-7a834555cf33".parse().unwrap();
        let upper: EngineId = "0031DEBD-6130-4B4A-8EAF-7A834555CF33".parse().unwrap();

        assert_eq!(lower, upper);
        assert_eq!(upper.to_string(), "0031debd-6130-4b4a-8eaf-7a834555cf33");
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for odd in [
            "",
            "0031debd61304b4a8eaf7a834555cf33",
            "{0031debd-6130-4b4a-8eaf-7a834555cf33}",
            "urn:uuid:0031debd-6130-4b4a-8eaf-7a834555cf33",
            "0031debd-6130-4b4a-8eaf-7a834555cf3\n",
            "0031debd-6130-4b4a-8eaf-7a834555cf3g",
            &"0".repeat(1_000_000),
        ] {
            assert_eq!(odd.parse::<EngineId>(), Err(EngineIdError), "{odd:.40?}");
        }
    }

    #[test]
    fn random_ids_are_of_version_4() {
        let id = EngineId::from_random([0xff; 16]);

        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
