//! The registry of engines: who may register which engine, and the status of each.

mod address_policy;
mod engine_log;
mod engine_registry;
mod error;
mod limits;
mod registrant;
pub mod store;

pub use address_policy::{
    AddressBook, AddressPolicy, AddressRefusal, AddressRules, AllowedAddress, Destination, Network,
    RefusedRange,
};
pub use engine_registry::{CheckOutcome, EngineRegistry};
pub use error::RegistryError;
pub use limits::Limits;
pub use registrant::Registrant;
