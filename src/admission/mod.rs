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

/// How many of `descriptors` may be connections: a quarter, up to 256, stays free for files, HTTP and
/// what else a process opens.
pub(crate) fn room(descriptors: usize) -> usize {
    let others = (descriptors / 4).clamp(32, 256);
    descriptors.saturating_sub(others).max(8)
}

/// How many of these connections are a DPM's own, to its engines: each engine takes one of each kind.
pub(crate) fn outgoing(descriptors: usize) -> usize {
    if descriptors < 1024 {
        return descriptors.saturating_sub(64) / 10;
    }
    (room(descriptors) / 2).min(MOST_OUTGOING)
}

/// More than any registry has engines.
const MOST_OUTGOING: usize = 1 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_others() {
        assert_eq!(room(20_000), 19_744);
        assert_eq!(room(4096), 3840);
        assert_eq!(room(1024), 768);
        assert_eq!(room(256), 192);
        assert_eq!(room(64), 32);
        assert_eq!(room(20), 8);
    }

    #[test]
    fn connections_to_engines_leave_room_for_those_of_callers() {
        for (descriptors, own) in [(20, 0), (64, 0), (128, 6), (256, 19), (1024, 384)] {
            assert_eq!(outgoing(descriptors), own, "{descriptors}");
        }
        for descriptors in [20, 64, 128, 256, 512, 1023, 1024, 20_000, usize::MAX] {
            assert!(
                outgoing(descriptors) <= room(descriptors) / 2,
                "{descriptors}"
            );
        }
    }
}
