//! What a shard counts while it works: plain numbers of its own thread.
//!
//! Data path: additions, and times that the shard was told anyway.
//! Invariants: recording decides nothing and reads no clock; times are those of the events (`Shard::observe_time`), so a
//! latency is as fine as the events are and 0 without a clock; memory is bounded by the flushes in flight and
//! `TRANSITIONS_MAX`.
//! It publishes nothing: see `sample.rs`.

use std::collections::VecDeque;

use ringraft_net::wire::Outcome;
use ringraft_wal::BatchSize;

use super::histogram::{Histogram, Maximum};
use super::sample::State;

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is malformed or breaks a bound.
    Malformed,
    /// Its group lives in another shard.
    Moved,
    /// This replica does not lead, or stopped leading before the request became an entry.
    NotLeader,
    /// As many requests wait as may.
    Overloaded,
    /// The replica has not caught up, or cannot tell how current it is.
    NotReady,
    /// The disk of the leader is full.
    DiskFull,
    /// The node is stopping.
    Stopping,
    /// Another leader's entry took the place of its entry.
    Replaced,
}

impl Rejection {
    /// All of them, in the order of [`Tally::rejected`].
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Moved,
        Self::NotLeader,
        Self::Overloaded,
        Self::NotReady,
        Self::DiskFull,
        Self::Stopping,
        Self::Replaced,
    ];

    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Moved => "moved",
            Self::NotLeader => "not_leader",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::DiskFull => "disk_full",
            Self::Stopping => "stopping",
            Self::Replaced => "replaced",
        }
    }

    /// Why admission refused.
    pub(crate) fn of_admission(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::BadRequest { .. } => Some(Self::Malformed),
            Outcome::Moved { .. } => Some(Self::Moved),
            Outcome::NotLeader { .. } => Some(Self::NotLeader),
            Outcome::Overloaded { .. } => Some(Self::Overloaded),
            Outcome::Unavailable { .. } => Some(Self::Stopping),
            _ => None,
        }
    }
}

/// What is counted of a replica, and of all replicas that a shard ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries added to the log.
    pub entries: u64,
    /// Entries that were committed while the replica served.
    pub commits: u64,
    /// Elections started.
    pub elections: u64,
    /// Terms of which the leader became known.
    pub leader_changes: u64,
    /// Entries applied.
    pub applied: u64,
    /// Requests not taken, by [`Rejection`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// Requests whose outcome is unknown: leadership was lost while they waited.
    pub unknown: u64,
}

impl Tally {
    pub(crate) fn reject(&mut self, reason: Rejection) {
        self.rejected[reason as usize] += 1;
    }

    /// Adds another one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.commits += other.commits;
        self.elections += other.elections;
        self.leader_changes += other.leader_changes;
        self.applied += other.applied;
        self.unknown += other.unknown;
        for (count, more) in self.rejected.iter_mut().zip(&other.rejected) {
            *count += more;
        }
    }
}

/// The histograms of a shard. Times are in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// From the arrival of the oldest request of an entry until the entry is proposed.
    pub proposal_wait: Histogram,
    /// From the proposal of an entry until it is committed, applied and answered by the leader that proposed it.
    pub commit: Histogram,
    /// From the turn that handed a flush batch to the disk until the turn that saw it durable.
    pub flush: Histogram,
    /// Bytes of a flush batch.
    pub batch_bytes: Histogram,
    /// Records in a flush batch.
    pub batch_records: Histogram,
    /// Requests in an entry with any.
    pub entry_requests: Histogram,
}

impl Latencies {
    fn all(&mut self) -> [&mut Histogram; 6] {
        let Self { proposal_wait, commit, flush, batch_bytes, batch_records, entry_requests } = self;
        [proposal_wait, commit, flush, batch_bytes, batch_records, entry_requests]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.proposal_wait.add(&other.proposal_wait);
        self.commit.add(&other.commit);
        self.flush.add(&other.flush);
        self.batch_bytes.add(&other.batch_bytes);
        self.batch_records.add(&other.batch_records);
        self.entry_requests.add(&other.entry_requests);
    }
}

/// Transitions of a shard that wait for its next report; older ones are forgotten.
pub(crate) const TRANSITIONS_MAX: usize = 256;

/// Role, leader or term of a replica became others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The group.
    pub group: u32,
    /// The term from here on.
    pub term: u64,
    /// The part it plays from here on.
    pub state: State,
    /// The part it played before.
    pub before: State,
    /// The leader's node from here on, 0: none is known.
    pub leader: u64,
    /// When the transition before this one was, by the host's clock; 0: there was none.
    pub since_us: u64,
    /// When it was, by the host's clock.
    pub at_us: u64,
}

/// What a shard counts besides `Counters`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    /// Of all replicas, also of those that are gone.
    pub(crate) tally: Tally,
    pub(crate) latencies: Latencies,
    /// Requests that wait in one group.
    pub(crate) waiting: Maximum,
    /// Flushes under way: batch and time.
    flushes: VecDeque<(u64, u64)>,
    transitions: VecDeque<Transition>,
}

impl Recorder {
    /// A flush batch was handed to the disk.
    pub(crate) fn submitted(&mut self, sequence: u64, size: BatchSize, now_us: u64) {
        self.flushes.push_back((sequence, now_us));
        self.latencies.batch_bytes.record(size.bytes as u64);
        self.latencies.batch_records.record(u64::from(size.records));
    }

    /// All flush batches up to this one are durable.
    pub(crate) fn durable(&mut self, sequence: u64, now_us: u64) {
        while let Some((_, begun_us)) = self.flushes.pop_front_if(|(first, _)| *first <= sequence) {
            self.latencies.flush.record(now_us.saturating_sub(begun_us));
        }
    }

    /// A leader here made an entry of requests, of which the oldest came in at `arrived_us`.
    pub(crate) fn proposed(&mut self, requests: usize, arrived_us: u64, now_us: u64) {
        self.latencies.entry_requests.record(requests as u64);
        self.latencies.proposal_wait.record(now_us.saturating_sub(arrived_us));
    }

    /// Role, leader or term of a replica became others.
    pub(crate) fn changed(&mut self, transition: Transition) {
        if self.transitions.len() == TRANSITIONS_MAX {
            self.transitions.pop_front();
        }
        self.transitions.push_back(transition);
    }

    /// The transitions since the last call, in their order.
    pub(crate) fn take_transitions(&mut self) -> impl Iterator<Item = Transition> + '_ {
        self.transitions.drain(..)
    }

    /// A second is over.
    pub(crate) fn end_second(&mut self) {
        self.latencies.all().into_iter().for_each(Histogram::end_second);
        self.waiting.end_second();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_their_counts() {
        let mut tally = Tally::default();
        for (place, reason) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            tally.reject(reason);
        }
        let mut sum = tally;
        sum.add(&tally);
        assert_eq!(sum.rejected, [2; Rejection::ALL.len()]);
    }

    #[test]
    fn flushes_are_timed_in_the_order_of_their_batches() {
        let mut recorder = Recorder::default();
        let size = BatchSize { bytes: 4_096, records: 3 };
        recorder.submitted(7, size, 100);
        recorder.submitted(8, size, 150);
        recorder.durable(6, 1_000);
        assert_eq!(recorder.latencies.flush.count(), 0);
        recorder.durable(8, 350);
        let flush = &recorder.latencies.flush;
        assert_eq!((flush.count(), flush.sum(), flush.maximum()), (2, 450, 250));
        assert_eq!(recorder.latencies.batch_bytes.sum(), 8_192);
        recorder.durable(9, 500);
        assert_eq!(recorder.latencies.flush.count(), 2);
    }

    #[test]
    fn of_too_many_transitions_the_oldest_are_forgotten() {
        let mut recorder = Recorder::default();
        let (before, state) = (State::Follower, State::Candidate);
        for term in 1..=TRANSITIONS_MAX as u64 + 3 {
            recorder.changed(Transition { group: 1, term, state, before, leader: 0, since_us: 0, at_us: term });
        }
        let terms: Vec<u64> = recorder.take_transitions().map(|transition| transition.term).collect();
        assert_eq!((terms.len(), terms[0], terms[1]), (TRANSITIONS_MAX, 4, 5));
        assert_eq!(recorder.take_transitions().count(), 0, "each is told once");
    }
}
