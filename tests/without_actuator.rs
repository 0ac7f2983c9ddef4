#![cfg(test)]
//! The library without its feature `actuator`. There is something to test only where no feature
//! brings it: `cargo test --no-default-features --test without_actuator`.

#[cfg(not(feature = "actuator"))]
#[path = "without_actuator/served.rs"]
mod served;
