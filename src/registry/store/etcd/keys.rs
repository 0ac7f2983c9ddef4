//! The names of the keys in etcd.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use uuid::Uuid;

use crate::engine::EngineId;
use crate::storage::UseId;

/// The keys of one deployment's DPMs.
#[derive(Clone, Debug)]
pub struct Keys(String);

/// What a key is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// An engine's record.
    Engine(EngineId),
    /// The presence of a replica.
    Replica(Uuid),
}

impl Keys {
    /// Returns the keys of the deployment called `name`.
    pub fn of(name: &str) -> Self {
        Self(format!("/countersign/v1/{name}/"))
    }

    /// Returns the key of a claim. It is followed by no replica: it stands before those of engines.
    pub fn claim(&self, id: &UseId) -> Vec<u8> {
        let id = BASE64_URL_SAFE_NO_PAD.encode(id);
        format!("{}{CLAIMS}{id}", self.0).into_bytes()
    }

    /// Returns what the keys of replicas begin with.
    pub fn replicas(&self) -> Vec<u8> {
        format!("{}{REPLICAS}", self.0).into_bytes()
    }

    /// Returns what the keys of engines begin with.
    pub fn engines(&self) -> Vec<u8> {
        format!("{}{ENGINES}", self.0).into_bytes()
    }

    pub fn replica(&self, id: Uuid) -> Vec<u8> {
        format!("{}{REPLICAS}{id}", self.0).into_bytes()
    }

    pub fn engine(&self, id: EngineId) -> Vec<u8> {
        format!("{}{ENGINES}{id}", self.0).into_bytes()
    }

    /// Reads a key; returns `None` if it is spelled otherwise than here.
    pub fn read(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.0)?;
        if let Some(id) = rest.strip_prefix(ENGINES) {
            let read: EngineId = id.parse().ok()?;
            return (read.to_string() == id).then_some(Key::Engine(read));
        }
        let id = rest.strip_prefix(REPLICAS)?;
        let read = Uuid::try_parse(id).ok()?;
        (read.to_string() == id).then_some(Key::Replica(read))
    }
}

const CLAIMS: &str = "claims/";
const ENGINES: &str = "engines/";
const REPLICAS: &str = "replicas/";
