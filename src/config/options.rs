//! Reads the options of a module from its settings.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::diagnostic::{Code, quote};
use crate::dpm::MonitorOptions;
use crate::grpc::ServerOptions;
use crate::identity::DeploymentName;
use crate::properties::Sourced;
use crate::properties::name::uniform;
use crate::registry::{AddressRules, AllowedAddress, Limits};
use crate::telemetry::{Appenders, Logging};
use crate::token::Policy;

use super::gather::DEPLOYMENTS;
use super::read::Reader;
use super::settings::{
    ClientSettings, ConnectionSettings, EngineSettings, ProofMode, Replay, ServerSettings,
};
use super::tls::{self, Tls};

/// Everything of [`settings`](super::settings) that a file sets.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) name: Option<(DeploymentName, Sourced)>,
    pub(super) policy: Policy,
    pub(super) replay: Replay,
    pub(super) proof: ProofMode,
    pub(super) server: ServerSettings,
    pub(super) client: ClientSettings,
    pub(super) limits: Limits,
    pub(super) monitor: MonitorOptions,
    pub(super) engine: EngineSettings,
    pub(super) logging: Logging,
    pub(super) addresses: HashMap<String, AddressRules>,
    pub(super) reload: bool,
    pub(super) tls: Tls,
}

const REPLAYS: &[(&str, Replay)] = &[("off", Replay::Off), ("strict", Replay::Strict)];
const PROOFS: &[(&str, ProofMode)] = &[
    ("off", ProofMode::Off),
    ("handshake", ProofMode::Handshake),
    ("every-call", ProofMode::EveryCall),
];

/// Reads all options; what cannot be read is reported and has its default.
pub(super) fn read(reader: &mut Reader<'_>) -> Options {
    let mut client = client(reader);
    let mut server = server(reader);
    let names: Vec<_> = client.connections.iter().map(|c| c.name.clone()).collect();
    let tls = tls::read(reader, &names);
    server.tls.clone_from(&tls.server.options);
    for connection in &mut client.connections {
        connection.tls = tls.client(&connection.name);
    }
    client.dial_back_tls = tls.client(tls::DIAL_BACK);
    Options {
        name: deployment_name(reader, "countersign.deployment.name", &[]),
        policy: policy(reader),
        replay: reader.word("countersign.token.replay", REPLAYS),
        proof: reader.word("countersign.proof.mode", PROOFS),
        server,
        limits: limits(reader),
        monitor: monitor(reader),
        engine: engine(reader),
        logging: logging(reader),
        addresses: addresses(reader),
        reload: reader.switch("countersign.reload", &[]),
        tls,
        client,
    }
}

fn deployment_name(
    reader: &mut Reader<'_>,
    name: &str,
    keys: &[String],
) -> Option<(DeploymentName, Sourced)> {
    reader.parsed(name, keys, |text| {
        DeploymentName::new(text).map_err(|error| format!("is not a deployment name: {error}"))
    })
}

fn policy(reader: &mut Reader<'_>) -> Policy {
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration";
    // The bounds of the settings are those of the policy.
    Policy::new(
        reader.time(lifetime),
        reader.time("countersign.token.leeway"),
        reader.time("countersign.token.max-lifetime"),
    )
    .unwrap_or_default()
}

fn server(reader: &mut Reader<'_>) -> ServerSettings {
    let port = reader.port("ataccama.server.grpc.port", &[]);
    let http_port = reader.port("server.port", &[]);
    ServerSettings {
        address: address(reader, "countersign.server.address"),
        port: port.unwrap_or_default(),
        allow_plaintext: reader.switch("countersign.server.allow-plaintext", &[]),
        authenticate: reader.switch("ataccama.authentication.grpc.internal.jwt.enable", &[]),
        options: ServerOptions {
            shutdown_deadline: reader.time("countersign.server.shutdown-deadline"),
            max_message_bytes: reader.size("ataccama.server.grpc.max-message-size"),
            ..ServerOptions::default()
        },
        http_address: address(reader, "server.address"),
        http_port: http_port.unwrap_or_default(),
        tls: None,
    }
}

fn address(reader: &mut Reader<'_>, name: &str) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = reader.parsed(name, &[], |text| {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(loopback);
        }
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let address = inner.unwrap_or(text).parse();
        address.map_err(|_error| "is not an IP address such as `127.0.0.1` or `0.0.0.0`".to_owned())
    });
    address.map_or(loopback, |(address, _)| address)
}

fn client(reader: &mut Reader<'_>) -> ClientSettings {
    let mut names = reader.names("ataccama.client.connection");
    if !names.iter().any(|name| name == "dpm") {
        names.push("dpm".to_owned());
    }
    let connections = names.into_iter();
    ClientSettings {
        connections: connections
            .filter_map(|name| connection(reader, name))
            .collect(),
        allow_plaintext: reader.switch("countersign.client.allow-plaintext", &[]),
        max_message_bytes: reader.size("ataccama.client.grpc.properties.max-message-size"),
        dial_back_tls: None,
    }
}

fn connection(reader: &mut Reader<'_>, name: String) -> Option<ConnectionSettings> {
    let keys = [name];
    let deployment = "countersign.client.connection.<c>.deployment";
    let deployment = deployment_name(reader, deployment, &keys);
    let deployment = deployment.map(|(name, _)| as_trusted(reader, name));
    let host = reader.text("ataccama.client.connection.<c>.host", &keys);
    let port = reader.port("ataccama.client.connection.<c>.grpc.port", &keys);
    let [name] = keys;
    let is_dpm = name == "dpm";
    Some(ConnectionSettings {
        host: match host {
            Some(host) => unbracketed(host.text()).to_owned(),
            None if is_dpm => "localhost".to_owned(),
            None => return None,
        },
        port: port.or_else(|| is_dpm.then_some(8531))?,
        name,
        deployment,
        tls: None,
    })
}

/// Returns the trusted deployment that `name` matches, as its own settings spell it.
fn as_trusted(reader: &Reader<'_>, name: DeploymentName) -> DeploymentName {
    let trusted = reader.names(DEPLOYMENTS).into_iter();
    let mut spelled = trusted.filter(|trusted| uniform(trusted) == uniform(name.as_str()));
    spelled
        .find_map(|trusted| DeploymentName::new(&trusted).ok())
        .unwrap_or(name)
}

/// Returns an IPv6 address without the brackets that it has in a URL.
fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner
        .filter(|host| host.parse::<Ipv6Addr>().is_ok())
        .unwrap_or(host)
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    store(reader);
    Limits {
        max_engines: reader.integer("countersign.registry.max-engines"),
        max_engines_per_deployment: reader
            .integer("countersign.registry.max-engines-per-deployment"),
        max_new_engines_per_second: reader
            .integer("countersign.registry.max-new-engines-per-second"),
    }
}

fn monitor(reader: &mut Reader<'_>) -> MonitorOptions {
    let multiplier: u32 =
        reader.integer("ataccama.one.dpm.registry.check-disconnected-interval-multiplier");
    MonitorOptions {
        check_connected_interval: reader.time("ataccama.one.dpm.registry.check-connected-interval"),
        check_disconnected_interval: reader
            .time("ataccama.one.dpm.registry.check-disconnected-interval"),
        check_disconnected_multiplier: multiplier.into(),
        check_disconnected_max: reader
            .time("ataccama.one.dpm.registry.check-disconnected-interval-max"),
        checker_timeout: reader.time("ataccama.one.dpm.registry.grpc-checker-timeout"),
        inactivate_not_seen_for: reader
            .time("ataccama.one.dpm.registry.automatically-inactivate-engines-not-seen-for"),
        inactivate_period: reader.time("ataccama.one.dpm.registry.inactivate-scheduler-period"),
        ..MonitorOptions::default()
    }
}

/// Refuses a store that this version does not have.
fn store(reader: &mut Reader<'_>) {
    reader.parsed("countersign.registry.url", &[], |text| match text {
        "memory:" => Ok(()),
        url if url.starts_with("file:") || url.starts_with("etcd://") => Err(
            "names a store that this version does not have; it keeps engines in memory: `memory:`"
                .to_owned(),
        ),
        _ => Err("does not start with `memory:`, `file:` or `etcd://`".to_owned()),
    });
}

fn engine(reader: &mut Reader<'_>) -> EngineSettings {
    let hostname = reader.text("ataccama.one.dpe.service.hostname", &[]);
    EngineSettings {
        hostname: hostname.map(|name| unbracketed(name.text()).to_owned()),
        port: reader.port("ataccama.one.dpe.service.port", &[]),
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
    let trusted = reader.names(DEPLOYMENTS);
    let known: HashSet<_> = trusted.iter().collect();
    let mut rules = HashMap::new();
    for name in reader.names("countersign.deployments") {
        if known.contains(&name) {
            let keys = [name];
            let allow_low_ports = "countersign.deployments.<name>.allow-low-ports";
            let of_deployment = AddressRules {
                allow_low_ports: reader.switch(allow_low_ports, &keys),
                allowed: allowed(reader, &keys),
            };
            let [name] = keys;
            rules.insert(name, of_deployment);
        } else {
            let message = format!("there is no trusted deployment {}", quote(&name));
            let help = format!("trusted deployments: {}", trusted.join(", "));
            let path = ["countersign", "deployments", &name];
            reader.report_below(Code::Cs0106, &path, message, help);
        }
    }
    rules
}

fn allowed(reader: &mut Reader<'_>, keys: &[String]) -> Vec<AllowedAddress> {
    let name = "countersign.deployments.<name>.allowed-addresses";
    let mut allowed = Vec::new();
    for element in reader.list(name, keys) {
        if let Some(address) = AllowedAddress::parse(element.text()) {
            allowed.push(address);
        } else {
            let why = "is not a host name, IP address or network";
            reader.wrong(name, keys, &element, why);
        }
    }
    allowed
}
