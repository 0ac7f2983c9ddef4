//! What an operator does to files and modules: procedures that return plans and reports. Nothing
//! here prints.

pub mod demo;
mod error;
pub mod pairing;
pub mod write;

pub use demo::DemoError;
pub use error::{PairError, WriteError};
