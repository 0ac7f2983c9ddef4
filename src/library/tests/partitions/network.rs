//! The simulated network, as the product's listener and dialer see it.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::grpc::network::{Pipe, Simulated};
use turmoil::net::{TcpListener, TcpStream};

type Opening<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A host of the simulation that runs now.
pub(super) struct Host {
    listener: TcpListener,
    address: SocketAddr,
    is_silent: bool,
}

impl Host {
    /// Opens `port` of the host `name`, whose code this is called in.
    pub(super) async fn open(name: &str, port: u16, is_silent: bool) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            listener: TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
            address: SocketAddr::new(turmoil::lookup(name), port),
            is_silent,
        }))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.address)
    }
}

impl Simulated for Host {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&self) -> Opening<'_, (Box<dyn Pipe>, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            Ok((Box::new(stream) as Box<dyn Pipe>, peer))
        })
    }

    fn resolve(&self, host: &str, port: u16) -> Opening<'_, Vec<SocketAddr>> {
        let resolved = SocketAddr::new(turmoil::lookup(host), port);
        Box::pin(async move { Ok(vec![resolved]) })
    }

    fn connect(&self, address: SocketAddr) -> Opening<'_, Box<dyn Pipe>> {
        Box::pin(async move {
            match TcpStream::connect(address).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Pipe>),
                // Simulated partitions refuse; most that are real say nothing.
                Err(_) if self.is_silent => pending().await,
                Err(error) => Err(error),
            }
        })
    }
}

/// When every simulation starts, in seconds since 1970.
pub(super) const START: Duration = Duration::from_secs(1_800_000_000);

/// The time of day in the simulation.
#[derive(Debug)]
pub(super) struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + turmoil::since_epoch().unwrap_or(START)
    }
}
