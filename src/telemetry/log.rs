//! Where the log goes: consoles and files, as the settings say.

mod file;
mod format;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::watch;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::format::{Format, LogLayer};

use self::file::LogFile;
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

/// The log lines that were lost, over all outputs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// How many, since the start.
    pub lines: u64,
    /// The outputs that lose lines now, with the cause.
    pub failing: BTreeMap<&'static str, String>,
}

/// One output with a thread of its own, so that none waits for another. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    output: Output,
    lines: Sender<String>,
}

/// What an output and its thread share.
#[derive(Clone, Debug)]
struct Output {
    name: &'static str,
    /// What the lines cost that are not yet written.
    waiting: Arc<AtomicUsize>,
    losses: watch::Sender<Losses>,
}

/// How many bytes may wait for one output; what comes then is lost.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// What a line takes beside its text.
const OVERHEAD: usize = 64;

impl Writer {
    /// Starts the thread that passes each line to `sink`, which may block, and counts in `losses`
    /// what it cannot write.
    ///
    /// The thread ends with the last clone of this. If there is no thread, every line is lost.
    pub(super) fn start(
        name: &'static str,
        mut sink: impl FnMut(&str) -> io::Result<()> + Send + 'static,
        losses: watch::Sender<Losses>,
    ) -> Self {
        let (lines, received) = channel::<String>();
        let waiting = Arc::default();
        let output = Output {
            name,
            waiting,
            losses,
        };
        let of_thread = output.clone();
        let named = thread::Builder::new().name("log-writer".to_owned());
        let _ = named.spawn(move || {
            for line in received {
                of_thread.note(sink(&line));
                let cost = line.len() + OVERHEAD;
                of_thread.waiting.fetch_sub(cost, Ordering::Relaxed);
            }
        });
        Self { output, lines }
    }

    /// Has `line` written, with a line end. Never waits.
    pub(super) fn write(&self, line: &str) {
        let cost = line.len() + 1 + OVERHEAD;
        let before = self.output.waiting.fetch_add(cost, Ordering::Relaxed);
        if before + cost > MOST_BYTES || self.lines.send([line, "\n"].concat()).is_err() {
            self.output.waiting.fetch_sub(cost, Ordering::Relaxed);
            let cause = "lines are not written, or more slowly than they come";
            self.output.note(Err(io::Error::other(cause)));
        }
    }

    /// Returns `true` if all lines so far are written or lost.
    pub(super) fn is_idle(&self) -> bool {
        self.output.waiting.load(Ordering::Relaxed) == 0
    }
}

impl Output {
    /// Notes how it went with a line.
    fn note(&self, written: io::Result<()>) {
        self.losses.send_if_modified(|losses| match written {
            Ok(()) => losses.failing.remove(self.name).is_some(),
            Err(error) => {
                losses.lines = losses.lines.saturating_add(1);
                losses.failing.insert(self.name, error.to_string());
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// An output that says what it is asked to write, and does it only once it is let.
    struct Gated {
        writer: Writer,
        asked: Receiver<String>,
        answer: SyncSender<io::Result<()>>,
        losses: watch::Receiver<Losses>,
    }

    fn gated(losses: &watch::Sender<Losses>) -> Gated {
        let (asked, ask) = channel();
        let (answer, answers) = sync_channel(1000);
        let sink = move |line: &str| {
            asked.send(line.to_owned()).unwrap();
            answers.recv().unwrap()
        };
        Gated {
            writer: Writer::start("gate", sink, losses.clone()),
            asked: ask,
            answer,
            losses: losses.subscribe(),
        }
    }

    impl Gated {
        /// Waits until all lines are written or lost.
        fn finish(&self) {
            let begun = tokio::time::Instant::now();
            while !self.writer.is_idle() {
                assert!(begun.elapsed() < PATIENCE);
                thread::yield_now();
            }
        }
    }

    #[test]
    fn output_that_stalls_delays_neither_a_caller_nor_another_output() {
        let losses = watch::Sender::default();
        let (stalled, other) = (gated(&losses), gated(&losses));

        stalled.writer.write("one");
        assert_eq!(stalled.asked.recv_timeout(PATIENCE).unwrap(), "one\n");
        // Nothing takes this line off the thread, and this call returns.
        stalled.writer.write("two");
        other.writer.write("three");

        assert_eq!(other.asked.recv_timeout(PATIENCE).unwrap(), "three\n");
        assert!(!stalled.writer.is_idle());
        stalled.answer.send(Ok(())).unwrap();
        assert_eq!(stalled.asked.recv_timeout(PATIENCE).unwrap(), "two\n");
        stalled.answer.send(Ok(())).unwrap();
        stalled.finish();
        assert_eq!(*losses.borrow(), Losses::default());
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_the_oldest_are_kept() {
        let output = gated(&watch::Sender::default());
        let line = "x".repeat(100 * 1024);
        for _ in 0..30 {
            output.writer.write(&line);
        }

        // Twenty fit.
        let lost = output.losses.borrow().clone();
        assert_eq!(lost.lines, 10);
        let cause = lost.failing.get("gate").unwrap();
        assert_eq!(
            cause,
            "lines are not written, or more slowly than they come"
        );
        for _ in 0..20 {
            output.answer.send(Ok(())).unwrap();
        }
        output.finish();
        output.writer.write("after");
        output.answer.send(Ok(())).unwrap();
        output.finish();
        assert!(output.losses.borrow().failing.is_empty());
        assert_eq!(output.asked.try_iter().last().unwrap(), "after\n");
    }

    #[test]
    fn line_that_fails_is_lost_with_its_cause_until_a_line_is_written() {
        let output = gated(&watch::Sender::default());

        output
            .answer
            .send(Err(io::Error::other("disk full")))
            .unwrap();
        output.writer.write("lost");
        output.finish();
        let lost = output.losses.borrow().clone();
        output.answer.send(Ok(())).unwrap();
        output.writer.write("kept");
        output.finish();

        assert_eq!((lost.lines, &*lost.failing["gate"]), (1, "disk full"));
        let after = output.losses.borrow().clone();
        assert_eq!((after.lines, after.failing.len()), (1, 0));
    }
}
