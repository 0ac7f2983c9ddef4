//! What is asked of a module's files, and for what purpose.

use std::path::PathBuf;

use crate::diagnostic::Severity;
use crate::identity::{ModuleType, NameError};
use crate::properties::name::variable_for;

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

    /// Returns the severity of what stops a start but not a check: a warning for a check, an error
    /// for a start.
    pub fn strict(&self) -> Severity {
        if self.is_run() {
            Severity::Error
        } else {
            Severity::Warning
        }
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
    pub(super) fn module_type(&self) -> Result<ModuleType, NameError> {
        match self {
            Self::Dpm => ModuleType::new("dpm"),
            Self::Dpe => ModuleType::new("dpe"),
            Self::Other(module) => Ok(module.clone()),
        }
    }
}
