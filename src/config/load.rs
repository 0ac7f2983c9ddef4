//! From a module's home to its settings, and from those to the module.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use super::inspect::inspect;
use super::question::{ModuleKind, Question};
use super::rules::cross;
use super::settings::{Home, Settings, Source};
use super::spring::{self, Texts};
use crate::diagnostic::{Findings, Severity};
use crate::grpc::tls::TlsError;
use crate::grpc::{
    ConnectionOptions, KeepAlive, Module, ModuleBuilder, ModuleError, Plaintext, Route,
    ServerOptions, Tokens, Wiring,
};
use crate::properties::ReadError;
use crate::registry::AddressBook;
use crate::storage::revoked_keys::Remembered;
use crate::trust::OwnDeployment;

/// Why settings could not be loaded.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// The file has faults.
    #[error("{}", summary(.0))]
    Findings(Findings),
    /// A file was read before and no longer exists, and its profile is active, or a file imports
    /// it.
    #[error("`{}` no longer exists, but its profile is still active, or a file still imports it", .0.display())]
    Gone(PathBuf),
    /// The file is in order, but no module can be made of it; a fault of this program.
    #[error("no module can be made of these settings")]
    Module(#[from] ModuleError),
    /// The settings could not be put together; a fault of this program.
    #[error("the settings cannot be combined")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

crate::failure::debug_as_text!(LoadError);

impl LoadError {
    /// Returns what is wrong with the file, if it could be read.
    pub fn findings(&self) -> Option<&Findings> {
        match self {
            Self::Findings(findings) => Some(findings),
            _ => None,
        }
    }
}

/// Returns the errors, up to a readable number.
fn summary(findings: &Findings) -> String {
    let all = findings.iter();
    let errors = all.filter(|found| found.severity == Severity::Error);
    match shortened(errors.map(ToString::to_string).collect(), 10, "errors") {
        none if none.is_empty() => "the settings cannot be used".to_owned(),
        some => some,
    }
}

/// Joins the first `most` of `texts`, and counts the others, which are `what`.
pub fn shortened(mut texts: Vec<String>, most: usize, what: &str) -> String {
    let more = texts.len().saturating_sub(most);
    texts.truncate(most);
    if more > 0 {
        texts.push(format!("and {more} more {what}"));
    }
    texts.join("; ")
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
        let home = Home::new(home);
        let question = Question {
            home: Some(home.dir.clone()),
            kind: Some(kind.clone()),
            environment: environment.into_iter().collect(),
            sets: sets.to_vec(),
            ..Question::default()
        };
        // First: a revocation that is taken back is taken out of the file before the memory.
        let remembered = home.remembered().map_err(LoadError::Read)?;
        let texts = spring::read(&home.file, &question).map_err(LoadError::Read)?;
        let asked = Arc::new(question);
        Self::of(home, &asked, remembered, &texts, Severity::Error)
    }

    /// Loads settings from what the files of `before` hold now and what its home remembers, all
    /// else as it was. A certificate that expired meanwhile is no error: it would keep out a
    /// revocation.
    pub(super) fn from_texts(
        before: &Self,
        remembered: Remembered,
        texts: &Texts,
    ) -> Result<Self, LoadError> {
        if let Some(gone) = texts.gone_since(&before.source.files) {
            return Err(LoadError::Gone(gone));
        }
        let question = &before.source.question;
        let home = before.home.clone();
        Self::of(home, question, remembered, texts, Severity::Warning)
    }

    /// Loads settings; no finding about a certificate that peers refuse is more severe than `most`.
    fn of(
        home: Home,
        question: &Arc<Question>,
        remembered: Remembered,
        texts: &Texts,
        most: Severity,
    ) -> Result<Self, LoadError> {
        let mut inspected = inspect(question, &remembered, texts);
        let not_for_libraries = inspected.set_below(&NOT_FOR_LIBRARIES);
        let refused = cross::certificates(slice::from_ref(&inspected), most);
        inspected.findings.0.extend(refused);
        inspected.findings.sort();
        let mut keys = HashMap::new();
        for read in inspected.deployments.iter().flat_map(|read| &read.keys) {
            let fingerprint = read.trusted.key.fingerprint();
            // Of a key with two names, the one that says whether it is revoked counts.
            if read.revoked_at.is_some() || !keys.contains_key(&fingerprint) {
                keys.insert(fingerprint, read.clone());
            }
        }
        let source = Source {
            question: Arc::clone(question),
            digest: texts.digest(),
            files: texts.files(),
            keys,
            remembered,
            cold: inspected.cold,
        };
        let findings = inspected.findings;
        let (Some(own), Some(kind), 0) = (inspected.own, &question.kind, findings.errors()) else {
            return Err(LoadError::Findings(findings));
        };
        let module = kind
            .module_type()
            .map_err(|error| LoadError::Internal(error.into()))?;
        let mut options = inspected.options;
        options.logging.dir = home.dir.join("log");
        let deployments = inspected.deployments.into_iter();
        let name = options.name.as_ref().map(|(name, _)| name.clone());
        Ok(Self {
            own: OwnDeployment {
                module,
                name,
                key: own.key,
                key_id: own.key_id,
                accepted: options.rotation.accepted(),
            },
            deployments: deployments.filter_map(|read| read.deployment).collect(),
            options,
            not_for_libraries,
            findings,
            source,
            home,
        })
    }

    /// Makes the module of these settings.
    ///
    /// # Errors
    ///
    /// When the deployments are ambiguous, which loading has ruled out.
    pub fn module(&self) -> Result<Module, ModuleError> {
        let tokens = if self.options.server.authenticate {
            Tokens::Required
        } else {
            Tokens::OptionalOnLoopback
        };
        let plaintext = Plaintext {
            calls: self.options.client.allow_plaintext,
            server: self.options.server.allow_plaintext,
            server_has_tls: self.options.tls.server.on,
        };
        let start = Module::builder(self.own.clone())
            .dangerous_tokens(tokens)
            .plaintext(plaintext)
            .policy(self.options.policy)
            .proof_mode(self.options.proof)
            .replay(self.options.replay)
            .impersonation_role(self.options.impersonation_role.clone());
        let trusting = self.deployments.iter().cloned();
        trusting.fold(start, ModuleBuilder::trust).build()
    }

    /// Returns where the engines of each deployment may be dialled back, for a registry and the
    /// [`Reloader`](super::Reloader) that follows the files.
    pub fn address_book(&self) -> AddressBook {
        AddressBook::new(self.options.addresses.clone())
    }

    /// Returns how `module` connects to others: with the TLS of the connection `name`, if it is on.
    ///
    /// `name` is the `<c>` of `ataccama.client.connection.<c>`. A connection that is not configured
    /// has no TLS.
    ///
    /// # Errors
    ///
    /// When a PEM file cannot be used.
    pub fn connection(&self, module: &Module, name: &str) -> Result<ConnectionOptions, TlsError> {
        let tls = self.options.tls.client(name);
        Ok(ConnectionOptions {
            allow_plaintext: self.options.client.allow_plaintext,
            tls: tls.map(|options| module.client_tls(options)).transpose()?,
            ..ConnectionOptions::default()
        })
    }

    /// Returns how `module` connects to its own server.
    ///
    /// # Errors
    ///
    /// When a PEM file cannot be used.
    pub fn own_connection(&self, module: &Module) -> Result<ConnectionOptions, TlsError> {
        let server = self.options.tls.server.options.clone();
        let tls = server.map(|server| module.own_module_tls(server));
        Ok(ConnectionOptions {
            tls: tls.transpose()?,
            ..ConnectionOptions::default()
        })
    }

    pub(super) fn server_options(&self, module: &Module) -> Result<ServerOptions, TlsError> {
        let tls = self.options.tls.server.options.clone();
        Ok(ServerOptions {
            tls: tls.map(|options| module.server_tls(options)).transpose()?,
            ..self.options.server.options.clone()
        })
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

/// Returns the module that is meant where none is named: the one of the variable
/// `COUNTERSIGN_HOME`, else the current folder if it is the home of one.
pub fn unnamed() -> Option<PathBuf> {
    let home = std::env::var_os("COUNTERSIGN_HOME").filter(|home| !home.is_empty());
    let is_here = Path::new(Home::FILE).exists();
    home.map(PathBuf::from)
        .or_else(|| is_here.then(|| PathBuf::from(".")))
}

/// Settings that are for the binary alone.
const NOT_FOR_LIBRARIES: [&str; 4] = [
    "ataccama.logging",
    "ataccama.one.dpe.service",
    "ataccama.one.dpm.registry",
    "countersign.registry",
];

/// Returns how `module`, made of `settings`, serves and calls.
///
/// # Errors
///
/// When a PEM file cannot be used.
pub(crate) fn wiring(
    settings: &Settings,
    module: &Module,
    is_followed: bool,
) -> Result<Wiring, TlsError> {
    let (server, client) = (&settings.options.server, &settings.options.client);
    let mut routes = Vec::new();
    for connection in &client.connections {
        let options = settings.connection(module, &connection.name)?;
        routes.push(Route {
            name: connection.name.clone(),
            targets: connection.targets().cloned().collect(),
            deployment: connection.deployment.clone(),
            is_written: connection.is_written,
            options: ConnectionOptions {
                keep_alive: KeepAlive::ANY_SERVER,
                ..options
            },
        });
    }
    let grpc = SocketAddr::new(server.address, server.port);
    let http = SocketAddr::new(server.http_address, server.http_port);
    Ok(Wiring {
        file: settings.home.file.clone(),
        is_followed,
        grpc: server.has_port.then_some(grpc),
        http: server.http_is_set.then_some(http),
        http_hosts: server.allowed_hosts.clone(),
        http_metrics: server.metrics_beyond_loopback,
        server: settings.server_options(module)?,
        routes,
        client_bytes: client.max_message_bytes,
    })
}
