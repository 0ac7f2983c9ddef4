//! A module's server, as its file says.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::grpc::{MethodRules, Module, ServeError, ServerOptions, Standard, Tokens, Wiring};
#[cfg(feature = "actuator")]
use crate::http::Access;
use crate::program::Program;

impl Module {
    /// Serves `routes` where the module's file says, until SIGTERM or ctrl-c; then drains. A second
    /// signal ends it at once.
    ///
    /// TLS, pins, deadline and limits are those of the file. `IdentityService` is added, and with
    /// the feature `actuator` gRPC health, reflection where the listener is on loopback, and the
    /// HTTP port where `server.port` is set. `rules` is for the services in `routes` alone.
    ///
    /// # Errors
    ///
    /// When the module follows no file, the file names no port, a port cannot be opened, the
    /// listener is beyond loopback without TLS or where calls need no token, `rules` has one for a
    /// service that is added, or the server stops by itself.
    pub async fn serve(&self, rules: MethodRules, routes: Routes) -> Result<(), ServeError> {
        let listener = self.listen().await?;
        let failed = set_up("cannot wait for signals");
        let mut terminate = signal(SignalKind::terminate()).map_err(&failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(&failed)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let mut serving = pin!(self.serve_on(listener, rules, routes, stopped));
        loop {
            tokio::select! {
                ended = &mut serving => return ended,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            stop.cancel();
        }
    }

    /// Serves as [`serve`](Self::serve) does, until `shutdown` completes; takes no signals.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_until(
        &self,
        rules: MethodRules,
        routes: Routes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let listener = self.listen().await?;
        self.serve_on(listener, rules, routes, shutdown).await
    }

    /// Opens the port of the module's file.
    async fn listen(&self) -> Result<TcpListener, ServeError> {
        let Some(wiring) = self.wiring() else {
            let why = "the module has no file that says where to serve; use `serve_on`";
            return Err(ServeError::Refused(why.to_owned()));
        };
        match wiring.grpc {
            Some(address) => bind(address, "ataccama.server.grpc.port").await,
            None => Err(ServeError::Refused(format!(
                "no gRPC port is set; write `ataccama.server.grpc.port=<port>` into `{}`, 0 to have one chosen",
                wiring.file.display()
            ))),
        }
    }

    /// Serves as [`serve_until`](Self::serve_until) does, on `listener` in place of the file's
    /// address. A module that was made from keys is served without TLS, on loopback.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_on(
        &self,
        listener: TcpListener,
        rules: MethodRules,
        routes: Routes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let wiring = self.wiring();
        if let Some(once) = wiring.filter(|wiring| !wiring.is_followed) {
            return Err(ServeError::Refused(format!(
                "the module was loaded from `{}` once, so a key that is revoked there would still be accepted; use `Module::open`",
                once.file.display()
            )));
        }
        let at = listener
            .local_addr()
            .map_err(set_up("cannot set up the server"))?;
        let is_here = crate::grpc::is_loopback(at);
        let server = wiring.map_or_else(ServerOptions::default, |wiring| wiring.server.clone());
        if server.tls.is_none() && !is_here && !self.plaintext.server {
            return Err(ServeError::Refused(format!(
                "{at} is not loopback and the server has no TLS; turn TLS on, or set `countersign.server.allow-plaintext=true` where the network is trusted"
            )));
        }
        if !is_here && self.tokens != Tokens::Required {
            return Err(ServeError::Refused(format!(
                "{at} is not loopback and calls need no token; remove `ataccama.authentication.grpc.internal.jwt.enable=false`"
            )));
        }
        let mut services = rules.services().into_iter();
        if let Some(taken) = services.find(|name| Standard::is_reserved(name)) {
            return Err(ServeError::Refused(format!(
                "`{taken}` is served with rules of its own; remove the rule for it"
            )));
        }
        let made = Program::new(self.clone(), None, listener, server, rules);
        // Its own text says the same.
        let mut program = made.map_err(|error| set_up("cannot set up the server")(error.0))?;
        if let Some((wiring, address)) = wiring.and_then(|wiring| Some((wiring, wiring.http?))) {
            show(&mut program, wiring, address).await?;
        }
        // Added to them, a service that they have too would be a panic.
        let around = program.routes.into_axum_router();
        program.routes = around.fallback_service(routes).into();
        program.start(None).await;
        program.serve(shutdown, || {}, async { "" }).await?;
        Ok(())
    }
}

fn set_up<E: Into<Box<dyn Error + Send + Sync>>>(what: &str) -> impl Fn(E) -> ServeError {
    move |error| ServeError::Setup(what.to_owned(), error.into())
}

async fn bind(at: SocketAddr, setting: &str) -> Result<TcpListener, ServeError> {
    let what = format!(
        "cannot listen on {at}; set `{setting}` to a free port, or to 0 to have one chosen, and its address to one of this machine"
    );
    TcpListener::bind(at).await.map_err(set_up(&what))
}

/// Shows the module's health and metrics over HTTP at `address`.
#[cfg(feature = "actuator")]
async fn show(
    program: &mut Program,
    wiring: &Wiring,
    address: SocketAddr,
) -> Result<(), ServeError> {
    let listener = bind(address, "server.port").await?;
    let access = Access {
        allowed_hosts: wiring.http_hosts.clone(),
        metrics_beyond_loopback: wiring.http_metrics,
    };
    let site = crate::program::site(&program.module, access, || std::future::ready(()));
    program.http = Some((listener, site));
    Ok(())
}

#[cfg(not(feature = "actuator"))]
#[expect(clippy::unused_async, reason = "it awaits with the feature `actuator`")]
async fn show(_: &mut Program, _: &Wiring, _: SocketAddr) -> Result<(), ServeError> {
    let why = "`server.port` is set, but countersign was built without its feature `actuator`";
    Err(ServeError::Refused(why.to_owned()))
}
