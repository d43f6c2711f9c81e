//! The clock of a node: what leases and the age of reads are counted by.
//!
//! Off the data path, read before every event.
//! Invariants: it never goes back and never shows 0; it goes on while the process is stopped (SIGSTOP) and while the
//! machine is suspended, which is why it is CLOCK_BOOTTIME. A virtual machine that is paused with its clock cannot see it:
//! leases are not for such hosts.
//! It decides nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the machine was started.
pub(super) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1_000_000 + nanoseconds / 1_000 + 1
}

/// Tells the runs of a node's process apart: the time of its start.
pub(super) fn incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_starts_differ() {
        let (before, first) = (now_us(), incarnation());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(before > 0 && now_us() >= before + 2_000);
        assert_ne!(incarnation(), first);
    }
}
