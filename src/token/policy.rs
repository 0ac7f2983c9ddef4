//! How long tokens live and how far clocks may differ.

use std::time::Duration;

/// The longest life of a token that a module issues to itself.
pub const MAX_OWN_MODULE_LIFETIME: Duration = Duration::from_secs(30);

/// Times that a verifier grants and an issuer gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    lifetime: Duration,
    leeway: Duration,
    max_lifetime: Duration,
}

/// Why times do not make a policy, as a sentence.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

crate::failure::debug_as_text!(PolicyError);

impl Policy {
    /// Checks and takes the times: `lifetime` of issued tokens, `leeway` for clocks that differ,
    /// `max_lifetime` of accepted tokens.
    ///
    /// # Errors
    ///
    /// When a lifetime is under 1 s or over a day, or the leeway is over 300 s.
    pub fn new(
        lifetime: Duration,
        leeway: Duration,
        max_lifetime: Duration,
    ) -> Result<Self, PolicyError> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(86_400);
        for (what, life) in [("token", lifetime), ("maximum", max_lifetime)] {
            if !bounds.contains(&life) {
                let text = format!("a {what} lifetime of {life:?} is not between 1 s and 1 day");
                return Err(PolicyError(text));
            }
        }
        if leeway > Duration::from_secs(300) {
            // More would make `exp` meaningless.
            let text = format!("a leeway of {leeway:?} is over 300 s");
            return Err(PolicyError(text));
        }
        Ok(Self {
            lifetime,
            leeway,
            max_lifetime,
        })
    }

    /// Returns how long issued tokens live.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns how far the clocks may differ.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }

    /// Returns the longest `exp - iat` that is accepted.
    pub fn max_lifetime(&self) -> Duration {
        self.max_lifetime
    }
}

impl Default for Policy {
    /// 300 s, so that a stolen token is soon useless; 30 s, since hosts with NTP differ by less;
    /// 900 s, what the vendor's modules issue.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(900),
        }
    }
}
