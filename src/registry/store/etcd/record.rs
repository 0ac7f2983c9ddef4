//! A record in etcd, and what of it this deployment has signed.

use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::engine::{DialBackFailure, Engine, EngineStatus, Held};
use crate::jose::compact::{HeaderSpec, sign};
use crate::jose::{Compact, KeyError, VerifyingKey, json};
use crate::proto::convert::failure_kind;
use crate::registry::store::record::{self, RecordError};
use crate::trust::OwnDeployment;

/// A value in etcd.
#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    /// The engine, as [`record`] writes it.
    #[prost(bytes = "vec", tag = "1")]
    engine: Vec<u8>,
    /// The deployment's word for it: a JWS.
    #[prost(string, tag = "2")]
    statement: String,
}

/// What the deployment says of a record. The digest covers the engine's id, owner, address,
/// instance, status and constraints, so that all of them are signed.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    /// The base64url SHA-256 of the engine's bytes.
    record: String,
    /// The revision of the record that this one replaces; 0 if it replaces none.
    revision: i64,
    iat: u64,
    /// When the engine was last seen, in milliseconds since 1970.
    seen: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// The replica that has, or had, the stream of a one-way engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Uuid>,
    /// Whether that stream is open.
    #[serde(default)]
    open: bool,
    /// The key that signs, as DER in base64url: a replica may not sign with it yet, or no longer.
    key: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Failure {
    kind: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    detail: String,
}

/// A record that was read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The engine. Without a valid signature it is NEW, and registered over the network.
    pub engine: Engine,
    /// What the signature adds, if it is this deployment's.
    pub signed: Option<Signed>,
}

/// What is known of a signed record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signed {
    /// When it was signed.
    pub at: SystemTime,
    /// The revision that it replaced.
    pub replaced: i64,
}

/// Returns the bytes of `engine`, signed by `own`, to replace the record of the revision `replaced`. Where
/// its stream is, must be named.
///
/// # Errors
///
/// When the key does not sign.
pub fn seal(
    engine: &Engine,
    replaced: i64,
    now: SystemTime,
    own: &OwnDeployment,
) -> Result<Vec<u8>, KeyError> {
    let bytes = record::encode(engine);
    let failure = engine.dial_back_failure.as_ref().map(|failure| Failure {
        kind: failure.kind as i32,
        reason: failure.reason.as_deref().map(shortened),
        detail: shortened(&failure.detail),
    });
    let claims = Claims {
        record: digest(&bytes),
        revision: replaced,
        iat: record::milliseconds(now) / 1000,
        seen: record::milliseconds(engine.last_seen_at),
        why: engine.status_reason.as_deref().map(shortened),
        failure,
        holder: engine.held.and_then(|held| held.by),
        open: engine.held.is_some_and(|held| held.is_open),
        key: BASE64_URL_SAFE_NO_PAD.encode(own.key.verifying_key().to_spki_der()),
    };
    let payload = serde_json::to_vec(&claims).map_err(|_cause| KeyError::Encode)?;
    let header = HeaderSpec {
        typ: TYPE,
        kid: &own.key_id,
    };
    let statement = sign(&header, &payload, &own.key)?;
    let value = Value {
        engine: bytes,
        statement,
    };
    Ok(value.encode_to_vec())
}

/// Reads what [`seal`] wrote, or anything else that is in etcd.
///
/// What no key of `own` signed is believed no further than an engine's own registration would be: it
/// is NEW. How old a signature may be is not judged here.
///
/// # Errors
///
/// When the bytes hold no engine.
pub fn open(bytes: &[u8], own: &OwnDeployment) -> Result<Opened, RecordError> {
    let value = Value::decode(bytes)?;
    let mut engine = record::decode(&value.engine, None)?;
    engine.suspect = false;
    let Some(claims) = verified(&value, own) else {
        return Ok(Opened {
            engine: doubted(engine),
            signed: None,
        });
    };
    let seen = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(claims.seen));
    engine.last_seen_at = seen.unwrap_or(engine.registered_at);
    engine.status_reason = claims.why.map(Into::into);
    engine.dial_back_failure = claims.failure.and_then(|failure| {
        let kind = failure_kind(failure.kind)?;
        let said = DialBackFailure::new(kind, failure.detail);
        Some(match failure.reason {
            Some(reason) => said.with_reason(reason),
            None => said,
        })
    });
    engine.held = claims.holder.map(|holder| Held {
        by: Some(holder),
        is_open: claims.open,
    });
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.iat));
    let signed = at.map(|at| Signed {
        at,
        replaced: claims.revision,
    });
    Ok(Opened { engine, signed })
}

/// Returns `engine` as it is where nothing vouches for its status.
pub(super) fn doubted(engine: Engine) -> Engine {
    let status = match engine.status {
        EngineStatus::Inactive => EngineStatus::Inactive,
        _ => EngineStatus::New,
    };
    Engine {
        status,
        suspect: false,
        status_reason: Some(DOUBTED.into()),
        dial_back_failure: None,
        over_loopback: false,
        ..engine
    }
}

/// Returns the claims of `value` if a key of `own` signed them for its engine.
fn verified(value: &Value, own: &OwnDeployment) -> Option<Claims> {
    let statement = Compact::parse(&value.statement).ok()?;
    if statement.header().typ() != Some(TYPE) {
        return None;
    }
    let members = json::object(statement.payload()).ok()?;
    let claims: Claims = serde_json::from_value(members.into()).ok()?;
    let is_signed =
        if claims.key == BASE64_URL_SAFE_NO_PAD.encode(own.key.verifying_key().to_spki_der()) {
            statement.verify(own.key.verifying_key())
        } else {
            // Another replica signs with the next key already, or with the one before still.
            let key = BASE64_URL_SAFE_NO_PAD.decode(&claims.key).ok()?;
            let key = VerifyingKey::from_spki_der(&key).ok()?;
            own.accepted.contains(&key.fingerprint()) && statement.verify(&key)
        };
    (is_signed && claims.record == digest(&value.engine)).then_some(claims)
}

fn digest(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

fn shortened(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}

const TYPE: &str = "countersign-record+jwt";
/// A statement has to fit into 8 KiB.
const MOST_TEXT: usize = 500;
const DOUBTED: &str = "not checked here; what etcd has of it is not signed, or too old";
