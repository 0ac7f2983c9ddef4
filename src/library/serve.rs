//! A module's server, as its file says.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::grpc::{MethodRules, Module, Reflection, ServeError, ServerOptions, Tokens, Wiring};
#[cfg(feature = "actuator")]
use crate::http::Access;
use crate::program::Program;

/// Serves until a first signal, and drains until a second.
pub(super) async fn until_signal(
    module: &Module,
    rules: MethodRules,
    routes: Routes,
) -> Result<(), ServeError> {
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let mut serving = pin!(until(module, rules, routes, stopped));
    tokio::select! {
        ended = &mut serving => return ended,
        () = signals.next() => stop.cancel(),
    }
    tokio::select! {
        ended = serving => ended,
        () = signals.next() => Ok(()),
    }
}

/// Serves on the file's address until `shutdown` completes.
pub(super) async fn until(
    module: &Module,
    rules: MethodRules,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let wiring = module.wiring().ok_or(ServeError::NoFile)?;
    let Some(address) = wiring.grpc else {
        return Err(ServeError::NoPort(wiring.file.clone()));
    };
    let listener = bind(address, "ataccama.server.grpc.port").await?;
    on(module, listener, rules, routes, shutdown).await
}

/// Serves on `listener` until `shutdown` completes.
pub(super) async fn on(
    module: &Module,
    listener: TcpListener,
    rules: MethodRules,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let wiring = module.wiring();
    if let Some(once) = wiring.filter(|wiring| !wiring.is_followed) {
        return Err(ServeError::NotFollowed(once.file.clone()));
    }
    let at = listener.local_addr().map_err(set_up)?;
    let is_loopback = at.ip().to_canonical().is_loopback();
    let server = ServerOptions {
        reflection: if is_loopback {
            Reflection::On
        } else {
            Reflection::Off
        },
        ..wiring.map_or_else(ServerOptions::default, |wiring| wiring.server.clone())
    };
    if server.tls.is_none() && !is_loopback && !module.plaintext.server {
        return Err(ServeError::Plaintext(at));
    }
    if !is_loopback && module.tokens != Tokens::Required {
        return Err(ServeError::WithoutTokens(at));
    }
    let services = rules.services();
    let made = Program::new(module.clone(), None, listener, server, services.clone());
    let mut program = made.map_err(set_up)?;
    let standard = std::mem::take(&mut program.standard.rules);
    if let Some(taken) = standard
        .services()
        .iter()
        .find(|name| services.contains(name))
    {
        return Err(ServeError::Reserved(taken.clone()));
    }
    if let Some((wiring, address)) = wiring.and_then(|wiring| Some((wiring, wiring.http?))) {
        show(&mut program, wiring, address).await?;
    }
    // Added to them, a service that they have too would be a panic.
    let around = std::mem::take(&mut program.standard.routes).into_axum_router();
    program.standard.routes = around.fallback_service(routes).into();
    program.start(None).await;
    let layer = module.server_layer(rules.and(standard));
    program.serve(layer, shutdown, || {}, async { "" }).await?;
    Ok(())
}

fn set_up(error: impl std::error::Error + Send + Sync + 'static) -> ServeError {
    ServeError::Setup(error.into())
}

async fn bind(at: SocketAddr, setting: &'static str) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(at).await;
    listener.map_err(|source| ServeError::Listen {
        at,
        setting,
        source,
    })
}

/// Shows the module's health and metrics over HTTP at `address`.
#[cfg(feature = "actuator")]
async fn show(
    program: &mut Program,
    wiring: &Wiring,
    address: SocketAddr,
) -> Result<(), ServeError> {
    let listener = bind(address, "server.port").await?;
    let site = crate::program::site(&program.module, || std::future::ready(()));
    program.http = Some((listener, site));
    program.allow(Access {
        allowed_hosts: wiring.http_hosts.clone(),
        metrics_beyond_loopback: wiring.http_metrics,
    });
    Ok(())
}

#[cfg(not(feature = "actuator"))]
#[expect(clippy::unused_async, reason = "it awaits with the feature `actuator`")]
async fn show(_: &mut Program, _: &Wiring, _: SocketAddr) -> Result<(), ServeError> {
    Err(ServeError::NoHttp)
}

/// The signals that ask a process to end, from when this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
