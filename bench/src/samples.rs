//! Every operation of a window by itself: when it was meant to start, how long it took. And what that looks like over time.
//!
//! Off the data path. Kept only where it is asked for, at most [`SAMPLES_MAX`] of them; a histogram keeps no times.

/// Operations kept at most: 24 bytes each.
pub const SAMPLES_MAX: usize = 10_000_000;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Intended start, nanoseconds of the run's clock.
    pub intended_ns: u64,
    /// From there to its end.
    pub latency_ns: u64,
    /// Whether it succeeded.
    pub good: bool,
}

impl Sample {
    /// When it ended.
    #[must_use]
    pub fn ended_ns(&self) -> u64 {
        self.intended_ns + self.latency_ns
    }
}

/// Latency of the operations that were meant to start within one interval, whenever they ended.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Its middle, seconds since the window began.
    pub at_s: f64,
    /// Operations.
    pub operations: usize,
    /// Those that failed.
    pub errors: usize,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 99%.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Cuts the samples into intervals; those without operations are left out.
#[must_use]
pub fn intervals(samples: &[Sample], start_ns: u64, interval_ns: u64) -> Vec<Interval> {
    let number = |sample: &Sample| sample.intended_ns.saturating_sub(start_ns) / interval_ns.max(1);
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by_key(|sample| (number(sample), sample.latency_ns));
    sorted
        .chunk_by(|left, right| number(left) == number(right))
        .map(|chunk| interval(chunk, interval_ns, number(&chunk[0])))
        .collect()
}

/// Of samples in order of their latency.
fn interval(samples: &[Sample], interval_ns: u64, number: u64) -> Interval {
    let milliseconds = |sample: &Sample| sample.latency_ns as f64 / 1e6;
    let at = |share: f64| {
        milliseconds(&samples[((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len()) - 1])
    };
    Interval {
        at_s: (number as f64 + 0.5) * interval_ns as f64 / 1e9,
        operations: samples.len(),
        errors: samples.iter().filter(|sample| !sample.good).count(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}

/// When the first operation ended well that was meant to start at this moment or later.
#[must_use]
pub fn first_success_after(samples: &[Sample], at_ns: u64) -> Option<u64> {
    samples.iter().filter(|sample| sample.good && sample.intended_ns >= at_ns).map(Sample::ended_ns).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(intended_ms: u64, latency_ms: u64, good: bool) -> Sample {
        Sample { intended_ns: intended_ms * 1_000_000, latency_ns: latency_ms * 1_000_000, good }
    }

    #[test]
    fn operations_count_where_they_were_meant_to_start() {
        let samples =
            [sample(1_050, 900, false), sample(1_010, 1, true), sample(1_020, 3, true), sample(1_350, 2, true)];
        let cut = intervals(&samples, 1_000_000_000, 100_000_000);
        assert_eq!(cut.len(), 2, "an interval without operations is left out: {cut:?}");
        assert_eq!((cut[0].operations, cut[0].errors), (3, 1));
        assert_eq!((cut[0].p50_ms, cut[0].p99_ms, cut[0].max_ms), (3.0, 900.0, 900.0));
        assert!((cut[0].at_s - 0.05).abs() < 1e-9 && (cut[1].at_s - 0.35).abs() < 1e-9, "{cut:?}");
        assert!(intervals(&[], 0, 0).is_empty());
    }

    #[test]
    fn the_first_success_is_of_an_operation_that_began_after() {
        let samples = [sample(10, 95, true), sample(20, 10, false), sample(30, 80, true), sample(40, 60, true)];
        assert_eq!(first_success_after(&samples, 20_000_000), Some(100_000_000));
        assert_eq!(first_success_after(&samples, 41_000_000), None);
    }
}
