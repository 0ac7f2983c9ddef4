//! A case: what is sent, and the one outcome that is right.

use countersign::Reason;
use countersign::grpc::reason_of;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

/// One case of the catalogue.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) call: Call,
    pub(super) outcome: Outcome,
}

/// What a call must come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Ok,
    Refused(Reason),
    Answered(Code),
}

/// The metadata of a call.
#[derive(Clone, Default)]
pub(super) struct Call(pub(super) HeaderMap);

impl Call {
    /// A call with `token` as every caller sends it.
    pub(super) fn bearer(token: &str) -> Self {
        Self::default().with("authorization", &format!("Bearer {token}"))
    }

    /// A call with these values of `authorization`.
    pub(super) fn authorization(values: &[&str]) -> Self {
        let with = |call: Self, value: &&str| call.with("authorization", value);
        values.iter().fold(Self::default(), with)
    }

    /// Adds a metadata value; others of that name stay.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.0.append(name, value);
        self
    }
}

/// A token that must be accepted.
pub(super) fn accepted(name: impl Into<String>, token: &str) -> Row {
    row(name, Call::bearer(token), Outcome::Ok)
}

/// A token that must be refused for `reason`.
pub(super) fn refused(name: impl Into<String>, token: &str, reason: Reason) -> Row {
    row(name, Call::bearer(token), Outcome::Refused(reason))
}

/// Any call.
pub(super) fn row(name: impl Into<String>, call: Call, outcome: Outcome) -> Row {
    let name = name.into();
    Row {
        name,
        call,
        outcome,
    }
}

impl Outcome {
    /// Returns what is wrong with `status`, if anything is.
    pub(super) fn check(self, status: &Status) -> Result<(), String> {
        let reason = reason_of(status);
        let right = match self {
            Self::Ok => status.code() == Code::Ok,
            Self::Answered(code) => status.code() == code && reason.is_none(),
            Self::Refused(expected) => {
                status.code() == code_of(expected)
                    && reason == Some(expected)
                    && gives_nothing_away(expected, status)
            }
        };
        if right {
            return Ok(());
        }
        let word = reason.map_or("no reason", Reason::as_str);
        let (code, message) = (status.code(), status.message());
        Err(format!(
            "expected {self:?}, got {code:?} ({word}) {message:?}"
        ))
    }
}

fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::RoleMissing => Code::PermissionDenied,
        _ => Code::Unauthenticated,
    }
}

/// Before its signature verified a caller learns the word and its summary, and nothing else.
fn gives_nothing_away(reason: Reason, status: &Status) -> bool {
    let unverified = [
        Reason::TokenMissing,
        Reason::AlgorithmNotAllowed,
        Reason::KeyUnknown,
        Reason::SignatureInvalid,
    ];
    let bare = format!("{reason}: {}", reason.summary());
    !unverified.contains(&reason) || status.message() == bare
}
