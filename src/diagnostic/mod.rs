//! A finding: what is wrong with a file or setting, where, why, and how to fix it.
//!
//! This module has only the one-line form. The command line renders findings with colours.

mod finding;
mod redact;
mod shell;

pub use finding::{Code, Finding, Findings, Origin, Severity, Snippet};
pub use redact::{
    Public, misleads, private_parts, quote, quote_except, redact, redact_except, redact_name,
    redact_word, visible, without_scalars,
};
pub use shell::CommandLine;
