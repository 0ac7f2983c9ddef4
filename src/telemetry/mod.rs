//! What the modules report to their operators: log events, the log itself, metrics, health.

#[cfg(test)]
#[cfg(feature = "cli")]
#[path = "tests/capture.rs"]
pub(crate) mod capture;
pub mod events;
mod grpc_method;
pub mod health;
mod ledger;
#[cfg(feature = "cli")]
mod log;
#[cfg(feature = "actuator")]
pub mod metrics;
#[cfg(not(feature = "actuator"))]
#[path = "no_metrics.rs"]
pub mod metrics;
mod untrusted;

use std::path::PathBuf;

pub(crate) use grpc_method::CODES;
pub(crate) use ledger::{Ledger, Suppressed};
#[cfg(all(test, feature = "cli"))]
pub(crate) use log::levels;
#[cfg(all(any(test, feature = "testing"), feature = "cli"))]
pub use log::{Format, LogLayer};
#[cfg(feature = "cli")]
pub use log::{Losses, init};
pub use untrusted::{Untrusted, UntrustedReason};

/// Which forms of the log go to one place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Appenders {
    /// Lines for people.
    pub plain: bool,
    /// JSON lines.
    pub json: bool,
}

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Standard error. Default: plain.
    pub console: Appenders,
    /// Files in `dir`: `spring-boot-logger.json.log` and `spring-boot-logger.log`. Default: JSON.
    pub file: Appenders,
    /// The folder of the files. It is made if it does not exist.
    pub dir: PathBuf,
}
