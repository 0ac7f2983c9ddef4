//! Where the log goes: consoles and files, as the settings say.

mod file;
mod format;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::file::LogFile;
pub use self::format::{Format, LogLayer};
use super::Logging;
use crate::clock::Clock;

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

/// The open log files.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    files: Vec<Arc<LogFile>>,
}

impl Guard {
    /// Opens every log file again, after one was moved away and SIGHUP was sent.
    pub fn reopen(&self) {
        for file in &self.files {
            file.reopen();
        }
    }
}

/// Makes the process log as `logging` says: INFO and above, of dependencies WARN and above.
///
/// The one function of this library that sets anything for the whole process.
///
/// # Errors
///
/// When a log file cannot be opened, or the process has a subscriber already.
pub fn init(logging: &Logging, clock: Arc<dyn Clock>) -> Result<Guard, LoggingError> {
    let mut layer = LogLayer::new(clock, TimeZone::system());
    let mut guard = Guard::default();
    let Logging { console, file, dir } = logging;
    if console.plain {
        layer = layer.with_output(Format::Console, print);
    }
    if console.json {
        layer = layer.with_output(Format::Json, print);
    }
    for (wanted, format, name) in [
        (file.plain, Format::Plain, "spring-boot-logger.log"),
        (file.json, Format::Json, "spring-boot-logger.json.log"),
    ] {
        if wanted {
            let path = dir.join(name);
            let log = LogFile::open(path.clone())
                .map(Arc::new)
                .map_err(|error| LoggingError::File(path, error))?;
            guard.files.push(Arc::clone(&log));
            layer = layer.with_output(format, move |line| log.write_line(line));
        }
    }
    tracing_subscriber::registry()
        .with(levels())
        .with(layer)
        .try_init()
        .or(Err(LoggingError::AlreadySet))?;
    Ok(guard)
}

/// Which events are logged.
pub(crate) fn levels() -> Targets {
    Targets::new()
        .with_default(Level::WARN)
        .with_target("countersign", Level::INFO)
        .with_target("com.ataccama", Level::INFO)
}

fn print(line: &str) {
    let mut stderr = io::stderr().lock();
    // A closed pipe or full disk must not stop the service, and there is nowhere to tell it.
    let _ = stderr
        .write_all(line.as_bytes())
        .and_then(|()| stderr.write_all(b"\n"));
}
