//! A file as the checks see it, with those of its active profiles: the text, and findings that
//! point into it and hide its secrets.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{
    Code, Finding, Findings, Origin, Public, Snippet, redact_except, without_scalars,
};
use crate::jose::{Fingerprint, KeyMaterial, PublicJwk, VerifyingKey, published, repair};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, Sourced, Span, SyntaxFault, look};

use super::schema;

/// The document of a file and its profiles, and everything that must not be shown of it.
#[derive(Debug)]
pub struct View {
    pub document: Arc<Document>,
    secrets: Vec<Span>,
    /// Found when it is asked for: most findings show nothing that could be secret.
    public: OnceCell<Public>,
}

impl View {
    pub fn new(document: Arc<Document>) -> Self {
        Self {
            public: OnceCell::new(),
            document,
            secrets: Vec::new(),
        }
    }

    pub fn entries(&self) -> &[Entry] {
        self.document.entries()
    }

    pub fn entry(&self, at: usize) -> Option<&Entry> {
        self.entries().get(at)
    }

    /// Returns the value of the entry `at`.
    pub fn value(&self, at: usize) -> Option<Sourced> {
        let entry = self.entry(at)?;
        let origin = self.document.origin(entry.value_span.start);
        Some(Sourced::of_entry(at, Arc::clone(&entry.value), origin))
    }

    /// Returns what identifies the public keys in the files, and their fingerprints.
    pub fn public(&self) -> &Public {
        self.public.get_or_init(|| {
            let mut public = Public::default();
            let mut named = Vec::new();
            for entry in self.entries() {
                let value = entry.value().trim();
                if self.hides(entry.value_span.start)
                    && let Ok((material, _)) = KeyMaterial::read(value.as_bytes())
                {
                    add_key(&mut public, material.verifying_key());
                }
                let is_name = entry.key().ends_with("fingerprint");
                if is_name && schema::exact(&Name::parse(entry.key())).is_some() {
                    named.push(value);
                }
            }
            let values = self.entries().iter().map(|entry| entry.value().trim());
            add_public_parts(&mut public, values);
            named.retain(|name| name.parse::<Fingerprint>().is_ok() && !is_private(&public, name));
            public.extend(named.into_iter().map(str::to_owned));
            public
        })
    }

    /// Keeps the parts `spans` out of everything shown.
    pub fn hide(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.secrets.extend(spans);
        self.secrets.sort_by_key(|span| {
            look();
            span.start
        });
        // In order and apart from each other, so that one look finds the one at a place.
        self.secrets.dedup_by(|next, span| {
            let touches = next.start <= span.end;
            span.end = if touches {
                span.end.max(next.end)
            } else {
                span.end
            };
            touches
        });
    }

    pub fn hides(&self, offset: usize) -> bool {
        let begun = self.secrets.partition_point(|span| span.start <= offset);
        let last = begun.checked_sub(1).and_then(|at| self.secrets.get(at));
        last.is_some_and(|span| offset < span.end)
    }

    /// Reports `message` about the part `span`.
    pub fn finding(&self, code: Code, span: Span, message: impl Into<String>) -> Finding {
        self.about_file(span.start, code, message)
            .with_snippet(self.snippet(span))
    }

    /// Reports `message` about a value and its setting, wherever it comes from.
    pub fn about(
        &self,
        code: Code,
        value: &Sourced,
        part: Part,
        message: impl Into<String>,
    ) -> Finding {
        let found = match self.span(value, part) {
            None => Finding::new(code, value.origin().clone(), message),
            Some(span) => self.finding(code, span, message),
        };
        match value.setting() {
            Some(setting) => found.with_key(setting),
            None => found,
        }
    }

    /// Returns where a part of a value is, if it is from a file.
    pub fn span(&self, value: &Sourced, part: Part) -> Option<Span> {
        let entry = value.entry.and_then(|at| self.entry(at))?;
        let whole = entry.value_span;
        Some(match part {
            Part::Name => entry.key_span,
            // The trailing blanks of a value are left out.
            Part::Value => {
                let kept = self.document.written(whole).trim_end().len();
                Span::new(whole.start, whole.start.saturating_add(kept))
            }
            Part::Offset(offset) => {
                let start = entry.place_in_text(offset);
                Span::new(start, start.saturating_add(1))
            }
        })
    }

    /// Hides in `findings` what has the form of a private scalar and is not known to be public, here
    /// or beside the files.
    pub fn without_scalars(&self, mut findings: Findings, beside: &Public) -> Findings {
        for finding in &mut findings.0 {
            let snippet = finding.snippet.as_mut().map(|snippet| &mut snippet.text);
            let others = [&mut finding.key, &mut finding.help, &mut finding.label];
            let texts = others.into_iter().filter_map(Option::as_mut);
            for text in texts.chain([&mut finding.message]).chain(snippet) {
                let shown = without_scalars(text, |run| {
                    beside.contains(run) || self.public().contains(run)
                });
                if let Some(shown) = shown {
                    *text = shown;
                }
            }
        }
        findings
    }

    /// Describes an escape that cannot be read.
    pub fn describe(&self, fault: &SyntaxFault) -> Finding {
        let shown = self.snippet(fault.0);
        self.document.describe(fault).with_snippet(shown)
    }

    /// Returns a name or a value as it may be shown.
    pub fn shown(&self, text: &str) -> String {
        self.shown_beside(text, "")
    }

    /// Returns `text` as [`shown`](Self::shown) does, with the parts of the public `key`.
    pub fn shown_beside(&self, text: &str, key: &str) -> String {
        let mut public = self.public().clone();
        add_public_parts(&mut public, [key]);
        let shown = redact_except(text, &public);
        without_scalars(&shown, |run| public.contains(run)).unwrap_or(shown)
    }

    /// Shows the line of the part `span`.
    fn snippet(&self, span: Span) -> Option<Snippet> {
        let nothing = Public::default();
        let shown = self.document.snippet(span, &self.secrets, &nothing)?;
        if !shown.hides {
            return Some(shown);
        }
        self.document.snippet(span, &self.secrets, self.public())
    }

    /// Reports `message` about a file as a whole: the one whose text begins at `start`.
    pub fn about_file(&self, start: usize, code: Code, message: impl Into<String>) -> Finding {
        Finding::new(code, self.document.origin(start), message)
    }
}

/// Adds the coordinates and names of the public keys in `texts`, also if only quotes are missing in
/// one.
pub fn add_public_parts<'a>(public: &mut Public, texts: impl IntoIterator<Item = &'a str>) {
    let mut kids = Vec::new();
    for text in texts.into_iter().filter(|text| text.contains('{')) {
        let parsed = PublicJwk::parse(text).ok();
        if let Some(jwk) = parsed.or_else(|| PublicJwk::parse(&repair(text)?).ok()) {
            add_key(public, &jwk.key);
            kids.extend(jwk.kid);
        }
    }
    // A name may be the private half of a key further down.
    kids.retain(|kid| !is_private(public, kid.as_str()));
    public.extend(kids.into_iter().map(|kid| kid.as_str().to_owned()));
}

fn add_key(public: &mut Public, key: &VerifyingKey) {
    let fingerprint = key.fingerprint();
    public.extend([
        key.x(),
        key.y(),
        key.thumbprint(),
        fingerprint.to_string(),
        fingerprint.to_hex(),
        fingerprint.to_hex().to_uppercase(),
    ]);
}

/// Returns `true` if `text` is the private scalar of a key whose parts are `public`.
fn is_private(public: &Public, text: &str) -> bool {
    let scalar = text.parse::<Fingerprint>().ok();
    let key = scalar
        .filter(|_| !public.contains(text))
        .and_then(|scalar| VerifyingKey::of_scalar(scalar.as_bytes()));
    key.is_some_and(|key| public.contains(&key.x()) && !published(key.fingerprint()))
}

/// A place to point at: a value, or a part of it.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The whole value.
    Value,
    /// The setting's name.
    Name,
    /// One character, at this byte of the value.
    Offset(usize),
}

/// Adds each finding once, up to a limit per code, then says how many more there are.
#[derive(Debug, Default)]
pub struct Limited {
    findings: Vec<Finding>,
    /// Where the first finding beyond the limit is, and how many there are.
    overflow: BTreeMap<Code, (Origin, usize)>,
}

/// The maximum number of findings of one code that are shown.
const MOST_OF_A_CODE: usize = 200;

impl Limited {
    pub fn push(&mut self, finding: Finding) {
        self.add(finding.code, || finding);
    }

    /// Adds a finding of `code`; beyond the limit it is counted and not made.
    pub fn add(&mut self, code: Code, finding: impl FnOnce() -> Finding) {
        if let Some((_, more)) = self.overflow.get_mut(&code) {
            *more = more.saturating_add(1);
            return;
        }
        let new = finding();
        let of_code: Vec<_> = self.findings.iter().filter(|f| f.code == code).collect();
        if of_code.iter().any(|found| {
            found.message == new.message && (&found.origin, &found.key) == (&new.origin, &new.key)
        }) {
            return;
        }
        if of_code.len() < MOST_OF_A_CODE {
            self.findings.push(new);
        } else {
            self.overflow.insert(code, (new.origin, 1));
        }
    }

    pub fn finish(mut self) -> Findings {
        for (code, (origin, more)) in self.overflow {
            let message = format!("{more} more findings like this from here on");
            self.findings.push(Finding::new(code, origin, message));
        }
        let mut findings = Findings(self.findings);
        findings.sort();
        findings
    }
}

impl Extend<Finding> for Limited {
    fn extend<I: IntoIterator<Item = Finding>>(&mut self, findings: I) {
        for finding in findings {
            self.push(finding);
        }
    }
}
