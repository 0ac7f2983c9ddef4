//! Where connections come from and lead to: the system's TCP, or a network that a test simulates.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_util::either::Either;

/// The bytes of a connection.
pub(crate) type Bytes = Either<TcpStream, Box<dyn Pipe>>;

/// The bytes of a simulated connection.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Pipe for T {}

/// A host of a simulated network, and its open port.
pub(crate) trait Simulated: Debug + Send + Sync {
    /// Returns the address of the port.
    fn address(&self) -> SocketAddr;

    /// Waits for the next connection to the port; returns where it came from, too. May be given up
    /// at any time.
    fn accept(&self) -> Opening<'_, (Box<dyn Pipe>, SocketAddr)>;

    /// Returns the addresses of `host`.
    fn resolve(&self, host: &str, port: u16) -> Opening<'_, Vec<SocketAddr>>;

    /// Connects to `address`.
    fn connect(&self, address: SocketAddr) -> Opening<'_, Box<dyn Pipe>>;
}

type Opening<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Where a server's connections come from.
#[derive(Debug)]
pub(crate) enum Port {
    /// A port of this machine.
    System(TcpListener),
    /// One of a simulated host.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test's"))]
    Simulated(Arc<dyn Simulated>),
}

impl Port {
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::System(listener) => listener.local_addr(),
            Self::Simulated(host) => Ok(host.address()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Bytes, SocketAddr)> {
        match self {
            Self::System(listener) => {
                let (tcp, peer) = listener.accept().await?;
                Ok((Either::Left(tcp), peer))
            }
            Self::Simulated(host) => {
                let (pipe, peer) = host.accept().await?;
                Ok((Either::Right(pipe), peer))
            }
        }
    }
}

/// Where a client's connections lead.
#[derive(Clone, Debug, Default)]
pub(crate) enum Network {
    #[default]
    System,
    /// What a simulated host reaches.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test's"))]
    Simulated(Arc<dyn Simulated>),
}

impl Network {
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(lookup_host((host, port)).await?.collect()),
            Self::Simulated(own) => own.resolve(host, port).await,
        }
    }

    /// Connects to `address`. The connection ends when bytes are not `acknowledged` in that time,
    /// also while its peer's window is closed.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        acknowledged: Duration,
    ) -> io::Result<Bytes> {
        let bytes = match self {
            Self::System => Either::Left(TcpStream::connect(address).await?),
            Self::Simulated(own) => Either::Right(own.connect(address).await?),
        };
        send_at_once(&bytes);
        #[cfg(target_os = "linux")]
        if let Either::Left(tcp) = &bytes {
            let limit = u32::try_from(acknowledged.as_millis()).unwrap_or(u32::MAX);
            // Without it HTTP/2's PINGs still notice, later.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(tcp, limit);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = acknowledged;
        Ok(bytes)
    }
}

/// Has small writes sent at once.
pub(super) fn send_at_once(bytes: &Bytes) {
    if let Either::Left(tcp) = bytes {
        // A small delay at worst; no reason to fail.
        let _ = tcp.set_nodelay(true);
    }
}

/// Has the system drop what its peer has not read once the connection is closed.
pub(super) fn drop_unread(bytes: &Bytes) {
    if let Either::Left(tcp) = bytes {
        let _ = tcp.set_zero_linger();
    }
}

/// Returns this machine's end of a connection, where the system knows it.
pub(super) fn local_address(bytes: &Bytes) -> Option<SocketAddr> {
    match bytes {
        Either::Left(tcp) => tcp.local_addr().ok(),
        Either::Right(_) => None,
    }
}
