//! The metrics: every name, its help text, its labels, and a method that counts.
//!
//! Nothing is registered for the whole process: a [`Metrics`] belongs to one module. Label values
//! come from closed lists and from the module's own file, never from a call; `module` is empty
//! until a signature verified.

mod families;

pub use families::{EngineMetrics, MethodMetrics};

pub use super::grpc_method::GrpcSide;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::clock::seconds_after;
use families::{Families, MethodFamilies, count, retain};

/// The metrics of one module, in Prometheus's sense.
#[derive(Debug)]
pub struct Metrics {
    families: Families,
    /// The module's own type.
    module: Box<str>,
    reasons: Box<[&'static str]>,
    requests: IntCounterVec,
    /// Of tokens that are remembered, and of others.
    verification: [Histogram; 2],
    lookups: [IntCounter; 2],
    tokens_issued: IntCounterVec,
    trusted_keys: IntGaugeVec,
    clock_skew: GaugeVec,
    /// For each deployment whose clock is shown: what an estimate hides, `None` if nothing does.
    clocks: Mutex<BTreeMap<Box<str>, Option<f64>>>,
    /// Whether any is an estimate: without one, a call takes no lock.
    any_estimate: AtomicBool,
    reload: IntGauge,
    ready: IntGauge,
    signing_key: GaugeVec,
    log_lines_lost: IntCounter,
    certificates: GaugeVec,
    engines: EngineMetrics,
    server: MethodFamilies,
    client: MethodFamilies,
}

/// A trusted deployment: its name, its module type, how many of its keys may sign and how many are
/// revoked.
pub type TrustedKeys<'a> = (&'a str, &'a str, [usize; 2]);

impl Metrics {
    /// Creates the metrics of a module of the type `module`. `reasons` are the words with which it
    /// may refuse calls.
    ///
    /// # Errors
    ///
    /// If a name or a label is invalid or is used twice, which no caller can cause.
    #[expect(clippy::too_many_lines, reason = "one table of the module's metrics")]
    pub fn new(
        module: &str,
        reasons: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let families = Families::default();
        let requests = families.counters(
            "countersign_auth_requests_total",
            "Calls by result, refusal reason and the caller's module type.",
            &["module", "result", "reason"],
        )?;
        let verification = families.histograms(
            "countersign_auth_verify_duration_seconds",
            "Seconds to verify a token, accepted or not.",
            &["cache"],
            TOKEN_SECONDS,
        )?;
        let lookups = families.counters(
            "countersign_token_cache_lookups_total",
            "Lookups of tokens in the cache of verified tokens. A hit skips the signature check.",
            &["result"],
        )?;
        let build = families.gauges(
            "countersign_build_info",
            "Always 1; the labels name the version and the module type.",
            &["version", "module"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), module])
            .set(1);
        let metrics = Self {
            module: module.into(),
            reasons: reasons.into_iter().collect(),
            requests,
            verification: CACHE.map(|cache| verification.with_label_values(&[cache])),
            lookups: CACHE.map(|result| lookups.with_label_values(&[result])),
            tokens_issued: families.counters(
                "countersign_tokens_issued_total",
                "Tokens signed, by the deployment that receives them.",
                &["audience"],
            )?,
            trusted_keys: families.gauges(
                "countersign_trusted_keys",
                "Keys of each trusted deployment.",
                &["deployment", "state"],
            )?,
            clock_skew: families.fractions(
                "countersign_peer_clock_skew_seconds",
                "Seconds by which a peer's clock is ahead, as its last proof shows or a \
                 later refusal shows; NaN if neither does.",
                &["deployment"],
            )?,
            clocks: Mutex::default(),
            any_estimate: AtomicBool::new(false),
            reload: families.gauge(
                "countersign_config_last_reload_successful",
                "1 while the files are applied, 0 while they have faults.",
            )?,
            ready: families.gauge(
                "countersign_ready",
                "1 while the module is ready, as /actuator/health/readiness.",
            )?,
            signing_key: families.fractions(
                "countersign_signing_key_created_timestamp_seconds",
                "When the signing key was made, in seconds since 1970; NaN if that is unknown.",
                &["kid"],
            )?,
            log_lines_lost: families
                .counters("countersign_log_lines_lost_total", LOG_LINES_LOST, &[])?
                .with_label_values::<&str>(&[]),
            certificates: families.fractions(
                "countersign_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of the server or a connection expires, in seconds since 1970.",
                &["use"],
            )?,
            engines: EngineMetrics::new(&families)?,
            server: MethodFamilies::new(&families, GrpcSide::Server)?,
            client: MethodFamilies::new(&families, GrpcSide::Client)?,
            families,
        };
        metrics.config_reload(true);
        metrics.trusted([]);
        Ok(metrics)
    }

    /// Writes all metrics in Prometheus's text format, version 0.0.4, sorted by name.
    pub fn render(&self) -> String {
        self.families.render()
    }

    /// `countersign_auth_requests_total{result="accepted"}`: accepted a call from a deployment of
    /// the module type `module`.
    pub fn accepted(&self, module: &str) {
        self.requests
            .with_label_values(&[module, "accepted", ""])
            .inc();
    }

    /// `countersign_auth_requests_total{result="refused"}`: a call was refused for `reason`.
    /// `module` is the type of the caller's deployment, if its signature verified.
    pub fn refused(&self, reason: &str, module: Option<&str>) {
        // Any word outside the closed list is a bug, and no label.
        if self.reasons.contains(&reason) {
            let labels = [module.unwrap_or_default(), "refused", reason];
            self.requests.with_label_values(&labels).inc();
        }
    }

    /// `countersign_auth_verify_duration_seconds`: how long it took to verify a token; and, if it
    /// was looked up among those that verified before, `countersign_token_cache_lookups_total`:
    /// whether it was `remembered`.
    pub fn verified_in(&self, seconds: f64, remembered: Option<bool>) {
        let ([hit, miss], [hits, misses]) = (&self.verification, &self.lookups);
        let histogram = if remembered == Some(true) { hit } else { miss };
        histogram.observe(seconds);
        match remembered {
            Some(true) => hits.inc(),
            Some(false) => misses.inc(),
            None => {}
        }
    }

    /// `countersign_tokens_issued_total`: a token was signed for `deployment`, one from the file.
    pub fn token_issued(&self, deployment: &str) {
        self.tokens_issued.with_label_values(&[deployment]).inc();
    }

    /// `countersign_peer_clock_skew_seconds`: a proof shows that the clock of `deployment`, one
    /// from the file, is ahead by `seconds`.
    pub fn clock_measured(&self, deployment: &str, seconds: f64) {
        let mut hidden = self.clocks();
        self.shown_clock(deployment).set(seconds);
        hidden.insert(deployment.into(), None);
        self.note_estimates(&hidden);
    }

    /// `countersign_peer_clock_skew_seconds`: a refusal because of times suggests that the clock of
    /// `deployment`, one from the file, is ahead by `seconds`. The estimate is shown until the
    /// clock is [measured](Self::clock_measured) or [agrees](Self::clock_agrees).
    pub fn clock_estimated(&self, deployment: &str, seconds: f64) {
        let mut hidden = self.clocks();
        let shown = self.shown_clock(deployment);
        let before = match hidden.get(deployment) {
            None => f64::NAN,
            Some(None) => shown.get(),
            Some(Some(before)) => *before,
        };
        hidden.insert(deployment.into(), Some(before));
        shown.set(seconds);
        self.note_estimates(&hidden);
    }

    /// A call between this module and `deployment` was not refused because of times: drops what an
    /// earlier refusal suggested.
    pub fn clock_agrees(&self, deployment: &str) {
        // Without any estimate, a call costs no more than this.
        if !self.any_estimate.load(Ordering::Relaxed) {
            return;
        }
        let mut hidden = self.clocks();
        if let Some(measured) = hidden.get_mut(deployment).and_then(Option::take) {
            self.shown_clock(deployment).set(measured);
            self.note_estimates(&hidden);
        }
    }

    /// `countersign_config_last_reload_successful`: whether the files are valid and active.
    pub fn config_reload(&self, successful: bool) {
        self.reload.set(i64::from(successful));
    }

    /// `countersign_ready`: whether the module is ready, as in its readiness probe.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// `countersign_log_lines_lost_total`: so many log lines were lost since the start.
    pub fn log_lines_lost(&self, lines: u64) {
        let counted = self.log_lines_lost.get();
        self.log_lines_lost.inc_by(lines.saturating_sub(counted));
    }

    /// `countersign_signing_key_created_timestamp_seconds`: the module now signs with the key
    /// `kid`, which was created at `created`, if that is known.
    pub fn signs_with(&self, kid: &str, created: Option<SystemTime>) {
        let seconds = created.map_or(f64::NAN, |at| seconds_after(at, SystemTime::UNIX_EPOCH));
        self.signing_key.with_label_values(&[kid]).set(seconds);
        retain(&self.signing_key, "kid", &BTreeSet::from([kid]));
    }

    /// `countersign_tls_certificate_expiry_timestamp_seconds`: `all` are the module's certificates
    /// by their use, and when each expires.
    pub fn certificates<'a>(&self, all: impl IntoIterator<Item = (&'a str, SystemTime)>) {
        self.certificates.reset();
        for (usage, not_after) in all {
            let at = seconds_after(not_after, SystemTime::UNIX_EPOCH);
            self.certificates.with_label_values(&[usage]).set(at);
        }
    }

    /// `countersign_trusted_keys`: `deployments` are all that are trusted. From then on each has
    /// its series, and no other deployment has any; nor does a module type that none of them has,
    /// except the module's own.
    pub fn trusted<'a>(&self, deployments: impl IntoIterator<Item = TrustedKeys<'a>>) {
        let mut modules = BTreeSet::from(["", &self.module]);
        let mut names = BTreeSet::new();
        for (name, module, [active, revoked]) in deployments {
            for (state, number) in [("active", active), ("revoked", revoked)] {
                let gauge = self.trusted_keys.with_label_values(&[name, state]);
                gauge.set(count(number));
            }
            self.tokens_issued.with_label_values(&[name]);
            names.insert(name);
            modules.insert(module);
        }
        for module in &modules {
            // No unknown caller is accepted.
            if !module.is_empty() {
                self.requests.with_label_values(&[module, "accepted", ""]);
            }
            for reason in &self.reasons {
                self.requests
                    .with_label_values(&[*module, "refused", *reason]);
            }
        }
        retain(&self.requests, "module", &modules);
        retain(&self.tokens_issued, "audience", &names);
        retain(&self.trusted_keys, "deployment", &names);
        retain(&self.clock_skew, "deployment", &names);
        let mut hidden = self.clocks();
        hidden.retain(|name, _| names.contains(&**name));
        for name in names {
            if !hidden.contains_key(name) {
                self.shown_clock(name).set(f64::NAN);
                hidden.insert(name.into(), None);
            }
        }
        self.note_estimates(&hidden);
    }

    /// Returns the metrics of a registry, all of them 0 if they are new.
    pub fn of_engines(&self) -> EngineMetrics {
        self.engines.begin();
        self.engines.clone()
    }

    /// Returns what `side` counts of a method with these `labels`, all of it 0 if it is new: the
    /// service with its package, how it streams, the method.
    pub fn of_method(&self, side: GrpcSide, labels: &[&str; 3]) -> MethodMetrics {
        match side {
            GrpcSide::Server => self.server.of(labels),
            GrpcSide::Client => self.client.of(labels),
        }
    }

    fn shown_clock(&self, deployment: &str) -> Gauge {
        self.clock_skew.with_label_values(&[deployment])
    }

    fn note_estimates(&self, hidden: &BTreeMap<Box<str>, Option<f64>>) {
        let any = hidden.values().any(Option::is_some);
        self.any_estimate.store(any, Ordering::Relaxed);
    }

    fn clocks(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Option<f64>>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOG_LINES_LOST: &str = "Log lines that could not be written, over all outputs.";

const CACHE: [&str; 2] = ["hit", "miss"];

/// Bounds for the verification of a token: about 100 µs, or 1 µs if the token is remembered.
const TOKEN_SECONDS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2,
];

#[cfg(test)]
mod tests;
