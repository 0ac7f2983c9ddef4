//! What a caller may do to an engine, and how the engine's record changes.

mod removal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::leases::Leases;
use super::rates::{Rates, starts_over};
use super::room::Rooms;
use super::stale::Stale;
use super::store::{EngineStore, Expected};
use super::{CheckOutcome, Limits, Registrant, RegistryError};
use crate::clock::Clock;
use crate::engine::{Engine, EngineAddress, EngineConstraints, EngineId, EngineStatus, Held};
use crate::engine::{Event, transition};
use crate::telemetry::{Ledger, Suppressed, events};

/// The engines and the rules for their status.
///
/// Every change is one compare-and-set on the store, so callers may race. Each change of status is
/// logged, up to a few a minute for each engine; its last status always is, later if need be. The
/// server's layer has checked the caller's role; this type checks that the caller owns the engine.
#[derive(Debug)]
pub struct EngineRegistry {
    store: Arc<dyn EngineStore>,
    clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    // Held while an engine is counted, so that the limits are exact.
    creating: tokio::sync::Mutex<()>,
    rates: Rates,
    rooms: Rooms,
    /// What is logged of each engine.
    news: Mutex<Ledger<(EngineId, News)>>,
    /// The status that the log has, of engines whose status has changed since.
    unlogged: Mutex<HashMap<EngineId, EngineStatus>>,
    troubles: Mutex<Ledger<Trouble>>,
    stale: Mutex<Stale>,
    leases: Mutex<Leases>,
}

/// How many kinds of events of engines are counted one by one, and how many lines a minute each
/// gets.
const MOST_NEWS: usize = 2048;
const BURST: u32 = 4;

/// How many kinds of trouble are counted one by one.
const MOST_TROUBLES: usize = 16;

/// A kind of event of an engine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum News {
    Registered,
    Deregistered,
    Status,
    Failure,
}

/// What concerns more than one engine.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Trouble {
    /// The store failed, for this cause.
    Store(String),
    /// Eviction is held, or is not any more.
    Eviction { is_held: bool },
}

impl EngineRegistry {
    /// Makes a registry of the engines in `store`.
    pub fn new(store: Arc<dyn EngineStore>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self {
            store,
            clock,
            limits,
            creating: tokio::sync::Mutex::default(),
            rates: Rates::new(limits),
            rooms: Rooms::default(),
            news: Mutex::new(Ledger::new(MOST_NEWS, BURST)),
            unlogged: Mutex::default(),
            troubles: Mutex::new(Ledger::new(MOST_TROUBLES, 1)),
            stale: Mutex::default(),
            leases: Mutex::default(),
        }
    }

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

    /// Registers `id` for the caller's deployment, or renews its registration.
    ///
    /// Idempotent: if the same owner registers the same address and process while the engine is
    /// NEW or READY, the status stays and nothing is logged.
    ///
    /// # Errors
    ///
    /// When another deployment owns `id`, a limit is reached, or the store fails.
    ///
    /// The address is not judged here: an [`AddressPolicy`](super::AddressPolicy) does that.
    pub async fn register(
        &self,
        caller: &Registrant,
        id: EngineId,
        address: EngineAddress,
        constraints: EngineConstraints,
    ) -> Result<Arc<Engine>, RegistryError> {
        let now = self.clock.now();
        let new = Engine {
            id,
            address,
            constraints,
            status: EngineStatus::New,
            suspect: false,
            status_reason: Some(NOT_CHECKED.into()),
            dial_back_failure: None,
            owner: caller.as_owner(),
            over_loopback: caller.over_loopback,
            instance: caller.instance,
            heartbeat_interval: caller.heartbeat_interval,
            held: None,
            registered_at: now,
            last_seen_at: now,
        };
        loop {
            match self.renew(caller, &new).await {
                Err(RegistryError::NotFound(_)) => {}
                renewed => return renewed,
            }
            // If another caller creates it first, that caller owns it, and the renewal decides.
            if let Some(created) = self.create(&new).await? {
                self.log_registration(News::Registered, caller, &created);
                return Ok(created);
            }
        }
    }

    /// Notes that an engine is alive. The call of another process than the recorded one changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// When `id` is unknown or INACTIVE, another deployment owns it, or the store fails.
    pub async fn heartbeat(
        &self,
        caller: &Registrant,
        id: EngineId,
    ) -> Result<Arc<Engine>, RegistryError> {
        let now = self.clock.now();
        let updated = self
            .update(id, |engine| {
                caller.check_owns(engine)?;
                if engine.status == EngineStatus::Inactive {
                    return Err(RegistryError::NotFound(id));
                }
                if engine.is_of_another_process(caller.instance) {
                    return Ok(None);
                }
                let mut alive = engine.clone();
                if *alive.owner.fingerprint != *caller.fingerprint {
                    alive.owner = caller.as_owner();
                }
                alive.heartbeat_interval = caller.heartbeat_interval;
                // One that changes too often stays as it was; a later heartbeat says it again.
                if alive != *engine && self.rates.count(&alive.owner.deployment, now).is_err() {
                    alive = engine.clone();
                }
                alive.last_seen_at = now;
                Ok(Some(alive))
            })
            .await?;
        if !updated.after.is_of_another_process(caller.instance) {
            self.renew_lease(&updated.after);
        }
        Ok(updated.after)
    }

    /// Takes an engine out of service: it is INACTIVE, its owner kept while there is room
    /// ([`Limits`]). Idempotent. Only the recorded process takes its engine out.
    ///
    /// # Errors
    ///
    /// When `id` is unknown, another deployment owns it, or the store fails.
    pub async fn deregister(
        &self,
        caller: &Registrant,
        id: EngineId,
    ) -> Result<Arc<Engine>, RegistryError> {
        let updated = self
            .update(id, |engine| {
                caller.check_owns(engine)?;
                let left = inactive(engine, Event::Deregistered, "deregistered by its owner");
                Ok(left.filter(|_| !engine.is_of_another_process(caller.instance)))
            })
            .await?;
        if updated.status_changed() {
            self.log_registration(News::Deregistered, caller, &updated.after);
            self.report_status(&updated, None);
        }
        Ok(updated.after)
    }

    /// Returns the engine `id`.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn find(&self, id: EngineId) -> Result<Option<Arc<Engine>>, RegistryError> {
        Ok(self.store.find(id).await?.map(|stored| stored.engine))
    }

    /// Returns up to `limit` engines in the order of their ids, from the first one after `after`.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn list(
        &self,
        after: Option<EngineId>,
        limit: usize,
    ) -> Result<Vec<Arc<Engine>>, RegistryError> {
        let page = self.store.page(after, limit).await?;
        Ok(page.into_iter().map(|stored| stored.engine).collect())
    }

    /// Returns every engine in the order of the ids, as each page of the store was when it was
    /// read.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn all(&self) -> Result<Vec<Arc<Engine>>, RegistryError> {
        let mut all: Vec<Arc<Engine>> = Vec::new();
        loop {
            let page = self.list(all.last().map(|engine| engine.id), PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Waits until every change made before outlasts this process; returns `false` if it does not.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn flush(&self) -> Result<bool, RegistryError> {
        Ok(self.store.flush().await?)
    }

    /// Has the store keep everything that there is to keep.
    pub(crate) async fn close(&self) -> Result<(), RegistryError> {
        Ok(self.store.close().await?)
    }

    /// Returns where the engines are kept: how it is, and what changes in it.
    pub(crate) fn store(&self) -> &dyn EngineStore {
        &*self.store
    }

    /// Notes how the dial-back to `checked` ended; returns the record after it.
    ///
    /// `checked` is the record that the dial-back was made for. Where the engine has since been
    /// registered again, the outcome does not apply to it and is dropped.
    ///
    /// # Errors
    ///
    /// When the engine is unknown, or the store fails.
    pub async fn record_check(
        &self,
        checked: &Engine,
        outcome: &CheckOutcome,
    ) -> Result<Arc<Engine>, RegistryError> {
        self.record(checked, outcome, false).await
    }

    /// Does what [`record_check`](Self::record_check) does; where the stream of a one-way engine `is_new`, it
    /// is now here, and no longer where it was.
    async fn record(
        &self,
        checked: &Engine,
        outcome: &CheckOutcome,
        is_new: bool,
    ) -> Result<Arc<Engine>, RegistryError> {
        let now = self.clock.now();
        let updated = self
            .update(checked.id, |engine| {
                let mut engine = engine.clone();
                let event = match outcome {
                    _ if !checked.is_still(&engine) => return Ok(None),
                    CheckOutcome::Proved => {
                        if engine.address.is_one_way() && (is_new || !engine.is_held_elsewhere()) {
                            engine.held = Some(Held::HERE);
                        }
                        engine.status_reason = None;
                        engine.dial_back_failure = None;
                        engine.last_seen_at = now;
                        Event::Proved
                    }
                    CheckOutcome::Alive => {
                        if engine.suspect {
                            engine.status_reason = None;
                        }
                        engine.last_seen_at = now;
                        Event::Alive
                    }
                    CheckOutcome::Failed(failure) => {
                        engine.status_reason = Some(failure.to_string().into());
                        engine.dial_back_failure = Some(failure.clone());
                        Event::CheckFailed
                    }
                };
                engine.suspect = false;
                engine.status = transition(engine.status, event).unwrap_or(engine.status);
                Ok(Some(engine))
            })
            .await?;
        if updated.status_changed() && updated.after.status == EngineStatus::Ready {
            self.replace_stale(&updated.after).await;
        }
        if !matches!(outcome, CheckOutcome::Failed(_)) {
            self.renew_lease(&updated.after);
        }
        let reason_changed = updated.before.status_reason != updated.after.status_reason;
        self.report_status(&updated, None);
        if let Some(failure) = &updated.after.dial_back_failure
            && reason_changed
            && let Some(suppressed) = self.admit(&updated.after, News::Failure)
        {
            events::engine_check_failed(&updated.after, failure, suppressed);
        }
        Ok(updated.after)
    }

    /// Creates `new` within the limits; returns `None` if it exists already.
    async fn create(&self, new: &Engine) -> Result<Option<Arc<Engine>>, RegistryError> {
        let room = self.room(new).await?;
        let created = self.store.replace(new.clone(), Expected::Absent).await?;
        drop(room);
        Ok(created.map(|stored| stored.engine))
    }

    /// Renews the registration of a known engine with what `new` says.
    async fn renew(&self, caller: &Registrant, new: &Engine) -> Result<Arc<Engine>, RegistryError> {
        let updated = self
            .update(new.id, |engine| {
                caller.check_owns(engine)?;
                self.rates.count_renewal(engine, new)?;
                let mut renewed = new.clone();
                if !starts_over(engine, new) {
                    renewed.status = engine.status;
                    renewed.suspect = engine.suspect;
                    renewed.status_reason.clone_from(&engine.status_reason);
                    renewed
                        .dial_back_failure
                        .clone_from(&engine.dial_back_failure);
                    renewed.held = engine.held;
                    renewed.registered_at = engine.registered_at;
                }
                Ok(Some(renewed))
            })
            .await?;
        if starts_over(&updated.before, new) {
            self.log_registration(News::Registered, caller, &updated.after);
            self.report_status(&updated, None);
        }
        Ok(updated.after)
    }

    /// Replaces the record of `id` with what `change` makes of it, or leaves it at `None`.
    async fn update(
        &self,
        id: EngineId,
        change: impl Fn(&Engine) -> Result<Option<Engine>, RegistryError>,
    ) -> Result<Updated, RegistryError> {
        loop {
            let Some(found) = self.store.find(id).await? else {
                return Err(RegistryError::NotFound(id));
            };
            let before = found.engine;
            let Some(engine) = change(&before)?.filter(|after| *after != *before) else {
                let after = Arc::clone(&before);
                return Ok(Updated { before, after });
            };
            let expected = Expected::At(found.revision);
            if let Some(stored) = self.store.replace(engine, expected).await? {
                let after = stored.engine;
                return Ok(Updated { before, after });
            }
        }
    }

    fn log_registration(&self, news: News, caller: &Registrant, engine: &Engine) {
        if let Some(suppressed) = self.admit(engine, news) {
            let is_new = news == News::Registered;
            events::engine_registration(is_new, &caller.identity, engine, suppressed);
        }
    }

    /// Logs that the store failed.
    pub(crate) fn log_failure(&self, cause: &str) {
        let kind = Trouble::Store(cause.to_owned());
        let admitted = lock(&self.troubles).admit(kind, Instant::now());
        if let Some(suppressed) = admitted {
            events::registry_failed(cause, suppressed);
        }
    }

    /// Logs the status of an engine once it may, if the log has another.
    fn report_status(&self, updated: &Updated, reason: Option<&str>) {
        let Updated { before, after } = updated;
        if updated.status_changed() {
            self.note(after);
        }
        let mut unlogged = lock(&self.unlogged);
        let (kind, now) = ((after.id, News::Status), Instant::now());
        let (admitted, why) = if updated.status_changed() {
            unlogged.entry(after.id).or_insert(before.status);
            (lock(&self.news).admit(kind, now), reason)
        } else if unlogged.contains_key(&after.id) {
            let admitted = lock(&self.news).admit_late(kind, now);
            (admitted, after.status_reason.as_deref())
        } else {
            return;
        };
        if let Some(suppressed) = admitted
            && let Some(known) = unlogged.remove(&after.id)
        {
            events::set_engine_status(after, known, why, suppressed);
        }
    }

    /// If `news` of `engine` is to be logged, returns how many like it were not.
    fn admit(&self, engine: &Engine, news: News) -> Option<Suppressed> {
        lock(&self.news).admit((engine.id, news), Instant::now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record before and after a change.
struct Updated {
    before: Arc<Engine>,
    after: Arc<Engine>,
}

impl Updated {
    fn status_changed(&self) -> bool {
        self.before.status != self.after.status
    }
}

fn inactive(engine: &Engine, event: Event, reason: &str) -> Option<Engine> {
    transition(engine.status, event).map(|status| Engine {
        status,
        suspect: false,
        status_reason: Some(reason.into()),
        dial_back_failure: None,
        ..engine.clone()
    })
}

const NOT_CHECKED: &str = "registered; not checked yet";
const PAGE: usize = 1000;

#[cfg(test)]
mod tests;
