//! How an operator takes an engine off the list that does not come back.

use std::sync::Arc;

use super::{EngineRegistry, inactive, lock};
use crate::engine::{Engine, EngineId, EngineStatus, Event};
use crate::registry::{Registrant, RegistryError};
use crate::telemetry::events;

impl EngineRegistry {
    /// Makes an engine INACTIVE, for its owner or, without a `caller`, for the registry's operator.
    /// Idempotent; an engine that runs comes back by registering again.
    ///
    /// # Errors
    ///
    /// When `id` is unknown, another deployment owns it, or the store fails.
    pub async fn inactivate(
        &self,
        caller: Option<&Registrant>,
        id: EngineId,
    ) -> Result<Arc<Engine>, RegistryError> {
        let updated = self
            .update(id, |engine| {
                caller.map_or(Ok(()), |caller| caller.check_owns(engine))?;
                Ok(inactive(engine, Event::Deregistered, INACTIVATED))
            })
            .await?;
        self.report_status(&updated, Some(INACTIVATED));
        Ok(updated.after)
    }

    /// Removes the record of an engine, for its owner or, without a `caller`, for the registry's
    /// operator. Any deployment may register its id then.
    ///
    /// # Errors
    ///
    /// When `id` is unknown, NEW or READY, another deployment owns it, or the store fails.
    pub async fn forget(
        &self,
        caller: Option<&Registrant>,
        id: EngineId,
    ) -> Result<(), RegistryError> {
        loop {
            let Some(found) = self.store.find(id).await? else {
                return Err(RegistryError::NotFound(id));
            };
            let engine = &found.engine;
            caller.map_or(Ok(()), |caller| caller.check_owns(engine))?;
            if matches!(engine.status, EngineStatus::New | EngineStatus::Ready) {
                return Err(RegistryError::Live(id, engine.status));
            }
            // Where it has changed meanwhile, it is judged again.
            if self.store.remove(id, found.revision).await? {
                lock(&self.unlogged).remove(&id);
                events::forget_engine(engine, "The engine was removed from the list.");
                return Ok(());
            }
        }
    }
}

const INACTIVATED: &str = "inactivated by an operator";
