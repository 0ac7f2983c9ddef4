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

impl TimeUnit {
    fn suffix(self) -> &'static str {
        match self {
            Self::Millis => "ms",
            Self::Seconds => "s",
        }
    }
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
    let text = text.trim();
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    let range = || ValueError::Range(least.to_string(), most.to_string());
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let hexadecimal = ["0x", "0X", "#"]
        .iter()
        .find_map(|prefix| digits.strip_prefix(prefix));
    let (digits, radix) = hexadecimal.map_or((digits, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Integer);
    }
    let Ok(number) = u64::from_str_radix(digits, radix) else {
        return Err(range());
    };
    if (negative && number > 0) || number < least || number > most {
        return Err(range());
    }
    Ok(number)
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
    let text = text.trim();
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    let range = || ValueError::Range(shown(least), shown(most));
    let value = if text.starts_with(['P', 'p', '-', '+']) && text.contains(['P', 'p']) {
        iso(text)
    } else {
        simple(text, unit)
    };
    match value {
        Some(Ok(value)) if least <= value && value <= most => Ok(value),
        Some(_) => Err(range()),
        None => Err(ValueError::Duration),
    }
}

/// A duration is well-formed but negative or beyond any clock.
#[derive(Clone, Copy, Debug)]
struct OutOfRange;

fn simple(text: &str, unit: TimeUnit) -> Option<Result<Duration, OutOfRange>> {
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let suffix = suffix.to_ascii_lowercase();
    let suffix = if suffix.is_empty() {
        unit.suffix()
    } else {
        &suffix
    };
    let nanos: u64 = match suffix {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let total = digits.parse().ok().and_then(|n: u64| n.checked_mul(nanos));
    Some(match total {
        Some(0) => Ok(Duration::ZERO),
        Some(total) if !negative => Ok(Duration::from_nanos(total)),
        _ => Err(OutOfRange),
    })
}

/// Reads `PnDTnHnMn.nS`, as `java.time.Duration.parse` does, but no part may be negative.
fn iso(text: &str) -> Option<Result<Duration, OutOfRange>> {
    let text = text.to_ascii_uppercase();
    let signed = text.strip_prefix(['-', '+']);
    let (day_part, time_part) = match signed.unwrap_or(&text).strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (signed.unwrap_or(&text).strip_prefix('P')?, ""),
    };
    let mut total = Some(Duration::ZERO);
    let mut seen = false;
    for (part, units) in [
        (day_part, &[('D', 86_400)][..]),
        (time_part, &TIME_UNITS[..]),
    ] {
        let mut rest = part;
        for (letter, seconds) in units {
            let Some((number, after)) = rest.split_once(*letter) else {
                continue;
            };
            let value = decimal(number, *letter == 'S')?.ok();
            let scaled = value.and_then(|v| v.checked_mul(*seconds));
            total = total.and_then(|sum| sum.checked_add(scaled?));
            seen = true;
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    if !seen {
        return None;
    }
    Some(match total {
        Some(total) if total.is_zero() || !text.starts_with('-') => Ok(total),
        _ => Err(OutOfRange),
    })
}

const TIME_UNITS: [(char, u32); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

/// Reads a number of seconds; none where it is no number.
fn decimal(text: &str, fraction_allowed: bool) -> Option<Result<Duration, OutOfRange>> {
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |digits: &str| digits.chars().all(|c| c.is_ascii_digit());
    let allowed = fraction.len() <= 9 && (fraction_allowed || !text.contains('.'));
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || !allowed {
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
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let scale: u64 = match suffix {
        "" | "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return Err(ValueError::Size),
    };
    if digits.is_empty() {
        return Err(ValueError::Size);
    }
    let bytes = digits.parse().ok().and_then(|n: u64| n.checked_mul(scale));
    bytes
        .filter(|bytes| !negative && least <= *bytes && *bytes <= most)
        .ok_or_else(|| ValueError::Range(least.to_string(), most.to_string()))
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
