//! Which replica checks which engine.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::engine::EngineId;

/// Returns which of `replicas` checks `id`: of the draws that each makes for it, the highest wins. So
/// where one goes, only its own share moves.
pub fn checker(replicas: &BTreeSet<Uuid>, id: EngineId) -> Option<Uuid> {
    let drawn = replicas.iter().map(|replica| {
        let both = replica.as_u128() ^ id.as_u128().rotate_left(64);
        let (high, low) = Uuid::from_u128(both).as_u64_pair();
        (mixed(mixed(high) ^ mixed(low).rotate_left(32)), *replica)
    });
    drawn.max().map(|(_, replica)| replica)
}

/// Spreads the bits of `number`: the end of splitmix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn only_the_share_of_the_replica_that_goes_moves() {
        let replicas: BTreeSet<_> = (1..=5).map(Uuid::from_u128).collect();
        let gone = Uuid::from_u128(3);
        let left: BTreeSet<_> = replicas
            .iter()
            .copied()
            .filter(|one| *one != gone)
            .collect();
        let mut shares = HashMap::<_, u32>::new();
        for n in 0..=255 {
            let id = EngineId::from_random([n; 16]);
            let before = checker(&replicas, id).unwrap();
            let after = checker(&left, id).unwrap();

            assert!(after == before || before == gone, "{n}");
            *shares.entry(before).or_default() += 1;
        }

        assert_eq!(shares.len(), 5);
        assert!(
            shares.values().all(|share| (30..75).contains(share)),
            "{shares:?}"
        );
        assert_eq!(checker(&BTreeSet::new(), EngineId::FIRST), None);
    }
}
