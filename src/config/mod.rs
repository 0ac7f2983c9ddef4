//! From `application.properties`, the environment and `--set` to everything a module needs, and
//! every finding on the way.

mod as_written;
mod check;
mod gather;
mod inspect;
mod load;
mod options;
mod question;
mod read;
mod reload;
mod rules;
mod schema;
mod settings;
mod spring;
#[cfg(feature = "registry")]
mod start;
mod view;

#[cfg(test)]
mod tests;

/// The names of settings that procedures read and write.
pub mod names {
    pub use super::options::OWN_NAME;
    pub use super::rules::addresses::ADDRESSES;
    pub use super::rules::deployments::{ADDRESS, CLIENT_PLAINTEXT, HOSTNAME, SERVER_PLAINTEXT};
    pub use super::rules::deployments::{CHOSEN, DEPLOYMENT, ENVIRONMENT, KEYS, MODULE, ROLES};
    pub use super::rules::keys::{
        ACTIVATED_AT, CONTENT, FINGERPRINT, NEXT_KEY, OWN_KEY, PREVIOUS, REVOKED,
    };
    pub use super::rules::tls::{PIN, PINS};
    pub use super::schema::{DEPLOYMENTS, GRPC_PORT};
}

pub use as_written::{AsWritten, main_of};
pub use check::{Checked, Report, check, check_texts, remembered};
pub use check::{Repair, fix};
pub(crate) use load::wiring;
pub use load::{LoadError, environment, unnamed};
pub use question::{ModuleKind, is_service_link};
pub use reload::{ReloadHandle, ReloadStatus, Reloader};
pub use rules::file::holds_private_key;
pub use rules::keys::replacing;
pub use rules::tls::DIAL_BACK;
pub use schema::{TlsEnd, default_grpc_port};
pub(crate) use settings::is_loopback;
pub use settings::{ConnectionSettings, Home, RotationSettings, Settings};
#[cfg(feature = "testing")]
pub use spring::{Expression, Location, Target};
#[cfg(feature = "registry")]
pub use start::StartError;
