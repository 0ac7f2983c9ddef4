//! Why a DPE does not start.

use std::io;
use std::path::PathBuf;

use crate::engine::{AddressError, EngineIdError};
use crate::grpc::{ConnectError, UnknownDeployment};
use crate::program;

/// Why the engine's id cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineIdFileError {
    /// The file cannot be read or written.
    #[error("cannot use the engine id in {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The file holds something else. It is kept: a new id would be a new engine.
    #[error(
        "{} holds no engine id: {}; restore the file, or remove it to become a new engine",
        .0.display(),
        .1
    )]
    Broken(PathBuf, #[source] EngineIdError),
    /// The system gives no random bytes for a new id.
    #[error("cannot make an engine id: the system gives no random bytes")]
    Random(#[source] io::Error),
}

/// Why a DPE does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine's id cannot be read or made.
    #[error(transparent)]
    EngineId(#[from] EngineIdFileError),
    /// The servers are not set up.
    #[error(transparent)]
    Program(#[from] program::StartError),
    /// The advertised address is invalid.
    #[error("the advertised address cannot be used")]
    Advertised(#[from] AddressError),
    /// The DPM's deployment is not among the trusted ones.
    #[error("the DPM's deployment is unknown")]
    Dpm(#[from] UnknownDeployment),
    /// The DPM's address is invalid.
    #[error("the DPM's address cannot be used")]
    DpmAddress(#[from] ConnectError),
}
