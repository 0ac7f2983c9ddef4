//! Checks one engine again and again, while it is connected or its next check is near.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::check::{Checker, Context};
use super::options::jittered;
use super::tasks::{Asked, Rest, Tasks};
use crate::engine::{Engine, EngineId, EngineStatus};
use crate::grpc::{Module, cause};
use crate::registry::{CheckOutcome, RegistryError};
use crate::trust::KeySet;

/// Keeps one engine.
pub(super) struct Keeper {
    pub(super) engine: EngineId,
    pub(super) context: Arc<Context>,
    pub(super) tasks: Weak<Mutex<Tasks>>,
    pub(super) woken: watch::Receiver<Asked>,
}

impl Keeper {
    pub(super) async fn run(mut self, mut checker: Checker) {
        let context = Arc::clone(&self.context);
        let options = &context.options;
        loop {
            self.woken.mark_unchanged();
            let began = Instant::now();
            // Boxed, so that an engine takes this memory only while it is checked.
            let found = Box::pin(self.check(&mut checker)).await;
            let needs_no_task = matches!(found, Ok(Checked::Fails)) && !checker.is_connected();
            let outcome = found.unwrap_or_else(|error| {
                context.registry.log_failure(&cause(&error));
                Checked::Fails
            });
            if matches!(outcome, Checked::Lost | Checked::Overtaken) {
                checker.failures = 0;
            }
            let pause = match outcome {
                Checked::Holds => options.check_connected_interval,
                Checked::Missed | Checked::Void => options.soon(),
                Checked::Lost => Duration::ZERO,
                Checked::Fails => options.back_off(checker.failures.max(1)),
                Checked::Overtaken => {
                    // An engine that moves without end is not dialled without end.
                    sleep_until(began + MIN_PAUSE).await;
                    continue;
                }
                Checked::Left if self.leave(None) => return,
                Checked::Left => continue,
            };
            // An engine that another DPM keeps is checked here only when it calls here.
            if !context.registry.is_mine(self.engine) && self.leave(None) {
                return;
            }
            let pause = jittered(pause);
            if needs_no_task && self.leave(Some(rest(pause, &checker))) {
                return;
            }
            self.wait(pause, &checker).await;
            if !context.registry.is_mine(self.engine) && self.leave(None) {
                return;
            }
        }
    }

    /// Checks the engine once, and stops if its record changes meanwhile.
    pub(super) async fn check(&mut self, checker: &mut Checker) -> Result<Checked, RegistryError> {
        let context = Arc::clone(&self.context);
        let registry = &context.registry;
        let trust = context.module.trust().load();
        let engine = registry.find(self.engine).await?;
        let Some(engine) = engine.filter(|engine| is_kept(engine)) else {
            return Ok(Checked::Left);
        };
        let mut asked_again = false;
        let outcome = {
            let mut running = pin!(checker.check(&engine));
            loop {
                tokio::select! {
                    outcome = &mut running => break outcome,
                    word = self.woken.changed() => {
                        if word.is_err() {
                            return Ok(Checked::Left);
                        }
                        asked_again = true;
                        let now = registry.find(self.engine).await?;
                        let is_same = now.is_some_and(|now| {
                            engine.is_still(&now) && engine.over_loopback == now.over_loopback
                        });
                        if !is_same || !is_trusted_as(&engine, &trust, &context.module) {
                            return Ok(Checked::Overtaken);
                        }
                    }
                }
            }
        };
        if asked_again {
            self.woken.mark_changed();
        }
        let Some(outcome) = outcome else {
            return Ok(Checked::Void);
        };
        let is_ready = engine.status == EngineStatus::Ready;
        if let CheckOutcome::Failed(failure) = &outcome
            && is_ready
            && !checker.is_final(failure, &engine)
        {
            return Ok(Checked::Missed);
        }
        let after = match registry.record_check(&engine, &outcome).await {
            // It has been forgotten since.
            Err(RegistryError::NotFound(_)) => return Ok(Checked::Left),
            recorded => recorded?,
        };
        Ok(match outcome {
            _ if !is_kept(&after) => Checked::Left,
            CheckOutcome::Proved | CheckOutcome::Alive => Checked::Holds,
            CheckOutcome::Failed(_) if is_ready => Checked::Lost,
            CheckOutcome::Failed(_) => Checked::Fails,
        })
    }

    /// Takes this task off the list, unless a check was just requested; the engine has a next check
    /// after `rest`, if any.
    fn leave(&self, rest: Option<Rest>) -> bool {
        let Some(tasks) = self.tasks.upgrade() else {
            return true;
        };
        let mut listed = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.woken.has_changed().unwrap_or(false) {
            return false;
        }
        listed.wake.remove(&self.engine);
        match rest {
            Some(rest) => listed.park(self.engine, rest, &self.context.due_earlier),
            None => self.context.streams.forget(self.engine),
        }
        true
    }

    /// Waits for `pause`, until a check is due that was asked for, or until the connection to the
    /// engine has ended.
    async fn wait(&mut self, pause: Duration, checker: &Checker) {
        let now = Instant::now();
        let mut until = now + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                asked = self.woken.changed() => {
                    if asked.is_err() {
                        return;
                    }
                    // An engine that calls without end is not dialled without end.
                    let Asked { by, after } = *self.woken.borrow_and_update();
                    until = until.min(by.max(now + after));
                }
                () = checker.ended() => break,
            }
        }
        sleep_until(until.min(now + MIN_PAUSE.min(pause))).await;
    }
}

/// What a check means for the next one.
#[derive(Debug)]
pub(super) enum Checked {
    Holds,
    /// It failed, and not often enough in a row to matter.
    Missed,
    /// It says nothing: this process was late.
    Void,
    Lost,
    Fails,
    /// It was given up for another one: of the engine's new address, or under other trust.
    Overtaken,
    /// There is nothing to check.
    Left,
}

/// Returns how an engine waits for `pause` after the check that `checker` made last.
fn rest(pause: Duration, checker: &Checker) -> Rest {
    let since = Instant::now();
    Rest {
        since,
        until: since + pause,
        failures: checker.failures,
        registered_at: checker.registered_at,
    }
}

pub(super) fn is_kept(engine: &Engine) -> bool {
    engine.status != EngineStatus::Inactive
}

/// Returns `true` if nothing changed for `engine` since `before`: its owner and this module.
fn is_trusted_as(engine: &Engine, before: &KeySet, module: &Module) -> bool {
    let now = module.trust().current();
    let [owner, owner_before] =
        [&*now, before].map(|trust| trust.deployment(&engine.owner.deployment).map(Arc::as_ptr));
    owner == owner_before && Arc::ptr_eq(now.own(), before.own())
}

pub(super) const MIN_PAUSE: Duration = Duration::from_millis(100);
