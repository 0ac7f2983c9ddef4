//! How fast the engines of a deployment may change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Limits, RegistryError};
use crate::engine::{Engine, Event, transition};

/// What each deployment did within the current second.
#[derive(Debug)]
pub(super) struct Rates {
    most: u32,
    /// What is new, or says something new of itself.
    creations: Mutex<Creations>,
    /// What starts again.
    restarts: Mutex<Creations>,
}

impl Rates {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            most: limits.max_new_engines_per_second,
            creations: Mutex::default(),
            restarts: Mutex::default(),
        }
    }

    /// Counts a new engine of `deployment`, or one that says something new of itself.
    pub(super) fn count(
        &self,
        deployment: &Arc<str>,
        now: SystemTime,
    ) -> Result<(), RegistryError> {
        counted(&self.creations, deployment, self.most, now)
    }

    /// Counts a registration of `new` over `known`, if it changes more than when it was last seen.
    ///
    /// Ten times as many engines may start again, as when all of them do at once.
    pub(super) fn count_renewal(&self, known: &Engine, new: &Engine) -> Result<(), RegistryError> {
        let (deployment, now) = (&new.owner.deployment, new.registered_at);
        if says_other(known, new) {
            self.count(deployment, now)
        } else if known.instance != new.instance || starts_over(known, new) {
            counted(
                &self.restarts,
                deployment,
                self.most.saturating_mul(10),
                now,
            )
        } else {
            Ok(())
        }
    }
}

fn counted(
    rates: &Mutex<Creations>,
    deployment: &Arc<str>,
    most: u32,
    now: SystemTime,
) -> Result<(), RegistryError> {
    let mut open = rates.lock().unwrap_or_else(PoisonError::into_inner);
    open.count(deployment, most, now)
}

/// How many engines each deployment created, or changed, within the current second.
#[derive(Debug, Default)]
struct Creations(HashMap<Arc<str>, (SystemTime, u32)>);

impl Creations {
    /// Counts one more engine of `deployment`, unless it had `limit` within the second.
    fn count(
        &mut self,
        deployment: &Arc<str>,
        limit: u32,
        now: SystemTime,
    ) -> Result<(), RegistryError> {
        let (since, count) = self.0.entry(Arc::clone(deployment)).or_insert((now, 0));
        // A clock that was set back begins a new second, too.
        if !now
            .duration_since(*since)
            .is_ok_and(|passed| passed < Duration::from_secs(1))
        {
            (*since, *count) = (now, 0);
        }
        if *count >= limit {
            return Err(RegistryError::TooFast(limit));
        }
        *count += 1;
        Ok(())
    }
}

/// Returns `true` if `new` says something of the engine that differs from what is `known`: anything
/// but its process.
fn says_other(known: &Engine, new: &Engine) -> bool {
    let said = Engine {
        instance: known.instance,
        status: known.status,
        suspect: known.suspect,
        status_reason: known.status_reason.clone(),
        dial_back_failure: known.dial_back_failure.clone(),
        held: known.held,
        registered_at: known.registered_at,
        last_seen_at: known.last_seen_at,
        ..new.clone()
    };
    said != *known
}

/// Returns `true` if registering `new` over `engine` leads back to NEW.
pub(super) fn starts_over(engine: &Engine, new: &Engine) -> bool {
    engine.address != new.address
        || engine.is_of_another_process(new.instance)
        || transition(engine.status, Event::Registered).is_some()
}
