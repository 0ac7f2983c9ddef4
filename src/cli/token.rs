//! `countersign token`: issue one, verify one, or ask rule by rule why one is refused.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::home::{HomeArguments, kind_of};
use super::output::{Console, Exit, Failure, Format};
use super::{Answer, input};
use crate::config::Settings;
use crate::grpc::{Module, cause};
use crate::jose::{Compact, compact, json};
use crate::token::{Accept, Reason, Refusal, Verdict};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issue a token of the module at --home for a deployment that it trusts
    #[command(after_help = "\
Example:
  $ countersign token issue --home dpe --audience dpm-dev | countersign token explain --home dpm

The token is a secret until it expires: whoever holds it can call as this module.")]
    Issue(Issue),
    /// Verify a token as the module at --home would: its claims and exit code 0, or 1
    #[command(after_help = "\
Example:
  $ countersign token verify --home dpm < token.txt")]
    Verify(Judge),
    /// Apply every rule to a token and say which fail, and how to mend them
    #[command(after_help = "\
Example:
  $ countersign token explain --home dpm --token-file token.txt")]
    Explain(Judge),
}

#[derive(Args, Debug)]
pub(super) struct Issue {
    #[command(flatten)]
    home: HomeArguments,
    /// The deployment that is to be called
    #[arg(long, value_name = "NAME")]
    audience: String,
}

#[derive(Args, Debug)]
pub(super) struct Judge {
    #[command(flatten)]
    home: HomeArguments,
    /// The file with the token; stdin by default, since arguments are seen by everyone
    #[arg(long, value_name = "FILE", default_value = "-")]
    token_file: PathBuf,
}

#[derive(Serialize)]
struct Explanation {
    accepted: bool,
    reason: Option<&'static str>,
    checks: Vec<ExplainedCheck>,
}

#[derive(Serialize)]
struct ExplainedCheck {
    name: &'static str,
    pass: bool,
    detail: String,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Issue(arguments) => issue(arguments, console),
        Command::Verify(arguments) => verify(arguments, console),
        Command::Explain(arguments) => explain(arguments, console),
    }
}

fn issue(arguments: &Issue, console: &Console) -> Answer {
    let (_, module) = load(&arguments.home, console)?;
    let trust = module.trust().load();
    let Some(callee) = trust.deployment(&arguments.audience) else {
        let names: Vec<_> = trust
            .deployments()
            .iter()
            .map(|d| format!("`{}`", d.name))
            .collect();
        let message = format!("no trusted deployment is called `{}`", arguments.audience);
        let help = format!("trusted there are: {}", names.join(", "));
        return Err(Failure::new(Exit::Usage, message).with_help(help));
    };
    let token = module.issuer().issue(callee);
    let token = token.map_err(|error| Failure::new(Exit::Bug, cause(&error)))?;
    console.answer(Zeroizing::new(format!("{}\n", token.expose())).as_bytes())?;
    Ok(Exit::Done)
}

fn verify(arguments: &Judge, console: &Console) -> Answer {
    let (_, module) = load(&arguments.home, console)?;
    let token = read(&arguments.token_file)?;
    if let Err(refusal) = module.verifier().examine(&token, Accept::Peers) {
        return Err(refused(&refusal));
    }
    // It verified, so that it can be taken apart again.
    let claims = Compact::parse(&token)
        .ok()
        .and_then(|c| json::object(c.payload()).ok());
    let claims = claims.ok_or_else(|| Failure::new(Exit::Bug, "a verified token has no claims"))?;
    console.json(&claims)?;
    Ok(Exit::Done)
}

fn explain(arguments: &Judge, console: &Console) -> Answer {
    let (settings, module) = load(&arguments.home, console)?;
    let token = read(&arguments.token_file)?;
    let verdict = module
        .verifier()
        .explain(&token, Some(&settings.impersonation_role));
    match console.format() {
        Format::Text => console.answer(in_words(&verdict))?,
        Format::Json => console.json(&Explanation {
            accepted: verdict.accepted.is_some(),
            reason: verdict.refusal().map(|refusal| refusal.reason.as_str()),
            checks: verdict.checks.iter().map(explained).collect(),
        })?,
    }
    Ok(if verdict.accepted.is_some() {
        Exit::Done
    } else {
        Exit::No
    })
}

fn explained(check: &crate::token::Check) -> ExplainedCheck {
    let detail = match &check.outcome {
        Ok(detail) => detail.clone(),
        Err(refusal) => refusal.detail.clone(),
    };
    ExplainedCheck {
        name: check.name,
        pass: check.outcome.is_ok(),
        detail,
    }
}

fn in_words(verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for check in &verdict.checks {
        let (word, detail) = match &check.outcome {
            Ok(detail) => ("PASS", detail.clone()),
            Err(refusal) => ("FAIL", refusal.to_string()),
        };
        let _ = writeln!(text, "{word}  {:<12}  {}", check.name, harmless(&detail));
    }
    let _ = match (&verdict.accepted, verdict.refusal()) {
        (Some(token), _) => writeln!(text, "ACCEPTED as {}", token.identity()),
        (None, Some(refusal)) => {
            let reason = refusal.reason;
            writeln!(text, "REFUSED: {reason}\nhelp: {}", reason.help())
        }
        (None, None) => writeln!(text, "REFUSED"),
    };
    text
}

fn refused(refusal: &Refusal) -> Failure {
    let message = format!("refused: {}", harmless(&refusal.to_string()));
    Failure::new(Exit::No, message).with_help(Reason::help(refusal.reason))
}

/// What a token says may hold anything: a terminal must not obey it.
fn harmless(text: &str) -> String {
    crate::telemetry::Untrusted(text).to_string()
}

fn load(home: &HomeArguments, console: &Console) -> Result<(Settings, Module), Failure> {
    let settings = home.load(&kind_of(&home.home), console)?;
    let module = settings.module();
    let module = module.map_err(|error| Failure::new(Exit::Unreadable, cause(&error)))?;
    Ok((settings, module))
}

/// Reads a token; blanks and a `Bearer ` before it are forgiven to whoever copied it.
fn read(path: &Path) -> Result<String, Failure> {
    let bytes = input::bytes(path, compact::MAX_TOKEN_BYTES + 16)?;
    let text = std::str::from_utf8(&bytes).map_err(|_binary| {
        Failure::new(
            Exit::No,
            format!("refused: {} holds no text", input::name(path)),
        )
    })?;
    let text = text.trim();
    Ok(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}
