//! `countersign explain`: what a code or a reason means, without a network.

use clap::Args;
use serde::Serialize;

use super::Answer;
use super::output::{Console, Exit, Failure, Format};
use crate::diagnostic::{Code, quote};
use crate::properties::name::distance;
use crate::token::Reason;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A finding's code or a refusal's reason
    #[arg(value_name = "CODE|REASON")]
    word: String,
}

const EXAMPLES: &str = "\
Examples:
  $ countersign explain CS0202
  $ countersign explain KEY_UNKNOWN";

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
    help: &'static str,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let word = arguments.word.trim().to_ascii_uppercase().replace('-', "_");
    if let Ok(code) = word.parse::<Code>() {
        explain_code(code, console)?;
    } else if let Ok(reason) = word.parse::<Reason>() {
        explain_reason(reason, console)?;
    } else {
        return Err(unknown(&word));
    }
    Ok(Exit::Done)
}

fn explain_code(code: Code, console: &Console) -> Result<(), Failure> {
    match console.format() {
        Format::Text => console.answer(format!("{}\n", code.explanation().trim_end())),
        Format::Json => console.json(&ExplainedCode {
            code: code.as_str(),
            severity: code.severity().as_str(),
            title: code.title(),
            explanation: code.explanation(),
        }),
    }
}

fn explain_reason(reason: Reason, console: &Console) -> Result<(), Failure> {
    let (word, summary, help) = (reason.as_str(), reason.summary(), reason.help());
    match console.format() {
        Format::Text => console.answer(format!("{word}: {summary}\n\n{}\n", wrap(help))),
        Format::Json => console.json(&ExplainedReason {
            reason: word,
            summary,
            help,
        }),
    }
}

fn unknown(word: &str) -> Failure {
    let known = Code::ALL
        .iter()
        .map(|code| code.as_str())
        .chain(Reason::ALL.iter().map(|reason| reason.as_str()));
    let nearest = known
        .map(|known| (distance(word, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len() / 3);
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
