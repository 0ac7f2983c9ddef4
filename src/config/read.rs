//! Typed reads of layered settings. Faults are collected, not returned: one run shows them all.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Code, Finding, Origin, quote, redact_name};
use crate::properties::bind::{self, Looked, PlaceholderError};
use crate::properties::name::Name;
use crate::properties::{Layered, Sourced};
use crate::storage::revoked_keys::Remembered;

use super::question::Question;
use super::schema::{self, Fallback, Placed, Setting, Takes};
use super::view::{Limited, Part, View};

/// Where placeholders find their values, and where values find their types.
///
/// A setting is named as in the table of settings; `keys` are its map keys.
pub struct Reader<'a> {
    pub layered: &'a Layered,
    pub view: &'a View,
    pub question: &'a Question,
    /// The keys that the home remembers as revoked.
    pub remembered: &'a Remembered,
    /// The entries of `view` that are settings of ours.
    pub ours: &'a [(usize, Placed)],
    /// The settings whose values are reported and not read.
    pub broken: &'a [Placed],
    /// The active documents, the lowest first.
    pub order: &'a [usize],
    pub by_name: OnceCell<HashMap<String, usize>>,
    pub findings: Limited,
}

impl<'a> Reader<'a> {
    /// Returns the names below `path`, in the file's order.
    pub fn names(&self, path: &str, keys: &[&str]) -> Vec<&'a str> {
        self.layered.names(&schema::path(path, keys))
    }

    /// Returns the value as written, blanks and placeholders included.
    pub fn raw(&self, name: &str, keys: &[&str]) -> Option<&'a Sourced> {
        self.layered.value(&schema::path(name, keys))
    }

    /// Returns `true` if it is set by the file, the environment or `--set`.
    pub fn is_set(&self, name: &str, keys: &[&str]) -> bool {
        self.raw(name, keys)
            .is_some_and(|value| *value.origin() != Origin::Default)
    }

    /// Returns the value with placeholders resolved and blanks around it dropped.
    pub fn text(&mut self, name: &str, keys: &[&str]) -> Option<Sourced> {
        self.resolved(self.raw(name, keys)?)
    }

    fn resolved(&mut self, value: &Sourced) -> Option<Sourced> {
        if !bind::has_placeholder(value.text()) {
            let trimmed = value.text().trim();
            return Some(if trimmed.len() == value.text().len() {
                value.clone()
            } else {
                value.clone().with_text(trimmed.to_owned().into())
            });
        }
        match bind::resolve(value.text(), &|name| self.look_up(name)) {
            Ok(text) => Some(value.clone().with_text(text.trim().to_owned().into())),
            Err(error) => {
                self.cannot_resolve(value.setting().unwrap_or_default(), value, &error);
                None
            }
        }
    }

    fn cannot_resolve(&mut self, name: String, value: &Sourced, error: &PlaceholderError) {
        let help = match error {
            PlaceholderError::Unresolved(_) => {
                "set that name, or give a default: `${name:default}`"
            }
            PlaceholderError::PrivateKey(_) => "write the public part of the key instead",
            _ => "write the value itself",
        };
        let message = format!("the placeholder in `{name}` cannot be resolved: {error}");
        let found = self.finding(Code::Cs0111, value, message);
        self.push(found.with_key(name).with_help(help));
    }

    /// Finds what a name in a placeholder stands for: a setting, any name of the file, a variable,
    /// one of the folders.
    fn look_up(&self, name: &str) -> Option<Looked> {
        let parsed = Name::parse(name);
        let known = schema::find(&parsed);
        if known.is_private() {
            return Some(Looked::Private);
        }
        let value = known.used().and_then(|of| self.layered.value(&of.path));
        let text = value.map(Sourced::text);
        if let Some(text) = text.or_else(|| self.question.variable(name)) {
            return Some(Looked::Text(text.to_owned()));
        }
        self.named_entry(&parsed).or_else(|| self.folder(name))
    }

    fn named_entry(&self, name: &Name<'_>) -> Option<Looked> {
        let by_name = self
            .by_name
            .get_or_init(|| self.view.document.last_of_names(self.order.iter().copied()));
        let entry = self.view.entry(*by_name.get(&name.uniform())?)?;
        if self.view.hides(entry.value_span.start) {
            return Some(Looked::Private);
        }
        Some(Looked::Text(entry.value().to_owned()))
    }

    fn folder(&self, name: &str) -> Option<Looked> {
        let folder = match name {
            "ataccama.path.root" => "",
            "ataccama.path.etc" => "etc",
            "ataccama.path.log" => "log",
            "ataccama.path.storage" => "storage",
            _ => return None,
        };
        let path = self.question.home.as_ref()?.join(folder);
        let text = path.to_str()?.trim_end_matches('/');
        Some(Looked::Text(text.to_owned()))
    }

    /// Returns the value of a switch; one without a default is off.
    pub fn switch(&mut self, name: &str, keys: &[&str]) -> bool {
        self.typed(name, keys, bind::switch).unwrap_or_default()
    }

    pub fn number<T: TryFrom<u64>>(&mut self, name: &str, keys: &[&str]) -> Option<T> {
        let Some(Takes::Integer(least, most)) = takes(name) else {
            return None;
        };
        let number = self.typed(name, keys, |text| bind::integer(text, least, most))?;
        T::try_from(number).ok()
    }

    pub fn time(&mut self, name: &str) -> Duration {
        let Some(Takes::Time(unit, least, most)) = takes(name) else {
            return Duration::ZERO;
        };
        self.typed(name, &[], |text| bind::duration(text, unit, least, most))
            .unwrap_or_default()
    }

    pub fn size(&mut self, name: &str) -> usize {
        let size = self.typed(name, &[], |text| bind::size(text, 1, u64::from(u32::MAX)));
        usize::try_from(size.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    /// Returns which of `values` the value is, which are in the order of the setting's words.
    pub fn word<T: Copy, const N: usize>(
        &mut self,
        name: &str,
        keys: &[&str],
        values: [T; N],
    ) -> Option<T> {
        let Some(Takes::Words(words)) = takes(name) else {
            return None;
        };
        debug_assert_eq!(words.len(), N, "a value for each word of `{name}`");
        let choices: Vec<_> = words.iter().copied().zip(values).collect();
        self.typed(name, keys, |text| bind::choice(text, &choices))
    }

    /// Returns the elements of a list, placeholders resolved, blanks dropped.
    pub fn list(&mut self, name: &str, keys: &[&str]) -> Vec<Sourced> {
        let elements = self.layered.values(&schema::path(name, keys)).iter();
        elements
            .filter_map(|element| self.resolved(element))
            .collect()
    }

    /// Resolves the placeholders of settings that are not read, and finds copies of a private key
    /// under any other name: in the entries `foreign`.
    pub fn rest(&mut self, foreign: &[usize]) {
        let contents = self.layered.contents();
        let mut values = contents.flat_map(|(_, content)| content.values());
        // Most files have none at all.
        let any = values.any(|value| bind::has_placeholder(value.text()));
        let ours = self.ours.iter().map(|(_, placed)| placed);
        // The elements of a list have one path.
        let mut seen = HashSet::new();
        for placed in ours.filter(|placed| any && !placed.setting.is_private()) {
            if !seen.insert(&placed.path) {
                continue;
            }
            // Those of Spring Boot were resolved before it was known what is active.
            if placed.setting.name.starts_with("spring.") {
                continue;
            }
            for value in self.layered.values(&placed.path) {
                self.resolved(value);
            }
        }
        for at in foreign.iter().copied() {
            let Some((entry, value)) = self.view.entry(at).zip(self.view.value(at)) else {
                continue;
            };
            // A copy of a copy is found at the first of the two.
            let mut names = bind::placeholders(entry.value());
            if let Some(name) =
                names.find(|name| matches!(self.look_up(name), Some(Looked::Private)))
            {
                let error = PlaceholderError::PrivateKey(name.to_owned());
                self.cannot_resolve(redact_name(entry.key()), &value, &error);
            }
        }
    }

    /// Returns a text with its placeholders resolved if that can be done.
    pub fn resolve(&self, text: &str) -> String {
        let resolved = bind::resolve(text, &|name| self.look_up(name));
        resolved.map_or_else(|_error| text.to_owned(), |resolved| resolved.to_string())
    }

    /// Reads a value. Without a valid one, the default of the table of settings applies, if there
    /// is one for every module.
    fn typed<T>(
        &mut self,
        name: &str,
        keys: &[&str],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if let Some((read, _)) = self.parsed(name, keys, &read) {
            return Some(read);
        }
        // Settings of a map have no default of their own here, and there may be thousands.
        if !keys.is_empty() {
            return None;
        }
        match setting(name)?.fallback {
            Fallback::Text(text) => read(text).ok(),
            Fallback::None | Fallback::PerModule(..) => None,
        }
    }

    /// Reports that a value is not what its setting takes; `why` goes on from the value.
    pub fn wrong(&mut self, name: &str, value: &Sourced, why: &str) {
        let setting = value.setting().unwrap_or_default();
        let message = format!("the value {} of `{setting}` {why}", quote(value.text()));
        self.report(Code::Cs0306, value, message, advice(name, value));
    }

    /// Reads a value with `parse`, whose error goes on from the value; reports what is wrong.
    pub fn parsed<T, E: Display>(
        &mut self,
        name: &str,
        keys: &[&str],
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<(T, Sourced)> {
        let value = self.text(name, keys)?;
        match parse(value.text()) {
            Ok(parsed) => Some((parsed, value)),
            Err(why) => {
                self.wrong(name, &value, &why.to_string());
                None
            }
        }
    }

    /// Reads a value that is `what`, such as `a role`.
    pub fn named<T, E: Display>(
        &mut self,
        name: &str,
        keys: &[&str],
        what: &str,
        parse: fn(&str) -> Result<T, E>,
    ) -> Option<(T, Sourced)> {
        self.parsed(name, keys, |text| {
            parse(text).map_err(|error| format!("is not {what}: {error}"))
        })
    }

    /// Returns a value that must be there, or reports `what`, which says that it is missing; `hint`
    /// says what to write.
    pub fn required(
        &mut self,
        name: &str,
        keys: &[&str],
        what: String,
        hint: &str,
    ) -> Option<Sourced> {
        // What is wrong with an empty key is said with other faults of keys.
        let may_be_empty = matches!(takes(name), Some(Takes::PublicKey));
        let setting = schema::path(name, keys).join(".");
        let help = format!("add `{setting}=`, {hint}");
        match self.text(name, keys) {
            Some(value) if may_be_empty || !value.text().is_empty() => return Some(value),
            Some(value) => self.report(Code::Cs0301, &value, what, help),
            // A placeholder that cannot be resolved is reported already.
            None if self.is_set(name, keys) => {}
            None => self.report_below(Code::Cs0301, (name, keys), what, help),
        }
        None
    }

    /// Starts a finding about a value and its setting.
    pub fn finding(&self, code: Code, value: &Sourced, message: impl Into<String>) -> Finding {
        self.view.about(code, value, Part::Value, message)
    }

    pub fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports `message` about a value and its setting; `help` says how to fix it.
    pub fn report(
        &mut self,
        code: Code,
        value: &Sourced,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let found = self.finding(code, value, message);
        self.push(found.with_help(help));
    }

    /// Reports `message` about the setting `name`, at the name that is written first below its last
    /// map key.
    pub fn report_below(
        &mut self,
        code: Code,
        (name, keys): (&str, &[&str]),
        message: String,
        help: impl Into<String>,
    ) {
        let (view, ours) = (self.view, self.ours);
        let wanted = schema::path(name, keys);
        let mut broken = self.broken.iter();
        // What has a value that is reported is not missing.
        if !name.ends_with('>') && broken.any(|placed| placed.is_below(&wanted)) {
            return;
        }
        self.findings.add(code, || {
            let place = name.trim_end_matches(|c| c != '>');
            let at = first_below(view, ours, &schema::path(place, keys));
            let found = view.about(code, &at, Part::Name, message);
            found.with_key(wanted.join(".")).with_help(help)
        });
    }

    /// Returns the value of the setting `path`, or else the place where anything below it is set
    /// first.
    pub fn place(&self, path: &[&str]) -> Sourced {
        let here = self.layered.value(path).cloned();
        here.unwrap_or_else(|| first_below(self.view, self.ours, path))
    }

    /// Returns `true` if an offset in the value is one in the file: no placeholder changed it.
    pub fn stands_as_written(&self, value: &Sourced) -> bool {
        let entry = value.entry.and_then(|at| self.view.entry(at));
        entry.is_some_and(|entry| entry.value().starts_with(value.text()))
    }

    /// Returns the column of byte `offset` of the value, if it is from a file.
    pub fn column(&self, value: &Sourced, offset: usize) -> String {
        let span = self.view.span(value, Part::Offset(offset));
        match span.map(|span| self.view.document.origin(span.start)) {
            Some(Origin::File { column, .. }) => column.to_string(),
            _ => value.origin().to_string(),
        }
    }
}

/// Returns the place where anything below `path` is set first.
pub fn first_below(view: &View, ours: &[(usize, Placed)], path: &[&str]) -> Sourced {
    let mut entries = ours.iter();
    let first = entries.find(|(_, placed)| placed.is_below(path));
    let place = first.and_then(|(at, _)| {
        let span = view.entry(*at)?.key_span;
        let origin = view.document.origin(span.start);
        Some(Sourced::of_entry(*at, Arc::default(), origin))
    });
    let setting = path.iter().map(|segment| Cow::Owned((*segment).to_owned()));
    place
        .unwrap_or_else(|| Sourced::new("", Origin::SetOption))
        .of(&setting.collect())
}

fn setting(name: &str) -> Option<&'static Setting> {
    schema::settings().find(|setting| setting.name == name)
}

fn takes(name: &str) -> Option<Takes> {
    setting(name).map(|setting| setting.takes)
}

/// Says what to write instead.
fn advice(name: &str, value: &Sourced) -> String {
    if value.text().contains(" #") || value.text().contains("\t#") {
        return "a comment needs a separate line: everything after `=` is the value".to_owned();
    }
    match takes(name) {
        Some(Takes::Switch) => "write `true` or `false`".to_owned(),
        Some(Takes::Integer(least, most)) => format!("write a number from {least} to {most}"),
        Some(Takes::Time(..)) => "write a duration such as `10s`".to_owned(),
        Some(Takes::Size) => "write a size such as `4MB`".to_owned(),
        Some(Takes::Words(words)) => format!("write one of {}", words.join(", ")),
        _ => "correct the value".to_owned(),
    }
}
