//! `countersign token` and `countersign jws`: issue a token, verify one, or explain rule by rule why
//! one is refused; verify signatures of other programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::input::{self, HomeArguments, kind_of};
use super::output::{Answer, Console, Exit, Kind, Refused, example, serialized};
use crate::admin::rejection::REJECTED;
use crate::config::Settings;
use crate::grpc::{Module, cause};
use crate::jose::{Compact, MAX_UNVERIFIED_BYTES, PublicJwk, Unverified, compact, json};
use crate::properties::name::same;
use crate::token::{Accept, Check, Outcome, Refusal, Verdict, rules_of};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issue a token of the module at --home for a deployment that it trusts
    ///
    /// The token is a secret until it expires: anyone who has it can call as this module.
    #[command(after_help = example("token issue --home dpe --audience dpm-dev | \\\n      countersign token explain --home dpm"))]
    Issue {
        #[command(flatten)]
        home: HomeArguments,
        /// The deployment to call
        #[arg(long, value_name = "NAME")]
        audience: String,
    },
    /// Verify a token as the module at --home would; print its claims
    #[command(after_help = example("token verify --home dpm < token.txt"))]
    Verify(Judge),
    /// Apply every rule to a token; show which fail and how to fix them
    ///
    /// Exit code 1 if the token is refused. With --log there is no token: it explains the newest
    /// refusal in the log instead.
    #[command(after_help = include_str!("help/token_explain.txt"))]
    Explain {
        #[command(flatten)]
        judge: Judge,
        /// The JSON log, or its folder: explains its newest refusal instead of a token
        #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
        log: Option<PathBuf>,
    },
    /// Decode a token, of any algorithm, without verifying it
    ///
    /// The output is JSON and proves nothing: anyone could have written the token.
    #[command(after_help = example("token inspect --token-file token.txt"))]
    Inspect(TokenFile),
}

#[derive(Args, Debug)]
pub(super) struct Judge {
    #[command(flatten)]
    home: HomeArguments,
    #[command(flatten)]
    file: TokenFile,
}

#[derive(Args, Debug)]
pub(super) struct TokenFile {
    /// The file with the token; stdin by default, since arguments are visible to everyone
    #[arg(long, value_name = "FILE", default_value = "-")]
    token_file: PathBuf,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Issue { home, audience } => issue(home, audience, console),
        Command::Verify(arguments) => verify(arguments, console),
        Command::Explain { judge, log } => match log {
            Some(log) => explain_logged(log, &judge.home, console),
            None => explain(judge, console),
        },
        Command::Inspect(file) => inspect(&file.token_file, console),
    }
}

fn issue(home: &HomeArguments, audience: &str, console: &Console) -> Answer {
    let (_, module) = load(home, console)?;
    let trust = module.trust().load();
    let deployments = trust.deployments().iter();
    let found = deployments
        .clone()
        .find(|one| same(one.name.as_str(), audience));
    let Some(callee) = found else {
        let names: Vec<_> = deployments.map(|d| format!("`{}`", d.name)).collect();
        let message = format!("no trusted deployment is called `{audience}`");
        let help = format!("trusted deployments: {}", names.join(", "));
        return Err(Refused::new(Kind::Usage, message).with_help(help));
    };
    let issued = module.issuer().issue(callee);
    let token = issued.map_err(|error| Refused::new(Kind::Internal, cause(&error)))?;
    console.answer(Zeroizing::new(format!("{}\n", token.expose())).as_bytes())
}

fn verify(arguments: &Judge, console: &Console) -> Answer {
    let (_, module) = load(&arguments.home, console)?;
    let token = input::bearer(&arguments.file.token_file, compact::MAX_TOKEN_BYTES)?;
    if let Err(refusal) = module.verifier().examine(&token, Accept::Peers) {
        let message = format!("refused: {}", harmless(&refusal.to_string()));
        return Err(Refused::new(Kind::Conflict, message).with_help(refusal.reason.help()));
    }
    // It verified, so that it can be taken apart again.
    let parsed = Compact::parse(&token).ok();
    let claims = parsed.and_then(|compact| json::object(compact.payload()).ok());
    let missing = "a verified token has no claims";
    console.json(&claims.ok_or_else(|| Refused::new(Kind::Internal, missing))?)
}

fn explain(arguments: &Judge, console: &Console) -> Answer {
    let (settings, module) = load(&arguments.home, console)?;
    let token = input::bearer(&arguments.file.token_file, compact::MAX_TOKEN_BYTES)?;
    let verdict = module
        .verifier()
        .explain(&token, Some(&settings.options.impersonation_role));
    answer(&verdict, console)
}

fn answer(verdict: &Verdict, console: &Console) -> Answer {
    let accepted = verdict.accepted.is_some();
    let explanation = json!({
        "accepted": accepted,
        "reason": verdict.refusal().map(|refusal| refusal.reason.as_str()),
        "checks": verdict.checks.iter().map(explained).collect::<Vec<_>>(),
    });
    console.reply(in_words(verdict), &explanation)?;
    Ok(Exit::yes(accepted))
}

/// Explains the newest refusal of a log: which rule failed then, and what the file says now.
fn explain_logged(log: &Path, home: &HomeArguments, console: &Console) -> Answer {
    let (_, module) = load(home, console)?;
    let rejection = super::explain::newest(log, REJECTED)?;
    let reason = super::explain::reason(&rejection)?;
    console.present(&super::explain::seen_in_words(&rejection));
    let detail = rejection.text("detail").unwrap_or_default();
    let refusal = Refusal::new(reason, detail);
    let verdict = Verdict {
        checks: rules_of(&refusal),
        accepted: None,
    };
    answer(&verdict, console)?;
    if let Some(kid) = rejection.text("fingerprint") {
        let trust = module.trust().load();
        let now = match trust.find(kid) {
            None => "no trusted key has this fingerprint".to_owned(),
            Some(found) => {
                let state = if found.key.revoked { ", revoked" } else { "" };
                let (name, key) = (&found.deployment.name, &found.key.name);
                format!("it is key `{key}` of deployment {name}{state}")
            }
        };
        let file = home.module.home.display();
        console.note(&format!("now, in the file of `{file}`: {now}"));
    }
    Ok(Exit::Done)
}

fn explained(check: &Check) -> Value {
    let (Outcome::Passed(detail)
    | Outcome::Unknown(detail)
    | Outcome::Failed(Refusal { detail, .. })) = &check.outcome;
    json!({
        "name": check.name,
        "pass": check.passed(),
        "unknown": matches!(check.outcome, Outcome::Unknown(_)),
        "detail": harmless(detail),
        "help": check.refusal().map(|refusal| refusal.reason.help()),
    })
}

fn in_words(verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for check in &verdict.checks {
        let (word, detail) = match &check.outcome {
            Outcome::Passed(detail) => ("PASS", detail.clone()),
            Outcome::Unknown(why) => ("-   ", format!("unknown: {why}")),
            Outcome::Failed(refusal) => ("FAIL", refusal.to_string()),
        };
        let _ = writeln!(text, "{word}  {:<12}  {}", check.name, harmless(&detail));
        if let Some(refusal) = check.refusal() {
            let _ = writeln!(text, "{:20}fix: {}", "", refusal.reason.help());
        }
    }
    let _ = match (&verdict.accepted, verdict.refusal()) {
        (Some(token), _) => writeln!(text, "ACCEPTED as {}", token.identity()),
        (None, Some(refusal)) => writeln!(text, "REFUSED: {}", refusal.reason),
        (None, None) => writeln!(text, "REFUSED"),
    };
    text
}

/// Escapes text of a token: it may hold anything, and a terminal must not interpret it.
fn harmless(text: &str) -> String {
    crate::telemetry::UntrustedReason(text).to_string()
}

fn load(home: &HomeArguments, console: &Console) -> Result<(Settings, Module), Refused> {
    let settings = home.load(&kind_of(&home.module.home), console)?;
    let module = settings.module();
    let module = module.map_err(|error| Refused::new(Kind::Unreadable, cause(&error)))?;
    Ok((settings, module))
}

#[derive(Serialize)]
struct Inspected<'a> {
    verified: bool,
    header: &'a Map<String, Value>,
    payload: Value,
    signature_bytes: usize,
}

fn inspect(path: &Path, console: &Console) -> Answer {
    console.present("NOT VERIFIED: anyone could have written this token");
    let token = input::bearer(path, MAX_UNVERIFIED_BYTES)?;
    let token = Unverified::read(&token).map_err(|error| {
        let failure = Refused::caused(Kind::Conflict, "this is not a signed token")(error);
        match token.split('.').count() {
            5 => failure
                .with_help("a token of five parts is encrypted: only its receiver can read it"),
            _ => failure,
        }
    })?;
    let payload = match json::object(&token.payload) {
        Ok(members) => Value::Object(members),
        Err(error) => {
            console.warn(&format!(
                "the payload is not a JSON object and is shown as text: {error}"
            ));
            Value::String(String::from_utf8_lossy(&token.payload).into_owned())
        }
    };
    let inspected = Inspected {
        verified: false,
        header: &token.header,
        payload,
        signature_bytes: token.signature.len(),
    };
    let text = serialized(serde_json::to_string_pretty(&inspected))?;
    console.answer(text + "\n")
}

#[derive(Debug, Subcommand)]
pub(super) enum JwsCommand {
    /// Verify the compact JWS on stdin: exit 0 if the key signed it with ES256, else 1
    #[command(after_help = example("jws verify --jwk public.jwk < token.txt"))]
    Verify {
        /// The public key, a JWK
        #[arg(long, value_name = "FILE")]
        jwk: PathBuf,
    },
}

pub(super) fn run_jws(command: &JwsCommand, console: &Console) -> Answer {
    /// The parser reports a longer one.
    const LIMIT: usize = 16 * 1024;
    let JwsCommand::Verify { jwk } = command;
    if input::is_stdin(jwk) {
        let why = "stdin carries the JWS; the key comes from a file";
        return Err(Refused::new(Kind::Usage, why));
    }
    let key = input::bytes(jwk, LIMIT)?;
    let jws = input::bytes(Path::new("-"), compact::MAX_TOKEN_BYTES + 2)?;
    match verify_jws(&jws, &key, &input::name(jwk)) {
        Ok(()) => console.reply("verified\n", &json!({ "verified": true })),
        Err(reason) => {
            let answer = json!({ "verified": false, "reason": reason });
            console.reply(format!("refused: {reason}\n"), &answer)?;
            Ok(Exit::No)
        }
    }
}

/// Verifies `jws` with the `key` that is in `file`; the error says why it is refused.
fn verify_jws(jws: &[u8], key: &[u8], file: &str) -> Result<(), String> {
    let text = str::from_utf8(key).map_err(|error| error.to_string());
    let read = text.and_then(|text| PublicJwk::parse(text).map_err(|error| error.to_string()));
    let public = read.map_err(|why| format!("{file} is not a public P-256 JWK: {why}"))?;
    let text = str::from_utf8(jws).map_err(|_cause| "it is not text".to_owned())?;
    match compact::verify(input::token(text), &public.key) {
        Ok(true) => Ok(()),
        Ok(false) => Err("its signature does not verify".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
