//! Our own listener, in place of tonic's accept loop.
//!
//! tonic's spins once file descriptors run out, waits for ever for connections that never send
//! anything, and at shutdown for the last of them. Here every connection has a place among the
//! [`Connections`](crate::admission::Connections), which know its age and what it has shown so far,
//! and can cut it.

mod acceptor;
mod stream;

use std::time::Duration;

use crate::admission::{Bounds, descriptors, room};

pub(super) use acceptor::Acceptor;
pub(super) use stream::{arrived, verified};

/// The bounds of a server's connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// How many connections may be open. 256 of the process's file descriptors stay free for other
    /// uses, or a quarter where it has less than 1,024, so that it can be fewer. Up to 32 places
    /// are kept for loopback, and 4 for each deployment.
    pub total: usize,
    /// How many connections that have shown no verified token may be open from one address, or one
    /// /64 of IPv6. More are admitted while there is room and those are younger than
    /// [`chance`](Self::chance).
    pub per_address: usize,
    /// How many connections of one deployment may be open.
    pub per_deployment: usize,
    /// For how long a connection without a verified token keeps its place where others want it.
    pub chance: Duration,
    /// How long a call may go on that is open to everyone, on a connection without a verified
    /// token. Of these, 4 may be open at once on one connection.
    pub visit: Duration,
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
}

impl Default for ConnectionLimits {
    /// 12,048 connections, 128 strangers from one address, 1,064 of one deployment; a chance of 2 s
    /// and calls of 60 s for strangers; 10 s for the first request, 5 s for the TLS handshake;
    /// pings each 30 s, 10 s for an answer; an hour and 5 min more.
    fn default() -> Self {
        Self {
            total: 12_048,
            per_address: 128,
            per_deployment: 1_064,
            chance: Duration::from_secs(2),
            visit: Duration::from_secs(60),
            first_request: Duration::from_secs(10),
            tls_handshake: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            age: Duration::from_secs(60 * 60),
            age_grace: Duration::from_secs(5 * 60),
        }
    }
}

impl ConnectionLimits {
    /// Returns the bounds of admission, within what the process's file descriptors allow.
    pub(in crate::grpc) fn bounds(&self) -> Bounds {
        Bounds {
            total: self.total.min(room(descriptors())),
            per_address: self.per_address,
            per_owner: self.per_deployment,
            chance: self.chance,
            first_request: self.first_request,
            age: self.age + self.age_grace,
        }
    }
}
