//! The bytes of a client's connection, with or without TLS, and why it broke.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::{ClientFailure, ClientTls};

/// Why TLS broke the last connection, shared with whoever has to explain it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<ArcSwapOption<ClientFailure>>);

impl Fault {
    pub(super) fn last(&self) -> Option<Arc<ClientFailure>> {
        self.0.load_full()
    }

    pub(super) fn forget(&self) {
        self.0.store(None);
    }

    /// Keeps `failure`, and gives the error for the layers above.
    fn keep(&self, failure: ClientFailure) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, failure.to_string());
        self.0.store(Some(Arc::new(failure)));
        error
    }
}

/// A connection that notices what HTTP/2 could not name: the server's refusal of a certificate,
/// and TLS where none is expected.
#[derive(Debug)]
pub(super) struct Transport {
    io: Io,
    fault: Fault,
}

#[derive(Debug)]
enum Io {
    Plain {
        stream: TcpStream,
        is_fresh: bool,
    },
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        tls: ClientTls,
    },
}

impl Transport {
    pub(super) fn plain(stream: TcpStream, fault: Fault) -> Self {
        let is_fresh = true;
        let io = Io::Plain { stream, is_fresh };
        Self { io, fault }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, tls: ClientTls, fault: Fault) -> Self {
        let stream = Box::new(stream);
        let io = Io::Tls { stream, tls };
        Self { io, fault }
    }

    /// Explains what an operation on the connection ended with.
    fn explained<T>(&self, ended: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match (ended, &self.io) {
            (Poll::Ready(Err(error)), Io::Tls { tls, .. }) => {
                Poll::Ready(Err(match tls.explain_later(&error) {
                    Some(failure) => self.fault.keep(failure),
                    None => error,
                }))
            }
            (ended, _) => ended,
        }
    }

    /// Explains what a write ended with. A server that refuses a certificate says so and closes:
    /// the write may fail before the word was read.
    fn explained_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        ended: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &ended {
            let mut rest = [0; 256];
            let mut rest = ReadBuf::new(&mut rest);
            if let Poll::Ready(Err(error)) = Pin::new(&mut *self).poll_read(cx, &mut rest)
                && self.fault.last().is_some()
            {
                return Poll::Ready(Err(error));
            }
        }
        self.explained(ended)
    }
}

/// The first byte of a TLS alert. HTTP/2 servers begin with the length of their settings, which
/// fits two bytes.
const ALERT: u8 = 0x15;

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let ended = match &mut this.io {
            Io::Plain { stream, is_fresh } => {
                let ended = Pin::new(stream).poll_read(cx, buffer);
                if let (true, Some(first)) = (*is_fresh, buffer.filled().get(before)) {
                    *is_fresh = false;
                    if *first == ALERT {
                        let error = this.fault.keep(ClientFailure::TlsExpected);
                        return Poll::Ready(Err(error));
                    }
                }
                ended
            }
            Io::Tls { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        };
        this.explained(ended)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let ended = match &mut this.io {
            Io::Plain { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        };
        this.explained_write(cx, ended)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = match &mut this.io {
            Io::Plain { stream, .. } => Pin::new(stream).poll_flush(cx),
            Io::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
        };
        this.explained_write(cx, ended)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Plain { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Io::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
