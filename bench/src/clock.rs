//! The clock of a run: nanoseconds since the run began.
//!
//! Off the data path. A trait so that tests of the loop can stop and move time.

use std::time::Instant;

/// Tells the time of a run in nanoseconds since its beginning; never goes back.
pub trait Clock {
    /// Nanoseconds since the beginning of the run.
    fn now(&self) -> u64;
}

/// The real clock: `CLOCK_MONOTONIC` from a common epoch, copied to whoever stamps completions.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    epoch: Instant,
}

impl MonotonicClock {
    /// A clock that shows zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { epoch: Instant::now() }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.epoch.elapsed().as_nanos() as u64
    }
}
