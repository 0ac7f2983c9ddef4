//! A connection's bytes, until they are cut, and what its requests show.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::admission::{Full, Seat, Shown, Standing};
use crate::grpc::PeerInfo;
use crate::grpc::network::{Bytes, drop_unread, local_address};
use crate::token::VerifiedToken;
use crate::trust::TrustStore;

/// TCP, or TLS over it.
pub(super) type Io = Either<Socket, Box<TlsStream<Socket>>>;

/// What tonic serves: a connection that fails to read and write once it is cut, so that its task
/// ends.
///
/// It is cut by the word of [`Connections`](crate::admission::Connections), or because its peer
/// reads nothing of what was written.
#[derive(Debug)]
pub(in crate::grpc) struct Stream {
    /// None once it is cut. The socket is closed before its seat is free.
    open: Option<(Io, Seat)>,
    arrival: Arrival,
}

impl Stream {
    pub(super) fn new(io: Io, seat: Seat, peer: SocketAddr) -> Self {
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
            local: match &io {
                Either::Left(socket) => local_address(&socket.bytes),
                Either::Right(tls) => local_address(&tls.get_ref().0.bytes),
            },
        };
        Self {
            open: Some((io, seat)),
            arrival,
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
}

/// A connection whose peer has to read on: writing fails once nothing of what is written was taken
/// for as long as its patience. HTTP/2's keepalive does not see to that: it ends a connection once a
/// last frame is written, for which such a peer leaves no room.
#[derive(Debug)]
pub(super) struct Socket {
    bytes: Bytes,
    patience: Duration,
    /// Runs while bytes wait, from the last one that did not.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(bytes: Bytes, patience: Duration) -> Self {
        let stalled = None;
        Self {
            bytes,
            patience,
            stalled,
        }
    }

    /// Passes on the result of a write; fails if writes have been waiting for too long.
    fn patiently(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        // Else the system would keep the bytes for a peer that never reads them.
        drop_unread(&self.bytes);
        Poll::Ready(Err(cut()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write(cx, bytes);
        self.patiently(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write_vectored(cx, parts);
        self.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
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
        self.io(cx)?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io(cx)?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|(io, _)| io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(cx)?.poll_shutdown(cx)
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
    standing: Option<&Arc<Standing>>,
    token: &VerifiedToken,
    trust: &Arc<TrustStore>,
) -> Result<(), Full> {
    let Some(standing) = standing else {
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::advance;

    use super::*;

    #[tokio::test]
    async fn peer_that_reads_on_is_waited_for_and_one_that_reads_nothing_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let _open = peer.unwrap();
        let patience = Duration::from_secs(40);
        let mut socket = Socket::new(Either::Left(accepted.unwrap().0), patience);
        tokio::time::pause();
        let mut written = |result| {
            let mut context = Context::from_waker(Waker::noop());
            socket.patiently(&mut context, result)
        };

        for _ in 0..4 {
            assert!(written(Poll::Ready(Ok(1))).is_ready());
            assert!(written(Poll::Pending).is_pending());
            advance(Duration::from_secs(30)).await;
            assert!(written(Poll::Pending).is_pending());
        }
        advance(Duration::from_secs(11)).await;

        assert!(matches!(written(Poll::Pending), Poll::Ready(Err(_))));
    }
}
