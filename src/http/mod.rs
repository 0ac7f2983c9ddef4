//! The HTTP port: what probes and scrapers ask of a module.

mod actuator;
mod server;

pub use actuator::{About, Access, Site};
pub use server::serve;
