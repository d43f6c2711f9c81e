//! Applying committed entries in order, answering those who wait for them, and serving reads.
//!
//! Data path 8/9 and 9/9.
//! Invariants: entries are applied strictly by index and exactly once; an entry is read in place, from the WAL's
//! cache or from verified bytes off the disk; a reply carries the position of its request in the log
//! and the term of that entry, a read's the term that this replica is in.
//! It decides nothing about commitment.

use ringraft_net::wire;
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, RaftCore};
use ringraft_wal::{Disk, EntryBytes, record};

use super::Group;
use super::waiters::Waited;
use crate::metrics::record::Rejection;
use crate::shard::clients::Asker;
use crate::shard::io::{Fatal, Io, Replies};

/// Bytes applied at most before the shard turns to something else.
const APPLY_SLICE_BYTES: usize = 256 << 10;

/// Bytes fetched at once when the entries to apply have left the cache. They are applied in one go, and other threads of
/// this processor wait for that; flushes of others on this disk wait for the read.
const APPLY_READ_BYTES: usize = 256 << 10;

impl Group {
    /// Applies what is committed, up to a slice of bytes; asks for another turn when more is left.
    pub(super) fn apply_committed<D: Disk>(&mut self, io: &mut Io<D>) {
        let mut applied_bytes = 0;
        while self.machine.last_applied() < self.core.commit_index() && self.applying.is_none() {
            if applied_bytes >= APPLY_SLICE_BYTES {
                io.more_work = true;
                break;
            }
            let index = self.machine.last_applied() + 1;
            match io.wal.entry_bytes(self.id.0, index) {
                EntryBytes::Cached(record) => {
                    applied_bytes += record.len();
                    self.snapshots.note_applied(record.len());
                    let replies = Replies {
                        clients: &mut io.clients,
                        counters: &mut io.counters,
                        metrics: &mut io.metrics,
                        tally: &mut self.tally,
                        group: self.id,
                        now_us: io.now_us,
                    };
                    let read = (&self.core, record);
                    let applied = apply_record(&mut self.machine, &mut self.waiters, &mut self.askers, read, replies);
                    if let Err(error) = applied {
                        return io.fail(Fatal::Unreadable { group: self.id.0, index, error });
                    }
                    self.digests.note(index, self.machine.digest().hash);
                }
                EntryBytes::OnDisk if is_active(Mutant::AppliedAheadOfData) => self.machine.pass_over(index),
                EntryBytes::OnDisk => match io.wal.read_entries(self.id.0, index, APPLY_READ_BYTES, &mut io.disk) {
                    Ok(ticket) => self.applying = Some(ticket),
                    Err(error) => return io.fail(Fatal::Wal(error.to_string())),
                },
                EntryBytes::Missing => {
                    let error = String::from("the log does not hold a committed entry");
                    return io.fail(Fatal::Unreadable { group: self.id.0, index, error });
                }
            }
        }
        self.note_serving();
    }

    /// Entries read from the disk for applying; `records` are verified and contiguous.
    pub(super) fn apply_read<D: Disk>(&mut self, records: &[u8], io: &mut Io<D>) {
        self.applying = None;
        let mut offset = 0;
        while offset < records.len() {
            let length = record::padded_record_length(&records[offset..]);
            let bytes = &records[offset..offset + length];
            offset += length;
            let header = record::header(bytes);
            let next = self.machine.last_applied() + 1;
            // What was read may have been replaced or applied meanwhile: only the committed entry itself counts.
            let current = self.core.term_at(header.index) == Some(header.term);
            if header.index != next || header.index > self.core.commit_index() || !current {
                continue;
            }
            let replies = Replies {
                clients: &mut io.clients,
                counters: &mut io.counters,
                metrics: &mut io.metrics,
                tally: &mut self.tally,
                group: self.id,
                now_us: io.now_us,
            };
            let read = (&self.core, bytes);
            let applied = apply_record(&mut self.machine, &mut self.waiters, &mut self.askers, read, replies);
            if let Err(error) = applied {
                return io.fail(Fatal::Unreadable { group: self.id.0, index: next, error });
            }
            self.snapshots.note_applied(length);
            self.digests.note(header.index, self.machine.digest().hash);
        }
        self.note_serving();
    }

    fn note_serving(&mut self) {
        if !self.serving && self.serve_from.is_some_and(|index| self.machine.last_applied() >= index) {
            self.serving = true;
        }
    }

    /// Answers every round of reads that is confirmed and caught up with.
    pub(super) fn serve_reads<D: Disk>(&mut self, io: &mut Io<D>) {
        while let Some(round) = self.reads.take_served(self.machine.last_applied()) {
            for (asker, request) in round.requests() {
                self.answer_read(request, asker, io);
            }
            self.reads.recycle(round);
        }
    }

    /// Answers one read from the state as it is.
    pub(super) fn answer_read<D: Disk>(&mut self, request: &[u8], asker: Asker, io: &mut Io<D>) {
        let (position, term) = (self.position(), self.core.term());
        match wire::view_request(request) {
            Ok(view) if self.machine.wants_order(view) => self.await_order(request, asker),
            Ok(request) => self.machine.read(request, |outcome| io.reply_applied(asker, (position, term), outcome)),
            Err(error) => {
                self.reject(Rejection::Malformed, io);
                io.reply(asker, position, wire::OutcomeRef::BadRequest { message: &error.to_string() });
            }
        }
    }

    /// Leadership is lost: nothing that waits here will be answered by this replica.
    pub(super) fn lose_leadership<D: Disk>(&mut self, io: &mut Io<D>) {
        let mut askers = std::mem::take(&mut self.askers);
        if !is_active(Mutant::ReplyByIndexAlone) {
            self.waiters.take_all(&mut askers);
        }
        for asker in askers.drain(..) {
            if is_active(Mutant::UnknownToldAsFailed) {
                self.reply_not_leader(asker, io);
                continue;
            }
            self.tally.unknown += 1;
            io.metrics.tally.unknown += 1;
            io.reply(asker, self.position(), wire::OutcomeRef::OutcomeUnknown);
        }
        self.askers = askers;
        let nodes: Vec<_> = self.followers.iter().map(|follower| follower.node).collect();
        nodes.into_iter().for_each(|node| self.drop_backlog(node));
        self.stop_sending(None, io);
        self.refuse_proposals(io);
        self.fail_reads(io);
    }

    /// Requests that were never proposed: they certainly did not happen.
    pub(super) fn refuse_proposals<D: Disk>(&mut self, io: &mut Io<D>) {
        let count = self.proposals.len();
        let askers: Vec<Asker> = self.proposals.drain(count).map(|proposal| proposal.asker).collect();
        for asker in askers {
            self.reply_not_leader(asker, io);
        }
    }

    /// The disk is full: writes are refused, reads go on; the next tick looks for a leader with room.
    pub(super) fn refuse_full<D: Disk>(&mut self, io: &mut Io<D>) {
        self.refused_full = true;
        let count = self.proposals.len();
        let askers: Vec<Asker> = self.proposals.drain(count).map(|proposal| proposal.asker).collect();
        for asker in askers {
            self.reject(Rejection::DiskFull, io);
            let message = "the disk of the leader is full: writes resume by themselves when space is free again";
            io.reply(asker, self.position(), wire::OutcomeRef::Unavailable { message });
        }
    }

    pub(super) fn fail_reads<D: Disk>(&mut self, io: &mut Io<D>) {
        self.refuse_questions(io);
        while let Some(round) = self.reads.take_any() {
            for (asker, _) in round.requests() {
                self.reply_not_leader(asker, io);
            }
            self.reads.recycle(round);
        }
    }
}

/// Applies one record and answers those who wait for it.
fn apply_record(
    machine: &mut crate::state_machine::StateMachine,
    waiters: &mut super::waiters::Waiters,
    askers: &mut Vec<Asker>,
    (core, bytes): (&RaftCore, &[u8]),
    mut replies: Replies<'_>,
) -> Result<(), String> {
    let header = record::header(bytes);
    let id = EntryId { term: header.term, index: header.index };
    let waited = waiters.take(id, askers);
    let ours = waited != Waited::ForAnother;
    let payload = record::requests(bytes);
    let mut position = 0_usize;
    machine
        .apply_entry(id.index, id.term, payload, |at, outcome| {
            if ours && let Some(asker) = askers.get(position) {
                // A repeated request is answered from where it stood first.
                let term = if at.index == id.index { Some(id.term) } else { core.term_at(at.index) };
                replies.applied(*asker, (at, term.unwrap_or(0)), outcome);
            }
            position += 1;
        })
        .map_err(|error| error.to_string())?;
    if !ours {
        for asker in askers.drain(..) {
            replies.lost(asker, id);
        }
    }
    let proposed_us = if let Waited::ForThis { proposed_us } = waited { Some(proposed_us) } else { None };
    replies.entry_applied(proposed_us);
    Ok(())
}
