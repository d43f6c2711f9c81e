//! Leadership transfer: a leader lets a follower that has everything campaign at once.
//!
//! Off the data path. Thesis 3.10.
//!
//! ```text
//!   transfer_leadership(to): no more proposals --all committed, to has all--> TimeoutNow --> RequestVote { forced }
//!                                   +--an election timeout without a new leader: leads on
//!   step_down_for(to):       TimeoutNow, and follows nobody at once: for a leader that can do nothing more
//! ```
//!
//! Relations: in a transfer the leader stays leader, with all its duties, until it hears of a higher term; one transfer at
//! a time; there is no lease in one, nor later in a term in which `TimeoutNow` left; it ends with everything that was proposed here committed, so that nobody's outcome becomes unknown by it.
//! `TimeoutNow` promises nothing: whoever gets it needs the votes of a quorum like anyone else.
//!
//! Deliberately absent: the choice of the target.

use crate::{
    core::{RaftCore, RoleState},
    ids::{NodeId, Term},
    message::Message,
    mutants::{Mutant, is_active},
    ready::TransferError,
};

/// A transfer under way.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    ticks_left: u32,
    sent: bool,
}

impl RaftCore {
    /// Hands leadership to `to`: takes no more proposals until that happened or an election timeout is over.
    ///
    /// # Errors
    /// Not the leader, not another voter, or already on its way.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), TransferError> {
        let allowed = to != self.config.id && self.membership().is_voter(to);
        let ticks_left = self.config.election_ticks_max;
        let leader = match &mut self.role {
            RoleState::Leader(leader) => leader,
            _ => return Err(TransferError::NotLeader { leader: self.leader() }),
        };
        if !allowed {
            return Err(TransferError::NotAVoter);
        }
        if leader.transfer.is_some() {
            return Err(TransferError::Pending);
        }
        leader.transfer = Some(Transfer { to, ticks_left, sent: false });
        self.hand_over();
        self.check();
        Ok(())
    }

    /// Gives up at once and lets `to` campaign at once: for a leader whose own disk no longer moves, which can wait for
    /// nothing. If `to` is no other voter or does not get the message, others follow in due time.
    pub fn step_down_for(&mut self, to: NodeId) {
        let term = self.hard_state.current_term;
        if matches!(self.role, RoleState::Leader(_)) && to != self.config.id && self.membership().is_voter(to) {
            self.outbox.messages.push((to, Message::TimeoutNow { term }));
        }
        self.step_down();
    }

    /// The node that leadership is being handed to.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.transfer_target().is_some()
    }

    /// Tells the target to campaign as soon as it has everything and everything is committed.
    pub(crate) fn hand_over(&mut self) {
        let (term, last_index) = (self.hard_state.current_term, self.log.last().index);
        if self.commit_index < last_index {
            return;
        }
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = leader.transfer.as_mut().filter(|transfer| !transfer.sent) else { return };
        if leader.peers.iter().any(|peer| peer.id == transfer.to && peer.match_index == last_index) {
            transfer.sent = true;
            leader.timeout_now_sent = true;
            self.outbox.messages.push((transfer.to, Message::TimeoutNow { term }));
        }
    }

    /// A transfer that takes too long is given up: proposals are taken again (thesis 3.10).
    pub(crate) fn tick_transfer(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(transfer) = &mut leader.transfer {
            transfer.ticks_left -= 1;
            if transfer.ticks_left == 0 {
                leader.transfer = None;
            }
        }
    }

    /// The leader wants this node to lead. Only a follower of it with a vote does.
    pub(crate) fn step_timeout_now(&mut self, from: NodeId, term: Term) {
        let follows = matches!(self.role, RoleState::Follower(_)) && self.leader() == Some(from);
        if term == self.hard_state.current_term && follows && self.may_campaign() {
            self.become_candidate(true);
            if is_active(Mutant::TimeoutNowAppoints) {
                return self.become_leader();
            }
            self.count_votes();
        }
    }
}
