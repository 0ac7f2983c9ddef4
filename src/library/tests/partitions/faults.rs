//! What a seed does to the network.

use std::time::Duration;

use super::world::ENGINES;

/// How the way between the DPM and an engine is broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Nothing arrives, and what is on its way is lost.
    Partition,
    /// Nothing arrives until the end, when all of it does.
    Hold,
    /// What the DPM sends is lost.
    FromDpm,
    /// What the engine sends is lost.
    FromEngine,
    /// The engine's process is killed, and starts again at the end.
    Kill,
}

/// One fault of one engine.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) engine: usize,
    pub(super) kind: Kind,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Fault {
    /// Returns `true` if nothing arrives at `engine` any more, nor from it.
    pub(super) fn cuts(&self, engine: usize) -> bool {
        let is_whole = matches!(self.kind, Kind::Partition | Kind::Hold | Kind::Kill);
        is_whole && self.engine == engine
    }
}

/// Every fault, in the order of the times.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) faults: Vec<Fault>,
    /// Whether a connection through a partition is never answered; else it is refused at once.
    pub(super) is_silent: bool,
}

impl Plan {
    /// Makes the plan of `seed`, whose faults begin within `time`.
    pub(super) fn of(seed: u64, time: Duration) -> Self {
        let mut random = Random(seed);
        let untouched = random.below(ENGINES as u64 + 1);
        let mut faults = Vec::new();
        for engine in (0..ENGINES).filter(|engine| *engine as u64 != untouched) {
            let mut at = random.time(10_000);
            while at < time {
                let kind = random.one_of([
                    Kind::Partition,
                    Kind::Hold,
                    Kind::FromDpm,
                    Kind::FromEngine,
                    Kind::Kill,
                ]);
                let longest = random.one_of([500, 5_000, 25_000]);
                let until = at + random.time(longest);
                faults.push(Fault {
                    engine,
                    kind,
                    from: at,
                    until,
                });
                let pause = random.one_of([100, 2_000, 15_000]);
                at = until + random.time(pause);
            }
        }
        faults.sort_by_key(|fault| fault.from);
        let is_silent = random.below(2) == 0;
        Self { faults, is_silent }
    }

    pub(super) fn touches(&self, engine: usize) -> bool {
        self.faults.iter().any(|fault| fault.engine == engine)
    }
}

/// The numbers of splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_of<T: Copy>(&mut self, all: impl AsRef<[T]>) -> T {
        let all = all.as_ref();
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn time(&mut self, most_millis: u64) -> Duration {
        Duration::from_millis(1 + self.below(most_millis))
    }
}
