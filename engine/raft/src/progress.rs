//! What a leader knows of one other member, and the flow control of its stream.
//!
//! Data path 5/9.
//!
//! ```text
//!             Accepted
//!   Probe ----------------> Replicate     Probe: one message, then wait for its answer or for a heartbeat's
//!   |  ^  ^                     |         Replicate: stream while in_flight < inflight_bytes_max
//!   |  |  +---------------------+         Snapshot: what it needs is compacted; wait until it holds the base
//!   |  |    Rejected, unreachable, nothing came back for an election timeout
//!   |  | failed, unreachable
//!   v  |                 Accepted, base or more
//!   Snapshot -------------------------> Replicate
//!
//!   log:  ....... match_index | in flight .......... | next_index ....... last
//! ```
//!
//! Relations: `match_index < next_index <= last.index + 1`; `match_index` never falls; in Probe `next_index` only falls;
//! outside Snapshot and a waiting Probe `next_index` is above the base.
//!
//! Deliberately absent: any notion of a link. Loss shows as silence.

use crate::{
    config::Config,
    ids::{Index, NodeId, Term},
    lease::Heard,
    log::LogTerms,
    message::{AppendResult, Message},
    ready::ProgressState,
};

/// What a leader knows of one other member.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    /// Durable there and equal to the leader's log up to here.
    pub(crate) match_index: Index,
    /// The next entry to send.
    pub(crate) next_index: Index,
    pub(crate) state: ProgressState,
    /// Highest read round answered.
    pub(crate) read_sequence: u64,
    /// The latest heartbeat it answered.
    pub(crate) heard: Heard,
    /// When it was last heard.
    pub(crate) heard_tick: u64,
    /// Probe: a message is out, wait.
    waiting: bool,
    /// Probe: from here on a heartbeat's answer ends the wait.
    retry_tick: u64,
    /// Replicate: when `match_index` last moved, or the stream started.
    moved_tick: u64,
    /// Bytes it may still get in this tick while it lags; below 0 when an entry was longer.
    allowance: i64,
}

/// What `Progress::next_append` needs of the leader.
pub(crate) struct Outlook<'core> {
    pub(crate) config: &'core Config,
    pub(crate) log: &'core LogTerms,
    pub(crate) term: Term,
    pub(crate) leader_commit: Index,
    pub(crate) now: u64,
    /// Those who lag are fed no faster than their allowance.
    pub(crate) paced: bool,
}

impl Progress {
    /// A member nothing is known of: the first probe starts at `next_index`.
    pub(crate) fn new(id: NodeId, next_index: Index, now: u64) -> Self {
        Self {
            id,
            match_index: 0,
            next_index,
            state: ProgressState::Probe,
            read_sequence: 0,
            heard: Heard::default(),
            heard_tick: now,
            waiting: false,
            retry_tick: now,
            moved_tick: now,
            allowance: 0,
        }
    }

    /// Whether it needs what is compacted, as of now: a snapshot has to go to it. Says so once per attempt.
    pub(crate) fn needs_snapshot(&mut self, log: &LogTerms) -> bool {
        let needs = self.state == ProgressState::Probe && !self.waiting && self.next_index <= log.base().index;
        if needs {
            self.state = ProgressState::Snapshot;
        }
        needs
    }

    /// What it would get next is compacted: it starts over, which will be with a snapshot.
    pub(crate) fn base_moved(&mut self, now: u64) {
        if self.state != ProgressState::Snapshot {
            self.probe_from(self.match_index + 1, now);
        }
    }

    /// A snapshot up to `index` was sent whole; whether it was installed shows when it answers a heartbeat and is probed.
    pub(crate) fn snapshot_sent(&mut self, index: Index, now: u64) {
        if self.state == ProgressState::Snapshot {
            self.probe_from(self.match_index.max(index) + 1, now);
            self.waiting = true;
            self.retry_tick = now + 1;
        }
    }

    /// The snapshot did not arrive; another attempt begins when it answers a heartbeat.
    pub(crate) fn snapshot_failed(&mut self, now: u64) {
        if self.state == ProgressState::Snapshot {
            self.probe_from(self.match_index + 1, now);
            self.waiting = true;
            self.retry_tick = now + 1;
        }
    }

    /// The next `AppendEntries` for this member, if it may have one now.
    pub(crate) fn next_append(&mut self, outlook: &Outlook<'_>) -> Option<Message> {
        let log = outlook.log;
        if self.state == ProgressState::Snapshot || self.next_index > log.last().index {
            return None;
        }
        let after = self.next_index - 1;
        let lags = outlook.paced && self.lags(outlook);
        let room = self.room(outlook, lags)?;
        let prev = crate::EntryId { term: log.term_at(after)?, index: after };
        let count = log.count_within(after, room).clamp(1, u64::from(u32::MAX));
        self.sent(count, outlook);
        if lags {
            self.allowance = self.allowance.saturating_sub_unsigned(log.bytes_between(after, after + count));
        }
        Some(Message::AppendEntries {
            term: outlook.term,
            prev,
            leader_commit: outlook.leader_commit,
            count: count as u32,
        })
    }

    /// Whether it lacks more committed entries than one message takes: they were committed without it.
    fn lags(&self, outlook: &Outlook<'_>) -> bool {
        outlook.log.bytes_between(self.match_index, outlook.leader_commit) > u64::from(outlook.config.append_bytes_max)
    }

    /// Called once a tick, with what those who lag may get in it.
    pub(crate) fn refill(&mut self, bytes_per_tick: Option<u64>) {
        self.allowance = bytes_per_tick.map_or(0, |bytes| {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.allowance.saturating_add(bytes).min(bytes)
        });
    }

    /// Bytes the next message may name; at least one entry always may.
    fn room(&self, outlook: &Outlook<'_>, lags: bool) -> Option<u64> {
        let mut append_bytes_max = u64::from(outlook.config.append_bytes_max);
        if lags {
            let allowed = u64::try_from(self.allowance).ok().filter(|allowed| *allowed > 0)?;
            append_bytes_max = append_bytes_max.min(allowed);
        }
        if self.state == ProgressState::Probe {
            return (!self.waiting).then_some(append_bytes_max);
        }
        let after = self.next_index - 1;
        if after == self.match_index {
            return Some(append_bytes_max);
        }
        let in_flight = outlook.log.bytes_between(self.match_index, after);
        let room = append_bytes_max.min(outlook.config.inflight_bytes_max.saturating_sub(in_flight));
        (outlook.log.count_within(after, room) > 0).then_some(room)
    }

    fn sent(&mut self, count: u64, outlook: &Outlook<'_>) {
        match self.state {
            ProgressState::Probe => {
                self.waiting = true;
                self.retry_tick = outlook.now + u64::from(outlook.config.heartbeat_ticks);
            }
            ProgressState::Snapshot => {}
            ProgressState::Replicate => {
                if self.next_index == self.match_index + 1 {
                    self.moved_tick = outlook.now;
                }
                self.next_index += count;
            }
        }
    }

    /// The member holds everything up to `match_index`. Whether that is news.
    pub(crate) fn accepted(&mut self, match_index: Index, log: &LogTerms, now: u64) -> bool {
        if match_index <= self.match_index {
            return false; // late or repeated: nothing ever moves back
        }
        self.match_index = match_index;
        self.next_index = self.next_index.max(match_index + 1);
        self.moved_tick = now;
        // Below the base it cannot go on from there: a probe turns into a snapshot, a snapshot is waited for.
        if self.state != ProgressState::Replicate && match_index >= log.base().index {
            self.state = ProgressState::Replicate;
            self.next_index = match_index + 1;
        }
        true
    }

    /// The member refused a message: back to where the logs may meet (Raft 5.3, end).
    pub(crate) fn rejected(&mut self, result: AppendResult, log: &LogTerms, now: u64) {
        let AppendResult::Rejected { prev_index, conflict_term, conflict_first_index, last_index } = result else {
            return;
        };
        let is_late = match self.state {
            ProgressState::Probe => prev_index != self.next_index - 1,
            ProgressState::Replicate => prev_index >= self.next_index,
            ProgressState::Snapshot => true,
        };
        let lowest = self.match_index + 1;
        if is_late || prev_index < lowest {
            return;
        }
        // Both logs may be equal up to `bound`, and are where the leader has `conflict_term` inside the follower's run.
        let bound = last_index.min(prev_index - 1);
        let meeting = match log.last_index_of_term(conflict_term, bound) {
            Some(index) if index >= conflict_first_index => index + 1,
            Some(index) => conflict_first_index.min(index + 1),
            None => conflict_first_index.min(bound + 1),
        };
        self.probe_from(meeting.min(prev_index).max(lowest), now);
    }

    /// A learner's log is shorter than what it acknowledged: its host gave the replica up and began it anew. It counts for
    /// nothing, so it may; a late answer that looks like it costs a probe.
    pub(crate) fn begins_anew(&mut self, last_index: Index, now: u64) {
        if self.state != ProgressState::Snapshot {
            self.match_index = 0;
            self.probe_from(last_index + 1, now);
        }
    }

    /// Starts over at `next_index`, at once.
    fn probe_from(&mut self, next_index: Index, now: u64) {
        self.state = ProgressState::Probe;
        self.next_index = next_index;
        self.waiting = false;
        self.retry_tick = now;
    }

    /// What is in flight is lost; its next answer to a heartbeat starts over.
    pub(crate) fn unreachable(&mut self, now: u64) {
        self.probe_from(self.match_index + 1, now);
        self.waiting = true;
        self.retry_tick = now + 1;
    }

    /// It answered a heartbeat, so it can be reached: a probe that got no answer is repeated.
    pub(crate) fn answered_heartbeat(&mut self, now: u64) {
        if now >= self.retry_tick {
            self.waiting = false;
        }
    }

    /// Whether nothing is to be sent to it, and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == ProgressState::Replicate && self.next_index == self.match_index + 1
    }

    /// Called once a tick: a stream without progress for `patience` starts over.
    pub(crate) fn tick(&mut self, now: u64, patience: u32) {
        let streams = self.state == ProgressState::Replicate && self.next_index > self.match_index + 1;
        if streams && now - self.moved_tick >= u64::from(patience) {
            self.probe_from(self.match_index + 1, now);
        }
    }
}
