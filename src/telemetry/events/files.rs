//! The events of a module's files: what a reload changed, and what stopped it.

use std::fmt::Display;
use std::time::Duration;

use tracing::{error, info, warn};

use super::Untrusted;

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
        cause,
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
        cause,
        message = "The changed files cannot be used. The module keeps its current settings."
    );
}
