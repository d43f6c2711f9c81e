//! The one function that orders persist, send, apply and reply for a group.
//!
//! Data path 4/9 to 9/9.
//! Invariants: hard state stands in the WAL before any record of its term and before any message that depends on it;
//! what a `Ready` puts in `after_flush` leaves after everything of the group accepted until then is durable;
//! an entry is applied only when committed, a reply leaves only after apply.

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, HardState, Membership, Message, NodeId, Role};
use ringraft_wal::{Disk, SnapshotMark, WalError, record};

use super::proposals::NextEntry;
use super::{AfterFlush, Group};
use crate::payload::request_prefix;
use crate::shard::io::{Fatal, Io};

/// What gave the group reason to advance, with the records it brings.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// The core was stepped, ticked or told of a flush.
    Nothing,
    /// Records of a leader that the core has just accepted, verbatim.
    Records(&'a [u8]),
    /// Requests that wait to become entries.
    Proposals,
    /// A leader's snapshot that the core has just taken in the place of its log.
    Installed(&'a SnapshotMark),
    /// A configuration that this leader proposes.
    Membership(&'a Membership),
}

impl Group {
    /// Takes the core's output and does it: persist, send, apply, reply, in this order.
    pub(crate) fn advance<D: Disk>(&mut self, input: Input<'_>, io: &mut Io<D>) {
        if let Input::Proposals = input {
            self.persist_proposals(io);
        }
        if let Input::Membership(membership) = input {
            self.persist_membership(membership, io);
        }
        self.core.observe_time(io.now_us);
        self.core.ready(&mut self.ready);
        let says_little = self.ready.has_only_messages() && self.ready.after_flush.is_empty();
        self.settled &= says_little && matches!(input, Input::Nothing);
        if self.settled {
            return self.send_messages(io); // nothing else is under way
        }
        let mut ready = std::mem::take(&mut self.ready);

        // Persist. All of it joins the open flush batch, in this order.
        if let Some(hard_state) = ready.hard_state {
            self.persist_hard_state(hard_state, io);
        }
        if let Some(noop) = ready.noop {
            self.persist_entry(noop, NextEntry { count: 0, payload_bytes: 0 }, io);
        }
        if let Input::Records(records) = input {
            self.persist_records(records, io);
        }
        if let Input::Installed(mark) = input
            && !is_active(Mutant::InstallWithoutMark)
        {
            self.persist_mark(mark, io);
        }

        // Send: at once what a leader may send beside its own flush, after the flush what promises durability.
        for (to, message) in ready.messages.drain(..) {
            self.send(to, message, io);
        }
        for (to, message) in ready.after_flush.drain(..) {
            self.queue_after_flush(to, message);
        }
        self.release_after_flush(io);

        // Apply and reply.
        self.count_commits(ready.commit_index, io);
        self.apply_committed(io);
        for read in ready.reads.drain(..) {
            self.reads.confirm(read.context, read.index);
            self.answer_questions(read, io);
        }
        self.serve_reads(io); // what is confirmed in this very output stays valid
        if ready.reads_failed {
            self.fail_reads(io);
        }
        self.serve_questions(io);
        if let Some((role, leader, term)) = ready.role {
            self.count_role(role, leader, term, io);
            self.fail_questions(io); // the leader may be another
            self.on_role(role, io);
        }
        self.settle_transfer(io);
        for node in ready.snapshots.drain(..) {
            self.begin_sending(node, io);
        }
        let due = ready.membership_due.take();
        self.ready = ready;
        if let Some(membership) = due {
            self.advance(Input::Membership(&membership), io); // asked for again with the next tick, not before
        }
    }

    fn send_messages<D: Disk>(&mut self, io: &mut Io<D>) {
        for place in 0..self.ready.messages.len() {
            let (to, message) = self.ready.messages[place];
            self.send(to, message, io);
        }
    }

    fn persist_hard_state<D: Disk>(&mut self, hard_state: HardState, io: &mut Io<D>) {
        let voted_for = hard_state.voted_for.map(|node| node.0);
        match io.wal.append_hard_state(self.id.0, hard_state.current_term, voted_for, &mut io.disk) {
            Ok(accepted) => self.flush_mark = accepted.sequence,
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
    }

    fn persist_mark<D: Disk>(&mut self, mark: &SnapshotMark, io: &mut Io<D>) {
        match io.wal.append_snapshot_mark(self.id.0, *mark, &mut io.disk) {
            Ok(accepted) => self.flush_mark = accepted.sequence,
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
    }

    fn persist_records<D: Disk>(&mut self, records: &[u8], io: &mut Io<D>) {
        let mut offset = 0;
        while offset < records.len() {
            let length = record::padded_record_length(&records[offset..]);
            match io.wal.append_record(&records[offset..offset + length], &mut io.disk) {
                Ok(accepted) => self.flush_mark = accepted.sequence,
                Err(error) => return io.fail(Fatal::Wal(error.to_string())),
            }
            self.count_entry(io);
            offset += length;
        }
    }

    /// Makes entries of the waiting requests, as many as the core's bounds admit.
    fn persist_proposals<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.core.role() != Role::Leader {
            return self.refuse_proposals(io);
        }
        while !self.proposals.is_empty() {
            let next = self.proposals.next_entry(self.entry_bytes_max);
            let length = record::padded_length(next.payload_bytes);
            if !io.wal.has_room(length) {
                return self.refuse_full(io);
            }
            match self.core.propose(length as u32) {
                Ok(id) => self.persist_entry(id, next, io),
                Err(_) => return, // uncommitted bytes are at their bound: they wait for a commit
            }
        }
    }

    /// Writes one entry of this leader's term: the next `next.count` requests, byte for byte.
    fn persist_entry<D: Disk>(&mut self, id: EntryId, next: NextEntry, io: &mut Io<D>) {
        let begun = io.wal.begin_entry(self.id.0, id.term, id.index, next.payload_bytes, &mut io.disk);
        if let Err(error) = begun {
            return io.fail(Fatal::Wal(error.to_string()));
        }
        if let Some(arrived_us) = self.proposals.oldest_us().filter(|_| next.count > 0) {
            io.metrics.proposed(next.count, arrived_us, io.now_us);
        }
        self.waiters.open(id, io.now_us);
        for proposal in self.proposals.drain(next.count) {
            let bytes = proposal.bytes();
            io.wal.put(&request_prefix(bytes.len()));
            io.wal.put(bytes);
            self.waiters.push(proposal.asker);
        }
        let accepted: Result<_, WalError> = io.wal.finish_entry(next.count as u16);
        match accepted {
            Ok(accepted) => self.flush_mark = accepted.sequence,
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
        self.count_entry(io);
        io.counters.entries_proposed += 1;
        io.counters.requests_proposed += next.count as u64;
    }

    /// Queues a message until the group's newest record is durable. The latest acknowledgement to a leader replaces
    /// an earlier one of the same batch: one response per group and flush.
    fn queue_after_flush(&mut self, to: NodeId, message: Message) {
        let sequence = self.flush_mark;
        if let Some(last) = self.after_flush.back_mut() {
            let both_appends = matches!(last.message, Message::AppendEntriesResponse { .. })
                && matches!(message, Message::AppendEntriesResponse { .. });
            if both_appends && last.to == to && last.sequence == sequence && supersedes(&message, &last.message) {
                last.message = message;
                return;
            }
        }
        self.after_flush.push_back(AfterFlush { sequence, to, message });
    }

    /// Sends what waited for flushes that are done.
    pub(super) fn release_after_flush<D: Disk>(&mut self, io: &mut Io<D>) {
        let durable = io.wal.durable_sequence();
        while let Some(first) = self.after_flush.front()
            && first.sequence <= durable
        {
            if let Some(AfterFlush { to, message, .. }) = self.after_flush.pop_front() {
                self.send(to, message, io);
            }
        }
    }

    fn on_role<D: Disk>(&mut self, role: Role, io: &mut Io<D>) {
        match role {
            Role::Leader => {
                self.serve_from = Some(self.core.last().index);
                (self.attempts, self.full_pause_ticks) = (0, 0);
                self.drive.reset();
            }
            Role::Follower | Role::PreCandidate | Role::Candidate => {}
        }
        if role != Role::Leader {
            self.lose_leadership(io);
        }
    }
}

/// Whether the later acknowledgement says all that the earlier said: same term, both accepted.
fn supersedes(later: &Message, earlier: &Message) -> bool {
    use ringraft_raft::AppendResult::Accepted;
    match (later, earlier) {
        (
            Message::AppendEntriesResponse { term: later_term, result: Accepted { match_index: later_match } },
            Message::AppendEntriesResponse { term: earlier_term, result: Accepted { match_index: earlier_match } },
        ) => later_term == earlier_term && later_match >= earlier_match,
        _ => false,
    }
}
