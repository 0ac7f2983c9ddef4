//! What this process knows of etcd: every record, and which replicas there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use super::record::{self, Opened, doubted};
use super::shares::checker;
use crate::clock::Clock;
use crate::engine::{Engine, EngineId, EngineStatus, Held};
use crate::registry::store::memory::MemoryStore;
use crate::registry::store::{Expected, Stored};
use crate::telemetry::{Ledger, events};
use crate::trust::TrustStore;

/// How long a signature vouches for READY.
const VOUCHES: Duration = Duration::from_secs(15 * 60);
/// When a READY engine that answers is signed again: early enough that etcd may be away for a while.
const RENEWED: Duration = Duration::from_secs(8 * 60);
/// How far the clocks of replicas may differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// The records in memory, and what etcd knows of each.
#[derive(Debug)]
pub struct Mirror {
    pub(super) memory: MemoryStore,
    pub(super) trust: TrustStore,
    pub(super) clock: Arc<dyn Clock>,
    /// Locked while a record is changed by what etcd says.
    known: Mutex<HashMap<EngineId, Known>>,
    /// This process, as the others know it.
    pub(super) own: Uuid,
    replicas: Mutex<Arc<BTreeSet<Uuid>>>,
    pub(super) others: broadcast::Sender<Option<EngineId>>,
    /// How many records there may be.
    most: usize,
    passed_over: Mutex<Ledger<()>>,
}

/// What is known of a key in etcd.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The revision of its last change.
    revision: i64,
    /// Whether that removed it.
    is_gone: bool,
    /// When its record was signed.
    signed_at: Option<SystemTime>,
    /// Whether that says that it is READY.
    is_ready: bool,
}

impl Known {
    /// Returns the revision that a transaction expects; etcd says 0 where there is no key.
    fn expected(&self) -> i64 {
        if self.is_gone { 0 } else { self.revision }
    }
}

/// A record as etcd has it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Whose it is.
    pub id: EngineId,
    /// Its bytes; `None` if it was removed.
    pub value: Option<&'a [u8]>,
    /// The revision of that change.
    pub revision: i64,
}

/// How a record came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    /// As the change after those that were taken over.
    Next,
    /// Among all others; what was before it is not known.
    Read,
    /// As `Read`, for this process is about to write over it.
    Asked,
}

/// What a change needs.
#[derive(Debug)]
pub enum Plan {
    /// Nothing: the record is not as expected.
    Refused,
    /// It was made; etcd has nothing to know of it.
    Done(Stored),
    /// The key must be at this revision.
    At(i64),
    /// As `At`, so that other replicas know; the change holds here even if etcd cannot be reached.
    Renew(i64),
}

impl Mirror {
    pub fn new(trust: TrustStore, clock: Arc<dyn Clock>, max_engines: usize) -> Self {
        Self {
            memory: MemoryStore::default(),
            trust,
            clock,
            known: Mutex::default(),
            own: Uuid::new_v4(),
            replicas: Mutex::default(),
            others: broadcast::Sender::new(NOTES),
            most: max_engines.saturating_add(MARGIN),
            passed_over: Mutex::new(Ledger::new(1, 1)),
        }
    }

    /// Returns `true` if the checks of `id` are this process's share.
    pub fn is_mine(&self, id: EngineId) -> bool {
        let held = self.memory.get(id).and_then(|found| found.engine.held);
        self.is_share(&lock(&self.replicas), id, held)
    }

    /// Returns `true` if the checks of `id` are this process's share where there are these `replicas`: a
    /// one-way engine is asked where its stream is, as long as that replica is there.
    fn is_share(&self, replicas: &BTreeSet<Uuid>, id: EngineId, held: Option<Held>) -> bool {
        match held {
            Some(Held { by: None, .. }) => true,
            Some(Held {
                by: Some(holder), ..
            }) if replicas.contains(&holder) => false,
            _ => checker(replicas, id) == Some(self.own),
        }
    }

    /// Returns `engine` as all replicas read it: what is held here is held by this one.
    pub fn named(&self, engine: Engine) -> Engine {
        let held = engine.held.map(|held| Held {
            by: held.by.or(Some(self.own)),
            ..held
        });
        Engine { held, ..engine }
    }

    /// Returns `engine`, which all replicas read, as this one sees it.
    fn seen(&self, engine: Engine) -> Engine {
        let held = engine.held.map(|held| Held {
            by: held.by.filter(|holder| *holder != self.own),
            ..held
        });
        Engine { held, ..engine }
    }

    /// Decides what writing `engine` needs, and does it where that is nothing of etcd's.
    pub fn plan(&self, engine: &Engine, expected: Expected) -> Plan {
        let known = lock(&self.known);
        let found = self.memory.get(engine.id);
        let is_expected = match (&found, expected) {
            (None, Expected::Absent) => true,
            (Some(found), Expected::At(revision)) => found.revision == revision,
            _ => false,
        };
        if !is_expected {
            return Plan::Refused;
        }
        let of_etcd = known.get(&engine.id);
        let at = of_etcd.map_or(0, Known::expected);
        if let Some(found) = &found
            && found.engine.held == engine.held
            && (found.engine.is_kept_as(engine) || self.is_others_to_say(&found.engine, engine))
        {
            if self.is_to_renew(engine, of_etcd) {
                return Plan::Renew(at);
            }
            let swapped = self.memory.swap(engine.clone(), expected);
            return swapped.map_or(Plan::Refused, Plan::Done);
        }
        if found.is_some_and(|found| is_lost(&found.engine, engine)) {
            return Plan::Renew(at);
        }
        Plan::At(at)
    }

    /// Returns the revision that removing a record needs the key to be at.
    pub fn plan_removal(&self, id: EngineId, expected: Expected) -> Option<i64> {
        let known = lock(&self.known);
        let found = self.memory.get(id)?;
        let is_expected = Expected::At(found.revision) == expected;
        is_expected.then(|| known.get(&id).map_or(0, Known::expected))
    }

    /// Returns `true` if a READY engine is lost here only: for the others, the replica that checks it
    /// says so.
    fn is_others_to_say(&self, before: &Engine, after: &Engine) -> bool {
        is_lost(before, after) && !self.is_mine(after.id)
    }

    /// Returns `true` if the others are to know that a READY engine still answers.
    fn is_to_renew(&self, engine: &Engine, known: Option<&Known>) -> bool {
        let signed_at = known.and_then(|known| known.signed_at);
        let age = signed_at.and_then(|at| self.clock.now().duration_since(at).ok());
        engine.status == EngineStatus::Ready
            && !engine.suspect
            && age.is_none_or(|age| age >= RENEWED)
            && self.is_mine(engine.id)
    }

    /// Notes that this process wrote `engine` at `revision`, or removed it, at the time `signed_at`.
    pub fn wrote(
        &self,
        id: EngineId,
        engine: Option<Engine>,
        revision: i64,
        signed_at: SystemTime,
    ) -> Option<Stored> {
        let mut known = lock(&self.known);
        let is_gone = engine.is_none();
        let is_past = match known.get(&id) {
            Some(now) => now.revision >= revision,
            None => is_gone,
        };
        if is_past {
            // The news of it, or of a later change, was faster.
            return self.memory.get(id).filter(|_| !is_gone);
        }
        let of_etcd = Known {
            revision,
            is_gone,
            signed_at: (!is_gone).then_some(signed_at),
            is_ready: engine.as_ref().is_some_and(is_ready),
        };
        known.insert(id, of_etcd);
        self.put(id, engine)
    }

    /// Takes over what etcd says of a record, within bounds: others may write there, too. Returns `true` if
    /// that was news.
    pub fn apply(&self, found: Found<'_>, news: News) -> bool {
        let Found { id, revision, .. } = found;
        let mut known = lock(&self.known);
        let before = known.get(&id).copied();
        if before.is_some_and(|before| before.revision >= revision) {
            if found.value.is_none() && before.is_some_and(|before| before.is_gone) {
                known.remove(&id);
            }
            return false;
        }
        let Some(value) = found.value else {
            known.remove(&id);
            self.memory.unset(id, |_| true);
            return true;
        };
        let own = self.trust.own();
        // What is no record is not shown, and is overwritten by a registration.
        let read = (value.len() <= MOST_BYTES).then(|| record::open(value, &own));
        let opened = read
            .and_then(Result::ok)
            .filter(|opened| opened.engine.id == id);
        let records = self.memory.len();
        let has_room = match &opened {
            _ if news == News::Asked => true,
            Some(_) => before.is_some() || records < self.most,
            None => known.len().saturating_sub(records) < MARGIN,
        };
        if opened.is_none() || !has_room {
            self.log_passed_over(id, value.len());
        }
        if !has_room {
            let was_known = known.remove(&id).is_some();
            return was_known && self.memory.unset(id, |_| true);
        }
        let statement = opened.as_ref().and_then(|opened| opened.signed);
        // A record that replaced another one than what was there is an old one, put back.
        let replaced = before.map_or(0, |before| before.expected());
        let signed = statement.filter(|signed| {
            let in_turn = signed.replaced >= replaced && signed.replaced < revision;
            in_turn && (news != News::Next || signed.replaced == replaced)
        });
        let of_etcd = Known {
            revision,
            is_gone: false,
            signed_at: signed.map(|signed| signed.at),
            is_ready: opened
                .as_ref()
                .is_some_and(|opened| is_ready(&opened.engine)),
        };
        known.insert(id, of_etcd);
        let engine = opened.map(|opened| self.judged(opened, of_etcd.signed_at));
        self.put(id, engine);
        true
    }

    /// Returns `true` if it is known at which revision the key of `id` is.
    pub fn is_known(&self, id: EngineId) -> bool {
        lock(&self.known).contains_key(&id)
    }

    fn log_passed_over(&self, id: EngineId, bytes: usize) {
        let admitted = lock(&self.passed_over).admit((), Instant::now());
        if let Some(suppressed) = admitted {
            events::record_passed_over(id, bytes, suppressed);
        }
    }

    fn put(&self, id: EngineId, engine: Option<Engine>) -> Option<Stored> {
        let Some(mut engine) = engine else {
            self.memory.unset(id, |_| true);
            return None;
        };
        let before = self.memory.get(id);
        if let Some(before) = &before {
            // Heartbeats came here meanwhile.
            engine.last_seen_at = engine.last_seen_at.max(before.engine.last_seen_at);
        }
        let expected = before.map_or(Expected::Absent, |before| Expected::At(before.revision));
        self.memory.swap(engine, expected)
    }

    /// Returns the engine as far as it is believed here.
    fn judged(&self, opened: Opened, signed_at: Option<SystemTime>) -> Engine {
        let engine = self.seen(opened.engine);
        let Some(signed_at) = signed_at else {
            let held = None;
            return Engine {
                held,
                ..doubted(engine)
            };
        };
        if !is_ready(&engine) {
            return engine;
        }
        if !self.vouches(signed_at) {
            return Engine {
                over_loopback: engine.over_loopback,
                ..doubted(engine)
            };
        }
        if self.is_trusted(&engine) {
            return engine;
        }
        Engine {
            status: EngineStatus::Disconnected,
            status_reason: Some(UNTRUSTED.into()),
            ..engine
        }
    }

    fn is_trusted(&self, engine: &Engine) -> bool {
        let trust = self.trust.load();
        let owner = trust.deployment(&engine.owner.deployment);
        owner.is_some_and(|owner| {
            owner.active_keys().next().is_some() && !owner.has_revoked(&engine.owner.fingerprint)
        })
    }

    /// Believes again what the others say of engines whose deployment is trusted here now.
    pub fn trust_changed(&self) {
        let known = lock(&self.known);
        for stored in self.memory.all() {
            let id = stored.engine.id;
            let of_etcd = known.get(&id).filter(|known| known.is_ready);
            let is_vouched = of_etcd
                .and_then(|known| known.signed_at)
                .is_some_and(|at| self.vouches(at));
            let is_lost_here = stored.engine.status == EngineStatus::Disconnected;
            if is_lost_here && is_vouched && self.is_trusted(&stored.engine) {
                let engine = Engine {
                    status: EngineStatus::Ready,
                    status_reason: None,
                    dial_back_failure: None,
                    ..Engine::clone(&stored.engine)
                };
                self.memory.swap(engine, Expected::At(stored.revision));
                self.tell(Some(id));
            }
        }
    }

    fn vouches(&self, signed_at: SystemTime) -> bool {
        let now = self.clock.now();
        match now.duration_since(signed_at) {
            Ok(age) => age < VOUCHES,
            Err(ahead) => ahead.duration() <= LEEWAY,
        }
    }

    /// Takes over all of etcd's records in one go: what is not among `ids` is gone.
    pub fn keep_only(&self, ids: &BTreeSet<EngineId>) {
        let mut known = lock(&self.known);
        known.retain(|id, _| ids.contains(id));
        for stored in self.memory.all() {
            let id = stored.engine.id;
            if !ids.contains(&id) {
                self.memory.unset(id, |_| true);
            }
        }
    }

    /// Has READY engines be NEW whose last signature is too old: the replica that checks them is
    /// late, or gone.
    pub fn expire(&self) {
        let known = lock(&self.known);
        for stored in self.memory.all() {
            let id = stored.engine.id;
            let signed_at = known.get(&id).and_then(|known| known.signed_at);
            let is_vouched = signed_at.is_some_and(|at| self.vouches(at));
            if stored.engine.status == EngineStatus::Ready && !is_vouched && !self.is_mine(id) {
                let engine = Engine::clone(&stored.engine);
                let engine = Engine {
                    over_loopback: engine.over_loopback,
                    ..doubted(engine)
                };
                self.memory.swap(engine, Expected::At(stored.revision));
                self.tell(Some(id));
            }
        }
    }

    /// Takes over which replicas there are. What becomes this one's share is suspect until it has
    /// checked it.
    pub fn set_replicas(&self, mut replicas: BTreeSet<Uuid>) {
        let own = replicas.take(&self.own);
        while replicas.len() >= MOST_REPLICAS.into() {
            replicas.pop_last();
        }
        replicas.extend(own);
        let before = std::mem::replace(&mut *lock(&self.replicas), Arc::new(replicas));
        let now = Arc::clone(&lock(&self.replicas));
        if *before == *now {
            return;
        }
        for stored in self.memory.all() {
            let mut engine = Engine::clone(&stored.engine);
            let is_new = [&before, &now].map(|all| self.is_share(all, engine.id, engine.held))
                == [false, true];
            if is_new && engine.status == EngineStatus::Ready {
                engine.suspect = true;
                engine.status_reason = Some(TAKEN_OVER.into());
            }
            if let Some(held) = &mut engine.held {
                // A stream ends with its process.
                held.is_open &= held.by.is_none_or(|holder| now.contains(&holder));
            }
            if engine != *stored.engine {
                self.memory.swap(engine, Expected::At(stored.revision));
            }
        }
        self.tell(None);
    }

    /// Changes the set of replicas by one.
    pub fn change_replicas(&self, change: impl FnOnce(&mut BTreeSet<Uuid>)) {
        let mut replicas = BTreeSet::clone(&lock(&self.replicas));
        change(&mut replicas);
        self.set_replicas(replicas);
    }

    /// Says what has changed to those who follow it.
    pub fn tell(&self, changed: Option<EngineId>) {
        // There may be no receiver.
        let _ = self.others.send(changed);
    }
}

/// Returns `true` if an engine leaves READY, and goes on as it was registered.
fn is_lost(before: &Engine, after: &Engine) -> bool {
    is_ready(before)
        && after.status == EngineStatus::Disconnected
        && before.registered_at == after.registered_at
}

fn is_ready(engine: &Engine) -> bool {
    engine.status == EngineStatus::Ready
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many changes one who follows them may be behind before it has to look at everything.
const NOTES: usize = 4096;
/// So many values may be no records, and so many more records may there be than engines: DPMs that
/// register at once do not see each other.
const MARGIN: usize = 1024;
/// Constraints have 64 KiB, a signature 8.
const MOST_BYTES: usize = 128 * 1024;
/// More presence keys than this are no replicas.
pub(super) const MOST_REPLICAS: u16 = 256;
const UNTRUSTED: &str = "its deployment is not trusted here";
const TAKEN_OVER: &str = "its checks were taken over; not checked since then";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::{DeploymentName, ModuleType};
    use crate::jose::SigningKey;
    use crate::registry::store::tests::{engine, id};
    use crate::trust::{KeySet, OwnDeployment};

    /// A mirror of a deployment that trusts no other.
    fn mirror() -> Mirror {
        let own = OwnDeployment::new(
            ModuleType::new("dpm").unwrap(),
            DeploymentName::new("dpm-dev").unwrap(),
            SigningKey::generate().unwrap(),
        );
        let trust = TrustStore::new(KeySet::alone(own));
        Mirror::new(trust, Arc::new(ManualClock::at_unix(1_000_000)), 2)
    }

    /// Takes over an engine of this status, which replaced another one, at `revision`.
    fn apply(mirror: &Mirror, status: EngineStatus, replaced: i64, revision: i64, news: News) {
        let (own, now) = (mirror.trust.own(), mirror.clock.now());
        let written = Engine {
            status,
            ..engine(1, "dpe-dev")
        };
        let value = record::seal(&written, replaced, now, &own).unwrap();
        let found = Found {
            id: id(1),
            value: Some(&value),
            revision,
        };
        assert!(mirror.apply(found, news));
    }

    fn status(mirror: &Mirror) -> Option<EngineStatus> {
        mirror.memory.get(id(1)).map(|found| found.engine.status)
    }

    #[test]
    fn record_that_was_put_back_while_etcd_was_not_followed_is_not_believed() {
        let mirror = mirror();
        apply(&mirror, EngineStatus::Disconnected, 0, 5, News::Next);
        apply(&mirror, EngineStatus::Inactive, 5, 7, News::Next);
        assert_eq!(status(&mirror), Some(EngineStatus::Inactive));

        apply(&mirror, EngineStatus::Disconnected, 0, 11, News::Read);
        assert_eq!(status(&mirror), Some(EngineStatus::New));

        // What the replicas wrote meanwhile, unseen, is believed.
        apply(&mirror, EngineStatus::Inactive, 12, 14, News::Read);
        assert_eq!(status(&mirror), Some(EngineStatus::Inactive));
    }

    #[test]
    fn record_that_was_removed_while_etcd_was_not_followed_is_gone() {
        let mirror = mirror();
        apply(&mirror, EngineStatus::Inactive, 0, 5, News::Next);

        mirror.keep_only(&BTreeSet::new());

        assert_eq!(status(&mirror), None);
        let plan = mirror.plan(&engine(1, "dpe-dev"), Expected::Absent);
        assert!(matches!(plan, Plan::At(0)), "{plan:?}");
    }

    #[test]
    fn news_of_a_change_that_was_overtaken_changes_nothing() {
        let mirror = mirror();
        apply(&mirror, EngineStatus::Inactive, 0, 5, News::Next);
        let removed = mirror.wrote(id(1), None, 9, mirror.clock.now());
        let news = Found {
            id: id(1),
            value: None,
            revision: 9,
        };

        assert!(removed.is_none());
        let late = Found {
            revision: 7,
            value: Some(b"late"),
            ..news
        };
        assert!(!mirror.apply(late, News::Next));
        assert!(!mirror.apply(news, News::Next));
        assert_eq!(status(&mirror), None);
    }

    /// The id `n` of many.
    fn many(n: u32) -> EngineId {
        let mut random = [0; 16];
        random[..4].copy_from_slice(&n.to_be_bytes());
        EngineId::from_random(random)
    }

    #[test]
    fn values_that_are_no_records_are_remembered_within_bounds_and_displace_no_record() {
        let mirror = mirror();
        let large = vec![0; MOST_BYTES + 1];
        let values: [&[u8]; 2] = [b"no record", &large];
        for (n, value) in (0..10_000).zip(values.iter().cycle()) {
            let found = Found {
                id: many(n),
                value: Some(value),
                revision: i64::from(n) + 1,
            };
            mirror.apply(found, News::Next);
        }

        assert!(lock(&mirror.known).len() <= MARGIN);
        apply(&mirror, EngineStatus::Inactive, 0, 20_000, News::Next);
        assert_eq!(status(&mirror), Some(EngineStatus::Inactive));
    }

    #[test]
    fn records_that_are_written_over_with_something_else_leave_their_room() {
        let mirror = mirror();
        let (own, now) = (mirror.trust.own(), mirror.clock.now());
        let most = u32::try_from(MARGIN).unwrap() + 100;
        for n in 0..most {
            let written = Engine {
                id: many(n),
                ..engine(1, "dpe-dev")
            };
            let record = record::seal(&written, 0, now, &own).unwrap();
            for (value, revision) in [(&*record, 1), (b"no record", 2)] {
                let found = Found {
                    id: many(n),
                    value: Some(value),
                    revision: 2 * i64::from(n) + revision,
                };
                assert!(mirror.apply(found, News::Next));
            }
        }

        assert_eq!(lock(&mirror.known).len(), MARGIN);
        assert_eq!(mirror.memory.len(), 0);
    }

    #[test]
    fn more_records_than_engines_are_allowed_are_known_only_once_they_are_to_be_written_over() {
        let mirror = mirror();
        let (own, now) = (mirror.trust.own(), mirror.clock.now());
        let record = |n| {
            let written = Engine {
                id: many(n),
                ..engine(1, "dpe-dev")
            };
            record::seal(&written, 0, now, &own).unwrap()
        };
        let apply = |n, news| {
            let found = Found {
                id: many(n),
                value: Some(&record(n)),
                revision: i64::from(n) + 1,
            };
            mirror.apply(found, news)
        };
        let most = u32::try_from(MARGIN).unwrap() + 2;
        assert!((0..most).all(|n| apply(n, News::Read)));

        assert!(!apply(most, News::Read) && !apply(most, News::Next));
        assert_eq!(mirror.memory.len(), MARGIN + 2);
        assert!(apply(most, News::Asked));
        let found = mirror.memory.get(many(most)).unwrap();
        assert_eq!(&*found.engine.owner.deployment, "dpe-dev");
    }

    #[test]
    fn many_foreign_presence_keys_leave_this_process_among_the_replicas() {
        let mirror = mirror();
        let foreign: BTreeSet<_> = (1..=1000).map(Uuid::from_u128).collect();
        let is_present = || lock(&mirror.replicas).contains(&mirror.own);

        mirror.set_replicas(foreign.clone());
        mirror.change_replicas(|replicas| {
            replicas.insert(mirror.own);
        });
        assert!(is_present());
        for n in 1..1000 {
            mirror.change_replicas(|replicas| {
                replicas.insert(Uuid::from_u128(n));
            });
        }
        assert!(is_present());
        mirror.set_replicas(foreign.into_iter().chain([mirror.own]).collect());

        assert!(is_present());
        assert_eq!(lock(&mirror.replicas).len(), usize::from(MOST_REPLICAS));
    }
}
