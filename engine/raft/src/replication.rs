//! The leader's side of replication: what goes to whom, what the answers mean, what is committed.
//!
//! Data path 5/9 (send) and 7/9 (commit).
//!
//! Relations: an index is committed when a quorum holds it durably and its entry is of the current term (Raft 5.4.2);
//! the leader is part of that quorum only up to its own `durable_index`, in a group of one too (etcd #14370); answers of
//! another term, late ones and repeated ones move nothing back.
//!
//! Deliberately absent: bytes. A message names a range, the host fills it.

use crate::{
    core::{RaftCore, RoleState},
    ids::{Index, NodeId, Term},
    lease::Heard,
    message::{AppendResult, Message},
    mutants::{Mutant, is_active},
    progress::Outlook,
};
use alloc::vec::Vec;

impl RaftCore {
    /// The host could not deliver to `peer`, or no longer has the bytes: start over from what it acknowledged, once it
    /// answers a heartbeat.
    pub fn unreachable(&mut self, peer: NodeId) {
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.peers.iter_mut().find(|progress| progress.id == peer)
        {
            progress.unreachable(self.now);
        }
        self.check();
    }

    /// Heartbeats, stalled streams, check-quorum (thesis 6.2).
    pub(crate) fn tick_leader(&mut self) {
        let (id, now, patience) = (self.config.id, self.now, self.config.election_ticks_max);
        let RoleState::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_elapsed += 1;
        leader.left_joint = 0; // asked again while it is not left
        leader.tick_pace(now, &self.log, self.commit_index, &self.config);
        leader.heartbeat_due |= leader.heartbeat_elapsed >= self.config.heartbeat_ticks;
        for peer in &mut leader.peers {
            peer.tick(now, patience);
        }
        let heard = |node| {
            let peer = leader.peers.iter().find(|peer| peer.id == node);
            node == id || peer.is_some_and(|peer| now - peer.heard_tick < u64::from(patience))
        };
        if !self.memberships.current().has_quorum(heard) {
            return self.become_follower(self.hard_state.current_term, None);
        }
        self.tick_transfer();
    }

    /// Ticks since heartbeats were due by the count of ticks alone: due at its multiples, those of many groups coincide.
    pub(crate) fn heartbeat_phase(&self) -> u32 {
        (self.now % u64::from(self.config.heartbeat_ticks)) as u32
    }

    /// Heartbeats that are due, and whatever the windows of the followers take.
    pub(crate) fn send_to_peers(&mut self) {
        let (term, clock_us) = (self.hard_state.current_term, self.lease_clock_us(self.observed_us));
        let phase = self.heartbeat_phase();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let messages = &mut self.outbox.messages;
        if leader.heartbeat_due {
            leader.heartbeat_due = false;
            leader.heartbeat_elapsed = phase;
            let (read_sequence, sent_us) = (leader.reads.closed_sequence, clock_us);
            for peer in &leader.peers {
                let leader_commit = self.commit_index.min(peer.match_index);
                messages.push((peer.id, Message::Heartbeat { term, leader_commit, read_sequence, sent_us }));
            }
        }
        let (config, log) = (&*self.config, &self.log);
        let paced = leader.pace.bytes_per_tick().is_some();
        let outlook = Outlook { config, log, term, leader_commit: self.commit_index, now: self.now, paced };
        for peer in &mut leader.peers {
            if peer.needs_snapshot(log) {
                self.outbox.snapshots.push(peer.id);
            }
            while let Some(message) = peer.next_append(&outlook) {
                messages.push((peer.id, message));
            }
        }
    }

    pub(crate) fn step_append_response(&mut self, from: NodeId, term: Term, result: AppendResult) {
        if term > self.hard_state.current_term {
            return self.become_follower(term, None);
        }
        let (now, last_index) = (self.now, self.log.last().index);
        let is_learner = !self.membership().is_voter(from);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.id == from) else { return };
        if term < self.hard_state.current_term {
            return;
        }
        peer.heard_tick = now;
        match result {
            AppendResult::Accepted { match_index } if match_index <= last_index => {
                if peer.accepted(match_index, &self.log, now) {
                    self.advance_commit();
                    self.hand_over();
                }
            }
            AppendResult::Accepted { .. } => {} // more than was ever sent: not of this leader
            AppendResult::Rejected { last_index, .. } if last_index < peer.match_index && is_learner => {
                peer.begins_anew(last_index, now);
            }
            AppendResult::Rejected { .. } => peer.rejected(result, &self.log, now),
        }
    }

    pub(crate) fn step_heartbeat_response(&mut self, from: NodeId, term: Term, read_sequence: u64, heard: Heard) {
        if term > self.hard_state.current_term {
            return self.become_follower(term, None);
        }
        let (now, clock_us) = (self.now, self.lease_clock_us(self.observed_us));
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.id == from) else { return };
        if term < self.hard_state.current_term {
            return;
        }
        let any_round = is_active(Mutant::AnswerConfirmsAnyRound);
        let read_sequence = if any_round { leader.reads.closed_sequence } else { read_sequence };
        peer.heard_tick = now;
        peer.answered_heartbeat(now);
        if heard.sent_us > peer.heard.sent_us && heard.sent_us <= clock_us {
            peer.heard = heard;
        }
        if read_sequence > peer.read_sequence && read_sequence <= leader.reads.closed_sequence {
            peer.read_sequence = read_sequence;
            self.confirm_reads();
        }
    }

    /// Commits what a quorum holds, if it is of the current term (Raft 5.3, 5.4.2).
    pub(crate) fn advance_commit(&mut self) {
        let (id, mut durable_index) = (self.config.id, self.durable_index);
        if is_active(Mutant::OwnEntryBeforeFlush) {
            durable_index = self.log.last().index;
        }
        let RoleState::Leader(leader) = &self.role else { return };
        let match_index = |node| match leader.peers.iter().find(|peer| peer.id == node) {
            Some(peer) => peer.match_index,
            None if node == id => durable_index,
            None => 0,
        };
        let index: Index = self.counted(match_index);
        let own_term = index >= leader.first_index_of_term || is_active(Mutant::CommitOlderTerm);
        if index > self.commit_index && own_term {
            self.commit_index = index;
            if is_active(Mutant::MembersWhenCommitted) {
                self.follow_membership();
            }
            self.leave_if_removed();
        }
    }

    /// The highest index that a quorum has reached.
    fn counted(&self, match_index: impl Fn(NodeId) -> Index) -> Index {
        let membership = self.membership();
        if is_active(Mutant::JointByIncoming) {
            return membership.leave_joint().quorum_value(match_index);
        }
        if is_active(Mutant::LearnerCounts) {
            let mut reached: Vec<Index> = membership.members().into_iter().map(match_index).collect();
            reached.sort_unstable_by(|left, right| right.cmp(left));
            return reached[membership.voters().len() / 2];
        }
        if is_active(Mutant::RemovedLeaderCounts) && !membership.is_voter(self.config.id) {
            let stand_in = membership.voters().first().copied();
            return membership
                .quorum_value(|node| match_index(if Some(node) == stand_in { self.config.id } else { node }));
        }
        membership.quorum_value(match_index)
    }
}
