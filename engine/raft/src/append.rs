//! The follower's side of replication: `AppendEntries` and `Heartbeat`.
//!
//! Data path 5/9 and 6b/9, at the follower.
//!
//! ```text
//!   prev |  e1  e2  e3  e4                 prev is not held             -> Rejected, with a hint
//!   own  |  e1  e2  x3  x4  x5             e1 e2 held (skip), x3.. replaced (truncate_from), e3 e4 new
//!              ^ commit_index              a difference at or below it  -> refused and counted
//! ```
//!
//! Relations: committed and compacted entries are never truncated (openraft #511); an answer names only what is known to
//! match the leader of the current term, and leaves after the flush; the commit index never passes that point, except by
//! a heartbeat, whose sender kept it below what this node acknowledged.
//!
//! Deliberately absent: the records themselves; the host appends what the outcome names.

use crate::{
    core::{RaftCore, RoleState},
    ids::{EntryId, Index, NodeId, Term},
    message::{AppendResult, EntryMeta, IncomingEntries, Message},
    mutants::{Mutant, is_active},
    ready::AppendOutcome,
};

impl RaftCore {
    /// The receiver's half of `AppendEntries` (Raft figure 2).
    pub(crate) fn append(&mut self, from: NodeId, incoming: &IncomingEntries<'_>) -> AppendOutcome {
        let IncomingEntries { term, prev, leader_commit, entries, changes } = *incoming;
        if !is_well_formed(term, prev, entries) {
            return AppendOutcome::Ignored;
        }
        if !self.follow(from, term) {
            if term < self.hard_state.current_term {
                self.reject(from, prev.index); // tells a deposed leader the term
            }
            return AppendOutcome::Ignored;
        }
        if !self.holds(prev) {
            if prev.index <= self.commit_index {
                self.refused_conflicts += 1;
            } else {
                self.reject(from, prev.index);
            }
            return AppendOutcome::Ignored;
        }
        let skip = self.held_entries(prev, entries);
        let last_index = prev.index + entries.len() as u64;
        let mut truncate_from = None;
        if is_active(Mutant::LateAppendTruncates) && skip == entries.len() && last_index >= self.commit_index {
            truncate_from = self.make_room(last_index + 1);
        }
        if skip < entries.len() {
            let first_new = prev.index + skip as u64 + 1;
            if first_new <= self.commit_index {
                self.refused_conflicts += 1;
                return AppendOutcome::Ignored;
            }
            truncate_from = self.make_room(first_new);
            for entry in &entries[skip..] {
                self.log.push(*entry);
            }
            for (index, membership) in changes.iter().filter(|(index, _)| *index >= first_new) {
                if is_active(Mutant::TruncatedMembersStay) {
                    self.memberships.truncate(*index);
                }
                self.memberships.push(*index, membership.clone());
            }
        }
        self.accept(from, last_index, leader_commit);
        AppendOutcome::Accepted { skip, truncate_from }
    }

    /// Whether the log continues from `prev`. Below the base it does, since that part is committed.
    fn holds(&self, prev: EntryId) -> bool {
        let any_term = is_active(Mutant::AppendWithoutPrevCheck) && prev.index <= self.log.last().index;
        prev.index < self.log.base().index || self.log.contains(prev) || any_term
    }

    /// How many leading entries are in the log already.
    fn held_entries(&self, prev: EntryId, entries: &[EntryMeta]) -> usize {
        if prev.index >= self.log.last().index {
            return 0; // the common case: nothing overlaps
        }
        let base = self.log.base().index;
        let held = |(index, entry): (Index, &EntryMeta)| index < base || self.log.term_at(index) == Some(entry.term);
        (prev.index + 1..).zip(entries).take_while(|pair| held(*pair)).count()
    }

    /// Drops the own entries from `index` on, if there are any.
    fn make_room(&mut self, index: Index) -> Option<Index> {
        if index > self.log.last().index {
            return None;
        }
        assert!(index > self.commit_index, "committed entries are never truncated: {index}");
        self.log.truncate(index);
        if !is_active(Mutant::TruncatedMembersStay) {
            self.memberships.truncate(index);
        }
        self.durable_index = self.durable_index.min(index - 1);
        if self.outbox.noop.is_some_and(|noop| noop.index >= index) {
            self.outbox.noop = None; // it never reached the host
        }
        Some(index)
    }

    /// Everything up to `last_index` matches the leader.
    pub(crate) fn accept(&mut self, from: NodeId, last_index: Index, leader_commit: Index) {
        let base = self.log.base().index;
        let RoleState::Follower(follower) = &mut self.role else { return };
        follower.match_index = follower.match_index.max(last_index).max(base);
        let match_index = follower.match_index;
        let known = if is_active(Mutant::CommitBeyondMatch) { self.log.last().index } else { match_index };
        self.commit_index = self.commit_index.max(leader_commit.min(known));
        let term = self.hard_state.current_term;
        let response = (from, Message::AppendEntriesResponse { term, result: AppendResult::Accepted { match_index } });
        if is_active(Mutant::AppendBeforeFlush) {
            return self.outbox.messages.push(response);
        }
        self.outbox.append_response = Some(response);
    }

    /// Refuses with a hint: the term in the way and where it starts (Raft 5.3, end).
    pub(crate) fn reject(&mut self, from: NodeId, prev_index: Index) {
        let last_index = self.log.last().index;
        let conflict_index = prev_index.min(last_index);
        let result = AppendResult::Rejected {
            prev_index,
            conflict_term: self.log.term_at(conflict_index).unwrap_or(0),
            conflict_first_index: self.log.first_index_of_term_at(conflict_index),
            last_index,
        };
        self.send_append_refusal(from, result);
    }

    pub(crate) fn step_heartbeat(
        &mut self,
        from: NodeId,
        term: Term,
        leader_commit: Index,
        (read_sequence, sent_us): (u64, u64),
    ) {
        let follows = self.follow(from, term);
        if follows {
            self.commit_index = self.commit_index.max(leader_commit.min(self.log.last().index));
        } else if term >= self.hard_state.current_term {
            return; // a second leader of this term cannot be
        }
        // A deposed leader is told the term and nothing more: should it lead this term, its rounds are counted anew.
        let (read_sequence, sent_us) = if follows { (read_sequence, sent_us) } else { (0, 0) };
        let (term, shield_us) = (self.hard_state.current_term, self.shield_us());
        let response = Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us };
        self.send_once_term_is_durable(from, response);
    }
}

/// Terms that a leader of `term` can send after `prev`, at indexes that exist.
fn is_well_formed(term: Term, prev: EntryId, entries: &[EntryMeta]) -> bool {
    let mut lowest = prev.term;
    let rises = entries.iter().all(|entry| {
        let rises = entry.term >= lowest;
        lowest = entry.term;
        rises
    });
    rises && lowest <= term && prev.index.checked_add(entries.len() as u64).is_some_and(|last| last < Index::MAX)
}
