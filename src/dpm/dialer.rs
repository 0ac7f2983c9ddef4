//! From the address that an engine gives to a connection: resolved once, judged, dialled.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::lanes::Lanes;
use super::options::Resolver;
use crate::admission::{descriptors, outgoing};
use crate::engine::{Engine, EngineAddress};
use crate::grpc::{Connection, ConnectionOptions, Target};
use crate::identity::DeploymentName;
use crate::registry::{AddressPolicy, AddressRefusal, Destination};

/// Resolves, judges and dials.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) policy: AddressPolicy,
    resolver: Resolver,
    pub(super) connection: ConnectionOptions,
    resolving: Permits,
    /// Dial-backs under way.
    pub(super) dialling: Lanes,
    /// Connections that are being made, and those that are kept: all that there may be.
    pub(super) passing: Semaphore,
    pub(super) kept: Arc<Semaphore>,
}

/// Why an engine's address is not dialled, or not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the address may not be dialled")]
    Refused(#[from] AddressRefusal),
    #[error("the host name does not resolve")]
    Resolve(#[source] io::Error),
    #[error(transparent)]
    Connect(Box<dyn Error + Send + Sync>),
}

impl Dialer {
    pub(super) fn new(
        policy: AddressPolicy,
        resolver: Resolver,
        connection: ConnectionOptions,
    ) -> Self {
        let most = outgoing(descriptors()).max(FEWEST);
        Self {
            policy,
            resolver,
            connection,
            resolving: Permits::default(),
            dialling: Lanes::default(),
            passing: Semaphore::new(most.div_ceil(4)),
            kept: Arc::new(Semaphore::new(most / 4 * 3)),
        }
    }

    /// Checks the address that an engine registers.
    ///
    /// A name that does not resolve now passes: an engine may come before its name. It is resolved
    /// and judged again each time before it is dialled.
    pub(super) async fn judge(&self, destination: &Destination<'_>) -> Result<(), AddressRefusal> {
        match self.resolve_allowed(destination).await {
            Err(DialError::Refused(refusal)) => Err(refusal),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Resolves `destination`, which may be dialled at each of the addresses.
    async fn resolve_allowed(
        &self,
        destination: &Destination<'_>,
    ) -> Result<Vec<IpAddr>, DialError> {
        // What needs no resolver is judged before it is asked.
        self.policy.check(destination, &[], |_| true)?;
        let resolved = self
            .resolve(destination.deployment, destination.address)
            .await?;
        let unsaid = OnceCell::new();
        let judged = self.policy.check(destination, &resolved, |address| {
            is_local(address).unwrap_or_else(|error| {
                if lacks_descriptor(&error) {
                    let _ = unsaid.set(error);
                }
                true
            })
        });
        // What this process could not ask is no fault of the engine.
        if let Some(error) = unsaid.into_inner() {
            return Err(DialError::Resolve(error));
        }
        judged?;
        Ok(resolved)
    }

    /// Connects to an address of `engine` that was judged, as one of `owner`'s.
    pub(super) async fn dial(
        &self,
        engine: &Engine,
        owner: &DeploymentName,
    ) -> Result<Connection, DialError> {
        let destination = Destination {
            deployment: &engine.owner.deployment,
            address: &engine.address,
            over_loopback: engine.over_loopback,
        };
        let resolved = self.resolve_allowed(&destination).await?;
        let port = engine.address.port();
        let checked = resolved.iter().take(MOST_DIALLED);
        let options = self.connection.towards(owner);
        let target = Target::new(engine.address.hostname(), port);
        let addresses = checked.map(|ip| SocketAddr::new(*ip, port));
        Connection::to_addresses(&target, addresses.collect(), options)
            .await
            .map_err(DialError::Connect)
    }

    async fn resolve(
        &self,
        deployment: &str,
        address: &EngineAddress,
    ) -> Result<Vec<IpAddr>, DialError> {
        if let Ok(literal) = address.hostname().parse() {
            return Ok(vec![literal]);
        }
        let resolver = self.resolver.clone();
        let name = address.hostname().to_owned();
        let asked = async {
            let permit = self.resolving.take(deployment).await;
            // A resolver cannot be stopped: until it answers, it counts.
            let answer = spawn_blocking(move || {
                let answer = resolver.resolve(&name);
                drop(permit);
                answer
            });
            answer
                .await
                .unwrap_or_else(|died| Err(io::Error::other(died)))
        };
        match timeout(RESOLVE_TIMEOUT, asked).await {
            Ok(answer) => answer.map_err(DialError::Resolve),
            Err(_elapsed) => {
                let slow = format!("no answer within {RESOLVE_TIMEOUT:?}");
                Err(DialError::Resolve(io::Error::other(slow)))
            }
        }
    }
}

/// How many names each deployment may have resolved at once.
#[derive(Debug, Default)]
struct Permits(Mutex<HashMap<Arc<str>, Arc<Semaphore>>>);

impl Permits {
    /// Waits for a permit of `deployment`; `None` would say that there are none to be had.
    async fn take(&self, deployment: &str) -> Option<OwnedSemaphorePermit> {
        let permits = {
            // As many entries as deployments were ever trusted.
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let permits = all.entry(deployment.into());
            Arc::clone(permits.or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
        };
        permits.acquire_owned().await.ok()
    }
}

/// Returns `true` if this process has no file descriptor left.
pub(super) fn lacks_descriptor(error: &io::Error) -> bool {
    let why = Errno::from_io_error(error);
    why.is_some_and(|why| [Errno::MFILE, Errno::NFILE].contains(&why))
}

/// Returns `true` if `address` is this machine's: the system would send to it from the same
/// address. Nothing is sent.
///
/// # Errors
///
/// When the system does not say.
pub(super) fn is_local(address: IpAddr) -> io::Result<bool> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    match asked {
        Ok(from) => Ok(from.ip() == address),
        Err(error) => match error.kind() {
            // No way leads there.
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::Unsupported => Ok(false),
            _ => Err(error),
        },
    }
}

/// How many connections there may be where file descriptors are few.
const FEWEST: usize = 4;
/// A name with more addresses than this may be an attempt to have many hosts dialled.
const MOST_DIALLED: usize = 8;
const AT_ONCE: usize = 8;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
