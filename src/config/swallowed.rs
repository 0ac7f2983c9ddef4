//! Settings of ours that are part of another value: behind a backslash at the end of the line before,
//! or behind a word such as `export`.

use std::path::Path;

use crate::diagnostic::{Code, Finding, quote, redact};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, Span};

use super::schema::{self, Claim, Known, Placed};
use super::view::{Limited, View};

/// Reports every entry that has a setting of ours among its later lines, and hides the private
/// keys there.
pub(super) fn check(view: &mut View, known: &[Known], findings: &mut Limited) {
    for (at, known) in known.iter().enumerate() {
        let placed = match known {
            Known::Setting(placed) if placed.setting.is_used() => Some(placed),
            _ => None,
        };
        let Some(entry) = view.entry(at) else {
            continue;
        };
        let lost = lost(view, entry);
        let private = lost.iter().filter_map(|line| line.private);
        for span in private.collect::<Vec<_>>() {
            view.hide(span);
        }
        let Some(entry) = view.entry(at) else {
            continue;
        };
        if findings.is_full(Code::Cs0104) {
            let is_one = !lost.is_empty() || (placed.is_some() && names_ours(entry));
            if is_one {
                findings.one_more(Code::Cs0104);
            }
            continue;
        }
        let found = match (placed, lost.first()) {
            (Some(placed), Some(_)) => by_ours(view, entry, placed),
            (Some(placed), None) if names_ours(entry) => by_ours(view, entry, placed),
            (None, Some(lost)) => by_another(view, entry, lost),
            (_, None) => continue,
        };
        findings.push(found);
    }
}

/// A line with a setting of ours that is none.
struct Lost {
    name: Span,
    /// The rest of the line, where that is a private key.
    private: Option<Span>,
}

/// Finds the settings of ours among the lines of `entry` after its first.
fn lost(view: &View, entry: &Entry) -> Vec<Lost> {
    let document = view.document();
    let span = entry.line_span();
    let text = document.written(span);
    let mut lost = Vec::new();
    if !text.trim_end().contains(['\n', '\r']) {
        return lost;
    }
    let mut start = span.start;
    for line in text.split_inclusive(['\n', '\r']) {
        let end = start.saturating_add(line.len());
        // A line that begins with its backslash does not begin with its name.
        let is_later = start > entry.key_span().start;
        let indent = line.len().saturating_sub(line.trim_start().len());
        if let Some((length, claim)) = claim(line.trim()).filter(|_| is_later) {
            let start = start.saturating_add(indent);
            let name = Span {
                start,
                end: start.saturating_add(length),
            };
            let private = matches!(claim, Claim::Private);
            lost.push(Lost {
                name,
                private: private.then_some(Span {
                    start: name.end,
                    end,
                }),
            });
        }
        start = end;
    }
    lost
}

/// Tells what the name at the start of `line` is to us, and how long it is as written.
fn claim(line: &str) -> Option<(usize, Claim)> {
    /// Longer than any name of ours with two map keys.
    const LONGEST: usize = 1024;
    let mut escaped = false;
    let mut places = line.char_indices();
    let end = places.find(|(_, character)| {
        let ends = !escaped && matches!(character, ' ' | '\t' | '\u{c}' | '=' | ':');
        escaped = *character == '\\' && !escaped;
        ends
    });
    let length = end.map_or(line.len(), |(at, _)| at);
    let written = line.get(..length).filter(|name| name.len() <= LONGEST)?;
    let claim = if written.contains('\\') {
        let document = Document::parse(Path::new(""), written);
        schema::claim(&Name::parse(document.entries().first()?.key()))?
    } else {
        schema::claim(&Name::parse(written))?
    };
    // Without a value it is one of ours only where nothing else can be meant.
    let counts = end.is_some() || matches!(claim, Claim::Private | Claim::Strict);
    counts.then_some((length, claim))
}

/// Reports a name of ours that is read as the value of a word before it: `export name=value`.
pub(super) fn behind_a_word(view: &View, entry: &Entry) -> Option<Finding> {
    let (key, value) = (entry.key_span(), entry.value_span());
    let between = Span {
        start: key.end,
        end: value.start,
    };
    let between = view.document().written(between);
    if between.is_empty() || !between.trim().is_empty() {
        return None;
    }
    let written = view.document().written(value);
    let (length, claim) = claim(written)?;
    let name = written.get(..length)?;
    let message = format!(
        "the name ends at the blank: this sets {}",
        quote(entry.key())
    );
    let end = value.start.saturating_add(length);
    let span = Span { end, ..value };
    let found = Finding::new(Code::Cs0107, view.document().origin(span.start), message)
        .with_key(redact(name))
        .with_help(format!("write {} at the start of its line", quote(name)));
    Some(match claim {
        Claim::Private => found,
        Claim::Strict | Claim::Setting => found.with_snippet(Some(view.snippet(span))),
    })
}

/// Tells whether a name of ours stands anywhere in a value of several lines.
fn names_ours(entry: &Entry) -> bool {
    let ours = ["ataccama.", "countersign."];
    entry.escapes().continued && ours.iter().any(|prefix| entry.value().contains(prefix))
}

fn by_ours(view: &View, entry: &Entry, placed: &Placed) -> Finding {
    let name = placed.name();
    let message = format!("a backslash at the end of its line made the next line part of `{name}`");
    view.finding(Code::Cs0104, entry.value_span(), message)
        .with_key(name)
        .with_help("remove the backslash")
}

fn by_another(view: &View, entry: &Entry, lost: &Lost) -> Finding {
    let written = view.document().written(entry.key_span());
    let first_line = written.split(['\n', '\r']).next().unwrap_or_default();
    let message = format!(
        "this setting is lost: a backslash at the end of the line before makes it a part of {}",
        quote(first_line.trim_end_matches('\\'))
    );
    view.finding(Code::Cs0104, lost.name, message)
        .with_key(redact(view.document().written(lost.name)))
        .with_label("no line of its own")
        .with_help("remove the backslash at the end of the line before, or double it")
}
