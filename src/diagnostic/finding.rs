//! The closed list of codes, whose long explanations are in `explain/`, one file each; one finding
//! with the line that it shows, and all of them.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::CommandLine;
use super::redact::{Public, hidden_in_line, misleads, pieces};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, but probably not as intended.
    Warning,
    /// Refused by `run`.
    Error,
}

impl Severity {
    /// Returns `note`, `warning` or `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct Entry {
    text: &'static str,
    severity: Severity,
    title: &'static str,
    explanation: &'static str,
}

macro_rules! codes {
    ($($name:ident $text:literal $severity:ident $title:literal;)*) => {
        /// The kind of a finding. Codes are stable: scripts and searches rely on them.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        text: $text,
                        severity: Severity::$severity,
                        title: $title,
                        explanation: include_str!(concat!("explain/", $text, ".md")),
                    },)*
                }
            }
        }
    };
}

codes! {
    Cs0101 "CS0101" Error "text that cannot be read: a malformed escape or bytes that are not text";
    Cs0102 "CS0102" Warning "a byte order mark at the start of the file";
    Cs0103 "CS0103" Warning "a name given twice";
    Cs0104 "CS0104" Error "a value broken over several lines";
    Cs0105 "CS0105" Warning "a trailing blank or a comment inside a value";
    Cs0106 "CS0106" Error "an unknown name";
    Cs0107 "CS0107" Warning "a name that looks like a misspelt prefix of ours";
    Cs0108 "CS0108" Warning "files that others can read or replace";
    Cs0109 "CS0109" Error "a list index that leaves a gap, is negative or too large";
    Cs0110 "CS0110" Note "a backslash that was read as an escape";
    Cs0111 "CS0111" Error "a placeholder that cannot be resolved";
    Cs0112 "CS0112" Error "a source that Spring Boot would apply and countersign cannot";
    Cs0201 "CS0201" Error "`content` is not a valid public P-256 JWK";
    Cs0202 "CS0202" Error "`fingerprint` is not the fingerprint of `content`";
    Cs0203 "CS0203" Error "a private key in a peer's `content`";
    Cs0204 "CS0204" Error "the module's own key has no usable private part";
    Cs0205 "CS0205" Note "an unusual but consistent key";
    Cs0206 "CS0206" Error "the own key's setting has a value of the wrong kind";
    Cs0207 "CS0207" Error "the module trusts its own key";
    Cs0208 "CS0208" Error "one key or key id in two places";
    Cs0209 "CS0209" Warning "a published key";
    Cs0210 "CS0210" Error "a revoked key that is trusted again";
    Cs0301 "CS0301" Error "a required setting is missing or a name is not allowed";
    Cs0302 "CS0302" Warning "every key of a deployment is revoked";
    Cs0303 "CS0303" Warning "a deployment without the impersonation role";
    Cs0304 "CS0304" Error "two names that differ only in case or dashes";
    Cs0305 "CS0305" Note "a recognised setting that is not used";
    Cs0306 "CS0306" Error "a value of a wrong type or out of range";
    Cs0307 "CS0307" Error "an address that is not served, or plaintext beyond this machine";
    Cs0308 "CS0308" Error "a certificate that peers refuse, or soon will";
    Cs0309 "CS0309" Error "more active keys of a deployment than a token can name";
    Cs0401 "CS0401" Error "the other file does not trust this key";
    Cs0402 "CS0402" Error "the other file trusts this key as revoked";
    Cs0403 "CS0403" Warning "a name or environment that differs between the files";
    Cs0404 "CS0404" Error "both modules share one private key";
    Cs0405 "CS0405" Error "TLS settings that do not match";
    Cs0406 "CS0406" Warning "message sizes that do not fit";
}

impl Code {
    /// Finds a code by its text in any case, such as `cs0201`.
    pub fn find(text: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// Returns the code as printed, such as `CS0201`.
    pub const fn as_str(self) -> &'static str {
        self.entry().text
    }

    /// Returns the command that prints the explanation.
    pub(crate) fn explain(self) -> CommandLine {
        CommandLine::new("countersign explain").arg(self.as_str())
    }

    /// Returns the default severity of a finding with this code.
    pub const fn severity(self) -> Severity {
        self.entry().severity
    }

    /// Returns what the code means, in one line.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// Returns what it means, why it matters, how to fix it, and an example.
    pub const fn explanation(self) -> &'static str {
        self.entry().explanation
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

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

    /// Makes it an error if `is_error`, else a warning.
    pub(crate) fn error_if(self, is_error: bool) -> Self {
        use Severity::{Error, Warning};

        self.with_severity(if is_error { Error } else { Warning })
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

    pub(crate) fn count(&self, severity: Severity) -> usize {
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

    #[test]
    fn every_code_is_explained_with_why_fix_and_example() {
        for code in Code::ALL {
            let text = code.explanation();
            assert!(text.starts_with(code.as_str()), "{code}");
            for part in ["Why: ", "Fix: ", "Example:"] {
                assert!(text.contains(part), "{code} lacks {part:?}");
            }
        }
    }

    #[test]
    fn codes_are_read_as_they_are_printed() {
        for code in Code::ALL {
            assert_eq!(Code::find(&code.to_string()), Some(*code));
        }
        assert_eq!(Code::find("cs0201"), Some(Code::Cs0201));
        assert_eq!(Code::find("CS0999"), None);
    }

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
