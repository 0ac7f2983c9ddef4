//! Settings that are lost in the value of another: after a backslash at the end of the line before,
//! or after a word such as `export`.

use std::path::Path;

use crate::config::schema::{self, Claim, Known, Placed};
use crate::config::view::{Limited, View};
use crate::diagnostic::{Code, Finding, quote, redact};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, Span};

/// Reports every entry that has a setting of ours among its later lines, and hides the private
/// keys there.
pub(in crate::config) fn check(view: &mut View, known: &[Known], findings: &mut Limited) {
    let entries = view.entries().iter();
    let lost: Vec<_> = entries.map(|entry| lost(view.document(), entry)).collect();
    for span in lost.iter().flatten().filter_map(|line| line.private) {
        view.hide(span);
    }
    for ((entry, known), lost) in view.entries().iter().zip(known).zip(&lost) {
        let placed = match known {
            Known::Setting(placed) if placed.setting.is_used() => Some(placed),
            _ => None,
        };
        match (placed, lost.first()) {
            (Some(placed), first) if first.is_some() || names_ours(entry) => {
                findings.add(Code::Cs0104, || by_ours(view, entry, placed));
            }
            (None, Some(lost)) => findings.add(Code::Cs0104, || by_another(view, entry, lost)),
            _ => {}
        }
    }
}

/// A line with a setting of ours that is read as part of a value.
struct Lost {
    name: Span,
    /// The rest of the line, if that is a private key.
    private: Option<Span>,
}

/// Finds the settings of ours among the lines of `entry` after its first.
fn lost(document: &Document, entry: &Entry) -> Vec<Lost> {
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
        if let Some((length, claim)) = claim(line.trim()).filter(|_| is_later) {
            let name_start = end.saturating_sub(line.trim_start().len());
            let name_end = name_start.saturating_add(length);
            let value = Span {
                start: name_end,
                end,
            };
            lost.push(Lost {
                name: Span {
                    start: name_start,
                    end: name_end,
                },
                private: matches!(claim, Claim::Private).then_some(value),
            });
        }
        start = end;
    }
    lost
}

/// Returns what the name at the start of `line` is to us, and how long it is as written.
fn claim(line: &str) -> Option<(usize, Claim)> {
    /// Longer than any name of ours with two map keys.
    const LONGEST: usize = 1024;
    let mut escaped = false;
    let end = line.find(|character| {
        let ends = !escaped && matches!(character, ' ' | '\t' | '\u{c}' | '=' | ':');
        escaped = character == '\\' && !escaped;
        ends
    });
    let length = end.unwrap_or(line.len());
    let written = line.get(..length).filter(|name| name.len() <= LONGEST)?;
    let claim = if written.contains('\\') {
        let document = Document::parse(Path::new(""), written);
        schema::claim(&Name::parse(document.entries().first()?.key()))?
    } else {
        schema::claim(&Name::parse(written))?
    };
    // Without a value it is one of ours only if nothing else can be meant.
    let counts = end.is_some() || matches!(claim, Claim::Private | Claim::Strict);
    counts.then_some((length, claim))
}

/// Reports a name of ours that is read as the value of a word before it: `export name=value`.
pub(in crate::config) fn behind_a_word(view: &View, entry: &Entry) -> Option<Finding> {
    let (key, value) = (entry.key_span(), entry.value_span());
    let between = view.document().written(Span {
        start: key.end,
        end: value.start,
    });
    if between.is_empty() || !between.trim().is_empty() {
        return None;
    }
    let written = view.document().written(value);
    let (length, claim) = claim(written)?;
    let name = written.get(..length)?;
    let span = Span {
        end: value.start.saturating_add(length),
        ..value
    };
    let message = format!(
        "the name ends at the blank, so this sets {}",
        quote(entry.key())
    );
    let found = view
        .finding(Code::Cs0107, span, message)
        .with_key(redact(name))
        .with_help(format!("write {} at the start of its line", quote(name)));
    Some(match claim {
        Claim::Private => found.with_snippet(None),
        Claim::Strict | Claim::Setting => found,
    })
}

/// Returns `true` if a name of ours stands anywhere in a value of several lines.
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
        "this setting is lost: a backslash at the end of the line before makes it part of {}",
        quote(first_line.trim_end_matches('\\'))
    );
    view.finding(Code::Cs0104, lost.name, message)
        .with_key(redact(view.document().written(lost.name)))
        .with_label("not on its own line")
        .with_help("remove the backslash at the end of the line before, or double it")
}
