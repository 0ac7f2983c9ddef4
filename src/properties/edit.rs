//! Changing a `.properties` text and leaving everything else in it as it stands.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use zeroize::Zeroizing;

use super::name::Name;
use super::parse::{Entry, Parsed, Separator, Span, Start, parse};
use crate::secret::Secret;

/// Settings to write into a text.
///
/// A setting that is there, in whatever spelling, keeps its line and gets the new value; where it
/// is there twice, the last one, which counts. One that is not there is appended, in the order
/// given. One that is removed loses its lines, all of them where it is there more than once;
/// comments stay. Every other line stays byte for byte as it is. Applying the same edit again
/// changes nothing.
///
/// Of a text with several documents, all count, and new settings go to its end, unless the edit is
/// [limited](Self::within) to some.
///
/// ```
/// use countersign::internals::Edit;
///
/// let mut edit = Edit::new();
/// edit.set("server.port", "8034");
/// let text = "# DPE\r\nserver.port = 8031\r\n";
///
/// let edited = edit.apply(text).expect("the port changes");
/// assert_eq!(edited.text(), "# DPE\r\nserver.port = 8034\r\n");
/// assert!(edit.apply(edited.text()).is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Edit {
    heading: Option<String>,
    /// The documents that count, if not all do, and the one for new settings, if there is one.
    documents: Option<(BTreeSet<usize>, Option<usize>)>,
    /// None for what is to be removed.
    settings: Vec<(String, Option<Secret<String>>)>,
}

/// A text after an [`Edit`]. `Debug` does not show it: it may hold a private key.
#[derive(Debug)]
pub struct Edited {
    text: Secret<String>,
    /// The settings that changed, in the order of the edit, and what became of them.
    pub changes: Vec<(String, ChangeKind)>,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It was there with another value.
    Replaced,
    /// It was there, and is there no more.
    Removed,
}

impl Edited {
    /// Returns the new text.
    pub fn text(&self) -> &str {
        self.text.expose()
    }
}

impl Edit {
    /// Starts with nothing to change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the comment `# heading` above what is appended, if the text has no such comment yet.
    pub fn heading(&mut self, heading: &str) -> &mut Self {
        self.heading = Some(heading.replace(['\n', '\r'], " "));
        self
    }

    /// Looks at the `documents` only, and puts new settings at the end of `home`, or, without that,
    /// into a new document before all others.
    pub fn within(
        &mut self,
        documents: impl IntoIterator<Item = usize>,
        home: Option<usize>,
    ) -> &mut Self {
        self.documents = Some((documents.into_iter().collect(), home));
        self
    }

    /// Gives the setting `key` the value `value`; a value given before for it is forgotten.
    #[cfg(any(test, feature = "testing"))]
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.give(key, Some(value.to_owned().into()))
    }

    /// Removes the setting `key`; a value given before for it is forgotten.
    #[cfg(any(test, feature = "testing"))]
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.give(key, None)
    }

    /// Gives the setting `key` the value `value`, or removes it. The last call for a key counts.
    pub fn give(&mut self, key: &str, value: Option<Secret<String>>) -> &mut Self {
        let name = Name::parse(key);
        self.settings
            .retain(|(other, _)| Name::parse(other) != name);
        self.settings.push((key.to_owned(), value));
        self
    }

    /// Applies the edit to `text`; `None` if every setting is there with its value.
    pub fn apply(&self, text: &str) -> Option<Edited> {
        let mut parsed = Parsed::default();
        parse(text, 0, &mut parsed);
        let (entries, documents) = (parsed.entries, parsed.documents);
        let mut replaced: Vec<(Span, Zeroizing<String>)> = Vec::new();
        let mut added: Vec<(&str, &str)> = Vec::new();
        let mut changes = Vec::new();
        for (key, value) in &self.settings {
            let name = Name::parse(key);
            let named = entries
                .iter()
                .filter(|entry| Name::parse(entry.key()) == name);
            let there: Vec<_> = named
                .filter(|entry| self.looks_at(entry, &documents))
                .collect();
            // The last one counts.
            let kind = match (there.last(), value) {
                (None, None) => continue,
                (Some(_), None) => {
                    let lines = there.iter().map(|entry| entry.line_span);
                    replaced.extend(lines.map(|line| (line, Zeroizing::default())));
                    ChangeKind::Removed
                }
                (Some(entry), Some(value)) if entry.value() == value.expose() => continue,
                (Some(entry), Some(value)) => {
                    replaced.push(replacement(entry, value.expose()));
                    ChangeKind::Replaced
                }
                (None, Some(value)) => {
                    added.push((key, value.expose()));
                    ChangeKind::Added
                }
            };
            changes.push((key.clone(), kind));
        }
        if changes.is_empty() {
            return None;
        }
        let place = self.place(&entries, &documents, &parsed.separators);
        if let Some((at, separator)) = place.filter(|_| !added.is_empty()) {
            let mut above = Zeroizing::new(text.get(..at).unwrap_or_default().to_owned());
            self.append(&mut above, &added, line_end(text));
            above.push_str(separator);
            let new = above.get(at..).unwrap_or_default().to_owned();
            // Before what is removed there.
            replaced.insert(0, (Span::new(at, at), new.into()));
            added.clear();
        }
        let mut edited = replace(text, replaced);
        self.append(&mut edited, &added, line_end(text));
        Some(Edited {
            text: std::mem::take(&mut *edited).into(),
            changes,
        })
    }

    fn looks_at(&self, entry: &Entry, documents: &[Start]) -> bool {
        let begun = documents.partition_point(|one| one.text <= entry.line_span.start);
        let looked_at = self.documents.as_ref().map(|(looked_at, _)| looked_at);
        looked_at.is_none_or(|all| all.contains(&begun.saturating_sub(1)))
    }

    /// Returns where new settings go, and what follows them; `None` for the end of the text.
    fn place(
        &self,
        entries: &[Entry],
        documents: &[Start],
        separators: &[Separator],
    ) -> Option<(usize, &'static str)> {
        let (_, home) = self.documents.as_ref()?;
        let Some(home) = home else {
            // Between two settings the line is no comment.
            return Some((entries.first()?.line_span.start, "#---\n"));
        };
        let next = documents.get(home.saturating_add(1))?;
        let mut lines = separators.iter().map(|one| one.line_span);
        let line = lines.find(|line| line.end == next.text)?;
        Some((line.start, ""))
    }

    fn append(&self, text: &mut String, added: &[(&str, &str)], line_end: &str) {
        if added.is_empty() {
            return;
        }
        if !text.is_empty() {
            close_last_line(text, line_end);
        }
        let heading = self
            .heading
            .as_deref()
            .map(|heading| format!("# {heading}{line_end}"));
        if let Some(heading) = heading.filter(|heading| !text.contains(heading)) {
            if !text.is_empty() {
                text.push_str(line_end);
            }
            text.push_str(&heading);
        }
        for (key, value) in added {
            text.push_str(&escape_all(key, |_, c| {
                matches!(c, ' ' | '=' | ':' | '#' | '!')
            }));
            text.push('=');
            text.push_str(&escape_value(value));
            text.push_str(line_end);
        }
    }
}

/// What to put where, so that `entry` has `value`.
fn replacement(entry: &Entry, value: &str) -> (Span, Zeroizing<String>) {
    let mut new = escape_value(value);
    let span = entry.value_span;
    if entry.key_span.end == span.start {
        new.insert(0, '=');
    }
    (span, new)
}

/// Puts each of the texts `replaced` in the place of its part of `text`.
pub fn replace(text: &str, mut replaced: Vec<(Span, Zeroizing<String>)>) -> Zeroizing<String> {
    replaced.sort_by_key(|(span, _)| span.start);
    let added: usize = replaced.iter().map(|(_, new)| new.len()).sum();
    let mut edited = Zeroizing::new(String::with_capacity(text.len().saturating_add(added)));
    let mut at = 0;
    for (span, new) in replaced {
        edited.push_str(text.get(at..span.start).unwrap_or_default());
        edited.push_str(&new);
        at = span.end;
    }
    edited.push_str(text.get(at..).unwrap_or_default());
    edited
}

/// Returns the line end that this text uses.
fn line_end(text: &str) -> &'static str {
    let first = text.find(['\n', '\r']).and_then(|at| text.get(at..));
    let mut ends = ["\r\n", "\r"].into_iter();
    let rest = first.unwrap_or_default();
    ends.find(|end| rest.starts_with(end)).unwrap_or("\n")
}

/// Ends the last line, so that an appended one is a line of its own.
fn close_last_line(text: &mut String, line_end: &str) {
    let body = text.trim_end_matches(['\n', '\r']);
    let backslashes = body.chars().rev().take_while(|c| *c == '\\').count();
    // Such a backslash swallows a line end, so that one more is needed.
    let dangles = backslashes % 2 == 1;
    let is_open = body.len() == text.len();
    // The two would be one line end.
    let joins = !is_open && text.ends_with('\r') && line_end == "\n";
    let needed = usize::from(is_open || dangles) + usize::from(dangles && (is_open || joins));
    text.push_str(&line_end.repeat(needed));
}

/// A blank at the start would be taken for the one before a value. Where only a blank separates key
/// and value, `=` and `:` at the start would be separators.
fn escape_value(value: &str) -> Zeroizing<String> {
    escape_all(value, |at, character| {
        at == 0 && matches!(character, ' ' | '=' | ':')
    })
}

/// Puts a backslash before every backslash and every character that `is_special` names by its
/// position.
fn escape_all(text: &str, is_special: fn(usize, char) -> bool) -> Zeroizing<String> {
    let mut escaped = Zeroizing::new(String::with_capacity(text.len().saturating_mul(2)));
    for (at, character) in text.char_indices() {
        if character == '\\' || is_special(at, character) {
            escaped.push('\\');
        }
        push_escaped(&mut escaped, character);
    }
    escaped
}

fn push_escaped(text: &mut String, character: char) {
    match character {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\u{c}' => text.push_str("\\f"),
        ' '..='~' => text.push(character),
        other => text.push_str(&escape(other)),
    }
}

/// Writes `character` as Java's `\uXXXX`, in two halves where needed: read alike as UTF-8 and
/// ISO-8859-1.
pub(super) fn escape(character: char) -> String {
    let mut escaped = String::new();
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(escaped, "\\u{unit:04x}");
    }
    escaped
}
