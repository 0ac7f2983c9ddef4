//! `countersign jws`: plumbing for other people's signatures.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::input;
use super::output::{Answer, Console, Exit, Failure};
use crate::jose::{PublicJwk, compact};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify the compact JWS on stdin: exit 0 if the key signed it with ES256, else 1
    #[command(after_help = VERIFY)]
    Verify {
        /// The public key, a JWK
        #[arg(long, value_name = "FILE")]
        jwk: PathBuf,
    },
}

const VERIFY: &str = "\
Example:
  $ countersign jws verify --jwk public.jwk < token.txt";

#[derive(Serialize)]
struct Verdict {
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    let Command::Verify { jwk } = command;
    let key = public_key(jwk)?;
    let jws = input::bytes(Path::new("-"), compact::MAX_TOKEN_BYTES + 2)?;
    let verdict = key.and_then(|key| verify(&jws, &key));
    let text = match &verdict {
        Ok(()) => "verified\n".to_owned(),
        Err(reason) => format!("refused: {reason}\n"),
    };
    let verified = verdict.is_ok();
    let reason = verdict.err();
    console.reply(text, &Verdict { verified, reason })?;
    Ok(Exit::yes(verified))
}

fn verify(jws: &[u8], key: &PublicJwk) -> Result<(), String> {
    let jws = std::str::from_utf8(jws).map_err(|_cause| "it is not text".to_owned())?;
    let signed = compact::verify(input::token(jws), &key.key);
    let refusal = "its signature does not verify";
    let signed = signed.map_err(|error| error.to_string())?;
    signed.then_some(()).ok_or_else(|| refusal.to_owned())
}

/// Reads the key; the inner error says why it is none.
fn public_key(path: &Path) -> Result<Result<PublicJwk, String>, Failure> {
    /// One more than a JWK may have is read, so that its parser can say so.
    const LIMIT: usize = 16 * 1024;
    let none = |why: &dyn std::error::Error| {
        let name = input::name(path);
        format!("{name} is no public P-256 JWK: {why}")
    };
    if input::is_stdin(path) {
        return Err(Failure::new(
            Exit::Usage,
            "stdin carries the JWS; the key comes from a file",
        ));
    }
    let bytes = input::bytes(path, LIMIT)?;
    Ok(std::str::from_utf8(&bytes)
        .map_err(|error| none(&error))
        .and_then(|text| PublicJwk::parse(text).map_err(|error| none(&error))))
}
