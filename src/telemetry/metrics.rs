//! What is counted: every metric's name, its help text, its labels, and a function that counts.
//!
//! Nothing is installed process-wide: a [`Metrics`] belongs to one module. Label values come from
//! closed lists and from the module's own file, never from a call; `module` is empty until a
//! signature verified.

mod engines;
mod family;
mod method;
mod own_key;
mod peers;
mod samples;

pub use engines::{EngineMetrics, Registered};
pub use method::{GrpcMethod, GrpcSide, MethodMetrics};
pub use samples::Samples;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use own_key::OwnKey;
use peers::Peers;
use samples::Upkeep;

const AUTH_SECONDS: &str = "countersign_auth_verify_duration_seconds";
const LOOKUPS: &str = "countersign_token_cache_lookups_total";
const RELOAD: &str = "countersign_config_last_reload_successful";
const READY: &str = "countersign_ready";
const BUILD: &str = "countersign_build_info";

/// The metrics of one module, in Prometheus's sense.
///
/// Making one calibrates a clock, once a process: a millisecond, 0.2 s on a machine that is busy.
pub struct Metrics {
    recorder: PrometheusRecorder,
    upkeep: Arc<Upkeep>,
    peers: Peers,
    own_key: OwnKey,
    /// Of tokens that are remembered, and of others.
    verification: [Samples; 2],
    lookups: [Counter; 2],
    reload: Gauge,
    ready: Gauge,
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
        let verification = CACHE.map(|cache| labelled(AUTH_SECONDS, "cache", cache));
        let lookups = CACHE.map(|result| labelled(LOOKUPS, "result", result));
        let metrics = Self {
            verification: verification.map(|key| Samples::new(&recorder, &upkeep, &key)),
            lookups: lookups.map(|key| counter(&recorder, &key)),
            reload: gauge(&recorder, &Key::from_name(RELOAD)),
            ready: gauge(&recorder, &Key::from_name(READY)),
            recorder,
            upkeep,
            peers: Peers::new(reasons),
            own_key: OwnKey::default(),
        };
        metrics.reload.set(1);
        metrics
    }

    /// Writes all of them in Prometheus's text format, version 0.0.4, sorted by name.
    pub fn render(&self) -> String {
        let mut text = self.upkeep.render();
        self.peers.write(&mut text);
        self.own_key.write(&mut text);
        sorted(&text)
    }

    /// `countersign_build_info`: what runs here. The module may call itself.
    pub fn build_info(&self, module: &str) {
        self.peers.always(module);
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        let labels = vec![version, Label::new("module", module.to_owned())];
        gauge(&self.recorder, &Key::from_parts(BUILD, labels)).set(1);
    }

    /// `countersign_auth_requests_total{result="accepted"}`: a call of a deployment of the module
    /// type `module` was let in.
    pub fn accepted(&self, module: &str) {
        self.peers.accepted(module);
    }

    /// `countersign_auth_requests_total{result="refused"}`: a call was refused for `reason`.
    /// `module` is the type of the caller's deployment, where its signature verified.
    pub fn refused(&self, reason: &str, module: Option<&str>) {
        self.peers.refused(reason, module.unwrap_or_default());
    }

    /// `countersign_auth_verify_duration_seconds`: how long it took to look at a token; and, where it
    /// was looked for among those that verified, `countersign_token_cache_lookups_total`: whether it
    /// was `remembered`.
    pub fn verified_in(&self, seconds: f64, remembered: Option<bool>) {
        let [hit, miss] = &self.verification;
        let samples = if remembered == Some(true) { hit } else { miss };
        samples.record(seconds);
        let [hit, miss] = &self.lookups;
        match remembered {
            Some(true) => hit.increment(1),
            Some(false) => miss.increment(1),
            None => {}
        }
    }

    /// `countersign_tokens_issued_total`: a token was signed for `deployment`, one of the file's.
    pub fn token_issued(&self, deployment: &str) {
        self.peers.token_issued(deployment);
    }

    /// `countersign_peer_clock_skew_seconds`: by how much the clock of `deployment`, one of the
    /// file's, was measured to be ahead of this machine's.
    pub fn clock_skew(&self, deployment: &str, seconds: f64) {
        self.peers.clock_skew(deployment, seconds);
    }

    /// `countersign_peer_clock_skew_seconds`: a refusal because of times tells that the clock of
    /// `deployment`, one of the file's, is ahead by `seconds`. It counts until the clock is measured
    /// or [fits](Self::clock_fits).
    pub fn clock_told(&self, deployment: &str, seconds: f64) {
        self.peers.clock_told(deployment, seconds);
    }

    /// A call between this module and `deployment` was not refused because of times: what a refusal
    /// told of its clock holds no more.
    pub fn clock_fits(&self, deployment: &str) {
        self.peers.clock_fits(deployment);
    }

    /// `countersign_config_last_reload_successful`: whether what the files say is in force.
    pub fn config_reload(&self, successful: bool) {
        self.reload.set(u8::from(successful));
    }

    /// `countersign_ready`: whether the module is ready, as its readiness probe tells.
    pub fn ready(&self, ready: bool) {
        self.ready.set(u8::from(ready));
    }

    /// `countersign_signing_key_created_timestamp_seconds`: the module signs with the key `kid` from
    /// now on, which was made at `made_at`, as far as is known.
    pub fn signs_with(&self, kid: &str, made_at: Option<SystemTime>) {
        self.own_key.set(kid, made_at);
    }

    /// `countersign_trusted_keys`: `deployments` are all that are trusted. Each has its series from
    /// then on, and no other deployment has any; nor has a module type that none of them is of, but
    /// the module's own.
    pub fn trusted<'a>(&self, deployments: impl IntoIterator<Item = TrustedKeys<'a>>) {
        let deployments: Vec<_> = deployments.into_iter().collect();
        self.peers.trusted(&deployments);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const CACHE: [&str; 2] = ["hit", "miss"];

/// Seconds of a signature's check and what is around it: some 100 µs, or 1 µs where the token is
/// remembered.
const OF_A_TOKEN: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
];

/// Seconds of a call.
const OF_A_CALL: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn builder() -> PrometheusBuilder {
    let calls = method::HISTOGRAMS.map(|(name, _)| (name, OF_A_CALL));
    calls
        .into_iter()
        .chain([(AUTH_SECONDS, OF_A_TOKEN)])
        .try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        })
        // An error would say that there are no bounds.
        .unwrap_or_default()
}

fn describe(recorder: &PrometheusRecorder) {
    let registrations = (
        engines::REGISTRATIONS,
        "Calls of RegisterEngine by what came of them.",
    );
    let lookups = (
        LOOKUPS,
        "Tokens looked for among those that verified before, whose signature is not checked again.",
    );
    for (name, help) in method::COUNTERS.into_iter().chain([registrations, lookups]) {
        recorder.describe_counter(name.into(), None, help.into());
    }
    let gauges = [
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
    let verification = (
        AUTH_SECONDS,
        "Seconds to verify a token, whatever came of it.",
    );
    for (name, help) in method::HISTOGRAMS.into_iter().chain([verification]) {
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

/// There are not as many engines as an f64 cannot count.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

const METADATA: Metadata<'static> = Metadata::new("countersign", Level::INFO, None);

#[cfg(test)]
mod tests;
