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

#[cfg(feature = "registry")]
pub use self::{
    engine_registry::{CheckOutcome, EngineChange, EngineRegistry},
    error::RegistryError,
    limits::Limits,
    registrant::Registrant,
};
pub use address_policy::{
    AddressBook, AddressPolicy, AddressRefusal, AddressRules, AllowedAddress, Destination, Network,
    RefusedRange,
};
