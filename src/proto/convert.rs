//! Between wire and engine: everything a peer sent is checked on its way in.

use std::collections::HashMap;
use std::time::SystemTime;

use super::registry as wire;
use crate::engine::{
    AddressError, ConstraintsError, Engine, EngineAddress, EngineConstraints, EngineId,
    EngineIdError, EngineStatus, Owner,
};
use crate::identity::{DeploymentName, Environment, ModuleType, NameError};

/// Why a message is not accepted: which field, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// An id that is none.
    #[error("`{field}`: {source}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: EngineIdError,
    },
    /// An address that cannot be dialled.
    #[error("`address`: {0}")]
    Address(AddressError),
    /// Constraints over their limit.
    #[error("`constraints`: {0}")]
    Constraints(ConstraintsError),
    /// A name that is none.
    #[error("`{field}`: {source}")]
    Name {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: NameError,
    },
    /// A number outside of the enumeration.
    #[error("`status`: {0} is no engine status")]
    Status(i32),
    /// A time that this machine cannot express.
    #[error("`{0}`: it is no time")]
    Time(&'static str),
    /// A text over its limit.
    #[error("`{field}`: it has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// Reads `engine_id`.
///
/// # Errors
///
/// When `text` is not a hyphenated UUID.
pub fn engine_id(text: &str) -> Result<EngineId, ConvertError> {
    id("engine_id", text)
}

fn id(field: &'static str, text: &str) -> Result<EngineId, ConvertError> {
    text.parse()
        .map_err(|source| ConvertError::Id { field, source })
}

impl TryFrom<&wire::EngineAddress> for EngineAddress {
    type Error = ConvertError;

    fn try_from(address: &wire::EngineAddress) -> Result<Self, ConvertError> {
        Self::new(&address.hostname, address.port.into()).map_err(ConvertError::Address)
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

impl From<EngineStatus> for wire::EngineStatus {
    fn from(status: EngineStatus) -> Self {
        match status {
            EngineStatus::New => Self::New,
            EngineStatus::Ready => Self::Ready,
            EngineStatus::Disconnected => Self::Disconnected,
            EngineStatus::Inactive => Self::Inactive,
        }
    }
}

/// Reads `status`.
///
/// # Errors
///
/// When `number` is unspecified or outside of the enumeration.
pub fn engine_status(number: i32) -> Result<EngineStatus, ConvertError> {
    match wire::EngineStatus::try_from(number) {
        Ok(wire::EngineStatus::New) => Ok(EngineStatus::New),
        Ok(wire::EngineStatus::Ready) => Ok(EngineStatus::Ready),
        Ok(wire::EngineStatus::Disconnected) => Ok(EngineStatus::Disconnected),
        Ok(wire::EngineStatus::Inactive) => Ok(EngineStatus::Inactive),
        Ok(wire::EngineStatus::Unspecified) | Err(_) => Err(ConvertError::Status(number)),
    }
}

impl From<&Engine> for wire::Engine {
    fn from(engine: &Engine) -> Self {
        let Engine { owner, .. } = engine;
        Self {
            id: engine.id.to_string(),
            address: Some((&engine.address).into()),
            constraints: Some((&engine.constraints).into()),
            status: wire::EngineStatus::from(engine.status).into(),
            status_reason: engine.status_reason.as_deref().unwrap_or_default().into(),
            deployment: owner.deployment.as_ref().into(),
            module: owner.module.as_ref().into(),
            environment: owner.environment.as_deref().unwrap_or_default().into(),
            fingerprint: owner.fingerprint.as_ref().into(),
            registered_at: Some(engine.registered_at.into()),
            last_seen_at: Some(engine.last_seen_at.into()),
        }
    }
}

impl TryFrom<wire::Engine> for Engine {
    type Error = ConvertError;

    fn try_from(engine: wire::Engine) -> Result<Self, ConvertError> {
        let address = engine.address.ok_or(ConvertError::Missing("address"))?;
        let name = |field, source| ConvertError::Name { field, source };
        let environment = match engine.environment.as_str() {
            "" => None,
            text => Some(Environment::new(text).map_err(|e| name("environment", e))?),
        };
        let deployment =
            DeploymentName::new(&engine.deployment).map_err(|e| name("deployment", e))?;
        let module = ModuleType::new(&engine.module).map_err(|e| name("module", e))?;
        bounded("fingerprint", &engine.fingerprint, 512)?;
        bounded("status_reason", &engine.status_reason, 8192)?;
        Ok(Self {
            id: id("id", &engine.id)?,
            address: EngineAddress::try_from(&address)?,
            constraints: engine.constraints.unwrap_or_default().try_into()?,
            status: engine_status(engine.status)?,
            status_reason: (!engine.status_reason.is_empty()).then(|| engine.status_reason.into()),
            owner: Owner {
                deployment: deployment.as_str().into(),
                module: module.as_str().into(),
                environment: environment.map(|e| e.as_str().into()),
                fingerprint: engine.fingerprint.into(),
            },
            over_loopback: false,
            registered_at: time("registered_at", engine.registered_at)?,
            last_seen_at: time("last_seen_at", engine.last_seen_at)?,
        })
    }
}

fn bounded(field: &'static str, text: &str, limit: usize) -> Result<(), ConvertError> {
    let length = text.len();
    if length > limit {
        return Err(ConvertError::TooLong {
            field,
            length,
            limit,
        });
    }
    Ok(())
}

fn time(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<SystemTime, ConvertError> {
    let time = time.ok_or(ConvertError::Missing(field))?;
    SystemTime::try_from(time).or(Err(ConvertError::Time(field)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn engine() -> Engine {
        let map = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        Engine {
            id: EngineId::from_random([7; 16]),
            address: EngineAddress::new("user-VirtualBox", 8532).unwrap(),
            constraints: EngineConstraints::new(map.clone(), map, vec!["c".into()]).unwrap(),
            status: EngineStatus::Disconnected,
            status_reason: Some("timed out".into()),
            owner: Owner {
                deployment: "dpe-dev".into(),
                module: "dpe".into(),
                environment: Some("dev".into()),
                fingerprint: "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM".into(),
            },
            registered_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234),
            over_loopback: false,
            last_seen_at: SystemTime::UNIX_EPOCH + Duration::from_millis(5_678),
        }
    }

    #[test]
    fn engine_comes_back_from_the_wire_as_it_went() {
        let bare = Engine {
            status_reason: None,
            status: EngineStatus::Ready,
            owner: Owner {
                environment: None,
                ..engine().owner
            },
            ..engine()
        };
        for engine in [engine(), bare] {
            assert_eq!(Engine::try_from(wire::Engine::from(&engine)), Ok(engine));
        }
    }

    #[test]
    fn every_status_comes_back_as_it_went() {
        for status in EngineStatus::ALL {
            let number = wire::EngineStatus::from(status).into();
            assert_eq!(engine_status(number), Ok(status));
        }
        for number in [0, 5, -1] {
            assert_eq!(engine_status(number), Err(ConvertError::Status(number)));
        }
    }

    #[test]
    fn error_names_the_field() {
        type Spoil = fn(&mut wire::Engine);
        let rows: [(Spoil, &str); 9] = [
            (|e| e.id = "x".into(), "`id`: "),
            (|e| e.address = None, "`address` is missing"),
            (
                |e| e.address.as_mut().unwrap().port = 0,
                "`address`: the port is 0",
            ),
            (
                |e| e.address.as_mut().unwrap().hostname.clear(),
                "`address`: the host name is",
            ),
            (
                |e| e.constraints.as_mut().unwrap().priorities = vec!["x".repeat(65_537)],
                "`constraints`: ",
            ),
            (|e| e.deployment = "a b".into(), "`deployment`: "),
            (|e| e.module.clear(), "`module`: "),
            (|e| e.fingerprint = "x".repeat(513), "`fingerprint`: "),
            (|e| e.registered_at = None, "`registered_at` is missing"),
        ];
        for (spoil, expected) in rows {
            let mut message = wire::Engine::from(&engine());
            spoil(&mut message);

            let error = Engine::try_from(message).unwrap_err().to_string();

            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn ports_beyond_16_bits_are_refused_not_wrapped() {
        for port in [0, -1, 65_536, 65_536 + 8532, i32::MIN, i32::MAX] {
            let address = wire::EngineAddress {
                hostname: "a".into(),
                port,
            };
            assert!(EngineAddress::try_from(&address).is_err(), "{port}");
        }
    }
}
