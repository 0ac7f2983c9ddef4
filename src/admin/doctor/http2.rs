//! Layer 6, first half: does HTTP/2 answer?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::peer::Peer;
use super::tls::Secured;
use crate::grpc::tls::ClientFailure;

/// What a client says first, and its empty SETTINGS ([RFC 9113, 3.4]).
///
/// [RFC 9113, 3.4]: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What answered in place of HTTP/2.
#[derive(Debug)]
pub(super) enum Answer {
    /// TLS is why.
    Tls(Box<ClientFailure>),
    /// A web server.
    Http1,
    /// Some other protocol.
    Other,
    /// Nothing in time.
    Silence,
    /// The connection ended.
    Closed(ErrorKind),
}

/// Greets as an HTTP/2 client and waits for the server's SETTINGS.
pub(super) async fn greet(peer: &Peer, stream: Secured, limit: Duration) -> Result<(), Answer> {
    let greeted = match stream {
        Secured::Plain(mut stream) => timeout(limit, settings(&mut stream)).await,
        Secured::Tls(mut stream) => timeout(limit, settings(&mut stream)).await,
    };
    let first = match greeted {
        Err(_elapsed) => return Err(Answer::Silence),
        Ok(Ok(first)) => first,
        Ok(Err(error)) => {
            let failure = peer.tls.as_ref().and_then(|tls| tls.explain_later(&error));
            return Err(match failure {
                Some(failure) => Answer::Tls(Box::new(failure)),
                None => Answer::Closed(error.kind()),
            });
        }
    };
    match first {
        // A SETTINGS frame of stream 0 ([RFC 9113, 6.5]), which comes before all others.
        [_, _, _, 4, _, 0, 0, 0, 0] => Ok(()),
        // A TLS record: an alert or a handshake.
        [0x15 | 0x16, 3, ..] if peer.tls.is_none() => {
            Err(Answer::Tls(Box::new(ClientFailure::TlsExpected)))
        }
        [b'H', b'T', b'T', b'P', b'/', ..] => Err(Answer::Http1),
        _ => Err(Answer::Other),
    }
}

/// Sends the greeting; returns the first bytes of the answer, as many as a frame's head has.
async fn settings<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<[u8; 9]> {
    // Who refuses a connection may do so before it has read anything: its word counts.
    let written = stream.write_all(GREETING).await;
    let flushed = stream.flush().await;
    let mut first = [0; 9];
    let mut filled = 0;
    while let Some(rest) = first.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            // What was read before tells more than how it ended.
            Err(_) if filled >= 2 => break,
            Err(error) => return Err(error),
        }
    }
    // A TLS alert has 7 bytes.
    if filled >= 2 {
        return Ok(first);
    }
    written.and(flushed)?;
    Err(ErrorKind::UnexpectedEof.into())
}

/// Asks as a web client does; tells whether a web server answers.
///
/// Many end a connection without a word when HTTP/2 greets them.
pub(super) async fn is_web_server(address: SocketAddr, limit: Duration) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut first = [0; 7];
        stream.read_exact(&mut first).await.ok()?;
        Some(&first == b"HTTP/1.")
    };
    timeout(limit, ask).await.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What is made of a server that answers `bytes` and ends.
    async fn first_of(bytes: &[u8]) -> std::io::Result<[u8; 9]> {
        let (mut client, mut server) = duplex(1024);
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let seen = settings(&mut client).await;
        drop(server);
        seen
    }

    #[tokio::test]
    async fn first_bytes_are_read_however_few_there_are() {
        let alert = first_of(b"\x15\x03\x03\0\x02\x02\x46").await.unwrap();
        let settings = first_of(b"\0\0\0\x04\0\0\0\0\0rest").await.unwrap();
        let nothing = first_of(b"").await.unwrap_err();

        assert_eq!(alert, *b"\x15\x03\x03\0\x02\x02\x46\0\0");
        assert_eq!(settings, *b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(nothing.kind(), ErrorKind::UnexpectedEof);
    }
}
