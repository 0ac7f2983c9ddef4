//! The bytes of a client's connection, with or without TLS, and why it broke.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwapOption;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::grpc::network::Bytes;
use crate::grpc::tls::{ClientFailure, ClientTls};

/// What all connections of one channel share.
#[derive(Debug)]
pub(super) struct Link {
    /// How many connections were opened.
    pub(super) opened: AtomicU64,
    /// Why TLS broke the last connection.
    pub(super) fault: ArcSwapOption<ClientFailure>,
    /// How many bytes may still be read.
    pub(super) readable: AtomicU64,
    /// How many connections the server ended because PINGs came too often.
    pub(super) complaints: AtomicU32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            opened: AtomicU64::new(0),
            fault: ArcSwapOption::empty(),
            readable: AtomicU64::new(u64::MAX),
            complaints: AtomicU32::new(0),
        }
    }
}

impl Link {
    /// Notes a complaint, the first since there were so many `before`.
    pub(super) fn complained(&self, before: u32) {
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let next = before.saturating_add(1);
        // Another call failed with the same complaint.
        let _ = self.complaints.compare_exchange(before, next, set, get);
    }

    /// Keeps `failure`, and returns the error for the layers above.
    fn keep(&self, failure: ClientFailure) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, failure.in_full());
        self.fault.store(Some(Arc::new(failure)));
        error
    }
}

/// Bytes as they are, or TLS over them.
pub(super) type Io = Either<Bytes, Box<TlsStream<Bytes>>>;

/// A connection that notices what HTTP/2 could not name: the server's refusal of a certificate,
/// and TLS where none is expected. It breaks once all that may be read was read; the read that
/// spends the last of it still counts in full.
#[derive(Debug)]
pub(super) struct Transport {
    io: Io,
    /// The TLS that `io` has.
    tls: Option<ClientTls>,
    pub(super) link: Arc<Link>,
    /// Completes when the connection is to end.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Cancels it when the connection has ended.
    _life: DropGuard,
    /// Whether nothing was read yet.
    is_fresh: bool,
    /// Why a write failed, while the server's word is waited for.
    broken: Option<io::Error>,
}

/// The first byte of a TLS alert. HTTP/2 servers begin with the length of their settings, which
/// fits two bytes.
const ALERT: u8 = 0x15;

impl Transport {
    pub(super) fn new(
        io: Io,
        tls: Option<ClientTls>,
        link: Arc<Link>,
        life: CancellationToken,
    ) -> Self {
        Self {
            io,
            tls,
            link,
            cut: Box::pin(life.clone().cancelled_owned()),
            _life: life.drop_guard(),
            is_fresh: true,
            broken: None,
        }
    }

    /// Explains the error of an operation on the connection.
    fn explain(&self, error: io::Error) -> io::Error {
        let failure = self.tls.as_ref().and_then(|tls| tls.explain_later(&error));
        failure.map_or(error, |failure| self.link.keep(failure))
    }

    /// Fails once the connection is to end, whatever its peer does meanwhile.
    fn poll_cut<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let cut = self.cut.as_mut().poll(cx);
        cut.map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(ended) = Pin::new(&mut self.io).poll_read(cx, buffer) else {
            return self.poll_cut(cx);
        };
        let is_first = std::mem::replace(&mut self.is_fresh, false);
        if is_first && self.tls.is_none() && buffer.filled().get(before) == Some(&ALERT) {
            return Poll::Ready(Err(self.link.keep(ClientFailure::TlsExpected)));
        }
        Poll::Ready(ended.map_err(|error| self.explain(error)))
    }

    /// Writes. A server that refuses a connection says so and closes: the first write may fail
    /// before that word was read, and waits for it.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Io>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.broken.is_none() {
            match write(Pin::new(&mut self.io), cx) {
                Poll::Ready(Err(error)) if self.is_fresh => self.broken = Some(error),
                Poll::Pending => return self.poll_cut(cx),
                ended @ Poll::Ready(_) => return ended.map_err(|error| self.explain(error)),
            }
        }
        self.poll_word(cx).map(Err)
    }

    /// Waits for what the server said before it closed; returns why the connection broke.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut word = [0; 256];
        let read = ready!(self.read(cx, &mut ReadBuf::new(&mut word)));
        let broken = self.broken.take();
        Poll::Ready(match (read, broken) {
            (Err(word), Some(_)) if self.link.fault.load().is_some() => word,
            (_, Some(broken)) => broken,
            (Err(word), None) => word,
            (Ok(()), None) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.link.readable.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(Err(io::Error::other("the server sends too much data")));
        }
        let before = buffer.filled().len();
        ready!(self.read(cx, buffer))?;
        let read = u64::try_from(buffer.filled().len().saturating_sub(before)).unwrap_or(u64::MAX);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let readable = &self.link.readable;
        // The closure never declines, so there is no other outcome.
        let _ = readable.fetch_update(set, get, |left| Some(left.saturating_sub(read)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |io, cx| io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |io, cx| io.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, Io::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.poll_cut(cx),
            ended @ Poll::Ready(_) => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn stream_breaks_once_its_budget_is_spent_and_reads_on_with_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(&[7_u8; 64]).await.unwrap();
        let link = Arc::new(Link::default());
        let life = CancellationToken::new();
        let mut stream = Transport::new(
            Either::Left(Either::Left(client)),
            None,
            Arc::clone(&link),
            life,
        );
        link.readable.store(8, Ordering::Relaxed);

        let mut eight = [0; 8];
        stream.read_exact(&mut eight).await.unwrap();
        assert_eq!(link.readable.load(Ordering::Relaxed), 0);
        let broken = stream.read_u8().await.unwrap_err();
        assert_eq!(broken.to_string(), "the server sends too much data");

        link.readable.store(1, Ordering::Relaxed);
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn stream_that_is_cut_breaks_while_its_peer_reads_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (_silent, _) = listener.accept().await.unwrap();
        let life = CancellationToken::new();
        let link = Arc::new(Link::default());
        let mut stream =
            Transport::new(Either::Left(Either::Left(client)), None, link, life.clone());
        let endless = async {
            loop {
                if let Err(broken) = stream.write_all(&vec![0; 1 << 20]).await {
                    return broken.kind();
                }
            }
        };
        let mut endless = pin!(endless);
        let is_full = tokio::time::timeout(Duration::from_millis(200), &mut endless);
        is_full.await.unwrap_err();

        life.cancel();

        assert_eq!(endless.await, io::ErrorKind::ConnectionAborted);
    }
}
