//! The DPM: the registry's gRPC service, the dial-back to its engines, start and stop.

mod check;
mod dialer;
mod duplicate;
mod failures;
mod keeper;
mod lanes;
mod monitor;
mod one_way;
mod options;
mod pulse;
mod server;
mod service;
mod streams;
mod sweeps;
mod tasks;
mod watch;

pub use crate::program::StartError;
pub use monitor::Monitor;
pub use options::{MonitorOptions, Resolver};
pub use server::{Dpm, Options};
pub use service::EngineRegistryService;
