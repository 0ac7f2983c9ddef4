//! What a DPM refused, as it is logged.

use tonic::Status;

use crate::engine::FailureKind;
use crate::grpc::{code_name, kind_of, refusal_of, summary_and_detail};
use crate::telemetry::Untrusted;
use crate::token::Reason;

/// Why the engine is not registered, although the DPM answers.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) kind: FailureKind,
    pub(super) reason: Option<Reason>,
    pub(super) detail: String,
    pub(super) help: &'static str,
}

impl Refused {
    /// Reads the refusal `status` of a call that this engine signed with `key`.
    pub(super) fn by(status: &Status, key: &str) -> Self {
        let Some(refusal) = refusal_of(status) else {
            let code = code_name(status.code());
            return Self {
                kind: FailureKind::Refused,
                reason: None,
                detail: format!("{code}: {}", Untrusted(status.message())),
                help: "the DPM's log says more",
            };
        };
        let what = summary_and_detail(&refusal);
        Self {
            kind: kind_of(&refusal),
            reason: Some(refusal.reason),
            detail: format!("{what} (this engine's key is {key})"),
            help: match refusal.clocks {
                Some(_) => "the two clocks differ: `countersign doctor` measures by how much",
                None => refusal.reason.help(),
            },
        }
    }
}
