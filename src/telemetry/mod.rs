//! What the modules tell their operators: log events, the seed's JSON line, the log file.

pub mod events;
mod untrusted;

pub use untrusted::Untrusted;
