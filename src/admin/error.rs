//! Why a procedure did not do what was asked.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::rotation::phase::Step;
use crate::diagnostic::Findings;
use crate::grpc::cause;
use crate::properties::ReadError;

/// Why a file was not written. The file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It is there already, and was not to be replaced.
    #[error("`{}` already exists", .0.display())]
    Exists(PathBuf),
    /// Another process is writing in the same folder.
    #[error("another countersign is writing in `{}`", .0.display())]
    Busy(PathBuf),
    /// It changed since it was read.
    #[error("`{}` was changed by another process meanwhile", .0.display())]
    Changed(PathBuf),
    /// A chain of symbolic links without an end.
    #[error("`{}` is a symbolic link that leads nowhere", .0.display())]
    Link(PathBuf),
    /// The system said no.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first of two files was replaced, the second could not be, and neither could the first
    /// be put back.
    #[error(
        "`{}` was written, the other file could not be, and the old text could not be put back",
        path.display()
    )]
    HalfDone {
        /// The file that now has its new text.
        path: PathBuf,
        /// Why it could not be put back.
        source: io::Error,
    },
}

impl WriteError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Why a procedure was refused. All files are as they were before.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    kind: Box<Kind>,
    message: String,
    help: Option<String>,
    findings: Findings,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of reason a procedure was refused for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Kind {
    /// The arguments do not fit together.
    Usage,
    /// The files, or running modules, do not allow it now.
    Conflict,
    /// It would replace something that only a person may replace.
    Taken,
    /// As [`Taken`](Self::Taken): the file trusts a different key or certificate under this name.
    OtherKey,
    /// As [`Taken`](Self::Taken): the file at `path` trusts the key under the name `found`.
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The deployment that has the key.
        found: String,
    },
    /// As [`Taken`](Self::Taken): the file at `path` has revoked the key of `name`.
    Revoked {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: String,
    },
    /// The deployment does not exist.
    NotThere,
    /// A peer's file would trust no key of the module after the rotation.
    CutOff,
    /// The step of a rotation is not possible now; this one is.
    OutOfTurn(Step),
    /// A file cannot be read, or has faults.
    Unreadable,
    /// A file could not be written.
    Write(WriteError),
    /// A bug in this program.
    Internal,
}

impl Refused {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind: Box::new(kind),
            message: message.into(),
            help: None,
            findings: Findings::default(),
            cause: None,
        }
    }

    /// What would be written is not what was planned: a bug.
    pub(super) fn internal(path: &Path) -> Self {
        let path = path.display();
        let message = format!("the new text of `{path}` does not hold together");
        Self::new(Kind::Internal, message)
    }

    /// Adds what fixes it.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what is wrong with a file.
    pub(super) fn with_findings(self, findings: Findings) -> Self {
        Self { findings, ..self }
    }

    /// Adds the error that caused it.
    pub(super) fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Returns the kind of reason.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns what fixes it, if that is the same in every command.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Returns what is wrong with a file.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        let message = cause(&error);
        Self::new(Kind::Write(error), message)
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self::new(Kind::Unreadable, cause(&error))
    }
}
