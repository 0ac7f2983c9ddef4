//! Log lines for unit tests.

use std::sync::{Arc, Mutex, OnceLock};

use jiff::tz::{self, TimeZone};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use super::{Format, LogLayer};
use crate::clock::Clock;

/// The lines that one subscriber wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Takes the lines written until now.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Makes a subscriber that keeps its lines, two hours east of Greenwich.
pub(crate) fn subscriber(format: Format, clock: Arc<dyn Clock>) -> (Dispatch, Lines) {
    // While there is only one subscriber, tracing asks the thread that first meets an event
    // whether it is wanted, which may be another test's. A second one makes it ask both.
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));

    let lines = Lines::default();
    let sink = lines.clone();
    let layer = LogLayer::new(clock, TimeZone::fixed(tz::offset(2)))
        .with_output(format, move |line| sink.0.lock().unwrap().push(line.into()));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    (dispatch, lines)
}
