//! The tokens of a caller towards one callee.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use http::header::HeaderValue;

use crate::identity::DeploymentName;
use crate::token::{IssueError, IssuedToken, TokenIssuer};
use crate::trust::{Deployment, KeySet, OwnDeployment};

use super::clock_skew::ClockSkews;
use super::metadata;

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
