//! Which engines are recorded at an address and gone from there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::engine::{Engine, EngineAddress, EngineId, EngineStatus};

/// The DISCONNECTED and INACTIVE engines, by deployment and address. It holds each engine once.
#[derive(Debug, Default)]
pub(super) struct Stale {
    at: HashMap<Place, BTreeSet<EngineId>>,
    of: HashMap<EngineId, Place>,
}

type Place = (Arc<str>, EngineAddress);

impl Stale {
    /// Notes the engine as it is now.
    pub(super) fn note(&mut self, engine: &Engine) {
        self.remove(engine.id);
        if is_stale(engine) {
            let place = place_of(engine);
            self.at.entry(place.clone()).or_default().insert(engine.id);
            self.of.insert(engine.id, place);
        }
    }

    /// Removes the engine.
    pub(super) fn remove(&mut self, id: EngineId) {
        if let Some(place) = self.of.remove(&id)
            && let Some(there) = self.at.get_mut(&place)
        {
            there.remove(&id);
            if there.is_empty() {
                self.at.remove(&place);
            }
        }
    }

    /// Returns the stale engines of the same deployment at the address of `engine`.
    pub(super) fn beside(&self, engine: &Engine) -> Vec<EngineId> {
        let there = self.at.get(&place_of(engine)).into_iter().flatten();
        there.copied().filter(|id| *id != engine.id).collect()
    }
}

/// Returns `true` if the engine is not at its address any more, as far as the registry knows. Several
/// one-way engines share a host, and none of them has an address.
pub(super) fn is_stale(engine: &Engine) -> bool {
    let is_gone = matches!(
        engine.status,
        EngineStatus::Disconnected | EngineStatus::Inactive
    );
    is_gone && !engine.address.is_one_way()
}

fn place_of(engine: &Engine) -> Place {
    let deployment = Arc::clone(&engine.owner.deployment);
    (deployment, engine.address.clone())
}
