//! Our own listener, in place of tonic's accept loop.
//!
//! tonic's spins once file descriptors run out, waits for ever for connections that never send
//! anything, and at shutdown for the last of them. Here every connection has a place among the
//! [`Connections`](crate::admission::Connections), which know its age and what it has shown so far,
//! and can cut it.

mod acceptor;
mod arrival;
mod crowd;
mod limits;
mod refusal;
mod stream;

pub(super) use acceptor::Acceptor;
pub(super) use arrival::{arrived, verified};
pub use limits::ConnectionLimits;
