//! A DPE from start to stop.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::engine_id;
use super::service::EngineService;
use super::status_checker::{Registrant, Registration, StatusChecker, StatusCheckerOptions};
use crate::engine::{AddressError, EngineAddress, EngineConstraints, EngineId};
use crate::grpc::{
    ConnectError, Drained, MethodRules, Module, Rule, ServeError, ServerOptions, UnknownDeployment,
};
use crate::http::Access;
use crate::identity::DeploymentName;
use crate::program::{self, Program, site};
use crate::proto::engine::engine_service_server as server;
use crate::storage::{Storage, StorageError};

/// Why a DPE does not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine's id cannot be read or made.
    #[error(transparent)]
    EngineId(#[from] StorageError),
    /// The servers are not set up.
    #[error(transparent)]
    Program(#[from] program::StartError),
    /// The advertised address is invalid.
    #[error("the advertised address cannot be used")]
    Advertised(#[from] AddressError),
    /// The DPM's deployment is not among the trusted ones.
    #[error("the DPM's deployment is unknown")]
    Dpm(#[from] UnknownDeployment),
    /// The DPM's address is invalid.
    #[error("the DPM's address cannot be used")]
    DpmAddress(#[from] ConnectError),
}

crate::failure::debug_as_text!(StartError);

/// How a DPE runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The advertised host.
    pub hostname: String,
    /// The advertised port. Default: the bound port.
    pub port: Option<u16>,
    /// What the engine needs and offers.
    pub constraints: EngineConstraints,
    /// The DPM's deployment. Default: the one trusted deployment of module `dpm`.
    pub dpm_deployment: Option<DeploymentName>,
    /// How the engine keeps registered.
    pub status_checker: StatusCheckerOptions,
    /// The bounds of the server.
    pub server: ServerOptions,
}

impl Options {
    /// Takes the defaults: advertises `localhost` and the bound port.
    pub fn new(status_checker: StatusCheckerOptions) -> Self {
        Self {
            hostname: "localhost".to_owned(),
            port: None,
            constraints: EngineConstraints::default(),
            dpm_deployment: None,
            status_checker,
            server: ServerOptions::default(),
        }
    }
}

/// A DPE that is ready to serve.
#[derive(Debug)]
pub struct Dpe {
    program: Program,
    engine: Registrant,
    checker: StatusChecker,
}

impl Dpe {
    /// Makes a DPE that holds `storage`, where the engine's id is kept, and will serve on
    /// `listener`.
    ///
    /// # Errors
    ///
    /// When the engine's id cannot be read or made, the advertised address is invalid, or the DPM
    /// is not trusted.
    pub fn new(
        module: Module,
        storage: Storage,
        listener: TcpListener,
        options: Options,
    ) -> Result<Self, StartError> {
        let id = engine_id::load_or_create(&storage.folder)?;
        let dpm = match options.dpm_deployment {
            Some(name) => name,
            None => module.deployment_of("dpm")?,
        };
        let identity = module.layer_for(dpm.as_str())?;
        let methods = rules(&module);
        let program = Program::new(module, Some(storage), listener, options.server, methods)?;
        let port = options.port.unwrap_or_else(|| program.address.port());
        let engine = Registrant {
            id,
            address: EngineAddress::new(&options.hostname, port.into())?,
            constraints: options.constraints,
        };
        let mut how = options.status_checker;
        how.connection = how.connection.towards(&dpm);
        let checker = StatusChecker::new(engine.clone(), &identity, &program.module, how)?;
        Ok(Self {
            program,
            engine,
            checker,
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
        let shown = site(&self.program.module, access, || ready(()));
        self.program.http = Some((listener, shown));
        self
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Returns the engine's id.
    pub fn engine_id(&self) -> EngineId {
        self.engine.id
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
        let Self {
            mut program,
            engine,
            checker,
        } = self;
        let service = EngineService::new(engine.id, &engine.address);
        program.layer = program.layer.as_engine(service.claim().clone());
        let service = server::EngineServiceServer::new(service)
            .max_decoding_message_size(program.server.max_message_bytes);
        program.routes = program.routes.add_service(service);
        program.start(Some(&engine.address)).await;

        let drain_within = program.server.shutdown_deadline;
        let begun = OnceLock::new();
        let stop = CancellationToken::new();
        let mut registered = JoinSet::new();
        registered.spawn(checker.run(stop.clone().cancelled_owned()));
        let stopping = async {
            shutdown.await;
            begun.get_or_init(Instant::now);
        };
        let last = async {
            stop.cancel();
            let deadline = *begun.get_or_init(Instant::now) + drain_within;
            match timeout_at(deadline, registered.join_next()).await {
                Ok(Some(Ok(true))) => "; the DPM holds no registration of this engine any more",
                _ => "; the DPM was not notified",
            }
        };
        // The engine deregisters while the server drains.
        program.serve(stopping, || stop.cancel(), last).await
    }
}

fn rules(module: &Module) -> MethodRules {
    let caller = Rule::role(module.impersonation_role().clone());
    MethodRules::deny_all().with(server::SERVICE_NAME, "CheckStatus", caller)
}
