//! A connection's bytes, until they are cut.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::arrival::Arrival;
use super::connections::Place;
use crate::grpc::PeerInfo;

/// A TCP connection that fails to read and write once it is cut: whoever serves it ends.
///
/// It is cut by the word of [`Connections`](super::Connections), or because its peer leaves
/// written bytes unread. HTTP/2's keepalive does not see to that: it ends a connection once a last
/// frame is written, for which such a peer leaves no room.
#[derive(Debug)]
pub(in crate::grpc) struct Cuttable {
    tcp: Option<TcpStream>,
    told: oneshot::Receiver<()>,
    place: Arc<Place>,
    peer: SocketAddr,
    /// How long written bytes may wait for the peer to read on.
    patience: Duration,
    /// Runs from the first byte that had to wait until all bytes are flushed.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Cuttable {
    pub(super) fn new(
        tcp: TcpStream,
        peer: SocketAddr,
        patience: Duration,
        (place, told): (Arc<Place>, oneshot::Receiver<()>),
    ) -> Self {
        Self {
            tcp: Some(tcp),
            told,
            place,
            peer,
            patience,
            stalled: None,
        }
    }

    /// Returns the socket, or closes it and fails once it is cut.
    fn socket(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        if self.tcp.is_some() && Pin::new(&mut self.told).poll(cx).is_ready() {
            self.close();
        }
        self.tcp.as_mut().map(Pin::new).ok_or_else(cut)
    }

    /// Passes on what became of a write; fails where writes have been waiting for too long.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            let patience = self.patience;
            let stalled = self
                .stalled
                .get_or_insert_with(|| Box::pin(sleep(patience)));
            if stalled.as_mut().poll(cx).is_ready() {
                // Else the system would keep the bytes for a peer that never reads them.
                let _ = self.tcp.as_ref().map(TcpStream::set_zero_linger);
                self.close();
                return Poll::Ready(Err(cut()));
            }
        }
        written
    }

    fn close(&mut self) {
        if self.tcp.take().is_some() {
            self.place.leave();
        }
    }

    fn arrival(&self, certificate: Option<Arc<[u8]>>) -> Arrival {
        Arrival {
            place: Arc::clone(&self.place),
            peer: PeerInfo {
                address: self.peer,
                certificate,
            },
            local: self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the listener")
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket(cx)?.poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket(cx)?.poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.socket(cx)?.poll_flush(cx);
        if flushed.is_ready() {
            self.stalled = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket(cx)?.poll_shutdown(cx)
    }
}

/// What tonic serves: a connection, plain or after its TLS handshake.
#[derive(Debug)]
pub(in crate::grpc) enum Stream {
    Plain(Cuttable),
    Tls(Box<TlsStream<Cuttable>>),
}

impl Connected for Stream {
    type ConnectInfo = Arrival;

    fn connect_info(&self) -> Arrival {
        match self {
            Self::Plain(stream) => stream.arrival(None),
            Self::Tls(stream) => {
                let (stream, session) = stream.get_ref();
                let shown = session.peer_certificates().and_then(<[_]>::first);
                stream.arrival(shown.map(|der| Arc::from(der.as_ref())))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
