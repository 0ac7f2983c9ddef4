//! The log events: one function each, with its fixed members in the log line's order.
//!
//! An event carries its own name in `eventId`. `authenticatedUser` and `correlationId` stand
//! before it in the JSON line and are left out of the composed text. Whatever a peer supplied goes
//! through [`Untrusted`]. Events report changes, not retries: the caller decides which is which.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tracing::{error, field, info, warn};

use super::ledger::{of_several, some};
use super::untrusted::Brief;
use super::{Suppressed, Untrusted, UntrustedReason};
use crate::clock::to_rfc3339;
use crate::engine::{DialBackFailure, Engine, EngineAddress, EngineId, EngineStatus, FailureKind};
use crate::identity::ServiceIdentity;

mod engine;
mod store;

use engine::{REGISTRY, STATUS_CHECKER};
pub use engine::{engine_duplicate, engine_is_duplicate, eviction_held, lease_expired};
#[cfg(any(test, feature = "etcd"))]
pub use store::record_passed_over;
pub use store::{registry_degraded, registry_failed, registry_recovered, registry_set_aside};

/// `registerEngine`, if the engine `is_new`: it was registered, or came back, and is NEW.
/// `deregisterEngine`, if not: its owner took it out of service.
pub fn engine_registration(
    is_new: bool,
    caller: &ServiceIdentity,
    engine: &Engine,
    suppressed: Suppressed,
) {
    let constraints = is_new.then(|| field::display(Untrusted(&engine.constraints)));
    info!(
        target: REGISTRY,
        authenticatedUser = %caller,
        correlationId = %engine.id,
        eventId = if is_new { "registerEngine" } else { "deregisterEngine" },
        engineId = %engine.id,
        engine = %engine.address,
        engineConstraints = constraints,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = if is_new { "New engine registered." } else { "Engine deregistered." }
    );
}

/// `setEngineStatus`: an engine went from one status to another.
///
/// `detail` says why if no other line does, as for INACTIVE.
pub fn set_engine_status(
    engine: &Engine,
    old: EngineStatus,
    detail: Option<&str>,
    suppressed: Suppressed,
) {
    info!(
        target: REGISTRY,
        correlationId = %engine.id,
        eventId = "setEngineStatus",
        engine = %engine,
        oldStatus = old.as_str(),
        newStatus = engine.status.as_str(),
        detail,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed)
    );
}

/// `forgetEngine`: an engine was removed; `why` is a sentence.
pub fn forget_engine(engine: &Engine, why: &str) {
    info!(
        target: REGISTRY,
        correlationId = %engine.id,
        eventId = "forgetEngine",
        engine = %engine,
        deployment = &*engine.owner.deployment,
        message = why
    );
}

/// `engineCheckFailed`: why an engine is not READY; logged when the reason changes.
///
/// The detail is the monitor's own text; what it quotes of a peer is escaped there.
pub fn engine_check_failed(engine: &Engine, failure: &DialBackFailure, suppressed: Suppressed) {
    warn!(
        correlationId = %engine.id,
        eventId = "engineCheckFailed",
        engine = %engine,
        status = engine.status.as_str(),
        kind = failure.kind.as_str(),
        side = failure.reason.as_ref().map(|_| side(failure.kind == FailureKind::Refused)),
        reason = failure.reason.as_deref(),
        detail = &*failure.detail,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = format_args!("Engine is not ready: {}.", failure.kind.summary())
    );
}

/// Names the side that refused, as the module that logs it sees it.
fn side(is_peer: bool) -> &'static str {
    if is_peer { "peer" } else { "here" }
}

/// `register`: this engine is registered at the DPM. Of this and the other events of a DPE,
/// `suppressed` counts those since the last line.
pub fn register(engine: EngineId, dpm_url: impl Display, suppressed: Suppressed) {
    info!(
        target: STATUS_CHECKER,
        correlationId = %engine,
        eventId = "register",
        dpmUrl = %dpm_url,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "Engine registered."
    );
}

/// `waitingForDpm`: the DPM cannot be reached; for each cause logged once, then once a minute.
pub fn waiting_for_dpm(
    engine: EngineId,
    dpm_url: impl Display,
    cause: &str,
    help: &str,
    suppressed: Suppressed,
) {
    warn!(
        target: STATUS_CHECKER,
        correlationId = %engine,
        eventId = "waitingForDpm",
        dpmUrl = %dpm_url,
        detail = cause,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = format_args!("waiting for DPM at {dpm_url} ({cause}); {help}")
    );
}

/// `registerRefused`: the DPM does not register this engine, or this engine does not accept the
/// DPM; for each kind and reason logged once, then once a minute.
pub fn register_refused(
    engine: EngineId,
    dpm_url: impl Display,
    (kind, reason): (FailureKind, Option<&str>),
    (detail, help): (&str, &str),
    suppressed: Suppressed,
) {
    error!(
        target: STATUS_CHECKER,
        correlationId = %engine,
        eventId = "registerRefused",
        dpmUrl = %dpm_url,
        kind = kind.as_str(),
        side = side(kind == FailureKind::Refused),
        reason,
        detail,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = format_args!("the DPM does not register this engine; {help}")
    );
}

/// A refused call, for [`auth_rejected`]. Any text in it may come from a stranger.
#[derive(Clone, Copy, Debug)]
pub struct RejectedCall<'a> {
    /// The refusal's word, such as `KEY_UNKNOWN`.
    pub reason: &'a str,
    /// The token's `kid`, if the token had one.
    pub fingerprint: Option<&'a str>,
    /// Where the call came from.
    pub peer: Option<SocketAddr>,
    /// The call's `:path`.
    pub method: &'a str,
    /// What exactly is wrong, never the token.
    pub detail: &'a str,
    /// How to fix it; our own text.
    pub help: &'a str,
}

/// `authRejected`: a call was refused. Logged when such refusals begin, then once a minute;
/// `suppressed` counts those since the last line. `is_verified` says whether the caller's signature
/// verified; of any other caller less is shown.
pub fn auth_rejected(call: &RejectedCall<'_>, is_verified: bool, suppressed: Suppressed) {
    let [detail, key_id, method] = if is_verified {
        [1024, 1024, 256]
    } else {
        [160, 64, 96]
    };
    warn!(
        eventId = "authRejected",
        reason = %Untrusted(call.reason),
        detail = %Brief(call.detail, detail),
        fingerprint = call.fingerprint.map(|kid| field::display(Brief(kid, key_id))),
        peer = call.peer.map(field::display),
        method = %Brief(call.method, method),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = call.help
    );
}

/// `methodWithoutRule`: a verified caller asked for a method that no rule allows.
pub fn method_without_rule(method: &str, suppressed: Suppressed) {
    warn!(
        eventId = "methodWithoutRule",
        method = %Untrusted(method),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "No rule allows this method: it answers UNIMPLEMENTED. Add one to the server's MethodRules."
    );
}

/// `handlerPanicked`: a handler panicked; its call was answered with INTERNAL.
pub fn handler_panicked(method: &str, suppressed: Suppressed) {
    error!(
        eventId = "handlerPanicked",
        method = %Brief(method, 96),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "A handler panicked. Its call was answered with INTERNAL."
    );
}

/// `listenerCrowded`: the listener closes connections or refuses calls for want of room, or cannot
/// accept any.
pub fn listener_crowded(cause: impl Display, suppressed: Suppressed) {
    warn!(
        eventId = "listenerCrowded",
        detail = %cause,
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "The listener has no room. Connections without a valid token are closed first."
    );
}

/// `listenerCalm`: the listener has had room for a while, after it closed `closed` connections for
/// want of it.
pub fn listener_calm(closed: u64) {
    info!(
        eventId = "listenerCalm",
        closedConnections = closed,
        message = "The listener has room again."
    );
}

/// `tlsHandshakeFailed`: a caller connected and did not complete a TLS handshake.
pub fn tls_handshake_failed(peer: SocketAddr, cause: &str, suppressed: Suppressed) {
    warn!(
        eventId = "tlsHandshakeFailed",
        peer = %peer,
        detail = %Brief(cause, 160),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "A TLS handshake failed."
    );
}

/// `logLinesLost`: `lines` log lines were lost. Logged once the outputs work again, and once a
/// minute while one does not; `cause` names it then.
pub fn log_lines_lost(lines: u64, cause: &str) {
    warn!(
        eventId = "logLinesLost",
        lines,
        detail = (!cause.is_empty()).then_some(cause),
        message = "Log lines were lost: they could not be written."
    );
}

/// A bug in countersign showed; `report` says where, and how to report it. Logged for each place
/// once a minute; `suppressed` counts those since the last line.
pub fn bug(report: &str, suppressed: Suppressed) {
    let more = some(suppressed).map_or_else(String::new, |more| format!(" (suppressed={more})"));
    error!(
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = format_args!("{report}{more}")
    );
}

/// `certificateExpires`: an own certificate expires within 30 days, or has expired; logged once a
/// day. `usage` is `server`, or the connection that shows it.
pub fn certificate_expires(
    usage: &str,
    fingerprint: impl Display,
    not_after: SystemTime,
    days_left: i64,
) {
    warn!(
        eventId = "certificateExpires",
        "use" = usage,
        fingerprint = %fingerprint,
        notAfter = to_rfc3339(not_after),
        daysLeft = days_left,
        message = "This certificate expires within 30 days, or has expired. Peers that do not pin it refuse it once it has expired."
    );
}

/// `startup`: the module, of the type `module`, accepts calls at `address`, unless its port is 0.
/// `deployment` is its name, or its key if it has none, and `advertised` the address that an engine
/// advertises.
pub fn startup(
    [module, deployment, fingerprint]: [&str; 3],
    address: SocketAddr,
    http: Option<SocketAddr>,
    advertised: Option<&EngineAddress>,
) {
    info!(
        eventId = "startup",
        module,
        deployment,
        fingerprint,
        address = (address.port() > 0).then(|| field::display(address)),
        http = http.map(field::display),
        advertised = advertised.map(|address| field::display(address.authority())),
        version = env!("CARGO_PKG_VERSION"),
        message = "Started."
    );
}

/// `startup`: settings of `file` are for the binary and have no effect here.
pub fn settings_not_applied(file: impl Display, settings: &str) {
    info!(
        eventId = "startup",
        file = %file,
        settings,
        message = "Settings that only the binary applies have no effect in a library."
    );
}

/// `shutdown`: the module has stopped; `detail` says how.
pub fn shutdown(module: &str, detail: &str) {
    info!(eventId = "shutdown", module, message = detail);
}

/// `engineNotReady`: the DPM says why it does not see this engine as READY; for each reason logged
/// once, then once a minute.
///
/// `detail` is the DPM's text. It says more than the reason of `failure`, the dial-back that
/// failed.
pub fn engine_not_ready(
    engine: EngineId,
    dpm_url: impl Display,
    (status, detail): (&str, &str),
    failure: Option<(FailureKind, Option<&str>)>,
    suppressed: Suppressed,
) {
    warn!(
        target: STATUS_CHECKER,
        correlationId = %engine,
        eventId = "engineNotReady",
        dpmUrl = %dpm_url,
        status,
        kind = failure.map(|(kind, _)| kind.as_str()),
        side = failure.and_then(|(kind, reason)| reason.map(|_| side(kind != FailureKind::Refused))),
        reason = failure.and_then(|(_, reason)| reason),
        detail = %UntrustedReason(detail),
        suppressed = some(suppressed),
        ofSeveralKinds = of_several(suppressed),
        message = "The DPM does not see this engine as ready."
    );
}

/// `clockSkewed`: the clock of a callee differs from this one by over half of the leeway; logged
/// once, until it is in step again. `ahead` is in seconds.
pub fn clock_skewed(deployment: &str, ahead: f64, leeway: Duration) {
    let which = if ahead < 0.0 { "behind" } else { "ahead of" };
    let (seconds, limit) = (ahead.abs(), leeway.as_secs());
    warn!(
        eventId = "clockSkewed",
        deployment,
        skewSeconds = tenths(ahead),
        leewaySeconds = limit,
        message = format_args!(
            "The clock of {deployment} is {seconds:.1} s {which} this one. Above {limit} s, tokens and proofs are refused. Check NTP on both hosts."
        )
    );
}

/// `clockInStep`: the clock of a callee that differed is in step again.
pub fn clock_in_step(deployment: &str, ahead: f64) {
    info!(
        eventId = "clockInStep",
        deployment,
        skewSeconds = tenths(ahead),
        message = "The clock is in step again."
    );
}

/// Rounds to tenths of a second.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// `configReloaded`: a module's changed settings are applied. `changes` names them;
/// `warnings` counts what `check` would report; `alone`: no deployment is trusted any more.
pub fn settings_reloaded(files: &str, changes: &str, warnings: usize, alone: bool) {
    let changes = (!changes.is_empty()).then_some(changes);
    let warnings = (warnings > 0).then_some(warnings);
    if alone {
        let message = "The changed settings are applied. No deployment is trusted any more.";
        warn!(
            eventId = "configReloaded",
            files, changes, warnings, message
        );
        return;
    }
    let message = match changes {
        None => "The settings are valid. No setting changed that a reload can apply.",
        Some(_) => "The changed settings are applied.",
    };
    info!(
        eventId = "configReloaded",
        files, changes, warnings, message
    );
}

/// `configNeedsRestart`: the files hold `settings` that differ from the current ones, which only a
/// restart changes; logged when more of them differ.
pub fn restart_needed(files: &str, settings: &str) {
    warn!(
        eventId = "configNeedsRestart",
        files,
        settings,
        message = "These settings take effect only when this module restarts."
    );
}

/// `keyRevoked` or `keyUnrevoked`: a reload revoked a key, or took that back.
pub fn key_revoked(revoked: bool, fingerprint: impl Display) {
    info!(
        eventId = if revoked { "keyRevoked" } else { "keyUnrevoked" },
        fingerprint = %fingerprint,
        message = if revoked { "This key is revoked." } else { "This key is no longer revoked." }
    );
}

/// `revokedKeyTrusted`: the file trusts a key that was revoked before; it stays refused.
pub fn revoked_key_trusted(deployment: &str, key: &str, fingerprint: impl Display) {
    warn!(
        eventId = "revokedKeyTrusted",
        deployment,
        key = %Untrusted(key),
        fingerprint = %fingerprint,
        message = "This key was revoked and stays refused, although its file trusts it again. Write `is-revoked=true`, or see `countersign explain CS0210`."
    );
}

/// `revocationsNotStored`: only this process remembers which keys are revoked.
pub fn revocations_not_stored(cause: &str) {
    warn!(
        eventId = "revocationsNotStored",
        detail = cause,
        message = "Revoked keys cannot be stored in the home's folder `storage`: they are remembered until this process ends."
    );
}

/// `configUnsettled`: the files have changed without pause `since`; logged once, until they stop
/// changing.
pub fn config_unsettled(files: &str, since: Duration) {
    warn!(
        eventId = "configUnsettled",
        files,
        message = format_args!(
            "The files have changed for {} s without pause, so they are not applied. Check which program writes them.",
            since.as_secs()
        )
    );
}

/// `configReloadFailed`: changed files cannot be used and the current settings stay; logged once
/// for each cause.
pub fn config_reload_failed(files: &str, cause: &str) {
    error!(
        eventId = "configReloadFailed",
        files,
        detail = cause,
        message = "The changed files cannot be used. The module keeps its current settings."
    );
}
