//! A finding: what is wrong with a file or setting, where, why, and how to mend it.
//!
//! Rendering with colours belongs to the command line; here is only the one-line form.

mod code;
mod finding;
mod redact;
mod snippet;

pub use code::{Code, UnknownCode};
pub use finding::{Finding, Findings, Origin, Severity};
pub use redact::{Public, quote, quote_except, redact, redact_except, redact_name};
pub use snippet::Snippet;
