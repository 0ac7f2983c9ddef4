//! Who may connect: how many, from where, and who gives way where room is short.

mod connections;
mod network;

pub(crate) use connections::{Bounds, Connections, Crowding, Full, Seat, Shown, Standing};
pub(crate) use network::Network;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
