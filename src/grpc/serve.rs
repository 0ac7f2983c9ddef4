//! The one place where a server is put together.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Error as TransportError, Server};

use super::listener::{Acceptor, ConnectionLimits};
use super::metrics::Largest;
use super::network::Port;
use super::session::{HealthWatch, Visits};
use super::tls::ServerTls;
use super::{ConnectionOptions, Target, VerifyIdentityLayer};
use crate::admission::Connections;
use crate::identity::DeploymentName;

/// How long connections that never sent a request may stay after a shutdown began: one may be on
/// its way.
const SILENT_GRACE: Duration = Duration::from_millis(250);

/// How much of a request may wait for its handler, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;

/// How many calls may be open on one connection.
const CONCURRENT_STREAMS: u32 = 100;

/// How many calls of one connection may be reset before they were looked at; more end it.
const PENDING_RESETS: usize = 128;

/// The largest header list, in bytes as HTTP/2 counts them.
const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// How long a connection's task may take to notice that its socket is closed.
const CUTTING: Duration = Duration::from_secs(1);

/// The bounds of a server, and its TLS.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How long open calls may take to finish after a shutdown began.
    pub shutdown_deadline: Duration,
    /// How long a handler may take until its reply begins.
    pub request_timeout: Duration,
    /// The largest message that a caller may send, in bytes.
    pub max_message_bytes: usize,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// How long callers without a token may watch the health.
    pub health_watch: HealthWatch,
    /// TLS, if the server has it.
    pub tls: Option<ServerTls>,
}

impl Default for ServerOptions {
    /// 8 s to drain: without a bound one silent connection would hold the process for ever, and
    /// containers are killed after 10 s; 30 s for a reply; 4 MiB; no TLS.
    fn default() -> Self {
        Self {
            shutdown_deadline: Duration::from_secs(8),
            request_timeout: Duration::from_secs(30),
            max_message_bytes: 4 * 1024 * 1024,
            connections: ConnectionLimits::default(),
            health_watch: HealthWatch::Bounded,
            tls: None,
        }
    }
}

impl ServerOptions {
    pub(super) fn largest(&self) -> Largest {
        Largest(
            self.max_message_bytes,
            "ataccama.server.grpc.max-message-size",
        )
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Drained {
    /// Every call finished.
    InTime,
    /// Some did not; their connections were cut.
    AtDeadline,
}

/// Why a module does not serve, or stopped by itself.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server stopped by itself.
    #[error("the gRPC server stopped")]
    Server(#[from] TransportError),
    /// The module cannot be served as it is configured; with the reason, and what to change.
    #[error("{0}")]
    Refused(String),
    /// A port cannot be opened, or something else cannot be set up; with the system's error.
    #[error("{0}")]
    Setup(String, #[source] Box<dyn Error + Send + Sync>),
}

crate::failure::debug_as_text!(ServeError);

/// Serves `routes` behind `layer` until `shutdown` completes, then drains.
///
/// From then on the port is closed. Open calls may finish within the deadline; a connection that
/// does not end by then is cut, and one that never sent a request is cut soon. Nothing of the
/// server runs on after the returned future completed, or was dropped.
///
/// Where room for connections is short, the oldest gives way to a new one that has shown no token
/// that verified and had its [`chance`](ConnectionLimits::chance); if there is no such connection,
/// the new one is closed at once. A connection whose key is revoked is closed. Calls carry a
/// [`PeerInfo`](super::PeerInfo) among their extensions. A handler's panic is answered with
/// `INTERNAL`. Services in `routes` whose messages may exceed tonic's 4 MB apply
/// `max_message_bytes`, too.
///
/// # Errors
///
/// When the server stops by itself.
pub async fn serve(
    listener: TcpListener,
    layer: VerifyIdentityLayer,
    routes: Routes,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, ServeError> {
    serve_on(Port::System(listener), layer, routes, options, shutdown).await
}

/// Serves as [`serve`] does, on a port of any network.
pub(crate) async fn serve_on(
    port: Port,
    layer: VerifyIdentityLayer,
    routes: Routes,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, ServeError> {
    let connections = Arc::new(Connections::new(options.connections.bounds()));
    let _cut = CutOnDrop(Arc::clone(&connections));
    let (ready, accepted) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let visits = Visits::new(options.connections.visit, options.health_watch);
    let gate = Arc::clone(&layer.gate);
    let limits = options.connections;
    // tonic cuts a connection at age and grace without asking it to end in between; here tonic
    // asks and the listener cuts.
    let mut server = pin!(
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .timeout(options.request_timeout)
            .max_concurrent_streams(CONCURRENT_STREAMS)
            .max_connection_age(limits.age)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout))
            .layer(VerifyIdentityLayer {
                visits,
                largest: Some(options.largest()),
                ..layer.counted()
            })
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop.cancelled())
    );
    let acceptor = Acceptor::new(
        port,
        Arc::clone(&connections),
        options.connections,
        options.tls,
        &gate,
    );
    tokio::select! {
        ended = &mut server => return Ok(ended.map(|()| Drained::InTime)?),
        never = acceptor.run(ready) => match never {},
        () = shutdown => {}
    }
    stop.cancel();
    drain(server, &connections, options.shutdown_deadline).await
}

async fn drain(
    mut server: impl Future<Output = Result<(), TransportError>> + Unpin,
    connections: &Connections,
    within: Duration,
) -> Result<Drained, ServeError> {
    let deadline = Instant::now() + within;
    let soon = SILENT_GRACE.min(within / 2);
    if let Ok(ended) = timeout(soon, &mut server).await {
        return Ok(ended.map(|()| Drained::InTime)?);
    }
    connections.cut_silent();
    if let Ok(ended) = timeout_at(deadline, &mut server).await {
        return Ok(ended.map(|()| Drained::InTime)?);
    }
    connections.cut_all();
    // Nothing is left to do where a task does not notice, nor is its error of interest.
    let _ = timeout(CUTTING, server).await;
    Ok(Drained::AtDeadline)
}

/// Leaves no connection behind.
struct CutOnDrop(Arc<Connections>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut_all();
    }
}

/// tonic's own limit of a message.
pub(super) const TONICS_BYTES: usize = 4 * 1024 * 1024;

/// How the module of a file serves and calls.
#[derive(Debug)]
pub(crate) struct Wiring {
    /// The main file.
    pub(crate) file: PathBuf,
    /// Whether the module follows its file.
    pub(crate) is_followed: bool,
    /// Where gRPC is served, if the file says it.
    pub(crate) grpc: Option<SocketAddr>,
    /// Where HTTP is served, if the file says it.
    pub(crate) http: Option<SocketAddr>,
    /// Further host names of the HTTP port.
    pub(crate) http_hosts: Vec<String>,
    /// Whether HTTP shows metrics beyond loopback.
    pub(crate) http_metrics: bool,
    /// The server's bounds and TLS.
    pub(crate) server: ServerOptions,
    /// The connections.
    pub(crate) routes: Vec<Route>,
    /// The largest message that is accepted of a server, in bytes.
    pub(crate) client_bytes: usize,
}

impl Wiring {
    pub(super) fn largest_reply(&self) -> Largest {
        let setting = "ataccama.client.grpc.properties.max-message-size";
        Largest(self.client_bytes, setting)
    }
}

/// A connection, `ataccama.client.connection.<c>`.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name, which is the module type to call where it names no deployment.
    pub(crate) name: String,
    /// Where it leads: to the first that accepts.
    pub(crate) targets: Vec<Target>,
    /// The deployment that it names.
    pub(crate) deployment: Option<DeploymentName>,
    /// Whether the file has it; `dpm` has a default.
    pub(crate) is_written: bool,
    /// How to connect.
    pub(crate) options: ConnectionOptions,
}
