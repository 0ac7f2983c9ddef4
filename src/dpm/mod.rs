//! The DPM: the registry's gRPC service, the dial-back to its engines, start and stop.

mod check;
mod dialer;
mod monitor;
mod server;
mod service;

pub use crate::program::StartError;
pub use dialer::Resolver;
pub use monitor::{Monitor, MonitorOptions};
pub use server::{Dpm, Options};
pub use service::EngineRegistryService;
