//! From `application.properties`, the environment and `--set` to everything a module needs, and
//! every finding on the way.

mod as_written;
mod check;
mod fix;
mod gather;
mod inspect;
mod load;
mod options;
mod parts;
mod question;
mod read;
mod reload;
mod rotation;
mod rules;
mod schema;
mod settings;
mod sources;
mod spring;
#[cfg(feature = "registry")]
mod start;
mod tls;
mod view;
mod wire;

#[cfg(test)]
mod tests;

/// The names of settings that procedures read and write.
pub mod names {
    pub use super::options::OWN_NAME;
    pub use super::rotation::{ACTIVATED_AT, NEXT_KEY, PREVIOUS};
    pub use super::rules::deployments::{CHOSEN, DEPLOYMENT, ENVIRONMENT, KEYS, MODULE, ROLES};
    pub use super::rules::keys::OWN_KEY;
    pub use super::rules::tls::{PIN, PINS};
    pub use super::rules::trusted_keys::{CONTENT, FINGERPRINT, REVOKED};
    pub use super::schema::DEPLOYMENTS;
}

pub use as_written::AsWritten;
pub use check::{Checked, Report, check, check_texts, remembered};
pub use fix::{Repair, fix};
pub use load::{LoadError, environment};
pub use question::{ModuleKind, is_service_link};
pub use reload::{ReloadHandle, ReloadStatus, Reloader};
pub use rotation::RotationSettings;
pub use rules::file::holds_private_key;
pub use schema::TlsEnd;
pub use settings::{ConnectionSettings, Home, Settings};
pub use sources::{active_documents, active_files, main_of, overruled};
#[cfg(feature = "testing")]
pub use spring::{Expression, Location, Target};
#[cfg(feature = "registry")]
pub use start::StartError;
pub use tls::DIAL_BACK;
pub(crate) use wire::wiring;
