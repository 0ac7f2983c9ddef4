//! Which of our names is meant by one that is not read as such: something stands around it or
//! between its parts, or it has a typing mistake.

use super::setting::STRICT;
use super::table::{is_ours, strict_family, used};
use crate::properties::name::{Name, distance_up_to, uniform};

/// What no other program's names have.
const DEPLOYMENT_PART: &str = ".security.jwtkeys.";

/// Finds what is meant by a name of ours with marks around it, with underscores for its dots,
/// without one of its first segments, or with a typing mistake.
pub fn meant(name: &Name<'_>) -> Option<String> {
    let written = name.written();
    bare(&written)
        .or_else(|| with_underscores(&written))
        .or_else(|| without_a_segment(&name.uniform()))
        .or_else(|| near_miss(name))
}

/// Drops quotes, dashes and whatever has no width from around a name.
fn bare(written: &str) -> Option<String> {
    let inner = written.trim_matches(|c: char| !c.is_alphanumeric());
    if inner.len() == written.len() || inner.is_empty() {
        return None;
    }
    is_ours(&Name::parse(inner)).then(|| inner.to_owned())
}

/// Reads a name as that of an environment variable.
fn with_underscores(written: &str) -> Option<String> {
    if written.contains('.') || !written.contains('_') {
        return None;
    }
    let joined = uniform(written);
    if let Some(prefix) = strict_family(&joined) {
        return Some(format!("{prefix}.…"));
    }
    let mut whole = used().filter(|setting| !setting.name.contains('<'));
    let meant = whole.find(|setting| uniform(setting.name).replace('.', "") == joined);
    meant.map(|setting| setting.name.to_owned())
}

/// Puts back one of the first segments of our vendor prefixes. The last is what they are known by.
fn without_a_segment(uniform: &str) -> Option<String> {
    if uniform.contains(DEPLOYMENT_PART) {
        return Some(format!("{}.…", STRICT.first()?));
    }
    let prefix = STRICT.iter().find(|prefix| {
        let last = prefix.matches('.').count();
        (0..last).any(|left_out| {
            let mut parts = uniform.split('.');
            let mut kept = prefix.split('.').enumerate();
            kept.all(|(at, part)| at == left_out || parts.next() == Some(part))
                && parts.next().is_some()
        })
    })?;
    Some(format!("{prefix}.…"))
}

/// Finds what a name outside our prefixes may mean: a prefix two letters off, or one of our names
/// one letter off.
fn near_miss(name: &Name<'_>) -> Option<String> {
    let written = name.uniform();
    for prefix in STRICT {
        let length = prefix.split('.').count();
        let mut pairs = written.split('.').zip(prefix.split('.'));
        let letters = pairs.try_fold((0_usize, 2_usize), |(count, left), (a, b)| {
            // Most names end here.
            if a.len().abs_diff(b.len()) > 2 {
                return None;
            }
            let rest = left.checked_sub(distance_up_to(left, a, b)?)?;
            Some((count.saturating_add(1), rest))
        });
        let close = letters.is_some_and(|(count, _)| count == length);
        if close || starts_nearly(&written, prefix) {
            return Some(format!("{prefix}.…"));
        }
    }
    let meant = used().find(|setting| is_nearly(&setting.uniform, &written))?;
    Some(meant.pattern.with_keys(&meant.pattern.keys_of(name)))
}

/// Returns `true` if `written` is one letter off a name whose literal parts are `parts`.
fn is_nearly(parts: &[String], written: &str) -> bool {
    match parts {
        // One letter is four bytes at most. Most names end here.
        [whole] => whole.len().abs_diff(written.len()) <= 4 && within_one_edit(whole, written),
        [head, .., tail] => {
            let after = written.strip_prefix(head.as_str());
            let before = written.strip_suffix(tail.as_str());
            after.is_some_and(|rest| ends_nearly(rest, tail))
                || before.is_some_and(|rest| starts_nearly(rest, head))
        }
        [] => false,
    }
}

fn starts_nearly(text: &str, start: &str) -> bool {
    lengths(start).any(|length| {
        text.get(..length)
            .is_some_and(|part| within_one_edit(part, start))
    })
}

fn ends_nearly(text: &str, end: &str) -> bool {
    lengths(end).any(|length| {
        let at = text.len().checked_sub(length).filter(|at| *at > 0);
        let part = at.and_then(|at| text.get(at..));
        part.is_some_and(|part| within_one_edit(part, end))
    })
}

/// The lengths a text may have that is one letter off.
fn lengths(text: &str) -> std::ops::RangeInclusive<usize> {
    text.len().saturating_sub(1)..=text.len().saturating_add(1)
}

/// Returns `true` if one letter inserted, dropped, changed or swapped makes `b` of `a`.
fn within_one_edit(a: &str, b: &str) -> bool {
    let alike = |(left, right): &(u8, u8)| left == right;
    let front = a.bytes().zip(b.bytes()).take_while(alike).count();
    let ends = a.bytes().rev().zip(b.bytes().rev());
    let back = ends.take_while(alike).count();
    // Two swapped characters are eight bytes at most. Most names end here.
    if front.saturating_add(back).saturating_add(8) < a.len().max(b.len()) {
        return false;
    }
    distance_up_to(1, a, b).is_some()
}
