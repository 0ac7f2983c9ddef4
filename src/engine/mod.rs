//! Engines: what a registry knows about one, and the table of its life.

mod address;
mod constraints;
mod id;
pub(crate) mod status;

pub(crate) use address::check_host;
pub use address::{AddressError, EngineAddress};
pub use constraints::{ConstraintsError, EngineConstraints};
pub use id::{EngineId, EngineIdError};
pub use status::EngineStatus;

pub use crate::failure::{DialBackFailure, FailureKind};

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// One engine, as the registry holds it.
///
/// Prints as in the seed's log line:
/// `Engine(id=…, address=EngineAddress(hostname=…, port=…))`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Engine {
    /// The engine's own id.
    pub id: EngineId,
    /// Where the registry dials back.
    pub address: EngineAddress,
    /// What the engine needs and offers.
    pub constraints: EngineConstraints,
    /// Its current status.
    pub status: EngineStatus,
    /// Why it is not READY; `None` when it is.
    pub status_reason: Option<Arc<str>>,
    /// The failed dial-back that [`status_reason`](Self::status_reason) is about, if it is about
    /// one.
    pub dial_back_failure: Option<DialBackFailure>,
    /// The deployment that owns it.
    pub owner: Owner,
    /// Whether it last registered from the registry's own machine: only then may it be dialled
    /// there. Not sent on the wire; `false` for a record that was read from there.
    pub over_loopback: bool,
    /// When it last became NEW.
    pub registered_at: SystemTime,
    /// When it last called, or answered a check.
    pub last_seen_at: SystemTime,
}

impl Engine {
    /// Returns `true` if what was found out about `self` still holds for the engine as it is `now`:
    /// it has not moved, and has not left.
    pub(crate) fn is_still(&self, now: &Self) -> bool {
        now.status != EngineStatus::Inactive
            && now.address == self.address
            && now.owner.deployment == self.owner.deployment
            && now.registered_at == self.registered_at
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, .. } = self;
        write!(f, "Engine(id={id}, address={address})")
    }
}

/// The deployment that registered an engine. Cloning is cheap.
///
/// The texts are those of the registrant's verified identity; they were checked there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Owner {
    /// The deployment's name, such as `dpe-dev`.
    pub deployment: Arc<str>,
    /// The module's type, such as `dpe`.
    pub module: Arc<str>,
    /// The environment, if the registry's file names one.
    pub environment: Option<Arc<str>>,
    /// The key that signed the registration, as the registry's file names it.
    pub fingerprint: Arc<str>,
}
