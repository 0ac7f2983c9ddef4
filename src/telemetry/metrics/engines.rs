//! What a registry counts.

use metrics::{Counter, Gauge};

use super::{Metrics, count, counter, gauge, labelled};
use crate::engine::EngineStatus;

pub(super) const ENGINES: &str = "countersign_engines";
pub(super) const REGISTRATIONS: &str = "countersign_engine_registrations_total";

/// The metrics of a registry of engines. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    by_status: [Gauge; EngineStatus::ALL.len()],
    registrations: [Counter; Registered::ALL.len()],
}

/// What came of a call of `RegisterEngine`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registered {
    /// The engine is registered.
    Done,
    /// Another deployment owns it.
    NotOwned,
    /// Its address may not be dialled.
    AddressNotAllowed,
    /// There is no room for it, or they come too fast.
    LimitReached,
    /// The call makes no sense.
    Invalid,
    /// The store failed.
    Failed,
}

impl Registered {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::NotOwned,
        Self::AddressNotAllowed,
        Self::LimitReached,
        Self::Invalid,
        Self::Failed,
    ];

    /// Returns the word that is the label.
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
    /// `countersign_engine_registrations_total`: a call of `RegisterEngine` ended.
    pub fn registered(&self, how: Registered) {
        let mut all = Registered::ALL.iter().zip(&self.registrations);
        if let Some((_, counter)) = all.find(|(result, _)| **result == how) {
            counter.increment(1);
        }
    }

    /// `countersign_engines`: how many there are with `status`.
    pub fn engines(&self, status: EngineStatus, number: usize) {
        let mut all = EngineStatus::ALL.iter().zip(&self.by_status);
        if let Some((_, gauge)) = all.find(|(known, _)| **known == status) {
            gauge.set(count(number));
        }
    }
}

impl Metrics {
    /// Returns the metrics of a registry, all of them 0 where they are new.
    pub fn of_engines(&self) -> EngineMetrics {
        EngineMetrics {
            by_status: EngineStatus::ALL.map(|status| {
                gauge(
                    &self.recorder,
                    &labelled(ENGINES, "status", status.as_str()),
                )
            }),
            registrations: Registered::ALL.map(|result| {
                let key = labelled(REGISTRATIONS, "result", result.as_str());
                counter(&self.recorder, &key)
            }),
        }
    }
}
