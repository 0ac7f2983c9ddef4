//! Layer 4: does anybody accept there?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::peer::Peer;
use super::report::{Fault, Found};

/// A connection that is open.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

pub(super) async fn connect(
    peer: &Peer,
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<Found<Reached>, Fault> {
    let mut failed = Vec::new();
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let address = *address;
                return Ok(Found::new(Reached { stream, address }, address.to_string()));
            }
            Ok(Err(error)) => failed.push((*address, error.kind(), error.to_string())),
            Err(_elapsed) => {
                let why = format!("no answer within {limit:?}");
                failed.push((*address, ErrorKind::TimedOut, why));
            }
        }
    }
    let refused = |kind: &ErrorKind| *kind == ErrorKind::ConnectionRefused;
    let all_refused = failed.iter().all(|(_, kind, _)| refused(kind));
    let told: Vec<_> = failed
        .iter()
        .map(|(address, kind, why)| {
            if refused(kind) {
                format!("{address}: connection refused")
            } else {
                format!("{address}: {why}")
            }
        })
        .collect();
    let fault = Fault::new(peer.side(), told.join("; "));
    Err(if all_refused {
        let fault = fault.help(format!("nothing listens there; {}", peer.words.start));
        fault.help(peer.words.port.clone())
    } else {
        let fault = fault.help("the host is down, or a firewall drops the connection");
        fault.help(peer.words.host.clone())
    })
}
