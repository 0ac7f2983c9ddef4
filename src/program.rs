//! A module as a program: its gRPC and HTTP servers from start to stop.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
#[cfg(feature = "actuator")]
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
#[cfg(feature = "actuator")]
use tokio::task::spawn_blocking;
use tonic::service::Routes;

use crate::engine::EngineAddress;
use crate::grpc::{
    Drained, MethodRules, Module, ServeError, ServerOptions, Standard, VerifyIdentityLayer, cause,
    network::Port, serve_on,
};
#[cfg(feature = "actuator")]
use crate::grpc::{Health, Readiness};
#[cfg(feature = "actuator")]
use crate::http::{self, About, Access, Site};
use crate::storage::Storage;
use crate::telemetry::events;

/// Why the servers of a module are not set up: a listener has no address, or the descriptors for
/// reflection are broken.
#[derive(thiserror::Error)]
#[error("the servers cannot be set up")]
pub struct StartError(#[source] pub(crate) Box<dyn Error + Send + Sync>);

crate::failure::debug_as_text!(StartError);

/// A module that is ready to serve.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) module: Module,
    /// The bound gRPC address; its port is 0 where no gRPC is served.
    pub(crate) address: SocketAddr,
    /// Every service that the module serves.
    pub(crate) routes: Routes,
    /// Who may call them.
    pub(crate) layer: VerifyIdentityLayer,
    pub(crate) server: ServerOptions,
    #[cfg(feature = "actuator")]
    pub(crate) health: Health,
    /// What is shown over HTTP, and where.
    #[cfg(feature = "actuator")]
    pub(crate) http: Option<(TcpListener, Site)>,
    port: Option<Port>,
    storage: Option<Storage>,
    pub(crate) tasks: JoinSet<()>,
}

impl Program {
    /// Makes the program of `module`, which holds `storage`, if it has one, and will serve the
    /// services of `rules` on `port`, if it has one, beside those that every module has.
    pub(crate) fn new(
        module: Module,
        storage: Option<Storage>,
        port: Option<Port>,
        server: ServerOptions,
        rules: MethodRules,
    ) -> Result<Self, StartError> {
        let bound = port.as_ref().map(Port::address).transpose();
        let known = bound.map_err(|error| StartError(error.into()))?;
        let address = known.unwrap_or(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)));
        let identity = Standard::new(&module, &server);
        #[cfg(not(feature = "actuator"))]
        let standard = identity;
        #[cfg(feature = "actuator")]
        let (standard, health) =
            Health::add(identity, &rules, address).map_err(|error| StartError(error.into()))?;
        Ok(Self {
            address,
            routes: standard.routes,
            layer: module.server_layer(rules.and(standard.rules)),
            server,
            #[cfg(feature = "actuator")]
            health,
            #[cfg(feature = "actuator")]
            http: None,
            port,
            module,
            storage,
            tasks: JoinSet::new(),
        })
    }

    /// Starts to serve HTTP and to report the module's health. An engine logs the address that it
    /// is `advertised` at.
    #[cfg_attr(
        not(feature = "actuator"),
        expect(clippy::unused_async, reason = "it awaits with the feature `actuator`")
    )]
    pub(crate) async fn start(&mut self, advertised: Option<&EngineAddress>) {
        #[cfg(feature = "actuator")]
        let http = self.show_health().await;
        #[cfg(not(feature = "actuator"))]
        let http = None;
        let own = self.module.own();
        let names = [own.module.as_str(), own.issuer(), own.key_id.as_str()];
        events::startup(names, self.address, http, advertised);
    }

    /// Reports the health over gRPC and HTTP from now on; returns the address of HTTP.
    #[cfg(feature = "actuator")]
    async fn show_health(&mut self) -> Option<SocketAddr> {
        let readiness = Readiness::begin(&self.module, self.health.clone()).await;
        self.tasks.spawn(readiness.run());
        let (listener, site) = self.http.take()?;
        let address = listener.local_addr().ok();
        self.tasks
            .spawn(async { match http::serve(listener, site).await {} });
        address
    }

    /// Serves gRPC, if there is a port for it, until `shutdown` completes, and calls `stop` while the
    /// server drains.
    ///
    /// Logs how it ended; `last` completes with what else the log says of the end.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub(crate) async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        stop: impl FnOnce(),
        last: impl Future<Output = &'static str>,
    ) -> Result<Drained, ServeError> {
        let stopping = async {
            shutdown.await;
            self.module.health().stop();
            #[cfg(feature = "actuator")]
            self.health.report(false).await;
            stop();
        };
        let ended = if let Some(port) = self.port {
            serve_on(port, self.layer, self.routes, self.server, stopping).await
        } else {
            stopping.await;
            Ok(Drained::InTime)
        };
        let and = last.await;
        let how = match &ended {
            Ok(Drained::InTime) => "Stopped".to_owned(),
            Ok(Drained::AtDeadline) => "Stopped at the deadline with open connections".to_owned(),
            Err(error) => cause(error),
        };
        events::shutdown(self.module.own().module.as_str(), &format!("{how}{and}."));
        drop(self.storage);
        ended
    }
}

/// Returns what `module` shows over HTTP; `access` says what callers on other machines see. `count`
/// runs before each scrape of the metrics.
#[cfg(feature = "actuator")]
pub(crate) fn site<F>(
    module: &Module,
    access: Access,
    count: impl Fn() -> F + Send + Sync + 'static,
) -> Site
where
    F: Future<Output = ()> + Send + 'static,
{
    let (own, counted) = (module.own(), module.clone());
    let about = About {
        module: own.module.to_string(),
        deployment: own.issuer().to_owned(),
    };
    let metrics = move || {
        let (module, counting) = (counted.clone(), count());
        Box::pin(async move {
            counting.await;
            let text = spawn_blocking(move || module.metrics_text());
            // It fails where the runtime ends.
            text.await.unwrap_or_default()
        }) as _
    };
    Site::new(about, module.health().clone(), Arc::new(metrics)).with_access(access)
}
