//! What is asked of a module's files, and for what purpose.

use std::path::{Path, PathBuf};

use crate::diagnostic::Severity;
use crate::identity::{ModuleType, NameError};

/// What the findings are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// To report on a file, which may be a part of one.
    Check,
    /// To run on it.
    Run,
}

/// What to look at, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) home: Option<&'a Path>,
    pub(super) kind: Option<&'a ModuleKind>,
    pub(super) purpose: Purpose,
    pub(super) environment: &'a [(String, String)],
    pub(super) sets: &'a [(String, String)],
    /// Files that will exist by the time they are read.
    pub(super) assumed: &'a [PathBuf],
}

impl Question<'_> {
    /// Returns `true` if a module is about to run on the answer.
    pub(super) fn is_run(&self) -> bool {
        self.purpose == Purpose::Run
    }

    /// Returns the severity of what stops a start but not a check: a warning for a check, an error
    /// for a start.
    pub(super) fn strict(&self) -> Severity {
        match self.purpose {
            Purpose::Check => Severity::Warning,
            Purpose::Run => Severity::Error,
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
