//! What a module runs with, as plain values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::question::{Question, home_of};
use super::schema::TlsEnd;
use crate::diagnostic::{Findings, Origin};
use crate::dpm::MonitorOptions;
pub use crate::grpc::ProofMode;
use crate::grpc::tls::{ClientTlsOptions, OwnFiles, PemFile, ServerTlsOptions};
use crate::grpc::{ServerOptions, Target};
use crate::identity::{DeploymentName, Role};
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::properties::{ContentDigest, ReadError, Sourced, look};
use crate::registry::{AddressRules, Limits};
use crate::secret::Secret;
use crate::storage::revoked_keys::{self, Remembered};
use crate::telemetry::Logging;
use crate::token::Policy;
pub use crate::token::Replay;
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

/// A module's settings, complete and checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Its folders.
    pub(crate) home: Home,
    /// The module's own deployment.
    pub(crate) own: OwnDeployment,
    /// The deployments that it trusts.
    pub(crate) deployments: Vec<Deployment>,
    /// Everything else that the files set.
    pub(crate) options: Options,
    /// The names of what they set and only a DPM or a DPE applies.
    pub(crate) not_for_libraries: Vec<String>,
    /// Warnings and notes; errors end in a [`LoadError`](super::LoadError).
    pub(crate) findings: Findings,
    pub(super) source: Source,
}

/// What the files of a module set besides keys and deployments.
#[derive(Clone, Debug)]
pub struct Options {
    /// The module's own name, and where it is written.
    pub(crate) name: Option<(DeploymentName, Sourced)>,
    /// The phase of its key rotation.
    pub(crate) rotation: RotationSettings,
    /// Where the engines of each deployment may be dialled back, by its name.
    pub(crate) addresses: HashMap<String, AddressRules>,
    /// The role that the registry and the engine ask for.
    pub(crate) impersonation_role: Role,
    /// Times of tokens.
    pub(crate) policy: Policy,
    /// Whether a token is taken only once.
    pub(crate) replay: Replay,
    /// Which replies must be signed.
    pub(crate) proof: ProofMode,
    /// What its server does.
    pub(crate) server: ServerSettings,
    /// What its clients do.
    pub(crate) client: ClientSettings,
    /// How many engines a DPM keeps.
    pub(crate) limits: Limits,
    /// Where a DPM keeps them.
    pub(crate) store: RegistryStore,
    /// When a DPM dials its engines back; [`Settings::dpm`] adds how.
    pub(crate) monitor: MonitorOptions,
    /// How a DPE registers.
    pub(crate) engine: EngineSettings,
    /// Where the log goes.
    pub(crate) logging: Logging,
    /// Whether a changed file takes effect at once.
    pub(crate) reload: bool,
    /// TLS of its server and of each connection.
    pub(super) tls: Tls,
}

/// Where a DPM keeps its engines.
#[derive(Clone, Debug)]
pub enum RegistryStore {
    /// In memory: they register again after a restart.
    Memory,
    /// In this file, or in `registry.redb` in the storage folder.
    File(Option<PathBuf>),
    /// In etcd, shared with other DPMs.
    Etcd(EtcdSettings),
}

/// Where etcd is, and how it is called.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(test, feature = "etcd")),
    expect(dead_code, reason = "a build with a store in etcd opens it with these")
)]
pub struct EtcdSettings {
    /// Where it listens: each is a member of one cluster.
    pub endpoints: Vec<Target>,
    /// The user and its password.
    pub user: Option<(String, Secret<String>)>,
    /// The certificate to show, and its private key.
    pub client: Option<OwnFiles>,
    /// The certificates to trust: there is TLS where it is set.
    pub trust: Option<PemFile>,
}

impl Default for RegistryStore {
    fn default() -> Self {
        Self::File(None)
    }
}

/// What the server of a module does.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub struct ServerSettings {
    /// The address of the gRPC port.
    pub address: IpAddr,
    /// The gRPC port; 0 lets the system choose.
    pub port: u16,
    /// Whether there is a gRPC port: one is set, or the module has a default.
    pub has_port: bool,
    /// Whether an address beyond loopback may do without TLS.
    pub allow_plaintext: bool,
    /// Whether callers must prove who they are. `false` on loopback only.
    pub authenticate: bool,
    /// The bounds of the gRPC server; [`Settings::dpm`] and [`Settings::dpe`] add TLS.
    pub options: ServerOptions,
    /// Names of the HTTP port beside its address and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Whether the HTTP port shows metrics to others than this machine.
    pub metrics_beyond_loopback: bool,
    /// The address of the HTTP port.
    pub http_address: IpAddr,
    /// The HTTP port.
    pub http_port: u16,
    /// Whether the HTTP port is set.
    pub http_is_set: bool,
}

impl ServerSettings {
    /// Returns the loopback address at which this machine reaches the gRPC port: only there may
    /// the module's own operator call it.
    pub fn own_host(&self) -> IpAddr {
        match self.address {
            address if address.is_loopback() => address,
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Returns where the module's own operator calls it; `None` if it takes a free port at each
    /// start.
    pub fn own_target(&self) -> Option<Target> {
        let host = self.own_host().to_string();
        (self.port != 0).then(|| Target::new(&host, self.port))
    }

    /// Returns where this machine reaches the gRPC port; `None` if it takes a free port at each
    /// start.
    pub(crate) fn listener(&self) -> Option<Target> {
        from_here(self.address, self.port)
    }

    /// Returns where this machine reaches the HTTP port, likewise.
    pub(crate) fn http(&self) -> Option<Target> {
        from_here(self.http_address, self.http_port)
    }
}

fn from_here(bound: IpAddr, port: u16) -> Option<Target> {
    let address = match bound {
        any if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        address => address,
    };
    (port != 0).then(|| Target::new(&address.to_string(), port))
}

/// A connection to another module, `ataccama.client.connection.<c>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionSettings {
    /// Its name: the module type to call.
    pub name: String,
    /// Where it leads.
    pub target: Target,
    /// Where the same deployment listens too: `countersign.client.connection.<c>.addresses`.
    pub others: Vec<Target>,
    /// The deployment to call, if several have that module type.
    pub deployment: Option<DeploymentName>,
    /// Whether it is set anywhere; without that, `dpm` has defaults.
    pub(crate) is_written: bool,
}

impl ConnectionSettings {
    /// Iterates over all places where the module listens, in the order in which they are tried.
    pub fn targets(&self) -> impl Iterator<Item = &Target> + Clone {
        iter::once(&self.target).chain(&self.others)
    }
}

/// What the clients of a module do.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The connections; `dpm` is always among them.
    pub connections: Vec<ConnectionSettings>,
    /// Whether a connection beyond loopback may do without TLS.
    pub allow_plaintext: bool,
    /// The largest message accepted, in bytes.
    pub max_message_bytes: usize,
}

impl ClientSettings {
    /// Returns the connection called `name`.
    pub fn connection(&self, name: &str) -> Option<&ConnectionSettings> {
        self.connections.iter().find(|known| {
            look();
            known.name == name
        })
    }
}

/// How far the change of a module's own key is, as `countersign rotate` left it.
#[derive(Clone, Debug, Default)]
pub struct RotationSettings {
    /// The key that is to sign next, and its `kid`: peers may trust it already.
    pub next: Option<(SigningKey, KeyId)>,
    /// Since when the own key signs, until the one before it is revoked.
    pub activated_at: Option<SystemTime>,
    /// The keys before it that are not yet revoked, the last one at the end: computed fingerprints.
    pub previous: Vec<Fingerprint>,
}

impl RotationSettings {
    /// Returns the other keys that a token may be addressed to: the next one, which peers may know
    /// already, and those before, which they may know still.
    pub(super) fn accepted(&self) -> Vec<Fingerprint> {
        let next = self.next.as_ref().map(|(key, _)| key.fingerprint());
        let previous = self.previous.iter().copied();
        next.into_iter().chain(previous).collect()
    }
}

/// How a DPE registers with its DPM.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The advertised host, if one is configured.
    pub hostname: Option<String>,
    /// The advertised port, if one is configured. Default: the bound gRPC port.
    pub port: Option<u16>,
    /// Whether the engine takes no calls, and holds a stream to its DPM instead.
    pub one_way: bool,
    /// How often the DPE checks that it is registered.
    pub check_connection: Duration,
}

/// Returns `true` if `host` is surely this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let inner = host.trim_matches(['[', ']']);
    let address = inner.parse::<IpAddr>();
    inner.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The folders of a module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home {
    /// The home itself, with the folders `etc`, `log` and `storage`.
    pub dir: PathBuf,
    /// `etc/application.properties` in it, or the file that was named.
    pub file: PathBuf,
}

impl Home {
    /// A module's file in its home.
    pub(crate) const FILE: &'static str = "etc/application.properties";

    /// Takes `path` for a home if it is a folder, else for the file of one.
    pub fn new(path: &Path) -> Self {
        if path.is_dir() {
            let file = path.join(Self::FILE);
            let dir = path.to_owned();
            return Self { dir, file };
        }
        Self {
            dir: home_of(path),
            file: path.to_owned(),
        }
    }

    /// Takes `path` as [`Self::new`] does; where nothing is there yet, for a file only if it is
    /// called `….properties`.
    pub fn to_make(path: &Path) -> Self {
        let is_there = path.symlink_metadata().is_ok();
        if is_there || path.extension().is_some_and(|end| end == "properties") {
            return Self::new(path);
        }
        Self::new(&path.join(Self::FILE))
    }

    /// Returns its storage folder.
    pub(crate) fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    /// Returns the folder in which it remembers revoked keys; `None` for a file that is not
    /// `etc/application….properties`.
    pub(crate) fn memory(&self) -> Option<PathBuf> {
        let name = self.file.file_name()?.to_str()?;
        let is_in_etc = self.file.parent()?.file_name()? == "etc";
        let is_settings = name.starts_with("application") && name.ends_with(".properties");
        (is_in_etc && is_settings).then(|| self.storage())
    }

    /// Reads the revoked keys that it remembers.
    pub(crate) fn remembered(&self) -> Result<Remembered, ReadError> {
        let Some(storage) = self.memory() else {
            return Ok(Remembered::default());
        };
        let read = Remembered::read(&storage);
        read.map_err(|error| ReadError::new(revoked_keys::path(&storage), error))
    }
}

/// A setting with a foreign name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ignored {
    /// Where it is written.
    pub origin: Origin,
    /// Its name, without anything that looks like a private key.
    pub name: String,
}

/// The module's own key and where it is written.
#[derive(Clone, Debug)]
pub struct OwnKey {
    pub key: SigningKey,
    pub key_id: KeyId,
    pub at: Sourced,
}

/// A deployment as the file has it: what could be read of it, and where it is written.
#[derive(Clone, Debug)]
pub struct ReadDeployment {
    pub name: String,
    pub environment: Option<Sourced>,
    pub keys: Vec<ReadKey>,
    /// The TLS pins, each with its value.
    pub pins: Vec<(Fingerprint, Sourced)>,
    /// The deployment, unless something required is missing.
    pub deployment: Option<Deployment>,
}

/// A key as the file has it.
#[derive(Clone, Debug)]
pub struct ReadKey {
    pub trusted: TrustedKey,
    /// The value of its fingerprint.
    pub at: Sourced,
    /// The value that decides whether it is revoked, as written; `None` for the default.
    pub revoked_at: Option<Sourced>,
    /// Whether it is revoked only because the home remembers that.
    pub remembered: bool,
}

/// TLS as one file has it.
#[derive(Clone, Debug)]
pub struct Tls {
    pub server: Side<ServerTlsOptions>,
    /// By connection.
    pub clients: BTreeMap<String, Side<ClientTlsOptions>>,
}

impl Tls {
    /// Returns `true` if the connection `name` uses TLS.
    pub fn is_on(&self, name: &str) -> bool {
        self.clients.get(name).is_some_and(|side| side.on)
    }

    pub fn client(&self, name: &str) -> Option<ClientTlsOptions> {
        self.clients.get(name)?.options.clone()
    }

    /// Lists the module's own certificates: which end shows one, its files, and where they are
    /// named.
    pub fn own(&self) -> impl Iterator<Item = (TlsEnd<'_>, &OwnFiles, &Sourced)> {
        let named = self.server.options.iter().zip(&self.server.cert_chain_at);
        let server = named.map(|(options, at)| (TlsEnd::Server, &options.own, at));
        let clients = self.clients.iter().filter_map(|(name, side)| {
            let own = side.options.as_ref()?.own.as_ref()?;
            Some((TlsEnd::Client(name), own, side.cert_chain_at.as_ref()?))
        });
        server.chain(clients)
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Side<T> {
    pub on: bool,
    /// Where it is turned on or off, if anywhere.
    pub at: Option<Sourced>,
    /// Where the own certificate is named, if anywhere.
    pub cert_chain_at: Option<Sourced>,
    /// `None` if it is off or something is missing.
    pub options: Option<T>,
}

/// Where loaded settings come from, and what of it only a reload asks.
#[derive(Clone)]
pub struct Source {
    pub question: Arc<Question>,
    /// The content that they were read from.
    pub digest: ContentDigest,
    /// The files to look at, and whether they were there.
    pub files: Vec<(PathBuf, bool)>,
    /// Every value that only a restart changes, by name.
    pub cold: BTreeMap<String, String>,
    /// The trusted keys, each with the places where it is written.
    pub keys: HashMap<Fingerprint, ReadKey>,
    /// The revoked keys that the home remembers.
    pub remembered: Remembered,
}

impl Source {
    /// Names the settings that only a restart changes and that are others than in `before`.
    pub fn differing(&self, before: &Self) -> BTreeSet<String> {
        let names = self.cold.keys().chain(before.cold.keys());
        let differing = names.filter(|name| self.cold.get(*name) != before.cold.get(*name));
        differing.cloned().collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold a private key.
        f.debug_struct("Source").finish_non_exhaustive()
    }
}
