//! What the modules tell their operators: log events, the seed's JSON line, the log file.

#[cfg(test)]
pub(crate) mod capture;
mod error;
pub mod events;
pub mod health;
mod init;
mod log_file;
mod log_format;
pub mod metrics;
mod untrusted;

pub use error::LoggingError;
#[cfg(test)]
pub(crate) use init::levels;
pub use init::{Appenders, Guard, Logging, init};
pub use log_file::LogFile;
pub use log_format::{Format, LogLayer};
pub use untrusted::{Untrusted, UntrustedReason, misleads};
