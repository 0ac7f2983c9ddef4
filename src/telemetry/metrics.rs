//! What is counted: every metric's name, its help text, its labels, and a function that counts.
//!
//! Nothing is installed process-wide: a [`Metrics`] belongs to one module. Label values come from
//! closed lists and from the module's own file, never from a call; `module` is empty until a
//! signature verified.

mod engines;
mod method;
mod samples;

pub use engines::{EngineMetrics, Registered};
pub use method::{GrpcMethod, MethodMetrics};
pub use samples::Samples;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use samples::Upkeep;

const AUTH_REQUESTS: &str = "countersign_auth_requests_total";
const AUTH_SECONDS: &str = "countersign_auth_verify_duration_seconds";
const TOKENS_ISSUED: &str = "countersign_tokens_issued_total";
const TRUSTED_KEYS: &str = "countersign_trusted_keys";
const CLOCK_SKEW: &str = "countersign_peer_clock_skew_seconds";
const RELOAD: &str = "countersign_config_last_reload_successful";
const READY: &str = "countersign_ready";
const BUILD: &str = "countersign_build_info";

/// The metrics of one module, in Prometheus's sense.
///
/// Making one calibrates a clock, once a process: a millisecond, 0.2 s on a machine that is busy.
pub struct Metrics {
    recorder: PrometheusRecorder,
    upkeep: Arc<Upkeep>,
    reasons: Vec<&'static str>,
    /// By the module type of the caller's deployment; empty where nobody is known to call.
    requests: RwLock<HashMap<Box<str>, Arc<Requests>>>,
    verification: Samples,
    reload: Gauge,
    ready: Gauge,
    deployments: Mutex<HashSet<String>>,
}

/// The calls of one kind of callers.
struct Requests {
    accepted: Counter,
    refused: HashMap<&'static str, Counter>,
}

/// The keys of a trusted deployment, for [`Metrics::trusted`].
#[derive(Clone, Copy, Debug)]
pub struct TrustedKeys<'a> {
    /// Its name.
    pub deployment: &'a str,
    /// Its module type.
    pub module: &'a str,
    /// How many of its keys may sign.
    pub active: usize,
    /// How many are revoked.
    pub revoked: usize,
}

impl Metrics {
    /// Starts to count. `reasons` are the words with which calls may be refused.
    pub fn new(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        let recorder = builder().build_recorder();
        describe(&recorder);
        let upkeep = Arc::new(Upkeep::new(recorder.handle()));
        let metrics = Self {
            verification: Samples::new(&recorder, &upkeep, &Key::from_name(AUTH_SECONDS)),
            reload: gauge(&recorder, &Key::from_name(RELOAD)),
            ready: gauge(&recorder, &Key::from_name(READY)),
            recorder,
            upkeep,
            reasons: reasons.into_iter().collect(),
            requests: RwLock::default(),
            deployments: Mutex::default(),
        };
        metrics.reload.set(1);
        metrics.of_module("");
        metrics
    }

    /// Writes all of them in Prometheus's text format, version 0.0.4, sorted by name.
    pub fn render(&self) -> String {
        sorted(&self.upkeep.render())
    }

    /// `countersign_build_info`: what runs here. The module may call itself.
    pub fn build_info(&self, module: &str) {
        self.of_module(module);
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        let labels = vec![version, Label::new("module", module.to_owned())];
        gauge(&self.recorder, &Key::from_parts(BUILD, labels)).set(1);
    }

    /// `countersign_auth_requests_total{result="accepted"}`: a call of a deployment of the module
    /// type `module` was let in.
    pub fn accepted(&self, module: &str) {
        self.of_module(module).accepted.increment(1);
    }

    /// `countersign_auth_requests_total{result="refused"}`: a call was refused for `reason`.
    /// `module` is the type of the caller's deployment, where its signature verified.
    pub fn refused(&self, reason: &str, module: Option<&str>) {
        let requests = self.of_module(module.unwrap_or_default());
        // Of a closed list: any other word is a fault of ours, and no label.
        if let Some(counter) = requests.refused.get(reason) {
            counter.increment(1);
        }
    }

    /// `countersign_auth_verify_duration_seconds`: how long it took to look at a token.
    pub fn verified_in(&self, seconds: f64) {
        self.verification.record(seconds);
    }

    /// `countersign_tokens_issued_total`: a token was signed for `deployment`, one of the file's.
    pub fn token_issued(&self, deployment: &str) {
        self.issued(deployment).increment(1);
    }

    /// `countersign_peer_clock_skew_seconds`: by how much the clock of `deployment`, one of the
    /// file's, is ahead of this machine's.
    pub fn clock_skew(&self, deployment: &str, seconds: f64) {
        self.skew(deployment).set(seconds);
    }

    /// `countersign_config_last_reload_successful`: whether what the files say is in force.
    pub fn config_reload(&self, successful: bool) {
        self.reload.set(u8::from(successful));
    }

    /// `countersign_ready`: whether the module is ready, as its readiness probe tells.
    pub fn ready(&self, ready: bool) {
        self.ready.set(u8::from(ready));
    }

    /// `countersign_trusted_keys`, and the series of each deployment that is not there yet. Those
    /// of a deployment that is trusted no more show no keys and no clock.
    pub fn trusted<'a>(&self, deployments: impl IntoIterator<Item = TrustedKeys<'a>>) {
        let known = self.deployments.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let mut gone = known.clone();
        for trusted in deployments {
            let name = trusted.deployment;
            gone.remove(name);
            self.of_module(trusted.module);
            self.keys(name, "active").set(count(trusted.active));
            self.keys(name, "revoked").set(count(trusted.revoked));
            if known.insert(name.to_owned()) {
                drop(self.issued(name));
                // Nothing is measured yet, which is not the same as no difference.
                self.skew(name).set(f64::NAN);
            }
        }
        for name in gone {
            self.keys(&name, "active").set(0);
            self.keys(&name, "revoked").set(0);
            self.skew(&name).set(f64::NAN);
            known.remove(&name);
        }
    }

    fn of_module(&self, module: &str) -> Arc<Requests> {
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = known.get(module) {
            return Arc::clone(requests);
        }
        drop(known);
        let mut known = self
            .requests
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let requests = known
            .entry(module.into())
            .or_insert_with(|| Arc::new(self.requests_of(module)));
        Arc::clone(requests)
    }

    fn requests_of(&self, module: &str) -> Requests {
        let request = |result: &'static str, reason: &'static str| {
            let labels = vec![
                Label::new("result", result),
                Label::new("reason", reason),
                Label::new("module", module.to_owned()),
            ];
            counter(&self.recorder, &Key::from_parts(AUTH_REQUESTS, labels))
        };
        // Nobody unknown is let in.
        let accepted = match module {
            "" => Counter::noop(),
            _ => request("accepted", ""),
        };
        let reasons = self.reasons.iter();
        Requests {
            accepted,
            refused: reasons
                .map(|reason| (*reason, request("refused", reason)))
                .collect(),
        }
    }

    fn issued(&self, deployment: &str) -> Counter {
        counter(
            &self.recorder,
            &labelled(TOKENS_ISSUED, "audience", deployment),
        )
    }

    fn skew(&self, deployment: &str) -> Gauge {
        gauge(
            &self.recorder,
            &labelled(CLOCK_SKEW, "deployment", deployment),
        )
    }

    fn keys(&self, deployment: &str, state: &'static str) -> Gauge {
        let labels = vec![
            Label::new("deployment", deployment.to_owned()),
            Label::new("state", state),
        ];
        gauge(&self.recorder, &Key::from_parts(TRUSTED_KEYS, labels))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Seconds of a signature's check and what is around it: some 100 µs.
const OF_A_TOKEN: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01,
];

/// Seconds of a call.
const OF_A_CALL: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn builder() -> PrometheusBuilder {
    let buckets = [(AUTH_SECONDS, OF_A_TOKEN), (method::SECONDS, OF_A_CALL)];
    buckets
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        })
        // An error would say that there are no bounds.
        .unwrap_or_default()
}

fn describe(recorder: &PrometheusRecorder) {
    let counters = [
        (
            AUTH_REQUESTS,
            "Calls by whether they were let in, why not, and the caller's module type.",
        ),
        (
            TOKENS_ISSUED,
            "Tokens signed, by the deployment they are for.",
        ),
        (
            engines::REGISTRATIONS,
            "Calls of RegisterEngine by what came of them.",
        ),
    ];
    for (name, help) in counters.into_iter().chain(method::COUNTERS) {
        recorder.describe_counter(name.into(), None, help.into());
    }
    let gauges = [
        (TRUSTED_KEYS, "Keys of each trusted deployment."),
        (
            CLOCK_SKEW,
            "Seconds by which a peer's clock is ahead; NaN until it is measured.",
        ),
        (
            RELOAD,
            "1 while what the files say is in force, 0 while they have faults.",
        ),
        (
            READY,
            "1 while the module is ready, as /actuator/health/readiness.",
        ),
        (BUILD, "1, labelled with what runs here."),
        (engines::ENGINES, "Engines by status."),
    ];
    for (name, help) in gauges {
        recorder.describe_gauge(name.into(), None, help.into());
    }
    for (name, help) in [
        (
            AUTH_SECONDS,
            "Seconds to verify a token, whatever came of it.",
        ),
        (
            method::SECONDS,
            "Seconds from a call to the end of its reply.",
        ),
    ] {
        recorder.describe_histogram(name.into(), None, help.into());
    }
}

/// Sorts the families, and the series within, except where their order is that of buckets.
fn sorted(text: &str) -> String {
    let mut families: Vec<&str> = text
        .split("\n\n")
        .filter(|family| !family.is_empty())
        .collect();
    // Each starts with `# HELP name`.
    families.sort_unstable();
    let mut sorted = String::with_capacity(text.len());
    for family in families {
        let mut lines: Vec<&str> = family.lines().collect();
        if !family.contains("_bucket{") {
            let series = lines.partition_point(|line| line.starts_with('#'));
            if let Some(series) = lines.get_mut(series..) {
                series.sort_unstable();
            }
        }
        for line in lines {
            sorted.push_str(line);
            sorted.push('\n');
        }
    }
    sorted
}

fn labelled(name: &'static str, label: &'static str, value: &str) -> Key {
    Key::from_parts(name, vec![Label::new(label, value.to_owned())])
}

fn counter(recorder: &PrometheusRecorder, key: &Key) -> Counter {
    recorder.register_counter(key, &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, key: &Key) -> Gauge {
    recorder.register_gauge(key, &METADATA)
}

/// A file does not hold as many keys as an f64 cannot count.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

const METADATA: Metadata<'static> = Metadata::new("countersign", Level::INFO, None);

#[cfg(test)]
mod tests;
