//! `countersign token inspect`: what a token says, without verifying it.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::input;
use crate::cli::output::{Answer, Console, Kind, Refused, serialized};
use crate::diagnostic::misleads;
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
    console.answer(escaped(&text) + "\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_reads_back_the_same() {
        let value = Value::String("\u{202e}gpj.exe\u{9b}2J\u{e0041}é\u{7f}".to_owned());
        let json = serde_json::to_string(&value).unwrap();

        let text = escaped(&json);

        assert_eq!(text, r#""\u202egpj.exe\u009b2J\udb40\udc41é\u007f""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
