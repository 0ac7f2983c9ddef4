//! The metrics of a registry.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::families::{Families, count};
use crate::engine::EngineStatus;

/// The metrics of a registry of engines. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    by_status: IntGaugeVec,
    registrations: IntCounterVec,
}

/// The results of `RegisterEngine` that are counted.
const RESULTS: [&str; 6] = [
    "registered",
    "not_owned",
    "address_not_allowed",
    "limit_reached",
    "invalid",
    "failed",
];

impl EngineMetrics {
    pub(super) fn new(families: &Families) -> prometheus::Result<Self> {
        Ok(Self {
            by_status: families.gauges("countersign_engines", "Engines by status.", &["status"])?,
            registrations: families.counters(
                "countersign_engine_registrations_total",
                "Calls of RegisterEngine by result.",
                &["result"],
            )?,
        })
    }

    /// Creates all series, 0 if they are new.
    pub(super) fn begin(&self) {
        for status in EngineStatus::ALL {
            self.by_status.with_label_values(&[status.as_str()]);
        }
        for result in RESULTS {
            self.registrations.with_label_values(&[result]);
        }
    }

    /// `countersign_engine_registrations_total`: a call of `RegisterEngine` ended with `result`,
    /// one of six.
    pub fn registered(&self, result: &'static str) {
        self.registrations.with_label_values(&[result]).inc();
    }

    /// `countersign_engines`: how many there are with `status`.
    pub fn engines(&self, status: EngineStatus, number: usize) {
        let gauge = self.by_status.with_label_values(&[status.as_str()]);
        gauge.set(count(number));
    }
}
