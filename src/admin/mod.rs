//! What an operator does to files and modules: procedures that return plans and reports. Nothing
//! here prints.

mod change;
pub mod demo;
pub mod deployments;
pub mod doctor;
mod edited;
mod error;
pub mod fix;
pub mod handover;
pub mod pairing;
mod profiles;
pub mod rejection;
pub mod revocation;
pub mod roster;
pub mod rotation;
mod source;
mod trusts;
pub mod write;

pub use change::Change;
pub use edited::{ChangeKind, EditedFile, private_key};
pub use error::{Kind, Refused, WriteError};
pub use source::SettingsFile;
