//! The runtime of the commands that wait for something.

use tokio::runtime::{Builder, Runtime};

use super::output::{Exit, Failure};

/// Makes the runtime of a command.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("grpc-default-executor")
        .build()
        .map_err(|error| Failure::caused(Exit::Bug, "cannot start the runtime", &error))
}
