//! The one place where a channel is made.

mod endpoint;
mod line;
mod target;
mod transport;

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;

pub use endpoint::EndpointChannel;
pub(crate) use endpoint::channel_over;
pub(crate) use line::KeepAlive;
pub(super) use line::Line;
pub use target::Target;
use target::{Place, Targets};
use transport::{Link, Transport};

use super::callee::{UnknownDeployment, Vouched};
use super::network::{Bytes, Network};
use super::tls::{ClientFailure, ClientTls};
use crate::grpc::tls::certificate_fingerprint;
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;

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
    pub(crate) network: Network,
}

impl Default for ConnectionOptions {
    /// 2 s; plaintext only on loopback, where no one else can read a token.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            allow_plaintext: false,
            tls: None,
            keep_alive: KeepAlive::MODULES,
            network: Network::default(),
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
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No connection is tried; with the reason, and where a setting is missing, the lines to write
    /// into the module's file.
    #[error("{0}")]
    Refused(String),
    /// The name does not resolve; with the resolver's error.
    #[error("`{0}` does not resolve")]
    Resolve(String, #[source] io::Error),
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
    /// No trusted deployment fits.
    #[error(transparent)]
    Deployment(#[from] UnknownDeployment),
}

crate::failure::debug_as_text!(ConnectError);

impl ConnectError {
    /// Finds the error of this type in `error` and its sources.
    pub(crate) fn find_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// A channel that knows each of its connections, and replaces one that is lost. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    current: ArcSwapOption<Line>,
    /// The outcome of the last dial, once there is one.
    dialled: Mutex<Option<watch::Receiver<Option<Dialled>>>>,
}

type Dialled = Result<Arc<Line>, Undialled>;

/// Why there is no connection, for every call that waited for it.
#[derive(Clone, Debug)]
struct Undialled(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Undialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Undialled {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Connection {
    /// Makes a channel that connects at its first call, and again whenever a connection was lost.
    ///
    /// # Errors
    ///
    /// When `target` is not a valid URI.
    pub fn lazy(target: &Target, options: ConnectionOptions) -> Result<Self, ConnectError> {
        Self::lazy_to_any([target], options)
    }

    /// Makes a channel as [`Self::lazy`] does, to a module that listens at each of `targets`: it
    /// connects to the first that accepts, and stays there until that one is gone.
    pub(crate) fn lazy_to_any<'a>(
        targets: impl IntoIterator<Item = &'a Target>,
        options: ConnectionOptions,
    ) -> Result<Self, ConnectError> {
        Connector::new(targets, options, None).map(Self::of)
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
        Self::of(Connector::new([target], options, None)?)
            .connected()
            .await
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
        Self::of(Connector::new([target], options, Some(addresses.into()))?)
            .connected()
            .await
    }

    fn of(connector: Connector) -> Self {
        Self(Arc::new(Shared {
            connector,
            current: ArcSwapOption::empty(),
            dialled: Mutex::default(),
        }))
    }

    async fn connected(self) -> Result<Self, BoxError> {
        self.0.line(Vouched::default()).await?;
        Ok(self)
    }

    /// Allows `bytes` more to be read over all connections; the one that exceeds the limit breaks.
    ///
    /// Until this is called, a connection may read without limit.
    pub fn allow_reading(&self, bytes: u64) {
        self.link().readable.store(bytes, Ordering::Relaxed);
    }

    /// Returns `true` if all that may be read was read.
    pub fn has_read_all(&self) -> bool {
        self.link().readable.load(Ordering::Relaxed) == 0
    }

    /// Returns how many connections were opened so far.
    pub fn opened(&self) -> u64 {
        self.link().opened.load(Ordering::SeqCst)
    }

    /// Returns why TLS, or the lack of it, broke the last connection that was opened.
    ///
    /// In TLS 1.3 a server refuses a client's certificate only after the client's handshake is
    /// over: the call then fails with a text that says nothing of it.
    pub fn fault(&self) -> Option<Arc<ClientFailure>> {
        self.link().fault.load_full()
    }

    /// Ends the current connection and every call over it; the next call opens another.
    pub(crate) fn cut(&self) {
        if let Some(line) = self.0.current.swap(None) {
            line.life.cancel();
        }
    }

    /// Returns where it connected last, or is to connect first.
    pub(crate) fn target(&self) -> Target {
        self.0.connector.targets.first().clone()
    }

    /// Turns to the next target, if there is another one: the current connection ends.
    pub(crate) fn turn(&self) {
        if self.0.connector.targets.turn() {
            self.cut();
        }
    }

    /// Completes once the current connection has ended, whatever the reason; never if there is no
    /// connection.
    pub(crate) async fn ended(&self) {
        match self.0.current.load_full() {
            Some(line) => line.life.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Returns `true` if there is a connection, on which calls may begin.
    pub(crate) fn is_open(&self) -> bool {
        self.line().is_some()
    }

    /// Returns the current connection, if it is open: a call that carries it among its extensions
    /// goes over it and no other.
    pub(super) fn line(&self) -> Option<Arc<Line>> {
        self.0.open_line()
    }

    fn link(&self) -> &Link {
        &self.0.connector.link
    }
}

impl Shared {
    fn open_line(&self) -> Option<Arc<Line>> {
        self.current.load_full().filter(|line| line.is_open())
    }

    /// Returns the current connection, and makes one where it has ended; `vouched` is then that of
    /// the new one. All who wait for a connection that is being made share the outcome.
    async fn line(self: &Arc<Self>, vouched: Vouched) -> Dialled {
        let mut outcome = self.dial(vouched);
        let ended = outcome.wait_for(Option::is_some).await;
        let known = ended.map_or(None, |outcome| outcome.clone());
        known.unwrap_or_else(|| {
            let why = BoxError::from("the attempt to connect was broken off");
            Err(Undialled(why.into()))
        })
    }

    fn dial(self: &Arc<Self>, vouched: Vouched) -> watch::Receiver<Option<Dialled>> {
        let mut last = self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = last.as_ref().filter(|last| !is_over(last)) {
            return under_way.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let shared = Arc::clone(self);
        // It goes on when the callers give up: the next call finds it.
        tokio::spawn(async move {
            let line = shared.connector.connect(vouched).await.map(Arc::new);
            if let Ok(line) = &line {
                shared.current.store(Some(Arc::clone(line)));
            }
            let _ = sender.send(Some(line.map_err(|error| Undialled(error.into()))));
        });
        *last = Some(outcome.clone());
        outcome
    }
}

/// Returns `true` if the next call has to connect again.
fn is_over(last: &watch::Receiver<Option<Dialled>>) -> bool {
    match &*last.borrow() {
        // An attempt that panicked, or whose runtime ended, has no outcome.
        None => last.has_changed().is_err(),
        Some(Ok(line)) => !line.is_open(),
        Some(Err(_)) => true,
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    /// Is always ready. Why there is no connection is the call's error.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let extensions = request.extensions_mut();
        let known = extensions.remove::<Arc<Line>>().or_else(|| self.line());
        let vouched = extensions.remove::<Vouched>().unwrap_or_default();
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let line = match known {
                Some(line) => line,
                None => shared.line(vouched).await?,
            };
            line.send(request).await
        })
    }
}

#[derive(Debug)]
struct Connector {
    targets: Targets,
    options: ConnectionOptions,
    /// What to dial in place of what a target resolves to.
    addresses: Option<Arc<[SocketAddr]>>,
    link: Arc<Link>,
}

impl Connector {
    fn new<'a>(
        targets: impl IntoIterator<Item = &'a Target>,
        options: ConnectionOptions,
        addresses: Option<Arc<[SocketAddr]>>,
    ) -> Result<Self, ConnectError> {
        let read = Targets::new(targets, options.tls.is_some());
        Ok(Self {
            targets: read.map_err(ConnectError::Refused)?,
            options,
            addresses,
            link: Arc::default(),
        })
    }

    /// Connects to the first target that accepts; the error is that of the last.
    async fn connect(&self, vouched: Vouched) -> Result<Line, BoxError> {
        let mut outcome = Err(BoxError::from("there is nowhere to connect"));
        for place in self.targets.all() {
            outcome = self.connect_to(place, vouched.clone()).await;
            if outcome.is_ok() {
                self.targets.stay(place);
                break;
            }
        }
        outcome
    }

    async fn connect_to(&self, place: &Place, vouched: Vouched) -> Result<Line, BoxError> {
        let ConnectionOptions {
            connect_timeout,
            keep_alive,
            ref tls,
            ..
        } = self.options;
        let life = CancellationToken::new();
        let was_pinned = tls.as_ref().is_some_and(ClientTls::is_pinned);
        let made = tls.as_ref().map(ClientTls::made);
        let (transport, shown) = timeout(connect_timeout, self.secured(&place.target, &life))
            .await
            .unwrap_or(Err(ConnectError::Timeout(connect_timeout)))
            .map_err(|error| tonic::ConnectError(error.into()))?;
        self.link.opened.fetch_add(1, Ordering::SeqCst);
        let of = (vouched, made);
        let origin = place.origin.clone();
        let opened = Line::open(transport, origin, keep_alive, life.clone(), of).await?;
        if let Some(tls) = tls {
            let repinned = tls.repinned(was_pinned, shown);
            tokio::spawn(async move {
                tokio::select! {
                    () = repinned => life.cancel(),
                    () = life.cancelled() => {}
                }
            });
        }
        Ok(opened)
    }

    /// Connects; returns the key of the certificate that was shown, too, if there is TLS.
    async fn secured(
        &self,
        target: &Target,
        life: &CancellationToken,
    ) -> Result<(Transport, Option<Fingerprint>), ConnectError> {
        let (stream, address) = self.dial(target).await?;
        self.link.fault.store(None);
        let tls = self.options.tls.clone();
        let (io, shown) = match &tls {
            None => (Either::Left(stream), None),
            Some(tls) => match tls.connect(target.host(), stream).await {
                Ok(stream) => {
                    let chain = stream.get_ref().1.peer_certificates();
                    let first = chain.and_then(|chain| chain.first());
                    let shown = first.and_then(|der| certificate_fingerprint(der).ok());
                    (Either::Right(Box::new(stream)), shown)
                }
                Err(failure) => return Err(ConnectError::Tls(address, Box::new(failure))),
            },
        };
        let link = Arc::clone(&self.link);
        Ok((Transport::new(io, tls, link, life.clone()), shown))
    }

    /// Judges every address, and dials only what was judged.
    async fn dial(&self, target: &Target) -> Result<(Bytes, SocketAddr), ConnectError> {
        let addresses = if let Some(addresses) = &self.addresses {
            addresses.to_vec()
        } else {
            let (host, port) = (target.host(), target.port());
            let resolved = self.options.network.resolve(host, port).await;
            resolved.map_err(|error| ConnectError::Resolve(host.to_owned(), error))?
        };
        let may_leave = self.options.tls.is_some() || self.options.allow_plaintext;
        let mut remote = addresses.iter().filter(|_| !may_leave);
        if let Some(remote) = remote.find(|remote| !super::is_loopback(**remote)) {
            return Err(ConnectError::Plaintext(*remote));
        }
        let mut failed = ConnectError::Refused(format!("`{}` has no address", target.host()));
        for address in addresses {
            let limit = self.options.keep_alive.unacknowledged;
            match self.options.network.connect(address, limit).await {
                Ok(bytes) => return Ok((bytes, address)),
                Err(error) => failed = ConnectError::Connect(address, error),
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests;
