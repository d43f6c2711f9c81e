//! Log-linear histograms of whole numbers, and the largest value of the last minute.
//!
//! Data path: a record is a shift, two additions and a comparison.
//!
//! ```text
//!   bucket      0   1   2   3   4   5   6   7   ...      two for each doubling
//!   up to       1   2   3   4   6   8  12  16   ...      inclusive, as Prometheus counts
//! ```
//! Invariants: no bucket is wider than half of its lower bound; counts and sum only grow; nothing is allocated.
//! It knows neither time nor what its values mean: whoever publishes it says when a second is over.

/// Two for each doubling, up to 2^32.
pub const BUCKETS: usize = 64;

/// Seconds over which the largest value is remembered.
pub const MAXIMUM_SECONDS: usize = 60;

/// Counts of values by bucket, their number, sum and recent maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    sum: u64,
    maximum: Maximum,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, sum: 0, maximum: Maximum::default() }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket_of(value)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.maximum.observe(value);
    }

    /// A second is over.
    pub fn end_second(&mut self) {
        self.maximum.end_second();
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.maximum.add(&other.maximum);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest of the last minute, 0 without any.
    #[must_use]
    pub fn maximum(&self) -> u64 {
        self.maximum.last_minute()
    }

    /// Upper bounds and counts from the bucket of `low` to that of `high`: what is smaller is in the first, what is larger
    /// in the last, which has no bound.
    #[must_use]
    pub fn between(&self, low: u64, high: u64) -> Vec<(Option<u64>, u64)> {
        let (first, last) = (bucket_of(low), bucket_of(high));
        let below = self.counts[..first].iter().sum::<u64>();
        let mut buckets: Vec<_> = (first..=last).map(|bucket| (Some(bound(bucket)), self.counts[bucket])).collect();
        if let Some((_, count)) = buckets.first_mut() {
            *count += below;
        }
        buckets.push((None, self.counts[last + 1..].iter().sum()));
        buckets
    }
}

/// The bucket of a value; the last one for whatever is larger than its bound.
#[inline]
fn bucket_of(value: u64) -> usize {
    let before = value.saturating_sub(1);
    if before < 2 {
        return before as usize;
    }
    let doubling = before.ilog2();
    let upper_half = before >> (doubling - 1) & 1;
    (2 * doubling as usize + upper_half as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn bound(bucket: usize) -> u64 {
    if bucket < 2 {
        return bucket as u64 + 1;
    }
    (3 + (bucket as u64 & 1)) << (bucket / 2 - 1)
}

/// The largest value of the last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maximum {
    now: u64,
    seconds: [u64; MAXIMUM_SECONDS],
    next: usize,
}

impl Default for Maximum {
    fn default() -> Self {
        Self { now: 0, seconds: [0; MAXIMUM_SECONDS], next: 0 }
    }
}

impl Maximum {
    /// Takes a value.
    #[inline]
    pub fn observe(&mut self, value: u64) {
        self.now = self.now.max(value);
    }

    /// A second is over: its largest value is kept, that of a minute ago is forgotten.
    pub fn end_second(&mut self) {
        self.seconds[self.next] = std::mem::take(&mut self.now);
        self.next = (self.next + 1) % MAXIMUM_SECONDS;
    }

    /// The largest of the last minute and of the second that goes on.
    #[must_use]
    pub fn last_minute(&self) -> u64 {
        self.seconds.iter().fold(self.now, |largest, second| largest.max(*second))
    }

    fn add(&mut self, other: &Self) {
        self.now = self.last_minute().max(other.last_minute());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_without_gaps_and_stay_narrow() {
        let mut lower = 0;
        for bucket in 0..BUCKETS - 1 {
            let upper = bound(bucket);
            assert!(upper > lower && (upper - lower) * 2 <= lower.max(2), "bucket {bucket}: {lower} to {upper}");
            assert_eq!((bucket_of(lower + 1), bucket_of(upper), bucket_of(upper + 1)), (bucket, bucket, bucket + 1));
            lower = upper;
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn what_is_out_of_the_range_shown_is_still_counted() {
        let mut histogram = Histogram::default();
        [1, 5, 16, 17, 100, 1_000_000].into_iter().for_each(|value| histogram.record(value));
        let shown = histogram.between(16, 64);
        let bounds: Vec<_> = shown.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds, [Some(16), Some(24), Some(32), Some(48), Some(64), None]);
        assert_eq!(shown.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 1, 0, 0, 0, 2]);
        assert_eq!((histogram.count(), histogram.sum(), histogram.maximum()), (6, 1_000_139, 1_000_000));
    }

    #[test]
    fn a_maximum_is_forgotten_after_a_minute() {
        let mut histogram = Histogram::default();
        histogram.record(9);
        histogram.end_second();
        histogram.record(4);
        for _ in 1..MAXIMUM_SECONDS {
            assert_eq!(histogram.maximum(), 9);
            histogram.end_second();
        }
        histogram.end_second();
        assert_eq!(histogram.maximum(), 4);
        histogram.end_second();
        assert_eq!((histogram.maximum(), histogram.count()), (0, 2));
    }

    #[test]
    fn two_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(3);
        other.record(3);
        other.record(70);
        other.end_second();
        one.add(&other);
        assert_eq!((one.count(), one.sum(), one.maximum()), (3, 76, 70));
        assert_eq!(one.between(1, 128).iter().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
