//! Why a call from one module to another failed, as a value; and the text of errors.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::sync::Arc;

/// Writes an error with all its causes: tonic's own text is only "transport error".
pub fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for source in successors(error.source(), |&error| error.source()) {
        let next = source.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
    }
    text
}

/// Makes the `Debug` of errors their text with its causes: a `main` that returns one prints that.
macro_rules! debug_as_text {
    ($($error:ty),+) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&crate::failure::cause(self))
            }
        })+
    };
}
pub(crate) use debug_as_text;

/// Why a dial-back failed: kept in the engine's record, sent on the wire and logged.
///
/// Prints as the sentence that is [`Engine::status_reason`](crate::engine::Engine::status_reason).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DialBackFailure {
    /// What failed.
    pub kind: FailureKind,
    /// The word of the reason, such as `KEY_UNKNOWN`, if one side refused the other.
    pub reason: Option<Arc<str>>,
    /// What exactly was found, and what to do about it.
    pub detail: Arc<str>,
}

impl DialBackFailure {
    /// Makes the failure of a dial-back in which neither side refused the other.
    pub fn new(kind: FailureKind, detail: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            reason: None,
            detail: detail.into(),
        }
    }

    /// Adds the word of the reason for which one side refused the other.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<Arc<str>>) -> Self {
        Self {
            reason: Some(reason.into()),
            ..self
        }
    }
}

impl fmt::Display for DialBackFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind.summary())?;
        if let Some(reason) = &self.reason {
            write!(f, "{reason}: ")?;
        }
        f.write_str(&self.detail)
    }
}

/// What failed in a call from one module to another: a closed set, with the numbers that it has on
/// the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The caller did not call.
    NotDialled = 1,
    /// There was no connection.
    NotReached = 2,
    /// The answer was too late.
    TimedOut = 3,
    /// The connection ended before an answer.
    ConnectionLost = 4,
    /// What answered is not an engine.
    NoEngine = 5,
    /// An engine with a different id answered.
    OtherEngine = 6,
    /// The callee refused the call.
    Refused = 7,
    /// The caller refused the answer: it does not prove who sent it.
    NotProved = 8,
    /// The caller refused the answer, because the two clocks differ.
    ClocksDiffer = 9,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::NotDialled,
        Self::NotReached,
        Self::TimedOut,
        Self::ConnectionLost,
        Self::NoEngine,
        Self::OtherEngine,
        Self::Refused,
        Self::NotProved,
        Self::ClocksDiffer,
    ];

    /// Returns the stable word in upper case.
    pub fn as_str(self) -> &'static str {
        self.texts().0
    }

    /// Returns what failed in a dial-back, without any detail.
    pub fn summary(self) -> &'static str {
        self.texts().1
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NotDialled => ("NOT_DIALLED", "the engine is not dialled"),
            Self::NotReached => ("NOT_REACHED", "the engine cannot be reached"),
            Self::TimedOut => ("TIMED_OUT", "the engine did not answer in time"),
            Self::ConnectionLost => (
                "CONNECTION_LOST",
                "the connection was lost before an answer",
            ),
            Self::NoEngine => ("NO_ENGINE", "no engine answered"),
            Self::OtherEngine => ("OTHER_ENGINE", "a different engine answered"),
            Self::Refused => ("REFUSED", "the engine refused our token"),
            Self::NotProved => ("NOT_PROVED", "the server did not prove to be this engine"),
            Self::ClocksDiffer => (
                "CLOCKS_DIFFER",
                "the clocks of the engine and the DPM differ",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn failure_prints_its_summary_its_reason_and_its_detail() {
        let bare = DialBackFailure::new(FailureKind::NotReached, "connection refused");
        let refused =
            DialBackFailure::new(FailureKind::Refused, "no such key").with_reason("KEY_UNKNOWN");

        assert_eq!(
            bare.to_string(),
            "the engine cannot be reached: connection refused"
        );
        assert_eq!(
            refused.to_string(),
            "the engine refused our token: KEY_UNKNOWN: no such key"
        );
    }

    #[test]
    fn causes_stand_in_one_line() {
        #[derive(thiserror::Error)]
        #[error("cannot read `a`")]
        struct Outer(#[source] io::Error);
        debug_as_text!(Outer);

        let error = Outer(io::Error::other("disk on fire"));

        assert_eq!(cause(&error), "cannot read `a`: disk on fire");
        assert_eq!(format!("{error:?}"), "cannot read `a`: disk on fire");
    }
}
