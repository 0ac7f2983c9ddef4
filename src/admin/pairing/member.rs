//! What a module that is paired is given: its name, its key, and where the sides of two hosts listen,
//! what they advertise, and what they dial.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{Introduction, host_and_port};
use crate::admin::setting::Setting;
use crate::config::names::{
    ADDRESS, ADDRESSES, CLIENT_PLAINTEXT, GRPC_PORT, HOSTNAME, SERVER_PLAINTEXT,
};
use crate::config::{AsWritten, ModuleKind, default_grpc_port, is_loopback};
use crate::grpc::Target;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, SigningKey};
use crate::properties::bind::switch;

/// One of the modules.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its type, such as `dpm`.
    pub module: ModuleType,
    /// Its file, which may not exist yet.
    pub path: PathBuf,
    /// Its name; by default what the files say, else `<module>-<environment>`.
    pub name: Option<DeploymentName>,
    /// Its private key; by default the one in its file, else a new one.
    pub key: Option<(SigningKey, KeyId)>,
    /// Where others reach it; by default only on its own host.
    pub address: Option<Address>,
    /// What it listens on; by default all interfaces where its address is not of its own host.
    pub listen: Option<IpAddr>,
}

impl Member {
    /// Names the module of type `module` whose file is at `path`.
    pub fn new(module: ModuleType, path: PathBuf) -> Self {
        Self {
            module,
            path,
            name: None,
            key: None,
            address: None,
            listen: None,
        }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.address.as_ref().is_some_and(Address::is_remote)
    }
}

/// What applies to both sides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The environment; by default what the files say, else `dev`.
    pub environment: Option<Environment>,
    /// The role each side gives the other.
    pub role: Role,
    /// The name of the keys below `jwt-keys`; by default the first free of `key`, `key2`, ….
    pub key_name: Option<String>,
    /// Whether both sides use TLS: each gets a certificate, and the other side's pin. An address
    /// beyond the own host means TLS, too.
    pub tls: bool,
    /// Whether such an address is reached without TLS.
    pub plaintext: bool,
}

impl Default for Options {
    /// What the files say, else `dev`; the role of impersonation; no TLS.
    fn default() -> Self {
        Self {
            environment: None,
            role: Role::impersonation(),
            key_name: None,
            tls: false,
            plaintext: false,
        }
    }
}

/// Where others reach a module: `host` or `host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    host: String,
    /// By default the module's own.
    port: Option<u16>,
}

impl Address {
    /// Returns `true` if it is not of the module's own host alone, as far as names show.
    pub fn is_remote(&self) -> bool {
        !is_loopback(&self.host)
    }

    /// Returns the address of the module of type `module` with this `file`.
    pub(super) fn target(&self, module: &ModuleType, file: &AsWritten) -> Result<Target, Refused> {
        let host = &self.host;
        let written = value(file, GRPC_PORT).map(|port| port.parse().ok().filter(|port| *port > 0));
        let kind = ModuleKind::of(module);
        let usual = default_grpc_port(&kind);
        if let Some(port) = self.port.or_else(|| written.unwrap_or(usual)) {
            return Ok(Target::new(host, port));
        }
        let message = format!("the file does not say which port the {module} has");
        let help = format!("add it: `--address {module}={host}:PORT`");
        Err(Refused::new(Kind::Usage, message).with_help(help))
    }

    /// Returns what the `file` of the module of type `module` lacks to be reached here. It listens
    /// on `listen`; by default, for other hosts, on all interfaces.
    pub(super) fn settings(
        &self,
        module: &ModuleType,
        file: &AsWritten,
        listen: Option<IpAddr>,
        tls: bool,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        let any = match self.host.parse() {
            Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        let is_opened = self.is_remote() && !is_open(file);
        if let Some(at) = listen.or_else(|| is_opened.then_some(any)) {
            settings.push(Setting::new(ADDRESS, at.to_string()));
        }
        let port = self.port.map(|port| port.to_string());
        settings.extend(port.map(|port| Setting::new(GRPC_PORT, port)));
        if matches!(ModuleKind::of(module), ModuleKind::Dpe) {
            settings.push(Setting::new(HOSTNAME, &self.host));
        }
        if self.is_remote() && !tls {
            settings.push(Setting::new(SERVER_PLAINTEXT, "true"));
        }
        missing(file, settings)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => Target::new(&self.host, port).fmt(f),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = "it has the form HOST or HOST:PORT, such as dpm.example:8531";
        let (host, port) = host_and_port(text).ok_or(what)?;
        let ip = host.parse::<IpAddr>();
        if ip.is_ok_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err("it is not the address of a host".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Returns `true` if the module with this `file` listens beyond its own host.
pub(super) fn is_open(file: &AsWritten) -> bool {
    let listens = value(file, ADDRESS).and_then(|at| at.parse::<IpAddr>().ok());
    listens.is_some_and(|at| !at.is_loopback())
}

/// Returns what the `file` of `member` lacks to reach `peer` at its address. A DPM dials what its
/// engines advertise. Of two whose files are `here`, an engine that listens for its own host alone
/// is on the peer's.
pub(super) fn connection(
    member: &Member,
    file: &AsWritten,
    peer: &Introduction,
    here: bool,
) -> Vec<Setting> {
    let kinds = [&member.module, &peer.module].map(ModuleKind::of);
    let is_local = member.address.is_none() && !is_open(file);
    let is_near = here && is_local && matches!(kinds, [ModuleKind::Dpe, _]);
    let target = match &peer.address {
        Some(far) if is_near => Target::new("localhost", far.port()),
        Some(far) => far.clone(),
        None => return Vec::new(),
    };
    let mut settings = Vec::new();
    // Where the file has the addresses of several modules, they say where the peer is.
    let several = file.all(ADDRESSES, &[peer.module.as_str()]).next();
    if several.is_none() && !matches!(kinds, [ModuleKind::Dpm, ModuleKind::Dpe]) {
        let connection = format!("ataccama.client.connection.{}", peer.module);
        let port = format!("{connection}.grpc.port");
        if !is_near {
            settings.push(Setting::new(format!("{connection}.host"), target.host()));
        }
        let is_dpm = matches!(kinds, [_, ModuleKind::Dpm]);
        let is_default = is_dpm && default_grpc_port(&ModuleKind::Dpm) == Some(target.port());
        if !is_default || value(file, &port).is_some() {
            settings.push(Setting::new(port, target.port().to_string()));
        }
    }
    if !is_loopback(target.host()) && peer.tls.is_none() {
        settings.push(Setting::new(CLIENT_PLAINTEXT, "true"));
    }
    missing(file, settings)
}

fn missing(file: &AsWritten, mut settings: Vec<Setting>) -> Vec<Setting> {
    settings.retain(
        |setting| match (value(file, &setting.key), setting.text()) {
            (Some(written), Some("true")) => switch(written) != Ok(true),
            (written, wanted) => written != wanted,
        },
    );
    settings
}

/// Returns the value of `setting`, if it is set to anything.
pub(super) fn value<'a>(file: &'a AsWritten, setting: &str) -> Option<&'a str> {
    file.text(setting, &[]).filter(|value| !value.is_empty())
}
