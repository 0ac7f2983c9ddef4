//! Documents are parts of their text, and an edit of one changes no other.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: &[u8]| law::input("documents", input));
