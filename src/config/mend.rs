//! What `check --fix` may repair: only what is whole again afterwards, and means the same.

use std::path::Path;

use crate::diagnostic::{Code, Origin, redact};
use crate::jose::{KeyMaterial, PublicJwk, repair};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, FileText, Span};
use crate::secret::Secret;

use super::schema::{self, Known, Placed, Takes};
use super::text_check;

/// A text with its repairs.
#[derive(Debug)]
pub struct Mended {
    text: Secret<String>,
    repairs: Vec<Repair>,
}

/// One repair, as it may be shown: private keys are left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repair {
    /// The finding that it removes.
    pub code: Code,
    /// The line, counted from 1.
    pub line: u32,
    /// The setting; empty where it is about the file.
    pub key: String,
    /// What was done, in words.
    pub what: &'static str,
    /// The line as it was.
    pub before: String,
    /// The line as it is.
    pub after: String,
}

impl Mended {
    /// Returns the text, without a byte order mark.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// Returns what was repaired, in the order of the lines.
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }
}

/// Repairs `text`, the content of `path`; nothing where there is nothing to repair.
///
/// What is repaired: quotes that are missing in a key, a key that is broken over lines, blanks at
/// the end of a value, and a byte order mark.
///
/// A repaired key is a valid key of its kind; every other line stays byte for byte as it is.
pub fn mend(path: &Path, text: &FileText) -> Option<Mended> {
    let document = Document::parse(path, text.text());
    let names = document.entries().iter();
    let known: Vec<_> = names
        .map(|entry| schema::find(&Name::parse(entry.key())))
        .collect();
    let mut mending = Mending {
        document: &document,
        edits: Vec::new(),
        repairs: Vec::new(),
    };
    if text.has_mark() {
        mending.repairs.push(Repair {
            code: Code::Cs0102,
            line: 1,
            key: String::new(),
            what: "the byte order mark is removed",
            before: "«byte order mark»".to_owned(),
            after: String::new(),
        });
    }
    let mut skipped = 0;
    for (at, found) in known.iter().enumerate() {
        let (Known::Setting(placed), Some(entry)) = (found, document.entries().get(at)) else {
            continue;
        };
        if at < skipped {
            continue;
        }
        let stray = text_check::stray_lines(document.entries(), &known, at, placed);
        skipped = stray.end;
        let lines = document.entries().get(stray).unwrap_or_default();
        mending.entry(entry, placed, lines);
    }
    let Mending { edits, repairs, .. } = mending;
    let edited = apply(document.text(), &edits);
    (!repairs.is_empty()).then(|| Mended {
        text: edited,
        repairs,
    })
}

struct Mending<'a> {
    document: &'a Document,
    edits: Vec<(Span, Secret<String>)>,
    repairs: Vec<Repair>,
}

impl Mending<'_> {
    /// Repairs one setting, whose value goes on in the lines `stray`.
    fn entry(&mut self, entry: &Entry, placed: &Placed, stray: &[Entry]) {
        let span = entry.value_span();
        let written = self.document.written(span);
        // Where something is escaped, what is written and what is meant are two things.
        let plain = written == entry.value();
        let takes = placed.setting.takes();
        if let Some(last) = stray.last() {
            if let Some(text) = self.joined(entry, placed, stray) {
                let end = last.value_span().end;
                let new = Replacement {
                    code: Code::Cs0104,
                    what: "its lines are joined",
                    span: Span { end, ..span },
                    text,
                };
                self.replace(entry, placed, new);
            }
            return;
        }
        if plain && let Some(text) = quoted(written, takes) {
            let new = Replacement {
                code: match takes {
                    Takes::PrivateKey => Code::Cs0206,
                    _ => Code::Cs0201,
                },
                what: "the missing quotes are put back",
                span,
                text,
            };
            self.replace(entry, placed, new);
            return;
        }
        let kept = written.trim_end_matches([' ', '\t', '\u{c}']);
        if kept.len() < written.len() && !kept.is_empty() && !kept.ends_with('\\') {
            let new = Replacement {
                code: Code::Cs0105,
                what: "the blanks at its end are removed",
                span,
                text: Secret::new(kept.to_owned()),
            };
            self.replace(entry, placed, new);
        }
    }

    /// Joins the lines of a key, where that makes it whole.
    fn joined(&self, entry: &Entry, placed: &Placed, stray: &[Entry]) -> Option<Secret<String>> {
        let mut text = self.document.written(entry.value_span()).trim().to_owned();
        for line in stray {
            let span = Span {
                start: line.key_span().start,
                end: line.value_span().end,
            };
            text.push_str(self.document.written(span).trim());
        }
        let text = Secret::new(text);
        let plain = !text.expose().contains('\\');
        (plain && is_whole(text.expose(), placed.setting.takes())).then_some(text)
    }

    fn replace(&mut self, entry: &Entry, placed: &Placed, new: Replacement) {
        let line = match self.document.origin(entry.key_span().start) {
            Origin::File { line, .. } => line,
            _ => 1,
        };
        let key = entry.key().to_owned();
        let old = self.document.written(new.span);
        self.repairs.push(Repair {
            code: new.code,
            line,
            what: new.what,
            before: shown(&key, old, placed),
            after: shown(&key, new.text.expose(), placed),
            key,
        });
        self.edits.push((new.span, new.text));
    }
}

/// A part of the text and what comes in its place.
struct Replacement {
    code: Code,
    what: &'static str,
    span: Span,
    text: Secret<String>,
}

/// Puts the missing quotes of a key back, where that makes it whole.
fn quoted(written: &str, takes: Takes) -> Option<Secret<String>> {
    let is_key = matches!(takes, Takes::PublicKey | Takes::PrivateKey);
    if !is_key || is_whole(written, takes) {
        return None;
    }
    let mended = Secret::new(repair(written.trim_end())?);
    is_whole(mended.expose(), takes).then_some(mended)
}

/// Tells whether `text` is a key of the kind that a setting takes.
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
    if setting.is_private() || setting.name().ends_with(".**") {
        return format!("{key}=«private, {} chars»", value.len());
    }
    let lines = value.lines().map(|line| {
        let kept = line.trim_end_matches([' ', '\t', '\u{c}']);
        let blanks = line.chars().count().saturating_sub(kept.chars().count());
        format!("{kept}{}", "·".repeat(blanks))
    });
    let value = lines.collect::<Vec<_>>().join("\n");
    // A repaired key is public, and so is what it was made of.
    match setting.takes() {
        Takes::PublicKey => format!("{key}={value}"),
        _ => format!("{key}={}", redact(&value)),
    }
}

fn apply(text: &str, edits: &[(Span, Secret<String>)]) -> Secret<String> {
    let mut edited = String::with_capacity(text.len().saturating_add(64));
    let mut at = 0;
    for (span, new) in edits {
        edited.push_str(text.get(at..span.start).unwrap_or_default());
        edited.push_str(new.expose());
        at = span.end;
    }
    edited.push_str(text.get(at..).unwrap_or_default());
    edited.into()
}
