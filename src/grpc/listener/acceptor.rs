//! The accept loop.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tonic::Code;

use super::ConnectionLimits;
use super::stream::{Socket, Stream, cut};
use crate::admission::{Connections, Crowding, is_of_one_connection};
use crate::grpc::gate::Gate;
use crate::grpc::network::{Bytes, Port, send_at_once};
use crate::grpc::session::SLACK;
use crate::grpc::tls::{ServerFailure, ServerTls};
use crate::grpc::{Rejections, cause};
use crate::telemetry::events;
use crate::trust::TrustStore;

/// How long to wait where the operating system gives no connection, and at most for connections
/// that were cut.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How often connections that are overdue are looked for at most.
const SWEEP: Duration = Duration::from_millis(50);

/// How many connections give way at once where descriptors have run out.
const RELIEF: usize = 8;

/// Where accepted connections go.
pub(in crate::grpc) type Ready = mpsc::Sender<io::Result<Stream>>;

/// Accepts connections, completes their TLS handshakes and cuts those that are overdue, or whose
/// keys are no longer trusted.
#[derive(Debug)]
pub(in crate::grpc) struct Acceptor {
    port: Port,
    connections: Arc<Connections>,
    limits: ConnectionLimits,
    tls: Option<ServerTls>,
    trust: Arc<TrustStore>,
    rejections: Arc<Rejections>,
    handshakes: JoinSet<Handshake>,
    refusals: Refusals,
    /// How many connections were closed for want of room, and when the last one was.
    closed: u64,
    crowded: Option<Instant>,
    /// When to look for connections that are overdue.
    sweep: Option<Instant>,
}

/// A stream, or the peer that it failed with and why.
type Handshake = Result<Stream, (SocketAddr, String)>;

impl Acceptor {
    pub(in crate::grpc) fn new(
        port: Port,
        connections: Arc<Connections>,
        limits: ConnectionLimits,
        tls: Option<ServerTls>,
        gate: &Gate,
    ) -> Self {
        Self {
            port,
            connections,
            limits,
            tls,
            trust: Arc::clone(gate.verifier.trust()),
            closed: 0,
            crowded: None,
            rejections: Arc::clone(&gate.rejections),
            handshakes: JoinSet::new(),
            refusals: Refusals::default(),
            sweep: None,
        }
    }

    /// Accepts connections until it is dropped, which closes the port and ends handshakes.
    pub(in crate::grpc) async fn run(mut self, ready: Ready) -> Infallible {
        let mut trust = self.trust.subscribe();
        trust.mark_changed();
        loop {
            let wake = self.sweep.into_iter().chain(self.calm_at()).min();
            tokio::select! {
                accepted = self.port.accept() => match accepted {
                    Ok((bytes, peer)) => self.welcome(bytes, peer, &ready).await,
                    Err(error) => self.back_off(&error).await,
                },
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(stream)) => hand_over(&ready, stream).await,
                    Ok(Err((peer, failure))) => {
                        let kind = (peer.ip(), &failure);
                        if let Some(suppressed) = self.rejections.admit(None, Code::Unavailable, kind) {
                            events::tls_handshake_failed(peer, &failure, suppressed);
                        }
                    }
                    // A handshake that panicked took its connection with it.
                    Err(_) => {}
                },
                Ok(()) = trust.changed() => {
                    let deployments = self.trust.current().deployments().len();
                    self.connections.judge(deployments, Instant::now());
                    self.sweep = Some(Instant::now());
                }
                // The future is made even if there is nothing to wake for; then it is not polled.
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            let now = Instant::now();
            if self.sweep.is_some_and(|due| due <= now) {
                let next = self.connections.cut_overdue(now);
                // A call without a token that begins meanwhile may be due before.
                let soon = now + self.limits.visit / SLACK;
                self.sweep = next.map(|due| due.min(soon).max(now + SWEEP));
            }
            self.settle(now);
        }
    }

    /// Notes that `closed` connections were closed because of `crowding`.
    fn note(&mut self, crowding: &Crowding, closed: usize, now: Instant) {
        self.crowded = Some(now);
        self.closed = self.closed.saturating_add(closed as u64);
        let (own, class) = (Rejections::OWN, Code::ResourceExhausted);
        let kind = discriminant(crowding);
        if let Some(suppressed) = self.rejections.admit(own, class, kind) {
            events::listener_crowded(crowding, suppressed);
        }
    }

    /// Returns when the listener will be calm; `None` if it is calm now.
    fn calm_at(&self) -> Option<Instant> {
        self.crowded.map(|last| last + CALM)
    }

    /// Logs that the listener is calm again, if it is.
    fn settle(&mut self, now: Instant) {
        if self.calm_at().is_some_and(|calm| calm <= now) {
            self.crowded = None;
            let (own, class) = (Rejections::OWN, Code::ResourceExhausted);
            if self.rejections.admit(own, class, "calm").is_some() {
                events::listener_calm(std::mem::take(&mut self.closed));
            }
        }
    }

    async fn welcome(&mut self, bytes: Bytes, peer: SocketAddr, ready: &Ready) {
        let now = Instant::now();
        let mut seat = match self.connections.admit(peer.ip(), now) {
            Ok((seat, crowding)) => {
                if let Some(crowding) = crowding {
                    self.note(&crowding, 1, now);
                }
                seat
            }
            Err(crowding) => {
                self.note(&crowding, 1, now);
                if self.tls.is_none() {
                    self.refusals.refuse(bytes, &crowding);
                }
                return;
            }
        };
        let due = now + self.limits.first_request;
        self.sweep = Some(self.sweep.map_or(due, |sweep| sweep.min(due)));
        send_at_once(&bytes);
        let patience = self.limits.keepalive_interval + self.limits.keepalive_timeout;
        let socket = Socket::new(bytes, patience);
        match &self.tls {
            None => hand_over(ready, Stream::new(Either::Left(socket), seat, peer)).await,
            Some(tls) => {
                let (tls, deadline) = (tls.clone(), self.limits.tls_handshake);
                self.handshakes.spawn(async move {
                    // Looks at files, for which the next connection need not wait.
                    let acceptor = TlsAcceptor::from(tls.current());
                    let accepted = tokio::select! {
                        done = timeout(deadline, acceptor.accept(socket)) => done,
                        () = poll_fn(|cx| seat.poll_cut(cx)) => Ok(Err(cut())),
                    };
                    match accepted {
                        Ok(Ok(tls)) => Ok(Stream::new(Either::Right(Box::new(tls)), seat, peer)),
                        Ok(Err(error)) => Err((peer, ServerFailure::of(&error).to_string())),
                        Err(elapsed) => Err((peer, cause(&elapsed))),
                    }
                });
            }
        }
        // At most a few connections more than the limit, however fast they come.
        self.relieved(self.connections.few()).await;
    }

    /// Waits after a failed accept, so that it never fails in a tight loop.
    async fn back_off(&mut self, error: &io::Error) {
        if is_of_one_connection(error) {
            return;
        }
        let closed = self.connections.relieve(RELIEF);
        let crowding = Crowding::System(error.to_string());
        self.note(&crowding, closed, Instant::now());
        if closed == 0 {
            sleep(BACK_OFF).await;
        } else {
            self.relieved(0).await;
        }
    }

    /// Waits until all but `few` of the connections that were cut have closed their sockets.
    async fn relieved(&self, few: usize) {
        // Whether they have is seen at the next accept.
        let _ = timeout(BACK_OFF, self.connections.have_left_but(few)).await;
    }
}

async fn hand_over(ready: &Ready, stream: Stream) {
    // Once the server ended, nothing takes it: it is closed.
    let _ = ready.send(Ok(stream)).await;
}

/// Without an incident for this long the listener is calm.
const CALM: Duration = Duration::from_secs(10);

/// How long a peer may take to read why it is refused, and how much it may send meanwhile.
const PARTING: Duration = Duration::from_millis(250);
const MOST_BYTES: u64 = 4096;

/// How many peers are given that time at once.
const MOST: usize = 64;

/// An empty SETTINGS frame, then GOAWAY with `ENHANCE_YOUR_CALM` and its text's length left out.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Peers that are being refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(JoinSet<()>);

impl Refusals {
    /// Says why over HTTP/2, and closes the connection once that was read: at once, its unread
    /// bytes would destroy the word.
    pub(super) fn refuse(&mut self, mut bytes: Bytes, crowding: &Crowding) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() >= MOST {
            return;
        }
        let text = format!("countersign: {crowding}; try again");
        let length = u32::try_from(8 + text.len()).unwrap_or_default();
        let [_, length @ ..] = length.to_be_bytes();
        let word = [&SETTINGS, &length[..], &GOAWAY, text.as_bytes()].concat();
        self.0.spawn(async move {
            let parting = async {
                bytes.write_all(&word).await?;
                bytes.shutdown().await?;
                copy(&mut bytes.take(MOST_BYTES), &mut sink()).await
            };
            // It is closed however that ends.
            let _ = timeout(PARTING, parting).await;
        });
    }
}
