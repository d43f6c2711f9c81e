//! A small generator for election jitter: SplitMix64.
//!
//! Off the data path.
//!
//! Relation: the same seed and node give the same numbers for ever.
//!
//! Deliberately absent: any claim to be unpredictable.

use crate::ids::NodeId;

/// The generator.
#[derive(Clone, Debug)]
pub(crate) struct Prng {
    state: u64,
}

impl Prng {
    /// Seeds it; nodes that share a seed still differ.
    pub(crate) fn new(seed: u64, id: NodeId) -> Self {
        let mut prng = Self { state: seed ^ id.0.wrapping_mul(0xA24B_AED4_963E_E407) };
        prng.next();
        prng
    }

    /// The next 64 bits (Steele, Lea, Flood: SplitMix).
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..high`; `low` when the range is empty.
    pub(crate) fn range(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low).max(1));
        low + (((self.next() >> 32) * span) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_range_repeat_with_the_seed_and_differ_between_nodes() {
        let draw = |seed, id| {
            let mut prng = Prng::new(seed, NodeId(id));
            core::array::from_fn::<u32, 64, _>(|_| prng.range(50, 100))
        };
        assert!(draw(1, 1).iter().all(|number| (50..100).contains(number)));
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
        let spread = draw(3, 1);
        assert!(spread.iter().max() > spread.iter().min().map(|low| low + 30).as_ref());
        assert_eq!(Prng::new(1, NodeId(1)).range(7, 7), 7);
    }
}
