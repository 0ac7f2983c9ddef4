//! Claims the uses of tokens among the replicas.

use std::panic::catch_unwind;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::keys::Keys;
use super::writer::{Away, MOST, Session, WITHIN};
use crate::storage::Claim;

/// Makes the claims that are asked for, those that arrive together in one transaction.
///
/// Each claim is a key that is made if it is absent. It goes with its lease, of which there is one for
/// each minute.
pub struct Claimer {
    pub keys: Keys,
    pub session: watch::Receiver<Option<Session>>,
    /// For how long a claim is kept.
    pub kept_for: Duration,
}

/// A lease, and when it was asked for.
type Lease = Option<(Instant, i64)>;

impl Claimer {
    /// Runs until no claim can come any more.
    pub async fn run(self, mut claims: mpsc::Receiver<Claim>) {
        let (mut waiting, mut lease) = (Vec::new(), None);
        while claims.recv_many(&mut waiting, MOST).await > 0 {
            // After an outage, what waits no longer keeps no other from being claimed.
            waiting.retain(|claim| !claim.done.is_closed());
            let made = timeout(WITHIN, self.make(&waiting, &mut lease)).await;
            match made.unwrap_or_else(|late| Err(late.into())) {
                Ok(made) => {
                    for (claim, is_first) in waiting.drain(..).zip(made) {
                        let _ = claim.done.send(Ok(is_first));
                    }
                }
                Err(away) => {
                    // The lease may be what is gone.
                    lease = None;
                    for claim in waiting.drain(..) {
                        let _ = claim.done.send(Err(away.clone().into()));
                    }
                }
            }
        }
    }

    /// Makes those of `claims` that were not made before; returns which these are.
    async fn make(&self, claims: &[Claim], lease: &mut Lease) -> Result<Vec<bool>, Away> {
        let session = self.session.borrow().clone();
        let Session {
            mut kv, mut leases, ..
        } = session.ok_or(Away::Unreached)?;
        let now = Instant::now();
        let fresh = lease.filter(|(since, _)| now.duration_since(*since) < LEASE_EVERY);
        let id = if let Some((_, id)) = fresh {
            id
        } else {
            let lasts = (self.kept_for + LEASE_EVERY).as_secs() + 1;
            let granted = leases.grant(lasts.try_into().unwrap_or(i64::MAX), None);
            lease.insert((now, granted.await?.id())).1
        };
        let puts = claims.iter().map(|claim| {
            let key = self.keys.claim(&claim.id);
            let absent = Compare::create_revision(&*key, CompareOp::Equal, 0);
            let bound = PutOptions::new().with_lease(id);
            let put = TxnOp::put(key, Vec::new(), Some(bound));
            TxnOp::txn(Txn::new().when([absent]).and_then([put]))
        });
        let all = Txn::new().and_then(puts.collect::<Vec<_>>());
        let answer = kv.txn(all).await?;
        // It panics at an answer that lacks a part.
        let made = catch_unwind(|| answer.op_responses()).map_err(|_panic| Away::Silent)?;
        let is_first = made
            .iter()
            .map(|one| matches!(one, TxnOpResponse::Txn(one) if one.succeeded()));
        Ok(is_first.collect())
    }
}

/// For how long one lease takes claims.
const LEASE_EVERY: Duration = Duration::from_secs(60);
