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

/// The outcome of a call of `RegisterEngine`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registered {
    /// The engine is registered.
    Done,
    /// Another deployment owns it.
    NotOwned,
    /// Its address is not allowed.
    AddressNotAllowed,
    /// There are too many engines, or they register too fast.
    LimitReached,
    /// The request is invalid.
    Invalid,
    /// The store failed.
    Failed,
}

impl Registered {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::NotOwned,
        Self::AddressNotAllowed,
        Self::LimitReached,
        Self::Invalid,
        Self::Failed,
    ];

    /// Returns the value of the label `result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "registered",
            Self::NotOwned => "not_owned",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::LimitReached => "limit_reached",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

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
        for result in Registered::ALL {
            self.registrations.with_label_values(&[result.as_str()]);
        }
    }

    /// `countersign_engine_registrations_total`: a call of `RegisterEngine` ended.
    pub fn registered(&self, how: Registered) {
        self.registrations.with_label_values(&[how.as_str()]).inc();
    }

    /// `countersign_engines`: how many there are with `status`.
    pub fn engines(&self, status: EngineStatus, number: usize) {
        let gauge = self.by_status.with_label_values(&[status.as_str()]);
        gauge.set(count(number));
    }
}
