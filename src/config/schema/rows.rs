//! The settings that have an effect here, and what the table of settings says about one.

use std::borrow::Cow;
use std::time::Duration;

use self::Fallback::PerModule;
use self::Takes::{Integer, List, PrivateKey, PublicKey, Size, Switch, Text, Unused, Words};
use crate::properties::Path;
use crate::properties::bind::TimeUnit;
use crate::properties::name::{Match, Pattern, uniform};

/// Where the server's TLS may be set.
pub const SERVER: &[&str] = &["ataccama.server.grpc.tls", "ataccama.server.tls"];
/// Where a client's TLS may be set.
pub const CLIENT: &[&str] = &[
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

/// A setting: its name after the prefix of its group, what it takes, its default.
type Row = (&'static str, Takes, Fallback);

/// The settings with an effect, in the order of the documentation.
const GROUPS: &[(&str, &[Row])] = &[
    ("ataccama.authentication.internal.jwt", TOKENS),
    ("ataccama.authentication.grpc.internal.jwt", AUTHENTICATION),
    ("ataccama.one.platform.deployments.<name>", DEPLOYMENT),
    ("ataccama", VENDOR),
    ("server", HTTP),
    ("ataccama.one.dpm.registry", REGISTRY),
    ("countersign", OWN),
    ("spring", SPRING),
];

const DAY: u64 = 86_400;
const PORT: Takes = Integer(0, 65_535);
const COUNT: Takes = Integer(1, 1_000_000);
const INTERVAL: Takes = millis(10, DAY * 1000);
// The readers list their values in the order of these words.
const MTLS: &[&str] = &["none", "optional", "require", "required", "true", "false"];
const PROOFS: &[&str] = &["off", "handshake", "every-call"];
const NONE: Fallback = Fallback::None;

const fn or(text: &'static str) -> Fallback {
    Fallback::Text(text)
}

const fn seconds(least: u64, most: u64) -> Takes {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    Takes::Time(TimeUnit::Seconds, least, most)
}

const fn millis(least: u64, most: u64) -> Takes {
    let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
    Takes::Time(TimeUnit::Millis, least, most)
}

const TOKENS: &[Row] = &[
    // This module's own key: base64 of the private JWK.
    ("generator.key", PrivateKey, NONE),
    // How long issued tokens live.
    ("generator.token-expiration", seconds(1, DAY), or("300")),
    // The role a caller needs for the registry and the engine.
    ("impersonation-role", Text, or("IMPERSONATION")),
];

const AUTHENTICATION: &[Row] = &[
    // Whether callers must prove who they are; `false` on loopback only.
    ("enable", Switch, or("true")),
];

const DEPLOYMENT: &[Row] = &[
    // The module type, such as `dpe`.
    ("module", Text, NONE),
    // The environment, such as `dev`.
    ("environment", Text, NONE),
    // The peer's address; read and not used.
    ("uri", Text, NONE),
    // The `kid` that selects this key.
    ("security.jwt-keys.<key>.fingerprint", Text, NONE),
    // The public JWK, on one line.
    ("security.jwt-keys.<key>.content", PublicKey, NONE),
    // Whether the key is no longer accepted.
    ("security.jwt-keys.<key>.is-revoked", Switch, or("false")),
    // The roles of this deployment here.
    ("security.roles", List, NONE),
];

const VENDOR: &[Row] = &[
    // The gRPC port.
    ("server.grpc.port", PORT, PerModule("8531", "8532")),
    // The largest message accepted by the server, and by the client.
    ("server.grpc.max-message-size", Size, or("4MB")),
    ("client.grpc.properties.max-message-size", Size, or("4MB")),
    // Where `<c>` is, and its gRPC port.
    ("client.connection.<c>.host", Text, NONE),
    ("client.connection.<c>.grpc.port", PORT, NONE),
    // The host and port advertised to the DPM.
    ("one.dpe.service.hostname", Text, NONE),
    ("one.dpe.service.port", Integer(1, 65_535), NONE),
    // How often the DPE checks that it is registered.
    (CHECK_CONNECTION, INTERVAL, or("5000")),
    // Lines on standard error.
    ("logging.plain-text-console-appender", Switch, or("true")),
    ("logging.json-console-appender", Switch, or("false")),
    // Lines in files.
    ("logging.plain-text-file-appender", Switch, or("false")),
    ("logging.json-file-appender", Switch, or("true")),
];
const CHECK_CONNECTION: &str = "one.dpe.service.dpm.check-connection-interval";

const HTTP: &[Row] = &[
    // The HTTP port.
    ("port", PORT, PerModule("8031", "8034")),
    // The address of the HTTP port.
    ("address", Text, or("127.0.0.1")),
];

const REGISTRY: &[Row] = &[
    // How often a READY engine is checked.
    ("check-connected-interval", INTERVAL, or("1s")),
    // The first wait after an engine was lost, by how much it grows each time, and up to what.
    ("check-disconnected-interval", INTERVAL, or("1s")),
    (MULTIPLIER, Integer(1, 100), or("2")),
    ("check-disconnected-interval-max", INTERVAL, or("10m")),
    // How long a check may take.
    ("grpc-checker-timeout", millis(1, 60_000), or("200")),
    // After which time without a sign an engine is INACTIVE, and how often that is looked at.
    (INACTIVATE, seconds(1, 3650 * DAY), or("2d")),
    ("inactivate-scheduler-period", INTERVAL, or("600000")),
];
const MULTIPLIER: &str = "check-disconnected-interval-multiplier";
const INACTIVATE: &str = "automatically-inactivate-engines-not-seen-for";

const OWN: &[Row] = &[
    // This module's own deployment name.
    ("deployment.name", Text, NONE),
    // The deployment that is meant by connection `<c>`.
    ("client.connection.<c>.deployment", Text, NONE),
    // Whether a connection beyond loopback may do without TLS.
    ("client.allow-plaintext", Switch, or("false")),
    // The address of the gRPC port.
    ("server.address", Text, or("127.0.0.1")),
    // Whether an address beyond loopback may do without TLS.
    ("server.allow-plaintext", Switch, or("false")),
    // How many connections may be open, and how many from one address without a token.
    ("server.max-connections", Integer(64, 1_000_000), NONE),
    ("server.max-connections-per-address", COUNT, or("128")),
    // How long callers without a token may watch the health.
    (
        "server.health-watch",
        Words(&["bounded", "open"]),
        or("bounded"),
    ),
    // Names of the HTTP port beside its address, and whether others than this machine get metrics.
    ("http.allowed-hosts", List, NONE),
    ("http.metrics-beyond-loopback", Switch, or("false")),
    // How long open calls may take at the end.
    ("server.shutdown-deadline", seconds(0, 3600), or("8s")),
    // How many engines are kept, how many of one deployment, how many new ones in a second.
    ("registry.max-engines", COUNT, or("10000")),
    ("registry.max-engines-per-deployment", COUNT, or("1000")),
    ("registry.max-new-engines-per-second", COUNT, or("100")),
    // Where the registry keeps its engines.
    ("registry.url", Text, NONE),
    // How far clocks may differ.
    ("token.leeway", seconds(0, 300), or("30s")),
    // The longest life of an accepted token.
    ("token.max-lifetime", seconds(1, DAY), or("900s")),
    // Whether a token is taken only once.
    ("token.replay", Words(&["off", "strict"]), or("off")),
    // Which replies must be signed.
    ("proof.mode", Words(PROOFS), or("handshake")),
    // Whether a changed file takes effect at once.
    ("reload", Switch, or("true")),
    // Hosts and networks that may be dialled back, and whether on ports below 1024.
    ("deployments.<name>.allowed-addresses", List, NONE),
    ("deployments.<name>.allow-low-ports", Switch, or("false")),
    // Whether this peer takes each token once.
    ("deployments.<name>.single-use-tokens", Switch, or("false")),
    // The key of the peer's certificate.
    ("deployments.<name>.tls-keys.<key>.fingerprint", Text, NONE),
    // Where `rotate` keeps how far it is: the next private key until it signs.
    ("rotation.next-key", PrivateKey, NONE),
    // Since when the own key signs, until the one before it is revoked.
    ("rotation.activated-at", Text, NONE),
    // The key that signed before, until it is revoked.
    ("rotation.previous-fingerprint", Text, NONE),
];

/// What decides which documents and files count.
const SPRING: &[Row] = &[
    // The active profiles, those that are always active, and those without any other.
    ("profiles.active", List, NONE),
    ("profiles.include", List, NONE),
    ("profiles.default", List, NONE),
    // The profiles that `<name>` makes active too.
    ("profiles.group.<name>", List, NONE),
    // Other files to read.
    ("config.import", List, NONE),
    // The profiles that a document depends on.
    ("config.activate.on-profile", List, NONE),
    // What is refused, or has an effect outside of files only.
    ("config.activate.on-cloud-platform", Text, NONE),
    ("config.location", List, NONE),
    ("config.additional-location", List, NONE),
    ("config.name", Text, NONE),
    ("config.use-legacy-processing", Text, NONE),
    ("profiles", Text, NONE),
];

const NO_CERTIFICATE: &str =
    "no certificate is made at the start; `countersign pair --tls` makes one";
const ALWAYS_CHECKED: &str = "certificates are always checked; name or pin the peer's instead";

/// The settings below each place where TLS may be set.
const TLS: &[Row] = &[
    // Whether this connection uses TLS.
    ("enabled", Switch, NONE),
    // Whether the client shows a certificate too.
    ("mtls", Words(MTLS), NONE),
    // PEM files: the own certificate chain, its private key, the trusted certificates.
    ("cert-chain", Text, NONE),
    ("private-key", Text, NONE),
    ("trust-cert-collection", Text, NONE),
    ("allow-generate", Unused(NO_CERTIFICATE), NONE),
    ("hostname", Unused(NO_CERTIFICATE), NONE),
    ("trust-all", Unused(ALWAYS_CHECKED), NONE),
    ("**", Unused(STORES_ARE_NOT_READ), NONE),
];

/// Ends of names that have another spelling, and the end of that.
const SPELLINGS: &[(&str, &str)] = &[
    (".tls.enabled", ".tls.on"),
    (
        "server.grpc.max-message-size",
        "server.grpc.properties.max-message-size",
    ),
];

const STORES_ARE_NOT_READ: &str = "Java key stores are not read; give PEM files instead";

/// The settings without an effect, below why they have none; `.**` matches every name below.
const RECOGNISED: &str = include_str!("recognised.txt");

/// Makes the settings of the table, those with an effect first; of several that fit a name, the
/// first counts.
pub fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    let tls = SERVER.iter().chain(CLIENT).map(|prefix| (*prefix, TLS));
    for (prefix, rows) in GROUPS.iter().copied().chain(tls) {
        for (name, takes, fallback) in rows {
            let name = format!("{prefix}.{name}").leak();
            settings.push(Setting::new(name, name, *takes, *fallback));
            for (end, other) in SPELLINGS {
                if let Some(start) = name.strip_suffix(end) {
                    let spelling = format!("{start}{other}").leak();
                    settings.push(Setting::new(spelling, name, *takes, NONE));
                }
            }
        }
    }
    let mut why = "";
    for line in RECOGNISED.lines() {
        match line.strip_prefix("    ") {
            Some(name) => settings.push(Setting::new(name, name, Unused(why), NONE)),
            None => why = line,
        }
    }
    settings
}

/// One setting: its name, what it takes, and its default; ready to be compared with names.
#[derive(Debug)]
pub struct Setting {
    /// The name, with map keys in angle brackets.
    pub name: &'static str,
    /// The name it is kept under: its own, or that of the setting it is another spelling of.
    pub canonical: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// The default of the setting.
    pub fallback: Fallback,
    pub pattern: Pattern,
    /// The parts between the map keys, in the form in which spellings agree.
    pub uniform: Vec<String>,
    /// Whether every name below it matches too.
    pub open: bool,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Takes {
    /// `true` or `false`.
    Switch,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// A duration within bounds; a bare number counts in the unit.
    Time(TimeUnit, Duration, Duration),
    /// A size in bytes.
    Size,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// Any text.
    Text,
    /// Texts, `[0]`, `[1]`… or separated by commas.
    List,
    /// A public JWK.
    PublicKey,
    /// A private key: never shown, never copied.
    PrivateKey,
    /// Recognised, and of no effect here: why.
    Unused(&'static str),
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// Nothing.
    None,
    /// This text, for every module.
    Text(&'static str),
    /// One text for a DPM, one for a DPE, none for others.
    PerModule(&'static str, &'static str),
}

/// Where the vendor's part of the settings names the trusted deployments.
pub const DEPLOYMENTS: &str = "ataccama.one.platform.deployments";

/// Names under which an unknown one is an error.
pub const STRICT: [&str; 3] = [
    DEPLOYMENTS,
    "ataccama.authentication.internal.jwt",
    "countersign",
];

impl Setting {
    /// Makes the setting `name`, which is kept as `canonical`; an end `.**` means every name below.
    pub fn new(
        name: &'static str,
        canonical: &'static str,
        takes: Takes,
        fallback: Fallback,
    ) -> Self {
        let shape = name.strip_suffix(".**").unwrap_or(name);
        let parts = shape.split('<');
        Self {
            name,
            canonical,
            takes,
            fallback,
            pattern: Pattern::new(shape),
            uniform: parts
                .map(|part| uniform(part.split_once('>').map_or(part, |(_, rest)| rest)))
                .collect(),
            open: shape != name,
        }
    }

    /// Returns `true` if it has an effect here.
    pub fn is_used(&self) -> bool {
        !matches!(self.takes, Unused(_))
    }

    /// Returns `true` if its value is a private key.
    pub fn is_private(&self) -> bool {
        matches!(self.takes, PrivateKey)
    }

    /// Returns `true` if it decides who is trusted with what, or who can reach it: a duplicate is
    /// an error then.
    pub fn decides_trust(&self) -> bool {
        let parts = [".internal.jwt.", ".tls."];
        let is_part = parts.iter().any(|part| self.name.contains(part));
        let is_strict = STRICT.iter().any(|prefix| self.name.starts_with(prefix));
        self.is_used() && (is_part || is_strict || self.name == "server.address")
    }

    /// Puts it where `found` has it; `None` if more than a list's index follows its name, or if it
    /// is open and nothing follows.
    pub fn placed(&'static self, found: &Match) -> Option<Placed> {
        let index = match found.rest.as_slice() {
            [] if !self.open => None,
            [_, ..] if self.open => None,
            [index] if matches!(self.takes, List) => Some(index.clone()),
            _ => return None,
        };
        let keys = found.keys.iter().cloned().map(Cow::Owned);
        Some(Placed {
            setting: self,
            path: filled(self.canonical, keys, Cow::Borrowed).collect(),
            // `roles[]` is `roles` to Spring.
            index: index.filter(|index| !index.is_empty()),
        })
    }
}

/// Cuts `name` into segments, with `keys` for its map keys.
pub fn filled<'n, T: Default>(
    name: &'n str,
    keys: impl IntoIterator<Item = T>,
    literal: fn(&'n str) -> T,
) -> impl Iterator<Item = T> {
    let mut names = keys.into_iter();
    name.split('.')
        .map(move |segment| match segment.strip_prefix('<') {
            Some(_) => names.next().unwrap_or_default(),
            None => literal(segment),
        })
}

/// A setting at its place: map keys filled in.
#[derive(Clone, Debug)]
pub struct Placed {
    pub setting: &'static Setting,
    /// The canonical name, cut into segments, with the map keys as written.
    pub path: Path,
    /// The list index, as written.
    pub index: Option<String>,
}

impl Placed {
    /// Returns `true` if it is at `path` or below.
    pub fn is_below(&self, path: &[&str]) -> bool {
        let start = self.path.get(..path.len());
        start.is_some_and(|start| start == path)
    }

    /// Returns the canonical name.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}
