//! What a failed dial-back says: whose fault it is, and what to do about it.
//!
//! Nothing that the far side sent is quoted: the text reaches the caller who chose the address.

use std::error::Error;
use std::sync::Arc;

use tonic::Status;

use super::dialer::{DialError, lacks_descriptor};
use crate::engine::{DialBackFailure, Engine, FailureKind};
use crate::grpc::tls::ClientFailure;
use crate::grpc::{ConnectError, Module, OwnKey, cause, is_proved, kind_of, summary_and_detail};
use crate::registry::{EngineRegistry, RegistryError};
use crate::token::{Reason, Refusal};

pub(super) fn not_dialled(detail: impl Into<Arc<str>>) -> DialBackFailure {
    DialBackFailure::new(FailureKind::NotDialled, detail)
}

fn not_reached(detail: impl Into<Arc<str>>) -> DialBackFailure {
    DialBackFailure::new(FailureKind::NotReached, detail)
}

pub(super) const FEW_DESCRIPTORS: &str =
    "this DPM has no file descriptor left for it; raise its limit, such as by `ulimit -n`";

/// Returns `true` if this process could not even begin to connect.
pub(super) fn has_no_descriptor(error: &DialError) -> bool {
    let cause = match error {
        DialError::Resolve(error) => Some(error),
        DialError::Connect(error) => match ConnectError::find_in(&**error) {
            Some(ConnectError::Connect(_, error)) => Some(error),
            _ => None,
        },
        DialError::Refused(_) => None,
    };
    cause.is_some_and(lacks_descriptor)
}

pub(super) fn no_connection(error: &DialError, engine: &Engine) -> DialBackFailure {
    match error {
        DialError::Refused(refusal) => {
            not_dialled(refusal.to_string()).with_reason(Reason::AddressNotAllowed.as_str())
        }
        DialError::Connect(error) => not_connected(&**error, engine),
        DialError::Resolve(_) => {
            not_reached(format!("`{}`: {}", engine.address.hostname(), cause(error)))
        }
    }
}

fn not_connected(error: &(dyn Error + 'static), engine: &Engine) -> DialBackFailure {
    let authority = engine.address.authority();
    match ConnectError::find_in(error) {
        Some(plaintext @ ConnectError::Plaintext(_)) => not_dialled(plaintext.to_string()),
        Some(ConnectError::Tls(_, failure)) => no_tls(failure, engine),
        Some(error) => not_reached(format!(
            "{}; is it running, and is {authority} where it listens?",
            cause(error)
        )),
        None => not_reached(format!("no connection to {authority}")),
    }
}

pub(super) fn no_tls(failure: &ClientFailure, engine: &Engine) -> DialBackFailure {
    let authority = engine.address.authority();
    let why = failure.in_own_words();
    not_reached(format!("no TLS with {authority}: {why}"))
}

/// The engine's half of the pair: it does not accept this module.
pub(super) fn refused(
    reason: Reason,
    status: &Status,
    engine: &Engine,
    module: &Module,
) -> DialBackFailure {
    let unproved = if is_proved(status) {
        ""
    } else {
        " (unproved: the refusal is not signed)"
    };
    let (own, owner) = (module.own(), &engine.owner.deployment);
    let own_key = OwnKey::refused_for(reason);
    let what = match own_key {
        Some(key) => key.describe(&format!("`{owner}`"), own.key_id.as_str()),
        None if reason == Reason::RoleMissing => {
            format!("`{owner}` gives this module no impersonation role")
        }
        None => reason.summary().to_owned(),
    };
    let help = match own_key {
        Some(OwnKey::Unknown | OwnKey::Differs) => {
            "on the engine's host, in its home folder: countersign doctor --home .".to_owned()
        }
        // The help of a role that is missing.
        Some(OwnKey::Revoked) | None => reason.help().replace("<caller>", own.issuer()),
    };
    DialBackFailure::new(FailureKind::Refused, format!("{what}{unproved}; {help}"))
        .with_reason(reason.as_str())
}

/// This module's half of the pair: what answered is not the owner as this file knows it.
pub(super) fn not_proved(refusal: &Refusal, engine: &Engine, module: &Module) -> DialBackFailure {
    let owner = &engine.owner.deployment;
    let trust = module.trust().current();
    let keys: Vec<_> = trust
        .deployment(owner)
        .into_iter()
        .flat_map(|deployment| deployment.active_keys())
        .map(|key| key.key_id.as_str())
        .collect();
    let detail = format!(
        "{}; {} answered; keys of `{owner}` here: {}; {}",
        summary_and_detail(refusal),
        engine.address.authority(),
        keys.join(", "),
        refusal.help()
    );
    DialBackFailure::new(kind_of(refusal), detail).with_reason(refusal.reason.as_str())
}

/// Logs that the registry's store failed, if it did; an engine may have been forgotten meanwhile.
pub(super) fn log_failure<T>(registry: &EngineRegistry, done: Result<T, RegistryError>) {
    if let Err(error) = done
        && !matches!(error, RegistryError::NotFound(_))
    {
        registry.log_failure(&cause(&error));
    }
}
