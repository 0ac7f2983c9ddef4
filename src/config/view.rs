//! A file as the checks see it, with those of its active profiles: the text, and findings that point
//! into it and hide its secrets.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::{Code, Finding, Findings, Origin, Public, Snippet};
use crate::jose::{Fingerprint, PublicJwk, repair};
use crate::properties::{Document, Encoding, Entry, FileText, Sourced, Span};

/// The document of a file and its profiles, and everything that must not be shown of it.
#[derive(Debug)]
pub(super) struct View {
    document: Document,
    secrets: Vec<Span>,
    /// Found when it is asked for: most findings show nothing that could be secret.
    public: OnceCell<Public>,
    files: Vec<About>,
}

/// What is to be known of one file besides its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// The first byte of its text.
    pub(super) start: usize,
    pub(super) is_latin1: bool,
    pub(super) has_mark: bool,
    pub(super) mode: Option<u32>,
}

impl View {
    /// Takes the main file, then those of its profiles.
    pub(super) fn new(files: &[(&Path, &FileText)]) -> Self {
        let mut files = files.iter();
        let mut about = Vec::new();
        let mut note = |start: usize, text: &FileText| {
            about.push(About {
                start,
                is_latin1: text.encoding() == Encoding::Latin1,
                has_mark: text.has_mark(),
                mode: text.mode(),
            });
        };
        let mut document = match files.next() {
            Some((path, text)) => {
                note(0, text);
                Document::parse(path, text.text())
            }
            None => Document::parse(Path::new(""), ""),
        };
        for (path, text) in files {
            document.append(path, text.text());
            note(document.file_starts().last().unwrap_or_default(), text);
        }
        Self {
            public: OnceCell::new(),
            document,
            secrets: Vec::new(),
            files: about,
        }
    }

    /// Returns what is to be known of each file besides its text.
    pub(super) fn files(&self) -> &[About] {
        &self.files
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

    /// Returns what identifies the public keys in the files, and their fingerprints.
    pub(super) fn public(&self) -> &Public {
        self.public.get_or_init(|| {
            let mut public = Public::default();
            for entry in self.entries() {
                let value = entry.value().trim();
                if entry.key().ends_with("fingerprint") && value.parse::<Fingerprint>().is_ok() {
                    public.insert(value);
                }
                add_public_parts(&mut public, value);
            }
            public
        })
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
        let nothing = Public::default();
        let shown = self.document.snippet(span, &self.secrets, &nothing);
        if !shown.hides() {
            return shown;
        }
        self.document.snippet(span, &self.secrets, self.public())
    }

    /// Reports `message` about a file as a whole: the one whose text begins at `start`.
    pub(super) fn about_file(
        &self,
        start: usize,
        code: Code,
        message: impl Into<String>,
    ) -> Finding {
        Finding::new(code, self.document.origin(start), message)
    }
}

/// Adds the coordinates and names of the public key in `text`, also if only quotes are missing
/// in it.
pub(super) fn add_public_parts(public: &mut Public, text: &str) {
    if !text.contains('{') {
        return;
    }
    let parsed = PublicJwk::parse(text).ok();
    if let Some(jwk) = parsed.or_else(|| PublicJwk::parse(&repair(text)?).ok()) {
        let fingerprint = jwk.key.fingerprint();
        public.extend([
            jwk.key.x(),
            jwk.key.y(),
            jwk.key.thumbprint(),
            fingerprint.to_string(),
            fingerprint.to_hex(),
            fingerprint.to_hex().to_uppercase(),
        ]);
        public.extend(jwk.kid.map(|kid| kid.as_str().to_owned()));
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

/// Reports `message` about a value and its setting, wherever it comes from.
pub(super) fn finding(
    view: &View,
    code: Code,
    value: &Sourced,
    part: Part,
    message: impl Into<String>,
) -> Finding {
    let found = match value.entry().and_then(|at| view.entry(at)) {
        None => Finding::new(code, value.origin().clone(), message),
        Some(entry) => {
            let span = match part {
                Part::Value => trimmed(view, entry),
                Part::Name => entry.key_span(),
                Part::Offset(offset) => {
                    let start = entry.place_in_text(offset);
                    let end = start.saturating_add(1);
                    Span { start, end }
                }
            };
            view.finding(code, span, message)
        }
    };
    match value.setting() {
        Some(setting) => found.with_key(setting),
        None => found,
    }
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
    counts: BTreeMap<Code, usize>,
    /// Where the first finding beyond the limit is, and how many there are.
    overflow: BTreeMap<Code, (Origin, usize)>,
}

/// The most findings of one code that are shown.
const MOST_OF_A_CODE: usize = 200;

impl Limited {
    pub(super) fn push(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.code()).or_default();
        *count = count.saturating_add(1);
        if *count <= MOST_OF_A_CODE {
            self.findings.push(finding);
            return;
        }
        let origin = || (finding.origin().clone(), 0);
        let (_, more) = self.overflow.entry(finding.code()).or_insert_with(origin);
        *more = more.saturating_add(1);
    }

    /// Adds a finding of `code`; beyond the limit it is counted and not made.
    pub(super) fn add(&mut self, code: Code, finding: impl FnOnce() -> Finding) {
        match self.overflow.get_mut(&code) {
            Some((_, more)) => *more = more.saturating_add(1),
            None => self.push(finding()),
        }
    }

    pub(super) fn finish(mut self) -> Findings {
        for (code, (origin, more)) in self.overflow {
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
