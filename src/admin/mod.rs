//! What an operator does to files and modules: procedures that return plans and reports. Nothing
//! here prints.

pub mod demo;
pub mod deployments;
pub mod doctor;
mod edited;
mod error;
pub mod fix;
pub mod handover;
mod overrides;
pub mod pairing;
pub mod rejection;
pub mod revocation;
pub mod roster;
pub mod rotation;
pub mod write;

pub use demo::DemoError;
pub use edited::{ChangeKind, EditedFile, SettingChange};
pub use error::{Kind, Refused, WriteError};
