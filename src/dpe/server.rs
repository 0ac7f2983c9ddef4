//! A DPE from start to stop: its id, what it serves, and its registration.

use std::fs::{self, File};
use std::future::ready;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::one_way::StreamHolder;
use super::status_checker::{Registrant, Registration, StatusChecker, StatusCheckerOptions};
use crate::engine::{AddressError, EngineAddress, EngineConstraints, EngineId, Instance};
use crate::files;
use crate::grpc::network::Port;
use crate::grpc::{
    ConnectError, Drained, MethodRules, Module, Rule, ServeError, ServerOptions, UnknownDeployment,
};
use crate::http::Access;
use crate::identity::DeploymentName;
use crate::program::{self, Program, site};
use crate::proto::engine as wire;
use crate::proto::engine::engine_service_server as server;
use crate::proto::engine::engine_service_server::EngineService as Service;
use crate::storage::{Storage, StorageError};
use crate::token::proof::EngineClaim;

/// Why a DPE does not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine's id cannot be read or made.
    #[error(transparent)]
    EngineId(#[from] StorageError),
    /// The servers are not set up.
    #[error(transparent)]
    Program(#[from] program::StartError),
    /// The advertised address is invalid.
    #[error("the advertised address cannot be used")]
    Advertised(#[from] AddressError),
    /// The DPM's deployment is not among the trusted ones.
    #[error("the DPM's deployment is unknown")]
    Dpm(#[from] UnknownDeployment),
    /// The DPM's address is invalid.
    #[error("the DPM's address cannot be used")]
    DpmAddress(#[from] ConnectError),
}

crate::failure::debug_as_text!(StartError);

/// How a DPE runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The advertised host.
    pub hostname: String,
    /// The advertised port. Default: the bound port.
    pub port: Option<u16>,
    /// What the engine needs and offers.
    pub constraints: EngineConstraints,
    /// The DPM's deployment. Default: the one trusted deployment of module `dpm`.
    pub dpm_deployment: Option<DeploymentName>,
    /// How the engine keeps registered.
    pub status_checker: StatusCheckerOptions,
    /// The bounds of the server.
    pub server: ServerOptions,
}

impl Options {
    /// Takes the defaults: advertises `localhost` and the bound port.
    pub fn new(status_checker: StatusCheckerOptions) -> Self {
        Self {
            hostname: "localhost".to_owned(),
            port: None,
            constraints: EngineConstraints::default(),
            dpm_deployment: None,
            status_checker,
            server: ServerOptions::default(),
        }
    }
}

/// A DPE that is ready to serve.
#[derive(Debug)]
pub struct Dpe {
    program: Program,
    engine: Registrant,
    checker: StatusChecker,
}

impl Dpe {
    /// Makes a DPE that holds `storage`, where the engine's id is kept, and will serve on
    /// `listener`. Without one it is a one-way engine: it takes no calls, and holds a stream over which
    /// its DPM asks it.
    ///
    /// # Errors
    ///
    /// When the engine's id cannot be read or made, the advertised address is invalid, or the DPM
    /// is not trusted.
    pub fn new(
        module: Module,
        storage: Storage,
        listener: impl Into<Option<TcpListener>>,
        options: Options,
    ) -> Result<Self, StartError> {
        Self::on(module, storage, listener.into().map(Port::System), options)
    }

    /// Makes a DPE as [`new`](Self::new) does, on a port of any network.
    pub(crate) fn on(
        module: Module,
        storage: Storage,
        served: Option<Port>,
        options: Options,
    ) -> Result<Self, StartError> {
        let is_one_way = served.is_none();
        let id = load_or_create(&storage.folder)?;
        let dpm = match options.dpm_deployment {
            Some(name) => name,
            None => module.deployment_of("dpm")?,
        };
        let identity = module.layer_for(dpm.as_str())?;
        let methods = rules(&module);
        let program = Program::new(module, Some(storage), served, options.server, methods)?;
        let port = options.port.unwrap_or_else(|| program.address.port());
        let engine = Registrant {
            id,
            address: if is_one_way {
                EngineAddress::one_way(&options.hostname)?
            } else {
                EngineAddress::new(&options.hostname, port.into())?
            },
            constraints: options.constraints,
            instance: Instance::from_random(Uuid::new_v4().into_bytes()),
        };
        let mut how = options.status_checker;
        how.connection = how.connection.towards(&dpm);
        let checker = StatusChecker::new(engine.clone(), &identity, &program.module, how)?;
        Ok(Self {
            program,
            engine,
            checker,
        })
    }

    /// Also answers probes and scrapers on `listener`, over HTTP.
    #[must_use]
    pub fn with_http(self, listener: TcpListener) -> Self {
        self.with_site(listener, Access::default())
    }

    /// Serves HTTP as [`with_http`](Self::with_http) does, and answers callers on other machines as
    /// `access` says.
    pub(crate) fn with_site(mut self, listener: TcpListener, access: Access) -> Self {
        let shown = site(&self.program.module, access, || ready(()));
        self.program.http = Some((listener, shown));
        self
    }

    /// Returns the bound address; its port is 0 for a one-way engine.
    pub fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Returns the engine's id.
    pub fn engine_id(&self) -> EngineId {
        self.engine.id
    }

    /// Follows the engine's registration.
    pub fn registration(&self) -> watch::Receiver<Registration> {
        self.checker.registration()
    }

    /// Serves and keeps registered until `shutdown` completes; then deregisters and drains, for the
    /// shutdown deadline at most.
    ///
    /// # Errors
    ///
    /// When the server stops by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ServeError> {
        let Self {
            mut program,
            engine,
            checker,
        } = self;
        let claim = EngineClaim::new(engine.id, &engine.address, Some(engine.instance));
        let service = EngineService { claim };
        program.layer = program.layer.as_engine(service.claim().clone());
        let service = server::EngineServiceServer::new(service)
            .max_decoding_message_size(program.server.max_message_bytes);
        program.routes = program.routes.add_service(service);
        program.start(Some(&engine.address)).await;

        let drain_within = program.server.shutdown_deadline;
        let begun = OnceLock::new();
        let stop = CancellationToken::new();
        let mut registered = JoinSet::new();
        if engine.address.is_one_way() {
            program.tasks.spawn(StreamHolder::of(&checker).run());
        }
        registered.spawn(checker.run(stop.clone().cancelled_owned()));
        let stopping = async {
            shutdown.await;
            begun.get_or_init(Instant::now);
        };
        let last = async {
            stop.cancel();
            let deadline = *begun.get_or_init(Instant::now) + drain_within;
            match timeout_at(deadline, registered.join_next()).await {
                Ok(Some(Ok(true))) => "; the DPM holds no registration of this engine any more",
                _ => "; the DPM was not notified",
            }
        };
        // The engine deregisters while the server drains.
        program.serve(stopping, || stop.cancel(), last).await
    }
}

fn rules(module: &Module) -> MethodRules {
    let caller = Rule::role(module.impersonation_role().clone());
    MethodRules::deny_all().with(server::SERVICE_NAME, "CheckStatus", caller)
}

/// Reads the engine's id from `<storage>/engine-id`, if a DPE has made one.
///
/// # Errors
///
/// When the file cannot be read, or holds something else than an id.
pub fn stored_engine_id(storage: &Path) -> Result<Option<EngineId>, StorageError> {
    let path = storage.join("engine-id");
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of(&path, &error)),
        Ok(id) => Ok(Some(id)),
    }
}

/// Reads the engine's id from `<storage>/engine-id`, or makes it there once.
///
/// The file is written whole or not at all, and one that holds anything else is kept: a new id
/// would be a new engine. The lock on the storage folder, which the caller holds, keeps a second
/// process out.
///
/// # Errors
///
/// When the file cannot be read or written, or holds something else than an id.
pub fn load_or_create(storage: &Path) -> Result<EngineId, StorageError> {
    if let Some(id) = stored_engine_id(storage)? {
        return Ok(id);
    }
    make_engine_id(storage)
}

/// Makes an engine's id, and writes it to `<storage>/engine-id` in place of one that is there. The
/// caller holds the lock on the folder.
///
/// # Errors
///
/// When the file cannot be written.
pub fn make_engine_id(storage: &Path) -> Result<EngineId, StorageError> {
    let id = EngineId::from_random(Uuid::new_v4().into_bytes());
    let path = storage.join("engine-id");
    let written = write(storage, &path, id);
    written.map_err(|error| StorageError::of(&path, &error))?;
    Ok(id)
}

fn read(path: &Path) -> io::Result<EngineId> {
    let mut text = Vec::new();
    let file = files::read_own(path)?;
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    let id = String::from_utf8_lossy(&text).trim().parse();
    id.map_err(|error| {
        let help = "restore the file, or remove it to become a new engine";
        io::Error::other(format!("it holds no engine id: {error}; {help}"))
    })
}

fn write(storage: &Path, path: &Path, id: EngineId) -> io::Result<()> {
    let half_written = storage.join("engine-id.new");
    if let Err(error) = fs::remove_file(&half_written)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = File::options();
    let mut file = files::open_own(&half_written, options.write(true).create_new(true))?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&half_written, path)?;
    // The new name outlasts a crash only once its folder is written.
    File::open(storage)?.sync_all()
}

const MAX_BYTES: u64 = 1024;

/// Serves `countersign.engine.v1.EngineService` for one engine.
///
/// The layer before it has verified the caller and its role, and signs the proof, where the caller
/// asks for one: give it the [`claim`](Self::claim).
#[derive(Clone, Debug)]
pub struct EngineService {
    claim: EngineClaim,
}

impl EngineService {
    /// Answers as the engine `id` at `address`, as it registers itself.
    pub fn new(id: EngineId, address: &EngineAddress) -> Self {
        Self {
            claim: EngineClaim::new(id, address, None),
        }
    }

    /// Returns the engine that the proofs are to name, refusals' too.
    pub fn claim(&self) -> &EngineClaim {
        &self.claim
    }
}

#[tonic::async_trait]
impl Service for EngineService {
    async fn check_status(
        &self,
        _request: Request<wire::CheckStatusRequest>,
    ) -> Result<Response<wire::CheckStatusResponse>, Status> {
        let engine_id = self.claim.id.clone();
        Ok(Response::new(wire::CheckStatusResponse { engine_id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_made_once_and_kept() {
        let storage = tempfile::tempdir().unwrap();

        let made = load_or_create(storage.path()).unwrap();
        let kept = load_or_create(storage.path()).unwrap();

        assert_eq!(made, kept);
        let names: Vec<_> = fs::read_dir(storage.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["engine-id"]);
    }

    #[test]
    fn two_folders_are_two_engines() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

        assert_ne!(
            load_or_create(a.path()).unwrap(),
            load_or_create(b.path()).unwrap()
        );
    }

    #[test]
    fn broken_file_is_named_and_left_alone() {
        let storage = tempfile::tempdir().unwrap();
        let path = storage.path().join("engine-id");
        for broken in ["", "no id", "\0\u{1}", &"x".repeat(100_000)] {
            fs::write(&path, broken).unwrap();

            let error = load_or_create(storage.path()).unwrap_err();

            let text = crate::failure::cause(&error);
            assert!(text.contains("engine-id`: it holds no engine id"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), broken);
        }
        fs::write(&path, [0xff; 36]).unwrap();
        assert!(load_or_create(storage.path()).is_err());
    }

    #[test]
    fn half_written_id_of_a_crash_is_replaced() {
        let storage = tempfile::tempdir().unwrap();
        fs::write(storage.path().join("engine-id.new"), "0031de").unwrap();

        let made = load_or_create(storage.path()).unwrap();

        assert_eq!(load_or_create(storage.path()).unwrap(), made);
    }

    #[test]
    fn folder_in_place_of_the_file_is_an_error() {
        let storage = tempfile::tempdir().unwrap();
        fs::create_dir(storage.path().join("engine-id")).unwrap();

        let error = load_or_create(storage.path()).unwrap_err();

        assert!(matches!(error, StorageError::Io { .. }), "{error}");
    }

    #[test]
    fn a_link_or_a_pipe_is_refused_at_once_and_its_target_is_untouched() {
        let storage = tempfile::tempdir().unwrap();
        let [id, new, other] =
            ["engine-id", "engine-id.new", "other"].map(|name| storage.path().join(name));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &new).unwrap();
        let made = load_or_create(storage.path()).unwrap();
        assert_eq!(stored_engine_id(storage.path()).unwrap(), Some(made));
        fs::remove_file(&id).unwrap();
        std::os::unix::fs::symlink(&other, &id).unwrap();
        let link = load_or_create(storage.path()).unwrap_err();
        fs::remove_file(&id).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&id).status();
        assert!(pipe.unwrap().success());
        let pipe = load_or_create(storage.path()).unwrap_err();

        for error in [link, pipe] {
            assert!(matches!(error, StorageError::Io { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }
}
