//! What `check --fix` may repair: only what is whole again afterwards, and means the same.

use std::path::Path;

use serde::Serialize;

use crate::diagnostic::{Code, redact};
use crate::jose::{KeyMaterial, PublicJwk, repair};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, FileText, Span, replace};
use crate::secret::Secret;

use super::rules::file;
use super::schema::{self, Known, Placed, Takes};

/// A text with its repairs.
#[derive(Debug)]
pub struct Fixed {
    /// The text, without a byte order mark.
    pub text: Secret<String>,
    /// What was repaired, in the order of the lines.
    pub repairs: Vec<Repair>,
}

/// One repair, as it may be shown: private keys are left out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Repair {
    /// The finding that it removes.
    pub code: Code,
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The setting; empty if the finding is about the file.
    pub key: String,
    /// What was done, in words.
    pub what: &'static str,
    /// The line as it was.
    pub before: String,
    /// The line as it is.
    pub after: String,
}

/// Repairs `text`, the content of `path`; `None` if there is nothing to repair.
///
/// What is repaired: quotes that are missing in a key, a key that is broken over lines, blanks at
/// the end of a value, and a byte order mark.
///
/// A repaired key is a valid key of its kind; every other line stays byte for byte as it is.
pub fn fix(path: &Path, text: &FileText) -> Option<Fixed> {
    let document = Document::parse(path, text.text());
    let entries = document.entries();
    let names = entries.iter().map(|entry| Name::parse(entry.key()));
    let known: Vec<_> = names.map(|name| schema::find(&name)).collect();
    let mut repairs = Vec::new();
    if text.has_mark {
        repairs.push(Repair {
            code: Code::Cs0102,
            file: path.display().to_string(),
            line: 1,
            key: String::new(),
            what: "the byte order mark is removed",
            before: "«byte order mark»".to_owned(),
            after: String::new(),
        });
    }
    let mut replaced = Vec::new();
    for (at, (entry, found)) in entries.iter().zip(&known).enumerate() {
        let Known::Setting(placed) = found else {
            continue;
        };
        let lines = file::stray_lines(entries, &known, at, placed);
        let stray = entries.get(lines).unwrap_or_default();
        let repaired = replacement(&document, entry, placed.setting.takes, stray);
        let Some((span, new, (code, what))) = repaired else {
            continue;
        };
        repairs.push(Repair {
            code,
            file: path.display().to_string(),
            line: document.line(entry.key_span.start),
            key: entry.key().to_owned(),
            what,
            before: shown(entry.key(), document.written(span), placed),
            after: shown(entry.key(), new.expose(), placed),
        });
        replaced.push((span, new.expose().clone().into()));
    }
    let text = Secret::new(replace(document.text(), replaced).to_string());
    (!repairs.is_empty()).then_some(Fixed { text, repairs })
}

/// What comes in the place of a part of the text, and the finding that this removes, in words.
type Replacement = (Span, Secret<String>, (Code, &'static str));

/// Repairs one value, which goes on in the lines `stray`.
fn replacement(
    document: &Document,
    entry: &Entry,
    takes: Takes,
    stray: &[Entry],
) -> Option<Replacement> {
    let span = entry.value_span;
    if let Some(last) = stray.last() {
        let text = file::joined(document, entry, stray);
        if text.expose().contains('\\') || !is_whole(text.expose(), takes) {
            return None;
        }
        let whole = Span::new(span.start, last.value_span.end);
        return Some((whole, text, (Code::Cs0104, "its lines are joined")));
    }
    let written = document.written(span);
    // Where something is escaped, what is written and what is meant are two things.
    if written == entry.value()
        && let Some(text) = quoted(written, takes)
    {
        let code = match takes {
            Takes::PrivateKey => Code::Cs0206,
            _ => Code::Cs0201,
        };
        return Some((span, text, (code, "the missing quotes are put back")));
    }
    let kept = written.trim_end_matches(BLANKS);
    let has_blanks = kept.len() < written.len() && !kept.is_empty() && !kept.ends_with('\\');
    let what = (Code::Cs0105, "the blanks at its end are removed");
    has_blanks.then(|| (span, Secret::new(kept.to_owned()), what))
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Puts the missing quotes of a key back, if that makes it whole.
fn quoted(written: &str, takes: Takes) -> Option<Secret<String>> {
    let is_key = matches!(takes, Takes::PublicKey | Takes::PrivateKey);
    if !is_key || is_whole(written, takes) {
        return None;
    }
    let repaired = Secret::new(repair(written.trim_end())?);
    is_whole(repaired.expose(), takes).then_some(repaired)
}

/// Returns `true` if `text` is a key of the kind that a setting takes.
fn is_whole(text: &str, takes: Takes) -> bool {
    match takes {
        Takes::PublicKey => PublicJwk::parse(text).is_ok(),
        Takes::PrivateKey => matches!(
            KeyMaterial::read(text.trim().as_bytes()),
            Ok((KeyMaterial::Private(..), _))
        ),
        _ => false,
    }
}

/// Shows a setting; a blank at the end of a line as `·`.
fn shown(key: &str, value: &str, placed: &Placed) -> String {
    let setting = &placed.setting;
    if setting.is_private() || setting.name.ends_with(".**") {
        return format!("{key}=«private, {} chars»", value.len());
    }
    let lines = value.lines().map(|line| {
        let kept = line.trim_end_matches(BLANKS);
        let blanks = line.chars().count().saturating_sub(kept.chars().count());
        format!("{kept}{}", "·".repeat(blanks))
    });
    let value = lines.collect::<Vec<_>>().join("\n");
    // A repaired key is public, and so is what it was made of.
    match setting.takes {
        Takes::PublicKey => format!("{key}={value}"),
        _ => format!("{key}={}", redact(&value)),
    }
}
