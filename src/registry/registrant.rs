//! Who asks the registry for a change.

use std::sync::Arc;

use super::error::RegistryError;
use crate::engine::{Engine, Owner};
use crate::identity::{Environment, ServiceIdentity};

/// Who calls the registry: a verified identity, and what its deployment's entry adds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Registrant {
    /// The caller's verified identity; its id is the deployment that will own the engine.
    pub identity: ServiceIdentity,
    /// The deployment's environment, if one is configured.
    pub environment: Option<Environment>,
    /// The key that signed the call, as the registry's file names it.
    pub fingerprint: Arc<str>,
    /// Whether the call came from this machine, over loopback or from another of its addresses.
    pub over_loopback: bool,
}

impl Registrant {
    /// Makes sure that the caller owns `engine`.
    pub(super) fn check_owns(&self, engine: &Engine) -> Result<(), RegistryError> {
        if *engine.owner.deployment == *self.identity.id() {
            return Ok(());
        }
        Err(RegistryError::EngineNotOwned(engine.id))
    }

    pub(super) fn as_owner(&self) -> Owner {
        Owner {
            deployment: self.identity.id().into(),
            module: self.identity.module().as_str().into(),
            environment: self.environment.as_ref().map(|e| e.as_str().into()),
            fingerprint: Arc::clone(&self.fingerprint),
        }
    }
}
