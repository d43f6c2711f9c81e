//! Elections: timeouts, pre-vote, votes, changes of role and term.
//!
//! Off the data path.
//!
//! ```text
//!              timeout              quorum would vote            quorum voted, own vote durable
//!   Follower ----------> PreCandidate ----------> Candidate ------------------------> Leader
//!      ^                      |                       |                                 |
//!      +----------------------+-----------------------+---------------------------------+
//!        higher term, leader of this term, a quorum refused        no majority heard, step_down
//! ```
//!
//! Relations: one vote per term, durable before it is answered; a candidate's `RequestVote` leaves only when its own vote
//! and its whole log are durable, or a vote could outlive the log it was given for; nobody who heard a leader within
//! `election_ticks_min` helps to depose it, by its own candidacy or another's, whatever term it learnt of since (thesis
//! 4.2.3, 9.6): leases count on it.
//!
//! Deliberately absent: priorities. What a leader hands over is in `transfer.rs`.

use crate::{
    core::{Follower, Leader, NOOP_LENGTH, RaftCore, RoleState, Tally},
    ids::{EntryId, NodeId, Term},
    membership::Membership,
    message::{EntryMeta, HardState, Message},
    mutants::{Mutant, is_active},
    pace::Pace,
    progress::Progress,
    read_index::ReadRounds,
};
use alloc::{boxed::Box, vec::Vec};

impl RaftCore {
    /// Starts an election at once, as a timeout would: with a pre-vote, which a live leader's followers refuse.
    pub fn campaign(&mut self) {
        self.start_election();
        self.check();
    }

    /// A leader or candidate gives up: its own disk makes no progress or has no room, or the node stops. Others follow in
    /// due time.
    pub fn step_down(&mut self) {
        if !matches!(self.role, RoleState::Follower(_)) {
            self.become_follower(self.hard_state.current_term, None);
        }
        self.check();
    }

    pub(crate) fn tick_election(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.election_elapsed >= self.election_timeout {
            if let RoleState::Follower(follower) = &mut self.role {
                follower.leader = None; // also if it is for others to replace it
            }
            self.start_election();
        }
    }

    pub(crate) fn reset_election_timer(&mut self) {
        self.election_elapsed = 0;
        self.election_timeout = self.prng.range(self.config.election_ticks_min, self.config.election_ticks_max);
    }

    /// The pre-vote round (thesis 9.6). Waits while the own disk is behind: a term it cannot write it cannot win.
    fn start_election(&mut self) {
        if matches!(self.role, RoleState::Leader(_)) {
            return;
        }
        self.reset_election_timer();
        if !self.may_campaign() {
            return;
        }
        self.role = RoleState::PreCandidate(self.tally_of_own_vote());
        let (term, last) = (self.hard_state.current_term + 1, self.log.last());
        for peer in self.other_voters() {
            self.outbox.messages.push((peer, Message::PreVote { term, last }));
        }
        self.count_votes();
    }

    /// Whether this node may be needed as a leader, and its disk has the current term.
    pub(crate) fn may_campaign(&self) -> bool {
        let exhausted = self.hard_state.current_term >= Term::MAX - 1;
        !exhausted && self.may_vote() && self.may_be_needed() && self.durable_hard_state == self.hard_state
    }

    /// Whether the log holds everything that this replica ever acknowledged: an entry that is committed has a place in the
    /// order of logs, and a log that is not below it holds it.
    fn may_vote(&self) -> bool {
        self.log.last() >= self.votes_from
    }

    /// Whether this node is a voter, or was one before a change that is not known to be committed: it may be the only one
    /// that holds the entry of that change (thesis 4.2.2).
    pub(crate) fn may_be_needed(&self) -> bool {
        let id = self.config.id;
        self.memberships.may_need(id, self.commit_index)
    }

    /// Campaigns in the next term. `forced`: the leader asked for it.
    pub(crate) fn become_candidate(&mut self, forced: bool) {
        let term = self.hard_state.current_term + 1;
        self.hard_state = HardState { current_term: term, voted_for: Some(self.config.id) };
        self.role = RoleState::Candidate(self.tally_of_own_vote());
        self.reset_election_timer();
        let last = self.log.last();
        let request = Message::RequestVote { term, last, forced };
        let requests = self.other_voters().into_iter().map(|peer| (peer, request));
        if is_active(Mutant::OwnVoteBeforeFlush) {
            self.outbox.messages.extend(requests);
        } else {
            self.outbox.after_flush.extend(requests);
        }
    }

    pub(crate) fn become_leader(&mut self) {
        let term = self.hard_state.current_term;
        let noop = self.log.push(EntryMeta { term, length: NOOP_LENGTH });
        self.outbox.noop = Some(noop);
        let mut members = self.membership().members();
        members.retain(|member| *member != self.config.id);
        let peers = members.iter().map(|member| Progress::new(*member, noop.index, self.now)).collect();
        self.role = RoleState::Leader(Box::new(Leader {
            peers,
            first_index_of_term: noop.index,
            heartbeat_elapsed: self.heartbeat_phase(),
            heartbeat_due: false,
            reads: ReadRounds::default(),
            transfer: None,
            timeout_now_sent: false,
            pace: Pace::new(self.log.last().index, self.commit_index),
            left_joint: 0,
        }));
        self.advance_commit();
    }

    /// Follows `leader`, or nobody yet, in `term`, which is not below the current one.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.hard_state.current_term {
            self.hard_state = HardState { current_term: term, voted_for: None };
            self.outbox.append_response = None;
        }
        let led = matches!(self.role, RoleState::Leader(_));
        self.outbox.reads_failed |= led;
        if led || leader.is_some() {
            self.reset_election_timer();
        }
        self.role = RoleState::Follower(Follower { leader, match_index: 0 });
    }

    /// A message of a leader came in. Whether it leads this node: false for a past term and for a second leader of the
    /// same term, which cannot be.
    pub(crate) fn follow(&mut self, from: NodeId, term: Term) -> bool {
        if term < self.hard_state.current_term {
            return false;
        }
        let same_term = term == self.hard_state.current_term;
        match &self.role {
            RoleState::Leader(_) if same_term => return false,
            RoleState::Follower(Follower { leader: Some(leader), .. }) if same_term => {
                if *leader != from {
                    return false;
                }
                self.election_elapsed = 0;
            }
            _ => self.become_follower(term, Some(from)),
        }
        self.heard_tick = Some(self.now);
        true
    }

    pub(crate) fn step_pre_vote(&mut self, from: NodeId, term: Term, last: EntryId) {
        let current_term = self.hard_state.current_term;
        let current = last >= self.log.last() || is_active(Mutant::VoteWithoutLogCheck);
        let granted = term > current_term && current && self.may_vote() && !self.hears_leader();
        let term = if granted { term } else { current_term };
        self.send_once_term_is_durable(from, Message::PreVoteResponse { term, granted });
    }

    pub(crate) fn step_pre_vote_response(&mut self, from: NodeId, term: Term, granted: bool) {
        let current_term = self.hard_state.current_term;
        if !granted && term > current_term {
            return self.become_follower(term, None);
        }
        let asked = if granted { current_term + 1 } else { current_term };
        if let RoleState::PreCandidate(tally) = &mut self.role
            && term == asked
        {
            record_vote(tally, from, granted);
            self.count_votes();
        }
    }

    pub(crate) fn step_request_vote(&mut self, from: NodeId, term: Term, last: EntryId, forced: bool) {
        if term > self.hard_state.current_term {
            if self.hears_leader() && !forced {
                return; // not even the term is taken over (thesis 4.2.3)
            }
            self.become_follower(term, None);
        }
        let HardState { current_term, voted_for } = self.hard_state;
        let free = voted_for == Some(from)
            || (voted_for.is_none() && self.leader().is_none())
            || (is_active(Mutant::SecondVote) && matches!(self.role, RoleState::Follower(_)));
        let current = last >= self.log.last() || is_active(Mutant::VoteWithoutLogCheck);
        let granted = term == current_term && free && current && self.may_vote();
        if granted {
            self.hard_state.voted_for = Some(from);
            if !matches!(self.role, RoleState::Follower(_)) {
                self.role = RoleState::Follower(Follower::default());
            }
            self.reset_election_timer();
        }
        let response = (from, Message::RequestVoteResponse { term: current_term, granted });
        if is_active(Mutant::VoteBeforeFlush) || (is_active(Mutant::ForcedVoteBeforeFlush) && forced) {
            return self.outbox.messages.push(response);
        }
        self.outbox.after_flush.push(response);
    }

    pub(crate) fn step_vote_response(&mut self, from: NodeId, term: Term, granted: bool) {
        let current_term = self.hard_state.current_term;
        if term > current_term {
            return self.become_follower(term, None); // seen is not granted (openraft #1220)
        }
        if let RoleState::Candidate(tally) = &mut self.role
            && term == current_term
        {
            record_vote(tally, from, granted || is_active(Mutant::SeenVoteCounted));
            self.count_votes();
        }
    }

    /// Looks whether an election is decided. A candidate wins only with its own vote durable.
    pub(crate) fn count_votes(&mut self) {
        let (RoleState::PreCandidate(tally) | RoleState::Candidate(tally)) = &self.role else { return };
        let voted = |node, answer| tally.contains(&(node, answer));
        let mut won = self.membership().has_quorum(|node| voted(node, true));
        if is_active(Mutant::JointVotesByOutgoing) && self.membership().is_joint() {
            won = Membership::new(self.membership().outgoing().to_vec()).has_quorum(|node| voted(node, true));
        }
        let lost = !self.membership().has_quorum(|node| !voted(node, false));
        let is_candidate = matches!(self.role, RoleState::Candidate(_));
        if lost || (won && !is_candidate && self.hears_leader()) {
            self.become_follower(self.hard_state.current_term, None);
        } else if won && !is_candidate {
            self.become_candidate(false);
        } else if won && (self.durable_hard_state == self.hard_state || is_active(Mutant::OwnVoteBeforeFlush)) {
            self.become_leader();
        }
    }

    fn tally_of_own_vote(&self) -> Tally {
        Vec::from([(self.config.id, true)])
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let (id, membership) = (self.config.id, self.membership());
        let mut voters = membership.members();
        voters.retain(|node| *node != id && membership.is_voter(*node));
        voters
    }
}

/// The first answer of a voter stands.
fn record_vote(tally: &mut Tally, from: NodeId, granted: bool) {
    if tally.iter().all(|(node, _)| *node != from) {
        tally.push((from, granted));
    }
}
