//! What is counted of each gRPC method, named as go-grpc-prometheus names it.

use metrics::{Counter, Key, Label};

use super::{Metrics, Samples, counter};

/// Which side of a call counts it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GrpcSide {
    /// The callee: `grpc_server_…`.
    Server,
    /// The caller: `grpc_client_…`.
    Client,
}

/// What a side's families are called.
struct Names {
    started: &'static str,
    handled: &'static str,
    requests: &'static str,
    replies: &'static str,
    seconds: &'static str,
}

const SERVER: Names = Names {
    started: "grpc_server_started_total",
    handled: "grpc_server_handled_total",
    requests: "grpc_server_msg_received_total",
    replies: "grpc_server_msg_sent_total",
    seconds: "grpc_server_handling_seconds",
};

const CLIENT: Names = Names {
    started: "grpc_client_started_total",
    handled: "grpc_client_handled_total",
    requests: "grpc_client_msg_sent_total",
    replies: "grpc_client_msg_received_total",
    seconds: "grpc_client_handling_seconds",
};

/// The counters and their help texts.
pub(super) const COUNTERS: [(&str, &str); 8] = [
    (SERVER.started, "Calls that arrived."),
    (SERVER.handled, "Calls that ended, by their status."),
    (SERVER.requests, "Messages received."),
    (SERVER.replies, "Messages sent."),
    (CLIENT.started, "Calls of other modules that began."),
    (
        CLIENT.handled,
        "Calls of other modules that ended, by the status that the caller got.",
    ),
    (CLIENT.requests, "Messages sent to other modules."),
    (CLIENT.replies, "Messages received from other modules."),
];

/// The histograms and their help texts.
pub(super) const HISTOGRAMS: [(&str, &str); 2] = [
    (
        SERVER.seconds,
        "Seconds from a call to the end of its reply.",
    ),
    (
        CLIENT.seconds,
        "Seconds from a call of another module to the end of its reply.",
    ),
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
    /// Stands for every method that is not one of those told apart: anybody can make up names.
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
    requests: Counter,
    replies: Counter,
    seconds: Samples,
}

impl MethodMetrics {
    /// `grpc_…_started_total`: a call began.
    pub fn started(&self) {
        self.started.increment(1);
    }

    /// `grpc_server_msg_received_total`, `grpc_client_msg_sent_total`: so many messages of the
    /// caller.
    pub fn requests(&self, messages: u64) {
        self.requests.increment(messages);
    }

    /// `grpc_server_msg_sent_total`, `grpc_client_msg_received_total`: so many messages of the
    /// callee.
    pub fn replies(&self, messages: u64) {
        self.replies.increment(messages);
    }

    /// `grpc_…_handled_total` and `grpc_…_handling_seconds`: a call ended with the status `code`,
    /// `seconds` after it began. No such code is `Unknown`.
    pub fn handled(&self, code: usize, seconds: f64) {
        let [_, _, unknown, ..] = &self.handled;
        self.handled.get(code).unwrap_or(unknown).increment(1);
        self.seconds.record(seconds);
    }
}

impl Metrics {
    /// Returns what `side` counts of `method`, all of it 0 where it is new.
    pub fn of_method(&self, side: GrpcSide, method: &GrpcMethod) -> MethodMetrics {
        let names = match side {
            GrpcSide::Server => SERVER,
            GrpcSide::Client => CLIENT,
        };
        let labels = || {
            vec![
                Label::new("grpc_type", method.kind),
                Label::new("grpc_service", method.service.clone()),
                Label::new("grpc_method", method.method.clone()),
            ]
        };
        let count = |name| counter(&self.recorder, &Key::from_parts(name, labels()));
        MethodMetrics {
            started: count(names.started),
            requests: count(names.requests),
            replies: count(names.replies),
            handled: CODES.map(|code| {
                let mut labels = labels();
                labels.push(Label::new("grpc_code", code));
                counter(&self.recorder, &Key::from_parts(names.handled, labels))
            }),
            seconds: Samples::new(
                &self.recorder,
                &self.upkeep,
                &Key::from_parts(names.seconds, labels()),
            ),
        }
    }
}
