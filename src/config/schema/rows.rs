//! The settings that have an effect here, and what the table of settings says about one.

use std::borrow::Cow;
use std::time::Duration;

use self::Fallback::PerModule;
use self::Takes::{
    Integer, List, Password, PrivateKey, PublicKey, Size, Switch, Text, Time, Unused, Words,
};
use crate::config::question::ModuleKind;
use crate::properties::bind::TimeUnit;
use crate::properties::name::{Match, Pattern, uniform};
use crate::properties::{Path, look};

/// Where the server's TLS may be set.
pub const SERVER: &[&str] = &["ataccama.server.grpc.tls", "ataccama.server.tls"];
/// Where a client's TLS may be set.
pub const CLIENT: &[&str] = &[
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

/// The settings with an effect, one a line.
const SETTINGS: &str = include_str!("settings.txt");

/// Ends of names that have another spelling, and the end of that.
const SPELLINGS: &[(&str, &str)] = &[
    (".tls.enabled", ".tls.on"),
    (
        "server.grpc.max-message-size",
        "server.grpc.properties.max-message-size",
    ),
];

/// The settings without an effect, below why they have none; `.**` matches every name below.
const RECOGNISED: &str = include_str!("recognised.txt");

/// Makes the settings of the table, those with an effect first; of several that fit a name, the
/// first counts.
pub fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    for (written, takes, fallback) in SETTINGS.lines().filter_map(row) {
        let mut places = vec![written];
        if let Some(end) = written.strip_prefix("<tls>") {
            let all = SERVER.iter().chain(CLIENT);
            places = all.map(|place| &*format!("{place}{end}").leak()).collect();
        }
        for name in places {
            settings.push(Setting::new(name, name, takes, fallback));
            for (end, other) in SPELLINGS {
                if let Some(start) = name.strip_suffix(end) {
                    let spelling = format!("{start}{other}").leak();
                    settings.push(Setting::new(spelling, name, takes, Fallback::None));
                }
            }
        }
    }
    let mut why = "";
    for line in RECOGNISED.lines() {
        match line.strip_prefix("    ") {
            Some(name) => settings.push(Setting::new(name, name, Unused(why), Fallback::None)),
            None => why = line,
        }
    }
    settings
}

/// Reads a line of the table: a name, what it takes with its bounds, and its default; `None` if it
/// is a comment.
fn row(line: &'static str) -> Option<(&'static str, Takes, Fallback)> {
    let (setting, default) = line.split_once(" = ").unwrap_or((line, ""));
    let mut words = setting.split(' ');
    let name = words
        .next()
        .filter(|name| !name.is_empty() && *name != "#")?;
    let kind = words.next()?;
    let mut bounds = words.map(|bound| bound.parse().unwrap_or_default());
    let (least, most) = (bounds.next().unwrap_or(0), bounds.next().unwrap_or(0));
    let takes = match kind {
        "switch" => Switch,
        "integer" => Integer(least, most),
        "seconds" => Time(
            TimeUnit::Seconds,
            Duration::from_secs(least),
            Duration::from_secs(most),
        ),
        "millis" => Time(
            TimeUnit::Millis,
            Duration::from_millis(least),
            Duration::from_millis(most),
        ),
        "size" => Size,
        "text" => Text,
        "list" => List,
        "public-key" => PublicKey,
        "private-key" => PrivateKey,
        "password" => Password,
        // The readers list their values in the order of these words.
        words => Words(words.split('|').collect::<Vec<_>>().leak()),
    };
    let fallback = match default.split_once(' ') {
        Some((dpm, dpe)) => PerModule(dpm, dpe),
        None if default.is_empty() => Fallback::None,
        None => Fallback::Text(default),
    };
    Some((name, takes, fallback))
}

/// One setting: its name, what it takes, and its default; ready to be compared with names.
#[derive(Debug)]
pub struct Setting {
    /// The name, with map keys in angle brackets.
    pub name: &'static str,
    /// The name it is kept under: its own, or that of the setting it is another spelling of.
    pub canonical: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// The default of the setting.
    pub fallback: Fallback,
    pub pattern: Pattern,
    /// The parts between the map keys, in the form in which spellings agree.
    pub uniform: Vec<String>,
    /// Whether every name below it matches too.
    pub open: bool,
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
    /// A password: never shown, never copied.
    Password,
    /// Recognised, and of no effect here: why.
    Unused(&'static str),
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// Nothing.
    None,
    /// This text, for every module.
    Text(&'static str),
    /// One text for a DPM, one for a DPE, none for others.
    PerModule(&'static str, &'static str),
}

impl Fallback {
    /// Returns the text for a module of this `kind`; `None` where the kind is not known and decides.
    pub fn of(self, kind: Option<&ModuleKind>) -> Option<&'static str> {
        match (self, kind) {
            (Self::Text(text), _)
            | (PerModule(text, _), Some(ModuleKind::Dpm))
            | (PerModule(_, text), Some(ModuleKind::Dpe)) => Some(text),
            (Self::None | PerModule(..), _) => None,
        }
    }
}

/// Where the vendor's part of the settings names the trusted deployments.
pub const DEPLOYMENTS: &str = "ataccama.one.platform.deployments";

/// Names under which an unknown one is an error.
pub const STRICT: [&str; 3] = [
    DEPLOYMENTS,
    "ataccama.authentication.internal.jwt",
    "countersign",
];

impl Setting {
    /// Makes the setting `name`, which is kept as `canonical`; an end `.**` means every name below.
    pub fn new(
        name: &'static str,
        canonical: &'static str,
        takes: Takes,
        fallback: Fallback,
    ) -> Self {
        let shape = name.strip_suffix(".**").unwrap_or(name);
        let parts = shape.split('<');
        Self {
            name,
            canonical,
            takes,
            fallback,
            pattern: Pattern::new(shape),
            uniform: parts
                .map(|part| uniform(part.split_once('>').map_or(part, |(_, rest)| rest)))
                .collect(),
            open: shape != name,
        }
    }

    /// Returns `true` if it has an effect here.
    pub fn is_used(&self) -> bool {
        !matches!(self.takes, Unused(_))
    }

    /// Returns `true` if its value is a private key or a password.
    pub fn is_private(&self) -> bool {
        matches!(self.takes, PrivateKey | Password)
    }

    /// Returns `true` if it decides who is trusted with what, or who can reach it: a duplicate is
    /// an error then.
    pub fn decides_trust(&self) -> bool {
        let parts = [".internal.jwt.", ".tls."];
        let is_part = parts.iter().any(|part| self.name.contains(part));
        let is_strict = STRICT.iter().any(|prefix| self.name.starts_with(prefix));
        self.is_used() && (is_part || is_strict || self.name == "server.address")
    }

    /// Puts it where `found` has it; `None` if more than a list's index follows its name, or if it
    /// is open and nothing follows.
    pub fn placed(&'static self, found: &Match) -> Option<Placed> {
        let index = match found.rest.as_slice() {
            [] if !self.open => None,
            [_, ..] if self.open => None,
            [index] if matches!(self.takes, List) => Some(index.clone()),
            _ => return None,
        };
        let keys = found.keys.iter().cloned().map(Cow::Owned);
        Some(Placed {
            setting: self,
            path: filled(self.canonical, keys, Cow::Borrowed).collect(),
            // `roles[]` is `roles` to Spring.
            index: index.filter(|index| !index.is_empty()),
        })
    }
}

/// Cuts `name` into segments, with `keys` for its map keys.
pub fn filled<'n, T: Default>(
    name: &'n str,
    keys: impl IntoIterator<Item = T>,
    literal: fn(&'n str) -> T,
) -> impl Iterator<Item = T> {
    let mut names = keys.into_iter();
    name.split('.')
        .map(move |segment| match segment.strip_prefix('<') {
            Some(_) => names.next().unwrap_or_default(),
            None => literal(segment),
        })
}

/// A setting at its place: map keys filled in.
#[derive(Clone, Debug)]
pub struct Placed {
    pub setting: &'static Setting,
    /// The canonical name, cut into segments, with the map keys as written.
    pub path: Path,
    /// The list index, as written.
    pub index: Option<String>,
}

impl Placed {
    /// Returns `true` if it is at `path` or below.
    pub fn is_below(&self, path: &[&str]) -> bool {
        look();
        let start = self.path.get(..path.len());
        start.is_some_and(|start| start == path)
    }

    /// Returns the canonical name.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}
