//! Why a procedure refused a request.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::rotation::phase::Step;
use crate::diagnostic::{CommandLine, Findings, Severity};
use crate::grpc::cause;
use crate::properties::ReadError;

/// Why a procedure or a command was refused, or failed. Every file is as it was before, unless the
/// message says otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    kind: Box<Kind>,
    message: String,
    /// What fixes it, if that is the same in every command.
    pub help: Option<String>,
    /// The commands that fix it, in their order.
    pub commands: Vec<CommandLine>,
    /// What is wrong with a file.
    pub findings: Findings,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// The kind of reason for which a procedure was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Kind {
    /// The arguments contradict each other.
    Usage,
    /// The files, or running modules, do not allow it now.
    Conflict,
    /// It would replace something that only a person may replace.
    Taken,
    /// As [`Taken`](Self::Taken): the file trusts a different key or certificate under this name.
    /// The text is a free name for a second one.
    OtherKey(String),
    /// As [`Taken`](Self::Taken): the file at `path` trusts the key under the name `found`.
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The deployment that has the key.
        found: String,
    },
    /// The deployment does not exist.
    NotThere,
    /// A peer's file would trust no key of the module after the rotation.
    CutOff,
    /// The step of a rotation is not possible now; this one is.
    OutOfTurn(Step),
    /// A file cannot be read, or has faults.
    Unreadable,
    /// Another countersign is writing in the same folder.
    Busy,
    /// A file changed since it was read.
    Changed,
    /// A file could not be written.
    NotWritten,
    /// The peer refused.
    Denied,
    /// The peer cannot be reached.
    Unreachable,
    /// A bug in this program.
    Internal,
}

impl Refused {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind: Box::new(kind),
            message: message.into(),
            help: None,
            commands: Vec::new(),
            findings: Findings::default(),
            cause: None,
        }
    }

    /// Makes a refusal from the error that causes it.
    pub(crate) fn caused<E: Into<Box<dyn Error + Send + Sync>>>(
        kind: Kind,
        message: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let refused = Self::new(kind, message);
        |error| Self {
            cause: Some(error.into()),
            ..refused
        }
    }

    /// The file at `path` exists already.
    pub(crate) fn exists(path: &Path) -> Self {
        let message = format!("`{}` already exists", path.display());
        Self::new(Kind::Taken, message)
            .with_help("`--force` replaces it; a private key that is replaced is lost")
    }

    /// The system did not let the file at `path` be written.
    pub(super) fn not_written(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let message = format!("cannot write `{}`", path.display());
        Self::caused(Kind::NotWritten, message)
    }

    /// Another countersign process writes at `place`.
    pub(super) fn busy(place: &Path) -> Self {
        let message = format!(
            "another countersign process is writing in `{}`",
            place.display()
        );
        Self::new(Kind::Busy, message).with_help("run the command again")
    }

    /// The file at `path` is not as it was read.
    pub(super) fn changed(path: &Path) -> Self {
        let path = path.display();
        let message = format!("`{path}` was changed by another process in the meantime");
        Self::new(Kind::Changed, message).with_help("run the command again")
    }

    /// The new text is not what was planned: a bug.
    pub(super) fn internal(path: &Path) -> Self {
        let message = format!("the new text of `{}` is not consistent", path.display());
        Self::new(Kind::Internal, message)
    }

    /// Adds what fixes it.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the commands that fix it.
    pub(crate) fn with_commands(mut self, commands: impl IntoIterator<Item = CommandLine>) -> Self {
        self.commands.extend(commands);
        self
    }

    /// Adds what is wrong with a file, and the command that explains the first error.
    pub(crate) fn with_findings(mut self, findings: Findings) -> Self {
        let mut errors = findings.iter().filter(|f| f.severity == Severity::Error);
        if let Some(first) = errors.next() {
            let means = "what the first error means:";
            let help = self.help.map(|help| format!("{help}; {means}"));
            self.help = Some(help.unwrap_or_else(|| means.to_owned()));
            self.commands.push(first.code.explain());
        }
        Self { findings, ..self }
    }

    /// Returns the kind of reason.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self::new(Kind::Unreadable, cause(&error))
    }
}
