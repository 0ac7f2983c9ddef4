//! An engine as bytes: what outlasts the process.

use std::time::{Duration, SystemTime};

use prost::Message as _;

use crate::engine::{Engine, EngineStatus};
use crate::proto::convert::{ConvertError, within_bounds};
use crate::proto::registry as wire;

/// A record.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(message, optional, tag = "1")]
    engine: Option<wire::Engine>,
    #[prost(bool, tag = "2")]
    over_loopback: bool,
    /// In milliseconds; 0 if it is not known.
    #[prost(uint64, tag = "3")]
    heartbeat_interval: u64,
}

/// Returns the bytes of `engine`: all but how checks went.
pub fn encode(engine: &Engine) -> Vec<u8> {
    let mut kept = wire::Engine::from(engine);
    kept.status_reason.clear();
    kept.dial_back_failure = None;
    kept.last_seen_at = None;
    let record = Record {
        engine: Some(kept),
        over_loopback: engine.over_loopback,
        heartbeat_interval: engine.heartbeat_interval.map_or(0, |interval| {
            u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
        }),
    };
    record.encode_to_vec()
}

/// Reads what [`encode`] wrote, of an engine that was last seen at `last_seen_at`.
///
/// Nothing of this process has checked the engine: one that was READY is suspect.
///
/// # Errors
///
/// When the bytes are not such a record.
pub fn decode(bytes: &[u8], last_seen_at: Option<SystemTime>) -> Result<Engine, RecordError> {
    let record = Record::decode(bytes)?;
    let kept = record.engine.ok_or(ConvertError::Missing("engine"))?;
    let mut engine = Engine::try_from(kept)?;
    engine.over_loopback = record.over_loopback;
    let interval = Some(record.heartbeat_interval).filter(|interval| *interval > 0);
    engine.heartbeat_interval = interval.map(|ms| within_bounds(Duration::from_millis(ms)));
    engine.last_seen_at =
        last_seen_at.map_or(engine.registered_at, |seen| seen.max(engine.registered_at));
    engine.suspect = engine.status == EngineStatus::Ready;
    engine.status_reason = Some(NOT_CHECKED.into());
    Ok(engine)
}

/// Returns the milliseconds from 1970 to `time`; 0 if it is earlier.
pub fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("a record is no message")]
    Message(#[from] prost::DecodeError),
    #[error("a record is not valid: {0}")]
    Value(#[from] ConvertError),
}

const NOT_CHECKED: &str = "not checked since the registry started";
