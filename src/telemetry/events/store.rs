//! The events of the store of a registry.

use tracing::{error, info};

use super::engine::REGISTRY;
use crate::telemetry::Suppressed;
use crate::telemetry::ledger::{of_several, some};

/// `registryFailed`: the registry's store failed; what was asked of it was not done.
pub fn registry_failed(cause: &str, suppressed: Suppressed) {
    error!(
        target: REGISTRY,
        eventId = "registryFailed",
        detail = cause,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "The engine registry failed."
    );
}

/// `registryDegraded`: what changes in the registry does not outlast the process for now, or, where
/// it `is_stale`, cannot be changed or seen.
pub fn registry_degraded(cause: &str, is_stale: bool) {
    error!(
        target: REGISTRY,
        eventId = "registryDegraded",
        detail = cause,
        message = if is_stale {
            "The list of engines is stale; no engine can be registered."
        } else {
            "Registrations cannot be written; they are kept in memory."
        }
    );
}

/// `registryRecovered`: everything in the registry is written again.
pub fn registry_recovered() {
    info!(
        target: REGISTRY,
        eventId = "registryRecovered",
        message = "Registrations are written again."
    );
}

/// `registrySetAside`: the registry starts empty, for its file could not be read.
pub fn registry_set_aside(detail: &str) {
    error!(
        target: REGISTRY,
        eventId = "registrySetAside",
        detail,
        message = "The registry starts empty; engines register again."
    );
}
