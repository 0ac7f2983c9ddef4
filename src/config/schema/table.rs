//! The table of settings, ready to be compared with names.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::setting::{STRICT, Setting, Takes};
use super::{owned, recognised};
use crate::properties::Path;
use crate::properties::name::{Name, Pattern, uniform};

/// A setting, ready to be compared with names.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) pattern: Pattern,
    /// The parts between the map keys, in the form in which spellings agree.
    pub(super) uniform: Vec<String>,
    pub(super) setting: &'static Setting,
    /// Whether every name below it is meant too.
    pub(super) open: bool,
}

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let mut settings = owned::settings();
    settings.extend(recognised::settings());
    settings
});

/// Iterates over every setting, ours first.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter()
}

pub(super) static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |setting: &'static Setting| {
        let (name, open) = match setting.name().strip_suffix(".**") {
            Some(prefix) => (prefix, true),
            None => (setting.name(), false),
        };
        let literal = |part: &str| uniform(part.split_once('>').map_or(part, |(_, rest)| rest));
        Row {
            pattern: Pattern::new(name),
            uniform: name.split('<').map(literal).collect(),
            setting,
            open,
        }
    };
    settings().map(row).collect()
});

static STRICT_PATTERNS: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| STRICT.iter().map(|prefix| Pattern::new(prefix)).collect());

/// Returns `true` if `name` is under one of our strict prefixes.
pub(super) fn is_strict(name: &Name<'_>) -> bool {
    STRICT_PATTERNS.iter().any(|p| p.matches(name).is_some())
}

/// A setting at its place: map keys filled in.
#[derive(Clone, Debug)]
pub(in crate::config) struct Placed {
    pub(in crate::config) setting: &'static Setting,
    /// The canonical name, cut into segments, with the map keys as written.
    pub(in crate::config) path: Path,
    /// The list index, as written.
    pub(in crate::config) index: Option<String>,
}

impl Placed {
    pub(in crate::config) fn new(
        setting: &'static Setting,
        keys: &[String],
        index: Option<String>,
    ) -> Self {
        let mut keys = keys.iter();
        let fill = |segment: &'static str| match segment.strip_prefix('<') {
            Some(_) => Cow::Owned(keys.next().cloned().unwrap_or_default()),
            None => Cow::Borrowed(segment),
        };
        Self {
            setting,
            path: setting.canonical().split('.').map(fill).collect(),
            index,
        }
    }

    /// Returns the same setting with `key` as the segment at `depth`.
    pub(in crate::config) fn with_key(self, depth: usize, key: &str) -> Self {
        let mut path = self.path.to_vec();
        if let Some(segment) = path.get_mut(depth) {
            *segment = Cow::Owned(key.to_owned());
        }
        Self {
            path: path.into(),
            ..self
        }
    }

    /// Returns the canonical name.
    pub(in crate::config) fn name(&self) -> String {
        self.path.join(".")
    }
}

/// What a name claims to be, spelling mistakes aside.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum Claim {
    /// A setting with an effect that holds a private key.
    Private,
    /// Anything under one of our strict prefixes.
    Strict,
    /// Another setting with an effect.
    Setting,
}

/// Returns what `name` claims to be: of a setting with an effect, or under one of our strict prefixes.
pub(in crate::config) fn claim(name: &Name<'_>) -> Option<Claim> {
    let used = exact(name).filter(|placed| placed.setting.is_used());
    if used
        .as_ref()
        .is_some_and(|placed| placed.setting.is_private())
    {
        return Some(Claim::Private);
    }
    if is_strict(name) {
        return Some(Claim::Strict);
    }
    used.map(|_| Claim::Setting)
}

/// Finds the setting that `name` is a spelling of; names below an open family are not settings.
pub(in crate::config) fn exact(name: &Name<'_>) -> Option<Placed> {
    let is_as_long = |row: &&Row| matches!(row.pattern.more_in(name), Some(0 | 1));
    let rows = ROWS.iter().filter(is_as_long);
    rows.filter(|row| !row.open).find_map(|row| {
        let found = row.pattern.matches(name)?;
        let index = match found.rest.as_slice() {
            [] => None,
            [index] if matches!(row.setting.takes(), Takes::List) => Some(index.clone()),
            _ => return None,
        };
        // `roles[]` is `roles` to Spring.
        let index = index.filter(|index| !index.is_empty());
        Some(Placed::new(row.setting, &found.keys, index))
    })
}
