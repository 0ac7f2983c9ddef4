//! `countersign explain`: what a code or a reason means, without a network.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::output::{Answer, Console, Kind, Refused, add};
use crate::admin::rejection::{self, Rejection};
use crate::diagnostic::{Code, quote};
use crate::properties::name::distance_up_to;
use crate::telemetry::UntrustedReason;
use crate::token::Reason;

#[derive(Args, Debug)]
#[command(after_help = include_str!("help/explain.txt"))]
pub(super) struct Arguments {
    /// A finding's code or a refusal's reason
    #[arg(value_name = "CODE|REASON", required_unless_present = "log")]
    word: Option<String>,
    /// A module's JSON log, or its folder: explains the newest refusal in it, by this
    /// module or by its peer
    #[arg(long, value_name = "FILE", conflicts_with = "word")]
    log: Option<PathBuf>,
}

/// The members of a refusal in the log that are shown, with the names under which they are.
const MEMBERS: [(&str, &str); 9] = [
    ("event", "eventId"),
    ("time", "@timestamp"),
    ("reason", "reason"),
    ("dpm", "dpmUrl"),
    ("engine", "engine"),
    ("fingerprint", "fingerprint"),
    ("peer", "peer"),
    ("method", "method"),
    ("detail", "detail"),
];

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(log) = &arguments.log {
        let rejection = newest(log, rejection::REFUSED)?;
        // A registration may be refused for other reasons, and its line says what to do.
        if rejection.reason().is_none() && rejection.is_of_registration() {
            let seen = json!({ "seen": seen_in_json(&rejection) });
            return console.reply(seen_in_words(&rejection), &seen);
        }
        return explain_reason(reason(&rejection)?, Some(&rejection), console);
    }
    let named = arguments.word.as_deref().unwrap_or_default();
    let word = named.trim().to_ascii_uppercase().replace('-', "_");
    if let Some(code) = Code::find(&word) {
        explain_code(code, console)
    } else if let Ok(reason) = word.parse::<Reason>() {
        explain_reason(reason, None, console)
    } else {
        Err(unknown(&word))
    }
}

fn explain_code(code: Code, console: &Console) -> Answer {
    let members = json!({
        "code": code.as_str(),
        "severity": code.severity().as_str(),
        "title": code.title(),
        "explanation": code.explanation(),
    });
    console.reply(format!("{}\n", code.explanation().trim_end()), &members)
}

fn explain_reason(reason: Reason, rejection: Option<&Rejection>, console: &Console) -> Answer {
    let [rule, causes, _] = reason.story();
    let help = reason.help_for(rejection.is_some_and(Rejection::clocks_differ));
    let mut story = json!({
        "reason": reason.as_str(),
        "summary": reason.summary(),
        "rule": rule,
        "causes": causes.lines().collect::<Vec<_>>(),
        "help": help,
    });
    let mut text = String::new();
    if let Some(rejection) = rejection {
        add(&mut story, "seen", seen_in_json(rejection));
        text = seen_in_words(rejection) + "\n";
    }
    let (summary, rule) = (reason.summary(), wrap(rule));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{reason}: {summary}\n\nThe rule:\n{rule}\n\nUsual causes:"
    );
    for cause in causes.lines() {
        let _ = writeln!(text, "  - {cause}");
    }
    let _ = writeln!(text, "\nWhat to do:\n{}", wrap(help));
    console.reply(text, &story)
}

/// Returns the members of a refusal that the log has. A log may hold anything, and a terminal must
/// not interpret it.
fn members(rejection: &Rejection) -> impl Iterator<Item = (&'static str, Option<String>)> {
    MEMBERS.into_iter().map(|(name, member)| {
        let value = rejection.text(member).map(UntrustedReason);
        (name, value.map(|value| value.to_string()))
    })
}

fn seen_in_json(rejection: &Rejection) -> Value {
    let (side, refused) = rejection.side();
    let file = rejection.file.display().to_string();
    let mut seen = json!({ "file": file, "side": side, "refused": refused });
    for (name, value) in members(rejection) {
        add(&mut seen, name, value);
    }
    seen
}

/// Writes what a log says of a refusal, a member per line.
pub(super) fn seen_in_words(rejection: &Rejection) -> String {
    let (side, refused) = rejection.side();
    let file = rejection.file.display();
    let mut text = format!("the newest refusal in {file}\n  refused      {side}: {refused}\n");
    for (name, value) in members(rejection).filter(|(name, _)| *name != "event") {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<12} {value}");
        }
    }
    text
}

/// Finds the newest refusal in a log that is one of `events`.
pub(super) fn newest(log: &Path, events: &[&str]) -> Result<Rejection, Refused> {
    let log = rejection::log_of(log);
    let shown = log.display();
    let what = format!("cannot read `{shown}`");
    let found = rejection::newest(&log, events).map_err(Refused::caused(Kind::Unreadable, what))?;
    found.ok_or_else(|| {
        Refused::new(Kind::Conflict, format!("`{shown}` has no refusal"))
            .with_help("only the last 16 MiB of the log and of each older log file were read")
    })
}

/// Returns the reason of a refusal in a log.
pub(super) fn reason(rejection: &Rejection) -> Result<Reason, Refused> {
    rejection.reason().ok_or_else(|| {
        let word = quote(rejection.text("reason").unwrap_or_default());
        let message =
            format!("the log's newest refusal has the reason {word}, which is not in the list");
        Refused::new(Kind::Conflict, message).with_help("another version may have written it")
    })
}

fn unknown(word: &str) -> Refused {
    let known = Code::ALL
        .iter()
        .map(|code| code.as_str())
        .chain(Reason::ALL.iter().map(|reason| reason.as_str()));
    let nearest = known
        .filter_map(|known| Some((distance_up_to(known.len() / 3, word, known)?, known)))
        .min_by_key(|(distance, _)| *distance);
    let message = format!("{} is neither a code nor a reason", quote(word));
    let failure = Refused::new(Kind::Usage, message);
    match nearest {
        Some((_, nearest)) => failure.with_help(format!("did you mean `{nearest}`?")),
        None => failure
            .with_help("codes run from CS0101 to CS0406; reasons are words such as TOKEN_EXPIRED"),
    }
}

/// Breaks `text` into lines of at most 80 characters at its blanks.
pub(super) fn wrap(text: &str) -> String {
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
