//! A token as far as it can be taken apart.

use crate::jose::{Compact, CompactError};

use super::walk::{ALGORITHM, FORM, Walk};
use super::{Reason, Refusal};

/// A token, and how much of it can be read.
pub(super) struct Parsed<'a> {
    /// The token, also one of a bad form: an operator asks why it is refused.
    pub(super) token: Option<Compact<'a>>,
    /// Whether its form is good: only such a token is verified.
    is_whole: bool,
}

impl<'a> Parsed<'a> {
    /// Applies the first rules to `token`: its form and its algorithm.
    pub(super) fn read(walk: &mut Walk<'_>, token: &'a str) -> Result<Self, Refusal> {
        let parsed = Compact::parse(token);
        let form = match &parsed {
            Ok(_) => Ok("3 parts, canonical base64url, JSON header without surprises"),
            // A walk that goes on names another algorithm in the next row.
            Err(CompactError::Algorithm) if walk.goes_on() => {
                Ok("3 parts, canonical base64url, JSON header")
            }
            Err(error) => Err(malformed(error)),
        };
        walk.rule(FORM, Some(form), |found| (*found).to_owned())?;
        let is_whole = parsed.is_ok();
        let read = parsed.ok().or_else(|| Compact::read_loosely(token));
        let algorithm = read.as_ref().map(|it| match it.parts.member("alg") {
            Some("ES256") => Ok(()),
            _ => Err(malformed(&CompactError::Algorithm)),
        });
        walk.rule(ALGORITHM, algorithm, |()| {
            "ES256, the only one allowed".to_owned()
        })?;
        Ok(Self {
            token: read,
            is_whole,
        })
    }

    /// Returns the token, if its form is good.
    pub(super) fn whole(&self) -> Option<&Compact<'a>> {
        self.token.as_ref().filter(|_| self.is_whole)
    }
}

fn malformed(error: &CompactError) -> Refusal {
    let reason = match error {
        CompactError::Algorithm => Reason::AlgorithmNotAllowed,
        _ => Reason::TokenMalformed,
    };
    Refusal::new(reason, error.to_string())
}
