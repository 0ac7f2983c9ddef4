//! What a file says of a module's server and its connections.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::metrics::Largest;
use super::{ConnectionOptions, ServerOptions, Target};
use crate::identity::DeploymentName;

/// tonic's own limit of a message.
pub(super) const TONICS_BYTES: usize = 4 * 1024 * 1024;

/// How the module of a file serves and calls.
#[derive(Debug)]
pub(crate) struct Wiring {
    /// The main file.
    pub(crate) file: PathBuf,
    /// Whether the module follows its file.
    pub(crate) is_followed: bool,
    /// Where gRPC is served, if the file says it.
    pub(crate) grpc: Option<SocketAddr>,
    /// Where HTTP is served, if the file says it.
    pub(crate) http: Option<SocketAddr>,
    /// Further host names of the HTTP port.
    pub(crate) http_hosts: Vec<String>,
    /// Whether HTTP shows metrics beyond loopback.
    pub(crate) http_metrics: bool,
    /// The server's bounds and TLS.
    pub(crate) server: ServerOptions,
    /// The connections.
    pub(crate) routes: Vec<Route>,
    /// The largest message that is accepted of a server, in bytes.
    pub(crate) client_bytes: usize,
}

impl Wiring {
    pub(super) fn largest_reply(&self) -> Largest {
        let setting = "ataccama.client.grpc.properties.max-message-size";
        Largest(self.client_bytes, setting)
    }
}

/// A connection, `ataccama.client.connection.<c>`.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name, which is the module type to call where it names no deployment.
    pub(crate) name: String,
    /// Where it leads.
    pub(crate) target: Target,
    /// The deployment that it names.
    pub(crate) deployment: Option<DeploymentName>,
    /// Whether the file has it; `dpm` has a default.
    pub(crate) is_written: bool,
    /// How to connect.
    pub(crate) options: ConnectionOptions,
}
