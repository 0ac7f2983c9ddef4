//! Simulated callers, without sockets, in simulated time.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    total: 768,
    per_address: 128,
    per_owner: 500,
    chance: Duration::from_secs(2),
    first_request: Duration::from_secs(10),
    age: Duration::from_secs(3600),
};

struct World {
    connections: Arc<Connections>,
    start: Instant,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            connections: Arc::new(Connections::new(bounds)),
            start: Instant::now(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn admit(&self, from: IpAddr, millis: u64) -> Option<Seat> {
        let admitted = self.connections.admit(from, self.at(millis));
        admitted.ok().map(|(seat, _)| seat)
    }

    fn many(&self, number: usize, from: IpAddr, millis: u64) -> Vec<Seat> {
        let seats = (0..number).map(|_| self.admit(from, millis).unwrap());
        seats.collect()
    }
}

fn is_cut(seat: &mut Seat) -> bool {
    let mut context = Context::from_waker(std::task::Waker::noop());
    seat.poll_cut(&mut context).is_ready()
}

fn cut(seats: &mut [Seat]) -> usize {
    seats
        .iter_mut()
        .filter_map(|seat| is_cut(seat).then_some(()))
        .count()
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn v6(network: u64, host: u64) -> IpAddr {
    let network = 0x2001_0db8_0000_0000 + u128::from(network);
    Ipv6Addr::from_bits((network << 64) | u128::from(host)).into()
}

fn trusted(key: &str) -> Shown {
    Shown {
        key: key.into(),
        still: Box::new(|| true),
    }
}

fn verified(seat: &Seat, owner: &str) -> bool {
    seat.standing.show(owner, owner, || trusted(owner)).is_ok()
}

/// 1,024 watchers who had their chance, then 200 arrivals a second for 12 s: 100 callers that show
/// a token after 20 or 80 ms all get in.
#[test]
fn valid_callers_get_in_under_watches_and_a_flood() {
    type From = fn(u32) -> IpAddr;
    let floods: [(&str, From); 3] = [
        ("one address", |_| v4(1)),
        ("a thousand addresses", |n| v4(n % 1000)),
        ("two /64", |n| v6(u64::from(n % 2), u64::from(n))),
    ];
    for (flood, from) in floods {
        let world = World::new(BOUNDS);
        let mut strangers = Vec::new();
        for n in 0..1024 {
            strangers.extend(world.admit(from(n), 0));
        }
        let mut callers: Vec<(u64, Seat)> = Vec::new();
        let mut got_in = 0;
        for tick in 0..2_400_u32 {
            let now = 3_000 + u64::from(tick) * 5;
            strangers.extend(world.admit(from(tick), now));
            if tick % 24 == 0 {
                strangers.retain_mut(|seat| !is_cut(seat));
                let delay = [20, 80][(tick / 24 % 2) as usize];
                callers.extend(Some(now + delay).zip(world.admit(from(tick), now)));
            }
            for (_, mut seat) in callers.extract_if(.., |(due, _)| *due <= now) {
                got_in += u32::from(!is_cut(&mut seat) && verified(&seat, "dpe-dev"));
                // It makes its call and leaves.
            }
        }
        assert_eq!(got_in, 100, "{flood}");
    }
}

#[test]
fn young_connection_is_not_cut_for_another_young_one() {
    let world = World::new(BOUNDS);
    let mut young: Vec<_> = (0..736).filter_map(|n| world.admit(v4(n), 0)).collect();
    assert_eq!(young.len(), 736);

    assert!(world.admit(v4(1000), 1_999).is_none());

    assert_eq!(cut(&mut young), 0);
    assert!(world.admit(v4(1000), 2_000).is_some());
    assert!(is_cut(&mut young[0]), "the oldest had its chance");
}

#[test]
fn one_address_that_floods_keeps_out_no_other() {
    let world = World::new(BOUNDS);
    let mut flood = world.many(736, v4(1), 0);

    let mut others = world.many(100, v4(2), 1);

    assert_eq!((cut(&mut others), cut(&mut flood)), (0, 100));
}

#[test]
fn ipv6_counts_by_64() {
    let world = World::new(BOUNDS);
    let mut one = Vec::new();
    for host in 0..128 {
        one.extend(world.admit(v6(1, host), 0));
    }

    let crowding = world.connections.admit(v6(1, 1 << 40), world.at(2_000));

    assert_eq!(crowding.unwrap().1, Some(Crowding::Address(128)));
    assert_eq!(cut(&mut one), 1);
    let mapped = Network::of("::ffff:10.0.0.1".parse().unwrap());
    assert_eq!(mapped, Network::of("10.0.0.1".parse().unwrap()));
}

#[test]
fn verified_connections_count_against_their_deployment_alone() {
    let world = World::new(BOUNDS);
    let mut of_one = world.many(500, v4(1), 0);
    assert!(of_one.iter().all(|seat| verified(seat, "dpe-dev")));

    let one_more = world.admit(v4(1), 0).unwrap();
    let of_other = world.admit(v4(1), 0).unwrap();

    let full = one_more.standing.show("dpe-dev", "key", || trusted("key"));
    assert!(
        full.unwrap_err()
            .to_string()
            .contains("has 500 connections here")
    );
    assert!(!one_more.standing.is_verified());
    assert!(verified(&of_other, "other"));
    assert_eq!(cut(&mut of_one), 0);
}

#[test]
fn four_places_are_kept_for_each_deployment() {
    let world = World::new(Bounds {
        per_owner: 768,
        ..BOUNDS
    });
    world.connections.judge(10, world.start);
    let many = world.many(736, v4(1), 0);

    let greedy = many.iter().take_while(|seat| verified(seat, "greedy"));

    // 32 are kept for this machine, 4 for each of the 9 others.
    assert_eq!(greedy.count(), 768 - 32 - 9 * 4);
    let mut others = Vec::new();
    for n in 0..9 {
        for _ in 0..4 {
            let seat = world.admit(v4(2), 3_000).unwrap();
            assert!(verified(&seat, &format!("other-{n}")));
            others.push(seat);
        }
    }
    assert_eq!(cut(&mut others), 0);
}

#[test]
fn thirty_two_places_are_kept_for_loopback() {
    let world = World::new(BOUNDS);
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let far: Vec<_> = (0..768)
        .filter_map(|n| world.admit(v4(n % 600), 0))
        .collect();
    assert_eq!(far.len(), 736);

    let mut near = world.many(32, here, 1);

    assert!(
        world.admit(here, 1).is_none(),
        "all are young and within their shares"
    );
    // One from elsewhere takes no place of this machine's.
    let _late: Vec<_> = (0..736)
        .map(|n| world.admit(v4(n), 5_000).unwrap())
        .collect();
    assert_eq!(cut(&mut near), 0);
}

#[test]
fn connection_whose_keys_are_revoked_leaves_soon() {
    let world = World::new(BOUNDS);
    let old = Arc::new(AtomicBool::new(true));
    let mut revoked = world.admit(v4(1), 0).unwrap();
    let mut renewed = world.admit(v4(1), 0).unwrap();
    for seat in [&revoked, &renewed] {
        let still = Arc::clone(&old);
        let still = move || still.load(Ordering::Relaxed);
        let shown = || Shown {
            key: "old".into(),
            still: Box::new(still),
        };
        seat.standing.show("dpe-dev", "old", shown).unwrap();
    }
    renewed
        .standing
        .show("dpe-dev", "new", || trusted("new"))
        .unwrap();

    old.store(false, Ordering::Relaxed);
    world.connections.judge(1, world.at(100));

    assert!(!revoked.standing.is_verified() && renewed.standing.is_verified());
    world.connections.cut_overdue(world.at(1_099));
    assert!(!is_cut(&mut revoked), "its calls say why they end");
    world.connections.cut_overdue(world.at(1_100));
    assert!(is_cut(&mut revoked) && !is_cut(&mut renewed));
}

#[test]
fn keys_that_alternate_are_looked_at_once() {
    let world = World::new(BOUNDS);
    let old = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&old);
    let mut seat = world.admit(v4(1), 0).unwrap();
    let standing = Arc::clone(&seat.standing);
    let shown = || Shown {
        key: "old".into(),
        still: Box::new(move || still.load(Ordering::Relaxed)),
    };
    standing.show("dpe-dev", "old", shown).unwrap();
    standing.show("dpe-dev", "new", || trusted("new")).unwrap();

    for key in ["old", "new", "old"] {
        standing
            .show("dpe-dev", key, || panic!("is known"))
            .unwrap();
    }

    old.store(false, Ordering::Relaxed);
    world.connections.judge(1, world.at(100));
    world.connections.cut_overdue(world.at(5_000));
    assert!(
        standing.is_verified() && !is_cut(&mut seat),
        "the new key is trusted"
    );
}

#[test]
fn newest_connections_keep_their_place_where_descriptors_run_out() {
    let world = World::new(BOUNDS);
    let mut seats: Vec<_> = (0..5).map(|n| world.admit(v4(n), 0).unwrap()).collect();

    assert_eq!(world.connections.relieve(8), 3);

    let cut: Vec<_> = seats.iter_mut().map(is_cut).collect();
    assert_eq!(cut, [true, true, true, false, false]);
}

#[test]
fn key_that_is_revoked_while_its_first_call_is_judged_is_no_standing() {
    let world = World::new(BOUNDS);
    let seat = world.admit(v4(1), 0).unwrap();
    let shown = || Shown {
        key: "old".into(),
        still: Box::new(|| false),
    };

    seat.standing.show("dpe-dev", "old", shown).unwrap();

    assert!(!seat.standing.is_verified());
}

#[tokio::test]
async fn connection_that_is_dropped_frees_its_place() {
    let world = World::new(Bounds { total: 1, ..BOUNDS });
    let mut first = world.admit(v4(1), 0).unwrap();
    let second = world.admit(v4(2), 2_000).unwrap();
    poll_fn(|cx| first.poll_cut(cx)).await;

    drop(first);
    drop(second);

    world.connections.have_left_but(0).await;
    assert!(world.admit(v4(3), 2_001).is_some());
}

proptest! {
    /// Whatever happens, the counts are those of the open connections and no bound is passed.
    #[test]
    fn places_add_up(steps in prop::collection::vec((0..6_u8, 0..12_u32, 0..3_000_u64), 1..400)) {
        let world = World::new(Bounds { total: 40, per_address: 8, per_owner: 12, ..BOUNDS });
        let mut seats = Vec::new();
        let mut now = 0;
        for (step, n, pause) in steps {
            now += pause / 10;
            match step {
                0..=2 => seats.extend(world.admit([v4(n), IpAddr::V4(Ipv4Addr::LOCALHOST)][usize::from(n > 9)], now)),
                3 if !seats.is_empty() => {
                    let seat: &Seat = &seats[n as usize % seats.len()];
                    seat.standing.heard();
                    verified(seat, &format!("owner-{}", n % 3));
                }
                4 if !seats.is_empty() => drop(seats.swap_remove(n as usize % seats.len())),
                5 => drop(world.connections.cut_overdue(world.at(now))),
                _ => {}
            }
            seats.retain_mut(|seat| !is_cut(seat));
            let table = world.connections.table();
            let (mut networks, mut owners) = (HashMap::new(), HashMap::new());
            for entry in table.open.values() {
                match &entry.owner {
                    Some(owner) => *owners.entry(owner.clone()).or_insert(0) += 1,
                    None => *networks.entry(entry.network).or_default() += 1,
                }
            }
            prop_assert_eq!(table.open.len(), seats.len());
            prop_assert!(seats.len() <= 40 && owners.values().all(|n| *n <= 12));
            prop_assert_eq!(&table.networks, &networks);
            prop_assert_eq!(&table.owners, &owners);
            prop_assert_eq!(table.leaving, 0);
        }
    }
}
