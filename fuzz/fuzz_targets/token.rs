//! Of properly signed tokens only those that obey the contract are accepted. The first line is the
//! header, the rest the payload.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: &[u8]| law::input("token", input));
