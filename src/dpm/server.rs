//! A DPM from start to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::error::StartError;
use super::monitor::{Monitor, MonitorOptions};
use super::service::EngineRegistryService;
use super::site;
use crate::grpc::{
    Drained, Health, MethodRules, Module, Readiness, Reflection, Rule, ServeError, ServerOptions,
    StandardServices, cause, serve,
};
use crate::http;
use crate::proto::registry::engine_registry_service_server::EngineRegistryServiceServer;
use crate::registry::store::EngineStore;
use crate::registry::{AddressBook, AddressPolicy, EngineRegistry, Limits};
use crate::storage::Storage;
use crate::telemetry::events;

/// How a DPM runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many engines there may be.
    pub limits: Limits,
    /// When and how engines are dialled back.
    pub monitor: MonitorOptions,
    /// Where they may be, by deployment; the rest have the default rules. May change at any time.
    pub addresses: AddressBook,
    /// The bounds of the server.
    pub server: ServerOptions,
    /// Whether reflection is served.
    pub reflection: Reflection,
}

impl Default for Options {
    /// Each part's own defaults; reflection is off.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            monitor: MonitorOptions::default(),
            addresses: AddressBook::default(),
            server: ServerOptions::default(),
            reflection: Reflection::Off,
        }
    }
}

/// A DPM that is ready to serve.
#[derive(Debug)]
pub struct Dpm {
    module: Module,
    listener: TcpListener,
    address: SocketAddr,
    registry: Arc<EngineRegistry>,
    standard: StandardServices,
    options: Options,
    storage: Storage,
    http: Option<TcpListener>,
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
        let address = listener.local_addr().map_err(StartError::Address)?;
        let clock = Arc::clone(module.clock());
        Ok(Self {
            registry: Arc::new(EngineRegistry::new(store, clock, options.limits)),
            standard: StandardServices::new(
                &module,
                options.reflection,
                options.server.max_message_bytes,
            )?,
            module,
            listener,
            address,
            options,
            storage,
            http: None,
        })
    }

    /// Also answers probes and scrapers on `listener`, over HTTP.
    #[must_use]
    pub fn with_http(self, listener: TcpListener) -> Self {
        Self {
            http: Some(listener),
            ..self
        }
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Arc<EngineRegistry> {
        &self.registry
    }

    /// Returns what the DPM says of its health.
    pub fn health(&self) -> &Health {
        &self.standard.health
    }

    /// Serves until `shutdown` completes, then drains, for the shutdown deadline at most.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let Self {
            module,
            registry,
            options,
            ..
        } = self;
        let policy = AddressPolicy::new(vec![self.address], options.addresses);
        let (engines, how) = (Arc::clone(&registry), options.monitor);
        let monitor = Monitor::new(module.clone(), engines, policy, how);
        if let Err(error) = monitor.check_all().await {
            events::registry_failed(&cause(&error));
        }
        let service = EngineRegistryService::new(Arc::clone(&registry), monitor.clone());
        let service = EngineRegistryServiceServer::new(service)
            .max_decoding_message_size(options.server.max_message_bytes);
        let health = self
            .standard
            .health
            .of::<EngineRegistryServiceServer<EngineRegistryService>>();
        let layer = module.server_layer(rules(self.standard.rules, &module));
        let routes = self.standard.routes.add_service(service);
        let readiness = Readiness::new(&module, health.clone()).begin().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(readiness.run());
        let http = self.http.as_ref().and_then(|http| http.local_addr().ok());
        if let Some(listener) = self.http {
            let site = site::of(&module, &registry);
            tasks.spawn(async { match http::serve(listener, site).await {} });
        }
        events::startup(&events::StartedModule {
            module: module.own().module.as_str(),
            deployment: module.own().issuer(),
            fingerprint: module.own().key_id.as_str(),
            address: self.address,
            http,
            advertised: None,
        });
        let stopping = async {
            shutdown.await;
            module.health().stop();
            health.not_serving().await;
            monitor.stop();
        };
        let ended = serve(self.listener, layer, routes, options.server, stopping).await;
        monitor.stop();
        let how = match &ended {
            Ok(Drained::InTime) => "Stopped.".to_owned(),
            Ok(Drained::AtDeadline) => "Stopped at the deadline with open connections.".to_owned(),
            Err(error) => cause(error),
        };
        events::shutdown(module.own().module.as_str(), &how);
        drop(self.storage);
        ended
    }
}

fn rules(standard: MethodRules, module: &Module) -> MethodRules {
    let impersonator = || Rule::role(module.impersonation_role().clone());
    let method = |name: &str| format!("/countersign.registry.v1.EngineRegistryService/{name}");
    standard
        .allow(&method("RegisterEngine"), impersonator())
        .allow(&method("Heartbeat"), impersonator())
        .allow(&method("DeregisterEngine"), impersonator())
        .allow(&method("GetEngine"), impersonator().or_own_module())
        .allow(&method("ListEngines"), impersonator().or_own_module())
}
