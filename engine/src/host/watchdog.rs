//! The watchdog thread: ends the process when a shard has not turned for too long.
//!
//! Off the data path. It only reads turn counters and never wakes an executor: a shard that hangs cannot be helped
//! from outside, and a node that does not turn must not look alive.
//! Invariant: time is counted in its own rounds, so that a process that was stopped as a whole (SIGSTOP, a suspended
//! virtual machine) is not taken for a hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ROUND: Duration = Duration::from_millis(250);

/// One shard's counter of turns and ticks.
pub type TurnCounter = Arc<AtomicU64>;

/// Decides from successive readings of a counter whether its shard hangs.
#[derive(Clone, Copy, Debug)]
struct Watch {
    last: u64,
    rounds_still: u32,
}

impl Watch {
    /// Takes a reading; `true` when the counter stood still for `rounds_max` rounds.
    fn read(&mut self, count: u64, rounds_max: u32) -> bool {
        if count == self.last {
            self.rounds_still += 1;
        } else {
            *self = Self { last: count, rounds_still: 0 };
        }
        self.rounds_still >= rounds_max
    }
}

/// Starts the watchdog over `counters`. `on_hang` gets the number of the shard and does not return.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    counters: Vec<TurnCounter>,
    limit: Duration,
    done: Arc<AtomicBool>,
    on_hang: fn(usize, Duration),
) -> std::io::Result<()> {
    let rounds_max = (limit.as_millis() / ROUND.as_millis()).max(2) as u32;
    std::thread::Builder::new().name(String::from("watchdog")).spawn(move || {
        let mut watches: Vec<Watch> = counters.iter().map(|_| Watch { last: u64::MAX, rounds_still: 0 }).collect();
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(ROUND);
            for (shard, (watch, counter)) in watches.iter_mut().zip(&counters).enumerate() {
                if watch.read(counter.load(Ordering::Relaxed), rounds_max) && !done.load(Ordering::Relaxed) {
                    on_hang(shard, limit);
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_counter_that_stands_still_is_a_hang() {
        let mut watch = Watch { last: u64::MAX, rounds_still: 0 };
        assert!(!watch.read(0, 2), "a first reading says nothing");
        assert!(!watch.read(0, 2));
        assert!(watch.read(0, 2));
        assert!(!watch.read(1, 2), "it turns again");
        assert!(!watch.read(1, 2));
        assert!(!watch.read(2, 2));
    }
}
