//! Layers 3 to 6: does the name resolve, does the peer accept, do both sides agree on TLS, and does
//! it speak gRPC?

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::either::Either;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::peer::Peer;
use super::report::{Layer, Outcome, Row, Side, Visit};
use crate::admin::greeting::{NotGrpc, Stream, greet};
use crate::diagnostic::{Code as Cs, CommandLine};
use crate::grpc::tls::{ClientFailure, Shown};
use crate::grpc::{ConnectError, Connection, call, cause, code_name, is_loopback};

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
            .help(CommandLine::new("getent ahosts").arg(host))
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
        row.help(format!("no program listens there; {}", peer.remedy.start()))
            .help(&peer.remedy.port)
    } else {
        row.help("the host is down, or a firewall drops the connection")
            .help(&peer.remedy.host)
    })
}

async fn shake_hands(peer: &Peer<'_>, stream: TcpStream, address: SocketAddr) -> Outcome<Stream> {
    let Some(tls) = &peer.connection.tls else {
        let detail = if is_loopback(address) {
            "plaintext, loopback"
        } else if peer.connection.allow_plaintext {
            "plaintext, allowed by `countersign.client.allow-plaintext`"
        } else {
            let refused = ConnectError::Plaintext(address).to_string();
            let row = Row::fail(Layer::Tls, Side::Here, refused);
            return Err(row.helps(peer.remedy.pair(true)));
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
    let (_, session) = encrypted.get_ref();
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let chain = session.peer_certificates().unwrap_or_default();
    let shown = Shown::of(chain).map_err(|why| Row::fail(Layer::Tls, Side::Peer, why))?;
    let how = match peer.trusted() {
        None => "its own certificate",
        Some(known) if known.tls_pins.contains(&shown.fingerprint) => "the pinned certificate",
        Some(_) => "a certificate by a trusted authority",
    };
    let now = peer.doctor.module.clock().now();
    let validity = shown.validity(now);
    let row = Row::ok(Layer::Tls, format!("{version}, {how}, which {validity}"));
    let is_soon = shown.days_left(now) < Shown::SOON;
    let help = is_soon.then(|| format!("renew it: `{}`", Cs::Cs0308.explain()));
    Ok((Either::Right(encrypted), row.helps(help)))
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
        ClientFailure::NotTls(_) | ClientFailure::TlsExpected => row.helps(peer.remedy.check()),
        ClientFailure::NotPinned(_) | ClientFailure::CertificateRefused(..) => {
            row.helps(peer.remedy.check()).helps(peer.remedy.pair(true))
        }
        _ => row,
    }
}

/// Greets as an HTTP/2 client, then asks `grpc.health.v1` over a channel as the module opens them.
///
/// A failure of TLS that only shows then is a row of the layer TLS.
async fn speak_grpc(peer: &Peer<'_>, stream: Stream, address: SocketAddr) -> Outcome<Connection> {
    let (limit, tls) = (peer.limit(), peer.connection.tls.as_ref());
    let greeted = greet(stream, address, tls, limit).await;
    greeted.map_err(|why| not_grpc(peer, address, &why))?;
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
            return Err(not_grpc(peer, address, &NotGrpc::NotCountersign));
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

fn not_grpc(peer: &Peer<'_>, address: SocketAddr, why: &NotGrpc) -> Row {
    let (side, help) = match why {
        NotGrpc::Tls(failure) => return no_tls(peer, failure),
        NotGrpc::WebServer | NotGrpc::NotHttp2 | NotGrpc::NotCountersign => (Side::Here, None),
        NotGrpc::Silent(_) => (
            Side::Peer,
            Some("the module hangs, or a different program listens there"),
        ),
        NotGrpc::Ends(_) => (
            Side::Between,
            Some("a proxy has no upstream, the listener is full, or it is not a gRPC port"),
        ),
    };
    let row = Row::fail(Layer::Grpc, side, format!("{address} {why}"));
    row.helps(help.map(str::to_owned)).help(&peer.remedy.port)
}
