//! A token as far as it can be taken apart.

use crate::jose::{Compact, CompactError, Header, Unverified};

use super::walk::{ALGORITHM, FORM, Miss, Walk};
use super::{Reason, Refusal};

/// A token, and how much of it can be read.
pub(super) enum Parsed<'a> {
    /// Of good form.
    Whole(Compact<'a>),
    /// Taken apart for an operator who asks why it is refused.
    Loose(Unverified),
    /// Not even three parts.
    Broken,
}

const NOT_TAKEN_APART: Miss = Miss::Unknown("the token cannot be taken apart");

impl<'a> Parsed<'a> {
    /// Applies the first rules to `token`: its form and its algorithm.
    pub(super) fn read(walk: &mut Walk<'_>, token: &'a str) -> Result<Self, Refusal> {
        let (parsed, form) = match Compact::parse(token) {
            Ok(compact) => (
                Some(compact),
                Ok("3 parts, canonical base64url, JSON header without surprises"),
            ),
            // A walk that goes on names another algorithm in the next row.
            Err(CompactError::Algorithm) if walk.goes_on() => {
                (None, Ok("3 parts, canonical base64url, JSON header"))
            }
            Err(error) => (None, Err(malformed(&error).into())),
        };
        walk.rule(FORM, form, |found| (*found).to_owned())?;
        let parsed = match parsed {
            Some(compact) => Self::Whole(compact),
            None => Unverified::read(token).map_or(Self::Broken, Self::Loose),
        };
        let algorithm = match &parsed {
            Self::Whole(_) => Ok(()),
            Self::Loose(token) if text(token, "alg") == Some("ES256") => Ok(()),
            Self::Loose(_) => Err(malformed(&CompactError::Algorithm).into()),
            Self::Broken => Err(NOT_TAKEN_APART),
        };
        walk.rule(ALGORITHM, algorithm, |()| {
            "ES256, the only one allowed".to_owned()
        })?;
        Ok(parsed)
    }

    /// Returns the token, where it is of good form.
    pub(super) fn whole(&self) -> Result<&Compact<'a>, Miss> {
        match self {
            Self::Whole(compact) => Ok(compact),
            _ => Err(Miss::Unknown("only a well-formed ES256 token is verified")),
        }
    }

    pub(super) fn header(&self) -> Option<&Header> {
        self.whole().ok().map(Compact::header)
    }

    pub(super) fn typ(&self) -> Result<Option<&str>, Miss> {
        match self {
            Self::Whole(compact) => Ok(compact.header().typ()),
            Self::Loose(token) => Ok(text(token, "typ")),
            Self::Broken => Err(NOT_TAKEN_APART),
        }
    }

    pub(super) fn kid(&self) -> Result<&str, Miss> {
        let kid = match self {
            Self::Whole(compact) => Some(compact.header().kid()),
            Self::Loose(token) => text(token, "kid"),
            Self::Broken => None,
        };
        kid.ok_or(Miss::Unknown("the token names no key"))
    }

    pub(super) fn payload(&self) -> Result<&[u8], Miss> {
        match self {
            Self::Whole(compact) => Ok(compact.payload()),
            Self::Loose(token) => Ok(token.payload()),
            Self::Broken => Err(NOT_TAKEN_APART),
        }
    }
}

fn text<'a>(token: &'a Unverified, member: &str) -> Option<&'a str> {
    token.header().get(member)?.as_str()
}

fn malformed(error: &CompactError) -> Refusal {
    let reason = match error {
        CompactError::Algorithm => Reason::AlgorithmNotAllowed,
        _ => Reason::TokenMalformed,
    };
    Refusal::new(reason, error.to_string())
}
