//! Takes each token once, and forgets none.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::claims::{Claims, seconds, time};
use super::{MAX_OWN_MODULE_LIFETIME, Policy, Reason, Refusal};
use crate::clock::Clock;
use crate::jose::VerifyingKey;
use crate::storage::{Claim, StorageError, UseId, Watermark};

/// Whether a token is accepted more than once: `countersign.token.replay`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Replay {
    /// Until it expires. The default: callers reuse a token for half of its life.
    #[default]
    Off,
    /// Once. Callers need `countersign.deployments.<name>.single-use-tokens=true`, and their clocks
    /// are waited for after a start.
    Strict,
}

/// Remembers the uses of tokens by key and `jti`, for as long as the tokens could be used again.
///
/// A use is the key that signed and a `jti`, never the token's bytes: a signature has two
/// spellings. Nor is it the deployment's name, which a file may change. The uses of each key are
/// bounded in number. Whatever is forgotten, because it is old, because there is no room, or
/// because the process restarted, raises the key's watermark: a token issued up to then is
/// refused, used or not, so that no second use is ever taken for the first. The caller's next
/// token is newer.
///
/// After a start the watermark stands at the start plus the leeway: a token that the process before
/// it accepted was issued by then at the latest. Where the clock was set back meanwhile, it stands
/// at what that process kept in its home. Until the clock has passed it
/// ([`ready_at`](Self::ready_at)), no token can be accepted.
///
/// Every process remembers for itself: two that answer under one name accept a token once each,
/// unless they share what was used. A second one of the same home is refused.
#[derive(Debug)]
pub struct ReplayGuard {
    started: SystemTime,
    policy: Policy,
    capacity: usize,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    /// Where this process keeps up to when it may have taken tokens. A slow disk delays the call
    /// that writes it, and those for which that is overdue. Locked before the memory, where both
    /// are.
    file: Mutex<Option<Watermark>>,
    /// Takes claims to where all processes look that share what was used.
    shared: OnceLock<mpsc::Sender<Claim>>,
}

#[derive(Debug)]
struct Memory {
    /// By the key that signed: a deployment may get another name. `None` is the module's own.
    issuers: HashMap<Option<VerifyingKey>, Uses>,
    /// What the processes before this one kept.
    before: SystemTime,
    /// Up to when this one may take tokens, as the file has it.
    kept: Option<SystemTime>,
}

/// The uses of one issuer's tokens.
#[derive(Debug)]
struct Uses {
    /// Tokens issued at this time or before are refused.
    watermark: SystemTime,
    by_id: HashMap<TokenId, SystemTime>,
    by_age: BTreeSet<(SystemTime, TokenId)>,
}

/// The beginning of the SHA-256 of a `jti`: of one size, whatever callers send.
type TokenId = [u8; 16];

/// How many uses are remembered for each issuer: 300 calls a second of tokens that live 300 s.
const CAPACITY: usize = 100_000;

const CLAIMED_WITHIN: Duration = Duration::from_secs(2);

impl ReplayGuard {
    /// Starts at the time of `clock`, and remembers nothing from before.
    pub fn new(policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self::with_capacity(policy, clock, CAPACITY)
    }

    fn with_capacity(policy: Policy, clock: Arc<dyn Clock>, capacity: usize) -> Self {
        Self {
            started: clock.now(),
            policy,
            capacity,
            clock,
            memory: Mutex::new(Memory {
                issuers: HashMap::new(),
                before: SystemTime::UNIX_EPOCH,
                kept: None,
            }),
            file: Mutex::default(),
            shared: OnceLock::new(),
        }
    }

    /// Keeps in the folder `storage` up to when tokens may have been taken; call it before any is.
    pub(crate) fn keep_in(&self, storage: &Path) -> Result<(), StorageError> {
        let file = Watermark::hold(storage)?;
        let mut memory = self.memory();
        memory.before = file.kept;
        memory.kept = Some(file.kept);
        drop(memory);
        *lock(&self.file) = Some(file);
        Ok(())
    }

    /// Takes each token once together with other processes, which `claims` leads to. It gets how
    /// long a claim has to last: no process whose clock is right within the leeway then accepts the
    /// token any more.
    #[cfg(any(test, feature = "etcd"))]
    pub(crate) fn share(&self, claims: impl FnOnce(Duration) -> mpsc::Sender<Claim>) {
        let life = self.policy.max_lifetime().max(MAX_OWN_MODULE_LIFETIME);
        self.shared
            .get_or_init(|| claims(life + 3 * self.policy.leeway()));
    }

    /// Returns what the use of a token of `key` is claimed by, if it is to be claimed.
    pub(super) fn use_id(&self, key: &VerifyingKey, claims: &Claims) -> Option<UseId> {
        self.shared.get()?;
        let both = Sha256::new_with_prefix(key.fingerprint().as_bytes());
        let id = required_id(claims).ok()?;
        Some(both.chain_update(id).finalize().into())
    }

    /// Claims a use that this process took, among those that share what was used.
    ///
    /// # Errors
    ///
    /// `TOKEN_REPLAYED` if another process has it; `REPLAY_UNKNOWN` if that is not known soon.
    pub(super) async fn claim(&self, id: UseId) -> Result<(), Refusal> {
        let (done, claimed) = oneshot::channel();
        let asking = async {
            self.shared.get()?.send(Claim { id, done }).await.ok()?;
            claimed.await.ok()
        };
        let (reason, detail) = match timeout(CLAIMED_WITHIN, asking).await {
            Ok(Some(Ok(true))) => return Ok(()),
            Ok(Some(Ok(false))) => {
                let detail = "its `jti` was used before, at another process of this module";
                (Reason::TokenReplayed, detail.to_owned())
            }
            Ok(Some(Err(error))) => (Reason::ReplayUnknown, error.to_string()),
            Ok(None) | Err(_) => (Reason::ReplayUnknown, "no answer in time".to_owned()),
        };
        Err(Refusal::new(reason, detail))
    }

    /// Returns the time from which on a peer's fresh token is accepted, if its clock is this one's.
    pub fn ready_at(&self) -> SystemTime {
        // Tokens carry whole seconds, rounded down.
        self.watermark(true, self.memory().before) + Duration::from_secs(1)
    }

    /// Counts the use of a token that passed every other check; `issuer` is the key that signed,
    /// `None` for the module's own.
    ///
    /// # Errors
    ///
    /// `TOKEN_REPLAYED` if it was used before, or may have been; `TOKEN_MALFORMED` if it has no
    /// `jti`.
    pub(super) fn take(
        &self,
        issuer: Option<&VerifyingKey>,
        claims: &Claims,
    ) -> Result<(), Refusal> {
        let id = required_id(claims)?;
        let at = time(claims.issued_at);
        let mut memory = self.memory();
        let first = self.watermark(issuer.is_some(), memory.before);
        let known = memory.issuers.entry(issuer.cloned());
        let uses = known.or_insert_with(|| Uses::since(first));
        let now = self.clock.now();
        let horizon = self.horizon(issuer, now);
        while uses.by_age.first().is_some_and(|(at, _)| *at <= horizon) {
            uses.forget_oldest();
        }
        uses.take(id, at, now, self.capacity)?;
        let kept = memory.kept;
        drop(memory);
        let covered = self.cover(now + self.policy.leeway(), kept);
        covered.map_err(|error| {
            let detail = format!("its use cannot be kept in `storage/replay-watermark`: {error}");
            Refusal::new(Reason::TokenReplayed, detail)
        })
    }

    /// Makes the file, which has `kept`, cover `time`: ahead of time, as long as no other call does.
    fn cover(&self, time: SystemTime, kept: Option<SystemTime>) -> io::Result<()> {
        let Some(kept) = kept.filter(|kept| Watermark::is_due(time, *kept)) else {
            return Ok(());
        };
        let mut file = match self.file.try_lock() {
            Err(TryLockError::WouldBlock) if time <= kept => return Ok(()),
            Err(_) => lock(&self.file),
            Ok(file) => file,
        };
        let Some(file) = &mut *file else {
            return Ok(());
        };
        let written = file.cover(time);
        self.memory().kept = Some(file.kept);
        if time <= kept { Ok(()) } else { written }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Returns when the newest token was issued, by a peer or this module, that may have been used
    /// before the start. `before` is what earlier processes kept.
    fn watermark(&self, by_peer: bool, before: SystemTime) -> SystemTime {
        let leeway = self.policy.leeway();
        let of_peers = before.max(self.started + leeway);
        if by_peer {
            return of_peers;
        }
        // The module's own tokens are timed by this very clock.
        of_peers.checked_sub(leeway).unwrap_or(of_peers)
    }

    /// Returns when a token was issued that has expired by now, leeway included, however long it
    /// lived.
    fn horizon(&self, issuer: Option<&VerifyingKey>, now: SystemTime) -> SystemTime {
        let life = issuer.map_or(MAX_OWN_MODULE_LIFETIME, |_| self.policy.max_lifetime());
        let past = life + self.policy.leeway();
        now.checked_sub(past).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what a token's `jti` is remembered by.
///
/// # Errors
///
/// `TOKEN_MALFORMED` if it has no `jti`.
pub(super) fn required_id(claims: &Claims) -> Result<TokenId, Refusal> {
    let Some(id) = &claims.id else {
        let detail = "claim `jti` is missing; this module accepts each token once";
        return Err(Refusal::new(Reason::TokenMalformed, detail));
    };
    let mut short = TokenId::default();
    for (to, from) in short.iter_mut().zip(Sha256::digest(id.as_bytes())) {
        *to = from;
    }
    Ok(short)
}

impl Uses {
    fn since(watermark: SystemTime) -> Self {
        Self {
            watermark,
            by_id: HashMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    fn take(
        &mut self,
        id: TokenId,
        issued: SystemTime,
        now: SystemTime,
        capacity: usize,
    ) -> Result<(), Refusal> {
        let replayed = if self.by_id.contains_key(&id) {
            Some("its `jti` was used before".to_owned())
        } else {
            (issued <= self.watermark).then(|| self.describe_watermark(now))
        };
        if let Some(detail) = replayed {
            return Err(Refusal::new(Reason::TokenReplayed, detail));
        }
        self.by_id.insert(id, issued);
        self.by_age.insert((issued, id));
        while self.by_id.len() > capacity {
            self.forget_oldest();
        }
        Ok(())
    }

    fn describe_watermark(&self, now: SystemTime) -> String {
        match seconds(self.watermark) - seconds(now) {
            ahead if ahead > 0.0 => format!(
                "this module has just started and refuses tokens issued in the next {ahead:.0} s"
            ),
            ahead => format!(
                "uses of tokens issued over {:.0} s ago are forgotten; send a newer token",
                -ahead
            ),
        }
    }

    /// Forgets the use of the token issued first; from then on no token of its age is accepted.
    fn forget_oldest(&mut self) {
        if let Some((issued, id)) = self.by_age.pop_first() {
            self.by_id.remove(&id);
            self.watermark = self.watermark.max(issued);
        }
    }
}

#[cfg(test)]
mod tests;
