//! The table of settings: what we own, what we recognise, and everything else.

mod disguise;
mod hot;
mod nearly;
mod owned;
mod recognised;
mod rotation;

pub(super) use hot::is_hot;
pub(super) use recognised::why_unused;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use crate::properties::Path;
use crate::properties::bind::TimeUnit;
use crate::properties::name::{Name, Pattern, uniform};

/// One setting: its name, what it takes, and what holds without it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    name: &'static str,
    takes: Takes,
    fallback: Fallback,
    same_as: Option<&'static str>,
    what: &'static str,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Takes {
    /// `true` or `false`.
    Switch,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// A duration within bounds; a bare number counts in the unit.
    Time(TimeUnit, Duration, Duration),
    /// A size in bytes.
    Size,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// Any text.
    Text,
    /// Texts, `[0]`, `[1]`… or separated by commas.
    List,
    /// A public JWK.
    PublicKey,
    /// A private key: never shown, never copied.
    PrivateKey,
    /// Recognised, and of no effect here.
    Unused,
}

/// What holds where nobody sets a setting.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// Nothing.
    None,
    /// This text, for every module.
    Text(&'static str),
    /// One text for a DPM, one for a DPE, none for others.
    PerModule(&'static str, &'static str),
}

impl Setting {
    const fn new(name: &'static str, takes: Takes, what: &'static str) -> Self {
        Self {
            name,
            takes,
            fallback: Fallback::None,
            same_as: None,
            what,
        }
    }

    const fn or(mut self, text: &'static str) -> Self {
        self.fallback = Fallback::Text(text);
        self
    }

    const fn per_module(mut self, dpm: &'static str, dpe: &'static str) -> Self {
        self.fallback = Fallback::PerModule(dpm, dpe);
        self
    }

    const fn same_as(mut self, name: &'static str) -> Self {
        self.same_as = Some(name);
        self
    }

    /// Returns the name, with map keys in angle brackets.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns what it takes.
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// Returns what holds where nobody sets it.
    pub fn fallback(&self) -> Fallback {
        self.fallback
    }

    /// Returns what it is for, in one line.
    #[cfg(test)]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Tells whether it has an effect here.
    pub fn is_used(&self) -> bool {
        !matches!(self.takes, Takes::Unused)
    }

    /// Tells whether its value is a private key.
    pub fn is_private(&self) -> bool {
        matches!(self.takes, Takes::PrivateKey)
    }

    /// Tells whether it decides who is trusted with what, or who can reach it: a duplicate is an
    /// error then.
    pub fn decides_trust(&self) -> bool {
        let parts = [".internal.jwt.", ".tls."];
        let is_part = parts.iter().any(|part| self.name.contains(part));
        let is_listed = strict_prefix(self.name) || self.name == "server.address";
        self.is_used() && (is_part || is_listed)
    }

    /// Returns the name it is kept under: its own, or that of the setting it is a spelling of.
    pub(super) fn canonical(&self) -> &'static str {
        self.same_as.unwrap_or(self.name)
    }
}

/// Names under which an unknown one is an error.
pub(super) const STRICT: [&str; 3] = [
    "ataccama.one.platform.deployments",
    "ataccama.authentication.internal.jwt",
    "countersign",
];

/// What no other program's names have.
const DEPLOYMENT_PARTS: [&str; 1] = [".security.jwtkeys."];

fn strict_prefix(name: &str) -> bool {
    STRICT.iter().any(|prefix| name.starts_with(prefix))
}

/// Goes through every setting, ours first.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    let owned = owned::GROUPS.iter().copied().flatten();
    owned.chain(recognised::SETTINGS)
}

struct Row {
    pattern: Pattern,
    /// The parts between the map keys, in the form in which spellings agree.
    uniform: Vec<String>,
    setting: &'static Setting,
    /// Whether every name below it is meant too.
    open: bool,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |setting: &'static Setting| {
        let (name, open) = match setting.name.strip_suffix(".**") {
            Some(prefix) => (prefix, true),
            None => (setting.name, false),
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

/// What a name is to us.
#[derive(Debug)]
pub(super) enum Known {
    /// A setting.
    Setting(Placed),
    /// Nothing, under one of our strict prefixes.
    Unknown,
    /// Nothing, but one of our names may be meant.
    NearMiss(String),
    /// Somebody else's.
    Foreign,
}

/// A setting at its place: map keys filled in.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) setting: &'static Setting,
    /// The canonical name, cut into segments, with the map keys as written.
    pub(super) path: Path,
    /// The list index, as written.
    pub(super) index: Option<String>,
}

impl Placed {
    fn new(setting: &'static Setting, keys: &[String], index: Option<String>) -> Self {
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
    pub(super) fn with_key(self, depth: usize, key: &str) -> Self {
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
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }
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

/// Tells what `name` is to us.
pub(super) fn find(name: &Name<'_>) -> Known {
    if let Some(placed) = closed(name) {
        return Known::Setting(placed);
    }
    if STRICT_PATTERNS.iter().any(|p| p.matches(name).is_some()) {
        return Known::Unknown;
    }
    // Before the open families: a misspelt port must not pass for a part of one.
    if let Some(meant) = disguise::meant(name).or_else(|| nearly::near_miss(name)) {
        return Known::NearMiss(meant);
    }
    let open = ROWS.iter().filter(|row| row.open);
    let mut found = open.filter_map(|row| Some((row.setting, row.pattern.matches(name)?)));
    match found.find(|(_, found)| !found.rest.is_empty()) {
        Some((setting, found)) => Known::Setting(Placed::new(setting, &found.keys, None)),
        None => Known::Foreign,
    }
}

/// What a name claims to be, spelling mistakes aside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    /// A setting with an effect that holds a private key.
    Private,
    /// Anything under one of our strict prefixes.
    Strict,
    /// Another setting with an effect.
    Setting,
}

/// Tells whether `name` is of a setting with an effect, or under one of our strict prefixes.
pub(super) fn claim(name: &Name<'_>) -> Option<Claim> {
    let used = closed(name).filter(|placed| placed.setting.is_used());
    if used
        .as_ref()
        .is_some_and(|placed| placed.setting.is_private())
    {
        return Some(Claim::Private);
    }
    if STRICT_PATTERNS.iter().any(|p| p.matches(name).is_some()) {
        return Some(Claim::Strict);
    }
    used.map(|_| Claim::Setting)
}

fn closed(name: &Name<'_>) -> Option<Placed> {
    let is_as_long = |row: &&Row| matches!(row.pattern.more_in(name), Some(0 | 1));
    let rows = ROWS.iter().filter(is_as_long);
    rows.filter(|row| !row.open).find_map(|row| {
        let found = row.pattern.matches(name)?;
        let index = match found.rest.as_slice() {
            [] => None,
            [index] if matches!(row.setting.takes, Takes::List) => Some(index.clone()),
            _ => return None,
        };
        // `roles[]` is `roles` to Spring.
        let index = index.filter(|index| !index.is_empty());
        Some(Placed::new(row.setting, &found.keys, index))
    })
}

/// Goes through the settings that an environment variable may override.
pub(super) fn overridable() -> impl Iterator<Item = (&'static Pattern, &'static Setting)> {
    let rows: &'static [Row] = &ROWS;
    let used = rows.iter().filter(|row| row.setting.is_used());
    used.map(|row| (&row.pattern, row.setting))
}

/// Makes the place of an overridable setting.
pub(super) fn placed(setting: &'static Setting, keys: &[String], index: Option<String>) -> Placed {
    Placed::new(setting, keys, index)
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
