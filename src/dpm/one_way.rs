//! A one-way engine's stream, from its first message until it is proved.

use std::sync::Arc;
use std::time::Duration;

use tokio::join;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::check::check_owner;
use super::failures::log_failure;
use super::monitor::Monitor;
use super::streams::{Line, MOST_MESSAGES, Place, Stream};
use crate::engine::{DialBackFailure, Engine, FailureKind, Instance};
use crate::grpc::bearer;
use crate::proto::registry as wire;
use crate::proto::registry::connect_engine_request::Message;
use crate::secret::Secret;
use crate::token::VerifiedToken;

/// What the registry says over an engine's stream.
pub(super) type Replies = BoxStream<wire::ConnectEngineResponse>;

/// A stream that a deployment has opened, and nothing is known of yet.
#[derive(Debug)]
pub(super) struct Arriving {
    monitor: Monitor,
    said: Streaming<wire::ConnectEngineRequest>,
    token: Secret<String>,
    place: Place,
}

impl Arriving {
    /// Takes a stream of the deployment `owner`, if it has not too many.
    pub(super) fn new(
        monitor: &Monitor,
        owner: &str,
        metadata: &MetadataMap,
        said: Streaming<wire::ConnectEngineRequest>,
    ) -> Result<Self, Status> {
        let context = &monitor.context;
        // While a stream is renewed there are two.
        let most = context.registry.limits.max_engines_per_deployment;
        let place = context.streams.place(owner, most.saturating_mul(2));
        let token = bearer(metadata.as_ref()).ok();
        Ok(Self {
            place: place.ok_or_else(|| {
                Status::resource_exhausted("the deployment has two streams for each of its engines")
            })?,
            token: Secret::new(token.unwrap_or_default().to_owned()),
            monitor: monitor.clone(),
            said,
        })
    }

    /// Reads which engine it is.
    pub(super) async fn hello(&mut self) -> Result<wire::Hello, Status> {
        match timeout(PROVED_WITHIN, self.said.message()).await {
            Ok(Ok(Some(wire::ConnectEngineRequest {
                message: Some(Message::Hello(hello)),
            }))) => Ok(hello),
            Ok(Err(status)) => Err(status),
            Ok(_) => Err(Status::invalid_argument("the first message is no `hello`")),
            Err(_elapsed) => Err(Status::deadline_exceeded("the stream says nothing")),
        }
    }

    /// Answers a stream of the process `instance` of `engine`, and has it prove itself. Until then
    /// it is not asked for anything else, and the engine's proved stream stays.
    pub(super) fn admit(
        self,
        (engine, instance): (Arc<Engine>, Instance),
        caller: &VerifiedToken,
        refused: impl Fn(&DialBackFailure) + Send + 'static,
    ) -> Replies {
        let (replies, sent) = mpsc::channel(MOST_MESSAGES);
        let monitor = self.monitor;
        let streams = Arc::clone(&monitor.context.streams);
        let (stream, asked) = streams.open(instance, self.token, caller.issuer());
        let line = Line {
            stream: stream.clone(),
            asked,
            said: self.said,
            replies,
        };
        let place = self.place;
        tokio::spawn(async move {
            let proving = prove(&monitor, &engine, stream.clone(), refused);
            join!(line.run(), proving);
            if streams.left(engine.id, &stream) {
                let registry = &monitor.context.registry;
                log_failure(registry, registry.release(engine.id).await);
            }
            drop(place);
        });
        Box::pin(ReceiverStream::new(sent))
    }
}

/// Has `engine` prove itself over `stream`, which is then the one that it is asked over, also where it had
/// one to another DPM.
async fn prove(
    monitor: &Monitor,
    engine: &Engine,
    stream: Stream,
    refused: impl Fn(&DialBackFailure),
) {
    let context = &monitor.context;
    let (streams, module) = (&context.streams, &context.module);
    let proved = match check_owner(&module.trust().load(), engine, module) {
        Ok(owner) => stream.prove(engine, &owner, module, PROVED_WITHIN).await,
        Err(failure) => Err(failure),
    };
    match proved {
        Ok(()) => {
            let held = context.registry.hold(engine).await;
            if held.is_ok() {
                streams.install(engine.id, stream);
                monitor.check_now(engine.id);
            } else {
                stream.cut(Some(Status::unavailable(NOT_NOTED)));
            }
            log_failure(&context.registry, held);
        }
        Err(failure) => {
            if failure.kind != FailureKind::ConnectionLost {
                refused(&failure);
            }
            stream.cut(Some(Status::unauthenticated(failure.to_string())));
            streams.note(engine.id, failure);
            monitor.heard(engine.id);
        }
    }
}

const NOT_NOTED: &str = "the registry cannot record that the engine has proved itself";
/// How long a stream may take to say which engine it is, and then to prove it.
const PROVED_WITHIN: Duration = Duration::from_secs(5);
