//! From a module's home to everything it needs to run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Findings, Severity};
use crate::grpc::{Module, ModuleError, Tokens};
use crate::identity::{ModuleType, Role};
use crate::properties::ReadError;
use crate::registry::AddressRules;
use crate::token::Policy;
use crate::trust::{Deployment, OwnDeployment};

use super::inspect::inspect;
use super::own::{
    ClientSettings, EngineSettings, Home, LoggingSettings, PeerSettings, ProofMode,
    RegistrySettings, Replay, ServerSettings,
};
use super::question::{ModuleKind, Question};
use super::rotation::RotationSettings;
use super::sources::{Asked, Source, Texts};

/// A module's settings, complete and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its folders.
    pub home: Home,
    /// Who it is.
    pub own: OwnDeployment,
    /// How far the change of its own key is.
    pub rotation: RotationSettings,
    /// The deployments that it trusts.
    pub deployments: Vec<Deployment>,
    /// What we add about those.
    pub peers: Vec<PeerSettings>,
    /// The role that the registry and the engine ask for.
    pub impersonation_role: Role,
    /// Times of tokens.
    pub policy: Policy,
    /// Whether a token is taken only once.
    pub replay: Replay,
    /// Which replies must be signed.
    pub proof: ProofMode,
    /// What its server does.
    pub server: ServerSettings,
    /// What its clients do.
    pub client: ClientSettings,
    /// What a DPM does with its engines.
    pub registry: RegistrySettings,
    /// What a DPE tells its DPM.
    pub engine: EngineSettings,
    /// Which log lines go where.
    pub logging: LoggingSettings,
    /// Whether a changed file takes effect at once.
    pub reload: bool,
    /// Warnings and notes; errors end in a [`LoadError`].
    pub findings: Findings,
    pub(super) source: Source,
}

/// Why settings could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// The file has faults.
    #[error("{}", summary(.0))]
    Findings(Findings),
    /// The file of a profile was read before and is not there any more, and the profile is active.
    #[error("`{}` is gone, and its profile is still active", .0.display())]
    Gone(PathBuf),
    /// The file is in order, but no module can be made of it; a fault of this program.
    #[error("no module can be made of these settings")]
    Module(#[from] ModuleError),
    /// The settings could not be put together; a fault of this program.
    #[error("the settings cannot be put together")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LoadError {
    /// Returns what is wrong with the file, where it could be read.
    pub fn findings(&self) -> Option<&Findings> {
        match self {
            Self::Findings(findings) => Some(findings),
            _ => None,
        }
    }
}

fn summary(findings: &Findings) -> String {
    let errors = findings.errors();
    let first = findings.iter().find(|f| f.severity() == Severity::Error);
    match (first, errors) {
        (Some(first), 1) => first.to_string(),
        (Some(first), _) => format!("{first} (and {} more errors)", errors.saturating_sub(1)),
        (None, _) => "the settings cannot be used".to_owned(),
    }
}

impl Home {
    /// Takes `path` for a home if it is a folder, else for the file of one.
    pub fn new(path: &Path) -> Self {
        if path.is_dir() {
            return Self::around(path.to_owned(), path.join("etc/application.properties"));
        }
        let etc = path.parent();
        let dir = match etc.and_then(Path::file_name) {
            Some(name) if name == "etc" => etc.and_then(Path::parent),
            _ => etc,
        };
        let dir = dir.map_or_else(PathBuf::new, Path::to_owned);
        Self::around(dir, path.to_owned())
    }

    fn around(dir: PathBuf, file: PathBuf) -> Self {
        Self {
            log: dir.join("log"),
            storage: dir.join("storage"),
            dir,
            file,
        }
    }
}

impl Settings {
    /// Loads the settings of the module at `home`: a folder with `etc/application.properties`, or
    /// such a file.
    ///
    /// Defaults are overridden by the file, that by `environment`, and that by `sets`, the
    /// `name=value` pairs of `--set`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has faults: then all of them are in the error.
    pub fn load(
        home: &Path,
        kind: &ModuleKind,
        environment: impl IntoIterator<Item = (String, String)>,
        sets: &[(String, String)],
    ) -> Result<Self, LoadError> {
        let asked = Asked {
            kind: kind.clone(),
            environment: environment.into_iter().collect(),
            sets: sets.to_vec(),
        };
        let home = Home::new(home);
        let texts = Texts::read(&home.file, &asked).map_err(LoadError::Read)?;
        Self::of(home, &Arc::new(asked), &texts)
    }

    /// Loads settings from what the files of `before` hold now, all else as it was.
    pub(super) fn from_texts(before: &Self, texts: &Texts) -> Result<Self, LoadError> {
        if let Some(gone) = texts.gone_since(&before.source) {
            return Err(LoadError::Gone(gone.to_owned()));
        }
        Self::of(before.home.clone(), &before.source.asked, texts)
    }

    fn of(home: Home, asked: &Arc<Asked>, texts: &Texts) -> Result<Self, LoadError> {
        let question = Question {
            home: Some(&home.dir),
            kind: Some(&asked.kind),
            environment: &asked.environment,
            sets: &asked.sets,
            assumed: &[],
        };
        let inspected = inspect(&question, &texts.files());
        let source = Source::new(Arc::clone(asked), texts, &inspected);
        let mut findings = inspected.findings;
        let own = inspected.own.filter(|_| findings.errors() == 0);
        let Some(own) = own else {
            findings.sort();
            return Err(LoadError::Findings(findings));
        };
        let options = inspected.options;
        let module = asked
            .kind
            .module_type()
            .map_err(|error| LoadError::Internal(error.into()))?;
        let deployments = inspected.deployments.into_iter();
        Ok(Self {
            home,
            own: OwnDeployment {
                module,
                name: options.name.map(|(name, _)| name),
                key: own.key,
                key_id: own.key_id,
                accepted: inspected.rotation.accepted(),
            },
            rotation: inspected.rotation,
            deployments: deployments.filter_map(|read| read.deployment).collect(),
            peers: options.peers,
            impersonation_role: inspected.impersonation,
            policy: options.policy,
            replay: options.replay,
            proof: options.proof,
            server: options.server,
            client: options.client,
            registry: options.registry,
            engine: options.engine,
            logging: options.logging,
            reload: options.reload,
            findings,
            source,
        })
    }

    /// Counts what `check` would warn of.
    pub(super) fn warnings(&self) -> usize {
        let warnings = self.findings.iter();
        warnings
            .filter(|found| found.severity() == Severity::Warning)
            .count()
    }

    /// Returns where the engines of each deployment may be dialled.
    pub fn address_rules(&self) -> HashMap<String, AddressRules> {
        let peers = self.peers.iter();
        peers
            .map(|peer| (peer.name.clone(), peer.addresses.clone()))
            .collect()
    }

    /// Makes the module of these settings.
    ///
    /// # Errors
    ///
    /// When the deployments are ambiguous, which loading has ruled out.
    pub fn module(&self) -> Result<Module, ModuleError> {
        let tokens = if self.server.authenticate {
            Tokens::Required
        } else {
            Tokens::OptionalOnLoopback
        };
        let start = Module::builder(self.own.clone())
            .dangerous_tokens(tokens)
            .policy(self.policy)
            .proof_mode(self.proof)
            .replay(self.replay)
            .impersonation_role(self.impersonation_role.clone());
        let trusting = self.deployments.iter().cloned();
        trusting
            .fold(start, crate::grpc::ModuleBuilder::trust)
            .build()
    }
}

/// Returns the variables of this process's environment, without those that are no text.
#[expect(clippy::disallowed_methods, reason = "config reads the environment")]
pub fn environment() -> Vec<(String, String)> {
    let variables = std::env::vars_os();
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Tells whether the environment's `variable` may be read as a setting, ours or Spring's.
pub fn may_be_setting(variable: &str) -> bool {
    let variable = variable.to_ascii_lowercase();
    let families = ["ataccama", "countersign", "spring"];
    families.iter().any(|family| variable.starts_with(family))
}

impl Module {
    /// Loads a module from `home`: a folder with `etc/application.properties`, or such a file.
    ///
    /// Variables of the environment override settings of the file, as in Spring Boot. The module
    /// type is the folder's name, such as `dpm`; it is told to nobody but in `WhoAmI`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has faults: then all of them are in the error.
    pub fn load(home: impl AsRef<Path>) -> Result<Self, LoadError> {
        let home = home.as_ref();
        let folder = Home::new(home).dir;
        let name = folder.file_name().and_then(std::ffi::OsStr::to_str);
        let named = name.and_then(|name| ModuleType::new(name).ok());
        let module = match named {
            Some(module) => module,
            None => ModuleType::new("module").map_err(|error| LoadError::Internal(error.into()))?,
        };
        let settings = Settings::load(home, &ModuleKind::Other(module), environment(), &[])?;
        Ok(settings.module()?)
    }
}
