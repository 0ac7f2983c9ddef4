//! One file's text with its entries, and the way from a byte to line and column.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::parse::{self, Entry, Parsed, Span, SyntaxFault};
use crate::diagnostic::{Code, Finding, Findings, Origin, Public, Snippet};

/// The entries of one `.properties` text, in the file's order, each with its place.
pub struct Document {
    path: Arc<Path>,
    text: Zeroizing<String>,
    line_starts: Vec<usize>,
    parsed: Parsed,
}

impl Document {
    /// Reads `text` as the content of `path`. Never fails: see [`findings`](Self::findings).
    pub fn parse(path: &Path, text: &str) -> Self {
        Self {
            path: path.into(),
            text: Zeroizing::new(text.to_owned()),
            line_starts: line_starts(text),
            parsed: parse::parse(text),
        }
    }

    /// Returns the file, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the entries, duplicates included.
    pub fn entries(&self) -> &[Entry] {
        &self.parsed.entries
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the lines `#---`, which separate documents for Spring; here everything is one.
    pub fn separators(&self) -> &[Span] {
        &self.parsed.separators
    }

    /// Returns line and column of byte `offset`.
    pub fn origin(&self, offset: usize) -> Origin {
        let (line, start) = self.line_of(offset);
        let before = self.text.get(start..offset).unwrap_or_default();
        Origin::File {
            path: Arc::clone(&self.path),
            line: count(line),
            column: count(before.chars().count().saturating_add(1)),
        }
    }

    /// Returns the part `span` of the text, as written.
    pub fn written(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Shows the line on which `span` starts, without the parts `secret` and whatever else may be
    /// private and is not known to be `public`.
    pub fn snippet(&self, span: Span, secret: &[Span], public: &Public) -> Snippet {
        let (line, start) = self.line_of(span.start);
        let rest = self.text.get(start..).unwrap_or_default();
        let text = rest.split(['\n', '\r']).next().unwrap_or_default();
        let end = start.saturating_add(text.len());
        let characters = |span: &Span| -> Range<usize> {
            let count = |to: usize| {
                let upto = self.text.get(start..to.clamp(start, end));
                upto.unwrap_or_default().chars().count()
            };
            count(span.start)..count(span.end)
        };
        let hidden: Vec<_> = secret
            .iter()
            .filter(|s| s.start < end && s.end > start)
            .map(characters)
            .collect();
        Snippet::new(count(line), text, characters(&span), &hidden, public)
    }

    /// Returns what is wrong with the text itself: escapes that cannot be read.
    pub fn findings(&self) -> Findings {
        let finding = |fault: &SyntaxFault| {
            let (span, message) = match fault {
                SyntaxFault::MalformedEscape(span) => {
                    (*span, "`\\u` is not followed by four hexadecimal digits")
                }
                SyntaxFault::LoneSurrogate(span) => {
                    (*span, "this is half of a surrogate pair, which is no text")
                }
            };
            Finding::new(Code::Cs0101, self.origin(span.start), message)
                .with_help("write four digits after `\\u`, or `\\\\u` if a backslash is meant")
                .with_snippet(Some(self.snippet(span, &[], &Public::default())))
        };
        self.parsed.faults.iter().map(finding).collect()
    }

    /// Returns the line number of `offset`, counted from 1, and where that line starts.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|n| self.line_starts.get(n));
        (line.max(1), start.copied().unwrap_or(0))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("path", &self.path)
            .field("entries", &self.parsed.entries.len())
            .finish_non_exhaustive()
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter_map(|(at, byte)| {
        let next = at.saturating_add(1);
        let lone_return = *byte == b'\r' && bytes.get(next) != Some(&b'\n');
        (*byte == b'\n' || lone_return).then_some(next)
    });
    std::iter::once(0).chain(ends).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
