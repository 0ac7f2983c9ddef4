//! The table of settings: what we own, what we recognise, and everything else.

mod end;
mod meant;
mod rows;
mod setting;
mod table;

pub use end::TlsEnd;
pub use setting::{DEPLOYMENTS, Fallback, Placed, Setting, Takes, filled};
pub use table::{exact, is_strict, settings, strict_family, used};

use std::borrow::Cow;

use crate::properties::name::{Known as Keys, Name, Variable};

/// What a name is to us.
#[derive(Debug)]
pub enum Known {
    /// A setting.
    Setting(Placed),
    /// Nothing, under one of our strict prefixes.
    Unknown,
    /// Nothing, but one of our names may be meant.
    NearMiss(String),
    /// A setting of a different program.
    Foreign,
}

impl Known {
    /// Returns the setting, if it has an effect.
    pub fn used(&self) -> Option<&Placed> {
        match self {
            Self::Setting(placed) => Some(placed).filter(|placed| placed.setting.is_used()),
            Self::Unknown | Self::NearMiss(_) | Self::Foreign => None,
        }
    }

    /// Returns `true` if it is a setting that holds a private key.
    pub fn is_private(&self) -> bool {
        self.used()
            .is_some_and(|placed| placed.setting.is_private())
    }
}

/// Cuts `name` into segments, with `keys` for its map keys.
pub fn path<'a>(name: &'a str, keys: &[&'a str]) -> Vec<&'a str> {
    filled(name, keys.iter().copied(), |segment| segment).collect()
}

/// Returns what `name` is to us.
pub fn find(name: &Name<'_>) -> Known {
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
    let mut open = settings().filter(|setting| setting.open);
    let found = open.find_map(|setting| setting.placed(&setting.pattern.matches(name)?));
    found.map_or(Known::Foreign, Known::Setting)
}

/// Finds the setting that an environment variable overrides; `keys` lists the map keys that exist
/// at the next angle bracket of a name.
pub fn overridden(
    variable: &Variable,
    keys: impl Fn(&str, &[String]) -> Vec<String>,
) -> Option<Placed> {
    used().find_map(|setting| {
        let existing: &Keys<'_> = &|before| keys(setting.name, before);
        setting.placed(&setting.pattern.matches_variable(variable, existing)?)
    })
}

/// Finds the switch of Spring Boot that an environment variable sets, but for groups of profiles.
pub fn switch_of(variable: &Variable) -> Option<Placed> {
    let found = overridden(variable, |_, _| Vec::new());
    found.filter(|placed| placed.setting.name.starts_with("spring."))
}

/// Finds the setting that `name` most probably means.
pub fn nearest(name: &Name<'_>) -> Option<String> {
    let near = used().filter_map(|setting| Some((setting.pattern.distance(name)?, setting)));
    let (_, meant) = near.min_by_key(|(distance, _)| *distance)?;
    Some(meant.pattern.with_keys(&meant.pattern.keys_of(name)))
}

/// Returns `true` if a reload applies the setting `path`; all others need a restart.
pub fn is_hot(path: &[Cow<'_, str>]) -> bool {
    let name = path.join(".") + ".";
    HOT.iter().any(|hot| name.starts_with(hot))
}

const HOT: [&str; 7] = [
    "ataccama.one.platform.deployments.",
    "ataccama.authentication.internal.jwt.generator.key.",
    "countersign.deployment.name.",
    "countersign.deployments.",
    "countersign.reload.",
    "countersign.rotation.",
    "spring.",
];
