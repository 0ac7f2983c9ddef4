//! One finding with the line that it shows, and all of them.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use super::redact::{Public, hidden_in_line, misleads, pieces};
use super::{Code, Severity};

/// Where a value comes from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A place in a file; line and column count from 1, the column in characters.
    File {
        /// The file, as the user named it.
        path: Arc<Path>,
        /// The line.
        line: u32,
        /// The character within the line.
        column: u32,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// The option `--set`.
    SetOption,
    /// Not set: the built-in default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::SetOption => f.write_str("--set"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that `check`, the start of a module or a reload found.
///
/// Prints in one line: ``error[CS0202]: what (dpm.properties:3:78); how to fix it``. It never
/// contains a part of a private key.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Finding {
    /// The kind.
    pub code: Code,
    /// How severe it is.
    pub severity: Severity,
    /// The place.
    pub origin: Origin,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The name of the setting.
    pub key: Option<String>,
    /// How to fix it: the corrected line, or the command that writes it.
    pub help: Option<String>,
    /// The label of the marked place.
    pub label: Option<String>,
    /// The source line, with private keys hidden.
    pub snippet: Option<Snippet>,
}

impl Finding {
    /// Reports `message` at `origin`, with the code's own severity.
    pub fn new(code: Code, origin: Origin, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            origin,
            message: message.into(),
            key: None,
            help: None,
            label: None,
            snippet: None,
        }
    }

    /// Sets a severity other than the code's own.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets the name of the setting.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the help: the corrected line, or the command that writes it.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the label of the marked place.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the source line to show.
    pub fn with_snippet(mut self, snippet: Option<Snippet>) -> Self {
        self.snippet = snippet;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (severity, code, origin) = (self.severity, self.code, &self.origin);
        write!(f, "{severity}[{code}]: {} ({origin})", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// All findings of a run, not just the first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    /// Sorts by file, line and column. Findings of the same place keep their order.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| a.origin.cmp(&b.origin));
    }

    /// Returns the number of errors. `run` refuses a file with any.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// Returns the number of warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|f| f.severity == severity).count()
    }
}

impl Deref for Findings {
    type Target = [Finding];

    fn deref(&self) -> &[Finding] {
        &self.0
    }
}

/// A source line with private keys left out, and the marked part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// The line number, counted from 1.
    pub line: u32,
    /// The line as it may be shown.
    pub text: String,
    /// The marked characters of `text`, counted from 0.
    pub marked: Range<usize>,
    /// Whether anything is hidden.
    pub hides: bool,
}

impl Snippet {
    /// Makes a snippet of line `line` (counted from 1) that marks the bytes `marked` of `text` and
    /// hides the bytes `secret`.
    ///
    /// Every other part that may belong to a private key is hidden too, unless it is known to be
    /// `public`. A long line is cut around the mark, control characters become `·`.
    pub fn new(
        line: u32,
        text: &str,
        marked: Range<usize>,
        secret: &[Range<usize>],
        public: &Public,
    ) -> Self {
        let mut hidden = secret.to_vec();
        hidden.extend(hidden_in_line(text, public));
        hidden.sort_by_key(|range| range.start);
        let (text, marked) = cut(&pieces(text, &hidden), &marked);
        Self {
            line,
            text,
            marked,
            hides: !hidden.is_empty(),
        }
    }
}

/// Widest snippet, in characters.
const WIDEST: usize = 400;

/// Joins the pieces, cut around the mark, and finds the mark in the result.
fn cut(pieces: &[(char, usize)], marked: &Range<usize>) -> (String, Range<usize>) {
    let first = pieces.partition_point(|(_, at)| *at < marked.start);
    let last = pieces
        .partition_point(|(_, at)| *at < marked.end)
        .max(first);
    let latest = pieces.len().saturating_sub(WIDEST);
    let from = first.saturating_sub(WIDEST / 4).min(latest);
    let to = pieces.len().min(from.saturating_add(WIDEST));
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    let lead = usize::from(from > 0);
    let shown = pieces.get(from..to).unwrap_or_default();
    let characters = shown.iter().map(|(character, _)| *character);
    text.extend(characters.map(|c| if misleads(c) { '·' } else { c }));
    if to < pieces.len() {
        text.push('…');
    }
    let [start, end] = [first, last].map(|at| at.min(to).saturating_sub(from).saturating_add(lead));
    (text, start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, line: u32, column: u32) -> Origin {
        let path = Path::new(path).into();
        Origin::File { path, line, column }
    }

    #[test]
    fn finding_prints_what_where_and_the_fix_in_one_line() {
        let finding = Finding::new(Code::Cs0105, at("a.properties", 3, 7), "a trailing blank")
            .with_help("remove it");

        assert_eq!(
            finding.to_string(),
            "warning[CS0105]: a trailing blank (a.properties:3:7); remove it"
        );
    }

    #[test]
    fn findings_come_in_order_of_file_line_and_column() {
        let places = [
            at("b", 1, 1),
            at("a", 10, 1),
            at("a", 2, 9),
            at("a", 2, 3),
            Origin::Default,
        ];
        let found = places.map(|origin| Finding::new(Code::Cs0306, origin, "x"));
        let mut findings = Findings(found.into());

        findings.sort();

        let order: Vec<_> = findings.iter().map(|f| f.origin.to_string()).collect();
        assert_eq!(order, ["a:2:3", "a:2:9", "a:10:1", "b:1:1", "default"]);
        assert_eq!((findings.errors(), findings.warnings()), (5, 0));
    }

    #[test]
    fn snippet_marks_the_same_characters_after_a_redaction() {
        let text = format!("key={} tail", "A".repeat(100));

        let snippet = Snippet::new(1, &text, 105..109, &[], &Public::default());

        assert_eq!(snippet.text, "key=«hidden, 100 chars» tail");
        assert_eq!(snippet.marked, 24..28);
    }

    #[test]
    fn snippet_hides_the_given_secret() {
        let key = 4..11;

        let snippet = Snippet::new(
            1,
            "key=c2hvcnQ",
            0..3,
            std::slice::from_ref(&key),
            &Public::default(),
        );

        assert_eq!(snippet.text, "key=«hidden, 7 chars»");
        assert_eq!(snippet.marked, 0..3);
    }

    #[test]
    fn long_line_is_cut_around_the_mark() {
        let text = "a b ".repeat(10_000);

        let snippet = Snippet::new(1, &text, 20_000..20_001, &[], &Public::default());

        assert!(snippet.text.chars().count() <= WIDEST + 2);
        let marked: String = snippet
            .text
            .chars()
            .skip(snippet.marked.start)
            .take(1)
            .collect();
        assert_eq!(marked, "a");
    }
}
