//! The `countersign` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // For crates that take the process's cryptography; our own TLS names its own. It fails where
    // another one is installed already, and nothing ran before this line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    countersign::main()
}
