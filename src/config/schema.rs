//! The table of settings: what we own, what we recognise, and everything else.

use std::borrow::Cow;
use std::sync::LazyLock;

mod rows;

pub use rows::{DEPLOYMENTS, Fallback, Placed, Setting, Takes, filled};

use self::rows::{CLIENT, SERVER, STRICT};
use super::question::ModuleKind;
use crate::properties::name::{Known as Keys, Name, Pattern, Variable, distance_up_to, uniform};

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
    if let Some(meant) = meant(name) {
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

/// The gRPC port of a module.
pub const GRPC_PORT: &str = "ataccama.server.grpc.port";

/// Returns the gRPC port of a module of this `kind` whose file names none.
pub fn default_grpc_port(kind: &ModuleKind) -> Option<u16> {
    let port = settings().find(|setting| setting.name == GRPC_PORT)?;
    port.fallback.of(Some(kind))?.parse().ok()
}

/// Finds the setting that `name` is a spelling of; names below an open family are not settings.
pub fn exact(name: &Name<'_>) -> Option<Placed> {
    let mut whole = settings().filter(|setting| !setting.open);
    whole.find_map(|setting| match setting.pattern.more_in(name) {
        Some(0 | 1) => setting.placed(&setting.pattern.matches(name)?),
        _ => None,
    })
}

/// One end of a connection, whose TLS is set by properties of its own.
///
/// Each property (`enabled`, `mtls`, `cert-chain`, `private-key`, `trust-cert-collection`) is taken
/// from the first of its places that sets it to something; `on` is another spelling of `enabled`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsEnd<'a> {
    /// The module's own server.
    Server,
    /// The client of the connection with this name: the module type of the peer, such as `dpm`.
    Client(&'a str),
}

impl<'a> TlsEnd<'a> {
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Server => SERVER,
            Self::Client(_) => CLIENT,
        }
    }

    /// Returns the map key of its settings: the name of the connection, if it is a client.
    pub fn key(self) -> &'a str {
        match self {
            Self::Server => "",
            Self::Client(connection) => connection,
        }
    }

    /// Returns the settings that may hold `property`, as the table of settings has them, the most
    /// specific first.
    pub fn settings(self, property: &str) -> impl Iterator<Item = String> {
        let prefixes = self.prefixes().iter();
        prefixes.map(move |prefix| format!("{prefix}.{property}"))
    }

    /// Returns the most specific setting for `property`, to be written if nothing is set.
    pub fn setting(self, property: &str) -> String {
        format!("{}.{property}", self.start())
    }

    /// Returns the common start of the most specific settings.
    pub fn start(self) -> String {
        let first = self.prefixes().first().copied().unwrap_or_default();
        first.replace("<c>", self.key())
    }
}

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
