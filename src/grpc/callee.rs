//! What a caller has of one callee: the token in use, who proved itself, and by how much its clock
//! differs.

use std::collections::HashSet;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::header::HeaderValue;
use http::{Response, StatusCode};
use tonic::Status;

use super::status::refuse_in_full;
use super::{callee_time, metadata};
use crate::clock::{Clock, seconds_after};
use crate::identity::DeploymentName;
use crate::jose::KeyId;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::token::{IssueError, IssuedToken, Reason, Refusal, TokenIssuer};
use crate::trust::{Deployment, KeySet, OwnDeployment, TrustedKey};

/// The token in use towards one callee, and how to get the next.
///
/// A token is reused until half of its life is over, so that a call, and a stream, begins with at
/// least the other half ahead. A callee that takes each token once gets a fresh one per call, and
/// so does the module itself, whose tokens live for seconds.
#[derive(Debug)]
pub(super) struct CallerTokens {
    pub(super) issuer: TokenIssuer,
    /// Where the callee's clock is noted.
    pub(super) skews: Arc<ClockSkews>,
    /// The deployment that is called; `None` if the module calls itself.
    callee: Option<DeploymentName>,
    current: ArcSwapOption<CallerToken>,
    renewing: Mutex<()>,
}

/// A token, ready to be sent.
#[derive(Debug)]
pub(super) struct CallerToken {
    pub(super) token: IssuedToken,
    pub(super) value: HeaderValue,
    /// `None` if the module calls itself.
    pub(super) callee: Option<Arc<Deployment>>,
    /// Does not keep a replaced private key in memory.
    own: Weak<OwnDeployment>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("deployment `{0}` is no longer trusted here")]
    NotTrusted(DeploymentName),
    #[error("every key of deployment `{0}` is revoked here")]
    Revoked(DeploymentName),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the token is not a valid header value")]
    Value,
}

impl CallerTokens {
    /// Issues by `issuer`, and notes in `skews` what answers show of the callee's clock.
    pub(super) fn new(
        issuer: TokenIssuer,
        skews: Arc<ClockSkews>,
        callee: Option<DeploymentName>,
    ) -> Self {
        Self {
            issuer,
            skews,
            callee,
            current: ArcSwapOption::empty(),
            renewing: Mutex::new(()),
        }
    }

    /// Returns a token for the next call.
    pub(super) fn get(&self) -> Result<Arc<CallerToken>, TokenError> {
        let now = self.issuer.clock.now();
        let trust = &self.issuer.trust;
        if let Some(current) = self.reusable(&trust.current(), now) {
            if current.token.is_due_at(now)
                && let Ok(_alone) = self.renewing.try_lock()
            {
                return Ok(self.mint().unwrap_or(current));
            }
            return Ok(current);
        }
        let callee = self.callee(&trust.current())?;
        if callee.is_none_or(|callee| callee.single_use_tokens) {
            return self.mint();
        }
        let _alone = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another call may have been first.
        match self.reusable(&trust.current(), now) {
            Some(current) if !current.token.is_due_at(now) => Ok(current),
            _ => self.mint(),
        }
    }

    /// Returns why this module's own file allows no token, if it does not.
    pub(super) fn not_issued(&self) -> Option<TokenError> {
        self.callee(&self.issuer.trust.current()).err()
    }

    /// Returns the deployment that is called, as `trust` has it; `None` for this module itself.
    pub(super) fn callee(&self, trust: &KeySet) -> Result<Option<Arc<Deployment>>, TokenError> {
        let Some(name) = &self.callee else {
            return Ok(None);
        };
        match trust.deployment(name.as_str()) {
            None => Err(TokenError::NotTrusted(name.clone())),
            Some(callee) if callee.active_keys().next().is_none() => {
                Err(TokenError::Revoked(name.clone()))
            }
            Some(callee) => Ok(Some(Arc::clone(callee))),
        }
    }

    fn reusable(&self, trust: &KeySet, now: SystemTime) -> Option<Arc<CallerToken>> {
        let current = self.current.load();
        let current = (*current).as_ref()?;
        let callee = current.callee.as_ref()?;
        let unchanged = ptr::eq(current.own.as_ptr(), Arc::as_ptr(trust.own()))
            && Arc::ptr_eq(callee, trust.deployment(callee.name.as_str())?);
        (unchanged && current.token.is_valid_at(now)).then(|| Arc::clone(current))
    }

    /// Signs a token, and keeps it if it may be used again.
    fn mint(&self) -> Result<Arc<CallerToken>, TokenError> {
        let trust = self.issuer.trust.load();
        let callee = self.callee(&trust)?;
        let token = match &callee {
            None => self.issuer.issue_for_own_module()?,
            Some(callee) => self.issuer.issue(callee)?,
        };
        let minted = Arc::new(CallerToken {
            value: metadata::authorization(token.expose()).ok_or(TokenError::Value)?,
            token,
            callee,
            own: Arc::downgrade(trust.own()),
        });
        if let Some(callee) = &minted.callee {
            self.skews.metrics.token_issued(callee.name.as_str());
            if !callee.single_use_tokens {
                self.current.store(Some(Arc::clone(&minted)));
            }
        }
        Ok(minted)
    }
}

/// Who proved itself over a connection. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouched(Arc<ArcSwapOption<(Arc<Deployment>, KeyId)>>);

impl Vouched {
    /// Returns `true` if `callee` proved itself, and is known since as it was then.
    pub(super) fn holds_for(&self, callee: &Arc<Deployment>) -> bool {
        let voucher = self.0.load();
        let proved = voucher.as_ref();
        proved.is_some_and(|proved| Arc::ptr_eq(&proved.0, callee))
    }

    /// Notes that `deployment` proved itself with `key`.
    pub(super) fn set(&self, deployment: Arc<Deployment>, key: &TrustedKey) {
        let voucher = (deployment, key.key_id.clone());
        self.0.store(Some(Arc::new(voucher)));
    }

    /// Forgets the proof: the connection is another one.
    pub(super) fn clear(&self) {
        self.0.store(None);
    }

    /// Returns the callee of a call over this connection.
    pub(super) fn callee(&self, tokens: Arc<CallerTokens>) -> Callee {
        let voucher = self.0.load();
        let key = voucher.as_ref().map(|voucher| voucher.1.clone());
        Callee { tokens, key }
    }
}

/// The callee of a call whose reply is still coming.
#[derive(Clone, Debug)]
pub(super) struct Callee {
    tokens: Arc<CallerTokens>,
    /// The key with which it proved itself.
    key: Option<KeyId>,
}

impl Callee {
    fn still_trusted(&self) -> Result<(), Refusal> {
        let trust = self.tokens.issuer.trust.current();
        let callee = self
            .tokens
            .callee(&trust)
            .map_err(|error| invalid(error.to_string()))?;
        match (&self.key, callee) {
            (Some(key), Some(callee)) if !callee.active_keys().any(|now| now.key_id == *key) => {
                let name = &callee.name;
                Err(invalid(format!(
                    "`{key}` is no active key of `{name}` here"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Completes once it is no longer trusted.
    pub(super) async fn over(self) -> Status {
        let mut changes = self.tokens.issuer.trust.subscribe();
        loop {
            if let Err(refusal) = self.still_trusted() {
                return refuse_in_full(&refusal);
            }
            // The store outlives the call, which holds it.
            let _ = changes.changed().await;
        }
    }
}

pub(super) fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(Reason::ProofInvalid, why)
}

/// Watches the clocks of a module's callees: a metric for each deployment, an event when a clock
/// differs by half of the leeway, and one when it does no longer.
#[derive(Debug)]
pub(super) struct ClockSkews {
    /// Where the module counts.
    pub(super) metrics: Arc<Metrics>,
    /// The clocks that were reported: deployment and engine.
    reported: Mutex<HashSet<(String, Option<String>)>>,
}

/// A proof's time, and when the call was made. The callee signed between the two, in a second that
/// began at `signed`: what it shows is bounded, whatever a call takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    /// Whose clock it is.
    pub(super) deployment: &'a str,
    /// The engine, if there are several.
    pub(super) engine: Option<&'a str>,
    pub(super) sent: SystemTime,
    pub(super) received: SystemTime,
    pub(super) signed: SystemTime,
}

/// More clocks than this are not reported one by one.
const MOST_REPORTED: usize = 256;

/// A call that took longer says little in one number.
const LONGEST_SECONDS: f64 = 10.0;

impl ClockSkews {
    /// Writes to `metrics`.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reported: Mutex::default(),
        }
    }

    /// Notes the callee's time in the `answer` of `deployment`: a refusal because of times has it.
    /// It is not signed, so it is only shown, and until an answer that is no refusal.
    pub(super) fn note_answer<R>(&self, deployment: &str, answer: &Response<R>, clock: &dyn Clock) {
        let headers = answer.headers();
        match headers.get(Status::GRPC_STATUS) {
            // A proxy between the two: the callee did not judge the token.
            None if answer.status() != StatusCode::OK => {}
            Some(code) if code != "0" => {
                let status = Status::from_header_map(headers);
                if let Some(time) = status.and_then(|status| callee_time(&status)) {
                    self.metrics
                        .clock_estimated(deployment, seconds_after(time, clock.now()));
                }
            }
            _ => self.metrics.clock_agrees(deployment),
        }
    }

    /// Notes what a verified proof shows.
    pub(super) fn note(&self, measured: Measured<'_>, leeway: Duration) {
        // The least and the most by which the callee's clock can be ahead, in seconds.
        let least = seconds_after(measured.signed, measured.received);
        let most = seconds_after(measured.signed, measured.sent) + 1.0;
        let ahead = f64::midpoint(least, most);
        if most - least < LONGEST_SECONDS {
            self.metrics.clock_measured(measured.deployment, ahead);
        }
        let half = leeway.as_secs_f64() / 2.0;
        let key = (
            measured.deployment.to_owned(),
            measured.engine.map(str::to_owned),
        );
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if least > half || most < -half {
            if reported.len() < MOST_REPORTED && reported.insert(key) {
                events::clock_skewed(measured.deployment, ahead, leeway);
            }
        // Less than what is reported, so that a clock near the limit is not reported in turns.
        } else if least <= half / 2.0 && most >= -half / 2.0 && reported.remove(&key) {
            events::clock_in_step(measured.deployment, ahead);
        }
    }
}

/// No trusted deployment fits.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownDeployment {
    /// None has this name.
    #[error("no trusted deployment is called `{0}`")]
    Name(String),
    /// None has this module type.
    #[error("no trusted deployment has the module type `{0}`; pair the two modules")]
    Module(String),
    /// More than one has this module type.
    #[error(
        "deployments {names} all have the module type `{module}`; name one in `countersign.client.connection.{module}.deployment`"
    )]
    Several {
        /// The module type.
        module: String,
        /// Their names.
        names: String,
    },
}

crate::failure::debug_as_text!(UnknownDeployment);

#[cfg(test)]
mod tests {
    use tracing::dispatcher::with_default;

    use crate::clock::SystemClock;
    use crate::telemetry::{Format, capture};

    use super::*;

    const LEEWAY: Duration = Duration::from_secs(30);

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + milliseconds)
    }

    /// A call of 20 ms whose callee's clock shows `signed` seconds.
    fn measured(signed: u64) -> Measured<'static> {
        Measured {
            deployment: "dpm-dev",
            engine: None,
            sent: at(100_000),
            received: at(100_020),
            signed: at(signed * 1000),
        }
    }

    /// What is logged after each of `clocks` was seen.
    fn reported(clocks: &[u64], leeway: Duration) -> Vec<usize> {
        let skews = ClockSkews::new(Arc::new(Metrics::new("dpe", []).unwrap()));
        let (dispatch, lines) = capture::subscriber(Format::Json, Arc::new(SystemClock));
        let see = |clock: &u64| {
            with_default(&dispatch, || skews.note(measured(*clock), leeway));
            lines.take().len()
        };
        clocks.iter().map(see).collect()
    }

    #[test]
    fn skew_is_reported_once_past_half_of_the_leeway_and_once_when_it_is_gone() {
        // In step, near the limit, past it twice, near it again, in step twice; then behind.
        let clocks = [100, 115, 117, 120, 114, 100, 100, 80, 99];

        assert_eq!(reported(&clocks, LEEWAY), [0, 0, 1, 0, 0, 1, 0, 1, 1]);
    }

    #[test]
    fn second_in_which_a_proof_is_signed_is_no_skew_however_small_the_leeway() {
        for leeway in [0, 1, 2] {
            assert_eq!(
                reported(&[99, 100, 99], Duration::from_secs(leeway)),
                [0; 3]
            );
            assert_eq!(reported(&[103, 100], Duration::from_secs(leeway)), [1, 1]);
        }
    }

    #[test]
    fn metric_shows_the_middle_of_what_it_can_be() {
        let metrics = Arc::new(Metrics::new("dpe", []).unwrap());
        let skews = ClockSkews::new(Arc::clone(&metrics));

        skews.note(measured(107), LEEWAY);

        let shown = metrics.render();
        let line = r#"countersign_peer_clock_skew_seconds{deployment="dpm-dev"} 7.49"#;
        assert!(shown.contains(line), "{shown}");
    }
}
