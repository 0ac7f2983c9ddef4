//! The settings that have an effect here.

use std::time::Duration;

use super::rotation::ROTATION;
use super::{Setting, Takes};
use crate::properties::bind::TimeUnit;

const DAY: u64 = 86_400;
const PORT: Takes = Takes::Integer(0, 65_535);
const MTLS: Takes = Takes::Words(&["none", "optional", "require", "required", "true", "false"]);

const fn seconds(least: u64, most: u64) -> Takes {
    Takes::Time(
        TimeUnit::Seconds,
        Duration::from_secs(least),
        Duration::from_secs(most),
    )
}

const fn millis(least: u64, most: u64) -> Takes {
    Takes::Time(
        TimeUnit::Millis,
        Duration::from_millis(least),
        Duration::from_millis(most),
    )
}

macro_rules! deployment {
    ($tail:literal) => {
        concat!("ataccama.one.platform.deployments.<name>.", $tail)
    };
}

macro_rules! peer {
    ($tail:literal) => {
        concat!("countersign.deployments.<name>.", $tail)
    };
}

macro_rules! registry {
    ($tail:literal) => {
        concat!("ataccama.one.dpm.registry.", $tail)
    };
}

macro_rules! tls {
    ($($prefix:literal)*) => {
        [$([
            Setting::new(concat!($prefix, ".enabled"), Takes::Switch, "whether this connection uses TLS"),
            Setting::new(concat!($prefix, ".on"), Takes::Switch, "another spelling of `enabled`")
                .same_as(concat!($prefix, ".enabled")),
            Setting::new(concat!($prefix, ".mtls"), MTLS, "whether the client shows a certificate too"),
            Setting::new(concat!($prefix, ".cert-chain"), Takes::Text, "PEM file of the own certificate chain"),
            Setting::new(concat!($prefix, ".private-key"), Takes::Text, "PEM file of the certificate's private key"),
            Setting::new(concat!($prefix, ".trust-cert-collection"), Takes::Text, "PEM file of the trusted certificates"),
        ],)*]
    };
}

const TLS: [[Setting; 6]; 6] = tls!(
    "ataccama.server.grpc.tls"
    "ataccama.server.tls"
    "ataccama.client.connection.<c>.grpc.tls"
    "ataccama.client.connection.<c>.tls"
    "ataccama.client.grpc.tls"
    "ataccama.client.tls"
);

/// The settings with an effect, in the order of the documentation.
pub(super) static GROUPS: &[&[Setting]] = &[
    IDENTITY,
    DEPLOYMENTS,
    NETWORK,
    REGISTRY,
    ENGINE,
    LOGGING,
    OWN,
    ROTATION,
    TLS.as_flattened(),
];

const IDENTITY: &[Setting] = &[
    Setting::new(
        "ataccama.authentication.internal.jwt.generator.key",
        Takes::PrivateKey,
        "this module's own key: base64 of the private JWK",
    ),
    Setting::new(
        "ataccama.authentication.internal.jwt.generator.token-expiration",
        seconds(1, DAY),
        "how long issued tokens live",
    )
    .or("300"),
    Setting::new(
        "ataccama.authentication.internal.jwt.impersonation-role",
        Takes::Text,
        "the role a caller needs for the registry and the engine",
    )
    .or("IMPERSONATION"),
    Setting::new(
        "ataccama.authentication.grpc.internal.jwt.enable",
        Takes::Switch,
        "whether callers must prove who they are; `false` on loopback only",
    )
    .or("true"),
];

const DEPLOYMENTS: &[Setting] = &[
    Setting::new(
        deployment!("module"),
        Takes::Text,
        "the module type, such as `dpe`",
    ),
    Setting::new(
        deployment!("environment"),
        Takes::Text,
        "the environment, such as `dev`",
    ),
    Setting::new(
        deployment!("uri"),
        Takes::Text,
        "the peer's address; read and not used",
    ),
    Setting::new(
        deployment!("security.jwt-keys.<key>.fingerprint"),
        Takes::Text,
        "the `kid` that selects this key",
    ),
    Setting::new(
        deployment!("security.jwt-keys.<key>.content"),
        Takes::PublicKey,
        "the public JWK, on one line",
    ),
    Setting::new(
        deployment!("security.jwt-keys.<key>.is-revoked"),
        Takes::Switch,
        "whether the key is no longer accepted",
    )
    .or("false"),
    Setting::new(
        deployment!("security.roles"),
        Takes::List,
        "the roles of this deployment here",
    ),
];

const NETWORK: &[Setting] = &[
    Setting::new("ataccama.server.grpc.port", PORT, "the gRPC port").per_module("8531", "8532"),
    Setting::new("server.port", PORT, "the HTTP port").per_module("8031", "8034"),
    Setting::new(
        "server.address",
        Takes::Text,
        "the address of the HTTP port",
    )
    .or("127.0.0.1"),
    Setting::new(
        "ataccama.server.grpc.max-message-size",
        Takes::Size,
        "the largest message accepted by the server",
    )
    .or("4MB"),
    Setting::new(
        "ataccama.server.grpc.properties.max-message-size",
        Takes::Size,
        "another spelling of `ataccama.server.grpc.max-message-size`",
    )
    .same_as("ataccama.server.grpc.max-message-size"),
    Setting::new(
        "ataccama.client.grpc.properties.max-message-size",
        Takes::Size,
        "the largest message accepted by the client",
    )
    .or("4MB"),
    Setting::new(
        "ataccama.client.connection.<c>.host",
        Takes::Text,
        "where `<c>` is",
    ),
    Setting::new(
        "ataccama.client.connection.<c>.grpc.port",
        PORT,
        "the gRPC port of `<c>`",
    ),
];

const REGISTRY: &[Setting] = &[
    Setting::new(
        registry!("check-connected-interval"),
        millis(10, DAY * 1000),
        "how often a READY engine is checked",
    )
    .or("1s"),
    Setting::new(
        registry!("check-disconnected-interval"),
        millis(10, DAY * 1000),
        "the first wait after an engine was lost",
    )
    .or("1s"),
    Setting::new(
        registry!("check-disconnected-interval-multiplier"),
        Takes::Integer(1, 100),
        "by how much that wait grows each time",
    )
    .or("2"),
    Setting::new(
        registry!("check-disconnected-interval-max"),
        millis(10, DAY * 1000),
        "the longest wait",
    )
    .or("10m"),
    Setting::new(
        registry!("grpc-checker-timeout"),
        millis(1, 60_000),
        "how long a check may take",
    )
    .or("200"),
    Setting::new(
        registry!("automatically-inactivate-engines-not-seen-for"),
        seconds(1, 3650 * DAY),
        "after which time without a sign an engine is INACTIVE",
    )
    .or("2d"),
    Setting::new(
        registry!("inactivate-scheduler-period"),
        millis(10, DAY * 1000),
        "how often that is looked at",
    )
    .or("600000"),
];

const ENGINE: &[Setting] = &[
    Setting::new(
        "ataccama.one.dpe.service.hostname",
        Takes::Text,
        "the host advertised to the DPM",
    ),
    Setting::new(
        "ataccama.one.dpe.service.port",
        Takes::Integer(1, 65_535),
        "the port advertised to the DPM",
    ),
    Setting::new(
        "ataccama.one.dpe.service.dpm.check-connection-interval",
        millis(10, DAY * 1000),
        "how often the DPE checks that it is registered",
    )
    .or("5000"),
];

const LOGGING: &[Setting] = &[
    Setting::new(
        "ataccama.logging.plain-text-console-appender",
        Takes::Switch,
        "plain lines on standard error",
    )
    .or("true"),
    Setting::new(
        "ataccama.logging.json-console-appender",
        Takes::Switch,
        "JSON lines on standard error",
    )
    .or("false"),
    Setting::new(
        "ataccama.logging.plain-text-file-appender",
        Takes::Switch,
        "plain lines in a file",
    )
    .or("false"),
    Setting::new(
        "ataccama.logging.json-file-appender",
        Takes::Switch,
        "JSON lines in a file",
    )
    .or("true"),
];

const OWN: &[Setting] = &[
    Setting::new(
        "countersign.deployment.name",
        Takes::Text,
        "this module's own deployment name",
    ),
    Setting::new(
        "countersign.client.connection.<c>.deployment",
        Takes::Text,
        "the deployment that is meant by connection `<c>`",
    ),
    Setting::new(
        "countersign.client.allow-plaintext",
        Takes::Switch,
        "whether a connection beyond loopback may do without TLS",
    )
    .or("false"),
    Setting::new(
        "countersign.server.address",
        Takes::Text,
        "the address of the gRPC port",
    )
    .or("127.0.0.1"),
    Setting::new(
        "countersign.server.allow-plaintext",
        Takes::Switch,
        "whether an address beyond loopback may do without TLS",
    )
    .or("false"),
    Setting::new(
        "countersign.server.shutdown-deadline",
        seconds(0, 3600),
        "how long open calls may take at the end",
    )
    .or("10s"),
    Setting::new(
        "spring.profiles.active",
        Takes::List,
        "the profiles whose files `application-<profile>.properties` are read; the last wins",
    ),
    Setting::new(
        "countersign.registry.max-engines",
        Takes::Integer(1, 1_000_000),
        "how many engines are kept",
    )
    .or("10000"),
    Setting::new(
        "countersign.registry.max-engines-per-deployment",
        Takes::Integer(1, 1_000_000),
        "how many engines one deployment may have",
    )
    .or("1000"),
    Setting::new(
        "countersign.registry.max-new-engines-per-second",
        Takes::Integer(1, 1_000_000),
        "how many engines one deployment may add in a second",
    )
    .or("100"),
    Setting::new(
        "countersign.registry.url",
        Takes::Text,
        "where the registry keeps its engines",
    ),
    Setting::new(
        peer!("allowed-addresses"),
        Takes::List,
        "hosts and networks that may be dialled back",
    ),
    Setting::new(
        peer!("allow-low-ports"),
        Takes::Switch,
        "whether ports below 1024 may be dialled back",
    )
    .or("false"),
    Setting::new(
        peer!("single-use-tokens"),
        Takes::Switch,
        "whether this peer takes each token once",
    )
    .or("false"),
    Setting::new(
        peer!("tls-keys.<key>.fingerprint"),
        Takes::Text,
        "the key of the peer's certificate",
    ),
    Setting::new(
        "countersign.token.leeway",
        seconds(0, 300),
        "how far clocks may differ",
    )
    .or("30s"),
    Setting::new(
        "countersign.token.max-lifetime",
        seconds(1, DAY),
        "the longest life of an accepted token",
    )
    .or("900s"),
    Setting::new(
        "countersign.token.replay",
        Takes::Words(&["off", "strict"]),
        "whether a token is taken only once",
    )
    .or("off"),
    Setting::new(
        "countersign.proof.mode",
        Takes::Words(&["off", "handshake", "every-call"]),
        "which replies must be signed",
    )
    .or("handshake"),
    Setting::new(
        "countersign.reload",
        Takes::Switch,
        "whether a changed file takes effect at once",
    )
    .or("true"),
];
