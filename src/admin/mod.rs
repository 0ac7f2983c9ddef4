//! What an operator does to files and modules: procedures that return plans and reports. Nothing
//! here prints.

mod certificate;
mod change;
pub mod demo;
pub mod deployments;
pub mod doctor;
pub mod engine_id;

mod error;
pub(crate) mod greeting;
pub mod handover;
pub mod pairing;
pub mod rejection;
pub mod revocation;
pub mod rotation;
mod setting;
mod source;
pub mod watch;
pub mod write;

pub use change::{Change, ChangeKind, EditedFile};
pub use error::{Kind, Refused};
pub use setting::private_key;
pub use source::{Fix, SettingsFile, home_of};
