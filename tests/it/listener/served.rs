//! A server in this process, on threads of its own.

use std::net::SocketAddr;
use std::pin::Pin;

use countersign::grpc::{Drained, PeerInfo, ServerOptions, serve};
use countersign::proto::engine as wire;
use countersign::proto::engine::engine_service_client::EngineServiceClient;
use countersign::proto::engine::engine_service_server::{EngineService, EngineServiceServer};
use countersign::testing::{self, Pair};
use countersign::{MethodRules, Rule};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::world::{PATIENCE, channel, now_trusts, soon};

/// How [`Odd`] answers; a call's header `manner`.
pub(super) const PANICS: &str = "panics";
pub(super) const HANGS: &str = "hangs";
pub(super) const NAMES_PEER: &str = "names-peer";

/// A method that takes a token.
pub(super) const WHO_AM_I: &str = "/countersign.identity.v1.IdentityService/WhoAmI";

/// Services that everyone may call, and that do what the call asks for.
#[derive(Clone)]
struct Odd;

#[tonic::async_trait]
impl EngineService for Odd {
    async fn check_status(
        &self,
        request: Request<wire::CheckStatusRequest>,
    ) -> Result<Response<wire::CheckStatusResponse>, Status> {
        let manner = request.metadata().get("manner");
        let engine_id = match manner.and_then(|manner| manner.to_str().ok()) {
            Some(PANICS) => panic!("as asked, with a secret"),
            Some(HANGS) => std::future::pending().await,
            Some(NAMES_PEER) => {
                let peer = request.extensions().get::<PeerInfo>().unwrap();
                assert_eq!(request.remote_addr(), Some(peer.address));
                let shown = peer.certificate.as_ref().map_or(0, |der| der.len());
                format!("{} {shown}", peer.address.ip())
            }
            _ => "fine".to_owned(),
        };
        Ok(Response::new(wire::CheckStatusResponse { engine_id }))
    }
}

#[tonic::async_trait]
impl Health for Odd {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// Goes on for ever, or panics once the reply has begun.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let panics = request.into_inner().service == PANICS;
        let stream = std::iter::repeat_with(move || {
            assert!(!panics, "as asked");
            Ok(HealthCheckResponse { status: 1 })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(stream))))
    }
}

/// A server that runs until it is dropped.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pair: Pair,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
    runtime: Runtime,
}

impl Served {
    pub(super) fn start(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut options = ServerOptions::default();
        change(&mut options);
        let rules = MethodRules::deny_all()
            .allow("/countersign.engine.v1.EngineService/*", Rule::everyone())
            .unwrap()
            .allow("/grpc.health.v1.Health/*", Rule::everyone())
            .unwrap()
            .allow(WHO_AM_I, Rule::any_identity())
            .unwrap();
        let pair = testing::pair();
        let layer = pair.dpm.server_layer(rules);
        let routes = Routes::new(EngineServiceServer::new(Odd))
            .add_service(HealthServer::new(Odd))
            .add_service(pair.dpm.identity_service());
        let (stop, stopped) = oneshot::channel();
        let listener = runtime.block_on(crate::support::world::free_port());
        let address = listener.local_addr().unwrap();
        let task = runtime.spawn(async move {
            // A dropped sender ends it, too.
            let stopped = async { drop(stopped.await) };
            serve(listener, layer, routes, options, stopped)
                .await
                .unwrap()
        });
        Self {
            address,
            pair,
            stop,
            task,
            runtime,
        }
    }

    /// Returns the value of the header with which a trusted caller calls.
    pub(super) fn bearer(&self) -> String {
        let dpe = &self.pair.dpe;
        let trust = dpe.trust().current();
        let callee = trust.deployment("dpm-dev").unwrap();
        let token = dpe.issuer().issue(callee).unwrap();
        format!("Bearer {}", token.expose())
    }

    /// Has it trust no caller any more.
    pub(super) fn revoke(&self) {
        now_trusts(&self.pair.dpm, Vec::new());
    }

    /// Calls over a new connection of this machine; returns the answer.
    pub(super) fn call(&self, manner: &'static str) -> Result<String, Status> {
        another_runtime().block_on(async {
            let channel = channel(self.address).await;
            let mut request = Request::new(wire::CheckStatusRequest {});
            request
                .metadata_mut()
                .insert("manner", manner.parse().unwrap());
            let mut client = EngineServiceClient::new(channel);
            let answer = soon("an answer", client.check_status(request)).await?;
            Ok(answer.into_inner().engine_id)
        })
    }

    /// Waits until it serves no connection.
    #[track_caller]
    pub(super) fn is_alone(&self) {
        down_to(1, &self.runtime);
    }

    /// Stops it as SIGTERM would; returns how it ended, once nothing of it runs any more.
    #[track_caller]
    pub(super) fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        let how = self
            .runtime
            .block_on(soon("the server's end", self.task))
            .unwrap();
        down_to(0, &self.runtime);
        how
    }

    /// Drops it in the midst of its work, and waits until nothing of it runs any more.
    #[track_caller]
    pub(super) fn abandon(self) {
        self.task.abort();
        assert!(self.runtime.block_on(self.task).unwrap_err().is_cancelled());
        down_to(0, &self.runtime);
    }
}

/// A client's tasks are not the server's.
fn another_runtime() -> Runtime {
    Runtime::new().unwrap()
}

/// Waits until no more than `tasks` live.
#[track_caller]
fn down_to(tasks: usize, runtime: &Runtime) {
    let begun = Instant::now();
    while runtime.metrics().num_alive_tasks() > tasks {
        let alive = runtime.metrics().num_alive_tasks();
        assert!(begun.elapsed() < PATIENCE, "{alive} tasks live on");
        std::thread::yield_now();
    }
}
