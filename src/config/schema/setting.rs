//! What the table of settings says about one setting.

use std::time::Duration;

use crate::properties::bind::TimeUnit;

/// One setting: its name, what it takes, and its default.
#[derive(Clone, Debug)]
pub struct Setting {
    name: String,
    takes: Takes,
    fallback: Fallback,
    same_as: Option<String>,
    why_unused: &'static str,
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

/// Names under which an unknown one is an error.
pub(in crate::config) const STRICT: [&str; 3] = [
    "ataccama.one.platform.deployments",
    "ataccama.authentication.internal.jwt",
    "countersign",
];

impl Setting {
    pub(super) fn new(name: String, takes: Takes, fallback: Fallback) -> Self {
        Self {
            name,
            takes,
            fallback,
            same_as: None,
            why_unused: "",
        }
    }

    pub(super) fn same_as(mut self, name: &str) -> Self {
        self.same_as = Some(name.to_owned());
        self
    }

    pub(super) fn unused_because(mut self, why: &'static str) -> Self {
        self.why_unused = why;
        self
    }

    /// Returns the name, with map keys in angle brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it takes.
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// Returns its default.
    pub fn fallback(&self) -> Fallback {
        self.fallback
    }

    /// Returns why it has no effect here; empty if it has one.
    pub fn why_unused(&self) -> &'static str {
        self.why_unused
    }

    /// Returns `true` if it has an effect here.
    pub fn is_used(&self) -> bool {
        !matches!(self.takes, Takes::Unused)
    }

    /// Returns `true` if its value is a private key.
    pub fn is_private(&self) -> bool {
        matches!(self.takes, Takes::PrivateKey)
    }

    /// Returns `true` if it decides who is trusted with what, or who can reach it: a duplicate is an
    /// error then.
    pub fn decides_trust(&self) -> bool {
        let parts = [".internal.jwt.", ".tls."];
        let is_part = parts.iter().any(|part| self.name.contains(part));
        let is_strict = STRICT.iter().any(|prefix| self.name.starts_with(prefix));
        self.is_used() && (is_part || is_strict || self.name == "server.address")
    }

    /// Returns the name it is kept under: its own, or that of the setting it is a spelling of.
    pub(in crate::config) fn canonical(&self) -> &str {
        self.same_as.as_ref().unwrap_or(&self.name)
    }
}
