//! A network that can be rerouted, and that forgets, loses and delays.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::world::{free_port, soon};

/// Passes connections on, to the address of its route at the time.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    flows: watch::Receiver<u64>,
}

/// What the network does. Its connections are numbered from 1.
#[derive(Clone, Default)]
struct Network {
    route: Option<SocketAddr>,
    reroutes: u64,
    /// Up to this one they are forgotten: open at both ends, and nothing passes any more.
    forgotten: u64,
    /// Up to this one they are reset.
    reset: u64,
    /// Those that begin now are forgotten from the start.
    is_partitioned: bool,
    /// How late everything arrives.
    delay: Duration,
}

impl Relay {
    /// Listens on a free port; refuses to pass anything on until it has a route.
    pub(crate) async fn start() -> Self {
        let listener = free_port().await;
        let address = listener.local_addr().unwrap();
        let network = watch::Sender::new(Network::default());
        let (flow, flows) = watch::channel(0);
        tokio::spawn(accept(listener, network.subscribe(), flow));
        Self {
            address,
            network,
            flows,
        }
    }

    /// Starts one that leads to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let relay = Self::start().await;
        relay.reroute(Some(target));
        relay
    }

    /// Cuts every connection; new ones lead to `target`.
    pub(crate) fn reroute(&self, target: Option<SocketAddr>) {
        self.network.send_modify(|network| {
            network.route = target;
            network.reroutes += 1;
        });
    }

    /// Forgets every connection, as a firewall does: neither end learns of it.
    pub(crate) fn forget(&self) {
        let flows = self.flows();
        self.network
            .send_modify(|network| network.forgotten = flows);
    }

    /// Forgets every connection, and each that begins, until it [heals](Self::heal).
    pub(crate) fn partition(&self) {
        self.network
            .send_modify(|network| network.is_partitioned = true);
        self.forget();
    }

    /// Passes new connections on again.
    pub(crate) fn heal(&self) {
        let flows = self.flows();
        self.network.send_modify(|network| {
            network.forgotten = flows;
            network.is_partitioned = false;
        });
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        let flows = self.flows();
        self.network.send_modify(|network| network.reset = flows);
    }

    /// Has everything arrive that much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.network.send_modify(|network| network.delay = delay);
    }

    /// Returns how many connections have begun.
    pub(crate) fn flows(&self) -> u64 {
        *self.flows.borrow()
    }

    /// Waits until so many connections have begun.
    pub(crate) async fn has_flows(&self, count: u64) {
        let mut flows = self.flows.clone();
        let began = flows.wait_for(|flows| *flows >= count);
        soon("another connection", began).await.unwrap();
    }
}

async fn accept(
    listener: TcpListener,
    network: watch::Receiver<Network>,
    flows: watch::Sender<u64>,
) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        flows.send_modify(|flows| *flows += 1);
        let number = *flows.borrow();
        tokio::spawn(carry(near, number, network.clone()));
    }
}

/// Carries one connection, as long as the network lets it.
async fn carry(mut near: TcpStream, number: u64, mut network: watch::Receiver<Network>) {
    let begun = network.borrow().clone();
    let Some(target) = begun.route else {
        return;
    };
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    let is_cut = |now: &Network| now.reroutes != begun.reroutes || now.reset >= number;
    let is_forgotten = |now: &Network| now.is_partitioned || now.forgotten >= number;
    {
        let ((near_reader, near_writer), (far_reader, far_writer)) = (near.split(), far.split());
        let (onward, back) = (network.clone(), network.clone());
        tokio::select! {
            biased;
            ended = network.wait_for(|now| is_cut(now) || is_forgotten(now)) => drop(ended),
            _ = async {
                tokio::join!(
                    pass(near_reader, far_writer, onward),
                    pass(far_reader, near_writer, back),
                )
            } => return,
        }
    }
    // The end of the test ends it, too.
    let _ = network.wait_for(is_cut).await;
    if network.borrow().reset >= number {
        near.set_zero_linger().unwrap();
        far.set_zero_linger().unwrap();
    }
}

/// Passes on what is read, until the end.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        let delay = network.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}
