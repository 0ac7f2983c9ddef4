//! Neither a further answer of the resolver nor a list of networks opens a refused address.
#![no_main]
#![allow(dead_code, reason = "each target takes one law of all")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/law.rs"]
mod law;

fuzz_target!(|input: (u16, u32, u128, bool, &str)| {
    let (port, v4, v6, over_loopback, network) = input;
    let addresses = [v4.to_be_bytes().into(), v6.to_be_bytes().into()];
    law::dial(port, &addresses, over_loopback, network);
});
