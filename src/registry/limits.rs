//! How many engines there may be, and how fast they may register.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::RegistryError;
use super::store::Counts;

/// The limits of a registry.
///
/// INACTIVE engines count, since the registry keeps their owners. If there is no room for a new
/// engine, the INACTIVE engine of the same deployment that was not seen for longest is removed,
/// and any deployment may register its ID. No deployment makes room at another's expense, so
/// no deployment can push out an ID in order to take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    not(feature = "registry"),
    expect(
        clippy::struct_field_names,
        reason = "the names are those of the settings"
    )
)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of engines. Default: 10000.
    pub max_engines: usize,
    /// The maximum number of engines of one deployment. Default: 1000.
    pub max_engines_per_deployment: usize,
    /// The maximum number of new IDs of one deployment in a second; an engine that moves to another
    /// address counts too. Default: 100.
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
