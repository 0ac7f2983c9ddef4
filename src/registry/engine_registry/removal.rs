//! How an operator takes an engine off the list that does not come back.

use std::sync::Arc;

use super::{EngineRegistry, inactive, lock};
use crate::engine::{Engine, EngineId, EngineStatus, Event};
use crate::failure::cause;
use crate::registry::stale::is_stale;
use crate::registry::store::StoreError;
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
                self.forgot(engine, "The engine was removed from the list.");
                return Ok(());
            }
        }
    }

    /// Forgets the INACTIVE engine of `deployment` that was not seen for longest. Returns `true` if
    /// there was one.
    pub(super) async fn forget_one(&self, deployment: &str) -> Result<bool, RegistryError> {
        let Some(oldest) = self.store.stalest(deployment).await? else {
            return Ok(false);
        };
        // Where it has just come back, the caller looks again.
        if self.store.remove(oldest.engine.id, oldest.revision).await? {
            self.forgot(&oldest.engine, NO_ROOM);
        }
        Ok(true)
    }

    /// Notes whether `engine` is gone from its address, as it is recorded now.
    pub(crate) fn note(&self, engine: &Engine) {
        lock(&self.stale).note(engine);
    }

    /// Removes the stale records of the same deployment at the address where `engine` has proved
    /// itself: an engine that lost its storage comes back with another id.
    pub(super) async fn replace_stale(&self, engine: &Engine) {
        let beside = lock(&self.stale).beside(engine);
        for id in beside {
            if let Err(error) = self.replace_one(id, engine).await {
                self.log_failure(&cause(&error));
            }
        }
    }

    async fn replace_one(&self, id: EngineId, engine: &Engine) -> Result<(), StoreError> {
        let Some(found) = self.store.find(id).await? else {
            return Ok(());
        };
        let old = &found.engine;
        let is_replaced = is_stale(old)
            && old.address == engine.address
            && old.owner.deployment == engine.owner.deployment;
        if is_replaced && self.store.remove(id, found.revision).await? {
            self.forgot(old, REPLACED);
        }
        Ok(())
    }

    /// Notes that the record of `engine` was removed, and logs why.
    pub(super) fn forgot(&self, engine: &Engine, why: &str) {
        lock(&self.unlogged).remove(&engine.id);
        lock(&self.stale).remove(engine.id);
        events::forget_engine(engine, why);
    }
}

const NO_ROOM: &str =
    "An inactive engine was removed: its deployment has reached its limit of engines.";
const REPLACED: &str = "The engine was removed from the list: another one of its deployment proved itself at its address.";

const INACTIVATED: &str = "inactivated by an operator";
