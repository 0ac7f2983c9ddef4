//! Which of our names somebody meant who wrote another.

use crate::properties::name::{Name, distance_up_to};

use super::{ROWS, STRICT};

/// Finds what a name outside our prefixes may mean: a prefix two letters off, or one of our names
/// one letter off.
pub(super) fn near_miss(name: &Name<'_>) -> Option<String> {
    let written = name.uniform();
    for prefix in STRICT {
        let length = prefix.split('.').count();
        let pairs = written.split('.').zip(prefix.split('.'));
        let letters = pairs.map(|(a, b)| distance_up_to_2(a, b));
        let sums = letters.scan(0_usize, |sum, letters| {
            *sum = sum.saturating_add(letters);
            Some(*sum)
        });
        let close = sums.take_while(|sum| *sum <= 2).count() == length;
        if close || starts_nearly(&written, prefix) {
            return Some(format!("{prefix}.…"));
        }
    }
    let mut used = ROWS.iter().filter(|row| row.setting.is_used());
    let meant = used.find(|row| is_nearly(&row.uniform, &written))?;
    let keys = meant.pattern.keys_of(name);
    Some(meant.pattern.with_keys(&keys))
}

/// Counts the letters between two words; 3 stands for more than 2.
fn distance_up_to_2(a: &str, b: &str) -> usize {
    if a == b {
        0
    } else if a.len().abs_diff(b.len()) > 2 || letters_of_one(a, b) > 2 {
        3
    } else {
        distance_up_to(2, a, b).unwrap_or(3)
    }
}

/// Counts the bytes of `a` that are nowhere in `b`: two words are at least so far apart.
fn letters_of_one(a: &str, b: &str) -> usize {
    let of_one = a.bytes().filter(|byte| !b.as_bytes().contains(byte));
    of_one.filter(u8::is_ascii).count()
}

/// Tells whether `written` is one letter off a name whose literal parts are `parts`.
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

/// Tells whether one letter inserted, dropped, changed or swapped makes `b` of `a`.
fn within_one_edit(a: &str, b: &str) -> bool {
    let alike = |(left, right): &(u8, u8)| left == right;
    let front = a.bytes().zip(b.bytes()).take_while(alike).count();
    let back = a
        .bytes()
        .rev()
        .zip(b.bytes().rev())
        .take_while(alike)
        .count();
    // Two swapped characters are eight bytes at most. Most names end here.
    if front.saturating_add(back).saturating_add(8) < a.len().max(b.len()) {
        return false;
    }
    let same = |(left, right): &(char, char)| left == right;
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let forth = a.iter().copied().zip(b.iter().copied());
    let front = forth.take_while(same).count();
    let back = a.iter().rev().copied().zip(b.iter().rev().copied());
    let most = a.len().min(b.len()).saturating_sub(front);
    let back = back.take_while(same).count().min(most);
    let middle = |word: &[char]| -> Vec<char> {
        let end = word.len().saturating_sub(back);
        word.get(front..end).unwrap_or_default().to_vec()
    };
    match (middle(&a).as_slice(), middle(&b).as_slice()) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}
