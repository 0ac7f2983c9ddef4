//! What the modules of a test log.

use std::sync::{Arc, OnceLock};

use countersign::clock::SystemClock;
use countersign::internals::{Format, LogLayer};
use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

use super::world::soon;

/// The lines logged on this thread, which is where everything of a `#[tokio::test]` runs but DPEs.
pub(crate) struct Logs {
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
    _default: DefaultGuard,
}

impl Logs {
    /// Takes the lines from now on.
    pub(crate) fn start() -> Self {
        // With one subscriber alone, the first thread to log decides what is wanted.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
        let (line, lines) = mpsc::unbounded_channel();
        let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC)
            // The test may be over.
            .with_output(Format::Json, move |text| drop(line.send(text.to_owned())));
        let subscriber = tracing_subscriber::registry().with(layer);
        Self {
            lines,
            seen: Vec::new(),
            _default: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Counts the lines so far that hold `part`.
    pub(crate) fn count(&mut self, part: &str) -> usize {
        self.with(part).count()
    }

    /// Returns the lines so far that hold `part`.
    pub(crate) fn with(&mut self, part: &str) -> impl Iterator<Item = &str> {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        let seen = self.seen.iter().map(String::as_str);
        seen.filter(move |line| line.contains(part))
    }

    /// Returns the first line that holds all of `parts`.
    pub(crate) async fn line(&mut self, parts: &[impl AsRef<str> + std::fmt::Debug]) -> String {
        let mut next = 0;
        let found = async {
            loop {
                while let Some(line) = self.seen.get(next) {
                    next += 1;
                    if parts.iter().all(|part| line.contains(part.as_ref())) {
                        return line.clone();
                    }
                }
                self.seen.push(self.lines.recv().await.unwrap());
            }
        };
        soon(&format!("a log line with {parts:?}"), found).await
    }
}
