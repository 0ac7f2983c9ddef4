//! Why a procedure did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not written. The file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It is there already, and was not to be replaced.
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    /// Another process is writing in the same folder.
    #[error("another countersign is writing in `{}`", .0.display())]
    Busy(PathBuf),
    /// It changed since it was read.
    #[error("`{}` was changed by somebody else meanwhile", .0.display())]
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
