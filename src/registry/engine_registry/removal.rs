//! How an engine leaves: it is lost, not seen for long, or taken off the list; and where the stream of a
//! one-way engine is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use tokio::sync::broadcast;

use super::{EngineRegistry, News, Trouble, inactive, lock};
use crate::engine::{Engine, EngineId, EngineStatus, Event, Held, transition};
use crate::failure::cause;
use crate::registry::leases::length;
use crate::registry::room::Room;
use crate::registry::stale::is_stale;
use crate::registry::store::StoreError;
use crate::registry::{CheckOutcome, Registrant, RegistryError};
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

    /// Takes room for `new` within the limits; where all is taken, an engine of its deployment is forgotten.
    pub(super) async fn room(&self, new: &Engine) -> Result<Room, RegistryError> {
        let deployment = &new.owner.deployment;
        let _alone = self.creating.lock().await;
        self.rates.count(deployment, new.registered_at)?;
        loop {
            // In this order none of them is missed.
            let taken = self.rooms.taken(deployment);
            let counts = self.store.count(deployment).await?;
            let Err(full) = self.limits.check(counts.plus(taken)) else {
                return Ok(self.rooms.take(deployment));
            };
            if self.limits.check(counts).is_ok() {
                // An engine that is being created has the last room, or is counted twice.
                self.rooms.freed().await;
                continue;
            }
            // Where one less makes no room, as after a limit was lowered, none is forgotten.
            self.limits.check(counts.less_one())?;
            if !self.forget_one(deployment).await? {
                return Err(full);
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

    /// Makes every engine INACTIVE that was not seen for `limit`; returns how many.
    ///
    /// # Errors
    ///
    /// When the store fails, for the engines for which it does; all others are judged.
    pub async fn inactivate_not_seen(&self, limit: Duration) -> Result<usize, RegistryError> {
        let Some(oldest) = self.clock.now().checked_sub(limit) else {
            return Ok(0);
        };
        let reason = format!("not seen for {} s", limit.as_secs());
        let mut changed = 0;
        let mut failed = None;
        for engine in self.all().await? {
            let inactivated = self.update(engine.id, |engine| {
                let late = inactive(engine, Event::NotSeen, &reason);
                Ok(late.filter(|_| engine.last_seen_at <= oldest && self.is_mine(engine.id)))
            });
            match inactivated.await {
                Ok(updated) => {
                    self.report_status(&updated, Some(&reason));
                    changed += usize::from(updated.status_changed());
                }
                // It has been forgotten since.
                Err(RegistryError::NotFound(_)) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    /// Notes that `proved`, a one-way engine, has proved itself over a new stream to this process.
    ///
    /// # Errors
    ///
    /// When the engine is unknown, or the store fails.
    pub(crate) async fn hold(&self, proved: &Engine) -> Result<(), RegistryError> {
        let held = self.record(proved, &CheckOutcome::Proved, true).await;
        held.map(drop)
    }

    /// Notes that the stream of the engine `id` to this process has ended.
    ///
    /// # Errors
    ///
    /// When the engine is unknown, or the store fails.
    pub(crate) async fn release(&self, id: EngineId) -> Result<(), RegistryError> {
        let released = self.update(id, |engine| {
            let held = Some(Held {
                is_open: false,
                ..Held::HERE
            });
            let is_here = engine.held == Some(Held::HERE);
            Ok(is_here.then(|| Engine {
                held,
                ..engine.clone()
            }))
        });
        released.await.map(drop)
    }

    /// Notes `engine` as it is recorded now: if it is gone from its address, and its lease, which
    /// begins.
    pub(crate) fn note(&self, engine: &Engine) {
        lock(&self.stale).note(engine);
        lock(&self.leases).remove(engine.id);
        self.renew_lease(engine);
    }

    /// Returns `true` if it is for this process to check the engine `id`.
    pub(crate) fn is_mine(&self, id: EngineId) -> bool {
        self.store.is_mine(id)
    }

    /// Follows what other processes of the registry change, if there may be any.
    pub(crate) fn others(&self) -> Option<broadcast::Receiver<Option<EngineId>>> {
        self.store.others()
    }

    /// Returns `true` if what it lists may not be true any more.
    pub(crate) fn is_stale(&self) -> bool {
        let condition = self.store.condition();
        condition.is_some_and(|condition| condition.borrow().is_stale)
    }

    /// Begins the lease of `engine` again, if it is READY, and this process's to check.
    pub(super) fn renew_lease(&self, engine: &Engine) {
        if engine.status == EngineStatus::Ready && self.is_mine(engine.id) {
            lock(&self.leases).renew(engine.id, engine.heartbeat_interval, Instant::now());
        }
    }

    /// Returns when leases may be over.
    pub(crate) fn next_look(&self) -> Instant {
        lock(&self.leases).next_look(Instant::now())
    }

    /// Returns how long all engines take to call whose leases are over; zero if there are none.
    pub(crate) fn patience(&self) -> Duration {
        lock(&self.leases).patience(Instant::now())
    }

    /// Takes the engines out of READY whose leases are over. Where they are many at once, they stay
    /// for now, suspect.
    ///
    /// # Errors
    ///
    /// When the store fails, for the engines for which it does; all others are judged.
    pub(crate) async fn end_leases(&self) -> Result<(), RegistryError> {
        let now = Instant::now();
        let overdue = lock(&self.leases).overdue(now);
        let kind = Trouble::Eviction {
            is_held: overdue.are_held,
        };
        if overdue.has_changed && lock(&self.troubles).admit(kind, now).is_some() {
            events::eviction_held(overdue.are_held, overdue.engines.len());
        }
        let mut failed = None;
        for id in overdue.engines {
            let ended = self.update(id, |engine| {
                let is_over = lock(&self.leases).is_over(id, now);
                if engine.status != EngineStatus::Ready || !is_over {
                    return Ok(None);
                }
                let lease = length(engine.heartbeat_interval);
                let lost = transition(engine.status, Event::CheckFailed);
                Ok(Some(Engine {
                    status: lost.filter(|_| !overdue.are_held).unwrap_or(engine.status),
                    suspect: overdue.are_held,
                    status_reason: Some(format!("not heard from for {lease:?}").into()),
                    ..engine.clone()
                }))
            });
            match ended.await {
                Ok(updated) => {
                    if updated.after.status != EngineStatus::Ready {
                        lock(&self.leases).remove(id);
                    }
                    self.report_status(&updated, updated.after.status_reason.as_deref());
                    if updated.status_changed()
                        && let Some(suppressed) = self.admit(&updated.after, News::Failure)
                    {
                        events::lease_expired(&updated.after, suppressed);
                    }
                }
                // It has been forgotten since.
                Err(RegistryError::NotFound(_)) => lock(&self.leases).remove(id),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
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

    /// Notes that the record of `id` is gone.
    pub(crate) fn note_gone(&self, id: EngineId) {
        lock(&self.unlogged).remove(&id);
        lock(&self.stale).remove(id);
        lock(&self.leases).remove(id);
    }

    /// Notes that the record of `engine` was removed, and logs why.
    pub(super) fn forgot(&self, engine: &Engine, why: &str) {
        self.note_gone(engine.id);
        events::forget_engine(engine, why);
    }
}

const NO_ROOM: &str =
    "An inactive engine was removed: its deployment has reached its limit of engines.";
const REPLACED: &str = "The engine was removed from the list: another one of its deployment proved itself at its address.";

const INACTIVATED: &str = "inactivated by an operator";
