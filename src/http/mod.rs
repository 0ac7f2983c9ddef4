//! The HTTP port: what probes and scrapers ask of a module.

mod actuator;
mod answer;
mod server;

pub use actuator::{About, Site};
pub use server::serve;
