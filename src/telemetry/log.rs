//! Where the log goes: consoles and files, as the settings say.

mod file;
mod format;
mod writer;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::watch;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::file::LogFile;
pub use self::format::{Format, LogLayer};
pub use self::writer::Losses;
use self::writer::Writer;
use super::Logging;
use crate::clock::Clock;

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The log file cannot be opened for writing; with the system's error.
    #[error("cannot open the log file {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// An output cannot be written to; with the system's error.
    #[error("cannot log to {0}")]
    Output(&'static str, #[source] io::Error),
    /// The process logs elsewhere already.
    #[error("this process has a log subscriber already")]
    AlreadySet,
}

/// The outputs of the log. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    writers: Vec<Writer>,
    losses: watch::Sender<Losses>,
}

impl Guard {
    /// Waits until all lines so far are written or lost, for `limit` at most; returns `true` if they
    /// are.
    pub fn finish(&self, limit: Duration) -> bool {
        let (done, finished) = channel();
        for writer in &self.writers {
            writer.finish(done.clone());
        }
        drop(done);
        finished.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    /// Follows which lines are lost.
    pub fn losses(&self) -> watch::Receiver<Losses> {
        self.losses.subscribe()
    }

    fn add(
        &mut self,
        name: &'static str,
        sink: impl FnMut(&str) -> io::Result<()> + Send + 'static,
    ) -> Result<Writer, LoggingError> {
        let started = Writer::start(name, sink, self.losses.clone());
        let writer = started.map_err(|error| LoggingError::Output(name, error))?;
        self.writers.push(writer.clone());
        Ok(writer)
    }
}

/// Makes the process log as `logging` says: INFO and above, of dependencies WARN and above.
///
/// Each output has a bounded queue and a thread of its own: a full disk, a pipe that is not read or
/// a slow mount costs lines, which are counted, and never delays who logs.
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
    if console.plain || console.json {
        // Not through Rust's handle: its lock would be held for as long as a write blocks.
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let open = stderr.map_err(|error| LoggingError::Output(STDERR, error))?;
        let mut file = File::from(open);
        let writer = guard.add(STDERR, move |line| file.write_all(line.as_bytes()))?;
        for (wanted, format) in [
            (console.plain, Format::Console),
            (console.json, Format::Json),
        ] {
            if wanted {
                let output = writer.clone();
                layer = layer.with_output(format, move |line| output.write(line));
            }
        }
    }
    for (wanted, format, name) in [
        (file.plain, Format::Plain, "spring-boot-logger.log"),
        (file.json, Format::Json, "spring-boot-logger.json.log"),
    ] {
        if wanted {
            let path = dir.join(name);
            let opened = LogFile::open(path.clone());
            let mut log = opened.map_err(|error| LoggingError::File(path, error))?;
            let output = guard.add(name, move |line| log.write(line))?;
            layer = layer.with_output(format, move |line| output.write(line));
        }
    }
    tracing_subscriber::registry()
        .with(levels())
        .with(layer)
        .try_init()
        .or(Err(LoggingError::AlreadySet))?;
    Ok(guard)
}

const STDERR: &str = "stderr";

/// Which events are logged.
pub(crate) fn levels() -> Targets {
    Targets::new()
        .with_default(Level::WARN)
        .with_target("countersign", Level::INFO)
        .with_target("com.ataccama", Level::INFO)
}
