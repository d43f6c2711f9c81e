//! Link: the outgoing queue of a peer and the pauses between attempts to reach it.
//!
//! Data path 6b/9.
//!
//! All frames of a turn for one peer, of all groups, gather in one buffer and go out in one send; while a writer holds
//! that buffer the next turn fills the other one.
//!
//! ```text
//!   turn: push, push, ... -> [ queued ]      take          -> writer: send
//!                            [ spare  ]   <- give_back
//! ```
//!
//! Invariants: queued and held bytes together never exceed the bound; a frame that does not fit is dropped whole, counted,
//! and reported once through [`Outgoing::take_overflow`] so that the cores start again from what the peer acknowledged;
//! what was queued for a broken connection is forgotten with it.
//!
//! It does no I/O, and knows no messages.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;

/// Outgoing bytes of one peer.
#[derive(Debug)]
pub struct Outgoing {
    queued: Vec<u8>,
    spare: Vec<u8>,
    held_bytes: usize,
    bytes_max: usize,
    overflow: bool,
    statistics: OutgoingStatistics,
}

/// Counters of an [`Outgoing`], since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutgoingStatistics {
    /// Frames queued.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that did not fit or were queued for a connection that broke.
    pub dropped_frames: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Buffers taken: sends.
    pub sends: u64,
}

impl Outgoing {
    /// An empty queue for at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queued: Vec::new(),
            spare: Vec::new(),
            held_bytes: 0,
            bytes_max,
            overflow: false,
            statistics: OutgoingStatistics::default(),
        }
    }

    /// Queues what `encode` appends, one frame; it must not touch the bytes before. `false`: it did not fit and was taken
    /// back. A frame larger than the bound fits an empty queue, so that it can go at all.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.queued.len();
        encode(&mut self.queued);
        let bytes = self.queued.len() - before;
        let total = self.queued.len() + self.held_bytes;
        if total > self.bytes_max && total > bytes {
            self.queued.truncate(before);
            self.overflow = true;
            self.statistics.dropped_frames += 1;
            self.statistics.dropped_bytes += bytes as u64;
            return false;
        }
        self.statistics.frames += 1;
        self.statistics.bytes += bytes as u64;
        true
    }

    /// Bytes queued or held by the writer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queued.len() + self.held_bytes
    }

    /// Nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Everything queued, for the writer, which brings it back with [`Outgoing::give_back`]. `None`: nothing is queued, or
    /// a buffer is out already.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.queued.is_empty() || self.held_bytes > 0 {
            return None;
        }
        self.held_bytes = self.queued.len();
        self.statistics.sends += 1;
        Some(std::mem::replace(&mut self.queued, std::mem::take(&mut self.spare)))
    }

    /// The writer is done with a buffer; its memory is used again.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.held_bytes = 0;
        self.spare = buffer;
    }

    /// The connection broke: what is queued will not go out. The writer still gives back what it holds.
    pub fn disconnected(&mut self) {
        self.statistics.dropped_bytes += self.queued.len() as u64;
        self.statistics.dropped_frames += u64::from(!self.queued.is_empty());
        self.queued.clear();
        self.overflow = false;
    }

    /// Whether a frame was dropped for want of room since the last call.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflow)
    }

    /// Counters.
    #[must_use]
    pub fn statistics(&self) -> OutgoingStatistics {
        self.statistics
    }
}

/// Growing pauses with jitter, from a seeded generator.
#[derive(Debug, Clone)]
pub struct Backoff {
    min_us: u64,
    max_us: u64,
    attempts: u32,
    random: SmallRng,
}

impl Backoff {
    /// Pauses from `min` to `max`; equal seeds give equal pauses.
    ///
    /// # Panics
    /// When `min` is zero or above `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (min_us, max_us) = (micros(min), micros(max));
        assert!(min_us > 0 && min_us <= max_us, "backoff from {min:?} to {max:?}");
        Self { min_us, max_us, attempts: 0, random: SmallRng::seed_from_u64(seed) }
    }

    /// The next pause in microseconds: each twice as long as the one before, of which a random upper half is kept.
    pub fn next_us(&mut self) -> u64 {
        let ceiling = ceiling_us(self.min_us, self.max_us, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        jittered_us(ceiling, &mut self.random)
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        Duration::from_micros(self.next_us())
    }

    /// It worked: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Pauses since the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// `min_us` doubled `attempts` times, at most `max_us`.
pub(crate) fn ceiling_us(min_us: u64, max_us: u64, attempts: u32) -> u64 {
    min_us.saturating_mul(1 << attempts.min(32)).min(max_us)
}

/// A random part of the upper half of `ceiling_us`, at least 1.
pub(crate) fn jittered_us(ceiling_us: u64, random: &mut SmallRng) -> u64 {
    (ceiling_us - ceiling_us / 2 + random.random_range(0..=ceiling_us / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_turn_go_in_one_buffer_while_another_is_out() {
        let mut outgoing = Outgoing::new(1000);
        assert!(outgoing.take().is_none());
        assert!(outgoing.push(|out| out.extend_from_slice(b"one")));
        assert!(outgoing.push(|out| out.extend_from_slice(b"two")));
        let held = outgoing.take().unwrap();
        assert_eq!(held, b"onetwo");
        assert!(outgoing.push(|out| out.extend_from_slice(b"three")));
        assert!(outgoing.take().is_none(), "one writer, in order");
        assert_eq!(outgoing.bytes(), 11);
        let address = held.as_ptr();
        outgoing.give_back(held);
        let held = outgoing.take().unwrap();
        assert_eq!(held, b"three");
        outgoing.give_back(held);
        outgoing.push(|out| out.push(1));
        let held = outgoing.take().unwrap();
        assert_eq!(held.as_ptr(), address, "the two buffers alternate");
    }

    #[test]
    fn the_bound_holds_and_drops_are_counted_and_told_once() {
        let mut outgoing = Outgoing::new(10);
        assert!(outgoing.push(|out| out.extend_from_slice(&[0; 6])));
        let held = outgoing.take().unwrap();
        assert!(outgoing.push(|out| out.extend_from_slice(&[1; 4])));
        assert!(!outgoing.push(|out| out.push(2)), "held bytes count");
        assert!(outgoing.take_overflow());
        assert!(!outgoing.take_overflow());
        outgoing.give_back(held);
        assert_eq!(outgoing.take().unwrap(), [1; 4]);
        let statistics = outgoing.statistics();
        assert_eq!((statistics.frames, statistics.bytes, statistics.sends), (2, 10, 2));
        assert_eq!((statistics.dropped_frames, statistics.dropped_bytes), (1, 1));
    }

    #[test]
    fn a_frame_above_the_bound_goes_alone() {
        let mut outgoing = Outgoing::new(10);
        assert!(outgoing.push(|out| out.extend_from_slice(&[0; 20])));
        assert!(!outgoing.push(|out| out.push(2)));
    }

    #[test]
    fn a_broken_connection_forgets_what_was_queued() {
        let mut outgoing = Outgoing::new(100);
        outgoing.push(|out| out.extend_from_slice(&[0; 20]));
        outgoing.disconnected();
        assert!(outgoing.take().is_none());
        assert_eq!(outgoing.statistics().dropped_bytes, 20);
    }

    #[test]
    fn pauses_double_to_a_bound_and_repeat_with_the_seed() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500), seed);
            (0..12).map(|_| backoff.next_us()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        for (attempt, pause) in pauses(7).into_iter().enumerate() {
            let ceiling = (10_000u64 << attempt).min(500_000);
            assert!((ceiling / 2..=ceiling).contains(&pause), "attempt {attempt}: {pause}");
        }
    }
}
