//! Reads the options of a module from its settings.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::diagnostic::{Code, quote};
use crate::identity::DeploymentName;
use crate::properties::Sourced;
use crate::properties::name::uniform;
use crate::registry::{AddressRules, AllowedAddress};
use crate::token::Policy;

use super::gather::DEPLOYMENTS;
use super::own::{
    ClientSettings, ConnectionSettings, EngineSettings, LoggingSettings, PeerSettings, ProofMode,
    RegistrySettings, Replay, ServerSettings,
};
use super::read::Reader;
use super::schema;
use super::tls::{self, Tls};

/// Everything of [`own`](super::own).
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) name: Option<(DeploymentName, Sourced)>,
    pub(super) policy: Policy,
    pub(super) replay: Replay,
    pub(super) proof: ProofMode,
    pub(super) server: ServerSettings,
    pub(super) client: ClientSettings,
    pub(super) registry: RegistrySettings,
    pub(super) engine: EngineSettings,
    pub(super) logging: LoggingSettings,
    pub(super) peers: Vec<PeerSettings>,
    pub(super) reload: bool,
    pub(super) tls: Tls,
}

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
        replay: reader
            .word(
                "countersign.token.replay",
                &[],
                &[("off", Replay::Off), ("strict", Replay::Strict)],
            )
            .unwrap_or(Replay::Off),
        proof: proof(reader),
        server,
        registry: registry(reader),
        engine: engine(reader),
        logging: logging(reader),
        peers: peers(reader),
        reload: reader.switch("countersign.reload", &[]).unwrap_or(true),
        tls,
        client,
    }
}

fn deployment_name(
    reader: &mut Reader<'_>,
    name: &str,
    keys: &[String],
) -> Option<(DeploymentName, Sourced)> {
    let value = reader.text(name, keys)?;
    match DeploymentName::new(value.text()) {
        Ok(checked) => Some((checked, value)),
        Err(error) => {
            reader.wrong(
                name,
                keys,
                &value,
                &format!("is not a deployment name: {error}"),
            );
            None
        }
    }
}

fn proof(reader: &mut Reader<'_>) -> ProofMode {
    let words = [
        ("off", ProofMode::Off),
        ("handshake", ProofMode::Handshake),
        ("every-call", ProofMode::EveryCall),
    ];
    let mode = reader.word("countersign.proof.mode", &[], &words);
    mode.unwrap_or(ProofMode::Handshake)
}

fn policy(reader: &mut Reader<'_>) -> Policy {
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration";
    let default = Policy::default();
    let lifetime = reader.time(lifetime).unwrap_or_else(|| default.lifetime());
    let leeway = reader.time("countersign.token.leeway");
    let most = reader.time("countersign.token.max-lifetime");
    // The bounds of the settings are those of the policy.
    Policy::new(
        lifetime,
        leeway.unwrap_or_else(|| default.leeway()),
        most.unwrap_or_else(|| default.max_lifetime()),
    )
    .unwrap_or(default)
}

fn server(reader: &mut Reader<'_>) -> ServerSettings {
    let deadline = reader.time("countersign.server.shutdown-deadline");
    let bytes = reader.size("ataccama.server.grpc.max-message-size");
    ServerSettings {
        address: address(reader, "countersign.server.address"),
        port: reader.port("ataccama.server.grpc.port", &[]).unwrap_or(0),
        allow_plaintext: reader
            .switch("countersign.server.allow-plaintext", &[])
            .unwrap_or(false),
        authenticate: reader
            .switch("ataccama.authentication.grpc.internal.jwt.enable", &[])
            .unwrap_or(true),
        shutdown_deadline: deadline.unwrap_or(Duration::from_secs(10)),
        max_message_bytes: bytes.unwrap_or(DEFAULT_MESSAGE_BYTES),
        http_address: address(reader, "server.address"),
        http_port: reader.port("server.port", &[]).unwrap_or(0),
        tls: None,
    }
}

const DEFAULT_MESSAGE_BYTES: u64 = 4 * 1024 * 1024;

fn address(reader: &mut Reader<'_>, name: &str) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Some(value) = reader.text(name, &[]) else {
        return loopback;
    };
    if value.text().eq_ignore_ascii_case("localhost") {
        return loopback;
    }
    let text = value.text();
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.unwrap_or(text).parse().unwrap_or_else(|_| {
        reader.wrong(
            name,
            &[],
            &value,
            "is not an IP address such as `127.0.0.1` or `0.0.0.0`",
        );
        loopback
    })
}

fn client(reader: &mut Reader<'_>) -> ClientSettings {
    let mut names = reader.names("ataccama.client.connection");
    if !names.iter().any(|name| name == "dpm") {
        names.push("dpm".to_owned());
    }
    let connections = names
        .into_iter()
        .filter_map(|name| connection(reader, name));
    let connections = connections.collect();
    let bytes = reader.size("ataccama.client.grpc.properties.max-message-size");
    ClientSettings {
        connections,
        allow_plaintext: reader
            .switch("countersign.client.allow-plaintext", &[])
            .unwrap_or(false),
        max_message_bytes: bytes.unwrap_or(DEFAULT_MESSAGE_BYTES),
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
    let (default_host, default_port) = if name == "dpm" {
        (Some("localhost"), Some(8531))
    } else {
        (None, None)
    };
    let host = host.map(|host| unbracketed(host.text()).to_owned());
    Some(ConnectionSettings {
        host: host.or_else(|| default_host.map(str::to_owned))?,
        port: port.or(default_port)?,
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
    let inner = host.strip_prefix('[');
    let inner = inner.and_then(|host| host.strip_suffix(']'));
    inner
        .filter(|host| host.parse::<Ipv6Addr>().is_ok())
        .unwrap_or(host)
}

fn registry(reader: &mut Reader<'_>) -> RegistrySettings {
    let time = |reader: &mut Reader<'_>, tail: &str, default: Duration| {
        let name = format!("ataccama.one.dpm.registry.{tail}");
        reader.time(&name).unwrap_or(default)
    };
    let count = |reader: &mut Reader<'_>, tail: &str, default: usize| {
        let number = reader.integer(&format!("countersign.registry.{tail}"));
        number
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default)
    };
    let second = Duration::from_secs(1);
    let multiplier =
        reader.integer("ataccama.one.dpm.registry.check-disconnected-interval-multiplier");
    RegistrySettings {
        check_connected: time(reader, "check-connected-interval", second),
        check_disconnected: time(reader, "check-disconnected-interval", second),
        multiplier: multiplier.and_then(|n| u32::try_from(n).ok()).unwrap_or(2),
        check_disconnected_max: time(reader, "check-disconnected-interval-max", 600 * second),
        checker_timeout: time(reader, "grpc-checker-timeout", Duration::from_millis(200)),
        inactivate_not_seen_for: time(
            reader,
            "automatically-inactivate-engines-not-seen-for",
            172_800 * second,
        ),
        inactivate_period: time(reader, "inactivate-scheduler-period", 600 * second),
        max_engines: count(reader, "max-engines", 10_000),
        max_engines_per_deployment: count(reader, "max-engines-per-deployment", 1000),
        max_new_engines_per_second: count(reader, "max-new-engines-per-second", 100),
        url: url(reader),
    }
}

fn url(reader: &mut Reader<'_>) -> Option<String> {
    let name = "countersign.registry.url";
    let value = reader.text(name, &[])?;
    let known = ["memory:", "file:", "etcd://"];
    if known.iter().any(|scheme| value.text().starts_with(scheme)) {
        return Some(value.text().to_owned());
    }
    reader.wrong(
        name,
        &[],
        &value,
        "does not start with `memory:`, `file:` or `etcd://`",
    );
    None
}

fn engine(reader: &mut Reader<'_>) -> EngineSettings {
    let interval = reader.time("ataccama.one.dpe.service.dpm.check-connection-interval");
    let hostname = reader.text("ataccama.one.dpe.service.hostname", &[]);
    EngineSettings {
        hostname: hostname.map(|name| unbracketed(name.text()).to_owned()),
        port: reader.port("ataccama.one.dpe.service.port", &[]),
        check_connection: interval.unwrap_or(Duration::from_secs(5)),
    }
}

fn logging(reader: &mut Reader<'_>) -> LoggingSettings {
    let appender = |reader: &mut Reader<'_>, kind: &str, default: bool| {
        let name = format!("ataccama.logging.{kind}-appender");
        reader.switch(&name, &[]).unwrap_or(default)
    };
    LoggingSettings {
        plain_console: appender(reader, "plain-text-console", true),
        json_console: appender(reader, "json-console", false),
        plain_file: appender(reader, "plain-text-file", false),
        json_file: appender(reader, "json-file", true),
    }
}

fn peers(reader: &mut Reader<'_>) -> Vec<PeerSettings> {
    let trusted = reader.names(DEPLOYMENTS);
    let known: HashSet<_> = trusted.iter().collect();
    let mut peers = Vec::new();
    for name in reader.names("countersign.deployments") {
        if !known.contains(&name) {
            let path = schema::path(
                "countersign.deployments.<name>",
                std::slice::from_ref(&name),
            );
            let message = format!("there is no trusted deployment {}", quote(&name));
            let help = format!("trusted deployments: {}", trusted.join(", "));
            reader.report_below(Code::Cs0106, &path, message, help);
            continue;
        }
        let keys = [name];
        let low = "countersign.deployments.<name>.allow-low-ports";
        let addresses = AddressRules {
            allow_low_ports: reader.switch(low, &keys).unwrap_or(false),
            allowed: allowed(reader, &keys),
        };
        let [name] = keys;
        peers.push(PeerSettings { name, addresses });
    }
    peers
}

fn allowed(reader: &mut Reader<'_>, keys: &[String]) -> Vec<AllowedAddress> {
    let name = "countersign.deployments.<name>.allowed-addresses";
    let mut allowed = Vec::new();
    for element in reader.list(name, keys) {
        match AllowedAddress::parse(element.text()) {
            Some(address) => allowed.push(address),
            None => reader.wrong(
                name,
                keys,
                &element,
                "is not a host name, IP address or network",
            ),
        }
    }
    allowed
}
