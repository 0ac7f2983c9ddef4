//! The events of the store of a registry.

#[cfg(any(test, feature = "etcd"))]
use tracing::warn;
use tracing::{error, info};

use super::engine::REGISTRY;
#[cfg(any(test, feature = "etcd"))]
use crate::engine::EngineId;
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

/// `recordPassedOver`: what is in etcd is no record of an engine, or one of too many.
#[cfg(any(test, feature = "etcd"))]
pub fn record_passed_over(id: EngineId, bytes: usize, suppressed: Suppressed) {
    warn!(
        target: REGISTRY,
        eventId = "recordPassedOver",
        engineId = %id,
        detail = %format_args!("{bytes} bytes"),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "A value in etcd was passed over: it is not a record, or there are more than `countersign.registry.max-engines`."
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
