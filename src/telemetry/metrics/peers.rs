//! Series that come and go with whom the module trusts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::TrustedKeys;
use super::family::Family;

const AUTH_REQUESTS: &str = "countersign_auth_requests_total";
const TOKENS_ISSUED: &str = "countersign_tokens_issued_total";
const TRUSTED_KEYS: &str = "countersign_trusted_keys";
const CLOCK_SKEW: &str = "countersign_peer_clock_skew_seconds";

/// The series of deployments and of their module types. Counting waits for nobody.
#[derive(Debug)]
pub(super) struct Peers {
    reasons: Box<[&'static str]>,
    known: ArcSwap<Known>,
    /// Whether a refusal ever told of a clock.
    told: AtomicBool,
}

/// What has series now.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The module types that have series whomever the module trusts.
    always: Vec<Box<str>>,
    /// By module type; empty where nobody is known to call.
    requests: BTreeMap<Box<str>, Arc<Requests>>,
    /// By name.
    deployments: BTreeMap<Box<str>, Arc<Peer>>,
}

/// The calls of one kind of callers.
#[derive(Debug)]
struct Requests {
    accepted: AtomicU64,
    /// In the order of [`Peers::reasons`].
    refused: Box<[AtomicU64]>,
}

/// What is known of a deployment.
#[derive(Debug, Default)]
struct Peer {
    active: AtomicU64,
    revoked: AtomicU64,
    issued: AtomicU64,
    /// By how much its clock is ahead, as a proof showed.
    measured: Seconds,
    /// The same, as a refusal tells that came later.
    told: Seconds,
}

/// A number of seconds that may not be known: then it is NaN.
#[derive(Debug)]
struct Seconds(AtomicU64);

impl Default for Seconds {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Seconds {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Ordering::Relaxed);
    }
}

impl Peers {
    /// Knows nobody yet. `reasons` are the words with which calls may be refused.
    pub(super) fn new(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        let peers = Self {
            reasons: reasons.into_iter().collect(),
            known: ArcSwap::default(),
            told: AtomicBool::new(false),
        };
        peers.always("");
        peers
    }

    /// Gives the module type `module` series that stay.
    pub(super) fn always(&self, module: &str) {
        self.change(|known| {
            known.always.push(module.into());
            self.of_module(known, module);
        });
    }

    pub(super) fn accepted(&self, module: &str) {
        let requests = self.requests(module);
        requests.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, reason: &str, module: &str) {
        let requests = self.requests(module);
        let mut refused = self.reasons.iter().zip(&requests.refused);
        // Of a closed list: any other word is a fault of ours, and no label.
        if let Some((_, counter)) = refused.find(|(known, _)| **known == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn token_issued(&self, deployment: &str) {
        let peer = self.peer(deployment);
        peer.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn clock_skew(&self, deployment: &str, seconds: f64) {
        let peer = self.peer(deployment);
        peer.measured.set(seconds);
        peer.told.set(f64::NAN);
    }

    pub(super) fn clock_told(&self, deployment: &str, seconds: f64) {
        self.peer(deployment).told.set(seconds);
        self.told.store(true, Ordering::Relaxed);
    }

    pub(super) fn clock_fits(&self, deployment: &str) {
        // Where clocks agree, a call costs no more than this.
        if self.told.load(Ordering::Relaxed) {
            self.peer(deployment).told.set(f64::NAN);
        }
    }

    /// Gives series to `trusted` and takes them from everybody else.
    pub(super) fn trusted(&self, trusted: &[TrustedKeys<'_>]) {
        self.change(|known| {
            let before = std::mem::take(known);
            for module in &before.always {
                self.keep(known, &before, module);
            }
            for TrustedKeys {
                deployment,
                module,
                active,
                revoked,
            } in trusted
            {
                self.keep(known, &before, module);
                let peer = before.deployments.get(*deployment).cloned();
                let peer = peer.unwrap_or_default();
                peer.active.store(count(*active), Ordering::Relaxed);
                peer.revoked.store(count(*revoked), Ordering::Relaxed);
                known.deployments.insert((*deployment).into(), peer);
            }
            known.always = before.always;
        });
    }

    fn keep(&self, known: &mut Known, before: &Known, module: &str) {
        match before.requests.get(module) {
            Some(requests) => {
                let requests = Arc::clone(requests);
                known.requests.insert(module.into(), requests);
            }
            None => self.of_module(known, module),
        }
    }

    fn of_module(&self, known: &mut Known, module: &str) {
        let requests = known.requests.entry(module.into());
        requests.or_insert_with(|| {
            let refused = self.reasons.iter().map(|_| AtomicU64::new(0));
            Arc::new(Requests {
                accepted: AtomicU64::new(0),
                refused: refused.collect(),
            })
        });
    }

    /// Changes what has series; `change` may be called more than once.
    fn change(&self, change: impl Fn(&mut Known)) {
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            change(&mut known);
            known
        });
    }

    /// Finds the calls of a module type. It is of the file, though perhaps not known here yet.
    fn requests(&self, module: &str) -> Arc<Requests> {
        loop {
            if let Some(requests) = self.known.load().requests.get(module) {
                return Arc::clone(requests);
            }
            self.change(|known| self.of_module(known, module));
        }
    }

    /// Finds a deployment. It is of the file, though perhaps not known here yet.
    fn peer(&self, deployment: &str) -> Arc<Peer> {
        loop {
            if let Some(peer) = self.known.load().deployments.get(deployment) {
                return Arc::clone(peer);
            }
            self.change(|known| {
                known.deployments.entry(deployment.into()).or_default();
            });
        }
    }

    /// Writes the families, each with a blank line after it, as the exporter does. Where nobody is
    /// trusted, those of deployments are left out.
    pub(super) fn write(&self, text: &mut String) {
        let known = self.known.load();
        let help = "Calls by whether they were let in, why not, and the caller's module type.";
        let mut requests = Family::new(text, AUTH_REQUESTS, "counter", help);
        for (module, of_module) in &known.requests {
            // Nobody unknown is let in.
            if !module.is_empty() {
                let labels = [("result", "accepted"), ("reason", ""), ("module", module)];
                requests.series(&labels, load(&of_module.accepted));
            }
            for (reason, refused) in self.reasons.iter().zip(&of_module.refused) {
                let labels = [
                    ("result", "refused"),
                    ("reason", reason),
                    ("module", module),
                ];
                requests.series(&labels, load(refused));
            }
        }
        requests.end();
        if known.deployments.is_empty() {
            return;
        }
        let help = "Tokens signed, by the deployment they are for.";
        let mut issued = Family::new(text, TOKENS_ISSUED, "counter", help);
        for (name, peer) in &known.deployments {
            issued.series(&[("audience", name)], load(&peer.issued));
        }
        issued.end();
        let help = "Keys of each trusted deployment.";
        let mut keys = Family::new(text, TRUSTED_KEYS, "gauge", help);
        for (name, peer) in &known.deployments {
            for (state, number) in [("active", &peer.active), ("revoked", &peer.revoked)] {
                keys.series(&[("deployment", name), ("state", state)], load(number));
            }
        }
        keys.end();
        let help = "Seconds by which a peer's clock is ahead, as its last proof shows or a later refusal tells; NaN where neither does.";
        let mut skews = Family::new(text, CLOCK_SKEW, "gauge", help);
        for (name, peer) in &known.deployments {
            let told = Some(peer.told.get()).filter(|told| !told.is_nan());
            let ahead = told.unwrap_or_else(|| peer.measured.get());
            skews.series(&[("deployment", name)], ahead);
        }
        skews.end();
    }
}

fn load(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
