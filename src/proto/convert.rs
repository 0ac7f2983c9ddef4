//! Between wire and engine: everything a peer sent is checked on its way in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::registry as wire;
use crate::engine::{
    AddressError, ConstraintsError, DialBackFailure, Engine, EngineAddress, EngineConstraints,
    EngineId, EngineIdError, EngineStatus, FailureKind, Instance, Owner,
};

/// Why a message is not accepted: the field and its fault.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Not an engine id.
    #[error("`engine_id`: {0}")]
    Id(EngineIdError),
    /// Not an instance.
    #[error("`instance`: {0}")]
    Instance(EngineIdError),
    /// An address that cannot be dialled.
    #[error("`address`: {0}")]
    Address(AddressError),
    /// Constraints over their limit.
    #[error("`constraints`: {0}")]
    Constraints(ConstraintsError),
}

/// Reads `engine_id`.
///
/// # Errors
///
/// When `text` is not a hyphenated UUID.
pub fn engine_id(text: &str) -> Result<EngineId, ConvertError> {
    text.parse().map_err(ConvertError::Id)
}

/// Reads `instance`, which older engines leave out.
///
/// # Errors
///
/// When `text` is neither empty nor a hyphenated UUID.
pub fn instance(text: &str) -> Result<Option<Instance>, ConvertError> {
    let instance = (!text.is_empty()).then(|| text.parse());
    instance.transpose().map_err(ConvertError::Instance)
}

/// Reads the time between two heartbeats, which older modules leave out, within bounds.
pub fn heartbeat_interval(named: Option<prost_types::Duration>) -> Option<Duration> {
    // Prost's own conversion panics on odd values.
    let prost_types::Duration { seconds, nanos } = named?;
    let (seconds, nanos) = (u64::try_from(seconds), u32::try_from(nanos));
    let interval = Duration::new(seconds.ok()?, nanos.ok()?.min(999_999_999));
    Some(within_bounds(interval))
}

/// Returns `interval`, or the nearest one that two modules may agree on.
pub fn within_bounds(interval: Duration) -> Duration {
    interval.clamp(Duration::from_millis(100), Duration::from_secs(3600))
}

/// Writes an instance; empty where it is not known.
pub fn instance_text(instance: Option<Instance>) -> String {
    instance.map_or_else(String::new, |instance| instance.to_string())
}

impl TryFrom<&wire::EngineAddress> for EngineAddress {
    type Error = ConvertError;

    fn try_from(address: &wire::EngineAddress) -> Result<Self, ConvertError> {
        let read = match address.port {
            0 => Self::one_way(&address.hostname),
            port => Self::new(&address.hostname, port.into()),
        };
        read.map_err(ConvertError::Address)
    }
}

impl From<&EngineAddress> for wire::EngineAddress {
    fn from(address: &EngineAddress) -> Self {
        Self {
            hostname: address.hostname().to_owned(),
            port: address.port().into(),
        }
    }
}

impl TryFrom<wire::EngineConstraints> for EngineConstraints {
    type Error = ConvertError;

    fn try_from(constraints: wire::EngineConstraints) -> Result<Self, ConvertError> {
        let sorted = |map: HashMap<_, _>| map.into_iter().collect();
        Self::new(
            sorted(constraints.requirements),
            sorted(constraints.capabilities),
            constraints.priorities,
        )
        .map_err(ConvertError::Constraints)
    }
}

impl From<&EngineConstraints> for wire::EngineConstraints {
    fn from(constraints: &EngineConstraints) -> Self {
        Self {
            requirements: constraints.requirements().clone().into_iter().collect(),
            capabilities: constraints.capabilities().clone().into_iter().collect(),
            priorities: constraints.priorities().to_vec(),
        }
    }
}

/// Reads a status; returns `None` if `number` is unspecified or unknown to this version.
pub fn engine_status(number: i32) -> Option<EngineStatus> {
    let mut all = EngineStatus::ALL.into_iter();
    all.find(|status| *status as i32 == number)
}

/// Returns the word of the status `number`; `UNSPECIFIED` if it is unknown to this version.
pub fn status_word(number: i32) -> &'static str {
    engine_status(number).map_or("UNSPECIFIED", EngineStatus::as_str)
}

impl From<&DialBackFailure> for wire::DialBackFailure {
    fn from(failure: &DialBackFailure) -> Self {
        Self {
            kind: failure.kind as i32,
            reason: failure.reason.as_deref().unwrap_or_default().into(),
            detail: failure.detail.as_ref().into(),
        }
    }
}

/// Reads the kind of a failure; returns `None` if it is unknown to this version.
pub fn failure_kind(number: i32) -> Option<FailureKind> {
    let mut all = FailureKind::ALL.into_iter();
    all.find(|kind| *kind as i32 == number)
}

impl From<&Engine> for wire::Engine {
    fn from(engine: &Engine) -> Self {
        let Engine { owner, .. } = engine;
        Self {
            id: engine.id.to_string(),
            address: Some((&engine.address).into()),
            constraints: Some((&engine.constraints).into()),
            status: engine.status as i32,
            suspect: engine.suspect,
            status_reason: engine.status_reason.as_deref().unwrap_or_default().into(),
            deployment: owner.deployment.as_ref().into(),
            module: owner.module.as_ref().into(),
            environment: owner.environment.as_deref().unwrap_or_default().into(),
            fingerprint: owner.fingerprint.as_ref().into(),
            registered_at: Some(engine.registered_at.into()),
            last_seen_at: Some(engine.last_seen_at.into()),
            dial_back_failure: engine.dial_back_failure.as_ref().map(Into::into),
            instance: instance_text(engine.instance),
        }
    }
}

/// Reads an engine as a registry kept it, without how its checks went.
impl TryFrom<wire::Engine> for Engine {
    type Error = ConvertError;

    fn try_from(engine: wire::Engine) -> Result<Self, ConvertError> {
        let address = engine.address.ok_or(ConvertError::Missing("address"))?;
        let registered = engine.registered_at.and_then(|time| time.try_into().ok());
        let status = engine_status(engine.status).ok_or(ConvertError::Missing("status"))?;
        let registered_at = registered.ok_or(ConvertError::Missing("registered_at"))?;
        Ok(Self {
            id: engine_id(&engine.id)?,
            address: (&address).try_into()?,
            constraints: engine.constraints.unwrap_or_default().try_into()?,
            status,
            suspect: engine.suspect,
            status_reason: None,
            dial_back_failure: None,
            owner: Owner {
                deployment: engine.deployment.into(),
                module: engine.module.into(),
                environment: Some(engine.environment.into()).filter(|e: &Arc<str>| !e.is_empty()),
                fingerprint: engine.fingerprint.into(),
            },
            over_loopback: false,
            instance: instance(&engine.instance)?,
            heartbeat_interval: None,
            held: None,
            registered_at,
            last_seen_at: registered_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::engine::Owner;

    #[test]
    fn every_status_comes_back_as_it_went() {
        for status in EngineStatus::ALL {
            let number = status as i32;
            let known = wire::EngineStatus::try_from(number).unwrap();
            let name = format!("ENGINE_STATUS_{}", status.as_str());
            assert_eq!(known.as_str_name(), name);
            assert_eq!(engine_status(number), Some(status));
            assert_eq!(status_word(number), status.as_str());
        }
        for number in [0, 5, -1] {
            assert_eq!(engine_status(number), None);
            assert_eq!(status_word(number), "UNSPECIFIED");
        }
    }

    #[test]
    fn every_kind_of_failure_comes_back_as_it_went() {
        for kind in FailureKind::ALL {
            let failure = DialBackFailure::new(kind, "x").with_reason("KEY_UNKNOWN");
            let message = wire::DialBackFailure::from(&failure);
            let name = message.kind().as_str_name();

            assert_eq!(failure_kind(message.kind), Some(kind));
            assert_eq!((&*message.reason, &*message.detail), ("KEY_UNKNOWN", "x"));
            assert_eq!(name, format!("DIAL_BACK_FAILURE_KIND_{}", kind.as_str()));
        }
        for number in [0, 10, -1] {
            assert_eq!(failure_kind(number), None);
        }
    }

    #[test]
    fn engine_goes_to_the_wire_field_by_field() {
        let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let engine = Engine {
            id: EngineId::from_random([7; 16]),
            address: EngineAddress::new("user-VirtualBox", 8532).unwrap(),
            constraints: EngineConstraints::default(),
            status: EngineStatus::Disconnected,
            suspect: false,
            status_reason: Some("timed out".into()),
            dial_back_failure: Some(DialBackFailure::new(FailureKind::NotReached, "x")),
            owner: Owner {
                deployment: "dpe-dev".into(),
                module: "dpe".into(),
                environment: None,
                fingerprint: "kHSz".into(),
            },
            registered_at: time(1_234),
            over_loopback: false,
            instance: Some(Instance::from_random([9; 16])),
            heartbeat_interval: None,
            held: None,
            last_seen_at: time(5_678),
        };

        let sent = wire::Engine::from(&engine);

        assert_eq!(sent.id, engine.id.to_string());
        assert_eq!((&*sent.deployment, &*sent.module), ("dpe-dev", "dpe"));
        assert_eq!((&*sent.environment, &*sent.fingerprint), ("", "kHSz"));
        assert_eq!(sent.status_reason, "timed out");
        assert_eq!(sent.registered_at, Some(time(1_234).into()));
        assert_eq!(sent.last_seen_at, Some(time(5_678).into()));
        assert_eq!(instance(&sent.instance), Ok(engine.instance));
        assert_eq!(sent.dial_back_failure.unwrap().detail, "x");
    }

    #[test]
    fn error_names_the_field() {
        let address = |hostname: &str, port| wire::EngineAddress {
            hostname: hostname.to_owned(),
            port,
        };
        let constraints = wire::EngineConstraints {
            priorities: vec!["x".repeat(65_537)],
            ..Default::default()
        };
        for (error, expected) in [
            (engine_id("x").unwrap_err(), "`engine_id`: "),
            (instance("x").unwrap_err(), "`instance`: "),
            (
                EngineAddress::try_from(&address("a", -1)).unwrap_err(),
                "`address`: the port is -1",
            ),
            (
                EngineAddress::try_from(&address("", 1)).unwrap_err(),
                "`address`: the host name is",
            ),
            (
                EngineConstraints::try_from(constraints).unwrap_err(),
                "`constraints`: ",
            ),
        ] {
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn ports_beyond_16_bits_are_refused_not_wrapped() {
        for port in [-1, 65_536, 65_536 + 8532, i32::MIN, i32::MAX] {
            let address = wire::EngineAddress {
                hostname: "a".into(),
                port,
            };
            assert!(EngineAddress::try_from(&address).is_err(), "{port}");
        }
    }

    #[test]
    fn port_0_is_that_of_an_engine_that_is_never_dialled() {
        let sent = wire::EngineAddress {
            hostname: "a.example".into(),
            port: 0,
        };

        let address = EngineAddress::try_from(&sent).unwrap();

        assert!(address.is_one_way());
        assert_eq!(address.authority(), "a.example (one-way)");
        assert_eq!(wire::EngineAddress::from(&address), sent);
        let (hostname, port) = ("a b".into(), 0);
        assert!(EngineAddress::try_from(&wire::EngineAddress { hostname, port }).is_err());
    }
}
