//! What is asked of a module's files, and for what purpose.

use std::path::{Path, PathBuf};

use crate::diagnostic::Severity;
use crate::identity::{ModuleType, NameError};

/// What to look at, and for what: a check of files, which may be parts of one, or a run on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) home: Option<&'a Path>,
    /// The kind of the module that is about to run; `None` for a check.
    pub(super) kind: Option<&'a ModuleKind>,
    pub(super) environment: &'a [(String, String)],
    pub(super) sets: &'a [(String, String)],
    /// Files that will exist by the time they are read.
    pub(super) assumed: &'a [PathBuf],
}

impl Question<'_> {
    /// Returns `true` if a module is about to run on the answer.
    pub(super) fn is_run(&self) -> bool {
        self.kind.is_some()
    }

    /// Returns the severity of what stops a start but not a check: a warning for a check, an error
    /// for a start.
    pub(super) fn strict(&self) -> Severity {
        if self.is_run() {
            Severity::Error
        } else {
            Severity::Warning
        }
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
