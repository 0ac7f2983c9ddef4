//! Engines are read from the registry's file as they were written.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|bytes: &[u8]| law::record(bytes));
