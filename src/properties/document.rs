//! The texts of one or more files with their entries, and the way from a byte to file, line and
//! column.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::entry::{Entry, Span};
use super::parse::{self, Parsed};
use crate::diagnostic::{Code, Finding, Findings, Origin, Public, Snippet};

/// The entries of a `.properties` text, in the file's order, each with its place.
///
/// Made of several files, it holds one text after the other: places are bytes of all of them, and
/// each belongs to one file.
pub struct Document {
    files: Vec<Part>,
    text: Zeroizing<String>,
    line_starts: Vec<usize>,
    parsed: Parsed,
}

/// One of the files.
struct Part {
    path: Arc<Path>,
    start: usize,
    first_line: usize,
    first_entry: usize,
}

impl Document {
    /// Reads `text` as the content of `path`. Never fails: see [`findings`](Self::findings).
    pub fn parse(path: &Path, text: &str) -> Self {
        Self::of([(path, text)])
    }

    /// Reads several files, each a path and its text.
    pub fn of<'t>(files: impl IntoIterator<Item = (&'t Path, &'t str)>) -> Self {
        let mut document = Self {
            files: Vec::new(),
            text: Zeroizing::new(String::new()),
            line_starts: Vec::new(),
            parsed: Parsed::default(),
        };
        for (path, text) in files {
            document.append(path, text);
        }
        document
    }

    /// Adds `text` as the content of another file, `path`.
    pub fn append(&mut self, path: &Path, text: &str) {
        let mut base = self.text.len();
        let mut whole = Zeroizing::new(String::with_capacity(
            base.saturating_add(text.len()).saturating_add(1),
        ));
        whole.push_str(&self.text);
        if !self.files.is_empty() {
            // The end of one file is no place in the next.
            whole.push('\n');
            base = whole.len();
        }
        whole.push_str(text);
        // What held the text before is wiped; it was not grown in place.
        self.text = whole;
        self.files.push(Part {
            path: path.into(),
            start: base,
            first_line: self.line_starts.len(),
            first_entry: self.parsed.entries.len(),
        });
        let starts = line_starts(text).map(|start| start.saturating_add(base));
        self.line_starts.extend(starts);
        parse::parse(&self.text, base, &mut self.parsed);
    }

    /// Returns the first file, as the user named it.
    pub fn path(&self) -> &Path {
        self.path_at(0)
    }

    /// Returns the file that byte `offset` stands in.
    pub fn path_at(&self, offset: usize) -> &Path {
        self.part_at(offset)
            .map_or_else(|| Path::new(""), |file| &file.path)
    }

    /// Returns the number of the file that entry `at` stands in.
    pub fn file_of_entry(&self, at: usize) -> usize {
        let files = self.files.partition_point(|file| file.first_entry <= at);
        files.saturating_sub(1)
    }

    /// Returns the first byte of each file.
    pub fn file_starts(&self) -> impl Iterator<Item = usize> {
        self.files.iter().map(|file| file.start)
    }

    fn part_at(&self, offset: usize) -> Option<&Part> {
        let files = self.files.partition_point(|file| file.start <= offset);
        self.files.get(files.saturating_sub(1))
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

    /// Returns the line of byte `offset` in its file, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        let (line, _) = self.line_of(offset);
        count(line)
    }

    /// Returns line and column of byte `offset`.
    pub fn origin(&self, offset: usize) -> Origin {
        let (line, start) = self.line_of(offset);
        let before = self.text.get(start..offset).unwrap_or_default();
        Origin::File {
            path: self
                .part_at(offset)
                .map_or_else(|| Path::new("").into(), |file| Arc::clone(&file.path)),
            line: count(line),
            column: count(before.chars().count().saturating_add(1)),
        }
    }

    /// Returns the part `span` of the text, as written.
    pub fn written(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Shows the line on which `span` starts. The parts `secret` are hidden, and everything else
    /// that may be private and is not known to be `public`.
    pub fn snippet(&self, span: Span, secret: &[Span], public: &Public) -> Snippet {
        let (line, start) = self.line_of(span.start);
        let rest = self.text.get(start..).unwrap_or_default();
        let text = rest.split(['\n', '\r']).next().unwrap_or_default();
        let end = start.saturating_add(text.len());
        let shown = Span { start, end };
        let overlapping = secret.iter().filter(|s| s.start < end && s.end > start);
        let hidden: Vec<_> = overlapping.map(|span| within(*span, shown)).collect();
        Snippet::new(count(line), text, within(span, shown), &hidden, public)
    }

    /// Returns what is wrong with the text itself: escapes that cannot be read.
    pub fn findings(&self) -> Findings {
        let faults = self.parsed.faults.iter();
        let findings = faults.map(|(span, message)| {
            Finding::new(Code::Cs0101, self.origin(span.start), *message)
                .with_help("write four digits after `\\u`, or `\\\\u` for a literal backslash")
                .with_snippet(Some(self.snippet(*span, &[], &Public::default())))
        });
        Findings(findings.collect())
    }

    /// Returns the line number of `offset` in its file, counted from 1, and where that line starts.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let lines = self.line_starts.partition_point(|start| *start <= offset);
        let start = lines.checked_sub(1).and_then(|n| self.line_starts.get(n));
        let before = self.part_at(offset).map_or(0, |file| file.first_line);
        let line = lines.saturating_sub(before).max(1);
        (line, start.copied().unwrap_or(0))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(&self.path()).finish()
    }
}

/// Returns where `span` stands in the line `line`, as far as it is there.
fn within(span: Span, line: Span) -> Range<usize> {
    let [start, end] = [span.start, span.end].map(|at| at.clamp(line.start, line.end));
    start.saturating_sub(line.start)..end.saturating_sub(line.start)
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter_map(|(at, byte)| {
        let next = at.saturating_add(1);
        let lone_return = *byte == b'\r' && bytes.get(next) != Some(&b'\n');
        (*byte == b'\n' || lone_return).then_some(next)
    });
    std::iter::once(0).chain(ends)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
