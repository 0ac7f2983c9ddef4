//! Where a command writes and how it ends: stdout is the answer, stderr is the rest.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin as Place, Renderer, Snippet as Shown};
use clap::{ColorChoice, ValueEnum};
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
#[derive(Debug)]
pub(super) struct Console {
    /// How the answer is to be written.
    pub(super) format: Format,
    /// Whether the answer on stdout has colours.
    answer_coloured: bool,
    /// Whether stderr has colours.
    coloured: bool,
}

impl Console {
    pub(super) fn new(format: Format, colour: ColorChoice) -> Self {
        // The convention of no-color.org: set and not empty. It is not a setting of this program.
        let no_color = std::env::var_os("NO_COLOR").unwrap_or_default();
        let (may, must) = match colour {
            ColorChoice::Always => (true, true),
            ColorChoice::Never => (false, false),
            ColorChoice::Auto => (no_color.is_empty(), false),
        };
        Self {
            format,
            answer_coloured: must || may && io::stdout().is_terminal(),
            coloured: must || may && io::stderr().is_terminal(),
        }
    }

    /// Returns `true` if the answer goes to a terminal.
    pub(super) fn answer_is_seen() -> bool {
        io::stdout().is_terminal()
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

    /// Warns beside the answer.
    pub(super) fn warn(&self, line: &str) {
        self.labelled("warning:", "33;1", line);
    }

    /// Remarks beside the answer.
    pub(super) fn note(&self, line: &str) {
        self.labelled("note:", "1", line);
    }

    /// Renders a finding that is part of the answer.
    pub(super) fn shown(&self, finding: &Finding) -> String {
        rendered(finding, self.answer_coloured)
    }

    /// Shows findings beside the answer.
    pub(super) fn findings<'a>(&self, findings: impl IntoIterator<Item = &'a Finding>) {
        for finding in findings {
            self.print(&rendered(finding, self.coloured));
        }
    }

    /// Says why the command ended early.
    pub(super) fn fail(&self, refused: &Refused) -> Exit {
        self.findings(refused.findings.iter());
        if self.format == Format::Json {
            let help = refused.help.as_deref().map(redact);
            let commands: Vec<_> = refused.commands.iter().map(ToString::to_string).collect();
            let error = redact(&cause(refused));
            let answer = json!({ "error": error, "help": help, "commands": commands });
            self.print(&escaped(&answer.to_string()));
            return refused.into();
        }
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
pub(super) fn usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    let safe = visible(&redact(&text));
    let is_usage = error.use_stderr();
    // A closed pipe is not a failure.
    let _ = if is_usage && safe != text {
        write!(io::stderr().lock(), "{safe}")
    } else {
        error.print()
    };
    if is_usage { Exit::Usage } else { Exit::Done }
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

/// Renders `finding`, over several lines, without a line end.
fn rendered(finding: &Finding, coloured: bool) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level
        .primary_title(visible(&finding.message))
        .id(finding.code.as_str());
    let mut group = title.element(place(&finding.origin));
    if let Some(snippet) = snippet(finding) {
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

/// Shows the line; its text is already short and holds no private key.
fn snippet(finding: &Finding) -> Option<Shown<'_, annotate_snippets::Annotation<'_>>> {
    let snippet = finding.snippet.as_ref()?;
    let [start, end] = [snippet.marked.start, snippet.marked.end].map(|character| {
        let place = snippet.text.char_indices().nth(character);
        place.map_or_else(|| snippet.text.len(), |(at, _)| at)
    });
    let mut annotation = AnnotationKind::Primary.span(start..end);
    if let Some(label) = &finding.label {
        annotation = annotation.label(label);
    }
    let line = usize::try_from(snippet.line).unwrap_or(usize::MAX);
    Some(
        Shown::source(&snippet.text)
            .line_start(line)
            .annotation(annotation),
    )
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

        let shown = rendered(&found, false);

        let expected = r#"error[CS0201]: `content` is not valid JSON
 --> dpe/etc/application.properties:4:74
  |
4 | jwt-keys.key.content={kty":"EC",crv":"P-256"}
  |                       ^^^ expected `"` before `kty`
  |
  = help: put the quote back"#;
        assert_eq!(shown, expected);
        let coloured = rendered(&found, true);
        let mut parts = coloured.split('\u{1b}');
        let mut uncoloured = parts.next().unwrap().to_owned();
        for part in parts {
            uncoloured += part.split_once('m').unwrap().1;
        }
        assert_eq!(uncoloured, expected);
    }

    #[test]
    fn a_finding_elsewhere_names_the_place() {
        let origin = Origin::Environment("SERVER_PORT".into());
        let shown = rendered(&Finding::new(Code::Cs0306, origin, "not a port"), false);

        assert_eq!(
            shown,
            "error[CS0306]: not a port\n--> environment variable SERVER_PORT"
        );
    }
}
