//! Reads the options of a module from its settings.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnostic::{Code, quote};
use crate::dpm::MonitorOptions;
use crate::engine::check_host;
use crate::grpc::{ConnectionLimits, HealthWatch, ServerOptions, Target};
use crate::identity::{DeploymentName, Role, Spellings};
use crate::registry::{AddressRules, AllowedAddress, Limits};
use crate::telemetry::{Appenders, Logging};
use crate::token::Policy;

use super::question::ModuleKind;
use super::read::Reader;
use super::rules::addresses::{GRPC_PORT, HOST, has_addresses, several, unbracketed};
use super::rules::deployments::{CHOSEN, is_vendors, trusted, untrusted};
use super::rules::{etcd, tls};
use super::schema::{self, DEPLOYMENTS};
use super::settings::{
    ClientSettings, ConnectionSettings, EngineSettings, Options, ProofMode, RegistryStore, Replay,
    RotationSettings, ServerSettings,
};

pub const OWN_NAME: &str = "countersign.deployment.name";
const SERVER_PORT: &str = "ataccama.server.grpc.port";
const METRICS: &str = "countersign.http.metrics-beyond-loopback";
const IMPERSONATION: &str = "ataccama.authentication.internal.jwt.impersonation-role";

/// Reads all options; what cannot be read is reported and has its default.
pub fn read(reader: &mut Reader<'_>) -> Options {
    let impersonation = reader.named(IMPERSONATION, &[], "a role", Role::new);
    let replays = [Replay::Off, Replay::Strict];
    let replay = reader.word("countersign.token.replay", &[], replays);
    let proofs = [ProofMode::Off, ProofMode::Handshake, ProofMode::EveryCall];
    let proof = reader.word("countersign.proof.mode", &[], proofs);
    let connections = connections(reader);
    let read = tls::read(reader, &connections);
    let of_registry = limits(reader);
    Options {
        store: store(reader),
        name: reader.named(OWN_NAME, &[], "a deployment name", DeploymentName::new),
        policy: policy(reader),
        rotation: RotationSettings::default(),
        impersonation_role: impersonation.map_or_else(Role::impersonation, |(role, _)| role),
        replay: replay.unwrap_or_default(),
        proof: proof.unwrap_or_default(),
        server: server(reader, &of_registry),
        client: ClientSettings {
            connections,
            allow_plaintext: reader.switch("countersign.client.allow-plaintext", &[]),
            max_message_bytes: reader.size("ataccama.client.grpc.properties.max-message-size"),
        },
        limits: of_registry,
        monitor: monitor(reader),
        engine: engine(reader),
        logging: logging(reader),
        addresses: addresses(reader),
        reload: reader.switch("countersign.reload", &[]),
        tls: read,
    }
}

fn policy(reader: &mut Reader<'_>) -> Policy {
    let lifetime = reader.time("ataccama.authentication.internal.jwt.generator.token-expiration");
    let leeway = reader.time("countersign.token.leeway");
    let most = reader.time("countersign.token.max-lifetime");
    // The bounds of the settings are those of the policy.
    Policy::new(lifetime, leeway, most).unwrap_or_default()
}

fn server(reader: &mut Reader<'_>, limits: &Limits) -> ServerSettings {
    let watches = [HealthWatch::Bounded, HealthWatch::Open];
    let watch = reader.word("countersign.server.health-watch", &[], watches);
    ServerSettings {
        address: address(reader, "countersign.server.address"),
        port: number(reader, SERVER_PORT),
        has_port: reader.raw(SERVER_PORT, &[]).is_some(),
        allow_plaintext: reader.switch("countersign.server.allow-plaintext", &[]),
        authenticate: reader.switch("ataccama.authentication.grpc.internal.jwt.enable", &[]),
        options: ServerOptions {
            shutdown_deadline: reader.time("countersign.server.shutdown-deadline"),
            max_message_bytes: reader.size("ataccama.server.grpc.max-message-size"),
            connections: connection_limits(reader, limits),
            health_watch: watch.unwrap_or_default(),
            ..ServerOptions::default()
        },
        allowed_hosts: allowed_hosts(reader),
        metrics_beyond_loopback: reader.switch(METRICS, &[]),
        http_address: address(reader, "server.address"),
        http_port: number(reader, "server.port"),
        http_is_set: reader.is_set("server.port", &[]),
    }
}

/// Every engine may have a connection, and others too.
fn connection_limits(reader: &mut Reader<'_>, limits: &Limits) -> ConnectionLimits {
    let total = reader.number("countersign.server.max-connections", &[]);
    ConnectionLimits {
        total: total.unwrap_or_else(|| limits.max_engines.saturating_add(2048)),
        per_address: number(reader, "countersign.server.max-connections-per-address"),
        per_deployment: limits.max_engines_per_deployment.saturating_add(64),
        ..ConnectionLimits::default()
    }
}

fn allowed_hosts(reader: &mut Reader<'_>) -> Vec<String> {
    let name = "countersign.http.allowed-hosts";
    let mut hosts = Vec::new();
    for element in reader.list(name, &[]) {
        let host = unbracketed(element.text());
        match check_host(host) {
            Ok(()) => hosts.push(host.to_owned()),
            Err(why) => reader.wrong(name, &element, &why.to_string()),
        }
    }
    hosts
}

fn number<T: TryFrom<u64> + Default>(reader: &mut Reader<'_>, name: &str) -> T {
    reader.number(name, &[]).unwrap_or_default()
}

fn address(reader: &mut Reader<'_>, name: &str) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = reader.parsed(name, &[], |text| {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(loopback);
        }
        unbracketed(text)
            .parse()
            .map_err(|_error| "is not an IP address such as `127.0.0.1` or `0.0.0.0`")
    });
    address.map_or(loopback, |(address, _)| address)
}

fn connections(reader: &mut Reader<'_>) -> Vec<ConnectionSettings> {
    let deployments = reader.names(DEPLOYMENTS, &[]).into_iter();
    let spellings = deployments
        .filter_map(|name| DeploymentName::new(name).ok())
        .collect();
    let mut written = reader.names("ataccama.client.connection", &[]);
    for name in reader.names("countersign.client.connection", &[]) {
        if has_addresses(reader, name) && !written.contains(&name) {
            written.push(name);
        }
    }
    let default = Some(("dpm", false)).filter(|(name, _)| !written.contains(name));
    let names = written.into_iter().map(|name| (name, true)).chain(default);
    names
        .filter_map(|(name, is_written)| connection(reader, name, is_written, &spellings))
        .collect()
}

/// Reads a connection; `spellings` are those of the deployments.
fn connection(
    reader: &mut Reader<'_>,
    name: &str,
    is_written: bool,
    spellings: &Spellings,
) -> Option<ConnectionSettings> {
    let keys = &[name];
    let named = reader.named(CHOSEN, keys, "a deployment name", DeploymentName::new);
    let deployment = named.map(|(name, _)| spellings.canonical(name));
    let is_dpm = name == "dpm";
    let may_be_half = is_dpm || is_vendors(reader, name);
    half(reader, keys, may_be_half);
    let default = schema::default_grpc_port(&ModuleKind::Dpm).filter(|_| is_dpm);
    let given = host(reader, HOST, keys).or_else(|| is_dpm.then(|| "localhost".to_owned()));
    let port = reader.number(GRPC_PORT, keys).or(default);
    let one = given.zip(port).map(|(host, port)| Target::new(&host, port));
    let mut all = several(reader, name).into_iter();
    Some(ConnectionSettings {
        target: all.next().or(one)?,
        others: all.collect(),
        name: name.to_owned(),
        deployment,
        is_written,
    })
}

/// Reports a connection with a host and no port, or a port and no host.
fn half(reader: &mut Reader<'_>, keys: &[&str], may_be: bool) {
    let (given, missing) = match [HOST, GRPC_PORT].map(|name| reader.is_set(name, keys)) {
        [true, false] => (HOST, GRPC_PORT),
        [false, true] => (GRPC_PORT, HOST),
        _ => return,
    };
    if let Some(at) = reader.raw(given, keys).filter(|_| !may_be) {
        let setting = schema::path(missing, keys).join(".");
        let message = format!("this connection needs a host and a port: `{setting}` is missing");
        reader.report(Code::Cs0301, at, message, format!("write `{setting}=`"));
    }
}

/// Reads a host.
fn host(reader: &mut Reader<'_>, name: &str, keys: &[&str]) -> Option<String> {
    let value = reader.text(name, keys)?;
    let host = unbracketed(value.text());
    let Err(error) = check_host(host) else {
        return Some(host.to_owned());
    };
    let setting = schema::path(name, keys).join(".");
    let message = format!(
        "{} in `{setting}` is not a host: {error}",
        quote(value.text())
    );
    let help = "write a name or an IP address alone; the port has a setting of its own";
    reader.report(Code::Cs0306, &value, message, help);
    None
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        max_engines: limit(reader, "max-engines"),
        max_engines_per_deployment: limit(reader, "max-engines-per-deployment"),
        max_new_engines_per_second: limit(reader, "max-new-engines-per-second"),
    }
}

fn limit<T: TryFrom<u64> + Default>(reader: &mut Reader<'_>, name: &str) -> T {
    number(reader, &format!("countersign.registry.{name}"))
}

fn monitor(reader: &mut Reader<'_>) -> MonitorOptions {
    let multiplier: u32 = number(
        reader,
        "ataccama.one.dpm.registry.check-disconnected-interval-multiplier",
    );
    MonitorOptions {
        check_connected_interval: registry_time(reader, "check-connected-interval"),
        check_disconnected_interval: registry_time(reader, "check-disconnected-interval"),
        check_disconnected_multiplier: multiplier.into(),
        check_disconnected_max: registry_time(reader, "check-disconnected-interval-max"),
        checker_timeout: registry_time(reader, "grpc-checker-timeout"),
        check_failures: limit(reader, "check-failures"),
        inactivate_not_seen_for: registry_time(
            reader,
            "automatically-inactivate-engines-not-seen-for",
        ),
        inactivate_period: registry_time(reader, "inactivate-scheduler-period"),
        ..MonitorOptions::default()
    }
}

fn registry_time(reader: &mut Reader<'_>, name: &str) -> Duration {
    reader.time(&format!("ataccama.one.dpm.registry.{name}"))
}

/// Reads where a DPM keeps its engines.
fn store(reader: &mut Reader<'_>) -> RegistryStore {
    let url = reader.text(etcd::URL, &[]);
    if let Some(at) = url.filter(|url| url.text().starts_with(etcd::SCHEME)) {
        return etcd::read(reader, &at).map_or_else(RegistryStore::default, RegistryStore::Etcd);
    }
    etcd::unused(reader);
    let read = reader.parsed(etcd::URL, &[], |text| {
        if text == "memory:" {
            return Ok(RegistryStore::Memory);
        }
        match text.strip_prefix("file:") {
            None => Err("does not start with `memory:`, `file:` or `etcd://`"),
            Some("" | "//") => Err("names no file"),
            Some(path) => {
                let file = path.strip_prefix("//").unwrap_or(path);
                Ok(RegistryStore::File(Some(file.into())))
            }
        }
    });
    read.map_or_else(RegistryStore::default, |(store, _)| store)
}

fn engine(reader: &mut Reader<'_>) -> EngineSettings {
    const PORT: &str = "ataccama.one.dpe.service.port";
    EngineSettings {
        hostname: host(reader, "ataccama.one.dpe.service.hostname", &[]),
        port: reader.number(PORT, &[]),
        one_way: reader.switch("countersign.dpe.one-way", &[]),
        check_connection: reader.time("ataccama.one.dpe.service.dpm.check-connection-interval"),
    }
}

fn logging(reader: &mut Reader<'_>) -> Logging {
    Logging {
        console: Appenders {
            plain: reader.switch("ataccama.logging.plain-text-console-appender", &[]),
            json: reader.switch("ataccama.logging.json-console-appender", &[]),
        },
        file: Appenders {
            plain: reader.switch("ataccama.logging.plain-text-file-appender", &[]),
            json: reader.switch("ataccama.logging.json-file-appender", &[]),
        },
        dir: PathBuf::new(),
    }
}

fn addresses(reader: &mut Reader<'_>) -> HashMap<String, AddressRules> {
    const PLACE: &str = "countersign.deployments.<name>";
    let known: HashSet<_> = reader.names(DEPLOYMENTS, &[]).into_iter().collect();
    let help = trusted(reader);
    let mut rules = HashMap::new();
    for name in reader.names("countersign.deployments", &[]) {
        let keys = &[name];
        if known.contains(name) {
            let low_ports = "countersign.deployments.<name>.allow-low-ports";
            let of_deployment = AddressRules {
                allow_low_ports: reader.switch(low_ports, keys),
                allowed: allowed(reader, keys),
            };
            rules.insert(name.to_owned(), of_deployment);
        } else {
            reader.report_below(Code::Cs0106, (PLACE, keys), untrusted(name), &*help);
        }
    }
    rules
}

fn allowed(reader: &mut Reader<'_>, keys: &[&str]) -> Vec<AllowedAddress> {
    let name = "countersign.deployments.<name>.allowed-addresses";
    let elements = reader.list(name, keys).into_iter();
    let addresses = elements.filter_map(|element| {
        let address = AllowedAddress::parse(element.text());
        if address.is_none() {
            let why = "is not a host name, IP address or network";
            reader.wrong(name, &element, why);
        }
        address
    });
    addresses.collect()
}
