//! The registry of engines: who may register what, and how far each has come. Without the feature
//! `registry`, only the addresses that engines may have.

mod address_policy;
#[cfg(feature = "registry")]
mod engine_registry;
#[cfg(feature = "registry")]
mod error;
#[cfg(feature = "registry")]
mod limits;
#[cfg(feature = "registry")]
mod registrant;
#[cfg(feature = "registry")]
pub mod store;

pub use address_policy::{
    AddressBook, AddressPolicy, AddressRefusal, AddressRules, AllowedAddress, Destination, Network,
    RefusedRange,
};
#[cfg(feature = "registry")]
pub use engine_registry::{CheckOutcome, EngineChange, EngineRegistry};
#[cfg(feature = "registry")]
pub use error::RegistryError;
#[cfg(feature = "registry")]
pub use limits::Limits;
#[cfg(feature = "registry")]
pub use registrant::Registrant;
