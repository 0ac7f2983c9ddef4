//! A DPE from start to stop.

use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::engine_id;
use super::error::StartError;
use super::service::EngineService;
use super::site;
use super::status_checker::{Registrant, Registration, StatusChecker, StatusCheckerOptions};
use crate::engine::{EngineAddress, EngineConstraints, EngineId};
use crate::grpc::{
    Drained, MethodRules, Module, Readiness, Reflection, Rule, ServeError, ServerOptions,
    StandardServices, cause, serve,
};
use crate::http;
use crate::identity::DeploymentName;
use crate::proto::engine::engine_service_server::EngineServiceServer;
use crate::storage::Storage;
use crate::telemetry::events;

/// How a DPE runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The advertised host.
    pub hostname: String,
    /// The advertised port; the bound one where none is given.
    pub port: Option<u16>,
    /// What the engine needs and offers.
    pub constraints: EngineConstraints,
    /// The DPM's deployment; the one trusted deployment of module `dpm` where none is given.
    pub dpm_deployment: Option<DeploymentName>,
    /// How the engine keeps registered.
    pub status_checker: StatusCheckerOptions,
    /// The bounds of the server.
    pub server: ServerOptions,
    /// Whether reflection is served.
    pub reflection: Reflection,
}

impl Options {
    /// Takes the defaults: advertises `localhost` and the bound port, reflection off.
    pub fn new(status_checker: StatusCheckerOptions) -> Self {
        Self {
            hostname: "localhost".to_owned(),
            port: None,
            constraints: EngineConstraints::default(),
            dpm_deployment: None,
            status_checker,
            server: ServerOptions::default(),
            reflection: Reflection::Off,
        }
    }
}

/// A DPE that is ready to serve.
#[derive(Debug)]
pub struct Dpe {
    module: Module,
    listener: TcpListener,
    address: SocketAddr,
    engine: Registrant,
    checker: StatusChecker,
    standard: StandardServices,
    server: ServerOptions,
    storage: Storage,
    http: Option<TcpListener>,
}

impl Dpe {
    /// Makes a DPE that holds `storage`, where the engine's id is kept, and will serve on
    /// `listener`.
    ///
    /// # Errors
    ///
    /// When the engine's id cannot be read or made, the advertised address is invalid, or the DPM is
    /// not trusted.
    pub fn new(
        module: Module,
        storage: Storage,
        listener: TcpListener,
        options: Options,
    ) -> Result<Self, StartError> {
        let id = engine_id::load_or_create(storage.folder())?;
        let address = listener.local_addr().map_err(StartError::Address)?;
        let port = options.port.unwrap_or_else(|| address.port());
        let engine = Registrant {
            id,
            address: EngineAddress::new(&options.hostname, port.into())?,
            constraints: options.constraints,
        };
        let dpm = match options.dpm_deployment {
            Some(name) => name,
            None => module.deployment_of("dpm")?,
        };
        let identity = module.client_layer(dpm.as_str())?;
        let mut status_checker = options.status_checker;
        status_checker.connection = status_checker.connection.towards(&dpm);
        let checker = StatusChecker::new(engine.clone(), &identity, &module, status_checker)?;
        Ok(Self {
            standard: StandardServices::new(
                &module,
                options.reflection,
                options.server.max_message_bytes,
            )?,
            module,
            listener,
            address,
            engine,
            checker,
            server: options.server,
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

    /// Returns the engine's id.
    pub fn engine_id(&self) -> EngineId {
        self.engine.id
    }

    /// Returns the address that the engine advertises.
    pub fn advertised(&self) -> &EngineAddress {
        &self.engine.address
    }

    /// Follows the engine's registration.
    pub fn registration(&self) -> watch::Receiver<Registration> {
        self.checker.registration()
    }

    /// Serves and keeps registered until `shutdown` completes; then deregisters and drains, for the
    /// shutdown deadline at most.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let health = self
            .standard
            .health
            .of::<EngineServiceServer<EngineService>>();
        let readiness = Readiness::new(&self.module, health.clone()).begin().await;
        let service = EngineService::new(self.engine.id, &self.engine.address);
        let layer = self
            .module
            .server_layer(rules(self.standard.rules, &self.module))
            .as_engine(service.claim().clone());
        let service = EngineServiceServer::new(service)
            .max_decoding_message_size(self.server.max_message_bytes);
        let routes = self.standard.routes.add_service(service);
        let mut tasks = JoinSet::new();
        tasks.spawn(readiness.run());
        let http = self.http.as_ref().and_then(|http| http.local_addr().ok());
        if let Some(listener) = self.http {
            let site = site::of(&self.module);
            tasks.spawn(async { match http::serve(listener, site).await {} });
        }
        let own = self.module.own();
        events::startup(&events::StartedModule {
            module: own.module.as_str(),
            deployment: own.issuer(),
            fingerprint: own.key_id.as_str(),
            address: self.address,
            http,
            advertised: Some(&self.engine.address),
        });

        let deadline = self.server.shutdown_deadline;
        let begun = OnceLock::new();
        let (stop, stopped) = watch::channel(false);
        let mut checker = JoinSet::new();
        checker.spawn(self.checker.run(signalled(stopped)));
        let stopping = async {
            shutdown.await;
            begun.get_or_init(Instant::now);
            self.module.health().stop();
            health.not_serving().await;
            // The engine deregisters while the server drains.
            stop.send_replace(true);
        };
        let ended = serve(self.listener, layer, routes, self.server, stopping).await;
        stop.send_replace(true);
        let deadline = *begun.get_or_init(Instant::now) + deadline;
        let last_call = timeout_at(deadline, checker.join_next()).await;
        let deregistered = matches!(last_call, Ok(Some(Ok(true))));
        events::shutdown(own.module.as_str(), &describe(&ended, deregistered));
        drop(self.storage);
        ended
    }
}

/// Completes when the signal to stop is sent, or when its sender is dropped.
async fn signalled(mut stopped: watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn describe(ended: &Result<Drained, ServeError>, deregistered: bool) -> String {
    let how = match ended {
        Ok(Drained::InTime) => "Stopped".to_owned(),
        Ok(Drained::AtDeadline) => "Stopped at the deadline with open connections".to_owned(),
        Err(error) => cause(error),
    };
    let registry = if deregistered {
        "the DPM holds no registration of this engine any more"
    } else {
        "the DPM was not notified"
    };
    format!("{how}; {registry}.")
}

fn rules(standard: MethodRules, module: &Module) -> MethodRules {
    standard.allow(
        "/countersign.engine.v1.EngineService/CheckStatus",
        Rule::role(module.impersonation_role().clone()),
    )
}
