//! How much a listener takes.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The bounds of a server's connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// How many connections may be open. A quarter of the process's file descriptors, 32 at least,
    /// stays free for other uses, so that it can be fewer.
    pub total: usize,
    /// How many connections may be open from one address.
    pub per_address: usize,
    /// How long a connection may take until its first request, counted from its acceptance.
    pub first_request: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake: Duration,
    /// How often an HTTP/2 ping asks whether the peer is still there.
    pub keepalive_interval: Duration,
    /// How long the answer to such a ping may take. For both times together, written bytes may
    /// wait for a peer that does not read.
    pub keepalive_timeout: Duration,
    /// After which time a connection is asked to end: open calls may finish.
    pub age: Duration,
    /// How much longer than [`age`](Self::age) it may last.
    pub age_grace: Duration,
    /// How many calls may be open on one connection.
    pub concurrent_streams: u32,
    /// How many calls of one connection may be reset before they were looked at; more end it.
    pub pending_resets: usize,
    /// The largest header list, in bytes as HTTP/2 counts them.
    pub header_list_bytes: u32,
}

impl Default for ConnectionLimits {
    /// 1,024 connections, 128 from one address; 10 s for the first request, 5 s for the TLS
    /// handshake; pings each 30 s, 10 s for an answer; an hour and 5 min more; 100 calls, 128
    /// pending resets and 16 KiB of headers.
    fn default() -> Self {
        Self {
            total: 1024,
            per_address: 128,
            first_request: Duration::from_secs(10),
            tls_handshake: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            age: Duration::from_secs(60 * 60),
            age_grace: Duration::from_secs(5 * 60),
            concurrent_streams: 100,
            pending_resets: 128,
            header_list_bytes: 16 * 1024,
        }
    }
}

impl ConnectionLimits {
    /// Lowers the total to what the process's file descriptors allow.
    pub(super) fn within_descriptors(self) -> Self {
        let descriptors = getrlimit(Resource::Nofile)
            .current
            .and_then(|limit| usize::try_from(limit).ok());
        Self {
            total: self.total.min(room(descriptors.unwrap_or(usize::MAX))),
            ..self
        }
    }
}

/// How many of `descriptors` may be connections.
fn room(descriptors: usize) -> usize {
    let others = (descriptors / 4).max(32);
    descriptors.saturating_sub(others).max(8)
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn connections_leave_descriptors_to_others() {
        assert_eq!(room(1024), 768);
        assert_eq!(room(256), 192);
        assert_eq!(room(64), 32);
        assert_eq!(room(20), 8);
    }
}
