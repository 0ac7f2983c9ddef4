//! How many engines there may be, and how fast they may come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::RegistryError;
use super::store::Counts;

/// How many engines a registry takes.
///
/// INACTIVE ones count, since their owners are kept, but only as long as there is room: where a
/// new engine finds none, the INACTIVE engine of the same deployment that was not seen for longest
/// is forgotten, and its id is anybody's again. No deployment makes room at another's expense, so
/// no deployment can push out an ID in order to take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// The most engines in all. Default: 10000.
    pub max_engines: usize,
    /// The most engines of one deployment. Default: 1000.
    pub max_engines_per_deployment: usize,
    /// The most new ids of one deployment in a second. Default: 100.
    pub max_new_engines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_engines: 10_000,
            max_engines_per_deployment: 1_000,
            max_new_engines_per_second: 100,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, counts: Counts) -> Result<(), RegistryError> {
        if counts.of_deployment >= self.max_engines_per_deployment {
            return Err(RegistryError::DeploymentFull(counts.of_deployment));
        }
        if counts.total >= self.max_engines {
            return Err(RegistryError::RegistryFull(counts.total));
        }
        Ok(())
    }
}

/// How many engines each deployment created within the current second.
#[derive(Debug, Default)]
pub(super) struct Creations(HashMap<Arc<str>, (SystemTime, u32)>);

impl Creations {
    /// Counts one more engine of `deployment`, unless it had `limit` within the second.
    pub(super) fn count(
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
