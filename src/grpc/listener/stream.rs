//! A connection's bytes, until they are cut, and what its requests show.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::admission::{Full, Seat, Shown, Standing};
use crate::grpc::PeerInfo;
use crate::token::VerifiedToken;
use crate::trust::TrustStore;

/// TCP, or TLS over it.
pub(super) type Io = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What tonic serves: a connection that fails to read and write once it is cut, so that its task
/// ends.
///
/// It is cut by the word of [`Connections`](crate::admission::Connections), or because its peer
/// leaves written bytes unread. HTTP/2's keepalive does not see to that: it ends a connection once
/// a last frame is written, for which such a peer leaves no room.
#[derive(Debug)]
pub(in crate::grpc) struct Stream {
    /// None once it is cut. The socket is closed before its seat is free.
    open: Option<(Io, Seat)>,
    arrival: Arrival,
    /// How long written bytes may wait for the peer to read on.
    patience: Duration,
    /// Runs from the first byte that had to wait until all bytes are flushed.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(io: Io, seat: Seat, peer: SocketAddr, patience: Duration) -> Self {
        let shown = match &io {
            Either::Left(_) => None,
            Either::Right(tls) => tls.get_ref().1.peer_certificates(),
        };
        let arrival = Arrival {
            standing: Arc::clone(&seat.standing),
            peer: PeerInfo {
                address: peer,
                tls: matches!(io, Either::Right(_)),
                certificate: shown
                    .and_then(<[_]>::first)
                    .map(|der| Arc::from(der.as_ref())),
            },
            local: tcp(&io).local_addr().ok(),
        };
        Self {
            open: Some((io, seat)),
            arrival,
            patience,
            stalled: None,
        }
    }

    /// Returns the connection, or closes it and fails once it is cut.
    fn io(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut Io>> {
        if let Some((_, seat)) = &mut self.open
            && seat.poll_cut(cx).is_ready()
        {
            self.open = None;
        }
        let open = self.open.as_mut().ok_or_else(cut)?;
        Ok(Pin::new(&mut open.0))
    }

    /// Passes on the result of a write; fails if writes have been waiting for too long.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        if stalled.as_mut().poll(cx).is_pending() {
            return written;
        }
        if let Some((io, _)) = self.open.take() {
            // Else the system would keep the bytes for a peer that never reads them.
            let _ = tcp(&io).set_zero_linger();
        }
        Poll::Ready(Err(cut()))
    }
}

fn tcp(io: &Io) -> &TcpStream {
    match io {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    }
}

pub(super) fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the listener")
}

impl Connected for Stream {
    type ConnectInfo = Arrival;

    fn connect_info(&self) -> Arrival {
        self.arrival.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.io(cx)?.poll_write(cx, bytes);
        self.patiently(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.io(cx)?.poll_write_vectored(cx, parts);
        self.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|(io, _)| io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.io(cx)?.poll_flush(cx);
        if flushed.is_ready() {
            self.stalled = None;
        }
        self.patiently(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.io(cx)?.poll_shutdown(cx);
        // TLS writes its last record here.
        self.patiently(cx, ended)
    }
}

/// What a connection's requests carry from the listener to [`arrived`].
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Arrival {
    pub(super) standing: Arc<Standing>,
    pub(super) peer: PeerInfo,
    pub(super) local: Option<SocketAddr>,
}

/// Notes in the listener, if it is ours, that a request's `token` verified.
///
/// # Errors
///
/// When the token's deployment has all the connections that it may have.
pub(in crate::grpc) fn verified(
    extensions: &Extensions,
    token: &VerifiedToken,
    trust: &Arc<TrustStore>,
) -> Result<(), Full> {
    let Some(standing) = extensions.get::<Arc<Standing>>() else {
        return Ok(());
    };
    let key = token.key_id().as_str();
    standing.show(token.owner(), key, || {
        let (token, trust) = (token.clone(), Arc::clone(trust));
        Shown {
            key: key.into(),
            still: Box::new(move || token.still_trusted(&trust.current()).is_ok()),
        }
    })
}

/// Notes in the listener, if it is ours, that a connection is not silent, and in the request where
/// the call came from.
pub(in crate::grpc) fn arrived(extensions: &mut Extensions) {
    if let Some(arrival) = extensions.remove::<Arrival>() {
        arrival.standing.heard();
        // For `tonic::Request::remote_addr`.
        extensions.insert(TcpConnectInfo {
            local_addr: arrival.local,
            remote_addr: Some(arrival.peer.address),
        });
        extensions.insert(arrival.peer);
        extensions.insert(arrival.standing);
    }
}
