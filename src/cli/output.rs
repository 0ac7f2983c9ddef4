//! Where a command writes and how it ends: stdout is the answer, stderr is the rest.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::iter;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{self as render, AnnotationKind, Level, Origin as Place, Renderer};
use clap::error::{ContextKind, ContextValue};
use clap::{ColorChoice, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use crate::admin::{Kind, Refused};
use crate::diagnostic::{Finding, Origin, Severity, misleads, redact, visible};
use crate::grpc::cause;

/// What a command ends with.
pub(super) type Answer = Result<Exit, Refused>;

/// How a command ends. The numbers are stable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done = 0,
    /// The answer is no: problems were found, a token was refused.
    No = 1,
    /// The command was used wrongly.
    Usage = 2,
    /// A file or setting cannot be read.
    Unreadable = 3,
    /// The peer refused.
    Refused = 4,
    /// The peer cannot be reached.
    Unreachable = 5,
    /// Something would be overwritten.
    WouldOverwrite = 6,
    /// A bug in countersign.
    Bug = 70,
    /// Ended by SIGINT before it was done.
    Interrupted = 130,
    /// Ended by SIGTERM before it was done.
    Terminated = 143,
}

impl Exit {
    /// Returns the end of a command whose answer is yes or no.
    pub(super) fn yes(is_yes: bool) -> Self {
        if is_yes { Self::Done } else { Self::No }
    }
}

impl From<&Refused> for Exit {
    fn from(refused: &Refused) -> Self {
        match refused.kind() {
            Kind::Usage => Self::Usage,
            Kind::Taken
            | Kind::OtherKey(_)
            | Kind::OtherOwner { .. }
            | Kind::Busy
            | Kind::Changed => Self::WouldOverwrite,
            Kind::Conflict | Kind::NotThere | Kind::CutOff | Kind::OutOfTurn(_) => Self::No,
            Kind::Unreadable | Kind::NotWritten => Self::Unreadable,
            Kind::Denied => Self::Refused,
            Kind::Unreachable => Self::Unreachable,
            Kind::Internal => Self::Bug,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// Returns the example in the help of a command.
pub(super) fn example(command: &str) -> String {
    format!("Example:\n  $ countersign {command}")
}

/// Returns `1 error`, `2 errors`.
pub(super) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Writes `rows` in columns, the first of them as the head.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line = cells.map(|(cell, width)| format!("{cell:<width$}  "));
        text += line.collect::<String>().trim_end();
        text.push('\n');
    }
    text
}

/// The two streams of a command.
#[derive(Clone, Debug)]
pub(super) struct Console {
    /// How the answer is to be written.
    pub(super) format: Format,
    /// Whether the answer on stdout has colours.
    answer_coloured: bool,
    /// Whether stderr has colours.
    coloured: bool,
    /// How many characters a line of the answer may have: those of the terminal that shows it.
    pub(super) width: usize,
}

impl Console {
    pub(super) fn new(format: Format, colour: ColorChoice) -> Self {
        // The convention of no-color.org: set and not empty. It is not a setting of this program.
        let no_color = env::var_os("NO_COLOR").unwrap_or_default();
        let (may, must) = match colour {
            ColorChoice::Always => (true, true),
            ColorChoice::Never => (false, false),
            ColorChoice::Auto => (no_color.is_empty(), false),
        };
        Self {
            format,
            answer_coloured: must || may && io::stdout().is_terminal(),
            coloured: must || may && io::stderr().is_terminal(),
            width: tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| match size.ws_col {
                // It does not know.
                0 => usize::MAX,
                columns => usize::from(columns).max(40),
            }),
        }
    }

    /// Returns `text` of the answer in a `style` of the terminal, if the answer has colours.
    pub(super) fn styled(&self, style: &str, text: &str) -> String {
        if self.answer_coloured {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Returns `true` if the answer goes to a terminal.
    pub(super) fn answer_is_seen() -> bool {
        io::stdout().is_terminal()
    }

    /// Returns `true` if the reader of a pipe at stdout is gone.
    pub(super) fn has_no_reader() -> bool {
        let stdout = io::stdout();
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|found| found > 0)
    }

    /// Writes the answer as it is. A closed pipe is not a failure.
    #[expect(clippy::unused_self, reason = "only a holder of the console writes")]
    pub(super) fn answer(&self, text: impl AsRef<[u8]>) -> Answer {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_ref());
        match written.and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Refused::caused(Kind::Unreadable, "cannot write the answer")(error))
            }
            _ => Ok(Exit::Done),
        }
    }

    /// Writes the answer as JSON.
    pub(super) fn json(&self, answer: &impl Serialize) -> Answer {
        self.answer(serialized(serde_json::to_string_pretty(answer))? + "\n")
    }

    /// Writes the answer in the form that was asked for.
    pub(super) fn reply(&self, text: impl AsRef<str>, json: &impl Serialize) -> Answer {
        match self.format {
            Format::Text => self.answer(visible(text.as_ref())),
            Format::Json => self.json(json),
        }
    }

    /// Says `line` beside the answer, redacted: arguments and causes may have a key in them.
    pub(super) fn say(&self, line: &str) {
        self.present(&redact(line));
    }

    /// Prints a text that is safe without redaction, such as one with public keys.
    pub(super) fn present(&self, text: &str) {
        self.print(&visible(text));
    }

    /// Prints a text whose only control characters are our own. A failure to print is ignored.
    #[expect(clippy::unused_self, reason = "only a holder of the console writes")]
    fn print(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Shows `text` on a terminal in place of the last one, without a line end; nowhere else.
    #[expect(clippy::unused_self, reason = "only a holder of the console writes")]
    pub(super) fn progress(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\u{1b}[K{text}");
        }
    }

    /// Warns beside the answer.
    pub(super) fn warn(&self, line: &str) {
        self.labelled("warning:", "33;1", line);
    }

    /// Remarks beside the answer.
    pub(super) fn note(&self, line: &str) {
        self.labelled("note:", "1", line);
    }

    /// Renders findings that are part of the answer, each with an empty line after it.
    pub(super) fn shown<'a>(&self, findings: impl Iterator<Item = &'a Finding>) -> String {
        let texts = rendered(findings, self.answer_coloured).into_iter();
        texts.map(|text| text + "\n\n").collect()
    }

    /// Shows findings beside the answer, without the notes.
    pub(super) fn findings<'a>(&self, findings: impl IntoIterator<Item = &'a Finding>) {
        let all = findings.into_iter();
        let shown = all.filter(|found| found.severity > Severity::Note);
        for text in rendered(shown, self.coloured) {
            self.print(&text);
        }
    }

    /// Says why the command ended early.
    pub(super) fn fail(&self, refused: &Refused) -> Exit {
        if self.format == Format::Json {
            let help = refused.help.as_deref().map(redact);
            let commands: Vec<_> = refused.commands.iter().map(ToString::to_string).collect();
            let found = refused.findings.iter();
            let findings = found.filter(|found| found.severity > Severity::Note);
            failed_in_json(&json!({
                "error": redact(&cause(refused)),
                "help": help,
                "commands": commands,
                "findings": findings.map(finding_in_json).collect::<Value>(),
            }));
            return refused.into();
        }
        self.findings(refused.findings.iter());
        self.labelled("error:", "31;1", &cause(refused));
        if let Some(help) = &refused.help {
            self.labelled("help:", "36;1", help);
        }
        for command in &refused.commands {
            self.present(&format!("  {command}"));
        }
        refused.into()
    }

    fn labelled(&self, label: &str, style: &str, line: &str) {
        let line = visible(&redact(line));
        if self.coloured {
            self.print(&format!("\u{1b}[{style}m{label}\u{1b}[0m {line}"));
        } else {
            self.print(&format!("{label} {line}"));
        }
    }
}

/// Prints what clap has to say: help and version are answers, the rest is a wrong use, and may
/// repeat an argument.
pub(super) fn usage(mut error: clap::Error) -> Exit {
    if let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
        && error.kind() == clap::error::ErrorKind::MissingRequiredArgument
        && missing.iter().any(|name| name.starts_with("--home "))
    {
        let tried =
            "`COUNTERSIGN_HOME` is not set, and this folder has no `etc/application.properties`";
        let tip = ContextValue::StyledStrs(vec![tried.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    let text = error.render().to_string();
    let safe = visible(&redact(&text));
    let is_usage = error.use_stderr();
    if is_usage && asks_for_json(&env::args_os().collect::<Vec<_>>()) {
        let (what, help) = safe.split_once("\n\n").unwrap_or((&safe, ""));
        let error = what.trim_start_matches("error: ").trim_end();
        failed_in_json(
            &json!({ "error": error, "help": help.trim_end(), "commands": [], "findings": [] }),
        );
        return Exit::Usage;
    }
    // A closed pipe is not a failure.
    let _ = if is_usage && safe != text {
        write!(io::stderr().lock(), "{safe}")
    } else {
        error.print()
    };
    if is_usage { Exit::Usage } else { Exit::Done }
}

/// Returns `true` if `arguments`, which have a fault, ask for JSON.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    words.any(|word| matches!(&*word, "-ojson" | "-o=json" | "--output=json"))
        || arguments.windows(2).any(|two| {
            let [name, value] = two else { return false };
            (name == "-o" || name == "--output") && value == "json"
        })
}

/// Writes on one line why a command failed. A failure to write is ignored.
fn failed_in_json(why: &Value) {
    let _ = writeln!(io::stderr().lock(), "{}", escaped(&why.to_string()));
}

/// Passes on `json`, unless the answer could not be written as JSON.
pub(super) fn serialized(json: serde_json::Result<String>) -> Result<String, Refused> {
    let json = json.map_err(Refused::caused(Kind::Internal, "cannot write the answer"))?;
    Ok(escaped(&json))
}

/// Escapes what serde leaves as it is and a terminal would interpret; it is only within strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !misleads(c) {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

/// Adds a member to a JSON object.
pub(super) fn add(json: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = json.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

/// Says that countersign has a bug, and how to report it.
pub(super) fn report_bug(panic: &PanicHookInfo<'_>) {
    let text = bug_report(panic);
    let _ = writeln!(io::stderr().lock(), "error: {text}");
}

/// Returns what there is to report of a panic.
pub(super) fn bug_report(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let message = match payload.downcast_ref::<String>() {
        Some(message) => message,
        None => payload.downcast_ref().copied().unwrap_or("no message"),
    };
    let place = panic.location().map(|place| format!(" at {place}"));
    bug(&redact(message), &place.unwrap_or_default())
}

fn bug(message: &str, place: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let message: String = message.chars().take(200).collect();
    format!(
        "this is a bug in countersign {version}: {}{place}\n\
         help: please report it with this text, the command, and what is special about its files; \
         leave out private keys",
        message.escape_debug()
    )
}

/// Returns a finding in JSON.
pub(super) fn finding_in_json(finding: &Finding) -> Value {
    let place = match &finding.origin {
        Origin::File { path, line, column } => Some((path.display().to_string(), *line, *column)),
        _ => None,
    };
    json!({
        "code": finding.code.as_str(),
        "severity": finding.severity.as_str(),
        "file": place.as_ref().map(|(path, ..)| path),
        "line": place.as_ref().map(|(_, line, _)| line),
        "column": place.as_ref().map(|(.., column)| column),
        "key": finding.key,
        "message": finding.message,
        "help": finding.help,
    })
}

/// Renders each finding, over several lines, without a line end. A line that several of them are
/// about is shown once, at the first, with the marks of all.
fn rendered<'a>(findings: impl Iterator<Item = &'a Finding>, coloured: bool) -> Vec<String> {
    let all: Vec<_> = findings.collect();
    let groups = all.chunk_by(|one, next| source(one).is_some() && source(one) == source(next));
    let blocks = groups.flat_map(|group| {
        let marked = iter::once(group).chain(iter::repeat(&[][..]));
        marked.zip(group)
    });
    let texts = blocks.map(|(marked, finding)| block(finding, marked, coloured));
    texts.collect()
}

/// Returns the file and the line that a finding shows, with its number.
fn source(finding: &Finding) -> Option<(&Path, u32, &str)> {
    match (&finding.origin, &finding.snippet) {
        (Origin::File { path, .. }, Some(shown)) => Some((path, shown.line, &shown.text)),
        _ => None,
    }
}

/// Renders `finding`, and the line of `marked` with their marks.
fn block(finding: &Finding, marked: &[&Finding], coloured: bool) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level
        .primary_title(visible(&finding.message))
        .id(finding.code.as_str());
    let mut group = title.element(place(&finding.origin));
    if let Some(snippet) = snippet(marked) {
        group = group.element(snippet);
    }
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(visible(help)));
    }
    let report = [group];
    let plain = Renderer::plain()
        .decor_style(DecorStyle::Ascii)
        .render(&report);
    let styled = Renderer::styled().decor_style(DecorStyle::Ascii);
    let text = if coloured {
        styled.render(&report)
    } else {
        plain.clone()
    };
    // A line that is shortened has another column than the file's, so place and line are two
    // elements for the renderer, and it marks the second as another file with `:::`.
    let lines = text.lines().zip(plain.lines());
    let shown = lines.filter(|(_, plain)| plain.trim() != ":::");
    shown.map(|(line, _)| line).collect::<Vec<_>>().join("\n")
}

fn place(origin: &Origin) -> Place<'static> {
    match origin {
        Origin::File { path, line, column } => Place::path(visible(&path.display().to_string()))
            .line(usize::try_from(*line).unwrap_or(usize::MAX))
            .char_column(usize::try_from(*column).unwrap_or(usize::MAX)),
        other => Place::path(visible(&other.to_string())),
    }
}

/// Shows the line that all of `findings` are about; its text is already short and holds no private
/// key.
fn snippet<'a>(findings: &[&'a Finding]) -> Option<render::Snippet<'a, render::Annotation<'a>>> {
    let shown = findings.first()?.snippet.as_ref()?;
    let line = usize::try_from(shown.line).unwrap_or(usize::MAX);
    let marks = findings.iter().enumerate().filter_map(|(n, finding)| {
        let marked = &finding.snippet.as_ref()?.marked;
        let [start, end] = [marked.start, marked.end].map(|character| {
            let place = shown.text.char_indices().nth(character);
            place.map_or_else(|| shown.text.len(), |(at, _)| at)
        });
        let (kind, label) = match n {
            0 => (AnnotationKind::Primary, finding.label.as_deref()),
            _ => (AnnotationKind::Context, Some(finding.code.as_str())),
        };
        Some(kind.span(start..end).label(label))
    });
    let source = render::Snippet::source(&shown.text).line_start(line);
    Some(source.annotations(marks))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::diagnostic::{Code, Public, Snippet};

    #[test]
    fn a_bug_says_where_and_how_to_report_and_no_key() {
        let text = bug(&redact(&"A".repeat(70)), " at src/x.rs:1:2");

        assert!(text.starts_with("this is a bug in countersign "), "{text}");
        assert!(
            text.contains(" at src/x.rs:1:2\nhelp: please report it"),
            "{text}"
        );
        assert!(!text.contains("AAAA"), "{text}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_reads_back_the_same() {
        let value = Value::String("\u{202e}gpj.exe\u{9b}2J\u{e0041}é\u{7f}".to_owned());
        let json = serde_json::to_string(&value).unwrap();

        let text = escaped(&json);

        assert_eq!(text, r#""\u202egpj.exe\u009b2J\udb40\udc41é\u007f""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes = [
            Exit::Done,
            Exit::No,
            Exit::Usage,
            Exit::Unreadable,
            Exit::Refused,
            Exit::Unreachable,
            Exit::WouldOverwrite,
            Exit::Bug,
            Exit::Interrupted,
            Exit::Terminated,
        ];
        let numbers = [0, 1, 2, 3, 4, 5, 6, 70, 130, 143];
        assert_eq!(codes.map(|exit| exit as u8), numbers);
    }

    fn alone(finding: &Finding, coloured: bool) -> String {
        rendered(iter::once(finding), coloured).concat()
    }

    #[test]
    fn a_finding_in_a_file_looks_like_rustc() {
        let origin = Origin::File {
            path: Path::new("dpe/etc/application.properties").into(),
            line: 4,
            column: 74,
        };
        let line = r#"jwt-keys.key.content={kty":"EC",crv":"P-256"}"#;
        let found = Finding::new(Code::Cs0201, origin, "`content` is not valid JSON")
            .with_label("expected `\"` before `kty`")
            .with_help("put the quote back")
            .with_snippet(Some(Snippet::new(4, line, 22..25, &[], &Public::default())));

        let shown = alone(&found, false);

        let expected = r#"error[CS0201]: `content` is not valid JSON
 --> dpe/etc/application.properties:4:74
  |
4 | jwt-keys.key.content={kty":"EC",crv":"P-256"}
  |                       ^^^ expected `"` before `kty`
  |
  = help: put the quote back"#;
        assert_eq!(shown, expected);
        let coloured = alone(&found, true);
        let mut parts = coloured.split('\u{1b}');
        let mut uncoloured = parts.next().unwrap().to_owned();
        for part in parts {
            uncoloured += part.split_once('m').unwrap().1;
        }
        assert_eq!(uncoloured, expected);
    }

    #[test]
    fn findings_share_the_line_that_they_show_and_no_other() {
        let found = |file: &str, line, text: &str, column: u32, severity| {
            let path = Path::new(file).into();
            let origin = Origin::File { path, line, column };
            let start = usize::try_from(column).unwrap() - 1;
            let snippet = Snippet::new(line, text, start..start + 2, &[], &Public::default());
            Finding::new(Code::Cs0306, origin, "x")
                .with_severity(severity)
                .with_snippet(Some(snippet))
        };
        let all = [
            found("a", 1, "one=12 34", 5, Severity::Error),
            found("a", 1, "one=12 34", 5, Severity::Note),
            found("a", 1, "one=12 34", 8, Severity::Warning),
            // The same text on another line, and the same line of another file.
            found("a", 2, "one=12 34", 5, Severity::Error),
            found("b", 2, "one=12 34", 5, Severity::Error),
            Finding::new(Code::Cs0306, Origin::SetOption, "x"),
            Finding::new(Code::Cs0306, Origin::SetOption, "x"),
        ];

        let shown = rendered(all.iter(), false);

        let lines = shown.iter().map(|text| text.matches("| one=12 34").count());
        assert_eq!(lines.collect::<Vec<_>>(), [1, 0, 0, 1, 1, 0, 0]);
        for (text, place) in shown
            .iter()
            .zip(["a:1:5", "a:1:5", "a:1:8", "a:2:5", "b:2:5"])
        {
            assert!(text.contains(&format!("--> {place}")), "{text}");
        }
        assert_eq!(shown[0].matches("CS0306").count(), 3, "{}", shown[0]);
        let coloured = rendered(all.iter(), true);
        assert_eq!(coloured.len(), shown.len());
    }

    #[test]
    fn a_finding_elsewhere_names_the_place() {
        let origin = Origin::Environment("SERVER_PORT".into());
        let shown = alone(&Finding::new(Code::Cs0306, origin, "not a port"), false);

        assert_eq!(
            shown,
            "error[CS0306]: not a port\n--> environment variable SERVER_PORT"
        );
    }
}
