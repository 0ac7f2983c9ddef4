//! Engines in etcd, for several DPMs of one deployment.

mod claims;
mod keys;
mod mirror;
mod options;
pub(crate) mod record;
mod session;
mod shares;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::claims::Claimer;
use self::keys::Keys;
use self::mirror::{Mirror, Plan};
pub(crate) use self::options::{EtcdOptions, EtcdTls};
use self::session::Follower;
use self::writer::{Away, Change, Outcome, Session, Writer};
use super::changes::Changes;
use super::{Condition, Counts, EngineStore, Expected, Revision, StoreError, StoreFuture, Stored};
use crate::clock::Clock;
use crate::engine::{Engine, EngineId};
use crate::storage::Claim;
use crate::trust::TrustStore;

/// Keeps engines in etcd. All reads are from memory, which follows etcd.
///
/// Every write is a transaction on the revision of the record's key, and on this process's presence
/// key: one that was stopped for long writes nothing that it knew before. Only presence and the claims of
/// used tokens hang on leases. When an engine was last seen is not written. While etcd is away, reads go on
/// from what is known ([`Condition::is_stale`]), and writes fail.
///
/// Each record is signed by the deployment, whose replicas share one key. Who can write to etcd can
/// remove records and put back old ones, and can make engines that are NEW; none of those is READY
/// before a replica has checked it.
pub(crate) struct EtcdStore {
    mirror: Arc<Mirror>,
    keys: Keys,
    session: watch::Receiver<Option<Session>>,
    changes: mpsc::Sender<Change>,
    condition: watch::Sender<Condition>,
    closing: watch::Sender<bool>,
    tasks: [AbortHandle; 2],
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Follows etcd from now on, as a replica of the module of `trust`. Waits for its records, and not
    /// for long: where etcd is away, they come once it is back.
    pub(crate) async fn open(
        options: EtcdOptions,
        trust: TrustStore,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let own = trust.own();
        let name = own.name.as_ref().map(ToString::to_string);
        let keys = Keys::of(&name.unwrap_or_else(|| own.fingerprint().to_string()));
        let mirror = Arc::new(Mirror::new(trust, clock, options.max_engines));
        let condition = watch::Sender::new(Condition {
            failing: Some(Away::Unreached.to_string().into()),
            is_stale: true,
            ..Condition::default()
        });
        let (session, begun) = watch::channel(None);
        let closing = watch::Sender::new(false);
        let absent = Arc::new(Notify::new());
        let (changes, asked) = mpsc::channel(MOST_WAITING);
        let writer = Writer {
            mirror: Arc::clone(&mirror),
            keys: keys.clone(),
            session: begun.clone(),
            absent: Arc::clone(&absent),
        };
        let follower = Follower {
            options,
            mirror: Arc::clone(&mirror),
            keys: keys.clone(),
            session,
            condition: condition.clone(),
            absent,
            closing: closing.subscribe(),
        };
        let tasks = [
            tokio::spawn(writer.run(asked)).abort_handle(),
            tokio::spawn(follower.run()).abort_handle(),
        ];
        let mut opened = condition.subscribe();
        let read = opened.wait_for(|condition| !condition.is_stale);
        let _ = timeout(OPEN_WITHIN, read).await;
        Self {
            mirror,
            keys,
            session: begun,
            changes,
            condition,
            closing,
            tasks,
        }
    }

    /// Returns the way to claim uses of tokens among all replicas. Each claim is kept for `kept_for`.
    pub(crate) fn claims(&self, kept_for: Duration) -> mpsc::Sender<Claim> {
        let (claims, asked) = mpsc::channel(MOST_WAITING);
        let claimer = Claimer {
            keys: self.keys.clone(),
            session: self.session.clone(),
            kept_for,
        };
        tokio::spawn(claimer.run(asked));
        claims
    }

    /// Has the record of `id` changed if its key is at the revision `at`.
    async fn change(
        &self,
        id: EngineId,
        engine: Option<Engine>,
        at: i64,
    ) -> Result<Outcome, StoreError> {
        let signed_at = self.mirror.clock.now();
        let own = self.mirror.trust.own();
        let sealed = engine.map(|engine| {
            let named = self.mirror.named(engine.clone());
            let bytes = record::seal(&named, at, signed_at, &own);
            bytes.map(|bytes| (engine, bytes))
        });
        let record = sealed
            .transpose()
            .map_err(|error| StoreError(Box::new(error)))?;
        let (done, outcome) = oneshot::channel();
        let change = Change {
            id,
            record,
            at,
            signed_at,
            done,
        };
        if self.changes.send(change).await.is_err() {
            return Err(Away::Unreached.into());
        }
        outcome
            .await
            .unwrap_or_else(|_closed| Err(Away::Unreached.into()))
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl EngineStore for EtcdStore {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        self.mirror.memory.find(id)
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        self.mirror.memory.page(after, limit)
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        self.mirror.memory.count(deployment)
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        Box::pin(async move {
            let at = match self.mirror.plan(&engine, expected) {
                Plan::Refused => return Ok(None),
                Plan::Done(stored) => return Ok(Some(stored)),
                Plan::Renew(at) => {
                    return match self.change(engine.id, Some(engine.clone()), at).await {
                        Ok(Outcome::Done(stored)) => Ok(stored),
                        Ok(Outcome::Lost) => Ok(None),
                        Err(_away) => Ok(self.mirror.memory.swap(engine, expected)),
                    };
                }
                Plan::At(revision) => revision,
            };
            match self.change(engine.id, Some(engine), at).await? {
                Outcome::Done(stored) => Ok(stored),
                Outcome::Lost => Ok(None),
            }
        })
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let Some(at) = self.mirror.plan_removal(id, Expected::At(revision)) else {
                return Ok(false);
            };
            let outcome = self.change(id, None, at).await?;
            Ok(matches!(outcome, Outcome::Done(_)))
        })
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.mirror.memory.stalest(deployment)
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        self.mirror.memory.changes()
    }

    fn flush(&self) -> StoreFuture<'_, bool> {
        // What was answered is in etcd.
        Box::pin(async { Ok(true) })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.closing.send_replace(true);
            let gone = self.closing.closed();
            let _ = timeout(CLOSE_WITHIN, gone).await;
            Ok(())
        })
    }

    fn condition(&self) -> Option<watch::Receiver<Condition>> {
        Some(self.condition.subscribe())
    }

    fn is_mine(&self, id: EngineId) -> bool {
        self.mirror.is_mine(id)
    }

    fn others(&self) -> Option<broadcast::Receiver<Option<EngineId>>> {
        Some(self.mirror.others.subscribe())
    }
}

const MOST_WAITING: usize = 1024;
const OPEN_WITHIN: Duration = Duration::from_secs(3);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
