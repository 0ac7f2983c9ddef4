//! The texts of one or more files with their entries, and the way from a byte to file, line and
//! column.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::name::Name;
use super::parse::{self, Entry, Escapes, Parsed, Separator, Span, Start, SyntaxFault};
use crate::diagnostic::{Code, Finding, Origin, Public, Snippet, private_parts};

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

/// The longest value that is looked into, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// One of the files.
struct Part {
    path: Arc<Path>,
    start: usize,
    first_line: usize,
    first_entry: usize,
    first_document: usize,
}

impl Document {
    /// Reads `text` as the content of `path`. Never fails: see [`faults`](Self::faults).
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
        let base = self.add(path, text);
        parse::parse(&self.text, base, &mut self.parsed);
    }

    /// Adds the file `path` of a configuration tree, which holds the value of `key` and nothing
    /// else.
    pub fn append_value(&mut self, path: &Path, key: &str, text: &str) {
        let base = self.add(path, text);
        // Spring drops the line end of a text of one line.
        let one_line = text.strip_suffix('\n').filter(|line| !line.contains('\n'));
        let value = one_line.map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        let end = base.saturating_add(value.len());
        self.parsed.documents.push(Start {
            entry: self.parsed.entries.len(),
            text: base,
        });
        self.parsed.entries.push(Entry {
            key: Zeroizing::new(key.to_owned()),
            value: Arc::new(Zeroizing::new(value.to_owned())),
            key_span: Span::new(base, base),
            value_span: Span::new(base, end),
            line_span: Span::new(base, base.saturating_add(text.len())),
            steps: Vec::new(),
            escapes: Escapes::default(),
        });
    }

    /// Adds the text of a file; returns its first byte.
    fn add(&mut self, path: &Path, text: &str) -> usize {
        let length = self.text.len().saturating_add(text.len()).saturating_add(1);
        if self.text.capacity() < length {
            // What held the text before is wiped: it does not grow in place. Twice the room, so
            // that many files are not copied as often as there are files.
            let room = if self.files.is_empty() {
                text.len()
            } else {
                length.saturating_mul(2)
            };
            let mut whole = Zeroizing::new(String::with_capacity(room));
            whole.push_str(&self.text);
            self.text = whole;
        }
        if !self.files.is_empty() {
            // The end of one file is no place in the next.
            self.text.push('\n');
        }
        let base = self.text.len();
        self.text.push_str(text);
        self.files.push(Part {
            path: path.into(),
            start: base,
            first_line: self.line_starts.len(),
            first_entry: self.parsed.entries.len(),
            first_document: self.parsed.documents.len(),
        });
        let starts = line_starts(text).map(|start| start.saturating_add(base));
        self.line_starts.extend(starts);
        base
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

    /// Returns the lines `#---`, and what Spring Boot takes them for.
    pub fn separators(&self) -> &[Separator] {
        &self.parsed.separators
    }

    /// Returns the number of the document that entry `at` stands in. The documents of all files are
    /// counted; a file has at least one.
    pub fn document_of_entry(&self, at: usize) -> usize {
        let begun = self.parsed.documents.partition_point(|d| d.entry <= at);
        begun.saturating_sub(1)
    }

    /// Returns the numbers of the entries of a document.
    pub fn entries_of(&self, document: usize) -> Range<usize> {
        let mut starts = self
            .parsed
            .documents
            .iter()
            .skip(document)
            .map(|one| one.entry);
        let all = self.entries().len();
        starts.next().unwrap_or(all)..starts.next().unwrap_or(all)
    }

    /// Returns the numbers of the documents of a file.
    pub fn documents_of(&self, file: usize) -> Range<usize> {
        let mut starts = self.files.iter().skip(file).map(|one| one.first_document);
        let all = self.parsed.documents.len();
        starts.next().unwrap_or(all)..starts.next().unwrap_or(all)
    }

    /// Returns the last entry of each name, in the form in which spellings agree, where `documents`
    /// are in order, the lowest first.
    pub fn last_of_names(&self, documents: impl Iterator<Item = usize>) -> HashMap<String, usize> {
        let entries = documents.flat_map(|document| self.entries_of(document));
        let named = entries.filter_map(|at| {
            let name = Name::parse(self.entries().get(at)?.key()).uniform();
            Some((name, at))
        });
        named.collect()
    }

    /// Returns the place where a document begins; after the last, the end of the text.
    pub fn start_of(&self, document: usize) -> usize {
        let start = self.parsed.documents.get(document);
        start.map_or(self.text.len(), |start| start.text)
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

    /// Shows the line on which `span` starts. The parts `secret`, which are in order and apart, are
    /// hidden, and everything else that may be private and is not known to be `public`.
    ///
    /// Nothing is shown of a line over 64 KiB: to look for keys in it takes long.
    pub fn snippet(&self, span: Span, secret: &[Span], public: &Public) -> Option<Snippet> {
        let (line, start) = self.line_of(span.start);
        let rest = self.text.get(start..).unwrap_or_default();
        let text = rest.split(['\n', '\r']).next().unwrap_or_default();
        if text.len() > MAX_VALUE {
            return None;
        }
        let end = start.saturating_add(text.len());
        let shown = Span { start, end };
        // What is written over several lines is a key as a whole only.
        let after = self
            .entries()
            .partition_point(|entry| entry.line_span.start <= span.start);
        let entry = after.checked_sub(1).and_then(|at| self.entries().get(at));
        let private = entry
            .map(|entry| self.private(entry, public))
            .unwrap_or_default();
        let from = secret.partition_point(|s| s.end <= start);
        let rest = secret.get(from..).unwrap_or_default().iter();
        let given = rest.take_while(|s| s.start < end);
        let overlapping = given.chain(private.iter().filter(|s| s.start < end && s.end > start));
        let hidden: Vec<_> = overlapping.map(|span| within(*span, shown)).collect();
        let marked = within(span, shown);
        Some(Snippet::new(count(line), text, marked, &hidden, public))
    }

    /// Finds where the parts of `entry` stand that may be private, however they are written.
    fn private(&self, entry: &Entry, public: &Public) -> Vec<Span> {
        let (key, value) = (entry.key_span, entry.value_span);
        if entry.value.len() > MAX_VALUE {
            return vec![value];
        }
        let in_value = private_parts(&entry.value, public).into_iter().map(|part| {
            let is_last = part.end == entry.value.len();
            let end = if is_last {
                value.end
            } else {
                entry.place_in_text(part.end)
            };
            Span::new(entry.place_in_text(part.start), end)
        });
        let is_plain = self.written(key) == entry.key.as_str();
        let in_key = private_parts(&entry.key, public).into_iter().map(|part| {
            let [start, end] = [part.start, part.end].map(|at| at.saturating_add(key.start));
            if is_plain { Span::new(start, end) } else { key }
        });
        in_value.chain(in_key).collect()
    }

    /// Returns the escapes that cannot be read, each with what is wrong there.
    pub fn faults(&self) -> &[SyntaxFault] {
        &self.parsed.faults
    }

    /// Describes one of [`faults`](Self::faults), which takes a walk through its line.
    pub fn describe(&self, (span, message): &SyntaxFault) -> Finding {
        Finding::new(Code::Cs0101, self.origin(span.start), *message)
            .with_help("write four digits after `\\u`, or `\\\\u` for a literal backslash")
            .with_snippet(self.snippet(*span, &[], &Public::default()))
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
