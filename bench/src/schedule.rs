//! The constant-rate schedule of the open loop: when operation *n* is meant to start.
//!
//! Off the data path.
//!
//! Invariant: `intended(n) = start + n * 10^9 / rate`, whatever happened to the operations before it.
//! This is what keeps coordinated omission out: an operation that could not be sent in time is still measured from the
//! moment at which a user would have asked for it.
//! The backlog is the difference of two numbers, so it needs no memory.

/// A constant-rate schedule with a cursor at the next operation to send.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate: u64,
    next: u64,
}

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

impl Schedule {
    /// `rate` operations per second from `start_ns` on; a rate of zero is a programming error.
    #[must_use]
    pub fn new(start_ns: u64, rate: u64) -> Self {
        assert!(rate > 0, "a schedule needs a rate");
        Self { start_ns, rate, next: 0 }
    }

    /// Intended start of operation `number`. In 128 bits: no drift and no overflow.
    #[must_use]
    pub fn intended(&self, number: u64) -> u64 {
        self.start_ns + (u128::from(number) * NANOSECONDS_PER_SECOND / u128::from(self.rate)) as u64
    }

    /// Intended start of the next operation to send.
    #[must_use]
    pub fn next_start(&self) -> u64 {
        self.intended(self.next)
    }

    /// Moves the cursor past the operation just sent.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    /// Number of operations whose intended start is before `at_ns`.
    #[must_use]
    pub fn count_before(&self, at_ns: u64) -> u64 {
        let elapsed = u128::from(at_ns.saturating_sub(self.start_ns));
        // Smallest n with n * 10^9 / rate (rounded down) >= elapsed.
        (elapsed * u128::from(self.rate)).div_ceil(NANOSECONDS_PER_SECOND) as u64
    }

    /// Number of the next operation to send.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_do_not_drift() {
        let schedule = Schedule::new(7, 3);
        assert_eq!(schedule.intended(0), 7);
        assert_eq!(schedule.intended(1), 7 + 333_333_333);
        assert_eq!(schedule.intended(3_000_000), 7 + 1_000_000_000_000_000);
    }

    #[test]
    fn counts_agree_with_starts() {
        for rate in [1, 3, 7, 9_999, 10_000, 1_234_567] {
            let schedule = Schedule::new(1_000, rate);
            for at in [0, 999, 1_000, 1_001, 500_000_123, 1_000_001_000, 3_000_000_007] {
                let count = schedule.count_before(at);
                assert!(count == 0 || schedule.intended(count - 1) < at.max(1_001), "rate {rate} at {at}");
                assert!(schedule.intended(count) >= at, "rate {rate} at {at}");
            }
        }
    }

    #[test]
    fn one_second_holds_the_rate() {
        let schedule = Schedule::new(0, 10_000);
        assert_eq!(schedule.count_before(1_000_000_000), 10_000);
        assert_eq!(schedule.count_before(30_000_000_000), 300_000);
    }
}
