//! Who may connect: how many, from where, and who gives way where room is short.

mod connections;

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use connections::{
    Bounds, Connections, Crowding, Full, OpenCall, Seat, Shown, Standing,
};

/// Whether an accept failed for reasons of the one connection that it was about.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Returns how many file descriptors this process may open.
pub(crate) fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// Lets this process open as many file descriptors as its system allows: for programs alone, since
/// a library's process is not its own.
pub(crate) fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    // Where that fails, the limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// An IPv4 address, or the /64 of an IPv6 address, all of which one caller may have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Network(IpAddr);

impl Network {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()
            }
            other => other,
        })
    }

    pub(crate) fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}
