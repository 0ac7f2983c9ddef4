//! The DPM: the registry's gRPC service, the dial-back to its engines, start and stop.

mod check;
mod dialer;
mod error;
mod monitor;
mod server;
mod service;
mod site;

pub use dialer::Resolver;
pub use error::StartError;
pub use monitor::{Monitor, MonitorOptions};
pub use server::{Dpm, Options};
pub use service::EngineRegistryService;
