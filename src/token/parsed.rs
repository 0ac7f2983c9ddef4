//! A token as far as it can be taken apart.

use crate::jose::{Compact, CompactError, Header, Unverified};

use super::walk::{ALGORITHM, FORM, Walk};
use super::{Reason, Refusal};

/// A token, and how much of it can be read.
pub(super) struct Parsed<'a> {
    /// The token, if its form is good: only such a token is verified.
    pub(super) whole: Option<Compact<'a>>,
    /// Else its parts, for an operator who asks why it is refused.
    loose: Option<Unverified<'a>>,
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
        let whole = parsed.ok();
        let loose = match whole {
            Some(_) => None,
            None => Unverified::read(token).ok(),
        };
        let parsed = Self { whole, loose };
        let algorithm = match (&parsed.whole, &parsed.loose) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(_)) if parsed.member("alg") == Some("ES256") => Some(Ok(())),
            (None, Some(_)) => Some(Err(malformed(&CompactError::Algorithm))),
            (None, None) => None,
        };
        walk.rule(ALGORITHM, algorithm, |()| {
            "ES256, the only one allowed".to_owned()
        })?;
        Ok(parsed)
    }

    pub(super) fn header(&self) -> Option<&Header> {
        self.whole.as_ref().map(Compact::header)
    }

    #[expect(
        clippy::option_option,
        reason = "no header at all, or a header without `typ`"
    )]
    pub(super) fn typ(&self) -> Option<Option<&str>> {
        let loose = self.loose.as_ref().map(|_| self.member("typ"));
        self.header().map(Header::typ).or(loose)
    }

    pub(super) fn kid(&self) -> Option<&str> {
        let kid = self.header().map(Header::kid);
        kid.or_else(|| self.member("kid"))
    }

    pub(super) fn payload(&self) -> Option<&[u8]> {
        let payload = self.whole.as_ref().map(Compact::payload);
        payload.or_else(|| Some(&self.loose.as_ref()?.payload))
    }

    /// Returns a member of the header of a token whose form is not good.
    fn member(&self, name: &str) -> Option<&str> {
        self.loose.as_ref()?.header.get(name)?.as_str()
    }
}

fn malformed(error: &CompactError) -> Refusal {
    let reason = match error {
        CompactError::Algorithm => Reason::AlgorithmNotAllowed,
        _ => Reason::TokenMalformed,
    };
    Refusal::new(reason, error.to_string())
}
