//! Seeded generators, one independent stream for each part of the world.
//!
//! Off the data path.
//! Invariants: a stream is a function of (seed, name) alone and never changes with a release of a library; no floating
//! point, whose last digit could differ between machines; what one part draws does not disturb another.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The stream of one part of the world.
    #[must_use]
    pub(crate) fn stream(seed: u64, name: &str) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(xxh3_64_with_seed(name.as_bytes(), seed)))
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below 0");
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A number from `low` to `high` whose order of magnitude is uniform: small ones are as likely as large ones.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let doublings = u64::from(high.ilog2() - low.ilog2()) + 1;
        let ceiling = low.saturating_mul(1 << self.between(0, doublings)).min(high);
        self.between(low, ceiling.max(low))
    }

    /// True so many times in a million.
    pub(crate) fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// One of them.
    ///
    /// # Panics
    /// When there are none.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A place drawn by weight; `None` when all weights are 0.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> Option<usize> {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut left = self.below(total);
        weights.iter().position(|weight| {
            let here = left < u64::from(*weight);
            left = left.saturating_sub(u64::from(*weight));
            here
        })
    }

    /// Puts the items in any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place as u64 + 1) as usize);
        }
    }

    /// A waiting time, exponentially distributed in steps, with this mean.
    pub(crate) fn waiting_us(&mut self, mean_us: u64) -> u64 {
        // The number of leading zeros of a random word is geometric with ratio 1/2; a uniform part makes it smooth.
        let bits = self.number();
        let whole = u64::from((bits | 1).leading_zeros()).min(20);
        let part = self.below(1_000);
        mean_us.saturating_mul(whole * 1_000 + part) / 1_500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_name_and_seed() {
        let first = |seed, name| Random::stream(seed, name).number();
        assert_eq!(first(1, "disk"), first(1, "disk"));
        assert_ne!(first(1, "disk"), first(1, "network"));
        assert_ne!(first(1, "disk"), first(2, "disk"));
        assert_eq!(first(0, "golden"), 0xc43b_0c10_fd05_50fa, "the streams never change");
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::stream(3, "bounds");
        let mut total_us = 0;
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((10..=5_000).contains(&random.magnitude(10, 5_000)));
            assert_eq!(random.weighted(&[0, 3, 0]), Some(1));
            total_us += random.waiting_us(1_000);
        }
        assert!((800_000_000..1_200_000_000).contains(&(total_us * 100)), "mean of 1,000: {}", total_us / 10_000);
        assert_eq!(random.weighted(&[0, 0]), None);
    }
}
