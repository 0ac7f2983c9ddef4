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
mod logging;
#[cfg(feature = "actuator")]
pub mod metrics;
#[cfg(not(feature = "actuator"))]
#[path = "no_metrics.rs"]
pub mod metrics;
mod rfc3339;
mod untrusted;

pub(crate) use grpc_method::CODES;
pub(crate) use ledger::Ledger;
#[cfg(all(test, feature = "cli"))]
pub(crate) use log::levels;
#[cfg(feature = "cli")]
pub use log::{Format, LogLayer, Losses, init};
pub use logging::{Appenders, Logging};
pub(crate) use rfc3339::{from_rfc3339, to_rfc3339};
pub use untrusted::{Untrusted, UntrustedReason};
