//! Typed reads of layered settings. Faults are collected, not returned: one run shows them all.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::diagnostic::{Code, Finding, Origin, quote, redact_name};
use crate::properties::bind::{self, ValueError};
use crate::properties::name::{Name, variable_for};
use crate::properties::placeholder::{self, Looked, PlaceholderError};
use crate::properties::{Content, Layered, Sourced};

use super::question::Question;
use super::schema::{self, Fallback, Known, Placed, Setting, Takes};
use super::view::{Limited, Part, View, finding};

/// Where placeholders find their values, and where values find their types.
pub(super) struct Reader<'a> {
    layered: &'a Layered,
    view: &'a View,
    pub(super) question: &'a Question<'a>,
    ours: &'a [(usize, Placed)],
    by_name: OnceCell<HashMap<String, usize>>,
    /// What was reported of values, and where: each once, however often a value is read.
    reported: HashSet<(String, Origin)>,
    first_below: OnceCell<HashMap<&'a [Cow<'static, str>], usize>>,
    pub(super) findings: Limited,
}

impl<'a> Reader<'a> {
    /// Reads `layered`; `ours` are the entries of `view` that are settings of ours.
    pub(super) fn new(
        layered: &'a Layered,
        view: &'a View,
        ours: &'a [(usize, Placed)],
        question: &'a Question<'a>,
    ) -> Self {
        Self {
            layered,
            view,
            question,
            ours,
            by_name: OnceCell::new(),
            reported: HashSet::new(),
            first_below: OnceCell::new(),
            findings: Limited::default(),
        }
    }

    pub(super) fn view(&self) -> &'a View {
        self.view
    }

    /// Returns the names below `path`, in the file's order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        self.names_at(&schema::path(path, &[]))
    }

    /// Returns the names below `path`, cut into its segments.
    pub(super) fn names_at(&self, path: &[&str]) -> Vec<String> {
        let names = self.layered.names(path).into_iter();
        names.map(str::to_owned).collect()
    }

    /// Returns the value as written, blanks and placeholders included.
    pub(super) fn raw(&self, name: &str, keys: &[String]) -> Option<&'a Sourced> {
        self.layered.value(&schema::path(name, keys))
    }

    /// Returns the value at a place, as written.
    pub(super) fn value_at(&self, path: &[&str]) -> Option<&'a Sourced> {
        self.layered.value(path)
    }

    /// Returns `true` if it is set by the file, the environment or `--set`.
    pub(super) fn is_set(&self, name: &str, keys: &[String]) -> bool {
        self.raw(name, keys)
            .is_some_and(|value| *value.origin() != Origin::Default)
    }

    /// Returns the value with placeholders resolved and blanks around it dropped.
    pub(super) fn text(&mut self, name: &str, keys: &[String]) -> Option<Sourced> {
        let path = schema::path(name, keys);
        let value = self.layered.value(&path)?;
        self.resolved(value, || path.join("."))
    }

    /// Resolves the placeholders of a `value`, whose setting is called `name`.
    fn resolved(&mut self, value: &Sourced, name: impl FnOnce() -> String) -> Option<Sourced> {
        if !placeholder::has_placeholder(value.text()) {
            let trimmed = value.text().trim();
            return Some(if trimmed.len() == value.text().len() {
                value.clone()
            } else {
                value.clone().with_text(trimmed.to_owned().into())
            });
        }
        match placeholder::resolve(value.text(), &|name| self.look_up(name)) {
            Ok(text) => Some(value.clone().with_text(text.trim().to_owned().into())),
            Err(error) => {
                self.cannot_resolve(name(), value, &error);
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
        self.report_once(value, found.with_key(name).with_help(help));
    }

    fn report_once(&mut self, value: &Sourced, found: Finding) {
        let report = (found.message().to_owned(), value.origin().clone());
        if self.reported.insert(report) {
            self.push(found);
        }
    }

    /// Finds what a name in a placeholder stands for: a setting, any name of the file, a variable,
    /// one of the folders.
    fn look_up(&self, name: &str) -> Option<Looked> {
        let parsed = Name::parse(name);
        if let Known::Setting(placed) = schema::find(&parsed)
            && placed.setting.is_used()
        {
            if placed.setting.is_private() {
                return Some(Looked::Private);
            }
            if let Some(value) = self.layered.value(&placed.path) {
                return Some(Looked::Text(value.text().to_owned()));
            }
        }
        let variable = variable_for(name);
        let named = |(other, _): &&(String, String)| other == name || *other == variable;
        if let Some((_, value)) = self.question.environment.iter().find(named) {
            return Some(Looked::Text(value.clone()));
        }
        if let Some(entry) = self.named_entry(&parsed) {
            return Some(entry);
        }
        self.folder(name)
    }

    fn named_entry(&self, name: &Name<'_>) -> Option<Looked> {
        let view = self.view;
        let by_name = self.by_name.get_or_init(|| {
            let entries = view.entries().iter().enumerate();
            entries
                .map(|(at, entry)| (Name::parse(entry.key()).uniform(), at))
                .collect()
        });
        let entry = view.entry(*by_name.get(&name.uniform())?)?;
        if view.hides(entry.value_span().start) {
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
        let path = self.question.home?.join(folder);
        Some(Looked::Text(
            path.to_str()?.trim_end_matches('/').to_owned(),
        ))
    }

    /// Returns the value of a switch; one without a default is off.
    pub(super) fn switch(&mut self, name: &str, keys: &[String]) -> bool {
        self.typed(name, keys, bind::switch).unwrap_or_default()
    }

    pub(super) fn integer<T: TryFrom<u64> + Default>(&mut self, name: &str) -> T {
        self.number(name, &[]).unwrap_or_default()
    }

    pub(super) fn port(&mut self, name: &str, keys: &[String]) -> Option<u16> {
        self.number(name, keys)
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str, keys: &[String]) -> Option<T> {
        let Some(Takes::Integer(least, most)) = takes(name) else {
            return None;
        };
        let number = self.typed(name, keys, |text| bind::integer(text, least, most))?;
        T::try_from(number).ok()
    }

    pub(super) fn time(&mut self, name: &str) -> Duration {
        let Some(Takes::Time(unit, least, most)) = takes(name) else {
            return Duration::ZERO;
        };
        self.typed(name, &[], |text| bind::duration(text, unit, least, most))
            .unwrap_or_default()
    }

    pub(super) fn size(&mut self, name: &str) -> usize {
        let size = self.typed(name, &[], |text| bind::size(text, 1, u64::from(u32::MAX)));
        usize::try_from(size.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    pub(super) fn word<T: Copy + Default>(&mut self, name: &str, words: &[(&str, T)]) -> T {
        let word = self.typed(name, &[], |text| bind::choice(text, words));
        word.unwrap_or_default()
    }

    /// Returns the elements of a list, placeholders resolved, blanks dropped.
    pub(super) fn list(&mut self, name: &str, keys: &[String]) -> Vec<Sourced> {
        let path = schema::path(name, keys);
        let elements = self.layered.list(&path).unwrap_or_default();
        elements
            .iter()
            .filter_map(|element| self.resolved(element, || path.join(".")))
            .collect()
    }

    /// Resolves the placeholders of settings that are not read, and finds copies of a private key
    /// under any other name: in the entries `foreign`.
    pub(super) fn rest(&mut self, foreign: impl Iterator<Item = usize>) {
        let contents = self.layered.contents();
        let mut values = contents.flat_map(|(_, content)| content.values());
        // Most files have none at all.
        let any = values.any(|value| placeholder::has_placeholder(value.text()));
        let ours = self.ours.iter().map(|(_, placed)| placed);
        for placed in ours.filter(|placed| any && !placed.setting.is_private()) {
            let content = self.layered.content(&placed.path);
            for value in content.map(Content::values).unwrap_or_default() {
                self.resolved(value, || placed.name());
            }
        }
        for at in foreign {
            let Some(entry) = self.view.entry(at) else {
                continue;
            };
            // A copy of a copy is found at the first of the two.
            let names = placeholder::names(entry.value());
            let mut private =
                names.filter(|name| matches!(self.look_up(name), Some(Looked::Private)));
            if let Some(name) = private.next() {
                let error = PlaceholderError::PrivateKey(name.to_owned());
                let origin = self.view.document().origin(entry.value_span().start);
                let value = Sourced::new(entry.value(), origin).with_entry(at);
                self.cannot_resolve(redact_name(entry.key()), &value, &error);
            }
        }
    }

    /// Returns a text with its placeholders resolved if that can be done.
    pub(super) fn resolve(&self, text: &str) -> String {
        let resolved = placeholder::resolve(text, &|name| self.look_up(name));
        resolved.map_or_else(|_error| text.to_owned(), |resolved| resolved.to_string())
    }

    /// Reads a value. Without a valid one, the default of the table of settings applies, if there
    /// is one for every module.
    fn typed<T>(
        &mut self,
        name: &str,
        keys: &[String],
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        if let Some(value) = self.text(name, keys) {
            match read(value.text()) {
                Ok(read) => return Some(read),
                Err(error) => self.wrong(name, keys, &value, &error.to_string()),
            }
        }
        // Settings of a map have no default of their own here, and there may be thousands.
        if !keys.is_empty() {
            return None;
        }
        match setting(name)?.fallback() {
            Fallback::Text(text) => read(text).ok(),
            _ => None,
        }
    }

    /// Reports that a value is not what its setting takes; `why` goes on from the value.
    pub(super) fn wrong(&mut self, name: &str, keys: &[String], value: &Sourced, why: &str) {
        let setting = schema::path(name, keys).join(".");
        let message = format!("the value {} of `{setting}` {why}", quote(value.text()));
        let found = self.finding(Code::Cs0306, value, message);
        let found = found.with_key(setting).with_help(advice(name, value));
        self.report_once(value, found);
    }

    /// Reads a value with `parse`, whose error goes on from the value; reports what is wrong.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        keys: &[String],
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<(T, Sourced)> {
        let value = self.text(name, keys)?;
        match parse(value.text()) {
            Ok(parsed) => Some((parsed, value)),
            Err(why) => {
                self.wrong(name, keys, &value, &why);
                None
            }
        }
    }

    /// Starts a finding about a value and its setting.
    pub(super) fn finding(
        &self,
        code: Code,
        value: &Sourced,
        message: impl Into<String>,
    ) -> Finding {
        finding(self.view, code, value, Part::Value, message)
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports `message` about a value and its setting; `help` says how to fix it.
    pub(super) fn report(
        &mut self,
        code: Code,
        value: &Sourced,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let found = self.finding(code, value, message);
        self.findings.push(found.with_help(help));
    }

    /// Reports `message` about all that is below `path`, at the name that is written first.
    pub(super) fn report_below(
        &mut self,
        code: Code,
        path: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let at = self.first_below(path);
        let found = finding(self.view, code, &at, Part::Name, message);
        self.findings.push(found.with_help(help));
    }

    /// Returns `true` if an offset in the value is one in the file: no placeholder changed it.
    pub(super) fn stands_as_written(&self, value: &Sourced) -> bool {
        let entry = value.entry().and_then(|at| self.view.entry(at));
        entry.is_some_and(|entry| entry.value().starts_with(value.text()))
    }

    /// Returns the column of byte `offset` of the value, where it is from a file.
    pub(super) fn column(&self, value: &Sourced, offset: usize) -> String {
        let found = finding(self.view, Code::Cs0201, value, Part::Offset(offset), "");
        match found.origin() {
            Origin::File { column, .. } => column.to_string(),
            other => other.to_string(),
        }
    }

    /// Returns the place where anything below `path` is set first.
    pub(super) fn first_below(&self, path: &[&str]) -> Sourced {
        let first_below = self.first_below.get_or_init(|| first_below(self.ours));
        let path = path.iter().map(|segment| Cow::Owned((*segment).to_owned()));
        let path: crate::properties::Path = path.collect();
        let place = first_below.get(&*path).and_then(|at| {
            let span = self.view.entry(*at)?.key_span();
            let origin = self.view.document().origin(span.start);
            Some(Sourced::new("", origin).with_entry(*at))
        });
        let place = place.unwrap_or_else(|| Sourced::new("", Origin::SetOption));
        place.of(&path)
    }
}

/// Finds the first entry below each path: a file may have as many faults as it has entries.
fn first_below(entries: &[(usize, Placed)]) -> HashMap<&[Cow<'static, str>], usize> {
    let mut first = HashMap::new();
    for (at, placed) in entries {
        for length in 1..=placed.path.len() {
            if let Some(above) = placed.path.get(..length) {
                first.entry(above).or_insert(*at);
            }
        }
    }
    first
}

fn setting(name: &str) -> Option<&'static Setting> {
    schema::settings().find(|setting| setting.name() == name)
}

fn takes(name: &str) -> Option<Takes> {
    setting(name).map(Setting::takes)
}

/// Says what to write instead.
fn advice(name: &str, value: &Sourced) -> String {
    if value.text().contains(" #") || value.text().contains("\t#") {
        return "a comment needs a line of its own: everything after `=` is the value".to_owned();
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
