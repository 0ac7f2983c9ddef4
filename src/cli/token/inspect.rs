//! `countersign token inspect`: what a token says, without verifying it.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::input;
use crate::cli::output::{Answer, Console, Kind, Refused, serialized};
use crate::jose::{MAX_UNVERIFIED_BYTES, Unverified, json};

#[derive(Serialize)]
struct Inspected<'a> {
    verified: bool,
    header: &'a Map<String, Value>,
    payload: Value,
    signature_bytes: usize,
}

pub(super) fn inspect(path: &Path, console: &Console) -> Answer {
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
