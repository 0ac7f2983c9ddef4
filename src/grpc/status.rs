//! The one map from a refusal to the wire, and back.

use std::collections::HashMap;

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
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
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
    fn status_of_another_domain_has_no_reason() {
        let details = ErrorDetails::with_error_info("TOKEN_MISSING", "example.org", HashMap::new());
        let status = Status::with_error_details(Code::Unauthenticated, "no", details);

        assert_eq!(reason_of(&status), None);
        assert_eq!(reason_of(&Status::unauthenticated("no")), None);
    }
}
