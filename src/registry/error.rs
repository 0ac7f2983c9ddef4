//! Why the registry refuses a request.

use super::store::StoreError;
use crate::engine::EngineId;

/// Why the registry refuses a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The engine belongs to another deployment. Its owner is not named.
    #[error("engine {0} belongs to another deployment")]
    EngineNotOwned(EngineId),
    /// No such engine, or one that is INACTIVE and has to register again.
    #[error("engine {0} is not registered")]
    NotFound(EngineId),
    /// The registry holds as many engines as it may.
    #[error("the registry has {0} engines, which is the limit")]
    RegistryFull(usize),
    /// The deployment owns as many engines as it may.
    #[error("the deployment owns {0} engines, which is the limit")]
    DeploymentFull(usize),
    /// The deployment registers new engines faster than it may.
    #[error("the deployment registers more than {0} new engines a second")]
    TooFast(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
