//! From `application.properties`, the environment and `--set` to everything a module needs, and
//! every finding on the way.

mod check;
mod connections;
mod cross_check;
mod cross_tls;
mod deployments;
mod gather;
mod load;
mod mend;
mod options;
mod own;
mod own_check;
mod own_key;
mod pins;
mod profiles;
mod public_text;
mod reach;
mod read;
mod reload;
mod rotation;
mod schema;
mod sources;
mod swallowed;
mod text_check;
mod tls;
mod trusted_key;
mod view;
mod whole_file;

#[cfg(test)]
mod tests;

pub use check::{CheckError, Checked, Ignored, Report, check, check_texts};
pub use load::{LoadError, ModuleKind, Settings, environment, may_be_setting};
pub use mend::{Mended, Repair, mend};
pub use own::{
    ClientSettings, ConnectionSettings, EngineSettings, Home, LoggingSettings, PeerSettings,
    ProofMode, RegistrySettings, Replay, ServerSettings,
};
pub use profiles::{active_files, main_of};
pub use reload::{ReloadHandle, ReloadStatus, Reloader};
pub use rotation::RotationSettings;
pub use schema::{Fallback, Setting, Takes, settings};
pub use whole_file::holds_private_key;
