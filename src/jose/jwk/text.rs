//! A JWK as text, before anything in it is believed.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::jose::error::{JwkError, JwkProblem};
use crate::jose::{json, repair};

/// Longest JWK that is looked at, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The text of a JWK, without backslashes that survived an escaping, and the way back to offsets.
pub(super) struct Text<'a> {
    original: &'a str,
    stripped: Option<Zeroizing<String>>,
}

impl<'a> Text<'a> {
    pub(super) fn new(original: &'a str) -> Self {
        let stripped = (original.len() <= MAX_BYTES)
            .then(|| repair::unescape(original))
            .flatten();
        Self { original, stripped }
    }

    pub(super) fn unescaped(&self) -> bool {
        self.stripped.is_some()
    }

    fn as_str(&self) -> &str {
        match &self.stripped {
            Some(text) => text,
            None => self.original,
        }
    }

    pub(super) fn members(&self) -> Result<Map<String, Value>, JwkProblem> {
        let text = self.as_str();
        if text.trim().is_empty() {
            return Err(JwkProblem::of(None, "it is empty"));
        }
        if text.len() > MAX_BYTES {
            let bytes = text.len();
            let text = format!("it has {bytes} bytes, at most {MAX_BYTES} are allowed");
            return Err(JwkProblem::of(None, text));
        }
        if text.trim_start().starts_with("-----BEGIN") {
            return Err(JwkProblem::Pem);
        }
        let members = json::object(text.as_bytes()).map_err(JwkProblem::Json)?;
        if members.contains_key("keys") && !members.contains_key("kty") {
            return Err(JwkProblem::KeySet);
        }
        Ok(members)
    }

    /// Says where in the original text the problem is.
    pub(super) fn locate<T>(&self, result: Result<T, JwkProblem>) -> Result<T, JwkError> {
        result.map_err(|problem| {
            let offset = match &problem {
                JwkProblem::Json(error) => Some(error.offset()),
                other => other
                    .member()
                    .and_then(|member| repair::value_offset(self.as_str(), member)),
            };
            let place = offset.map(|offset| match &self.stripped {
                Some(_) => repair::original_offset(self.original, offset),
                None => offset,
            });
            JwkError::new(problem, place)
        })
    }
}
