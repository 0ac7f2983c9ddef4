//! A module as a program: its gRPC and HTTP servers from start to stop.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
#[cfg(feature = "actuator")]
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
#[cfg(feature = "actuator")]
use tokio::task::spawn_blocking;

use crate::engine::EngineAddress;
#[cfg(feature = "actuator")]
use crate::grpc::Readiness;
use crate::grpc::{
    Drained, Module, ServeError, ServerOptions, StandardServices, VerifyIdentityLayer, cause, serve,
};
#[cfg(feature = "actuator")]
use crate::http::{self, About, Access, Site};
use crate::storage::Storage;
use crate::telemetry::events;

/// Why the servers of a module are not set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listener has no address.
    #[error("the listener's address is unknown")]
    Address(#[source] io::Error),
    /// The descriptors for reflection are broken.
    #[error("the reflection service cannot be made")]
    Reflection(#[source] Box<dyn Error + Send + Sync>),
}

/// A module that is ready to serve.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) module: Module,
    /// The bound gRPC address.
    pub(crate) address: SocketAddr,
    /// Every service that the module serves, and the rules of those that all modules have.
    pub(crate) standard: StandardServices,
    pub(crate) server: ServerOptions,
    /// What is shown over HTTP, and where.
    #[cfg(feature = "actuator")]
    pub(crate) http: Option<(TcpListener, Site)>,
    listener: TcpListener,
    storage: Option<Storage>,
    tasks: JoinSet<()>,
}

impl Program {
    /// Makes the program of `module`, which holds `storage`, if it has one, and will serve `services`
    /// on `listener`.
    pub(crate) fn new(
        module: Module,
        storage: Option<Storage>,
        listener: TcpListener,
        server: ServerOptions,
        services: Vec<String>,
    ) -> Result<Self, StartError> {
        #[cfg(not(feature = "actuator"))]
        drop(services);
        Ok(Self {
            address: listener.local_addr().map_err(StartError::Address)?,
            #[cfg(feature = "actuator")]
            standard: StandardServices::new(&module, &server, services)
                .map_err(|error| StartError::Reflection(error.into()))?,
            #[cfg(not(feature = "actuator"))]
            standard: StandardServices::new(&module, &server),
            server,
            #[cfg(feature = "actuator")]
            http: None,
            listener,
            module,
            storage,
            tasks: JoinSet::new(),
        })
    }

    /// Lets others than callers on this machine ask the HTTP port as `access` says.
    #[cfg(feature = "actuator")]
    pub(crate) fn allow(&mut self, access: Access) {
        let http = self.http.take();
        self.http = http.map(|(listener, site)| (listener, site.with_access(access)));
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
        events::startup(
            own.module.as_str(),
            own.issuer(),
            own.key_id.as_str(),
            self.address,
            http,
            advertised,
        );
    }

    /// Reports the health over gRPC and HTTP from now on; returns the address of HTTP.
    #[cfg(feature = "actuator")]
    async fn show_health(&mut self) -> Option<SocketAddr> {
        let readiness = Readiness::begin(&self.module, self.standard.health.clone()).await;
        self.tasks.spawn(readiness.run());
        let (listener, site) = self.http.take()?;
        let address = listener.local_addr().ok();
        self.tasks
            .spawn(async { match http::serve(listener, site).await {} });
        address
    }

    /// Serves gRPC until `shutdown` completes, and calls `stop` while the server drains.
    ///
    /// Logs how it ended; `last` completes with what else the log says of the end.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub(crate) async fn serve(
        self,
        layer: VerifyIdentityLayer,
        shutdown: impl Future<Output = ()>,
        stop: impl FnOnce(),
        last: impl Future<Output = &'static str>,
    ) -> Result<Drained, ServeError> {
        let stopping = async {
            shutdown.await;
            self.module.health().stop();
            #[cfg(feature = "actuator")]
            self.standard.health.report(false).await;
            stop();
        };
        let routes = self.standard.routes.clone();
        let ended = serve(self.listener, layer, routes, self.server, stopping).await;
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

#[cfg(feature = "actuator")]
/// Returns what `module` shows over HTTP. `count` runs before each scrape of the metrics.
pub(crate) fn site<F>(module: &Module, count: impl Fn() -> F + Send + Sync + 'static) -> Site
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
    Site::new(about, module.health().clone(), Arc::new(metrics))
}
