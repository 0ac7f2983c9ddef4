//! One file as the checks see it: its text, and findings that point into it and hide its secrets.

use std::path::Path;

use crate::diagnostic::{Code, Finding, Findings, Origin, Public, Snippet};
use crate::properties::{Document, Encoding, Entry, FileText, Sourced, Span};

use super::public_text;

/// A file's document and everything that must not be shown of it.
#[derive(Debug)]
pub(super) struct View {
    document: Document,
    secrets: Vec<Span>,
    public: Public,
    encoding: Encoding,
    mark: bool,
    mode: Option<u32>,
}

impl View {
    pub(super) fn new(path: &Path, text: &FileText) -> Self {
        let document = Document::parse(path, text.text());
        Self {
            public: public_text::of(document.entries()),
            document,
            secrets: Vec::new(),
            encoding: text.encoding(),
            mark: text.has_mark(),
            mode: text.mode(),
        }
    }

    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    pub(super) fn entries(&self) -> &[Entry] {
        self.document.entries()
    }

    pub(super) fn entry(&self, at: usize) -> Option<&Entry> {
        self.entries().get(at)
    }

    pub(super) fn is_latin1(&self) -> bool {
        self.encoding == Encoding::Latin1
    }

    pub(super) fn has_mark(&self) -> bool {
        self.mark
    }

    pub(super) fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// Returns what of the file is proved to be public.
    pub(super) fn public(&self) -> &Public {
        &self.public
    }

    /// Keeps the part `span` out of everything shown.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.push(span);
    }

    pub(super) fn hides(&self, offset: usize) -> bool {
        let within = |span: &Span| span.start <= offset && offset < span.end;
        self.secrets.iter().any(within)
    }

    /// Reports `message` about the part `span`.
    pub(super) fn finding(&self, code: Code, span: Span, message: impl Into<String>) -> Finding {
        Finding::new(code, self.document.origin(span.start), message)
            .with_snippet(Some(self.snippet(span)))
    }

    /// Shows the line of the part `span`.
    pub(super) fn snippet(&self, span: Span) -> Snippet {
        self.document.snippet(span, &self.secrets, &self.public)
    }

    /// Reports `message` about the file as a whole.
    pub(super) fn about_file(&self, code: Code, message: impl Into<String>) -> Finding {
        Finding::new(code, self.document.origin(0), message)
    }
}

/// A place to point at: a value, or a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// The whole value.
    Value,
    /// The setting's name.
    Name,
    /// One character, at this byte of the value.
    Offset(usize),
}

/// Reports `message` about a value, wherever it comes from.
pub(super) fn finding(
    view: Option<&View>,
    code: Code,
    value: &Sourced,
    part: Part,
    message: impl Into<String>,
) -> Finding {
    let entry = view.and_then(|view| Some((view, view.entry(value.entry()?)?)));
    let Some((view, entry)) = entry else {
        return Finding::new(code, value.origin().clone(), message);
    };
    let span = match part {
        Part::Value => trimmed(view, entry),
        Part::Name => entry.key_span(),
        Part::Offset(offset) => {
            let start = entry.place_in_text(offset);
            Span {
                start,
                end: start.saturating_add(1),
            }
        }
    };
    view.finding(code, span, message)
}

/// Leaves the trailing blanks of a value out of its mark.
fn trimmed(view: &View, entry: &Entry) -> Span {
    let span = entry.value_span();
    let written = view.document.written(span).trim_end();
    Span {
        end: span.start.saturating_add(written.len()),
        ..span
    }
}

/// Adds findings up to a limit per code, then says how many more there are.
#[derive(Debug, Default)]
pub(super) struct Limited {
    findings: Findings,
    counts: std::collections::BTreeMap<Code, usize>,
    overflow: Vec<(Code, Origin, usize)>,
}

/// More findings of one code than anybody reads.
const MOST_OF_A_CODE: usize = 200;

impl Limited {
    pub(super) fn push(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.code()).or_default();
        *count = count.saturating_add(1);
        if *count <= MOST_OF_A_CODE {
            self.findings.push(finding);
            return;
        }
        let code = finding.code();
        match self.overflow.iter_mut().find(|(other, ..)| *other == code) {
            Some((_, _, more)) => *more = more.saturating_add(1),
            None => self.overflow.push((code, finding.origin().clone(), 1)),
        }
    }

    /// Tells whether findings of `code` are counted only from here on.
    pub(super) fn is_full(&self, code: Code) -> bool {
        self.overflow.iter().any(|(other, ..)| *other == code)
    }

    /// Counts a finding of a code that is full.
    pub(super) fn one_more(&mut self, code: Code) {
        let mut overflow = self.overflow.iter_mut();
        if let Some((_, _, more)) = overflow.find(|(other, ..)| *other == code) {
            *more = more.saturating_add(1);
        }
    }

    pub(super) fn finish(mut self) -> Findings {
        for (code, origin, more) in self.overflow {
            let message = format!("{more} more findings like this from here on");
            self.findings.push(Finding::new(code, origin, message));
        }
        self.findings.sort();
        self.findings
    }
}

impl Extend<Finding> for Limited {
    fn extend<I: IntoIterator<Item = Finding>>(&mut self, findings: I) {
        for finding in findings {
            self.push(finding);
        }
    }
}
