//! The one place where a channel is made.

mod transport;

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use transport::{Link, Transport};

use super::tls::{ClientFailure, ClientTls};
use crate::identity::DeploymentName;

/// Where to connect: a DNS name or an IP address, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// Names `host`, without brackets even if it is an IPv6 address, and `port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }

    /// Returns the host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// How to connect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
    /// `countersign.client.allow-plaintext`: also beyond loopback without TLS.
    pub allow_plaintext: bool,
    /// TLS. If it fails, there is no connection, and never one without TLS.
    pub tls: Option<ClientTls>,
    /// How a connection on which nothing arrives any more is noticed.
    pub(crate) keep_alive: KeepAlive,
}

/// When a connection asks its server for a sign of life, and how long it waits for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// A PING is sent when no frame arrived for that long.
    every: Duration,
    /// The connection ends when the PING is not answered for that long.
    answer: Duration,
    /// Whether PINGs are also sent while no call is open.
    while_idle: bool,
    /// The connection ends when bytes are not acknowledged for that long: `TCP_USER_TIMEOUT`.
    unacknowledged: Duration,
}

impl KeepAlive {
    /// For servers that are modules.
    pub(crate) const MODULES: Self = Self {
        every: Duration::from_secs(4),
        answer: Duration::from_secs(3),
        while_idle: true,
        unacknowledged: Duration::from_secs(7),
    };

    /// For any gRPC server: many end a connection on which PINGs come often, or without a call.
    pub(crate) const ANY_SERVER: Self = Self {
        every: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        while_idle: false,
        unacknowledged: Duration::from_secs(20),
    };

    /// Ends `stream` when its peer acknowledges nothing any more, also while its window is closed.
    #[cfg(target_os = "linux")]
    fn watch(self, stream: &TcpStream) {
        let limit = u32::try_from(self.unacknowledged.as_millis()).unwrap_or(u32::MAX);
        // Without it the PINGs still notice, later.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, limit);
    }

    #[cfg(not(target_os = "linux"))]
    fn watch(self, _: &TcpStream) {}
}

impl Default for ConnectionOptions {
    /// 2 s; plaintext only on loopback, since anyone who reads a token can use it until it
    /// expires.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            allow_plaintext: false,
            tls: None,
            keep_alive: KeepAlive::MODULES,
        }
    }
}

impl ConnectionOptions {
    /// Returns the same for connections to the deployment `name`: only its pins count, where it
    /// has any.
    #[must_use]
    pub fn towards(&self, name: &DeploymentName) -> Self {
        Self {
            tls: self.tls.as_ref().map(|tls| tls.towards(name)),
            ..self.clone()
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host and port are not a valid URI.
    #[error("`{0}` is not a valid address")]
    Address(String),
    /// The name does not resolve; with the resolver's error.
    #[error("`{0}` does not resolve")]
    Resolve(String, #[source] io::Error),
    /// The name resolves to nothing.
    #[error("`{0}` has no address")]
    NoAddress(String),
    /// Without TLS a token would cross the network readable.
    #[error(
        "{0} is not loopback and the connection has no TLS; turn TLS on, or set `countersign.client.allow-plaintext=true` where the network is trusted"
    )]
    Plaintext(SocketAddr),
    /// Nothing accepts the connection at the address tried last; with the error.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The address accepts the connection, but TLS fails; with the reason.
    #[error("no TLS with {}: {}", .0, .1.in_full())]
    Tls(SocketAddr, Box<ClientFailure>),
    /// Nothing answers.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

impl ConnectError {
    /// Finds the error of this type in `error` and its sources.
    pub(crate) fn find_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// A channel that counts its connections, so that a silent reconnect can be noticed.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    link: Arc<Link>,
}

impl Connection {
    /// Makes a channel that connects at its first call, and again whenever a connection was lost.
    ///
    /// # Errors
    ///
    /// When `target` is not a valid URI.
    pub fn lazy(target: &Target, options: ConnectionOptions) -> Result<Self, ConnectError> {
        let connector = Connector::new(target, options);
        Ok(Self {
            link: Arc::clone(&connector.link),
            channel: connector.endpoint()?.connect_with_connector_lazy(connector),
        })
    }

    /// Connects now; the channel reconnects by itself later.
    ///
    /// # Errors
    ///
    /// When the name does not resolve, an address may not be dialled, nothing answers in time, or
    /// TLS fails.
    pub async fn open(
        target: &Target,
        options: ConnectionOptions,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::connect(Connector::new(target, options)).await
    }

    /// Connects now, to one of `addresses` and to no other, also when it reconnects.
    ///
    /// `target` only names the far side: it is not resolved, so what was judged is what is dialled.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn to_addresses(
        target: &Target,
        addresses: Vec<SocketAddr>,
        options: ConnectionOptions,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut connector = Connector::new(target, options);
        connector.addresses = Some(addresses.into());
        Self::connect(connector).await
    }

    async fn connect(connector: Connector) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let endpoint = connector.endpoint()?;
        Ok(Self {
            link: Arc::clone(&connector.link),
            channel: endpoint.connect_with_connector(connector).await?,
        })
    }

    /// Allows `bytes` more to be read over all connections; the one that exceeds the limit breaks.
    ///
    /// Until this is called, a connection may read without limit.
    pub fn allow_reading(&self, bytes: u64) {
        self.link.readable.store(bytes, Ordering::Relaxed);
    }

    /// Returns `true` if all that may be read was read.
    pub fn has_read_all(&self) -> bool {
        self.link.readable.load(Ordering::Relaxed) == 0
    }

    /// Returns the channel. Cloning is cheap.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Returns how many connections were opened so far.
    pub fn opened(&self) -> u64 {
        self.link.opened.load(Ordering::SeqCst)
    }

    /// Returns why TLS, or the lack of it, broke the last connection that was opened.
    ///
    /// In TLS 1.3 a server refuses a client's certificate only after the client's handshake is
    /// over: the call then fails with a text that says nothing of it.
    pub fn fault(&self) -> Option<Arc<ClientFailure>> {
        self.link.fault.load_full()
    }
}

#[derive(Clone, Debug)]
struct Connector {
    target: Target,
    options: ConnectionOptions,
    /// What to dial in place of what `target` resolves to.
    addresses: Option<Arc<[SocketAddr]>>,
    link: Arc<Link>,
}

impl Connector {
    fn new(target: &Target, options: ConnectionOptions) -> Self {
        Self {
            target: target.clone(),
            options,
            addresses: None,
            link: Arc::default(),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        // The connector does the TLS; what the server sees is `https`.
        let origin = match &self.options.tls {
            Some(_) => "https",
            None => "http",
        };
        let keep_alive = self.options.keep_alive;
        // A hostile server must not fill this process with headers.
        Ok(Endpoint::from(self.uri("http")?)
            .origin(self.uri(origin)?)
            .http2_max_header_list_size(16 * 1024)
            .http2_keep_alive_interval(keep_alive.every)
            .keep_alive_timeout(keep_alive.answer)
            .keep_alive_while_idle(keep_alive.while_idle)
            .tcp_nodelay(true))
    }

    fn uri(&self, scheme: &str) -> Result<Uri, ConnectError> {
        let uri = Uri::try_from(format!("{scheme}://{}", self.target));
        uri.map_err(|_invalid| ConnectError::Address(self.target.to_string()))
    }

    async fn connect(self) -> Result<TokioIo<Transport>, ConnectError> {
        let limit = self.options.connect_timeout;
        match tokio::time::timeout(limit, self.secured()).await {
            Err(_elapsed) => Err(ConnectError::Timeout(limit)),
            Ok(stream) => {
                let stream = TokioIo::new(stream?);
                self.link.opened.fetch_add(1, Ordering::SeqCst);
                Ok(stream)
            }
        }
    }

    async fn secured(&self) -> Result<Transport, ConnectError> {
        let (stream, address) = self.dial().await?;
        self.link.fault.store(None);
        let tls = self.options.tls.clone();
        let io = match &tls {
            None => Either::Left(stream),
            Some(tls) => match tls.connect(&self.target.host, stream).await {
                Ok(stream) => Either::Right(Box::new(stream)),
                Err(failure) => return Err(ConnectError::Tls(address, Box::new(failure))),
            },
        };
        Ok(Transport::new(io, tls, Arc::clone(&self.link)))
    }

    /// Judges every address, and dials only what was judged.
    async fn dial(&self) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let addresses = match &self.addresses {
            Some(addresses) => addresses.to_vec(),
            None => self.resolve().await?,
        };
        let may_leave = self.options.tls.is_some() || self.options.allow_plaintext;
        let mut remote = addresses.iter().filter(|_| !may_leave);
        if let Some(remote) = remote.find(|remote| !remote.ip().to_canonical().is_loopback()) {
            return Err(ConnectError::Plaintext(*remote));
        }
        let mut failed = ConnectError::NoAddress(self.target.host.clone());
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A small delay at worst; no reason to fail.
                    let _ = stream.set_nodelay(true);
                    self.options.keep_alive.watch(&stream);
                    return Ok((stream, address));
                }
                Err(error) => failed = ConnectError::Connect(address, error),
            }
        }
        Err(failed)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let Target { host, port } = &self.target;
        match lookup_host((host.as_str(), *port)).await {
            Ok(resolved) => Ok(resolved.collect()),
            Err(error) => Err(ConnectError::Resolve(host.clone(), error)),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Transport>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

#[cfg(test)]
mod tests;
