//! Layers 3 to 9: does the name resolve, does the peer accept, do both sides agree on TLS, and does
//! it speak gRPC? Do the clocks agree, does the peer know this module and is it the expected one, and
//! does it give this module the role that it needs?

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::either::Either;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

use super::peer::Peer;
use super::report::{Help, Layer, Outcome, Row, Side, Visitor};
use crate::admin::greeting::{NotGrpc, Stream, greet, is_listening};
use crate::clock::seconds_after;
use crate::config::names::ROLES;
use crate::diagnostic::{Code as Cs, CommandLine};
use crate::grpc::tls::{ClientFailure, Shown};
use crate::grpc::{
    AttachIdentity, ConnectError, Connection, OwnKey, Target, call, callee_time, cause, code_name,
    is_loopback, is_proved, reason_of, refusal_of, summary_and_detail,
};
use crate::properties::name::Pattern;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::proto::identity::{WhoAmIRequest, WhoAmIResponse};
use crate::telemetry::Untrusted;
use crate::token::{Reason, Refusal};
use crate::trust::Deployment;

/// Connects and calls `WhoAmI`, which shows the clock and how the peer takes the token; returns the
/// channel for more calls, and the roles that the peer gives this module.
pub(super) async fn acquaint(
    visit: &mut Visitor<'_>,
    peer: &Peer<'_>,
) -> Result<(AttachIdentity<Connection>, String), Row> {
    let connection = reach(visit, peer).await?;
    let clock = peer.doctor.module.clock();
    let channel = peer.identity.layer(connection);
    let mut client =
        IdentityServiceClient::new(channel.clone()).max_decoding_message_size(64 * 1024);
    let sent = clock.now();
    let (limit, question) = (peer.limit(), WhoAmIRequest {});
    let answer = call(limit, question, |request| client.who_am_i(request)).await;
    let received = clock.now();
    let time = match &answer {
        Ok(answer) => answer.server_time.and_then(|time| time.try_into().ok()),
        Err(status) => callee_time(status),
    };
    let ahead =
        time.map(|time| f64::midpoint(seconds_after(time, sent), seconds_after(time, received)));
    visit.add(clocks(peer, answer.as_ref().err(), ahead)?);
    Ok((channel, visit.found(token(peer, answer)?)))
}

/// Less is not worth a number: the way there and back takes time, too.
const IN_STEP_SECONDS: f64 = 0.5;

/// Judges the peer's clock, which is `ahead` by so many seconds if the peer reported its time.
fn clocks(peer: &Peer<'_>, refused: Option<&Status>, ahead: Option<f64>) -> Result<Row, Row> {
    let limit = peer.doctor.module.policy().leeway().as_secs_f64();
    let reason = refused.and_then(reason_of);
    let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let differ = match (ahead, reason) {
        (Some(ahead), _) => {
            let which = if ahead < 0.0 { "behind" } else { "ahead" };
            let apart = ahead.abs();
            let detail = if apart < IN_STEP_SECONDS {
                format!("in step within {IN_STEP_SECONDS} s (limit {limit} s)")
            } else {
                format!("peer is {apart:.1} s {which} (limit {limit} s)")
            };
            match refused {
                // A refusal says what time it is only if the clocks may be why.
                Some(status) if apart >= limit => {
                    detail + unless_proved(status, ", as it says itself (unproved)")
                }
                None if apart > limit / 2.0 => {
                    let half = ": over half of the limit, check NTP on both hosts";
                    return Ok(Row::ok(Layer::Clock, detail + half));
                }
                Some(_) | None => return Ok(Row::ok(Layer::Clock, detail)),
            }
        }
        (None, Some(Reason::TokenExpired | Reason::TokenNotYetValid)) => {
            "the clocks differ".to_owned()
        }
        (None, Some(_) | None) => {
            let detail = "unknown: the peer reports its clock only to authenticated callers";
            return Ok(Row::skip(Layer::Clock, detail));
        }
    };
    let row = Row::fail(Layer::Clock, Side::Between, differ + &because);
    Err(compare_clocks(row, &peer.name))
}

/// Adds how the clock here is compared with that of `name`.
pub(super) fn compare_clocks(row: Row, name: &str) -> Row {
    row.help(format!("compare `date -u` here and on the host of {name}"))
        .help(Help::new(
            "on the host with the wrong time:",
            "timedatectl set-ntp true",
        ))
}

/// Returns `note`, unless it is known whose word a refusal is: this module's own, or the proved
/// peer's.
fn unless_proved(status: &Status, note: &'static str) -> &'static str {
    let is_own = reason_of(status).is_some_and(Reason::is_raised_by_caller);
    if is_own || is_proved(status) {
        ""
    } else {
        note
    }
}

fn token(peer: &Peer<'_>, answer: Result<WhoAmIResponse, Status>) -> Outcome<String> {
    let name = &peer.name;
    let known = answer.map(|answer| {
        let identity = answer.identity.unwrap_or_default();
        let (module, id) = (Untrusted(&identity.module), Untrusted(&identity.id));
        let roles = Untrusted(identity.roles.join(", ")).to_string();
        let detail = format!(
            "{name} knows this module as ServiceIdentity(module={module}, id={id}, roles=[{roles}])"
        );
        (roles, Row::ok(Layer::Token, detail))
    });
    known.map_err(|status| {
        let trusted = peer.trusted();
        let unusable = trusted.filter(|deployment| deployment.active_keys().next().is_none());
        match (unusable, refusal_of(&status)) {
            (Some(deployment), _) => revoked_here(peer, &deployment),
            (None, Some(refusal)) => refused(peer, &refusal, &status),
            (None, None) => not_refused(Layer::Token, peer, &status),
        }
    })
}

/// Says that this module's own file does not let it call the peer, all of whose keys it revokes.
fn revoked_here(peer: &Peer<'_>, deployment: &Deployment) -> Row {
    let (name, file) = (&peer.name, peer.remedy.own_file());
    let detail = format!("not called: every key of `{name}` is revoked in {file}");
    let home = &peer.doctor.options.home;
    let undo = CommandLine::new("countersign revoke --undo").option("home", home);
    let of = undo.option("deployment", deployment.name.as_str());
    Row::fail(Layer::Token, Side::Here, detail)
        .help(format!("{name} needs a new key that is trusted here:"))
        .helps(peer.remedy.rotate(false))
        .helps(deployment.keys.iter().map(|key| {
            let command = of.clone().option("key", &key.name);
            let words = format!("only if `{}` was revoked by mistake:", key.name);
            Help::new(words, command)
        }))
}

/// Says on which side to act on a refusal of the token, or of the peer's proof.
fn refused(peer: &Peer<'_>, refusal: &Refusal, status: &Status) -> Row {
    let (reason, name, remedy) = (refusal.reason, &peer.name, &peer.remedy);
    let own = peer.doctor.module.own();
    let key = own.key_id.as_str();
    let unsigned = unless_proved(status, " (unproved: the refusal is not signed)");
    // A callee cannot sign for a key that it refuses: nothing shows which module it is.
    let at = &peer.target;
    let server = format!("the server at {at}, which did not prove to be {name} (unproved),");
    let own_key = OwnKey::refused_for(reason);
    let (side, what) = match (&peer.deployment, own_key) {
        (None, _) => (Side::Here, format!("{server} does not accept its token")),
        (_, Some(OwnKey::Revoked)) => (Side::Peer, OwnKey::Revoked.describe(name, key) + unsigned),
        (_, Some(unknown)) => (Side::Between, unknown.describe(&server, key)),
        (_, None) => (Side::Between, summary_and_detail(refusal) + unsigned),
    };
    let port = format!("either another module answers there: {}", remedy.port);
    let help = match (&peer.deployment, own_key) {
        (None, _) => vec![
            port.into(),
            remedy.host.clone().into(),
            format!("or it runs with another key than {}:", remedy.own_file()).into(),
            "its log shows the key at `startup` and `configReloaded`".into(),
            remedy.start(),
        ],
        (_, Some(OwnKey::Revoked)) => {
            let undo = remedy.at_peer(|home| {
                let undo = CommandLine::new("countersign revoke --undo").option("home", home);
                undo.option("fingerprint", key)
            });
            let new = vec!["this module needs a new key:".into()];
            let undone = vec![undo.after("only if it was revoked by mistake:")];
            [new, remedy.rotate(true), undone].concat()
        }
        (_, Some(_)) => {
            let list = CommandLine::new("countersign deployment list");
            let known = vec![
                port.into(),
                remedy.host.clone().into(),
                format!("or {name} does not trust this key:").into(),
                remedy.at_peer(|home| list.option("home", home)),
            ];
            [known, remedy.check(), remedy.pair(false)].concat()
        }
        (_, None) => [remedy.check(), remedy.pair(false)].concat(),
    };
    let code = code_name(status.code());
    Row::fail(Layer::Token, side, format!("{code} {reason}: {what}"))
        .help(reason.explain())
        .helps(help)
}

/// Reports the result of a call that needs the role.
pub(super) fn role<T>(peer: &Peer<'_>, answer: Result<T, Status>) -> Outcome<T> {
    let (name, module) = (&peer.name, &peer.doctor.module);
    let detail = format!("{name} gives this module the role that it needs");
    let found = answer.map(|answer| (answer, Row::ok(Layer::Role, detail)));
    found.map_err(|status| match reason_of(&status) {
        Some(Reason::RoleMissing) => {
            let (code, role) = (code_name(status.code()), module.impersonation_role());
            let detail = format!("{code} ROLE_MISSING: {name} gives this module no role {role}");
            let row = Row::fail(Layer::Role, Side::Peer, detail);
            let file = format!("the file of {name}");
            grant_role(row, peer, &file, module.own().issuer())
        }
        Some(reason) => {
            Row::fail(Layer::Role, Side::Between, reply_text(&status)).help(reason.explain())
        }
        None => not_refused(Layer::Role, peer, &status),
    })
}

/// Adds the line that gives `deployment` the role in `file`.
pub(super) fn grant_role(row: Row, peer: &Peer<'_>, file: &str, deployment: &str) -> Row {
    let role = peer.doctor.module.impersonation_role();
    let roles = Pattern::new(ROLES).with_keys(&[deployment.to_owned()]);
    let line = format!("{roles}[0]={role}");
    row.help(Help::new(format!("write into {file}:"), line))
}

/// Makes the row of a call that failed without a refusal reason.
fn not_refused(layer: Layer, peer: &Peer<'_>, status: &Status) -> Row {
    if status.code() == Code::Unimplemented {
        let what = match layer {
            Layer::Token => "serves gRPC, but no IdentityService",
            _ => "is not the expected kind of module",
        };
        let detail = format!("{} {what}", peer.target);
        return Row::fail(layer, Side::Here, detail).help(&*peer.remedy.port);
    }
    Row::fail(layer, Side::Between, reply_text(status))
        .help("look for a proxy between the two, and read the peer's log")
}

/// Returns the callee's status as text, with its message escaped.
fn reply_text(status: &Status) -> String {
    let (code, message) = (code_name(status.code()), Untrusted(status.message()));
    format!("{code}: {message}")
}

/// Examines the layers from the name to gRPC.
async fn reach(visit: &mut Visitor<'_>, peer: &Peer<'_>) -> Result<Connection, Row> {
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
            .help(&*peer.remedy.host));
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
    if all_refused && let Some(open) = on_loopback(peer, addresses).await {
        return Err(row
            .help(format!(
                "a program listens on loopback only, at {open}; if it is {}:",
                peer.name
            ))
            .helps(peer.remedy.listen(peer.target.host())));
    }
    Err(if all_refused {
        row.help(peer.remedy.start().after("no program listens there;"))
            .help(&*peer.remedy.port)
    } else {
        row.help("the host is down, or a firewall drops the connection")
            .help(&*peer.remedy.host)
    })
}

/// Returns where a program listens on loopback, if `addresses` are of this host.
async fn on_loopback(peer: &Peer<'_>, addresses: &[SocketAddr]) -> Option<Target> {
    let mut own = addresses.iter().map(|address| (address.ip(), 0));
    // Only an address of this host can be listened on.
    if !own.any(|address| UdpSocket::bind(address).is_ok()) {
        return None;
    }
    for host in [
        Ipv4Addr::LOCALHOST.into(),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        let there = Target::new(&host.to_string(), peer.target.port());
        let is_tried = addresses.iter().any(|address| address.ip() == host);
        if !is_tried && is_listening(&there, peer.limit()).await {
            return Some(there);
        }
    }
    None
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
    let help = is_soon.then(|| Help::new("renew it:", Cs::Cs0308.explain()));
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
    row.helps(help).help(&*peer.remedy.port)
}
