//! Samples, counted in buckets: where they wait, and who sorts them in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{Histogram, Key, Recorder as _};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use super::METADATA;

/// How many samples may wait until they are sorted into their buckets.
const MOST_WAITING: u32 = 4096;

/// The samples of one series. Cloning is cheap.
#[derive(Clone)]
pub struct Samples {
    histogram: Histogram,
    upkeep: Arc<Upkeep>,
}

impl Samples {
    pub(super) fn new(recorder: &PrometheusRecorder, upkeep: &Arc<Upkeep>, key: &Key) -> Self {
        Self {
            histogram: recorder.register_histogram(key, &METADATA),
            upkeep: Arc::clone(upkeep),
        }
    }

    /// Adds one.
    pub fn record(&self, sample: f64) {
        self.histogram.record(sample);
        self.upkeep.added();
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}

/// Sorts samples in where nobody asks for them: the recorder keeps each until it is rendered.
pub(super) struct Upkeep {
    handle: PrometheusHandle,
    waiting: AtomicU32,
}

impl Upkeep {
    pub(super) fn new(handle: PrometheusHandle) -> Self {
        Self {
            handle,
            waiting: AtomicU32::new(0),
        }
    }

    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    fn added(&self) {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before % MOST_WAITING == MOST_WAITING - 1 {
            self.handle.run_upkeep();
        }
    }
}
