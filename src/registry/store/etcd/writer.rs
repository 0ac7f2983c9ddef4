//! Writes to etcd, many changes in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_client::{Compare, CompareOp, KvClient, LeaseClient, Txn, TxnOp};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::keys::Keys;
use super::mirror::{Found, Mirror, News};
use crate::engine::{Engine, EngineId};
use crate::failure::cause;
use crate::registry::store::{StoreError, Stored};

/// A change of one record.
#[derive(Debug)]
pub struct Change {
    pub id: EngineId,
    /// The record and its bytes; `None` removes it.
    pub record: Option<(Engine, Vec<u8>)>,
    /// The revision that its key must be at.
    pub at: i64,
    pub signed_at: SystemTime,
    pub done: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// How a change ended.
#[derive(Debug)]
pub enum Outcome {
    Done(Option<Stored>),
    /// Another writer was first; the mirror has what it wrote.
    Lost,
}

/// How etcd is reached, and as which replica.
#[derive(Clone)]
pub struct Session {
    pub kv: KvClient,
    pub leases: LeaseClient,
    /// The revision at which this process's presence key was made.
    pub presence: i64,
}

/// Why nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Away {
    #[error("etcd cannot be reached")]
    Unreached,
    #[error("etcd does not answer")]
    Silent,
    #[error("this process was not seen for a while, and has to look again first")]
    Absent,
    #[error("etcd: {0}")]
    Refused(Arc<str>),
}

impl From<Away> for StoreError {
    fn from(away: Away) -> Self {
        Self(Box::new(away))
    }
}

impl From<etcd_client::Error> for Away {
    fn from(error: etcd_client::Error) -> Self {
        Self::Refused(match error {
            etcd_client::Error::GRpcStatus(status) => status.message().into(),
            etcd_client::Error::TransportError(error) => cause(&error).into(),
            error => error.to_string().into(),
        })
    }
}

impl From<Elapsed> for Away {
    fn from(_: Elapsed) -> Self {
        Self::Silent
    }
}

/// Makes the changes that are asked for, those that arrive together in one transaction.
pub struct Writer {
    pub mirror: Arc<Mirror>,
    pub keys: Keys,
    pub session: watch::Receiver<Option<Session>>,
    /// Notified when this process's presence key is gone.
    pub absent: Arc<Notify>,
}

impl Writer {
    /// Runs until no change can come any more.
    pub async fn run(self, mut changes: mpsc::Receiver<Change>) {
        let mut waiting = Vec::new();
        loop {
            if waiting.is_empty() && changes.recv_many(&mut waiting, MOST).await == 0 {
                return;
            }
            let mut ids = BTreeSet::new();
            let mut bytes = 0;
            // Of two changes of one record, the second waits for the first.
            let (batch, rest) = waiting.into_iter().partition(|change: &Change| {
                bytes += change.record.as_ref().map_or(0, |(_, bytes)| bytes.len());
                (bytes <= MOST_BYTES || ids.is_empty()) && ids.insert(change.id)
            });
            waiting = rest;
            self.commit(batch).await;
        }
    }

    async fn commit(&self, batch: Vec<Change>) {
        match self.attempt(&batch).await {
            Ok(Some(revision)) => self.done(batch, revision),
            Ok(None) if batch.len() == 1 => {
                for change in batch {
                    let outcome = self.look(change.id).await;
                    let _ = change.done.send(outcome.map_err(Into::into));
                }
            }
            Ok(None) => {
                for change in batch {
                    Box::pin(self.commit(vec![change])).await;
                }
            }
            Err(away) => {
                for change in batch {
                    let _ = change.done.send(Err(away.clone().into()));
                }
            }
        }
    }

    fn done(&self, batch: Vec<Change>, revision: i64) {
        for change in batch {
            let engine = change.record.map(|(engine, _)| engine);
            let stored = self
                .mirror
                .wrote(change.id, engine, revision, change.signed_at);
            let _ = change.done.send(Ok(Outcome::Done(stored)));
        }
    }

    /// Makes all of `batch` or nothing; returns the revision of it, if it was made.
    async fn attempt(&self, batch: &[Change]) -> Result<Option<i64>, Away> {
        let Session {
            mut kv, presence, ..
        } = self.current()?;
        let own = self.keys.replica(self.mirror.own);
        let mut compares = vec![Compare::create_revision(own, CompareOp::Equal, presence)];
        let mut operations = Vec::new();
        for change in batch {
            let key = self.keys.engine(change.id);
            compares.push(Compare::mod_revision(&*key, CompareOp::Equal, change.at));
            operations.push(match &change.record {
                Some((_, bytes)) => TxnOp::put(&*key, &**bytes, None),
                None => TxnOp::delete(&*key, None),
            });
        }
        let txn = Txn::new().when(compares).and_then(operations);
        let answer = timeout(WITHIN, kv.txn(txn)).await??;
        let revision = answer.header().map(etcd_client::ResponseHeader::revision);
        Ok(revision.filter(|_| answer.succeeded()))
    }

    /// Finds out why the change of `id` was not made.
    async fn look(&self, id: EngineId) -> Result<Outcome, Away> {
        let Session {
            mut kv, presence, ..
        } = self.current()?;
        let presence_key = self.keys.replica(self.mirror.own);
        let own = timeout(WITHIN, kv.get(presence_key, None)).await??;
        if own
            .kvs()
            .first()
            .map(etcd_client::KeyValue::create_revision)
            != Some(presence)
        {
            self.absent.notify_one();
            return Err(Away::Absent);
        }
        let record = timeout(WITHIN, kv.get(self.keys.engine(id), None)).await??;
        let read_at = record
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let found = record.kvs().first();
        let found = Found {
            id,
            value: found.map(etcd_client::KeyValue::value),
            revision: found.map_or(read_at, etcd_client::KeyValue::mod_revision),
        };
        if self.mirror.apply(found, News::Asked) {
            self.mirror.tell(Some(id));
        }
        Ok(Outcome::Lost)
    }

    fn current(&self) -> Result<Session, Away> {
        self.session.borrow().clone().ok_or(Away::Unreached)
    }
}

/// etcd takes 128 comparisons by default; one is of the presence key, or of a transaction within.
pub const MOST: usize = 127;
/// etcd takes 1.5 MiB by default.
const MOST_BYTES: usize = 1024 * 1024;
pub const WITHIN: Duration = Duration::from_secs(2);
