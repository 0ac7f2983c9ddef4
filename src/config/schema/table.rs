//! The table of settings, compared with names.

use std::sync::LazyLock;

use super::rows;
use super::setting::{Placed, STRICT, Setting};
use crate::properties::name::{Name, Pattern, uniform};

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(rows::settings);

/// Iterates over every setting, ours first.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter()
}

/// Iterates over the settings with an effect.
pub fn used() -> impl Iterator<Item = &'static Setting> {
    settings().filter(|setting| setting.is_used())
}

static STRICT_PATTERNS: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| STRICT.iter().map(|prefix| Pattern::new(prefix)).collect());

/// Returns `true` if `name` is under one of our strict prefixes.
pub fn is_strict(name: &Name<'_>) -> bool {
    STRICT_PATTERNS.iter().any(|p| p.matches(name).is_some())
}

/// Returns the strict prefix that a name written without dots, such as a variable's, must mean: a
/// vendor's prefix, or ours with one of our families.
pub fn strict_family(joined: &str) -> Option<&'static str> {
    let [vendor @ .., own] = STRICT;
    let mut families = used().filter_map(|setting| {
        let family = setting.name.strip_prefix(own)?.strip_prefix('.')?;
        family.split('.').next()
    });
    let mut vendors = vendor.into_iter();
    vendors
        .find(|prefix| joined.starts_with(&uniform(prefix).replace('.', "")))
        .or_else(|| {
            let rest = joined.strip_prefix(own)?;
            families
                .any(|family| rest.starts_with(family))
                .then_some(own)
        })
}

/// Returns `true` if `name` is that of a setting with an effect, or is under one of our strict
/// prefixes.
pub fn is_ours(name: &Name<'_>) -> bool {
    is_strict(name) || exact(name).is_some_and(|placed| placed.setting.is_used())
}

/// Finds the setting that `name` is a spelling of; names below an open family are not settings.
pub fn exact(name: &Name<'_>) -> Option<Placed> {
    let mut whole = settings().filter(|setting| !setting.open);
    whole.find_map(|setting| match setting.pattern.more_in(name) {
        Some(0 | 1) => setting.placed(&setting.pattern.matches(name)?),
        _ => None,
    })
}
