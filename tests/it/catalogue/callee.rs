//! The module under test, and calls to it.

use bytes::{Buf as _, BufMut as _};
use countersign::grpc::Connection;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Response, Status};

use super::peers::Peers;
use super::row::Call;
use crate::support::world::{RunningDpe, RunningDpm, channel, free_port};

/// A module that answers on a real socket.
pub(super) struct Callee {
    pub(super) peers: Peers,
    /// A method that asks for the role and takes an empty message.
    pub(super) method: &'static str,
    pub(super) channel: Connection,
    _running: Running,
}

enum Running {
    Dpm { _dpm: RunningDpm },
    Dpe { _dpe: RunningDpe, _home: TempDir },
}

impl Callee {
    /// A DPM that DPEs call.
    pub(super) async fn dpm() -> Self {
        let peers = Peers::new("dpm", "dpe");
        let dpm = RunningDpm::start(peers.module()).await;
        Self {
            channel: channel(dpm.address).await,
            peers,
            method: "/countersign.registry.v1.EngineRegistryService/ListEngines",
            _running: Running::Dpm { _dpm: dpm },
        }
    }

    /// A DPE that DPMs call. Its own DPM is not there.
    pub(super) async fn dpe() -> Self {
        let peers = Peers::new("dpe", "dpm");
        let unused = free_port().await.local_addr().unwrap();
        let home = tempfile::tempdir().unwrap();
        let dpe = RunningDpe::start_with(peers.module(), unused, home.path(), |options| {
            options.dpm_deployment = peers.caller.name.clone();
        });
        Self {
            channel: channel(dpe.address).await,
            peers,
            method: "/countersign.engine.v1.EngineService/CheckStatus",
            _running: Running::Dpe {
                _dpe: dpe,
                _home: home,
            },
        }
    }

    /// Calls the method and returns how it ended.
    pub(super) async fn call(&self, call: Call) -> Status {
        self.call_at(self.method, call, Vec::new()).await
    }

    /// Calls `path` with `message` as it is.
    pub(super) async fn call_at(&self, path: &str, call: Call, message: Vec<u8>) -> Status {
        let mut grpc = self.client().await;
        let request = request(call, message);
        ended(grpc.unary(request, path.parse().unwrap(), Raw).await)
    }

    /// Returns a client that is ready to call.
    pub(super) async fn client(&self) -> Grpc<Connection> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        grpc
    }

    /// Asserts that a good call is still answered.
    pub(super) async fn still_serves(&self) {
        let status = self.call(Call::bearer(&self.peers.good())).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
    }
}

/// Makes a request of metadata and an encoded message.
pub(super) fn request<T>(call: Call, message: T) -> Request<T> {
    Request::from_parts(
        MetadataMap::from_headers(call.0),
        Extensions::default(),
        message,
    )
}

/// Returns the status of a reply, OK where there is one.
pub(super) fn ended<T>(reply: Result<Response<T>, Status>) -> Status {
    reply.map_or_else(|status| status, |_| Status::ok(""))
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
