//! Which of two processes with one engine id is the engine: the recorded one, while it proves itself
//! at its address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

use super::check::{Checker, Context};
use crate::engine::{Engine, EngineAddress, EngineId, EngineStatus};
use crate::registry::{CheckOutcome, EngineRegistry, Registrant, RegistryError};
use crate::telemetry::{Ledger, events};

/// Has registrations of one engine id wait for each other, and finds those of a second process.
#[derive(Debug)]
pub(super) struct Duplicates {
    gates: Mutex<HashMap<EngineId, Arc<Gate<Verdict>>>>,
    logged: Mutex<Ledger<EngineId>>,
}

/// The record that proved itself, and when: it holds for the registrations that waited meanwhile.
type Verdict = Option<(Arc<Engine>, Instant)>;

impl Default for Duplicates {
    fn default() -> Self {
        Self {
            gates: Mutex::default(),
            logged: Mutex::new(Ledger::new(MOST_LOGGED, 1)),
        }
    }
}

impl Duplicates {
    /// Waits until no other registration of `id` is under way.
    pub(super) async fn turn(&self, id: EngineId) -> Turn<'_> {
        let gate = Arc::clone(lock(&self.gates).entry(id).or_default());
        // Made before it waits: a call that is given up takes its gate away, too.
        let mut turn = Turn {
            duplicates: self,
            id,
            gate: Arc::clone(&gate),
            verdict: None,
        };
        turn.verdict = Some(gate.lock_owned().await);
        turn
    }
}

/// The turn of one registration; the next of its engine waits until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    duplicates: &'a Duplicates,
    id: EngineId,
    gate: Arc<Gate<Verdict>>,
    verdict: Option<OwnedMutexGuard<Verdict>>,
}

impl Turn<'_> {
    /// Returns the recorded engine if `caller` is another process than the recorded one, and that
    /// one proves itself at its recorded address now, or holds a stream to another DPM.
    pub(super) async fn lost_to(
        &mut self,
        caller: &Registrant,
        address: &EngineAddress,
        context: &Arc<Context>,
    ) -> Result<Option<Arc<Engine>>, RegistryError> {
        let mut found = context.registry.find(self.id).await?;
        if let Some(recorded) = &found
            && is_rival(recorded, caller, address)
            && is_elsewhere(recorded)
        {
            caller.check_owns(recorded)?;
            found = settled(self.id, &context.registry).await?;
        }
        let Some(recorded) = found.filter(|recorded| is_rival(recorded, caller, address)) else {
            return Ok(None);
        };
        caller.check_owns(&recorded)?;
        if is_elsewhere(&recorded) && !recorded.held.is_some_and(|held| held.is_open) {
            // It may be on its way to another DPM until its lease is over.
            return Err(RegistryError::Undecided(self.id));
        }
        let known = self.verdict.as_deref().and_then(Option::as_ref);
        let is_proved = known.is_some_and(|(proved, at)| {
            // At its own address the answer may have changed: it has started again.
            proved.is_still(&recorded) && at.elapsed() < HOLDS && recorded.address != *address
        });
        if !is_proved && !is_elsewhere(&recorded) {
            let mut checker = Checker::new(Arc::clone(context));
            match timeout(LONGEST_CHECK, checker.check(&recorded)).await {
                Ok(Some(CheckOutcome::Proved)) => {}
                // It was this process that could not ask.
                Ok(None) => return Err(RegistryError::Undecided(self.id)),
                Ok(Some(_)) | Err(_) => return Ok(None),
            }
            if let Some(verdict) = self.verdict.as_deref_mut() {
                *verdict = Some((Arc::clone(&recorded), Instant::now()));
            }
        }
        let admitted = lock(&self.duplicates.logged).admit(self.id, Instant::now());
        if let Some(suppressed) = admitted {
            events::engine_duplicate(&recorded, address, suppressed);
        }
        Ok(Some(recorded))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.verdict = None;
        let mut gates = lock(&self.duplicates.gates);
        // This turn and the map have it; nothing waits.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.id);
        }
    }
}

/// Returns `true` if `caller`, at `address`, is another process than the recorded one.
///
/// A process that gave no instance, as older engines do, is known by its address.
fn is_rival(recorded: &Engine, caller: &Registrant, address: &EngineAddress) -> bool {
    let is_another = match recorded.instance.zip(caller.instance) {
        Some((recorded, calling)) => recorded != calling,
        None => recorded.address != *address,
    };
    is_another && matches!(recorded.status, EngineStatus::New | EngineStatus::Ready)
}

/// Returns `true` if another DPM is the one that asks a READY engine, over its stream.
fn is_elsewhere(recorded: &Engine) -> bool {
    recorded.status == EngineStatus::Ready && recorded.is_held_elsewhere()
}

/// Waits for as long as a check takes, so that the DPM that asks the engine `id` notes it where nothing
/// answers; returns the engine as it is then.
async fn settled(
    id: EngineId,
    registry: &EngineRegistry,
) -> Result<Option<Arc<Engine>>, RegistryError> {
    let mut news = registry.others();
    let settling = async {
        while let Some(news) = &mut news
            && registry
                .find(id)
                .await
                .is_ok_and(|found| found.is_some_and(|now| is_elsewhere(&now)))
            && !matches!(news.recv().await, Err(RecvError::Closed))
        {}
    };
    let _ = timeout(LONGEST_CHECK, settling).await;
    registry.find(id).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A check takes the times of connecting and of the checker, and less than an engine's call waits.
const LONGEST_CHECK: Duration = Duration::from_secs(4);
/// How long a proof holds for the registrations that wait.
const HOLDS: Duration = Duration::from_secs(1);
/// How many engines are counted one by one.
const MOST_LOGGED: usize = 2048;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::engine::{Instance, Owner};
    use crate::testing;

    fn id() -> EngineId {
        EngineId::from_random([1; 16])
    }

    #[tokio::test]
    async fn registrations_of_one_engine_wait_for_each_other_and_leave_nothing() {
        let duplicates = Duplicates::default();
        let first = duplicates.turn(id()).await;
        let mut second = Box::pin(duplicates.turn(id()));
        let waits = poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx).is_pending())).await;

        assert!(waits);
        drop(duplicates.turn(EngineId::from_random([2; 16])).await);
        drop(first);
        drop(second.await);
        assert!(lock(&duplicates.gates).is_empty());
    }

    #[tokio::test]
    async fn registration_that_is_given_up_while_it_waits_leaves_nothing() {
        let duplicates = Duplicates::default();
        let first = duplicates.turn(id()).await;
        {
            let mut waiting = pin!(duplicates.turn(id()));
            let pending = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
            assert!(pending);
        }

        drop(first);

        assert!(lock(&duplicates.gates).is_empty());
    }

    #[test]
    fn second_process_is_known_by_its_instance_or_else_by_its_address() {
        let [a, b] = [1, 2].map(|n| Some(Instance::from_random([n; 16])));
        let at = |port| EngineAddress::new("localhost", port).unwrap();
        for (recorded, calling, port, is_another) in [
            (a, a, 1, false),
            (a, a, 2, false),
            (a, b, 1, true),
            (a, b, 2, true),
            (None, a, 1, false),
            (a, None, 1, false),
            (None, None, 1, false),
            (None, None, 2, true),
            (a, None, 2, true),
            (None, a, 2, true),
        ] {
            let caller = Registrant {
                identity: testing::identity("dpe", "dpe-dev", &["IMPERSONATION"]),
                environment: None,
                fingerprint: "k".into(),
                over_loopback: true,
                instance: calling,
                heartbeat_interval: None,
            };
            for status in EngineStatus::ALL {
                let engine = Engine {
                    id: id(),
                    address: at(1),
                    constraints: crate::engine::EngineConstraints::default(),
                    status,
                    suspect: false,
                    status_reason: None,
                    dial_back_failure: None,
                    owner: Owner {
                        deployment: "dpe-dev".into(),
                        module: "dpe".into(),
                        environment: None,
                        fingerprint: "k".into(),
                    },
                    over_loopback: true,
                    instance: recorded,
                    heartbeat_interval: None,
                    held: None,
                    registered_at: std::time::SystemTime::UNIX_EPOCH,
                    last_seen_at: std::time::SystemTime::UNIX_EPOCH,
                };
                let is_live = matches!(status, EngineStatus::New | EngineStatus::Ready);

                let rival = is_rival(&engine, &caller, &at(port));

                assert_eq!(
                    rival,
                    is_another && is_live,
                    "{recorded:?} {calling:?} {port} {status}"
                );
            }
        }
    }
}
