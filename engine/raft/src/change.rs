//! Changes of membership: one at a time, through the log, voters by joint consensus.
//!
//! Off the data path. Raft 6, thesis 4.3.
//!
//! ```text
//!   propose_membership(joint) -> entry -> committed by both majorities -> Ready::membership_due
//!        propose_membership(what it leads to) -> entry -> committed by the new majority -> a leader outside steps down
//! ```
//!
//! Relations: a configuration is in force from the moment its entry is in the log (Raft 6), and goes with it when the
//! entry is truncated; no change is proposed before the one before is committed and something of this term is, or two
//! leaders could count different majorities (the bug of single-server changes, raft-dev 2015).
//!
//! Deliberately absent: who ought to be a member. The host decides, and encodes the entry.

use crate::{
    core::{RaftCore, RoleState},
    ids::{EntryId, NodeId},
    membership::Membership,
    message::EntryMeta,
    mutants::{Mutant, is_active},
    progress::Progress,
    ready::ChangeError,
};

impl RaftCore {
    /// Adds an entry of `length` bytes that brings `membership`, which is in force at once. The host appends its record
    /// right away.
    ///
    /// # Errors
    /// Not the leader, a change is under way, or the step is not allowed.
    pub fn propose_membership(&mut self, length: u32, membership: Membership) -> Result<EntryId, ChangeError> {
        let noop_waits = self.outbox.noop.is_some();
        let RoleState::Leader(leader) = &self.role else {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        };
        if leader.transfer.is_some() {
            return Err(ChangeError::NotLeader { leader: None });
        }
        let own_committed = self.commit_index >= leader.first_index_of_term;
        let pending = self.memberships.last_index() > self.commit_index && !is_active(Mutant::SecondChange);
        if noop_waits || !own_committed || pending {
            return Err(ChangeError::Pending);
        }
        if !self.memberships.current().may_become(&membership) {
            return Err(ChangeError::NotAllowed);
        }
        let id = self.log.push(EntryMeta { term: self.hard_state.current_term, length });
        self.memberships.push(id.index, membership);
        self.follow_membership();
        self.advance_commit();
        self.check();
        Ok(id)
    }

    /// Whether `node` is another member that answers and holds all but the last `bytes_max` of what is committed.
    #[must_use]
    pub fn has_caught_up(&self, node: NodeId, bytes_max: u64) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let Some(peer) = leader.peers.iter().find(|peer| peer.id == node) else { return false };
        let streams = peer.match_index >= self.log.base().index && peer.match_index > 0;
        let answers = self.now - peer.heard_tick < u64::from(self.config.election_ticks_max);
        streams && answers && self.log.bytes_between(peer.match_index, self.commit_index) <= bytes_max
    }

    /// A leader replicates to exactly the other members.
    pub(crate) fn follow_membership(&mut self) {
        let (id, now, next_index) = (self.config.id, self.now, self.log.last().index);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let membership = if is_active(Mutant::MembersWhenCommitted) {
            self.memberships.at(self.commit_index)
        } else {
            self.memberships.current()
        };
        leader.peers.retain(|peer| membership.contains(peer.id));
        for member in membership.members() {
            if member != id && leader.peers.iter().all(|peer| peer.id != member) {
                leader.peers.push(Progress::new(member, next_index, now));
            }
        }
        leader.peers.sort_unstable_by_key(|peer| peer.id);
        if leader.transfer.as_ref().is_some_and(|transfer| !membership.is_voter(transfer.to)) {
            leader.transfer = None;
        }
        self.confirm_reads(); // those who are asked no more need not answer, and nobody may be left who does
    }

    /// Tells the host, once per leader, that a committed joint configuration has to be left.
    pub(crate) fn ask_to_leave_joint(&mut self) {
        let index = self.memberships.last_index();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let due = self.memberships.current().is_joint()
            && (index <= self.commit_index || is_active(Mutant::SecondChange))
            && self.commit_index >= leader.first_index_of_term
            && leader.left_joint != index.max(1);
        if due {
            leader.left_joint = index.max(1);
            self.outbox.membership_due = Some(self.memberships.current().leave_joint());
        }
    }

    /// A leader that is no voter of a committed configuration leads no longer (Raft 6).
    pub(crate) fn leave_if_removed(&mut self) {
        let committed = self.memberships.last_index() <= self.commit_index;
        if committed && !self.membership().is_voter(self.config.id) && !is_active(Mutant::RemovedLeaderCounts) {
            self.become_follower(self.hard_state.current_term, None);
        }
    }
}
