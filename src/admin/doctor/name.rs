//! Layer 3: does the peer's name resolve?

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::peer::Peer;
use super::report::{Fault, Found, Side};

/// More addresses than this are neither shown nor tried.
const MOST: usize = 8;

pub(super) async fn resolve(peer: &Peer, limit: Duration) -> Result<Found<Vec<SocketAddr>>, Fault> {
    let (host, port) = (peer.target.host(), peer.target.port());
    let failed = |why: String| {
        let fault = Fault::new(Side::Here, format!("`{host}` {why}"));
        let fault = fault.help(format!("getent ahosts {host}"));
        fault.help(peer.words.host.clone())
    };
    let found = timeout(limit, lookup_host((host, port))).await;
    let found = found
        .map_err(|_elapsed| failed(format!("does not resolve within {limit:?}")))?
        .map_err(|error| failed(format!("does not resolve: {error}")))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(MOST) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed("has no address".to_owned()));
    }
    let shown: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
    let detail = match shown.as_slice() {
        [one] if one == host => one.clone(),
        several => format!("{host} → {}", several.join(", ")),
    };
    Ok(Found::new(addresses, detail))
}
