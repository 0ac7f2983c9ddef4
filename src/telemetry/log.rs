//! Where the log goes: consoles and files, as the settings say.

mod file;
mod format;
mod writer;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;
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

/// The outputs of the log. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    writers: Vec<Writer>,
    losses: watch::Sender<Losses>,
}

impl Guard {
    /// Waits until all lines so far are written or lost, for `limit` at most.
    pub fn finish(&self, limit: Duration) {
        for _ in 0..limit.as_millis() {
            if self.writers.iter().all(Writer::is_idle) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Follows which lines are lost.
    pub fn losses(&self) -> watch::Receiver<Losses> {
        self.losses.subscribe()
    }
}

/// Makes the process log as `logging` says: INFO and above, of dependencies WARN and above.
///
/// Each output has a bounded queue and a thread of its own: a full disk, a pipe that is not read or
/// a slow mount costs lines, which are counted, and delays no caller.
///
/// Sets the subscriber of the whole process: only the binary calls it.
///
/// # Errors
///
/// When a log file cannot be opened, or the process has a subscriber already.
pub fn init(logging: &Logging, clock: Arc<dyn Clock>) -> io::Result<Guard> {
    let mut layer = LogLayer::new(clock, TimeZone::system());
    let mut guard = Guard::default();
    let Logging { console, file, dir } = logging;
    if console.plain || console.json {
        let writer = Writer::start(
            "stderr",
            |line| io::stderr().write_all(line.as_bytes()),
            guard.losses.clone(),
        );
        guard.writers.push(writer.clone());
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
            let mut log = opened.map_err(|error| {
                let text = format!("cannot open the log file {}: {error}", path.display());
                io::Error::new(error.kind(), text)
            })?;
            let output = Writer::start(name, move |line| log.write(line), guard.losses.clone());
            guard.writers.push(output.clone());
            layer = layer.with_output(format, move |line| output.write(line));
        }
    }
    tracing_subscriber::registry()
        .with(levels())
        .with(layer)
        .try_init()
        .map_err(io::Error::other)?;
    Ok(guard)
}

/// Which events are logged.
pub(crate) fn levels() -> Targets {
    Targets::new()
        .with_default(Level::WARN)
        .with_target("countersign", Level::INFO)
        .with_target("com.ataccama", Level::INFO)
}
