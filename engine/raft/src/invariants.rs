//! The relations of the core, checked after every event in debug builds.
//!
//! Off the data path; release builds contain none of it but the empty `check`.
//!
//! Relations: see `RaftCore::check`; each line is one.
//!
//! Deliberately absent: relations between nodes (election safety, log matching, leader completeness); the tests and the
//! simulator see several nodes and check those.

use crate::core::RaftCore;
#[cfg(debug_assertions)]
use crate::{
    core::{Leader, RoleState},
    ids::{Index, NodeId},
    message::HardState,
    read_index::READ_ROUNDS_MAX,
    ready::ProgressState,
};

/// What was true after the previous event.
#[cfg(debug_assertions)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    hard_state: HardState,
    durable_hard_state: HardState,
    commit_index: Index,
    /// Match indexes of the peers while this node led.
    matched: alloc::vec::Vec<(NodeId, Index)>,
    leads: bool,
}

impl RaftCore {
    /// Nothing in release builds.
    #[cfg(not(debug_assertions))]
    #[inline(always)]
    pub(crate) fn check(&mut self) {}

    /// Panics when a relation does not hold.
    #[cfg(debug_assertions)]
    pub(crate) fn check(&mut self) {
        let before = &self.witness;
        let last = self.log.last();
        assert!(self.log.is_consistent(), "the log is contiguous and its terms rise");
        assert!(self.log.base().index <= self.commit_index, "compacted entries are committed");
        assert!(self.commit_index <= last.index, "committed entries are in the log");
        assert!(self.durable_index <= last.index, "durable entries are in the log");
        assert!(last.term <= self.hard_state.current_term, "no entry is of a term to come");
        assert!(before.commit_index <= self.commit_index, "the commit index never falls");
        assert_hard_state(before.hard_state, self.hard_state);
        assert_hard_state(before.durable_hard_state, self.durable_hard_state);
        assert!(self.durable_hard_state.current_term <= self.hard_state.current_term, "the disk is never ahead");
        assert!(self.memberships.last_index() <= last.index, "configurations in force are in the log");
        assert!(self.outbox.noop.is_none_or(|noop| noop == last), "a no-op is told before anything follows it");
        match &self.role {
            RoleState::Follower(follower) => {
                assert!(follower.match_index <= last.index, "what matches the leader is in the log");
                assert_ne!(follower.leader, Some(self.config.id), "nobody follows itself");
            }
            RoleState::PreCandidate(_) => {}
            RoleState::Candidate(_) => {
                self.check_own_vote();
                assert!(self.may_be_needed(), "a candidate is a voter, or was one a moment ago");
            }
            RoleState::Leader(leader) => {
                self.check_own_vote();
                self.check_leader(leader);
            }
        }
        self.remember();
    }

    #[cfg(debug_assertions)]
    fn check_own_vote(&self) {
        assert_eq!(self.hard_state.voted_for, Some(self.config.id), "a candidate voted for itself");
    }

    #[cfg(debug_assertions)]
    fn check_leader(&self, leader: &Leader) {
        let last_index = self.log.last().index;
        assert_eq!(self.durable_hard_state, self.hard_state, "a leader's own vote is durable");
        assert_eq!(self.log.last().term, self.hard_state.current_term, "a leader has an entry of its term");
        let first = leader.first_index_of_term;
        if first > self.log.base().index {
            assert_eq!(self.log.term_at(first), Some(self.hard_state.current_term), "it starts with its no-op");
            assert!(self.log.term_at(first - 1) < Some(self.hard_state.current_term), "and with nothing before it");
        }
        assert!(leader.reads.waiting.len() <= READ_ROUNDS_MAX, "read rounds are bounded");
        for peer in &leader.peers {
            assert!(peer.match_index < peer.next_index, "what matches is not sent again");
            assert!(peer.next_index <= last_index + 1, "only what exists is sent");
            let streams = peer.state == ProgressState::Replicate;
            assert!(!streams || peer.next_index > self.log.base().index, "compacted entries are not sent");
            assert_ne!(peer.id, self.config.id, "a leader does not replicate to itself");
            assert!(peer.read_sequence <= leader.reads.closed_sequence, "only rounds that were sent are answered");
        }
        for (node, match_index) in self.witness.matched.iter().filter(|_| self.witness.leads) {
            let peer = leader.peers.iter().find(|peer| peer.id == *node);
            let same_term = self.witness.hard_state == self.hard_state;
            let falls = peer.is_some_and(|peer| peer.match_index < *match_index);
            assert!(!same_term || !falls || !self.membership().is_voter(*node), "a voter's match never falls");
        }
    }

    #[cfg(debug_assertions)]
    fn remember(&mut self) {
        self.witness.hard_state = self.hard_state;
        self.witness.durable_hard_state = self.durable_hard_state;
        self.witness.commit_index = self.commit_index;
        self.witness.matched.clear();
        self.witness.leads = matches!(self.role, RoleState::Leader(_));
        if let RoleState::Leader(leader) = &self.role {
            self.witness.matched.extend(leader.peers.iter().map(|peer| (peer.id, peer.match_index)));
        }
    }
}

/// Terms rise, and within a term a vote is given once (Raft 5.2).
#[cfg(debug_assertions)]
fn assert_hard_state(before: HardState, after: HardState) {
    assert!(before.current_term <= after.current_term, "the term never falls");
    let kept = before.voted_for.is_none() || before.voted_for == after.voted_for;
    assert!(before.current_term < after.current_term || kept, "a vote is given once per term");
}
