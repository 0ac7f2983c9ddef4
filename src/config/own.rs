//! What a module needs to know to run, as plain values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::grpc::ProofMode;
use crate::grpc::Target;
use crate::grpc::tls::{ClientTlsOptions, ServerTlsOptions};
use crate::identity::DeploymentName;
use crate::registry::AddressRules;
pub use crate::token::Replay;

/// What the server of a module does.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The address of the gRPC port.
    pub address: IpAddr,
    /// The gRPC port; 0 lets the system choose.
    pub port: u16,
    /// Whether an address beyond loopback may do without TLS.
    pub allow_plaintext: bool,
    /// Whether callers must prove who they are. `false` on loopback only.
    pub authenticate: bool,
    /// How long open calls may take at the end.
    pub shutdown_deadline: Duration,
    /// The largest message accepted, in bytes.
    pub max_message_bytes: u64,
    /// The address of the HTTP port.
    pub http_address: IpAddr,
    /// The HTTP port.
    pub http_port: u16,
    /// TLS of the gRPC port, where it is on.
    pub tls: Option<ServerTlsOptions>,
}

impl ServerSettings {
    /// Returns the loopback address at which this machine reaches the gRPC port: a module's own
    /// operator may call it there alone.
    pub fn own_host(&self) -> IpAddr {
        match self.address {
            address if address.is_loopback() => address,
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Returns where the module's own operator calls it; none where it takes a free port at each
    /// start.
    pub fn own_target(&self) -> Option<Target> {
        let host = self.own_host().to_string();
        (self.port != 0).then(|| Target::new(&host, self.port))
    }
}

/// A connection to another module, `ataccama.client.connection.<c>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionSettings {
    /// Its name: the module type that is meant.
    pub name: String,
    /// The host.
    pub host: String,
    /// The gRPC port.
    pub port: u16,
    /// The deployment that is meant, where several have that module type.
    pub deployment: Option<DeploymentName>,
    /// TLS, where it is on.
    pub tls: Option<ClientTlsOptions>,
}

/// What the clients of a module do.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The connections; `dpm` is always among them.
    pub connections: Vec<ConnectionSettings>,
    /// Whether a connection beyond loopback may do without TLS.
    pub allow_plaintext: bool,
    /// The largest message accepted, in bytes.
    pub max_message_bytes: u64,
    /// TLS towards the engines that a DPM dials back, where it is on: that of connection `dpe`.
    pub dial_back_tls: Option<ClientTlsOptions>,
}

/// What a DPM does with its engines.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// How often a READY engine is checked.
    pub check_connected: Duration,
    /// The first wait after an engine was lost.
    pub check_disconnected: Duration,
    /// By how much that wait grows each time.
    pub multiplier: u32,
    /// The longest wait.
    pub check_disconnected_max: Duration,
    /// How long a check may take on an open connection.
    pub checker_timeout: Duration,
    /// After which time without a sign an engine is INACTIVE.
    pub inactivate_not_seen_for: Duration,
    /// How often that is looked at.
    pub inactivate_period: Duration,
    /// How many engines are kept.
    pub max_engines: usize,
    /// How many engines one deployment may have.
    pub max_engines_per_deployment: usize,
    /// How many engines one deployment may add in a second.
    pub max_new_engines_per_second: usize,
    /// Where they are kept; none for `file:<home>/storage/registry.redb`.
    pub url: Option<String>,
}

/// What a DPE tells its DPM, and how often it looks.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The advertised host, where one is configured.
    pub hostname: Option<String>,
    /// The advertised port, where one is configured; else the bound gRPC port.
    pub port: Option<u16>,
    /// How often the DPE checks that it is registered.
    pub check_connection: Duration,
}

/// Which log lines go where.
#[expect(clippy::struct_excessive_bools, reason = "four switches of the file")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoggingSettings {
    /// Plain lines on standard error.
    pub plain_console: bool,
    /// JSON lines on standard error.
    pub json_console: bool,
    /// Plain lines in a file.
    pub plain_file: bool,
    /// JSON lines in a file.
    pub json_file: bool,
}

/// What we add about a trusted deployment, `countersign.deployments.<name>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerSettings {
    /// The deployment.
    pub name: String,
    /// Where its engines may be dialled back.
    pub addresses: AddressRules,
}

/// Tells whether `host` is this machine for sure.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

/// The folders of a module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home {
    /// The home itself.
    pub dir: PathBuf,
    /// `etc/application.properties` in it, or the file that was named.
    pub file: PathBuf,
    /// `log` in it.
    pub log: PathBuf,
    /// `storage` in it.
    pub storage: PathBuf,
}
