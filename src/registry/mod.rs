//! The registry of engines: who may register which engine, and the status of each.

mod address_policy;
mod engine_registry;
mod leases;
mod rates;
mod room;
mod stale;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{DialBackFailure, Engine, EngineId, EngineStatus, Instance, Owner};
use crate::identity::{Environment, ServiceIdentity};

use self::store::{Counts, StoreError};

pub use address_policy::{
    AddressBook, AddressPolicy, AddressRefusal, AddressRules, AllowedAddress, Destination, Network,
    RefusedRange,
};
pub use engine_registry::EngineRegistry;

/// The limits of a registry.
///
/// INACTIVE engines count, since the registry keeps their owners. If there is no room for a new
/// engine, the INACTIVE engine of the same deployment that was not seen for longest is removed,
/// and any deployment may register its ID. No deployment makes room at another's expense, so
/// no deployment can push out an ID in order to take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    not(feature = "registry"),
    expect(clippy::struct_field_names, reason = "as the settings")
)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of engines. Default: 10000.
    pub max_engines: usize,
    /// The maximum number of engines of one deployment. Default: 1000.
    pub max_engines_per_deployment: usize,
    /// The maximum number of new IDs of one deployment in a second. An engine that registers again with
    /// another address, key or other constraints counts too; ten times as many may start again with
    /// the same ones. Default: 100.
    pub max_new_engines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_engines: 10_000,
            max_engines_per_deployment: 1_000,
            max_new_engines_per_second: 100,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, counts: Counts) -> Result<(), RegistryError> {
        if counts.of_deployment >= self.max_engines_per_deployment {
            return Err(RegistryError::DeploymentFull(counts.of_deployment));
        }
        if counts.total >= self.max_engines {
            return Err(RegistryError::RegistryFull(counts.total));
        }
        Ok(())
    }
}

/// How a dial-back ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CheckOutcome {
    /// The owner's key answered for this very engine.
    Proved,
    /// It answered on a connection that was proved before.
    Alive,
    /// It failed.
    Failed(DialBackFailure),
}

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
    /// The engine is NEW or READY: it is not forgotten.
    #[error("engine {0} is {1}: stop it, then inactivate or forget it")]
    Live(EngineId, EngineStatus),
    /// The registry holds as many engines as it may.
    #[error("the registry has {0} engines, which is the limit")]
    RegistryFull(usize),
    /// The deployment owns as many engines as it may.
    #[error("the deployment owns {0} engines, which is the limit")]
    DeploymentFull(usize),
    /// The deployment registers new or changed engines faster than it may.
    #[error("the deployment registers more than {0} new or changed engines a second")]
    TooFast(u32),
    /// Another process of the engine is recorded, and could not be asked now.
    #[error("whether engine {0} runs elsewhere is not known yet; try again")]
    Undecided(EngineId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

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
    /// The process of the engine that calls, if the call names one.
    pub instance: Option<Instance>,
    /// The time between two heartbeats of that engine, if it is known.
    pub heartbeat_interval: Option<Duration>,
}

impl Registrant {
    /// Makes sure that the caller owns `engine`.
    pub(crate) fn check_owns(&self, engine: &Engine) -> Result<(), RegistryError> {
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
