//! Typed values: what a text must look like, as Spring Boot reads it.

use std::time::Duration;

/// Why a text is not a value of its type. Never repeats the text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Not a switch.
    #[error("is neither `true` nor `false`")]
    Switch,
    /// Not a whole number.
    #[error("is not a whole number")]
    Integer,
    /// A number outside the limits.
    #[error("is not between {0} and {1}")]
    Range(String, String),
    /// Not a duration.
    #[error("is not a duration such as `10s`, `200ms`, `5m`, `2d` or `PT15M`")]
    Duration,
    /// Not a size.
    #[error("is not a size such as `4MB`, `512KB` or `4194304`")]
    Size,
    /// Not one of a few words.
    #[error("is not one of {0}")]
    Choice(String),
}

/// The unit of a bare number, and of the numbers in messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeUnit {
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
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
pub fn switch(text: &str) -> Result<bool, ValueError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        "" => Err(ValueError::Empty),
        _ => Err(ValueError::Switch),
    }
}

/// Reads a whole number: decimal, or hexadecimal after `0x` or `#`; blanks around it dropped.
///
/// # Errors
///
/// When it is no number or not within `least..=most`.
pub fn integer(text: &str, least: u64, most: u64) -> Result<u64, ValueError> {
    let (negative, unsigned) = signed(text.trim());
    let hexadecimal = ["0x", "0X", "#"]
        .iter()
        .find_map(|prefix| unsigned.strip_prefix(prefix));
    let (digits, radix) = hexadecimal.map_or((unsigned, 10), |digits| (digits, 16));
    if text.trim().is_empty() {
        return Err(ValueError::Empty);
    }
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Integer);
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) if (!negative || number == 0) && (least..=most).contains(&number) => Ok(number),
        _ => Err(ValueError::Range(least.to_string(), most.to_string())),
    }
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
) -> Result<Duration, ValueError> {
    let bare = text.trim();
    let value = if bare.starts_with(['P', 'p', '-', '+']) && bare.contains(['P', 'p']) {
        iso(&bare.to_ascii_uppercase())
    } else {
        simple(bare, unit)
    };
    match value {
        _ if bare.is_empty() => Err(ValueError::Empty),
        Some(Ok(value)) if (least..=most).contains(&value) => Ok(value),
        Some(_) => Err(ValueError::Range(shown(least), shown(most))),
        None => Err(ValueError::Duration),
    }
}

/// A value is well-formed but negative or beyond any clock.
#[derive(Clone, Copy, Debug)]
struct OutOfRange;

/// Reads a whole number and its unit, in the smallest unit; `None` where it is no such number.
fn scaled(text: &str, scale: impl FnOnce(&str) -> Option<u64>) -> Option<Result<u64, OutOfRange>> {
    let (negative, unsigned) = signed(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let factor = scale(unit).filter(|_| !digits.is_empty())?;
    let number = digits.parse().ok();
    let total = number.and_then(|number: u64| number.checked_mul(factor));
    let fits = total.filter(|total| !negative || *total == 0);
    Some(fits.ok_or(OutOfRange))
}

fn simple(text: &str, unit: TimeUnit) -> Option<Result<Duration, OutOfRange>> {
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
    Some(nanos.map(Duration::from_nanos))
}

/// Reads `PnDTnHnMn.nS` in upper case, as `java.time.Duration.parse` does, but no part may be
/// negative.
fn iso(text: &str) -> Option<Result<Duration, OutOfRange>> {
    let (negative, unsigned) = signed(text);
    let parts = unsigned.strip_prefix('P')?;
    if parts.is_empty() || parts.ends_with('T') {
        return None;
    }
    let (day_part, time_part) = parts.split_once('T').unwrap_or((parts, ""));
    let mut total = Some(Duration::ZERO);
    for (mut rest, units) in [(day_part, &DAYS[..]), (time_part, &TIME_UNITS[..])] {
        for (letter, seconds) in units {
            if let Some((number, after)) = rest.split_once(*letter) {
                let value = decimal(number, *letter == 'S')?.ok();
                total = total.and_then(|sum| sum.checked_add(value?.checked_mul(*seconds)?));
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    let fits = total.filter(|total| !negative || total.is_zero());
    Some(fits.ok_or(OutOfRange))
}

const DAYS: [(char, u32); 1] = [('D', 86_400)];
const TIME_UNITS: [(char, u32); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

/// Reads a number of seconds; none where it is no number.
fn decimal(text: &str, fraction_allowed: bool) -> Option<Result<Duration, OutOfRange>> {
    let (negative, unsigned) = signed(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits = whole.chars().chain(fraction.chars());
    let allowed = fraction.len() <= 9 && (fraction_allowed || !text.contains('.'));
    if whole.is_empty() || !digits.all(|c| c.is_ascii_digit()) || !allowed {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().unwrap_or(0);
    let value = whole.parse().ok().map(|s: u64| Duration::new(s, nanos));
    let fits = value.filter(|value| !negative || value.is_zero());
    Some(fits.ok_or(OutOfRange))
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
pub fn size(text: &str, least: u64, most: u64) -> Result<u64, ValueError> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if compact.is_empty() {
        return Err(ValueError::Empty);
    }
    let bytes = scaled(&compact, |unit| {
        Some(match unit {
            "" | "B" => 1,
            "KB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            "TB" => 1 << 40,
            _ => return None,
        })
    });
    match bytes {
        Some(Ok(bytes)) if (least..=most).contains(&bytes) => Ok(bytes),
        Some(_) => Err(ValueError::Range(least.to_string(), most.to_string())),
        None => Err(ValueError::Size),
    }
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
pub fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, ValueError> {
    let wanted = super::name::uniform(text.trim());
    if wanted.is_empty() {
        return Err(ValueError::Empty);
    }
    choices
        .iter()
        .find(|(word, _)| super::name::uniform(word) == wanted)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            ValueError::Choice(words.join(", "))
        })
}
