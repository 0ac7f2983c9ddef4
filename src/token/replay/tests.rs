use super::*;
use crate::clock::ManualClock;
use crate::jose::SigningKey;

const START: u32 = 1_800_000_000;

/// A guard of peers' tokens, 30 s of leeway, 900 s of life at most.
struct World {
    clock: Arc<ManualClock>,
    guard: ReplayGuard,
    keys: Mutex<HashMap<String, VerifyingKey>>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let clock = Arc::new(ManualClock::at_unix(START.into()));
        let policy = Policy::default();
        let guard = ReplayGuard::with_capacity(policy, Arc::clone(&clock) as _, capacity);
        let keys = Mutex::default();
        Self { clock, guard, keys }
    }

    /// Starts, and lets the time pass until tokens are accepted.
    fn ready(capacity: usize) -> Self {
        let world = Self::new(capacity);
        world.clock.set(world.guard.ready_at());
        world
    }

    fn take(&self, issuer: &str, id: &str, issued_at: f64) -> Result<(), Reason> {
        let key = self.key_of(issuer);
        let taken = self.guard.take(Some(&key), &claims(Some(id), issued_at));
        taken.map_err(|refusal| refusal.reason)
    }

    /// Returns the key of a deployment.
    fn key_of(&self, issuer: &str) -> VerifyingKey {
        let mut keys = self.keys.lock().unwrap();
        let key = keys.entry(issuer.to_owned());
        let new = || SigningKey::generate().unwrap().verifying_key().clone();
        key.or_insert_with(new).clone()
    }

    /// Takes a token of `dpe-dev` that is issued right now.
    fn take_fresh(&self, id: &str) -> Result<(), Reason> {
        self.take("dpe-dev", id, seconds(self.clock.now()).floor())
    }
}

fn claims(id: Option<&str>, issued_at: f64) -> Claims {
    Claims {
        issuer: String::new(),
        subject: String::new(),
        audience: Vec::new(),
        issued_at,
        expires_at: issued_at + 300.0,
        not_before: None,
        id: id.map(str::to_owned),
    }
}

const REPLAYED: Result<(), Reason> = Err(Reason::TokenReplayed);

#[test]
fn second_use_is_refused() {
    let world = World::ready(10);

    assert_eq!(world.take_fresh("a"), Ok(()));
    assert_eq!(world.take_fresh("a"), REPLAYED);
    assert_eq!(world.take_fresh("b"), Ok(()));
    assert_eq!(world.take_fresh("a"), REPLAYED);
}

#[test]
fn same_id_in_a_newer_token_is_a_second_use() {
    let world = World::ready(10);
    assert_eq!(world.take_fresh("a"), Ok(()));

    world.clock.advance(Duration::from_secs(100));

    assert_eq!(world.take_fresh("a"), REPLAYED);
}

#[test]
fn two_deployments_may_use_one_id() {
    let world = World::ready(10);
    let now = seconds(world.clock.now()).floor();

    assert_eq!(world.take("dpe-a", "same", now), Ok(()));
    assert_eq!(world.take("dpe-b", "same", now), Ok(()));
    assert_eq!(world.take("dpe-b", "same", now), REPLAYED);
}

#[test]
fn token_without_an_id_is_malformed() {
    let world = World::ready(10);
    let issuer = world.key_of("dpe-dev");

    let refusal = world
        .guard
        .take(Some(&issuer), &claims(None, f64::from(START)));

    assert_eq!(refusal.unwrap_err().reason, Reason::TokenMalformed);
}

#[test]
fn token_from_before_the_watermark_of_the_start_is_refused() {
    let world = World::new(10);
    let start = f64::from(START);
    world.clock.advance(Duration::from_secs(40));

    // The process before this one may have accepted each of these.
    for issued_at in [start - 200.0, start, start + 29.5, start + 30.0] {
        let taken = world.take("dpe-dev", &issued_at.to_string(), issued_at);
        assert_eq!(taken, REPLAYED, "{issued_at}");
    }
    assert_eq!(world.take("dpe-dev", "new", start + 30.5), Ok(()));
}

#[test]
fn ready_means_that_a_fresh_token_is_accepted() {
    let world = World::new(10);
    let nearly = world.guard.ready_at() - Duration::from_millis(1);
    world.clock.set(nearly);
    assert_eq!(world.take_fresh("a"), REPLAYED);

    world.clock.advance(Duration::from_millis(1));

    assert_eq!(world.take_fresh("b"), Ok(()));
}

#[test]
fn token_used_before_a_restart_is_refused_after_it() {
    let before = World::ready(10);
    // The latest `iat` that any verifier accepts: the leeway ahead.
    let issued_at = seconds(before.clock.now()) + 30.0;
    assert_eq!(before.take("dpe-dev", "a", issued_at), Ok(()));

    let after = ReplayGuard::new(Policy::default(), Arc::clone(&before.clock) as _);
    let after = World {
        clock: before.clock,
        guard: after,
        keys: before.keys,
    };
    after.clock.set(after.guard.ready_at());

    assert_eq!(after.take("dpe-dev", "a", issued_at), REPLAYED);
    assert_eq!(after.take_fresh("b"), Ok(()));
}

#[test]
fn clock_set_back_between_two_runs_opens_no_token_again() {
    let home = tempfile::tempdir().unwrap();
    let before = World::new(10);
    before.guard.keep_in(home.path()).unwrap();
    before.clock.set(before.guard.ready_at());
    let issued_at = seconds(before.clock.now()) + 30.0;
    assert_eq!(before.take("dpe-dev", "a", issued_at), Ok(()));
    let World { clock, guard, keys } = before;
    drop(guard);

    clock.set(clock.now() - Duration::from_secs(3600));
    let guard = ReplayGuard::new(Policy::default(), Arc::clone(&clock) as _);
    guard.keep_in(home.path()).unwrap();
    let after = World { clock, guard, keys };

    after.clock.advance(Duration::from_secs(60));
    assert_eq!(after.take_fresh("b"), REPLAYED);
    after.clock.set(after.guard.ready_at());
    assert_eq!(after.take("dpe-dev", "a", issued_at), REPLAYED);
    assert_eq!(after.take_fresh("b"), Ok(()));
}

#[test]
fn watermark_is_written_once_a_second_at_most() {
    let home = tempfile::tempdir().unwrap();
    let world = World::new(10);
    world.guard.keep_in(home.path()).unwrap();
    world.clock.set(world.guard.ready_at());
    let mut written = Vec::new();

    for n in 0..30 {
        world.take_fresh(&n.to_string()).unwrap();
        written.push(std::fs::read(home.path().join("replay-watermark")).unwrap());
        world.clock.advance(Duration::from_millis(100));
    }

    written.dedup();
    assert_eq!(written.len(), 3);
    assert!(written.is_sorted());
}

#[test]
fn slow_disk_delays_only_calls_that_nothing_kept_covers() {
    let home = tempfile::tempdir().unwrap();
    let world = World::new(10);
    world.guard.keep_in(home.path()).unwrap();
    world.clock.set(world.guard.ready_at());
    world.take_fresh("a").unwrap();
    world.clock.advance(Duration::from_millis(1_900));
    // As while a call waits for its disk.
    let writing = lock(&world.guard.file);

    assert_eq!(world.take_fresh("b"), Ok(()));
    assert_eq!(world.take_fresh("b"), REPLAYED);
    world.clock.advance(Duration::from_millis(200));
    assert_eq!(world.take_fresh("a"), REPLAYED);
    std::thread::scope(|scope| {
        let overdue = scope.spawn(|| world.take_fresh("c"));
        assert!(!overdue.is_finished());
        drop(writing);
        assert_eq!(overdue.join().unwrap(), Ok(()));
    });

    let kept = lock(&world.guard.file).as_ref().unwrap().kept;
    assert!(kept > world.clock.now() + world.guard.policy.leeway());
}

#[test]
fn use_that_cannot_be_kept_is_refused_once_nothing_kept_covers_it() {
    let home = tempfile::tempdir().unwrap();
    let world = World::new(10);
    world.guard.keep_in(home.path()).unwrap();
    world.clock.set(world.guard.ready_at());
    world.take_fresh("a").unwrap();
    lock(&world.guard.file).as_mut().unwrap().break_for_tests();

    world.clock.advance(Duration::from_millis(1_900));
    assert_eq!(world.take_fresh("b"), Ok(()));
    world.clock.advance(Duration::from_millis(200));
    assert_eq!(world.take_fresh("c"), REPLAYED);
    assert_eq!(world.take_fresh("c"), REPLAYED);
}

#[test]
fn overflow_forgets_no_use() {
    let world = World::ready(3);
    let base = seconds(world.clock.now()).floor();
    world.clock.advance(Duration::from_secs(100));
    let mut used = Vec::new();

    for n in 0..50_u32 {
        let (id, issued_at) = (n.to_string(), base + f64::from(n));
        assert_eq!(world.take("dpe-dev", &id, issued_at), Ok(()), "{n}");
        used.push((id, issued_at));
    }

    for (id, issued_at) in used {
        assert_eq!(world.take("dpe-dev", &id, issued_at), REPLAYED, "{id}");
    }
}

#[test]
fn overflow_refuses_an_unused_token_as_old_as_a_forgotten_one() {
    let world = World::ready(2);
    let base = seconds(world.clock.now()).floor();
    world.clock.advance(Duration::from_secs(100));
    for n in 1..=3_u32 {
        let id = n.to_string();
        assert_eq!(world.take("dpe-dev", &id, base + f64::from(n)), Ok(()));
    }

    assert_eq!(world.take("dpe-dev", "unused", base + 1.0), REPLAYED);
    assert_eq!(world.take("dpe-dev", "unused", base + 1.5), Ok(()));
}

#[test]
fn overflow_of_one_deployment_harms_no_other() {
    let world = World::ready(2);
    let base = seconds(world.clock.now()).floor();
    world.clock.advance(Duration::from_secs(100));

    for n in 1..=10_u32 {
        let id = n.to_string();
        assert_eq!(world.take("noisy", &id, base + f64::from(n)), Ok(()));
    }

    assert_eq!(world.take("quiet", "a", base), Ok(()));
    assert_eq!(world.take("quiet", "a", base), REPLAYED);
}

#[test]
fn uses_are_bounded_in_number_and_in_time() {
    let world = World::ready(100);
    for n in 0..1000 {
        assert_eq!(world.take_fresh(&n.to_string()), Ok(()));
        world.clock.advance(Duration::from_secs(1));
    }
    let remembered = |world: &World| {
        let memory = world.guard.memory();
        let uses = memory.issuers.values().next().unwrap();
        assert_eq!(uses.by_id.len(), uses.by_age.len());
        uses.by_id.len()
    };
    assert_eq!(remembered(&world), 100);

    world.clock.advance(Duration::from_secs(900 + 30));
    assert_eq!(world.take_fresh("later"), Ok(()));

    assert_eq!(remembered(&world), 1);
}

#[test]
fn clock_that_steps_back_brings_no_use_back() {
    let world = World::ready(100);
    let issued_at = seconds(world.clock.now()).floor();
    let then = world.clock.now();
    assert_eq!(world.take("dpe-dev", "a", issued_at), Ok(()));
    world.clock.advance(Duration::from_secs(2000));
    assert_eq!(world.take_fresh("b"), Ok(()));

    world.clock.set(then);

    assert_eq!(world.take("dpe-dev", "a", issued_at), REPLAYED);
}

#[test]
fn own_tokens_need_not_wait_for_the_leeway() {
    let world = World::new(10);
    let own = |id: &str| {
        let issued_at = seconds(world.clock.now()).floor();
        let taken = world.guard.take(None, &claims(Some(id), issued_at));
        taken.map_err(|refusal| refusal.reason)
    };
    assert_eq!(own("from the same second"), REPLAYED);

    world.clock.advance(Duration::from_secs(1));

    assert_eq!(own("a"), Ok(()));
    assert_eq!(own("a"), REPLAYED);
}

#[test]
fn of_many_uses_at_once_exactly_one_wins() {
    let world = World::ready(1000);

    for round in 0..50 {
        let id = round.to_string();
        let won = std::thread::scope(|scope| {
            let uses: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| world.take_fresh(&id).is_ok()))
                .collect();
            let uses = uses.into_iter().map(|u| u.join().unwrap());
            uses.filter(|won| *won).count()
        });
        assert_eq!(won, 1, "{id}");
    }
}

#[test]
fn a_token_is_taken_once_across_a_rename_of_its_deployment() {
    let world = World::ready(10);
    let now = seconds(world.clock.now()).floor();
    assert_eq!(world.take("dpe-dev", "a", now), Ok(()));
    let key = world.key_of("dpe-dev");
    world.keys.lock().unwrap().insert("renamed".to_owned(), key);

    assert_eq!(world.take("renamed", "a", now), REPLAYED);
}

#[test]
fn use_is_claimed_by_its_key_and_jti_for_as_long_as_another_process_may_accept_the_token() {
    let world = World::new(10);
    let id = |issuer: &str, id: &str| {
        let key = world.key_of(issuer);
        world.guard.use_id(&key, &claims(Some(id), 0.0))
    };
    assert_eq!(id("dpe-dev", "a"), None);
    let mut lasts = Duration::ZERO;

    world.guard.share(|kept_for| {
        lasts = kept_for;
        mpsc::channel(1).0
    });

    // It is issued when this clock is behind by the leeway, and accepted by one that is, too.
    assert_eq!(lasts, Duration::from_secs(900 + 3 * 30));
    let ids = [("dpe-dev", "a"), ("dpe-dev", "b"), ("other", "a")];
    let found: BTreeSet<_> = ids.map(|(issuer, jti)| id(issuer, jti).unwrap()).into();
    assert_eq!(found.len(), 3);
    assert!(found.contains(&id("dpe-dev", "a").unwrap()));
}
