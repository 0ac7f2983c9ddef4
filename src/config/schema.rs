//! The table of settings: what we own, what we recognise, and everything else.

mod meant;
mod owned;
mod recognised;
mod setting;
mod table;

pub use setting::{Fallback, Setting, Takes};
pub use table::settings;
pub(super) use table::{Claim, Placed, claim, exact};

use crate::properties::name::{Name, Pattern};
use table::{ROWS, Row, is_strict};

/// What a name is to us.
#[derive(Debug)]
pub(super) enum Known {
    /// A setting.
    Setting(Placed),
    /// Nothing, under one of our strict prefixes.
    Unknown,
    /// Nothing, but one of our names may be meant.
    NearMiss(String),
    /// A setting of a different program.
    Foreign,
}

/// Cuts `name` into segments, with `keys` for its map keys.
pub(super) fn path<'a>(name: &'a str, keys: &'a [String]) -> Vec<&'a str> {
    let mut keys = keys.iter();
    let fill = |segment: &'a str| match segment.strip_prefix('<') {
        Some(_) => keys.next().map_or("", String::as_str),
        None => segment,
    };
    name.split('.').map(fill).collect()
}

/// Returns what `name` is to us.
pub(super) fn find(name: &Name<'_>) -> Known {
    if let Some(placed) = exact(name) {
        return Known::Setting(placed);
    }
    if is_strict(name) {
        return Known::Unknown;
    }
    // Before the open families: a misspelt port must not pass for a part of one.
    if let Some(meant) = meant::meant(name) {
        return Known::NearMiss(meant);
    }
    let open = ROWS.iter().filter(|row| row.open);
    let mut found = open.filter_map(|row| Some((row.setting, row.pattern.matches(name)?)));
    match found.find(|(_, found)| !found.rest.is_empty()) {
        Some((setting, found)) => Known::Setting(Placed::new(setting, &found.keys, None)),
        None => Known::Foreign,
    }
}

/// Goes through the settings that an environment variable may override.
pub(super) fn overridable() -> impl Iterator<Item = (&'static Pattern, &'static Setting)> {
    let rows: &'static [Row] = &ROWS;
    let used = rows.iter().filter(|row| row.setting.is_used());
    used.map(|row| (&row.pattern, row.setting))
}

/// Finds the setting that `name` most probably means.
pub(super) fn nearest(name: &Name<'_>) -> Option<String> {
    let used = ROWS.iter().filter(|row| row.setting.is_used());
    let near = used.filter_map(|row| {
        let distance = row.pattern.distance(name)?;
        let keys = row.pattern.keys_of(name);
        Some((distance, row.pattern.with_keys(&keys)))
    });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, meant)| meant)
}

/// Returns `true` if a reload applies what stands at `path`; all else needs a restart.
pub(super) fn is_hot<S: AsRef<str>>(path: &[S]) -> bool {
    let is_below = |hot: &&str| {
        let mut path = path.iter();
        hot.split('.')
            .all(|segment| path.next().is_some_and(|at| at.as_ref() == segment))
    };
    HOT.iter().any(is_below)
}

const HOT: [&str; 7] = [
    "ataccama.one.platform.deployments",
    "ataccama.authentication.internal.jwt.generator.key",
    "countersign.deployment.name",
    "countersign.deployments",
    "countersign.reload",
    "countersign.rotation",
    "spring.profiles.active",
];
