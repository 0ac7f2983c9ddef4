//! The claims of a token: their form on the wire, both ways, and how long they may hold.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::{Reason, Refusal};
use crate::clock::seconds_after;
use crate::jose::json;

/// The claims of a received token, each of the right type. Values are not judged here.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: Vec<String>,
    pub(super) issued_at: f64,
    pub(super) expires_at: f64,
    pub(super) not_before: Option<f64>,
    pub(super) id: Option<String>,
}

const MAX_AUDIENCES: usize = 8;
const MAX_ID_CHARACTERS: usize = 128;

impl Claims {
    /// Takes the claims that this module knows; others are ignored.
    pub(super) fn from_members(members: &Map<String, Value>) -> Result<Self, Refusal> {
        Ok(Self {
            issuer: text(members, "iss")?.to_owned(),
            subject: text(members, "sub")?.to_owned(),
            audience: audience(members)?,
            issued_at: required_number(members, "iat")?,
            expires_at: required_number(members, "exp")?,
            not_before: number(members, "nbf")?,
            id: id(members)?,
        })
    }
}

/// Seconds since 1970, as a `NumericDate` ([RFC 7519, 2]).
///
/// [RFC 7519, 2]: https://www.rfc-editor.org/rfc/rfc7519#section-2
pub(super) fn seconds(time: SystemTime) -> f64 {
    seconds_after(time, SystemTime::UNIX_EPOCH)
}

/// Whole seconds since 1970, for claims that this module writes; 0 before 1970.
pub(super) fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The time of a `NumericDate`; one that no clock can show becomes 1970.
pub(super) fn time(seconds: f64) -> SystemTime {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Reason::TokenMalformed, detail)
}

fn wrong_type(name: &str, found: &Value, expected: &str) -> Refusal {
    let found = json::kind(found);
    malformed(format!("claim `{name}` is {found}, not {expected}"))
}

fn missing(name: &str) -> Refusal {
    malformed(format!("claim `{name}` is missing"))
}

pub(super) fn text<'a>(
    members: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, Refusal> {
    let value = members.get(name).ok_or_else(|| missing(name))?;
    let text = value.as_str();
    text.ok_or_else(|| wrong_type(name, value, "text"))
}

pub(super) fn required_number(
    members: &Map<String, Value>,
    name: &'static str,
) -> Result<f64, Refusal> {
    number(members, name)?.ok_or_else(|| missing(name))
}

fn number(members: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Refusal> {
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(number) if number.is_finite() => Ok(Some(number)),
        Some(_) => Err(malformed(format!("claim `{name}` is not a finite number"))),
        None => Err(wrong_type(name, value, "a number")),
    }
}

fn id(members: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    if !members.contains_key("jti") {
        return Ok(None);
    }
    let id = text(members, "jti")?;
    let characters = id.chars().count();
    if characters > MAX_ID_CHARACTERS {
        let detail = format!("`jti` has {characters} characters, at most {MAX_ID_CHARACTERS}");
        return Err(malformed(detail));
    }
    Ok(Some(id.to_owned()))
}

fn audience(members: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let Some(Value::Array(values)) = members.get("aud") else {
        return Ok(vec![text(members, "aud")?.to_owned()]);
    };
    let count = values.len();
    if count > MAX_AUDIENCES {
        return Err(malformed(format!(
            "claim `aud` has {count} values, at most 8"
        )));
    }
    let texts = values.iter().map(|value| match value {
        Value::String(text) => Ok(text.clone()),
        other => {
            let found = json::kind(other);
            Err(malformed(format!("claim `aud` holds {found}, not text")))
        }
    });
    texts.collect()
}

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
