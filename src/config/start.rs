//! From settings to a DPM or a DPE that runs on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::reload::Reloader;
use super::rules::tls::DIAL_BACK;
#[cfg(feature = "etcd")]
use super::settings::EtcdSettings;
use super::settings::{RegistryStore, Settings};
use crate::diagnostic::CommandLine;
use crate::dpe::{self, Dpe, StatusCheckerOptions};
use crate::dpm::{self, Dpm, MonitorOptions};
#[cfg(feature = "etcd")]
use crate::grpc::Target;
#[cfg(feature = "etcd")]
use crate::grpc::tls::PemFile;
use crate::grpc::tls::TlsError;
use crate::grpc::{Module, ModuleError};
use crate::http::Access;
#[cfg(feature = "etcd")]
use crate::registry::store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use crate::registry::store::{EngineStore, FileStore, MemoryStore};
use crate::storage::{Storage, StorageError};

/// Why no module can be started on its settings.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The deployments are ambiguous, which loading has ruled out.
    #[error("cannot use the settings")]
    Module(#[from] ModuleError),
    /// The storage folder or the registry's file cannot be used, or another process uses it.
    #[error("cannot start")]
    Storage(#[from] StorageError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// A port cannot be opened.
    #[error("cannot listen on {place}")]
    Listen {
        /// The address and what it is for.
        place: String,
        /// What to do about it.
        help: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Only an engine is one-way.
    #[error("`countersign.dpe.one-way` is for a DPE: a DPM serves its gRPC port")]
    OneWay,
    /// No connection leads to a DPM.
    #[error("no connection to a DPM is set")]
    NoDpm,
    /// The DPM cannot be made.
    #[error("cannot start the DPM")]
    Dpm(#[from] dpm::StartError),
    /// The DPE cannot be made.
    #[error("cannot start the DPE")]
    Dpe(#[from] dpe::StartError),
}

crate::failure::debug_as_text!(StartError);

const GRPC_HELP: &str = "set `ataccama.server.grpc.port` to a free port, or to 0 to have one chosen, and `countersign.server.address` to an address of this machine";
const HTTP_HELP: &str = "set `server.port` to a free port, or to 0 to have one chosen, and `server.address` to an address of this machine";

impl Settings {
    /// Makes the DPM of these settings, which holds its storage folder and its ports, and what
    /// follows its files.
    ///
    /// # Errors
    ///
    /// When the storage folder is in use, a port cannot be opened, TLS cannot be set up, or the
    /// settings are those of a one-way engine.
    pub async fn dpm(&self) -> Result<(Dpm, Reloader), StartError> {
        if self.options.engine.one_way {
            return Err(StartError::OneWay);
        }
        let module = self.module()?;
        let storage = Storage::lock(&self.home.storage())?;
        let mut replay = module.replay.iter();
        replay.try_for_each(|replay| replay.keep_in(&storage.folder))?;
        let addresses = self.address_book();
        let reloader = Reloader::with_addresses(self, &module, addresses.clone());
        let options = dpm::Options {
            limits: self.options.limits,
            monitor: MonitorOptions {
                connection: self.connection(&module, DIAL_BACK)?,
                ..self.options.monitor.clone()
            },
            addresses,
            server: self.server_options(&module)?,
            ..dpm::Options::default()
        };
        let (grpc, http) = (
            self.listen_for_calls().await?,
            self.listen_for_http().await?,
        );
        let store = self.engine_store(&storage, &module).await?;
        let dpm = Dpm::new(module, storage, grpc, store, options)?;
        Ok((dpm.with_site(http, self.http_access()), reloader))
    }

    /// Makes the DPE of these settings, which holds its storage folder and its ports, and what
    /// follows its files.
    ///
    /// # Errors
    ///
    /// When the storage folder is in use, a port cannot be opened, TLS cannot be set up, or the DPM
    /// is not trusted.
    pub async fn dpe(&self) -> Result<(Dpe, Reloader), StartError> {
        let module = self.module()?;
        let storage = Storage::lock(&self.home.storage())?;
        let mut replay = module.replay.iter();
        replay.try_for_each(|replay| replay.keep_in(&storage.folder))?;
        let reloader = Reloader::new(self, &module);
        let engine = &self.options.engine;
        let connection = self.options.client.connection("dpm");
        let dpm = connection.ok_or(StartError::NoDpm)?;
        let mut checker = StatusCheckerOptions::new(dpm.target.clone());
        checker.others.clone_from(&dpm.others);
        checker.check_connection_interval = engine.check_connection;
        checker.connection = self.connection(&module, "dpm")?;
        let dpm_home = self.home.dir.with_file_name("dpm");
        let start = CommandLine::new("countersign dpm run").option("home", dpm_home);
        checker.start_hint = format!("start it with: {start}");
        let new_id = CommandLine::new("countersign dpe new-id").option("home", &self.home.dir);
        checker.duplicate_hint = format!("stop it, and give a copy an id of its own: {new_id}");
        let mut options = dpe::Options::new(checker);
        let is_local = self.options.server.address.is_loopback() && !engine.one_way;
        options.hostname = match &engine.hostname {
            Some(hostname) => hostname.clone(),
            None if is_local => "localhost".to_owned(),
            None => gethostname::gethostname().to_string_lossy().into_owned(),
        };
        options.port = engine.port;
        options.dpm_deployment.clone_from(&dpm.deployment);
        options.server = self.server_options(&module)?;
        let grpc = if engine.one_way {
            None
        } else {
            Some(self.listen_for_calls().await?)
        };
        let http = self.listen_for_http().await?;
        let dpe = Dpe::new(module, storage, grpc, options)?;
        Ok((dpe.with_site(http, self.http_access()), reloader))
    }

    #[cfg_attr(
        not(feature = "etcd"),
        expect(clippy::unused_async, unused_variables, reason = "etcd is elsewhere")
    )]
    async fn engine_store(
        &self,
        storage: &Storage,
        module: &Module,
    ) -> Result<Arc<dyn EngineStore>, StartError> {
        let path = match &self.options.store {
            RegistryStore::Memory => return Ok(Arc::new(MemoryStore::default())),
            RegistryStore::File(None) => storage.folder.join("registry.redb"),
            RegistryStore::File(Some(path)) => self.home.dir.join(path),
            #[cfg(feature = "etcd")]
            RegistryStore::Etcd(etcd) => {
                let clock = Arc::clone(module.clock());
                let options = etcd_options(etcd, self.options.limits.max_engines)?;
                let store = EtcdStore::open(options, module.trust().twin(), clock).await;
                if let Some(replay) = &module.replay {
                    replay.share(|kept_for| store.claims(kept_for));
                }
                return Ok(Arc::new(store));
            }
            #[cfg(not(feature = "etcd"))]
            RegistryStore::Etcd(_) => {
                // Loading has refused it.
                let error = io::Error::from(io::ErrorKind::Unsupported);
                return Err(StorageError::of(&self.home.storage(), &error).into());
            }
        };
        Ok(Arc::new(FileStore::open(&path)?))
    }

    fn http_access(&self) -> Access {
        let server = &self.options.server;
        Access {
            allowed_hosts: server.allowed_hosts.clone(),
            metrics_beyond_loopback: server.metrics_beyond_loopback,
        }
    }

    async fn listen_for_calls(&self) -> Result<TcpListener, StartError> {
        let server = &self.options.server;
        let grpc = SocketAddr::new(server.address, server.port);
        open(grpc, "", GRPC_HELP).await
    }

    async fn listen_for_http(&self) -> Result<TcpListener, StartError> {
        let server = &self.options.server;
        let http = SocketAddr::new(server.http_address, server.http_port);
        open(http, " for HTTP", HTTP_HELP).await
    }
}

/// Reads the files with which etcd is called.
#[cfg(feature = "etcd")]
fn etcd_options(settings: &EtcdSettings, max_engines: usize) -> Result<EtcdOptions, TlsError> {
    let shown = settings.client.as_ref().map(|own| {
        let chain = own.cert_chain.read()?.to_vec();
        Ok::<_, TlsError>((chain, own.key_in_use()?.into_bytes().into()))
    });
    let trusted = settings.trust.as_ref().map(PemFile::read).transpose()?;
    let identity = shown.transpose()?;
    Ok(EtcdOptions {
        endpoints: settings.endpoints.iter().map(Target::to_string).collect(),
        user: settings.user.clone(),
        tls: trusted.map(|trusted| EtcdTls {
            trusted: trusted.to_vec(),
            identity,
        }),
        max_engines,
    })
}

async fn open(at: SocketAddr, what: &str, help: &'static str) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(at).await;
    listener.map_err(|source| StartError::Listen {
        place: format!("{at}{what}"),
        help,
        source,
    })
}
