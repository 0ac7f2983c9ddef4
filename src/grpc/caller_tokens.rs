//! The tokens of a caller towards one callee.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use http::Response;
use http::header::HeaderValue;

use crate::clock::Clock;
use crate::identity::DeploymentName;
use crate::telemetry::metrics::Metrics;
use crate::token::{IssueError, IssuedToken, TokenIssuer};
use crate::trust::{Deployment, OwnDeployment, TrustStore};

use super::clock_skew::ClockSkews;
use super::metadata;

/// Whom the tokens of a layer are for.
#[derive(Clone, Debug)]
pub(super) enum Callee {
    Deployment(DeploymentName),
    OwnModule,
}

/// The token in use towards one callee, and how to get the next.
///
/// A token is reused until half of its life is over, so that a call, and a stream, begins with at
/// least the other half ahead. A callee that takes each token once gets a fresh one per call, and
/// so does the module itself, whose tokens live for seconds.
#[derive(Debug)]
pub(super) struct CallerTokens {
    issuer: TokenIssuer,
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
    callee: Callee,
    current: ArcSwapOption<CallerToken>,
    renewing: Mutex<()>,
    metrics: Option<Arc<Metrics>>,
    skews: Option<Arc<ClockSkews>>,
}

/// A token, ready to be sent.
#[derive(Debug)]
pub(super) struct CallerToken {
    pub(super) token: IssuedToken,
    pub(super) value: HeaderValue,
    /// None where the module calls itself.
    pub(super) callee: Option<Arc<Deployment>>,
    own: Arc<OwnDeployment>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("deployment `{0}` is not trusted here any more")]
    NotTrusted(DeploymentName),
    #[error("every key of deployment `{0}` is revoked here")]
    Revoked(DeploymentName),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the token is no header value")]
    Value,
}

impl CallerTokens {
    pub(super) fn new(
        issuer: TokenIssuer,
        trust: Arc<TrustStore>,
        clock: Arc<dyn Clock>,
        callee: Callee,
    ) -> Self {
        Self {
            issuer,
            trust,
            clock,
            callee,
            current: ArcSwapOption::empty(),
            renewing: Mutex::new(()),
            metrics: None,
            skews: None,
        }
    }

    /// Counts the tokens in `metrics`.
    pub(super) fn counted(self, metrics: Arc<Metrics>) -> Self {
        let metrics = Some(metrics);
        Self { metrics, ..self }
    }

    /// Notes in `skews` what proofs show of the callee's clock.
    pub(super) fn watching(self, skews: Arc<ClockSkews>) -> Self {
        let skews = Some(skews);
        Self { skews, ..self }
    }

    /// Returns where the callee's clock is noted.
    pub(super) fn skews(&self) -> Option<&Arc<ClockSkews>> {
        self.skews.as_ref()
    }

    /// Shows what the `answer` to a call with `token` tells of the callee's clock.
    pub(super) fn heed<R>(&self, token: &CallerToken, answer: &Response<R>) {
        if let Some((skews, callee)) = self.skews.as_ref().zip(token.callee.as_ref()) {
            skews.heed(callee.name.as_str(), answer, self.clock.as_ref());
        }
    }

    /// Returns a token for the next call.
    pub(super) fn get(&self) -> Result<Arc<CallerToken>, TokenError> {
        let now = self.clock.now();
        if let Some(current) = self.reusable(now) {
            if !current.token.is_due_at(now) {
                return Ok(current);
            }
            let renewed = self
                .renewing
                .try_lock()
                .ok()
                .and_then(|_alone| self.mint().ok());
            return Ok(renewed.unwrap_or(current));
        }
        if self.is_single_use() {
            return self.mint();
        }
        let _alone = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been first.
        let current = self.reusable(now).filter(|t| !t.token.is_due_at(now));
        current.map_or_else(|| self.mint(), Ok)
    }

    /// Says why there can be no token, where the own file is why.
    pub(super) fn hindrance(&self) -> Option<TokenError> {
        let Callee::Deployment(name) = &self.callee else {
            return None;
        };
        let trust = self.trust.current();
        match trust.deployment(name.as_str()) {
            None => Some(TokenError::NotTrusted(name.clone())),
            Some(callee) if callee.active_keys().next().is_none() => {
                Some(TokenError::Revoked(name.clone()))
            }
            Some(_) => None,
        }
    }

    fn reusable(&self, now: SystemTime) -> Option<Arc<CallerToken>> {
        let current = self.current.load();
        let current = (*current).as_ref()?;
        let trust = self.trust.current();
        let unchanged = Arc::ptr_eq(&current.own, trust.own())
            && current.callee.as_ref().is_some_and(|callee| {
                let now = trust.deployment(callee.name.as_str());
                now.is_some_and(|now| Arc::ptr_eq(callee, now))
            });
        (unchanged && current.token.is_valid_at(now)).then(|| Arc::clone(current))
    }

    fn is_single_use(&self) -> bool {
        match &self.callee {
            Callee::OwnModule => true,
            Callee::Deployment(name) => {
                let trust = self.trust.current();
                let callee = trust.deployment(name.as_str());
                callee.is_some_and(|callee| callee.single_use_tokens)
            }
        }
    }

    /// Signs a token, and keeps it where it may be used again.
    fn mint(&self) -> Result<Arc<CallerToken>, TokenError> {
        let trust = self.trust.load();
        let (token, callee) = match &self.callee {
            Callee::OwnModule => (self.issuer.issue_for_own_module()?, None),
            Callee::Deployment(name) => {
                let callee = trust.deployment(name.as_str());
                let callee = callee.ok_or_else(|| TokenError::NotTrusted(name.clone()))?;
                if callee.active_keys().next().is_none() {
                    return Err(TokenError::Revoked(name.clone()));
                }
                let token = self.issuer.issue(callee)?;
                if let Some(metrics) = &self.metrics {
                    metrics.token_issued(callee.name.as_str());
                }
                (token, Some(Arc::clone(callee)))
            }
        };
        let value = metadata::authorization(token.expose()).ok_or(TokenError::Value)?;
        let reused = callee.as_ref().is_some_and(|c| !c.single_use_tokens);
        let token = Arc::new(CallerToken {
            token,
            value,
            callee,
            own: Arc::clone(trust.own()),
        });
        if reused {
            self.current.store(Some(Arc::clone(&token)));
        }
        Ok(token)
    }
}
