//! A DPM and three DPEs in a simulated network, which is cut and repaired as a seed says.
//!
//! A failure names its seed; `COUNTERSIGN_SEED` has that seed run alone. The faults, their times and
//! the delays of the network are the seed's; jitter, ids and keys are random in each run.

mod faults;
mod network;
mod world;

use std::env;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use crate::engine::EngineStatus;
use faults::{Fault, Plan};
use world::{ENGINES, HEARTBEAT, World};

/// How long all engines may take to be READY, after a start or once the network is repaired.
const RECOVERY: Duration = Duration::from_secs(20);

/// For how long the network has faults.
const TROUBLE: Duration = Duration::from_secs(60);

/// How soon an engine that is cut off is listed as lost: its lease, and what was on its way.
const LOST: Duration = HEARTBEAT
    .saturating_mul(3)
    .saturating_add(Duration::from_millis(100));

fn seeds() -> Vec<u64> {
    if let Some(one) = env::var_os("COUNTERSIGN_SEED") {
        return vec![one.to_str().unwrap().parse().unwrap()];
    }
    let is_long = env::var_os("COUNTERSIGN_LONG").is_some();
    (0..if is_long { 200 } else { 20 }).collect()
}

/// Names its seed when a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("again: COUNTERSIGN_SEED={}", self.0);
        }
    }
}

#[test]
fn engines_outlast_partitions_and_a_lost_one_is_never_listed_as_ready() {
    let seeds = seeds();
    let threads = available_parallelism().map_or(1, usize::from).min(4);
    let lost: usize = thread::scope(|scope| {
        let parts = (0..threads).map(|part| {
            let own = seeds.iter().skip(part).step_by(threads);
            scope.spawn(move || own.map(|seed| history(*seed)).sum::<usize>())
        });
        let running: Vec<_> = parts.collect();
        running.into_iter().map(|part| part.join().unwrap()).sum()
    });

    assert!(lost >= seeds.len(), "engines were lost {lost} times only");
}

/// Has one network live through the faults of `seed`; returns how many times an engine was lost.
fn history(seed: u64) -> usize {
    let _named = Seed(seed);
    let plan = Plan::of(seed, TROUBLE);
    let mut world = World::start(seed, plan.is_silent);
    world.run_until_all_are_ready(RECOVERY);
    let (began, mut lost) = (world.elapsed(), 0);
    let mut faults = plan.faults.iter().peekable();
    let mut open: Vec<&Fault> = Vec::new();
    let mut before = world.statuses();
    while world.elapsed() < began + TROUBLE || !open.is_empty() {
        let now = world.elapsed().saturating_sub(began);
        for over in open.extract_if(.., |fault| fault.until <= now) {
            world.repair(over);
        }
        while let Some(fault) = faults.next_if(|fault| fault.from <= now) {
            world.inflict(fault);
            open.push(fault);
        }
        world.step();
        world.no_registration_is_lost_or_doubled();
        let statuses = world.statuses();
        assert_eq!(statuses.len(), ENGINES);
        for (engine, status) in statuses.iter().enumerate() {
            let is_ready = *status == EngineStatus::Ready;
            lost += usize::from(!is_ready && before[engine] == EngineStatus::Ready);
            assert!(
                is_ready || plan.touches(engine),
                "the network of engine {engine} has no fault, and it is {status} at {now:?}"
            );
            let mut cuts = open.iter().filter(|fault| fault.cuts(engine));
            assert!(
                !is_ready || cuts.all(|fault| now < fault.from + LOST),
                "engine {engine} is READY at {now:?} in spite of {open:?}"
            );
        }
        before = statuses;
    }
    world.run_until_all_are_ready(RECOVERY);
    lost
}
