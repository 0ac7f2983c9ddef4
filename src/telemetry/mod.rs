//! What the modules report to their operators: log events, the log itself, metrics, health.

#[cfg(test)]
#[cfg(feature = "cli")]
#[path = "tests/capture.rs"]
pub(crate) mod capture;
#[cfg(feature = "cli")]
mod error;
pub mod events;
mod grpc_method;
pub mod health;
#[cfg(feature = "cli")]
mod init;
#[cfg(feature = "cli")]
mod log_file;
#[cfg(feature = "cli")]
mod log_format;
mod logging;
#[cfg(feature = "actuator")]
pub mod metrics;
#[cfg(not(feature = "actuator"))]
#[path = "no_metrics.rs"]
pub mod metrics;
mod rfc3339;
mod untrusted;

#[cfg(feature = "cli")]
pub use error::LoggingError;
pub(crate) use grpc_method::CODES;
#[cfg(test)]
#[cfg(feature = "cli")]
pub(crate) use init::levels;
#[cfg(feature = "cli")]
pub use init::{Guard, init};
#[cfg(feature = "cli")]
pub use log_file::LogFile;
#[cfg(feature = "cli")]
pub use log_format::{Format, LogLayer};
pub use logging::{Appenders, Logging};
pub(crate) use rfc3339::{from_rfc3339, to_rfc3339};
pub use untrusted::{Untrusted, UntrustedReason};
