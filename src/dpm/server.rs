//! A DPM from start to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::failures::log_failure;
use super::monitor::Monitor;
use super::options::MonitorOptions;
use super::service::EngineRegistryService;
use crate::admission::{descriptors, outgoing, room};
use crate::engine::EngineStatus;
use crate::grpc::network::Port;
use crate::grpc::{Drained, MethodRules, Module, Rule, ServeError, ServerOptions};
use crate::http::Access;
use crate::program::{Program, StartError, site};
use crate::proto::registry::engine_registry_service_server as server;
use crate::registry::store::{Condition, EngineStore};
use crate::registry::{AddressBook, AddressPolicy, EngineRegistry, Limits};
use crate::storage::Storage;
use crate::telemetry::events;
use crate::telemetry::metrics::EngineMetrics;

/// How a DPM runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// How many engines there may be.
    pub limits: Limits,
    /// When and how engines are dialled back.
    pub monitor: MonitorOptions,
    /// Where they may be, by deployment; the rest have the default rules. May change at any time.
    pub addresses: AddressBook,
    /// The bounds of the server.
    pub server: ServerOptions,
    /// The time between two heartbeats of an engine. Default: the engine's own setting.
    pub heartbeat_interval: Option<Duration>,
}

/// A DPM that is ready to serve.
#[derive(Debug)]
pub struct Dpm {
    program: Program,
    registry: Arc<EngineRegistry>,
    addresses: AddressBook,
    monitor: MonitorOptions,
    heartbeat_interval: Option<Duration>,
}

impl Dpm {
    /// Makes a DPM that holds `storage` and will serve on `listener`.
    ///
    /// # Errors
    ///
    /// When the listener has no address.
    pub fn new(
        module: Module,
        storage: Storage,
        listener: TcpListener,
        store: Arc<dyn EngineStore>,
        options: Options,
    ) -> Result<Self, StartError> {
        Self::on(module, storage, Port::System(listener), store, options)
    }

    /// Makes a DPM as [`new`](Self::new) does, on a port of any network.
    pub(crate) fn on(
        module: Module,
        storage: Storage,
        port: Port,
        store: Arc<dyn EngineStore>,
        options: Options,
    ) -> Result<Self, StartError> {
        let clock = Arc::clone(module.clock());
        let methods = rules(&module);
        Ok(Self {
            program: Program::new(module, Some(storage), Some(port), options.server, methods)?,
            registry: Arc::new(EngineRegistry::new(store, clock, options.limits)),
            addresses: options.addresses,
            monitor: options.monitor,
            heartbeat_interval: options.heartbeat_interval,
        })
    }

    /// Also answers probes and scrapers on `listener`, over HTTP.
    #[must_use]
    pub fn with_http(self, listener: TcpListener) -> Self {
        self.with_site(listener, Access::default())
    }

    /// Serves HTTP as [`with_http`](Self::with_http) does, and answers callers on other machines as
    /// `access` says.
    pub(crate) fn with_site(mut self, listener: TcpListener, access: Access) -> Self {
        let metrics = self.program.module.metrics().of_engines();
        let registry = Arc::clone(&self.registry);
        let shown = site(&self.program.module, access, move || {
            count(Arc::clone(&registry), metrics.clone())
        });
        self.program.http = Some((listener, shown));
        self
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Arc<EngineRegistry> {
        &self.registry
    }

    /// Serves until `shutdown` completes, then drains, for the shutdown deadline at most.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let Self {
            mut program,
            registry,
            addresses,
            monitor,
            heartbeat_interval,
        } = self;
        let http = program.http.iter();
        let own = http.filter_map(|(listener, _)| listener.local_addr().ok());
        // The dial-backs have the rest.
        let all = descriptors();
        let connections = &mut program.server.connections;
        let callers = room(all).saturating_sub(outgoing(all));
        connections.total = connections.total.min(callers);
        let policy = AddressPolicy::new(own.chain([program.address]).collect(), addresses);
        let module = program.module.clone();
        let engines = Monitor::new(module, Arc::clone(&registry), policy, monitor);
        log_failure(&registry, engines.check_all().await);
        let mut service = EngineRegistryService::new(Arc::clone(&registry), engines.clone());
        service.heartbeat_interval = heartbeat_interval;
        let watches = service.watches.clone();
        if let Some(condition) = registry.store().condition() {
            program
                .tasks
                .spawn(follow(condition, program.module.clone()));
        }
        let service = server::EngineRegistryServiceServer::new(service)
            .max_decoding_message_size(program.server.max_message_bytes);
        program.routes = program.routes.add_service(service);
        program.start(None).await;
        let last = async {
            engines.stop();
            log_failure(&registry, registry.close().await);
            ""
        };
        let serving = program.serve(
            shutdown,
            || {
                engines.stop();
                watches.stop();
            },
            last,
        );
        serving.await
    }
}

/// Shows in the health, the metrics and the log of `module` whether its engines outlast it.
async fn follow(mut condition: watch::Receiver<Condition>, module: Module) {
    let health = module.health().shown("registry");
    let durable = module.metrics().of_engines();
    let (mut reported, mut is_said) = (None::<Instant>, false);
    if let Some(why) = condition.borrow().set_aside.as_deref() {
        events::registry_set_aside(why);
    }
    loop {
        let Condition {
            failing, is_stale, ..
        } = condition.borrow_and_update().clone();
        durable.durable(failing.is_none());
        if let Some(why) = &failing {
            let what = if is_stale {
                "the list of engines is stale, and nothing can be registered"
            } else {
                "registrations do not outlast the process"
            };
            health.down(format!("{what}: {why}"));
            if reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                events::registry_degraded(why, is_stale);
                (reported, is_said) = (Some(Instant::now()), true);
            }
        } else {
            health.up("every registration is written");
            if std::mem::take(&mut is_said) {
                events::registry_recovered();
            }
        }
        if let Ok(Err(_closed)) = timeout(REPORT_EVERY, condition.changed()).await {
            return;
        }
    }
}

/// How often it is logged that registrations are not written.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Counts the engines of `registry`, for the metrics.
async fn count(registry: Arc<EngineRegistry>, metrics: EngineMetrics) {
    let counted = registry.all().await.map(|engines| {
        for status in EngineStatus::ALL {
            let of_status = engines.iter().filter(|engine| engine.status == status);
            metrics.engines(status, of_status.count());
        }
    });
    log_failure(&registry, counted);
}

fn rules(module: &Module) -> MethodRules {
    let caller = Rule::role(module.impersonation_role().clone());
    let methods = [
        ("RegisterEngine", caller.clone()),
        ("Heartbeat", caller.clone()),
        ("ConnectEngine", caller.clone()),
        ("DeregisterEngine", caller.clone()),
        ("InactivateEngine", caller.clone().or_own_module()),
        ("ForgetEngine", caller.clone().or_own_module()),
        ("GetEngine", caller.clone().or_own_module()),
        ("ListEngines", caller.clone().or_own_module()),
        ("WatchEngines", caller.or_own_module()),
    ];
    let all = methods.into_iter();
    all.fold(MethodRules::deny_all(), |rules, (name, rule)| {
        rules.with(server::SERVICE_NAME, name, rule)
    })
}
