//! Layer 6, second half: is it gRPC, and what does it say of its health?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::http2::{self, Answer};
use super::peer::Peer;
use super::report::{Fault, Found, Side};
use crate::grpc::{Connection, ConnectionOptions, cause, code_name};

/// Says what answered in place of HTTP/2. [`Answer::Tls`] is another layer's.
pub(super) async fn not_http2(
    peer: &Peer,
    answer: &Answer,
    address: SocketAddr,
    limit: Duration,
) -> Fault {
    let quiet = matches!(answer, Answer::Silence | Answer::Closed(_));
    let web = quiet && peer.tls.is_none() && http2::is_web_server(address, limit).await;
    let wrong_port = || peer.words.port.clone();
    match answer {
        _ if web => web_server(address).help(wrong_port()),
        Answer::Http1 => web_server(address).help(wrong_port()),
        Answer::Silence => {
            let detail = format!("{address} accepts and says nothing within {limit:?}");
            let fault = Fault::new(Side::Peer, detail);
            let fault = fault.help("the module hangs, or something else listens there");
            fault.help(wrong_port())
        }
        Answer::Closed(kind) => {
            let how = match kind {
                ErrorKind::ConnectionReset => "resets",
                _ => "closes",
            };
            let detail = format!("{address} accepts and {how} the connection without a word");
            let fault = Fault::new(Side::Between, detail);
            let fault = fault.help("a proxy without an upstream, a full listener, or no gRPC port");
            fault.help(wrong_port())
        }
        _ => {
            let detail = format!("{address} speaks another protocol than HTTP/2");
            Fault::new(Side::Here, detail).help(wrong_port())
        }
    }
}

fn web_server(address: SocketAddr) -> Fault {
    let detail = format!("{address} speaks HTTP/1.1, not gRPC: it is a web server or an HTTP port");
    Fault::new(Side::Here, detail)
}

/// Asks `grpc.health.v1`, over a channel as the module itself opens them.
pub(super) async fn check(
    peer: &Peer,
    address: SocketAddr,
    limit: Duration,
) -> Result<Found<Connection>, Fault> {
    let options = ConnectionOptions {
        connect_timeout: limit,
        allow_plaintext: peer.allow_plaintext,
        tls: peer.tls.clone(),
    };
    let lost = |why: String| {
        let detail = format!("{address} speaks HTTP/2, but gRPC does not come through: {why}");
        Fault::new(Side::Between, detail).help("look for a proxy between the two")
    };
    let opened = Connection::to_addresses(&peer.target, vec![address], options);
    let opened = timeout(limit, opened).await;
    let connection = opened
        .map_err(|_elapsed| lost(format!("no channel within {limit:?}")))?
        .map_err(|error| lost(cause(error.as_ref())))?;
    let mut client = HealthClient::new(connection.channel()).max_decoding_message_size(64 * 1024);
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(limit);
    let answer = timeout(limit, client.check(request)).await;
    let answer = answer.map_err(|_elapsed| lost(format!("no answer within {limit:?}")))?;
    let settings = "HTTP/2 settings received";
    match answer {
        Ok(answer) => {
            let health = match answer.into_inner().status() {
                ServingStatus::Serving => "SERVING",
                ServingStatus::NotServing => "NOT_SERVING (it starts, drains or is not registered)",
                _ => "UNKNOWN",
            };
            Ok(Found::new(
                connection,
                format!("{settings}; health {health}"),
            ))
        }
        Err(status) if status.code() == Code::Unimplemented => {
            let detail = format!("{address} speaks HTTP/2, but it is no countersign module");
            Err(Fault::new(Side::Here, detail).help(peer.words.port.clone()))
        }
        Err(status) => Err(lost(code_name(status.code()).to_owned())),
    }
}
