//! An edit changes one value and no other byte, or removes one name and no other. Key, value and text are parted by NUL.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: &[u8]| law::input("edit", input));
