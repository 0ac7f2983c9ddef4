//! Why logging cannot begin.

use std::io;
use std::path::PathBuf;

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The log file cannot be opened for writing; with the system's error.
    #[error("cannot open the log file {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The process logs elsewhere already.
    #[error("this process has a log subscriber already")]
    AlreadySet,
}
