//! `countersign jws`: verifies signatures of other programs.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::input;
use super::output::{Answer, Console, Exit, Kind, Refused, example};
use crate::jose::{PublicJwk, compact};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify the compact JWS on stdin: exit 0 if the key signed it with ES256, else 1
    #[command(after_help = example("jws verify --jwk public.jwk < token.txt"))]
    Verify {
        /// The public key, a JWK
        #[arg(long, value_name = "FILE")]
        jwk: PathBuf,
    },
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    let Command::Verify { jwk } = command;
    let key = public_key(jwk)?;
    let jws = input::bytes(Path::new("-"), compact::MAX_TOKEN_BYTES + 2)?;
    match key.and_then(|key| verify(&jws, &key)) {
        Ok(()) => console.reply("verified\n", &json!({ "verified": true })),
        Err(reason) => {
            let answer = json!({ "verified": false, "reason": reason });
            console.reply(format!("refused: {reason}\n"), &answer)?;
            Ok(Exit::No)
        }
    }
}

fn verify(jws: &[u8], key: &PublicJwk) -> Result<(), String> {
    let jws = std::str::from_utf8(jws).map_err(|_cause| "it is not text".to_owned())?;
    match compact::verify(input::token(jws), &key.key) {
        Ok(true) => Ok(()),
        Ok(false) => Err("its signature does not verify".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads the key; the inner error says why it cannot be used.
fn public_key(path: &Path) -> Result<Result<PublicJwk, String>, Refused> {
    /// The parser reports a longer one.
    const LIMIT: usize = 16 * 1024;
    if input::is_stdin(path) {
        let why = "stdin carries the JWS; the key comes from a file";
        return Err(Refused::new(Kind::Usage, why));
    }
    let bytes = input::bytes(path, LIMIT)?;
    let key = std::str::from_utf8(&bytes)
        .map_err(|error| error.to_string())
        .and_then(|text| PublicJwk::parse(text).map_err(|error| error.to_string()));
    Ok(key.map_err(|why| format!("{} is not a public P-256 JWK: {why}", input::name(path))))
}
