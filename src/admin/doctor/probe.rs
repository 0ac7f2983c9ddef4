//! Layers 3 to 6: does the name resolve, does the peer accept, do both sides agree on TLS, and does
//! it speak gRPC?

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::peer::Peer;
use super::report::{Layer, Outcome, Row, Side, Visit};
use crate::grpc::tls::ClientFailure;
use crate::grpc::{ConnectError, Connection, call, cause, code_name};

/// Examines the layers from the name to gRPC.
pub(super) async fn reach(visit: &mut Visit, peer: &Peer<'_>) -> Result<Connection, Row> {
    visit.start();
    let addresses = visit.found(resolve(peer).await?);
    let (plain, address) = visit.found(connect(peer, &addresses).await?);
    let stream = visit.found(shake_hands(peer, plain, address).await?);
    Ok(visit.found(speak_grpc(peer, stream, address).await?))
}

/// More addresses than this are neither shown nor tried.
const MOST: usize = 8;

async fn resolve(peer: &Peer<'_>) -> Outcome<Vec<SocketAddr>> {
    let (host, port, limit) = (peer.target.host(), peer.target.port(), peer.limit());
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let why = match timeout(limit, lookup_host((host, port))).await {
        Err(_elapsed) => format!("does not resolve within {limit:?}"),
        Ok(Err(error)) => format!("does not resolve: {error}"),
        Ok(Ok(found)) => {
            addresses.extend(found);
            "has no address".to_owned()
        }
    };
    peer.judge(&addresses)?;
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses.truncate(MOST);
    if addresses.is_empty() {
        let detail = format!("`{host}` {why}");
        return Err(Row::fail(Layer::Name, Side::Here, detail)
            .help(format!("getent ahosts {host}"))
            .help(&peer.remedy.host));
    }
    let shown: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
    let detail = match shown.join(", ") {
        literal if literal == host => literal,
        several => format!("{host} → {several}"),
    };
    Ok((addresses, Row::ok(Layer::Name, detail)))
}

async fn connect(peer: &Peer<'_>, addresses: &[SocketAddr]) -> Outcome<(TcpStream, SocketAddr)> {
    let mut failed = Vec::new();
    let mut all_refused = true;
    for address in addresses {
        let (is_refused, why) = match timeout(peer.limit(), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let row = Row::ok(Layer::Tcp, address.to_string());
                return Ok(((stream, *address), row));
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                (true, "connection refused".to_owned())
            }
            Ok(Err(error)) => (false, error.to_string()),
            Err(_elapsed) => (false, format!("no answer within {:?}", peer.limit())),
        };
        all_refused &= is_refused;
        failed.push(format!("{address}: {why}"));
    }
    let side = peer.deployment.as_ref().map_or(Side::Here, |_| Side::Peer);
    let row = Row::fail(Layer::Tcp, side, failed.join("; "));
    Err(if all_refused {
        row.help(format!("no program listens there; {}", peer.start()))
            .help(&peer.remedy.port)
    } else {
        row.help("the host is down, or a firewall drops the connection")
            .help(&peer.remedy.host)
    })
}

/// A connection on which HTTP/2 can begin: without TLS, or with it.
type Stream = Either<TcpStream, TlsStream<TcpStream>>;

async fn shake_hands(peer: &Peer<'_>, stream: TcpStream, address: SocketAddr) -> Outcome<Stream> {
    let Some(tls) = &peer.connection.tls else {
        let detail = if address.ip().to_canonical().is_loopback() {
            "plaintext, loopback"
        } else if peer.connection.allow_plaintext {
            "plaintext, allowed by `countersign.client.allow-plaintext`"
        } else {
            let refused = ConnectError::Plaintext(address).to_string();
            let row = Row::fail(Layer::Tls, Side::Here, refused);
            return Err(row.help("countersign pair … --tls"));
        };
        return Ok((Either::Left(stream), Row::skip(Layer::Tls, detail)));
    };
    let limit = peer.limit();
    let encrypted = match timeout(limit, tls.connect(peer.target.host(), stream)).await {
        Ok(shaken) => shaken.map_err(|failure| no_tls(peer, &failure))?,
        Err(_elapsed) => {
            let detail = format!("{address} does not answer the TLS handshake within {limit:?}");
            let row = Row::fail(Layer::Tls, Side::Peer, detail);
            return Err(row.help("check that the server uses TLS on this port"));
        }
    };
    let version = match encrypted.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    // The module itself has a pin of its own.
    let how = match peer.trusted() {
        Some(deployment) if deployment.tls_pins.is_empty() => {
            "a certificate by a trusted authority"
        }
        Some(_) | None => "the pinned certificate",
    };
    let row = Row::ok(Layer::Tls, format!("{version}, {how}"));
    Ok((Either::Right(encrypted), row))
}

/// Makes the row of a TLS failure: what is wrong, and on which side.
fn no_tls(peer: &Peer<'_>, failure: &ClientFailure) -> Row {
    let side = match failure {
        ClientFailure::Setup(_)
        | ClientFailure::Name(_)
        | ClientFailure::TlsExpected
        | ClientFailure::CertificateRequired(_) => Side::Here,
        ClientFailure::Expired
        | ClientFailure::NotYetValid
        | ClientFailure::NotHttp2
        | ClientFailure::Closed => Side::Peer,
        _ => Side::Between,
    };
    let row = Row::fail(Layer::Tls, side, failure.to_string()).helps(failure.help());
    match failure {
        ClientFailure::NotTls(_) | ClientFailure::TlsExpected => row.help(peer.remedy.check()),
        ClientFailure::NotPinned(_) | ClientFailure::CertificateRefused(..) => {
            row.help(peer.remedy.check()).help(peer.remedy.pair(true))
        }
        _ => row,
    }
}

/// Greets as an HTTP/2 client, then asks `grpc.health.v1` over a channel as the module opens them.
///
/// In TLS 1.3 the server's refusal comes only with the first bytes, and plaintext learns only then of
/// TLS: such a failure is a row of the layer TLS.
async fn speak_grpc(peer: &Peer<'_>, stream: Stream, address: SocketAddr) -> Outcome<Connection> {
    greet(peer, stream, address).await?;
    let limit = peer.limit();
    let mut options = peer.connection.clone();
    options.connect_timeout = limit;
    let opened = Connection::to_addresses(&peer.target, vec![address], options).await;
    let connection = opened.map_err(|error| lost(address, &cause(error.as_ref())))?;
    let mut client = HealthClient::new(connection.clone()).max_decoding_message_size(64 * 1024);
    let request = HealthCheckRequest::default();
    let health = match call(limit, request, |request| client.check(request)).await {
        Ok(answer) => match answer.status() {
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING (it is starting, stopping or not registered)",
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => "UNKNOWN",
        },
        Err(status) if status.code() == Code::Unimplemented => {
            let what = "speaks HTTP/2, but it is not a countersign module";
            return Err(wrong_port(peer, address, what));
        }
        Err(status) => return Err(lost(address, code_name(status.code()))),
    };
    let detail = format!("HTTP/2 settings received; health {health}");
    Ok((connection, Row::ok(Layer::Grpc, detail)))
}

fn lost(address: SocketAddr, why: &str) -> Row {
    let detail = format!("{address} speaks HTTP/2, but a gRPC call fails: {why}");
    Row::fail(Layer::Grpc, Side::Between, detail).help("look for a proxy between the two")
}

fn wrong_port(peer: &Peer<'_>, address: SocketAddr, what: &str) -> Row {
    Row::fail(Layer::Grpc, Side::Here, format!("{address} {what}")).help(&peer.remedy.port)
}

const WEB_SERVER: &str = "speaks HTTP/1.1, not gRPC: it is a web server or an HTTP port";

/// Greets as an HTTP/2 client and waits for the server's SETTINGS.
async fn greet(peer: &Peer<'_>, mut stream: Stream, address: SocketAddr) -> Result<(), Row> {
    let (limit, tls) = (peer.limit(), peer.connection.tls.as_ref());
    let mut first = Vec::new();
    let ended = timeout(limit, first_bytes(&mut stream, GREETING, &mut first)).await;
    match first.as_slice() {
        // A SETTINGS frame of stream 0 ([RFC 9113, 6.5]), which comes before all others.
        [_, _, _, 4, _, 0, 0, 0, 0] => return Ok(()),
        // A TLS record: an alert or a handshake.
        [0x15 | 0x16, 3, ..] if tls.is_none() => {
            return Err(no_tls(peer, &ClientFailure::TlsExpected));
        }
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(wrong_port(peer, address, WEB_SERVER)),
        // Two bytes say more than how the connection ended.
        [_, _, ..] => {
            let what = "does not speak HTTP/2";
            return Err(wrong_port(peer, address, what));
        }
        [] | [_] => {}
    }
    if let (Ok(Err(error)), Some(tls)) = (&ended, tls)
        && let Some(failure) = tls.explain_later(error)
    {
        return Err(no_tls(peer, &failure));
    }
    if tls.is_none() && is_web_server(address, limit).await {
        return Err(wrong_port(peer, address, WEB_SERVER));
    }
    let row = match ended {
        Err(_elapsed) => {
            let detail = format!("{address} accepts and sends nothing within {limit:?}");
            Row::fail(Layer::Grpc, Side::Peer, detail)
                .help("the module hangs, or a different program listens there")
        }
        Ok(ended) => {
            let resets = ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            let how = if resets { "resets" } else { "closes" };
            let detail = format!("{address} accepts and {how} the connection without an answer");
            Row::fail(Layer::Grpc, Side::Between, detail)
                .help("a proxy has no upstream, the listener is full, or it is not a gRPC port")
        }
    };
    Err(row.help(&peer.remedy.port))
}

/// What a client says first, and its empty SETTINGS ([RFC 9113, 3.4]).
///
/// [RFC 9113, 3.4]: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends `greeting` and reads into `first` as many bytes of the answer as a frame's head has.
async fn first_bytes(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    greeting: &[u8],
    first: &mut Vec<u8>,
) -> io::Result<()> {
    // A server that refuses a connection may do so before it has read anything: its answer counts.
    let written = stream.write_all(greeting).await;
    let flushed = stream.flush().await;
    stream.take(9).read_to_end(first).await?;
    written.and(flushed)
}

/// Asks as a web client does; returns `true` if a web server answers.
///
/// Many end a connection without a word when HTTP/2 greets them.
async fn is_web_server(address: SocketAddr, limit: Duration) -> bool {
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut first = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        first_bytes(&mut stream, request.as_bytes(), &mut first).await
    };
    // What it says counts, however the connection ends.
    let _ = timeout(limit, asking).await;
    first.starts_with(b"HTTP/1.")
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// The first bytes of a server that answers `bytes` and ends.
    async fn first_of(bytes: &[u8]) -> Vec<u8> {
        let (mut client, mut server) = duplex(1024);
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let mut first = Vec::new();
        first_bytes(&mut client, GREETING, &mut first)
            .await
            .unwrap();
        drop(server);
        first
    }

    #[tokio::test]
    async fn first_bytes_are_read_however_few_there_are() {
        let alert = b"\x15\x03\x03\0\x02\x02\x46";

        assert_eq!(first_of(alert).await, alert);
        let settings = first_of(b"\0\0\0\x04\0\0\0\0\0rest").await;
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(first_of(b"").await, b"");
    }
}
