//! The one map from a refusal to the wire, and back.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::clock::{from_rfc3339, to_rfc3339};
use crate::failure::FailureKind;
use crate::proto::convert::failure_kind;
use crate::proto::registry::DialBackFailure;
use crate::telemetry::{CODES, Untrusted};
use crate::token::{Reason, Refusal};

/// The `domain` of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "countersign";

/// Makes the status that refuses a call for `reason`, with the reason as `ErrorInfo`.
///
/// `detail` goes to the peer as well: pass only what it may know. Without one, the message is the
/// reason's own summary.
pub fn refuse(reason: Reason, detail: Option<&str>) -> Status {
    refuse_at(reason, detail, None)
}

/// Refuses as [`refuse`] does, and gives the callee's time to a caller whose clock may be why.
///
/// Only for callers whose signature verified; see [`callee_time`].
pub(super) fn refuse_at(
    reason: Reason,
    detail: Option<&str>,
    callee_time: Option<SystemTime>,
) -> Status {
    let mut metadata = HashMap::new();
    if let Some(time) = callee_time.and_then(to_rfc3339) {
        metadata.insert(CALLEE_TIME.to_owned(), time);
    }
    let mut message = format!("{reason}: {}", reason.summary());
    if let Some(detail) = detail {
        message = format!("{message}: {detail}");
        let ends = detail.char_indices().map(|(at, c)| at + c.len_utf8());
        let fitting = ends.take_while(|end| *end <= MOST_DETAIL_BYTES).count();
        metadata.insert(DETAIL.to_owned(), detail.chars().take(fitting).collect());
    }
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    Status::with_error_details(reason.status(), message, details)
}

/// Refuses as `refusal` does, with everything that the peer may know of it.
pub(super) fn refuse_in_full(refusal: &Refusal) -> Status {
    let detail = Some(refusal.detail.as_str());
    refuse_at(refusal.reason, detail, refusal.callee_time())
}

/// Refuses a call for which there is room again after `time`, as `RetryInfo` says.
pub(crate) fn exhausted_for(time: Duration, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_retry_info(Some(time));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Makes the trailers that end a reply with `status`.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Our own text is always a header value.
    let _ = status.add_header(&mut trailers);
    trailers
}

const CALLEE_TIME: &str = "calleeTime";
const DETAIL: &str = "detail";

/// The message repeats the detail, and both must fit into a caller's limit of headers.
const MOST_DETAIL_BYTES: usize = 1024;

/// Returns the refusal that a status carries, if it is one of ours: its reason, its detail, and
/// the callee's time if the clocks may be the cause.
///
/// The detail is what the far side wrote: escape it before it is printed.
pub fn refusal_of(status: &Status) -> Option<Refusal> {
    let info = status.get_details_error_info()?;
    let reason = info.reason.parse().ok().filter(|_| info.domain == DOMAIN)?;
    let detail = info.metadata.get(DETAIL).cloned().unwrap_or_default();
    let refusal = Refusal::new(reason, detail);
    let time = info.metadata.get(CALLEE_TIME);
    Some(match time.and_then(|time| from_rfc3339(time)) {
        Some(time) => refusal.with_clocks(time, None),
        None => refusal,
    })
}

/// Returns the reason that a status carries, if it is one of ours.
pub fn reason_of(status: &Status) -> Option<Reason> {
    refusal_of(status).map(|refusal| refusal.reason)
}

/// Words a refusal without its reason: the reason's summary, then the detail, escaped.
pub(crate) fn summary_and_detail(refusal: &Refusal) -> String {
    let summary = refusal.reason.summary();
    match refusal.detail.as_str() {
        "" => summary.to_owned(),
        detail => format!("{summary}: {}", Untrusted(detail)),
    }
}

/// Returns what failed in a call that was refused: a caller refuses an answer, a callee the call.
pub(crate) fn kind_of(refusal: &Refusal) -> FailureKind {
    match (refusal.reason.is_raised_by_caller(), &refusal.clocks) {
        (true, Some(_)) => FailureKind::ClocksDiffer,
        (true, None) => FailureKind::NotProved,
        (false, _) => FailureKind::Refused,
    }
}

/// Reads what failed in a dial-back, and the reason if one side refused the other.
///
/// Only words of this version's lists count: the rest is the peer's text.
pub(crate) fn failure_of(failure: &DialBackFailure) -> Option<(FailureKind, Option<Reason>)> {
    Some((failure_kind(failure.kind)?, failure.reason.parse().ok()))
}

/// What a callee says of the key that its caller signed with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OwnKey {
    /// The callee does not trust it.
    Unknown,
    /// The callee has revoked it.
    Revoked,
    /// The callee has a different key of the same name.
    Differs,
}

impl OwnKey {
    /// Returns what is wrong with the caller's key, if that is why it is refused.
    pub(crate) fn refused_for(reason: Reason) -> Option<Self> {
        match reason {
            Reason::KeyUnknown => Some(Self::Unknown),
            Reason::KeyRevoked => Some(Self::Revoked),
            Reason::SignatureInvalid => Some(Self::Differs),
            Reason::TokenMissing
            | Reason::TokenMalformed
            | Reason::AlgorithmNotAllowed
            | Reason::TokenExpired
            | Reason::TokenNotYetValid
            | Reason::TokenLifetimeTooLong
            | Reason::IssuerMismatch
            | Reason::AudienceMismatch
            | Reason::TokenReplayed
            | Reason::ReplayUnknown
            | Reason::PlaintextNotAllowed
            | Reason::RoleMissing
            | Reason::EngineNotOwned
            | Reason::EngineDuplicate
            | Reason::AddressNotAllowed
            | Reason::ProofMissing
            | Reason::ProofInvalid => None,
        }
    }

    /// Says what `callee` does with `key`, the key of this module.
    pub(crate) fn describe(self, callee: &str, key: &str) -> String {
        match self {
            Self::Unknown => format!("{callee} does not trust key {key} of this module"),
            Self::Revoked => format!("{callee} lists key {key} of this module as revoked"),
            Self::Differs => format!("{callee} has a different key with the name {key}"),
        }
    }
}

/// Returns the callee's time, if a refusal because of times carries it.
///
/// A hint for an operator: nothing shows that it is the callee's.
pub(crate) fn callee_time(status: &Status) -> Option<SystemTime> {
    refusal_of(status)?.callee_time()
}

/// Returns a status code's name as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    let row = CODES.get(number(code));
    row.map_or("UNKNOWN", |(name, _)| name)
}

/// Returns a status code's number.
pub(super) fn number(code: Code) -> usize {
    usize::try_from(i32::from(code)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let status = refuse(*reason, None);

            let back = Status::from_header_map(status.into_http::<()>().headers()).unwrap();

            assert_eq!(reason_of(&back), Some(*reason));
        }
    }

    #[test]
    fn the_callees_time_survives_the_wire() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);
        let status = refuse_at(Reason::TokenExpired, Some("expired"), Some(time));

        let back = Status::from_header_map(status.into_http::<()>().headers()).unwrap();

        assert_eq!(callee_time(&back), Some(time));
        assert_eq!(callee_time(&refuse(Reason::TokenExpired, None)), None);
    }

    #[test]
    fn the_detail_survives_the_wire_as_a_value_and_is_bounded() {
        let long = "ü".repeat(700);
        for (detail, kept) in [("`aud` is [x: y]", 15), (long.as_str(), 1024)] {
            let status = refuse(Reason::AudienceMismatch, Some(detail));

            let back = Status::from_header_map(status.into_http::<()>().headers()).unwrap();

            let refusal = refusal_of(&back).unwrap();
            assert_eq!(refusal.reason, Reason::AudienceMismatch);
            assert_eq!(Some(refusal.detail.as_str()), detail.get(..kept));
        }
        assert_eq!(
            refusal_of(&refuse(Reason::KeyUnknown, None))
                .unwrap()
                .detail,
            ""
        );
    }

    #[test]
    fn status_of_another_domain_has_no_reason() {
        let details = ErrorDetails::with_error_info("TOKEN_MISSING", "example.org", HashMap::new());
        let status = Status::with_error_details(Code::Unauthenticated, "no", details);

        assert_eq!(reason_of(&status), None);
        assert_eq!(reason_of(&Status::unauthenticated("no")), None);
    }
}
