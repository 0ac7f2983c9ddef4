//! What a registry should do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::super::{Instance, caller, id};
use crate::engine::{DialBackFailure, Engine, EngineId, EngineStatus, FailureKind};
use crate::registry::{CheckOutcome, Registrant, RegistryError};

/// The most engines: of all deployments, and of one.
pub(super) const LIMITS: (usize, usize) = (14, 6);
pub(super) const NOT_SEEN: Duration = Duration::from_secs(60);

/// One thing that happens to a registry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// By a deployment, of an engine: with its port, process and what it offers.
    Register(&'static str, u8, u16, Option<u8>, u8),
    Heartbeat(&'static str, u8, Option<u8>),
    Deregister(&'static str, u8, Option<u8>),
    /// `None` is the operator.
    Inactivate(Option<&'static str>, u8),
    Forget(Option<&'static str>, u8),
    /// The outcome of a check that began now, or some time ago.
    Checked(Checked, Outcome),
    Expire,
    Restart {
        is_killed: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Checked {
    Now(u8),
    Before(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Proved,
    Alive,
    Failed(FailureKind),
}

impl Outcome {
    pub(super) fn as_outcome(self) -> CheckOutcome {
        match self {
            Self::Proved => CheckOutcome::Proved,
            Self::Alive => CheckOutcome::Alive,
            Self::Failed(kind) => CheckOutcome::Failed(DialBackFailure::new(kind, "x")),
        }
    }
}

/// What a caller sees of an engine, but for when it was last seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Shown {
    owner: String,
    port: u16,
    process: Option<Instance>,
    offers: String,
    pub(super) status: EngineStatus,
    pub(super) suspect: bool,
    pub(super) reason: Option<String>,
    pub(super) failure: Option<DialBackFailure>,
    pub(super) registered: SystemTime,
}

impl Shown {
    pub(super) fn of(engine: &Engine) -> Self {
        Self {
            owner: engine.owner.deployment.to_string(),
            port: engine.address.port(),
            process: engine.instance,
            offers: engine.constraints.priorities().concat(),
            status: engine.status,
            suspect: engine.suspect,
            reason: engine.status_reason.as_deref().map(str::to_owned),
            failure: engine.dial_back_failure.clone(),
            registered: engine.registered_at,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(
            self.status,
            EngineStatus::Disconnected | EngineStatus::Inactive
        )
    }

    fn leaves(&mut self, reason: &str) {
        if self.status != EngineStatus::Inactive {
            self.status = EngineStatus::Inactive;
            self.suspect = false;
            self.reason = Some(reason.to_owned());
            self.failure = None;
        }
    }

    fn is_other(&self, process: Option<u8>) -> bool {
        let calling = process.map(instance);
        matches!((self.process, calling), (Some(known), Some(calling)) if known != calling)
    }
}

pub(super) fn instance(n: u8) -> Instance {
    Instance::from_random([n; 16])
}

pub(super) fn process(deployment: &str, n: Option<u8>) -> Registrant {
    Registrant {
        instance: n.map(instance),
        ..caller(deployment)
    }
}

/// What became of an engine: as it is now, or that it is gone.
pub(super) type Delta = (EngineId, Option<Shown>);

/// What a registry should be.
#[derive(Clone, Default)]
pub(super) struct Model(pub(super) BTreeMap<EngineId, (Shown, SystemTime)>);

/// Why a step is refused.
pub(super) type Why = &'static str;

pub(super) fn why(error: &RegistryError) -> Why {
    match error {
        RegistryError::EngineNotOwned(_) => "not owned",
        RegistryError::NotFound(_) => "not found",
        RegistryError::Live(..) => "live",
        RegistryError::RegistryFull(_) => "full",
        RegistryError::DeploymentFull(_) => "deployment full",
        _ => "failed",
    }
}

impl Model {
    /// Does `change` to an engine of `by`, of which it returns whether it was seen.
    fn change(
        &mut self,
        by: Option<&str>,
        n: u8,
        now: SystemTime,
        change: impl FnOnce(&mut Shown) -> Result<bool, Why>,
    ) -> Result<(), Why> {
        let (engine, seen) = self.0.get_mut(&id(n)).ok_or("not found")?;
        if by.is_some_and(|by| by != engine.owner) {
            return Err("not owned");
        }
        if change(engine)? {
            *seen = now;
        }
        Ok(())
    }

    fn register(&mut self, step: Step, now: SystemTime) -> Result<(), Why> {
        let Step::Register(by, n, port, process, offers) = step else {
            panic!("no registration");
        };
        let new = Shown {
            owner: by.to_owned(),
            port,
            process: process.map(instance),
            offers: offers.to_string(),
            status: EngineStatus::New,
            suspect: false,
            reason: Some("registered; not checked yet".to_owned()),
            failure: None,
            registered: now,
        };
        let renewed = self.change(Some(by), n, now, |engine| {
            let stays = engine.port == port && !engine.is_other(process) && !engine.is_gone();
            let before = std::mem::replace(engine, new.clone());
            if stays {
                *engine = Shown {
                    owner: new.owner.clone(),
                    process: new.process,
                    offers: new.offers.clone(),
                    ..before
                };
            }
            Ok(true)
        });
        if renewed != Err("not found") {
            return renewed;
        }
        let full = |total: usize, own: usize| match (total, own) {
            (_, own) if own >= LIMITS.1 => Some("deployment full"),
            (total, _) if total >= LIMITS.0 => Some("full"),
            _ => None,
        };
        loop {
            let own = self.0.values().filter(|(engine, _)| engine.owner == by);
            let (total, own) = (self.0.len(), own.count());
            let Some(refused) = full(total, own) else {
                break;
            };
            if let Some(refused) = full(total.saturating_sub(1), own.saturating_sub(1)) {
                return Err(refused);
            }
            let inactive = self.0.iter().filter(|(_, (engine, _))| {
                engine.owner == by && engine.status == EngineStatus::Inactive
            });
            let oldest = inactive.min_by_key(|(id, (_, seen))| (*seen, **id));
            let oldest = *oldest.ok_or(refused)?.0;
            self.0.remove(&oldest);
        }
        self.0.insert(id(n), (new, now));
        Ok(())
    }

    fn checked(&mut self, then: &Engine, outcome: Outcome, now: SystemTime) -> Result<(), Why> {
        let then_shown = Shown::of(then);
        let (engine, seen) = self.0.get_mut(&then.id).ok_or("not found")?;
        let same = |shown: &Shown| {
            let Shown {
                owner,
                port,
                process,
                registered,
                ..
            } = shown.clone();
            (owner, port, process, registered)
        };
        if engine.status == EngineStatus::Inactive || same(engine) != same(&then_shown) {
            return Ok(());
        }
        let was_suspect = std::mem::take(&mut engine.suspect);
        let before = engine.status;
        match outcome {
            Outcome::Proved => {
                (engine.reason, engine.failure) = (None, None);
                engine.status = EngineStatus::Ready;
                *seen = now;
            }
            Outcome::Alive => {
                if was_suspect {
                    engine.reason = None;
                }
                *seen = now;
            }
            Outcome::Failed(kind) => {
                let failure = DialBackFailure::new(kind, "x");
                engine.reason = Some(failure.to_string());
                engine.failure = Some(failure);
                if engine.status == EngineStatus::Ready {
                    engine.status = EngineStatus::Disconnected;
                }
            }
        }
        if engine.status == EngineStatus::Ready && before != EngineStatus::Ready {
            let (owner, port) = (engine.owner.clone(), engine.port);
            self.0.retain(|_, (other, _)| {
                !(other.is_gone() && other.owner == owner && other.port == port)
            });
        }
        Ok(())
    }

    /// Does `step`; `then` is the record that a check was made for.
    pub(super) fn step(
        &mut self,
        step: Step,
        then: Option<&Engine>,
        now: SystemTime,
    ) -> Result<(), Why> {
        match step {
            Step::Register(..) => self.register(step, now),
            Step::Heartbeat(by, n, process) => self.change(Some(by), n, now, |engine| {
                if engine.status == EngineStatus::Inactive {
                    return Err("not found");
                }
                Ok(!engine.is_other(process))
            }),
            Step::Deregister(by, n, process) => self.change(Some(by), n, now, |engine| {
                if !engine.is_other(process) {
                    engine.leaves("deregistered by its owner");
                }
                Ok(false)
            }),
            Step::Inactivate(by, n) => self.change(by, n, now, |engine| {
                engine.leaves("inactivated by an operator");
                Ok(false)
            }),
            Step::Forget(by, n) => {
                self.change(by, n, now, |engine| {
                    if engine.is_gone() {
                        Ok(false)
                    } else {
                        Err("live")
                    }
                })?;
                self.0.remove(&id(n));
                Ok(())
            }
            Step::Checked(_, outcome) => {
                then.map_or(Ok(()), |then| self.checked(then, outcome, now))
            }
            Step::Expire => {
                for (engine, seen) in self.0.values_mut() {
                    if *seen + NOT_SEEN <= now {
                        engine.leaves("not seen for 60 s");
                    }
                }
                Ok(())
            }
            Step::Restart { .. } => Ok(()),
        }
    }

    /// Returns how this differs from what was `before`: each engine once.
    pub(super) fn since(&self, before: &Self) -> BTreeSet<(EngineId, String)> {
        let ids: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        let shown = |model: &Self, id| model.0.get(id).map(|(shown, _)| shown.clone());
        let differing = ids
            .into_iter()
            .filter(|id| shown(self, id) != shown(before, id));
        differing
            .map(|id| (*id, format!("{:?}", shown(self, id))))
            .collect()
    }
}
