//! Messages as bytes, also such as no client would write.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::world::{RunningDpm, channel};
use countersign::Module;
use tower_layer::Layer as _;

/// Calls `method` of the registry as `module`, with `message` for a request.
pub(crate) async fn call_registry(
    dpm: &RunningDpm,
    module: &Module,
    method: &str,
    message: &[u8],
) -> Result<(), Status> {
    let identity = module
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = tonic::client::Grpc::new(identity.layer(channel(dpm.address).await));
    client.ready().await.unwrap();
    let path = format!("/countersign.registry.v1.EngineRegistryService/{method}");
    let answer = client.unary(Request::new(message.to_vec()), path.parse().unwrap(), Bytes);
    answer.await.map(|_bytes| ())
}

/// Calls the method at `path` of the module at `address`, with an empty message, and returns the
/// status that came with the first headers.
pub(crate) async fn call_method(
    module: &Module,
    callee: &str,
    address: SocketAddr,
    path: &str,
) -> Result<(), Status> {
    let identity = module
        .client_layer(callee, countersign::Transport::loopback())
        .unwrap();
    let mut client = tonic::client::Grpc::new(identity.layer(channel(address).await));
    client.ready().await.unwrap();
    let request = Request::new(Vec::new());
    let answer = client.server_streaming(request, path.parse().unwrap(), Bytes);
    answer.await.map(|_messages| ())
}

/// Leaves messages as they are.
struct Bytes;

impl Codec for Bytes {
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

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}
