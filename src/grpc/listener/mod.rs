//! Our own listener, in place of tonic's accept loop.
//!
//! tonic's spins once file descriptors run out, waits for ever for connections that never send
//! anything, and at shutdown for the last of them. Here every connection has a place in
//! [`Connections`], which knows its age and what it has shown so far, and can cut it.

mod acceptor;
mod arrival;
mod connections;
mod crowd;
mod limits;
mod stream;

pub(super) use acceptor::Acceptor;
pub(super) use arrival::{arrived, verified};
pub(super) use connections::Connections;
pub use limits::ConnectionLimits;
