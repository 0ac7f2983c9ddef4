//! The events of engines, at both programs: a second process with an engine's id.

use std::fmt::Display;

use tracing::{error, info, warn};

use crate::engine::{Engine, EngineAddress, EngineId, FailureKind};
use crate::telemetry::Suppressed;
use crate::telemetry::ledger::{of_several, some};

// The seed's own logger names, so that searches for them find these lines.
pub(super) const REGISTRY: &str = "com.ataccama.dpm.registry.EngineRegistryServiceImpl";
pub(super) const STATUS_CHECKER: &str = "com.ataccama.dpe.service.StatusChecker";

/// `engineDuplicate`, at the DPM: a second process of `recorded` registers `address` for it, and is
/// refused; logged once, then once a minute.
pub fn engine_duplicate(recorded: &Engine, address: &EngineAddress, suppressed: Suppressed) {
    warn!(
        target: REGISTRY,
        correlationId = %recorded.id,
        eventId = "engineDuplicate",
        engine = %recorded,
        refusedAddress = %address,
        deployment = &*recorded.owner.deployment,
        reason = "ENGINE_DUPLICATE",
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "A second process registers this engine's id. The recorded one has proved itself at its address and stays."
    );
}

/// `engineDuplicate`, at the engine that is refused: the DPM has another process of its id, which
/// `detail` of the DPM names.
pub fn engine_is_duplicate(
    engine: EngineId,
    advertised: &EngineAddress,
    dpm_url: impl Display,
    (detail, help): (&str, &str),
    suppressed: Suppressed,
) {
    error!(
        target: STATUS_CHECKER,
        correlationId = %engine,
        eventId = "engineDuplicate",
        dpmUrl = %dpm_url,
        refusedAddress = %advertised,
        kind = FailureKind::Refused.as_str(),
        side = "peer",
        reason = "ENGINE_DUPLICATE",
        detail,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = format_args!("another process has this engine's id; {help}")
    );
}

/// `leaseExpired`: a READY engine was not heard from for its lease; its record says for how long.
pub fn lease_expired(engine: &Engine, suppressed: Suppressed) {
    info!(
        target: REGISTRY,
        correlationId = %engine.id,
        eventId = "leaseExpired",
        engine = %engine,
        deployment = &*engine.owner.deployment,
        detail = engine.status_reason.as_deref(),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "The engine's lease expired: no heartbeat came, and no check succeeded."
    );
}

/// `evictionHeld` and `evictionReleased`: of so many engines the lease is over at once that they stay
/// READY for now; they do no longer.
pub fn eviction_held(is_held: bool, overdue: usize) {
    if is_held {
        warn!(
            target: REGISTRY,
            eventId = "evictionHeld",
            overdue,
            message = "Many engines stopped responding at once; the network may be down. They stay READY for now, marked as suspect."
        );
    } else {
        warn!(
            target: REGISTRY,
            eventId = "evictionReleased",
            overdue,
            message = "Engines that do not respond leave READY again."
        );
    }
}
