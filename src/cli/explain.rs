//! `countersign explain`: what a code or a reason means, without a network.

use std::fmt::{self, Display, Formatter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::output::{Answer, Console, Exit, Failure};
use crate::admin::rejection::{self, Rejection};
use crate::diagnostic::{Code, quote};
use crate::properties::name::distance_up_to;
use crate::telemetry::UntrustedReason;
use crate::token::{Reason, Story};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A finding's code or a refusal's reason
    #[arg(value_name = "CODE|REASON", required_unless_present = "log")]
    word: Option<String>,
    /// A module's JSON log, or its folder: explains the newest refusal that it tells of, by the
    /// module or of it
    #[arg(long, value_name = "FILE", conflicts_with = "word")]
    log: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  $ countersign explain CS0202
  $ countersign explain KEY_UNKNOWN
  $ countersign explain --log dpm/log";

#[derive(Serialize)]
struct ExplainedCode {
    code: &'static str,
    severity: &'static str,
    title: &'static str,
    explanation: &'static str,
}

#[derive(Serialize)]
struct ExplainedReason {
    reason: &'static str,
    summary: &'static str,
    rule: &'static str,
    causes: &'static [&'static str],
    help: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

/// The members of a refusal in a log.
#[derive(Serialize)]
pub(super) struct Seen {
    file: String,
    side: &'static str,
    refused: &'static str,
    event: Option<String>,
    time: Option<String>,
    reason: Option<String>,
    dpm: Option<String>,
    engine: Option<String>,
    fingerprint: Option<String>,
    peer: Option<String>,
    method: Option<String>,
    detail: Option<String>,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(log) = &arguments.log {
        let rejection = newest(log, rejection::REFUSED)?;
        match rejection.reason() {
            Some(reason) => explain_reason(reason, Some(&rejection), console)?,
            // A registration may be refused for other reasons, and its line says what to do.
            None if rejection.is_of_registration() => {
                let seen = Seen::of(&rejection);
                console.reply(seen.to_string(), &serde_json::json!({ "seen": seen }))?;
            }
            None => return Err(no_reason(&rejection)),
        }
        return Ok(Exit::Done);
    }
    let word = arguments.word.as_deref().unwrap_or_default();
    let word = word.trim().to_ascii_uppercase().replace('-', "_");
    if let Ok(code) = word.parse::<Code>() {
        explain_code(code, console)?;
    } else if let Ok(reason) = word.parse::<Reason>() {
        explain_reason(reason, None, console)?;
    } else {
        return Err(unknown(&word));
    }
    Ok(Exit::Done)
}

fn explain_code(code: Code, console: &Console) -> Result<(), Failure> {
    let json = ExplainedCode {
        code: code.as_str(),
        severity: code.severity().as_str(),
        title: code.title(),
        explanation: code.explanation(),
    };
    console.reply(format!("{}\n", code.explanation().trim_end()), &json)
}

fn explain_reason(
    reason: Reason,
    rejection: Option<&Rejection>,
    console: &Console,
) -> Result<(), Failure> {
    let Story { rule, causes, .. } = *reason.story();
    let json = ExplainedReason {
        reason: reason.as_str(),
        summary: reason.summary(),
        rule,
        causes,
        help: reason.help_for(rejection.is_some_and(Rejection::clocks_differ)),
        seen: rejection.map(Seen::of),
    };
    let mut text = json
        .seen
        .as_ref()
        .map_or_else(String::new, |seen| format!("{seen}\n"));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{reason}: {}\n\nThe rule:\n{}\n\nUsual causes:",
        json.summary,
        wrap(rule)
    );
    for cause in causes {
        let _ = writeln!(text, "  - {cause}");
    }
    let _ = writeln!(text, "\nWhat to do:\n{}", wrap(json.help));
    console.reply(text, &json)
}

impl Seen {
    pub(super) fn of(rejection: &Rejection) -> Self {
        // A log may hold anything, and a terminal must not obey it.
        let member = |name| Some(UntrustedReason(rejection.text(name)?).to_string());
        let (side, refused) = rejection.side();
        Self {
            file: rejection.file.display().to_string(),
            side,
            refused,
            event: member("eventId"),
            time: member("@timestamp"),
            reason: member("reason"),
            dpm: member("dpmUrl"),
            engine: member("engine"),
            fingerprint: member("fingerprint"),
            peer: member("peer"),
            method: member("method"),
            detail: member("detail"),
        }
    }
}

/// Finds the newest refusal in a log that is one of `events`.
pub(super) fn newest(log: &Path, events: &[&str]) -> Result<Rejection, Failure> {
    let log = rejection::log_of(log);
    let shown = log.display();
    let found = rejection::newest(&log, events).map_err(|error| {
        Failure::caused(Exit::Unreadable, &format!("cannot read `{shown}`"), &error)
    })?;
    found.ok_or_else(|| {
        Failure::new(Exit::No, format!("`{shown}` tells of no refusal"))
            .with_help("read were the last 16 MiB of it, and of each file rolled away from it")
    })
}

/// Returns the reason of a refusal in a log.
pub(super) fn reason(rejection: &Rejection) -> Result<Reason, Failure> {
    rejection.reason().ok_or_else(|| no_reason(rejection))
}

fn no_reason(rejection: &Rejection) -> Failure {
    let word = rejection.text("reason").unwrap_or_default();
    let message = format!(
        "the log's newest refusal has the reason {}, which is not in the list",
        quote(word)
    );
    Failure::new(Exit::No, message).with_help("another version may have written it")
}

impl Display for Seen {
    /// Writes what a log says of a refusal, a member per line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "the newest refusal in {}", self.file)?;
        writeln!(f, "  {:<12} {}: {}", "refused", self.side, self.refused)?;
        let members = [
            ("time", &self.time),
            ("reason", &self.reason),
            ("dpm", &self.dpm),
            ("engine", &self.engine),
            ("fingerprint", &self.fingerprint),
            ("peer", &self.peer),
            ("method", &self.method),
            ("detail", &self.detail),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                writeln!(f, "  {name:<12} {value}")?;
            }
        }
        Ok(())
    }
}

fn unknown(word: &str) -> Failure {
    let known = Code::ALL
        .iter()
        .map(|code| code.as_str())
        .chain(Reason::ALL.iter().map(|reason| reason.as_str()));
    let nearest = known
        .filter_map(|known| Some((distance_up_to(known.len() / 3, word, known)?, known)))
        .min_by_key(|(distance, _)| *distance);
    let failure = Failure::new(
        Exit::Usage,
        format!("{} is neither a code nor a reason", quote(word)),
    );
    match nearest {
        Some((_, nearest)) => failure.with_help(format!("did you mean `{nearest}`?")),
        None => failure
            .with_help("codes run from CS0101 to CS0406; reasons are words such as TOKEN_EXPIRED"),
    }
}

/// Breaks `text` into lines of at most 80 characters at its blanks.
fn wrap(text: &str) -> String {
    const WIDTH: usize = 80;
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}
