//! Families of metrics: those of each gRPC method, with the names of go-grpc-prometheus, and those of
//! engines.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result, TextEncoder,
};

use super::GrpcSide;
use crate::engine::EngineStatus;
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
    pub(super) fn new(families: &Families, side: GrpcSide) -> Result<Self> {
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

    /// Returns the series with these `labels`, all of them 0 if they are new.
    pub(super) fn of(&self, labels: &[&str; 3]) -> MethodMetrics {
        let [service, kind, name] = *labels;
        MethodMetrics {
            started: self.started.with_label_values(labels),
            requests: self.requests.with_label_values(labels),
            replies: self.replies.with_label_values(labels),
            handled: CODES.map(|(_, code)| {
                let of_code = [service, kind, name, code];
                self.handled.with_label_values(&of_code)
            }),
            seconds: self.seconds.with_label_values(labels),
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

/// Where families are registered.
///
/// The label values of a series are hashed one after the other without a separator, so two labels
/// that hold free text must not be neighbours: a label from a closed list separates them.
#[derive(Debug, Default)]
pub(super) struct Families(Registry);

impl Families {
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Gauges that may hold fractions, or NaN.
    pub(super) fn fractions(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Histograms with buckets up to `bounds`.
    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        self.add(HistogramVec::new(options, labels)?)
    }

    /// The one gauge of a family without labels.
    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    fn add<F: Collector + Clone + 'static>(&self, family: F) -> Result<F> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Writes all series in Prometheus's text format, sorted by name and label values.
    pub(super) fn render(&self) -> String {
        // Only a family without a name or series cannot be written, and none is gathered.
        let text = TextEncoder::new().encode_to_string(&self.0.gather());
        text.unwrap_or_default()
    }
}

/// Removes the series of `family` whose `label` has none of the `values`.
pub(super) fn retain<T: MetricVecBuilder>(
    family: &MetricVec<T>,
    label: &str,
    values: &BTreeSet<&str>,
) {
    for collected in family.collect() {
        for series in collected.get_metric() {
            let pairs = series.get_label().iter();
            let labels: HashMap<_, _> = pairs.map(|l| (l.name(), l.value())).collect();
            if labels
                .get(label)
                .is_none_or(|value| !values.contains(value))
            {
                // An error means that it is gone already.
                let _ = family.remove(&labels);
            }
        }
    }
}

/// Returns `number` as a gauge holds it.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The metrics of a registry of engines. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    by_status: IntGaugeVec,
    registrations: IntCounterVec,
    durable: IntGaugeVec,
}

/// The results of `RegisterEngine` that are counted.
const RESULTS: [&str; 7] = [
    "registered",
    "not_owned",
    "duplicate",
    "address_not_allowed",
    "limit_reached",
    "invalid",
    "failed",
];

const DURABLE: &str =
    "1 if registrations outlast the process, as with a store that can be written.";

impl EngineMetrics {
    pub(super) fn new(families: &Families) -> Result<Self> {
        Ok(Self {
            by_status: families.gauges("countersign_engines", "Engines by status.", &["status"])?,
            registrations: families.counters(
                "countersign_engine_registrations_total",
                "Calls of RegisterEngine by result.",
                &["result"],
            )?,
            durable: families.gauges("countersign_registry_durable", DURABLE, &[])?,
        })
    }

    /// Creates all series, 0 if they are new.
    pub(super) fn begin(&self) {
        for status in EngineStatus::ALL {
            self.by_status.with_label_values(&[status.as_str()]);
        }
        for result in RESULTS {
            self.registrations.with_label_values(&[result]);
        }
        self.durable(false);
    }

    /// `countersign_engine_registrations_total`: a call of `RegisterEngine` ended with `result`,
    /// one of six.
    pub fn registered(&self, result: &'static str) {
        self.registrations.with_label_values(&[result]).inc();
    }

    /// `countersign_registry_durable`: whether registrations outlast the process.
    pub fn durable(&self, is: bool) {
        self.durable.with_label_values::<&str>(&[]).set(is.into());
    }

    /// `countersign_engines`: how many there are with `status`.
    pub fn engines(&self, status: EngineStatus, number: usize) {
        let gauge = self.by_status.with_label_values(&[status.as_str()]);
        gauge.set(count(number));
    }
}
