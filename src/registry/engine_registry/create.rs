//! New engines, and the room for them.

use std::sync::Arc;

use super::EngineRegistry;
use crate::engine::{Engine, EngineId, EngineStatus};
use crate::registry::store::Expected;
use crate::registry::{Registrant, RegistryError};
use crate::telemetry::events;

impl EngineRegistry {
    /// Checks that no different deployment owns `id`.
    ///
    /// # Errors
    ///
    /// When another deployment owns `id`, or the store fails.
    pub async fn check_owner(
        &self,
        caller: &Registrant,
        id: EngineId,
    ) -> Result<(), RegistryError> {
        let found = self.find(id).await?;
        found.map_or(Ok(()), |engine| caller.check_owns(&engine))
    }

    /// Creates `new` within the limits; returns `None` if it exists already.
    pub(super) async fn create(&self, new: &Engine) -> Result<Option<Arc<Engine>>, RegistryError> {
        let deployment = &new.owner.deployment;
        let mut creations = self.creations.lock().await;
        let per_second = self.limits.max_new_engines_per_second;
        creations.count(deployment, per_second, new.registered_at)?;
        while let Err(full) = self.limits.check(self.store.count(deployment).await?) {
            if !self.forget_one(deployment).await? {
                return Err(full);
            }
        }
        let created = self.store.replace(new.clone(), Expected::Absent).await?;
        Ok(created.map(|stored| stored.engine))
    }

    /// Forgets the INACTIVE engine of `deployment` that was not seen for longest. Returns `true` if
    /// there was one.
    async fn forget_one(&self, deployment: &str) -> Result<bool, RegistryError> {
        let records = self.records().await?;
        let inactive = records.into_iter().filter(|stored| {
            let engine = &stored.engine;
            engine.status == EngineStatus::Inactive && *engine.owner.deployment == *deployment
        });
        let oldest = inactive.min_by_key(|stored| stored.engine.last_seen_at);
        let Some(oldest) = oldest else {
            return Ok(false);
        };
        // Where it has just come back, the caller looks again.
        if self.store.remove(oldest.engine.id, oldest.revision).await? {
            events::forget_engine(&oldest.engine);
        }
        Ok(true)
    }
}
