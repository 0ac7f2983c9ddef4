#![cfg(test)]
//! The binary as its users see it: exit code, stdout, stderr.

#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/jws.rs"]
mod jws;
#[path = "cli/key.rs"]
mod key;
#[path = "cli/pair.rs"]
mod pair;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/usage.rs"]
mod usage;
