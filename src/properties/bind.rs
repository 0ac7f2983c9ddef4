//! What the text of a value means: placeholders, `${name}` and `${name:default}`, also nested; and
//! typed values, as Spring Boot reads them. An error says why a text is not a value of its type, and
//! never repeats the text.

use std::fmt::Display;
use std::time::Duration;

use zeroize::Zeroizing;

use super::name::uniform;

/// The unit of a bare number, and of the numbers in messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeUnit {
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
}

/// Returns `text` without the blanks around it; an error if nothing is left.
fn given(text: &str) -> Result<&str, String> {
    match text.trim() {
        "" => Err("is empty".to_owned()),
        bare => Ok(bare),
    }
}

/// Returns `value` if it is within `least..=most`; if `negative`, only zero is.
fn within<T: Default + PartialOrd>(negative: bool, value: T, least: T, most: T) -> Option<T> {
    let is_natural = !negative || value == T::default();
    (is_natural && (least..=most).contains(&value)).then_some(value)
}

fn not_between(least: &dyn Display, most: &dyn Display) -> String {
    format!("is not between {least} and {most}")
}

/// Returns `true` if `text` begins with a minus, and the text without its sign.
fn signed(text: &str) -> (bool, &str) {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    (text.starts_with('-'), unsigned)
}

/// Reads a switch: `true yes on 1` or `false no off 0`, in any case, blanks around it dropped.
///
/// # Errors
///
/// When it is empty or another word.
pub fn switch(text: &str) -> Result<bool, String> {
    match given(text)?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither `true` nor `false`".to_owned()),
    }
}

/// Reads a whole number: decimal, or hexadecimal after `0x` or `#`; blanks around it dropped.
///
/// # Errors
///
/// When it is no number or not within `least..=most`.
pub fn integer(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let (negative, unsigned) = signed(given(text)?);
    let hexadecimal = ["0x", "0X", "#"]
        .iter()
        .find_map(|prefix| unsigned.strip_prefix(prefix));
    let (digits, radix) = hexadecimal.map_or((unsigned, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err("is not a whole number".to_owned());
    }
    let number = u64::from_str_radix(digits, radix).ok();
    let allowed = number.and_then(|number| within(negative, number, least, most));
    allowed.ok_or_else(|| not_between(&least, &most))
}

/// Reads a duration: a number with `ns us ms s m h d`, or ISO 8601 such as `PT15M`; a bare number
/// counts in `unit`. `1m30s`, `1 s` and `1w` are none, as in Spring.
///
/// # Errors
///
/// When it is no duration, or not within `least..=most`.
pub fn duration(
    text: &str,
    unit: TimeUnit,
    least: Duration,
    most: Duration,
) -> Result<Duration, String> {
    let (negative, unsigned) = signed(given(text)?);
    let value = if unsigned.starts_with(['P', 'p']) {
        iso(&unsigned.to_ascii_uppercase())
    } else {
        simple(unsigned, unit)
    };
    let duration =
        value.ok_or("is not a duration such as `10s`, `200ms`, `5m`, `2d` or `PT15M`")?;
    let allowed = within(negative, duration, least, most);
    allowed.ok_or_else(|| not_between(&shown(least), &shown(most)))
}

/// Reads a whole number and its unit, in the smallest unit; `None` if it is no such number.
///
/// A number that is too large is the largest: beyond the bounds of every setting.
fn scaled(text: &str, scale: impl FnOnce(&str) -> Option<u64>) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = scale(unit).filter(|_| !digits.is_empty())?;
    Some(digits.parse().unwrap_or(u64::MAX).saturating_mul(factor))
}

fn simple(text: &str, unit: TimeUnit) -> Option<Duration> {
    let nanos = scaled(text, |suffix| {
        Some(match (suffix.to_ascii_lowercase().as_str(), unit) {
            ("ns", _) => 1,
            ("us", _) => 1_000,
            ("ms", _) | ("", TimeUnit::Millis) => 1_000_000,
            ("s", _) | ("", TimeUnit::Seconds) => 1_000_000_000,
            ("m", _) => 60_000_000_000,
            ("h", _) => 3_600_000_000_000,
            ("d", _) => 86_400_000_000_000,
            _ => return None,
        })
    })?;
    Some(Duration::from_nanos(nanos))
}

/// Reads `PnDTnHnMn.nS` in upper case, as `java.time.Duration.parse` does, but no part may be
/// negative: it is the largest duration then.
fn iso(text: &str) -> Option<Duration> {
    let parts = text.strip_prefix('P')?;
    if parts.is_empty() || parts.ends_with('T') {
        return None;
    }
    let (day_part, time_part) = parts.split_once('T').unwrap_or((parts, ""));
    let mut total = Duration::ZERO;
    for (mut rest, units) in [(day_part, &DAYS[..]), (time_part, &TIME_UNITS[..])] {
        for (letter, seconds) in units {
            if let Some((number, after)) = rest.split_once(*letter) {
                let value = decimal(number, *letter == 'S')?;
                total = total.saturating_add(value.saturating_mul(*seconds));
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(total)
}

const DAYS: [(char, u32); 1] = [('D', 86_400)];
const TIME_UNITS: [(char, u32); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

/// Reads a number of seconds; `None` if it is no number. One with a minus is the largest.
fn decimal(text: &str, fraction_allowed: bool) -> Option<Duration> {
    let (negative, unsigned) = signed(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits = whole.chars().chain(fraction.chars());
    let allowed = fraction.len() <= 9 && (fraction_allowed || !text.contains('.'));
    if whole.is_empty() || !digits.all(|c| c.is_ascii_digit()) || !allowed {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().unwrap_or(0);
    let seconds = whole.parse().unwrap_or(u64::MAX);
    let value = Duration::new(seconds, nanos);
    Some(within(negative, value, Duration::ZERO, Duration::MAX).unwrap_or(Duration::MAX))
}

/// Writes a duration as a setting may hold it.
fn shown(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.as_millis());
    match (seconds, millis % 1000) {
        (_, 1..) => format!("{millis}ms"),
        (86_400.., _) if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        _ => format!("{seconds}s"),
    }
}

/// Reads a size in bytes: a number with `B KB MB GB TB` (powers of 1024, upper case, a blank
/// before the unit is allowed); a bare number counts in bytes. `1gb`, `1G` and `1.5GB` are none.
///
/// # Errors
///
/// When it is no size, or not within `least..=most`.
pub fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let characters = given(text)?.chars();
    let compact: String = characters.filter(|c| !c.is_whitespace()).collect();
    let (negative, unsigned) = signed(&compact);
    let bytes = scaled(unsigned, |unit| {
        Some(match unit {
            "" | "B" => 1,
            "KB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            "TB" => 1 << 40,
            _ => return None,
        })
    });
    let size = bytes.ok_or("is not a size such as `4MB`, `512KB` or `4194304`")?;
    let allowed = within(negative, size, least, most);
    allowed.ok_or_else(|| not_between(&least, &most))
}

/// Splits a list at its commas and drops the blanks around its elements; empty ones stay.
pub fn list(text: &str) -> Vec<&str> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(str::trim).collect()
}

/// Finds `text` among `choices`, without regard to case, dashes, underscores and blanks around it.
///
/// # Errors
///
/// When it is not one of them.
pub fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let wanted = uniform(text.trim());
    given(&wanted)?;
    let found = choices.iter().find(|(word, _)| uniform(word) == wanted);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words = choices.iter().map(|(word, _)| format!("`{word}`"));
        format!("is not one of {}", words.collect::<Vec<_>>().join(", "))
    })
}

/// Why a placeholder was not resolved.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceholderError {
    /// The name is not set, and there is no default.
    #[error("{} is not set", crate::diagnostic::quote(.0))]
    Unresolved(String),
    /// The names lead back to where they started.
    #[error("{} leads back to itself", crate::diagnostic::quote(.0))]
    Circle(String),
    /// More than 32 levels.
    #[error("placeholders are nested more than 32 deep")]
    TooDeep,
    /// More than 64 KiB, or more than 1000 placeholders.
    #[error("the value exceeds 64 KiB or 1000 placeholders")]
    TooLarge,
    /// The name holds a private key.
    #[error("{} holds a private key, which is never copied", crate::diagnostic::quote(.0))]
    PrivateKey(String),
}

/// What a name in a placeholder stands for.
#[derive(Debug)]
pub enum Looked {
    /// This text, which may hold placeholders itself.
    Text(String),
    /// A private key: not to be copied.
    Private,
}

/// Finds the value of a name; `None` if it is not set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Looked> + 'a;

/// Returns `true` if `value` has a placeholder.
pub fn has_placeholder(value: &str) -> bool {
    value
        .split_once("${")
        .is_some_and(|(_, rest)| rest.contains('}'))
}

/// Goes through the names in the placeholders of `value`, those in defaults included. A name that
/// is itself put together by placeholders is not among them.
pub fn placeholders(value: &str) -> impl Iterator<Item = &str> {
    let parts = value.split("${");
    let starts = parts.clone().zip(parts.skip(1));
    starts
        .filter(|(before, _)| !before.ends_with('\\'))
        .filter_map(|(_, rest)| rest.split([':', '}']).next())
}

/// Replaces the placeholders of `value`. A `${` without its `}` is text, and so is one after a
/// backslash, which is dropped, as since Spring 6.2.
///
/// # Errors
///
/// When a name is not set and has no default, leads back to itself, holds a private key, or the
/// result is too deep or too large. Spring leaves an unresolved one as text; here it is refused.
pub fn resolve(value: &str, lookup: &Lookup<'_>) -> Result<Zeroizing<String>, PlaceholderError> {
    let mut resolver = Resolver {
        lookup,
        open: Vec::new(),
        left: MAX_PLACEHOLDERS,
        bytes: MAX_BYTES,
    };
    resolver.resolve(value, 0)
}

const MAX_DEPTH: usize = 32;
const MAX_PLACEHOLDERS: usize = 1000;
const MAX_BYTES: usize = 64 * 1024;

struct Resolver<'a> {
    lookup: &'a Lookup<'a>,
    open: Vec<String>,
    left: usize,
    bytes: usize,
}

impl Resolver<'_> {
    fn resolve(
        &mut self,
        value: &str,
        depth: usize,
    ) -> Result<Zeroizing<String>, PlaceholderError> {
        if depth > MAX_DEPTH {
            return Err(PlaceholderError::TooDeep);
        }
        let mut out = Zeroizing::new(String::new());
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((inner, tail)) = split_outside(after, '}') else {
                break;
            };
            self.left = self.left.checked_sub(1).ok_or(PlaceholderError::TooLarge)?;
            if let Some(text) = before.strip_suffix('\\') {
                self.push(&mut out, text)?;
                self.push(&mut out, "${")?;
                rest = after;
                continue;
            }
            self.push(&mut out, before)?;
            let replacement = self.replacement(inner, depth)?;
            self.push(&mut out, &replacement)?;
            rest = tail;
        }
        self.push(&mut out, rest)?;
        Ok(out)
    }

    fn push(&mut self, out: &mut String, text: &str) -> Result<(), PlaceholderError> {
        self.bytes = self
            .bytes
            .checked_sub(text.len())
            .ok_or(PlaceholderError::TooLarge)?;
        out.push_str(text);
        Ok(())
    }

    /// Resolves what stands between the braces.
    fn replacement(
        &mut self,
        inner: &str,
        depth: usize,
    ) -> Result<Zeroizing<String>, PlaceholderError> {
        let below = depth.saturating_add(1);
        let (name, default) = match split_outside(inner, ':') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let resolved = self.resolve(name, below)?;
        match ((self.lookup)(&resolved), default) {
            (Some(Looked::Private), _) => Err(PlaceholderError::PrivateKey(resolved.to_string())),
            (Some(Looked::Text(text)), _) => {
                let value = Zeroizing::new(text);
                if self.open.contains(&resolved) {
                    return Err(PlaceholderError::Circle(resolved.to_string()));
                }
                self.open.push(resolved.to_string());
                let replacement = self.resolve(&value, below);
                self.open.pop();
                replacement
            }
            (None, Some(default)) => self.resolve(default, below),
            (None, None) => Err(PlaceholderError::Unresolved(resolved.to_string())),
        }
    }
}

/// Splits `text` around the first `mark` that is not inside inner braces.
fn split_outside(text: &str, mark: char) -> Option<(&str, &str)> {
    let mut open: usize = 0;
    for (at, character) in text.char_indices() {
        match character {
            _ if open == 0 && character == mark => {
                let (before, after) = text.split_at(at);
                return Some((before, after.strip_prefix(mark)?));
            }
            '{' => open = open.saturating_add(1),
            '}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}
