//! The `countersign` command.

use std::process::ExitCode;

/// Gives the memory of a flood back to the system, whatever small pieces are left in it: within
/// two seconds as `.cargo/config.toml` builds it, else within ten.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // For crates that take the process's cryptography; our own TLS names its own. It fails where
    // another one is installed already, and nothing ran before this line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    countersign::main()
}
