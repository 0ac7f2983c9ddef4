//! Names of ours that are not read as such: something stands around them, or between their parts.

use super::{DEPLOYMENT_PARTS, ROWS, STRICT, claim};
use crate::properties::name::{Name, uniform};

/// Finds what is meant by a name of ours with marks around it, with underscores for its dots, or
/// without one of its first segments.
pub(super) fn meant(name: &Name<'_>) -> Option<String> {
    let written = name.written();
    bare(&written)
        .or_else(|| with_underscores(&written))
        .or_else(|| without_a_segment(&name.uniform()))
}

/// Drops quotes, dashes and whatever has no width from around a name.
fn bare(written: &str) -> Option<String> {
    let inner = written.trim_matches(|c: char| !c.is_alphanumeric());
    if inner.len() == written.len() || inner.is_empty() {
        return None;
    }
    claim(&Name::parse(inner)).map(|_| inner.to_owned())
}

/// Reads a name as that of an environment variable.
fn with_underscores(written: &str) -> Option<String> {
    if written.contains('.') || !written.contains('_') {
        return None;
    }
    let written = uniform(written);
    let joined = |name: &str| uniform(name).replace('.', "");
    let [vendor @ .., own] = STRICT;
    if let Some(prefix) = vendor.iter().find(|p| written.starts_with(&joined(p))) {
        return Some(format!("{prefix}.…"));
    }
    let mut used = ROWS.iter().filter(|row| row.setting.is_used());
    if written.starts_with(own) {
        let family = |name: &str| {
            let end = name
                .match_indices('.')
                .nth(1)
                .map_or(name.len(), |(at, _)| at);
            joined(name.get(..end).unwrap_or(name))
        };
        let mut ours = used.filter(|row| row.setting.name().starts_with(own));
        let meant = ours.any(|row| written.starts_with(&family(row.setting.name())));
        return meant.then(|| format!("{own}.…"));
    }
    let meant =
        used.find(|row| matches!(row.uniform.as_slice(), [whole] if joined(whole) == written));
    meant.map(|row| row.setting.name().to_owned())
}

/// Puts back one of the first segments of our vendor prefixes. The last is what they are known by.
fn without_a_segment(uniform: &str) -> Option<String> {
    if DEPLOYMENT_PARTS.iter().any(|part| uniform.contains(part)) {
        return Some(format!("{}.…", STRICT.first()?));
    }
    let prefix = STRICT.iter().find(|prefix| {
        let segments: Vec<_> = prefix.split('.').collect();
        let last = segments.len().saturating_sub(1);
        (0..last).any(|left_out| {
            let mut parts = uniform.split('.');
            let kept = segments
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out);
            kept.map(|(_, part)| *part)
                .all(|part| parts.next() == Some(part))
                && parts.next().is_some()
        })
    })?;
    Some(format!("{prefix}.…"))
}
