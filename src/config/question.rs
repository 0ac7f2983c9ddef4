//! What is asked of a module's files, and for what purpose.

use std::path::{Path, PathBuf};

use crate::identity::{ModuleType, NameError};
use crate::properties::name::{Variable, variable_for};
use crate::properties::{FileText, ReadError};

/// What to look at, and for what: a check of files, which may be parts of one, or a run on them.
/// The environment and `--set` stay the same while a process runs.
#[derive(Default)]
pub struct Question {
    pub home: Option<PathBuf>,
    /// The kind of the module that is about to run; `None` for a check.
    pub kind: Option<ModuleKind>,
    pub environment: Vec<(String, String)>,
    pub sets: Vec<(String, String)>,
    /// Files that will exist by the time they are read.
    pub assumed: Vec<PathBuf>,
    /// What some files will contain by the time they are read.
    pub texts: Vec<(PathBuf, FileText)>,
    /// Whether a check looks at what the environment overrides; a run always does.
    pub with_environment: bool,
}

impl Question {
    /// Asks for a check in this `environment`.
    pub fn check(environment: &[(String, String)]) -> Self {
        Self {
            environment: environment.to_owned(),
            ..Self::default()
        }
    }

    /// Returns `true` if a module is about to run on the answer.
    pub fn is_run(&self) -> bool {
        self.kind.is_some()
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(&self, path: &Path) -> Result<FileText, ReadError> {
        self.text(path).map_or_else(|| FileText::read(path), Ok)
    }

    /// Reads the file at `path`, or returns `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// When it exists and cannot be read.
    pub fn read_if_there(&self, path: &Path) -> Result<Option<FileText>, ReadError> {
        let given = self.text(path).map(Some);
        given.map_or_else(|| FileText::read_if_there(path), Ok)
    }

    fn text(&self, path: &Path) -> Option<FileText> {
        let given = self.texts.iter().find(|(given, _)| is_same(given, path));
        given.map(|(_, text)| text.clone())
    }

    /// Returns `true` if the environment and `--set` override settings.
    pub fn overrides(&self) -> bool {
        self.with_environment || self.is_run()
    }

    /// Returns the variables that may be settings.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.environment.iter();
        let own = all.filter(|(name, value)| !is_service_link(name, value, &self.environment));
        own.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Finds the variable that sets `name`, and its name: with the name itself, or in capitals.
    pub fn named(&self, name: &str) -> Option<(&str, &str)> {
        let wanted = Variable::parse(name).words.concat();
        let both = self
            .settings()
            .filter(|(variable, _)| Variable::parse(variable).words.concat() == wanted);
        both.min_by_key(|(variable, _)| !variable.contains('.'))
    }

    /// Returns the variable that a placeholder `name` may stand for.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let variable = variable_for(name);
        let mut environment = self.environment.iter();
        let (_, value) = environment.find(|(other, _)| other == name || *other == variable)?;
        Some(value)
    }
}

/// Which defaults apply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ModuleKind {
    /// The registry: gRPC port 8531, HTTP port 8031.
    Dpm,
    /// An engine: gRPC port 8532, HTTP port 8034.
    Dpe,
    /// Any other module; it has no default ports.
    Other(ModuleType),
}

impl ModuleKind {
    /// Returns the kind of module that has the type `module`.
    pub(crate) fn of(module: &ModuleType) -> Self {
        match module.as_str() {
            "dpm" => Self::Dpm,
            "dpe" => Self::Dpe,
            _ => Self::Other(module.clone()),
        }
    }

    pub(super) fn module_type(&self) -> Result<ModuleType, NameError> {
        match self {
            Self::Dpm => ModuleType::new("dpm"),
            Self::Dpe => ModuleType::new("dpe"),
            Self::Other(module) => Ok(module.clone()),
        }
    }
}

/// Returns `true` if Kubernetes or Docker makes a variable such as `name` for each service: it says
/// where that is, and sets nothing. `all` is the environment.
pub fn is_service_link(name: &str, value: &str, all: &[(String, String)]) -> bool {
    const SERVICE_PORT: &str = "_SERVICE_PORT";
    let is_url = name.ends_with("_PORT") && value.contains("://");
    let mut service_ports = name.match_indices(SERVICE_PORT);
    let mut ports = name.match_indices("_PORT_");
    is_url
        || name.ends_with("_SERVICE_HOST")
        || service_ports.any(|(at, _)| {
            let (service, rest) = name.split_at(at);
            let end = rest.strip_prefix(SERVICE_PORT).unwrap_or_default();
            let host = format!("{service}_SERVICE_HOST");
            // Alone it may be a setting, such as `ataccama.one.dpe.service.port`.
            (end.is_empty() || end.starts_with('_')) && all.iter().any(|(other, _)| *other == host)
        })
        || ports.any(|(at, mark)| {
            let rest = name
                .get(at.saturating_add(mark.len())..)
                .unwrap_or_default();
            let words: Vec<_> = rest.split('_').collect();
            let [number, "TCP" | "UDP" | "SCTP", about @ ..] = words.as_slice() else {
                return false;
            };
            number.parse::<u16>().is_ok() && matches!(about, [] | ["PROTO" | "PORT" | "ADDR"])
        })
}

/// Returns the home of the module with this settings file: above its folder `etc`, or else that
/// folder.
pub fn home_of(file: &Path) -> PathBuf {
    let etc = file.parent();
    let home = match etc.and_then(Path::file_name) {
        Some(name) if name == "etc" => etc.and_then(Path::parent),
        _ => etc,
    };
    home.map_or_else(PathBuf::new, Path::to_owned)
}

/// Returns `true` if two paths lead to one file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let [one_whole, other_whole] = [one, other].map(|path| path.canonicalize().ok());
    one == other || (one_whole.is_some() && one_whole == other_whole)
}
