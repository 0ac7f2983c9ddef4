//! The bytes of a client's connection, with or without TLS, and why it broke.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

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
    /// Whether nothing was read yet.
    is_fresh: bool,
    /// Why a write failed, while the server's word is waited for.
    broken: Option<io::Error>,
}

#[derive(Debug)]
enum Io {
    Plain {
        stream: TcpStream,
    },
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        tls: ClientTls,
    },
}

impl Transport {
    pub(super) fn plain(stream: TcpStream, fault: Fault) -> Self {
        Self::over(Io::Plain { stream }, fault)
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, tls: ClientTls, fault: Fault) -> Self {
        let stream = Box::new(stream);
        Self::over(Io::Tls { stream, tls }, fault)
    }

    fn over(io: Io, fault: Fault) -> Self {
        Self {
            io,
            fault,
            is_fresh: true,
            broken: None,
        }
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

    /// Explains what a write ended with. A server that refuses a connection says so and closes: the
    /// first write may fail before that word was read, and waits for it.
    fn explained_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        ended: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match ended {
            Poll::Ready(Err(error)) if self.is_fresh => {
                self.broken = Some(error);
                self.poll_word(cx).map(Err)
            }
            ended => self.explained(ended),
        }
    }

    /// Waits for what the server said before it closed; returns why the connection broke.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut word = [0; 256];
        let mut word = ReadBuf::new(&mut word);
        let read = ready!(Pin::new(&mut *self).poll_read(cx, &mut word));
        let broken = self.broken.take();
        Poll::Ready(match (read, broken) {
            (Err(word), Some(_)) if self.fault.last().is_some() => word,
            (_, Some(broken)) => broken,
            (Err(word), None) => word,
            (Ok(()), None) => io::ErrorKind::BrokenPipe.into(),
        })
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
            Io::Plain { stream } => ready!(Pin::new(stream).poll_read(cx, buffer)),
            Io::Tls { stream, .. } => ready!(Pin::new(stream).poll_read(cx, buffer)),
        };
        let is_first = std::mem::replace(&mut this.is_fresh, false);
        let is_plain = matches!(this.io, Io::Plain { .. });
        if is_first && is_plain && buffer.filled().get(before) == Some(&ALERT) {
            let error = this.fault.keep(ClientFailure::TlsExpected);
            return Poll::Ready(Err(error));
        }
        this.explained(Poll::Ready(ended))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return this.poll_word(cx).map(Err);
        }
        let ended = match &mut this.io {
            Io::Plain { stream } => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        };
        this.explained_write(cx, ended)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return this.poll_word(cx).map(Err);
        }
        let ended = match &mut this.io {
            Io::Plain { stream } => Pin::new(stream).poll_write_vectored(cx, parts),
            Io::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        this.explained_write(cx, ended)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain { stream } => stream.is_write_vectored(),
            Io::Tls { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return this.poll_word(cx).map(Err);
        }
        let ended = match &mut this.io {
            Io::Plain { stream } => Pin::new(stream).poll_flush(cx),
            Io::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
        };
        this.explained_write(cx, ended)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Plain { stream } => Pin::new(stream).poll_shutdown(cx),
            Io::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
