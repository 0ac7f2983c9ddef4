//! A profile expression means what a plain reading of it says.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: &[u8]| law::input("expression", input));
