//! The metrics of each gRPC method, with the names of go-grpc-prometheus.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::families::Families;
use super::{GrpcMethod, GrpcSide};
use crate::telemetry::CODES;

/// The families of one side.
#[derive(Debug)]
pub(super) struct MethodFamilies {
    started: IntCounterVec,
    handled: IntCounterVec,
    requests: IntCounterVec,
    replies: IntCounterVec,
    seconds: HistogramVec,
}

/// Help texts in the order of the fields of [`MethodFamilies`].
const SERVER_HELP: [&str; 5] = [
    "Calls that arrived.",
    "Calls that ended, by their status.",
    "Messages received.",
    "Messages sent.",
    "Seconds from a call to the end of its reply.",
];

const CLIENT_HELP: [&str; 5] = [
    "Calls of other modules that began.",
    "Calls of other modules that ended, by the status that the caller got.",
    "Messages sent to other modules.",
    "Messages received from other modules.",
    "Seconds from a call of another module to the end of its reply.",
];

/// Bounds for a call.
const CALL_SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl MethodFamilies {
    pub(super) fn new(families: &Families, side: GrpcSide) -> prometheus::Result<Self> {
        let (side, requests, replies, help) = match side {
            GrpcSide::Server => ("grpc_server", "msg_received", "msg_sent", SERVER_HELP),
            GrpcSide::Client => ("grpc_client", "msg_sent", "msg_received", CLIENT_HELP),
        };
        let labels = ["grpc_service", "grpc_type", "grpc_method", "grpc_code"];
        let [method @ .., _] = &labels;
        let names =
            ["started", "handled", requests, replies].map(|it| format!("{side}_{it}_total"));
        let [started, handled, of_requests, of_replies] = &names;
        let seconds = format!("{side}_handling_seconds");
        Ok(Self {
            started: families.counters(started, help[0], method)?,
            handled: families.counters(handled, help[1], &labels)?,
            requests: families.counters(of_requests, help[2], method)?,
            replies: families.counters(of_replies, help[3], method)?,
            seconds: families.histograms(&seconds, help[4], method, CALL_SECONDS)?,
        })
    }

    /// Returns the series of `method`, all of them 0 if they are new.
    pub(super) fn of(&self, method: &GrpcMethod) -> MethodMetrics {
        let labels = [&*method.service, method.kind, &*method.method];
        let [service, kind, name] = labels;
        MethodMetrics {
            started: self.started.with_label_values(&labels),
            requests: self.requests.with_label_values(&labels),
            replies: self.replies.with_label_values(&labels),
            handled: CODES.map(|(_, code)| {
                let of_code = [service, kind, name, code];
                self.handled.with_label_values(&of_code)
            }),
            seconds: self.seconds.with_label_values(&labels),
        }
    }
}

/// The metrics of one method.
#[derive(Clone, Debug)]
pub struct MethodMetrics {
    started: IntCounter,
    handled: [IntCounter; CODES.len()],
    requests: IntCounter,
    replies: IntCounter,
    seconds: Histogram,
}

impl MethodMetrics {
    /// `grpc_…_started_total`: a call began.
    pub fn started(&self) {
        self.started.inc();
    }

    /// `grpc_server_msg_received_total`, `grpc_client_msg_sent_total`: the caller sent
    /// `messages`.
    pub fn requests(&self, messages: u64) {
        self.requests.inc_by(messages);
    }

    /// `grpc_server_msg_sent_total`, `grpc_client_msg_received_total`: the callee sent
    /// `messages`.
    pub fn replies(&self, messages: u64) {
        self.replies.inc_by(messages);
    }

    /// `grpc_…_handled_total` and `grpc_…_handling_seconds`: a call ended with the status `code`,
    /// `seconds` after it began. A code that does not exist counts as `Unknown`.
    pub fn handled(&self, code: usize, seconds: f64) {
        let [_, _, unknown, ..] = &self.handled;
        self.handled.get(code).unwrap_or(unknown).inc();
        self.seconds.observe(seconds);
    }
}
