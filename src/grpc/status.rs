//! The one map from a refusal to the wire, and back.

use std::collections::HashMap;
use std::time::SystemTime;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::token::Reason;

/// The `domain` of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "countersign";

/// Makes the status that refuses a call for `reason`, with the reason as `ErrorInfo`.
///
/// `detail` goes to the peer as well: pass only what it may know. Without one, the message is the
/// reason's own summary.
pub fn refuse(reason: Reason, detail: Option<&str>) -> Status {
    refuse_with(reason, detail, HashMap::new())
}

/// Refuses as [`refuse`] does, and tells the callee's time to a caller whose clock may be why.
///
/// Only for callers whose signature verified; see [`callee_time`].
pub(super) fn refuse_at(reason: Reason, detail: &str, callee_time: Option<SystemTime>) -> Status {
    let time = callee_time.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let metadata = time.map(|time| (CALLEE_TIME.to_owned(), format!("{time:.3}")));
    refuse_with(reason, Some(detail), metadata.into_iter().collect())
}

/// Returns the callee's time, where a refusal because of times tells it.
///
/// A hint for an operator: nothing shows that it is the callee's.
pub fn callee_time(status: &Status) -> Option<SystemTime> {
    let info = status.get_details_error_info()?;
    let time = info
        .metadata
        .get(CALLEE_TIME)
        .filter(|_| info.domain == DOMAIN)?;
    Some(time.parse::<jiff::Timestamp>().ok()?.into())
}

const CALLEE_TIME: &str = "calleeTime";

fn refuse_with(reason: Reason, detail: Option<&str>, metadata: HashMap<String, String>) -> Status {
    let code = match reason {
        Reason::RoleMissing | Reason::EngineNotOwned | Reason::AddressNotAllowed => {
            Code::PermissionDenied
        }
        _ => Code::Unauthenticated,
    };
    let summary = reason.summary();
    let message = match detail {
        Some(detail) => format!("{reason}: {summary}: {detail}"),
        None => format!("{reason}: {summary}"),
    };
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// Returns the reason that a status carries, where it is one of ours.
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN)
        .then(|| info.reason.parse().ok())
        .flatten()
}

/// Returns a status code's name as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
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
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_800_000_000_250);
        let status = refuse_at(Reason::TokenExpired, "expired", Some(time));

        let back = Status::from_header_map(status.into_http::<()>().headers()).unwrap();

        assert_eq!(callee_time(&back), Some(time));
        assert_eq!(callee_time(&refuse(Reason::TokenExpired, None)), None);
    }

    #[test]
    fn status_of_another_domain_has_no_reason() {
        let details = ErrorDetails::with_error_info("TOKEN_MISSING", "example.org", HashMap::new());
        let status = Status::with_error_details(Code::Unauthenticated, "no", details);

        assert_eq!(reason_of(&status), None);
        assert_eq!(reason_of(&Status::unauthenticated("no")), None);
    }
}
