//! An accepted address means the same to everyone.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: (&str, i64)| law::address(input.0, input.1));
