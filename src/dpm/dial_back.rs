//! How the text of a dial-back that failed begins, for who writes it and who reads it again.

#[cfg(feature = "cli")]
use crate::token::Reason;

pub(super) const NOT_DIALLED: &str = "the engine is not dialled: ";
pub(super) const REFUSED: &str = "the engine refused our token: ";
pub(super) const ANSWERS: &str = "what answers at ";
pub(super) const UNREACHED: &str = "the engine cannot be reached: ";
pub(super) const NOT_PROVED: &str = " is not proved to be this engine: ";

/// Who refused whom in a dial-back.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// The DPM did not dial the engine.
    Undialled,
    /// The engine did not accept the DPM's call.
    Call,
    /// The DPM did not accept the engine's answer.
    Answer,
}

#[cfg(feature = "cli")]
impl Refused {
    /// Reads why an engine is not READY, as the DPM says it; none where it is no refusal.
    ///
    /// Only the DPM's own words count: a peer may have chosen what follows them.
    pub(crate) fn read(text: &str) -> Option<(Self, Reason)> {
        let (refused, word, _) = Self::parts(text)?;
        Some((refused, word.parse().ok()?))
    }

    /// Returns what follows the reason of a refusal; nothing where `text` is none.
    pub(crate) fn detail(text: &str) -> &str {
        Self::parts(text).map_or("", |(_, _, detail)| detail)
    }

    /// Tells whether the DPM did not dial the engine, for whatever reason.
    pub(crate) fn is_undialled(text: &str) -> bool {
        text.starts_with(NOT_DIALLED)
    }

    /// Tells whether the DPM dialled the engine, and nobody was there.
    pub(crate) fn is_unreached(text: &str) -> bool {
        text.starts_with(UNREACHED)
    }

    fn parts(text: &str) -> Option<(Self, &str, &str)> {
        let (refused, rest) = if let Some(rest) = text.strip_prefix(NOT_DIALLED) {
            (Self::Undialled, rest)
        } else if let Some(rest) = text.strip_prefix(REFUSED) {
            (Self::Call, rest)
        } else {
            let (_at, rest) = text.strip_prefix(ANSWERS)?.split_once(NOT_PROVED)?;
            (Self::Answer, rest)
        };
        let (word, detail) = rest.split_once(": ")?;
        Some((refused, word, detail))
    }
}
