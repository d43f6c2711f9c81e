//! ReadIndex: linearizable reads without writing to the log (thesis 6.4).
//!
//! Off the data path of writes.
//!
//! ```text
//!   read_index()  read_index() | ready(): the round closes, its index is taken, heartbeats carry its sequence
//!        open round            |          a quorum answered that sequence or a later one: confirmed
//! ```
//!
//! Relations: a context (term, sequence) names one round of one leader and is never made twice (etcd #20418); an answer
//! to a heartbeat confirms every round closed before that heartbeat was made, and nothing later; a leader without a
//! committed entry of its own term takes no reads (etcd #7331); at most `READ_ROUNDS_MAX` rounds are on the way, the
//! open one waits and gathers.
//!
//! Deliberately absent: leases (`lease.rs`), and the reads themselves.

use crate::{
    core::{Leader, RaftCore, RoleState},
    ids::Index,
    mutants::{Mutant, is_active},
    ready::{ReadContext, ReadError, ReadReady},
};
use alloc::collections::VecDeque;

/// Rounds on the way at most.
pub(crate) const READ_ROUNDS_MAX: usize = 4;

/// The rounds of one leader, in order of their sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadRounds {
    /// Taking reads; the sequence is the next one.
    pub(crate) open: bool,
    /// The latest sequence handed to heartbeats.
    pub(crate) closed_sequence: u64,
    /// Closed and unconfirmed.
    pub(crate) waiting: VecDeque<ReadRound>,
}

/// A closed round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRound {
    pub(crate) sequence: u64,
    pub(crate) index: Index,
}

impl RaftCore {
    /// Starts a linearizable read. It may be served once `Ready::reads` has its context and the host has applied the
    /// index that comes with it. Calls between two `ready` share a context.
    pub fn read_index(&mut self) -> Result<ReadContext, ReadError> {
        let term = self.hard_state.current_term;
        let RoleState::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader { leader: self.leader() });
        };
        if self.commit_index < leader.first_index_of_term && !is_active(Mutant::ReadBeforeOwnCommit) {
            return Err(ReadError::NotReady);
        }
        leader.reads.open = true;
        Ok(ReadContext { term, sequence: leader.reads.closed_sequence + 1 })
    }

    /// Closes the open round, if there is one and not too many are on the way: takes its index, asks for heartbeats.
    pub(crate) fn close_read_round(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if !leader.reads.open || leader.reads.waiting.len() >= READ_ROUNDS_MAX {
            return;
        }
        leader.reads.open = false;
        if !is_active(Mutant::ReadContextReused) || leader.reads.closed_sequence == 0 {
            leader.reads.closed_sequence += 1;
        }
        let round = ReadRound { sequence: leader.reads.closed_sequence, index: self.commit_index };
        leader.reads.waiting.push_back(round);
        leader.heartbeat_due = true;
        self.confirm_reads(); // a group of one voter has its quorum already
    }

    /// Hands out every round that a quorum has answered.
    pub(crate) fn confirm_reads(&mut self) {
        let (id, term) = (self.config.id, self.hard_state.current_term);
        let RoleState::Leader(leader) = &mut self.role else { return };
        if leader.reads.waiting.is_empty() {
            return;
        }
        let Leader { peers, reads, .. } = &mut **leader;
        let answered = |node| match peers.iter().find(|peer| peer.id == node) {
            Some(peer) => peer.read_sequence,
            None if node == id => reads.closed_sequence,
            None => 0,
        };
        let mut confirmed = self.memberships.current().quorum_value(answered);
        if is_active(Mutant::ReadWithoutQuorum) {
            confirmed = reads.closed_sequence;
        }
        while let Some(round) = reads.waiting.front().copied().filter(|round| round.sequence <= confirmed) {
            reads.waiting.pop_front();
            let context = ReadContext { term, sequence: round.sequence };
            self.outbox.reads.push(ReadReady { context, index: round.index });
        }
    }
}
