//! What a server counts of each gRPC method, named as go-grpc-prometheus names it.

use metrics::{Counter, Key, Label};

use super::{Metrics, Samples, counter};

const STARTED: &str = "grpc_server_started_total";
const HANDLED: &str = "grpc_server_handled_total";
const RECEIVED: &str = "grpc_server_msg_received_total";
const SENT: &str = "grpc_server_msg_sent_total";
pub(super) const SECONDS: &str = "grpc_server_handling_seconds";

/// The counters and their help texts.
pub(super) const COUNTERS: [(&str, &str); 4] = [
    (STARTED, "Calls that arrived."),
    (HANDLED, "Calls that ended, by their status."),
    (RECEIVED, "Messages received."),
    (SENT, "Messages sent."),
];

/// The status codes by their number, spelt as Go does and dashboards expect.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// A method's labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrpcMethod {
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
    /// The service with its package.
    pub service: String,
    /// The method.
    pub method: String,
}

impl GrpcMethod {
    /// Stands for every method that is not served: anybody can make up names.
    pub fn other() -> Self {
        Self {
            kind: "other",
            service: "other".to_owned(),
            method: "other".to_owned(),
        }
    }
}

/// The metrics of one method.
#[derive(Clone, Debug)]
pub struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
    seconds: Samples,
}

impl MethodMetrics {
    /// `grpc_server_started_total`: a call arrived.
    pub fn started(&self) {
        self.started.increment(1);
    }

    /// `grpc_server_msg_received_total`: messages of the caller arrived.
    pub fn received(&self, messages: u64) {
        self.received.increment(messages);
    }

    /// `grpc_server_msg_sent_total`: messages of the reply are on their way.
    pub fn sent(&self, messages: u64) {
        self.sent.increment(messages);
    }

    /// `grpc_server_handled_total` and `grpc_server_handling_seconds`: a call ended with the
    /// status `code`, `seconds` after it arrived. No such code is `Unknown`.
    pub fn handled(&self, code: usize, seconds: f64) {
        let [_, _, unknown, ..] = &self.handled;
        self.handled.get(code).unwrap_or(unknown).increment(1);
        self.seconds.record(seconds);
    }
}

impl Metrics {
    /// Returns the metrics of `method`, all of them 0 where they are new.
    pub fn of_method(&self, method: &GrpcMethod) -> MethodMetrics {
        let labels = || {
            vec![
                Label::new("grpc_type", method.kind),
                Label::new("grpc_service", method.service.clone()),
                Label::new("grpc_method", method.method.clone()),
            ]
        };
        let count = |name| counter(&self.recorder, &Key::from_parts(name, labels()));
        MethodMetrics {
            started: count(STARTED),
            received: count(RECEIVED),
            sent: count(SENT),
            handled: CODES.map(|code| {
                let mut labels = labels();
                labels.push(Label::new("grpc_code", code));
                counter(&self.recorder, &Key::from_parts(HANDLED, labels))
            }),
            seconds: Samples::new(
                &self.recorder,
                &self.upkeep,
                &Key::from_parts(SECONDS, labels()),
            ),
        }
    }
}
