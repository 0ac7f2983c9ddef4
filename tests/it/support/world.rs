//! DPMs and DPEs in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::Module;
use countersign::dpe::{self, Dpe, Registration, StatusCheckerOptions};
use countersign::dpm::{self, Dpm, MonitorOptions};
use countersign::engine::{Engine, EngineAddress, EngineId, EngineStatus};
use countersign::grpc::{self, AttachIdentityLayer};
use countersign::grpc::{Drained, ServerOptions, Target};
use countersign::proto::registry as wire;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::registry::EngineRegistry;
use countersign::registry::store::{
    Changes, Counts, EngineStore, Expected, MemoryStore, Revision, StoreFuture, Stored,
};
use countersign::storage::Storage;
use countersign::testing::{own_deployment, trusted};
use countersign::trust::{Deployment, OwnDeployment};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tower_layer::Layer as _;

use super::relay::Relay;

/// Long enough for a busy machine; nothing waits for it where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The client that engines use.
pub(crate) type RegistryClient =
    EngineRegistryServiceClient<grpc::AttachIdentity<grpc::Connection>>;

/// Awaits `event`, but not for ever.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event)
        .await
        .unwrap_or_else(|_| panic!("did not come in time: {what}"))
}

/// Makes a module that is `own` and trusts `peers`.
pub(crate) fn module(own: &OwnDeployment, peers: &[&OwnDeployment]) -> Module {
    peers
        .iter()
        .fold(Module::builder(own.clone()), |builder, peer| {
            builder.trust(trusted(peer))
        })
        .build()
        .unwrap()
}

/// Has a running module trust `peers` in place of those that it trusts.
pub(crate) fn now_trusts(module: &Module, peers: Vec<Deployment>) {
    let keys = module.trust().load().trusting(peers);
    module.trust().replace(keys.unwrap());
}

/// The keys of one DPM and one DPE.
pub(crate) struct Keys {
    pub(crate) dpm: OwnDeployment,
    pub(crate) dpe: OwnDeployment,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            dpm: own_deployment("dpm", "dpm-dev"),
            dpe: own_deployment("dpe", "dpe-dev"),
        }
    }

    pub(crate) fn dpm_module(&self) -> Module {
        module(&self.dpm, &[&self.dpe])
    }

    pub(crate) fn dpe_module(&self) -> Module {
        module(&self.dpe, &[&self.dpm])
    }
}

/// Checks that follow each other fast, with patience for each.
pub(crate) fn monitor() -> MonitorOptions {
    let mut monitor = MonitorOptions::default();
    monitor.check_connected_interval = Duration::from_millis(20);
    monitor.check_disconnected_interval = Duration::from_millis(20);
    monitor.check_disconnected_max = Duration::from_millis(100);
    monitor.checker_timeout = Duration::from_secs(10);
    monitor
}

/// Binds a free port of this machine.
pub(crate) async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A store that tells which statuses it was given, in their order.
#[derive(Debug, Default)]
struct Watched {
    store: MemoryStore,
    written: watch::Sender<Vec<EngineStatus>>,
}

impl EngineStore for Watched {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        self.store.find(id)
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        self.store.page(after, limit)
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        self.store.count(deployment)
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move {
            let status = engine.status;
            let stored = self.store.replace(engine, expected).await?;
            if stored.is_some() {
                self.written.send_modify(|written| written.push(status));
            }
            Ok(stored)
        })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        self.store.remove(id, revision)
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.store.stalest(deployment)
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        self.store.changes()
    }
}

/// A DPM in this process.
pub(crate) struct RunningDpm {
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) registry: Arc<EngineRegistry>,
    /// The statuses of engines, as they were written.
    pub(crate) written: watch::Receiver<Vec<EngineStatus>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
    _home: TempDir,
}

impl RunningDpm {
    pub(crate) async fn start(module: Module) -> Self {
        Self::start_with(module, free_port().await, |_| ())
    }

    pub(crate) fn start_with(
        module: Module,
        listener: TcpListener,
        change: impl FnOnce(&mut dpm::Options),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let storage = Storage::lock(&home.path().join("storage")).unwrap();
        let mut options = dpm::Options::default();
        options.monitor = monitor();
        options.server = short_drain();
        change(&mut options);
        let store = Arc::new(Watched::default());
        let written = store.written.subscribe();
        let dpm = Dpm::new(module, storage, listener, store, options).unwrap();
        let (http, http_address) = http_port();
        let dpm = dpm.with_http(http);
        let (stop, stopped) = oneshot::channel();
        Self {
            address: dpm.address(),
            http: http_address,
            registry: Arc::clone(dpm.registry()),
            written,
            stop,
            task: tokio::spawn(async move { dpm.run(ended(stopped)).await.unwrap() }),
            _home: home,
        }
    }

    /// Stops it as SIGTERM would; returns how it ended.
    pub(crate) async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        soon("the DPM's end", self.task).await.unwrap()
    }

    /// Returns engine `id` once `wanted` holds for it.
    pub(crate) async fn engine(
        &self,
        id: EngineId,
        wanted: impl Fn(&Engine) -> bool,
    ) -> Arc<Engine> {
        let mut written = self.written.clone();
        let seen = async {
            loop {
                if let Some(engine) = self.registry.find(id).await.unwrap()
                    && wanted(&engine)
                {
                    return engine;
                }
                written.changed().await.unwrap();
            }
        };
        soon("an engine's change", seen).await
    }

    pub(crate) async fn engine_is(&self, id: EngineId, status: EngineStatus) -> Arc<Engine> {
        self.engine(id, |engine| engine.status == status).await
    }

    /// Returns engine `id` once it was seen after `time`; polls, since being seen is no change.
    pub(crate) async fn engine_seen_after(
        &self,
        id: EngineId,
        time: std::time::SystemTime,
    ) -> Arc<Engine> {
        let seen = async {
            loop {
                let engine = self.registry.find(id).await.unwrap().unwrap();
                if engine.last_seen_at > time || engine.status != EngineStatus::Ready {
                    return engine;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("a sign of life", seen).await
    }

    /// Returns why engine `id` is not READY, once a check has said so.
    pub(crate) async fn reason(&self, id: EngineId, part: &str) -> String {
        let has_reason = |engine: &Engine| {
            let reason = engine.status_reason.as_deref();
            reason.is_some_and(|reason| reason.contains(part))
        };
        let engine = self.engine(id, has_reason).await;
        engine.status_reason.as_deref().unwrap().to_owned()
    }

    /// Returns a client that calls as `module`.
    pub(crate) async fn client(&self, module: &Module) -> RegistryClient {
        let identity = module
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        EngineRegistryServiceClient::new(identity.layer(channel(self.address).await))
    }

    /// Returns a client that calls with `identity`.
    pub(crate) async fn client_with(&self, identity: &AttachIdentityLayer) -> RegistryClient {
        EngineRegistryServiceClient::new(identity.layer(channel(self.address).await))
    }
}

/// Connects to `address`.
pub(crate) async fn channel(address: SocketAddr) -> grpc::Connection {
    let target = Target::new(&address.ip().to_string(), address.port());
    let connection = grpc::Connection::open(&target, grpc::ConnectionOptions::default());
    connection.await.unwrap()
}

/// A DPE in this process, on threads of its own so that it can be killed.
pub(crate) struct RunningDpe {
    pub(crate) id: EngineId,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) registration: watch::Receiver<Registration>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Drained>,
    runtime: Threads,
    _home: Option<TempDir>,
}

/// A runtime that may be dropped within another one, as when a test fails.
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl RunningDpe {
    /// Starts a DPE of a fresh home, which is never started again.
    pub(crate) fn start(module: Module, dpm: SocketAddr) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dpe = Self::start_with(module, dpm, home.path(), |_| ());
        Self {
            _home: Some(home),
            ..dpe
        }
    }

    pub(crate) fn start_with(
        module: Module,
        dpm: SocketAddr,
        home: &Path,
        change: impl FnOnce(&mut dpe::Options),
    ) -> Self {
        Self::start_at(0, module, dpm, home, change)
    }

    /// Starts a DPE that listens on `port`.
    pub(crate) fn start_at(
        port: u16,
        module: Module,
        dpm: SocketAddr,
        home: &Path,
        change: impl FnOnce(&mut dpe::Options),
    ) -> Self {
        Self::run(module, Some(port), home, options_of(dpm, change))
    }

    /// Starts a DPE that advertises the address of `proxy`.
    pub(crate) fn start_behind(
        module: Module,
        dpm: SocketAddr,
        home: &Path,
        proxy: &Relay,
    ) -> Self {
        let advertised = proxy.address;
        Self::start_with(module, dpm, home, |options| {
            options.hostname = advertised.ip().to_string();
            options.port = Some(advertised.port());
        })
    }

    /// Starts a DPE that takes no calls.
    pub(crate) fn start_one_way(
        module: Module,
        dpm: SocketAddr,
        home: &Path,
        change: impl FnOnce(&mut dpe::Options),
    ) -> Self {
        Self::run(module, None, home, options_of(dpm, change))
    }

    /// Starts a DPE that listens on `port`, if it takes calls at all.
    fn run(module: Module, port: Option<u16>, home: &Path, options: dpe::Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (listener, (http, http_address)) = {
            let _entered = runtime.enter();
            (port.map(listen_on), http_port())
        };
        let storage = Storage::lock(&home.join("storage")).unwrap();
        let dpe = Dpe::new(module, storage, listener, options).unwrap();
        let dpe = dpe.with_http(http);
        let (stop, stopped) = oneshot::channel();
        Self {
            id: dpe.engine_id(),
            address: dpe.address(),
            http: http_address,
            registration: dpe.registration(),
            stop,
            task: runtime.spawn(async move { dpe.run(ended(stopped)).await.unwrap() }),
            runtime: Threads(Some(runtime)),
            _home: None,
        }
    }

    /// Stops it as SIGTERM would; returns how it ended.
    pub(crate) async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        soon("the DPE's end", self.task).await.unwrap()
    }

    /// Ends it as SIGKILL would, its connections included.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.0.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE))
            .await
            .unwrap();
    }
}

/// The options of a DPE of the DPM at `dpm`.
fn options_of(dpm: SocketAddr, change: impl FnOnce(&mut dpe::Options)) -> dpe::Options {
    let target = Target::new(&dpm.ip().to_string(), dpm.port());
    let mut checker = StatusCheckerOptions::new(target);
    checker.check_connection_interval = Duration::from_millis(50);
    let mut options = dpe::Options::new(checker);
    options.server = short_drain();
    change(&mut options);
    options
}

/// Binds `port` of this machine, within a runtime.
fn listen_on(port: u16) -> TcpListener {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

fn http_port() -> (TcpListener, SocketAddr) {
    let listener = listen_on(0);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn short_drain() -> ServerOptions {
    let mut options = ServerOptions::default();
    options.shutdown_deadline = Duration::from_millis(500);
    options
}

async fn ended(stopped: oneshot::Receiver<()>) {
    // A dropped sender ends the module, too.
    let _ = stopped.await;
}

/// An id that no other engine has.
pub(crate) fn fresh_id() -> EngineId {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    EngineId::from_random(random)
}

/// The request that registers `id` at `address`.
pub(crate) fn registration_of(id: EngineId, address: SocketAddr) -> wire::RegisterEngineRequest {
    let address = EngineAddress::new(&address.ip().to_string(), address.port().into()).unwrap();
    wire::RegisterEngineRequest {
        engine_id: id.to_string(),
        address: Some((&address).into()),
        ..wire::RegisterEngineRequest::default()
    }
}
