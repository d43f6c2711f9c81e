//! Handing leadership over: when this node stops, when its disk is full or stands still, when an operator asks.
//!
//! Off the data path. Thesis 3.10; the protocol of it is the core's.
//!
//! ```text
//!   the node stops, or refuses writes (full)  -> hand_over: to the reachable voter that holds most; leads on if it fails
//!   the own disk stands still                 -> give_up:   tells that voter, follows nobody at once
//!   an operator asks                          -> transfer:  answered when the new leader is known, or an error is
//! ```
//!
//! Invariants: every request is answered once, two election timeouts later at the latest; at most one waits here.
//! It never decides that somebody else leads: the target needs the votes of a quorum.

use ringraft_net::wire::{AdminRefusal, AdminReply};
use ringraft_raft::{NodeId, ProgressState, TransferError};
use ringraft_wal::Disk;

use super::Group;
use super::ordering::Input;
use crate::shard::clients::Asker;
use crate::shard::io::Io;

/// Election timeouts between two attempts of a full leader to find one with room.
const FULL_PAUSE_ELECTIONS: u32 = 5;

/// An operator who waits for another leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingTransfer {
    asker: Asker,
    to: NodeId,
    ticks_left: u32,
}

impl Group {
    /// Hands leadership to a reachable voter; later attempts of a leadership try the others. Without one it leads on.
    pub(crate) fn hand_over<D: Disk>(&mut self, io: &mut Io<D>) {
        let targets = self.targets(io);
        if targets.is_empty() || !self.is_leader() {
            return;
        }
        let target = targets[self.attempts % targets.len()];
        if self.core.transfer_leadership(target).is_ok() {
            self.attempts += 1;
            self.advance(Input::Nothing, io);
        }
    }

    /// A leader that had to refuse writes looks for one with room, now and then: writes that still fit wait meanwhile.
    pub(super) fn hand_over_if_full<D: Disk>(&mut self, io: &mut Io<D>) {
        let refused = std::mem::take(&mut self.refused_full);
        self.full_pause_ticks = self.full_pause_ticks.saturating_sub(1);
        if refused && self.full_pause_ticks == 0 && io.wal.stats().disk_full {
            self.full_pause_ticks = FULL_PAUSE_ELECTIONS * self.core.config().election_ticks_max;
            self.hand_over(io);
        }
    }

    /// Gives leadership up because this node's own disk makes no progress (etcd #15247), at once: what this leader could
    /// wait for needs its disk. A reachable voter is told, so that it need not wait for its timeout.
    pub(crate) fn give_up<D: Disk>(&mut self, io: &mut Io<D>) {
        match self.targets(io).first() {
            Some(target) => self.core.step_down_for(*target),
            None => self.core.step_down(),
        }
        self.advance(Input::Nothing, io);
    }

    /// The other voters with a link, those that hold most first. Empty unless this replica leads.
    pub(super) fn targets<D: Disk>(&self, io: &Io<D>) -> Vec<NodeId> {
        let voters = self.core.progress().filter(|(node, ..)| self.core.membership().is_voter(*node));
        let mut reachable: Vec<_> = voters.filter(|(node, ..)| io.peers.is_connected(*node)).collect();
        reachable.sort_unstable_by_key(|(node, match_index, ..)| (std::cmp::Reverse(*match_index), *node));
        reachable.into_iter().map(|(node, ..)| node).collect()
    }

    /// Whether leadership is on its way to another node.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.core.transfer_target().is_some()
    }

    /// An operator wants `to` to lead; 0: whoever holds most of the log.
    pub(crate) fn transfer<D: Disk>(&mut self, to: u64, asker: Asker, io: &mut Io<D>) {
        if let Err(reply) = self.begin_transfer(to, asker, io) {
            io.reply_admin(asker, &reply);
        }
    }

    /// The cluster would rather have `to` lead. Nobody waits for it, and it may not be possible: who does not take what is
    /// sent, as one whose disk stands still, is not asked, since this leader takes no requests meanwhile and would be told
    /// the same wish again and again.
    pub(crate) fn follow_wish<D: Disk>(&mut self, to: NodeId, io: &mut Io<D>) {
        let takes = |(node, _, _, state)| node == to && state == ProgressState::Replicate;
        let possible = self.is_leader() && !self.is_handing_over() && self.targets(io).contains(&to);
        let possible = possible && self.core.progress().any(takes);
        if possible && self.core.transfer_leadership(to).is_ok() {
            self.advance(Input::Nothing, io);
        }
    }

    fn begin_transfer<D: Disk>(&mut self, to: u64, asker: Asker, io: &mut Io<D>) -> Result<(), AdminReply> {
        let (group, me) = (self.id.0, self.core.config().id);
        if !self.is_leader() {
            return Err(AdminReply::NotLeader { group, leader: self.core.leader().map(|node| node.0) });
        }
        if to == me.0 {
            return Err(AdminReply::Transferred { group, leader: to, term: self.core.term() });
        }
        let targets = self.targets(io);
        let target = if to == 0 { targets.first().copied() } else { Some(NodeId(to)) };
        if let Some(target) = target
            && !self.core.membership().is_voter(target)
        {
            let message = format!("node {target} has no vote in group {group}; voters are {}", self.voter_list());
            return Err(AdminReply::Refused { code: AdminRefusal::NotAVoter, message });
        }
        let Some(target) = target.filter(|target| targets.contains(target)) else {
            let whom = if to == 0 { String::from("any other voter") } else { format!("node {to}") };
            let message = format!("node {me}, which leads group {group}, has no connection to {whom}");
            return Err(AdminReply::Refused { code: AdminRefusal::Unreachable, message });
        };
        match self.core.transfer_leadership(target) {
            Ok(()) => {}
            Err(TransferError::NotLeader { leader }) => {
                return Err(AdminReply::NotLeader { group, leader: leader.map(|node| node.0) });
            }
            Err(TransferError::NotAVoter) => {
                let message = format!("node {target} has no vote in group {group}");
                return Err(AdminReply::Refused { code: AdminRefusal::NotAVoter, message });
            }
            Err(TransferError::Pending) => {
                let message = format!("leadership of group {group} is being handed over already; ask again");
                return Err(AdminReply::Refused { code: AdminRefusal::Pending, message });
            }
        }
        let ticks_left = 2 * self.core.config().election_ticks_max;
        self.pending_transfer = Some(PendingTransfer { asker, to: target, ticks_left });
        self.advance(Input::Nothing, io);
        Ok(())
    }

    fn voter_list(&self) -> String {
        let voters: Vec<String> = self.core.membership().voters().iter().map(ToString::to_string).collect();
        voters.join(", ")
    }

    /// Answers the operator as soon as it is known what became of the transfer.
    pub(super) fn settle_transfer<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(pending) = self.pending_transfer else { return };
        let (group, to) = (self.id.0, pending.to);
        let given_up = self.is_leader() && !self.is_handing_over();
        let reply = match self.core.leader() {
            Some(leader) if leader == to => AdminReply::Transferred { group, leader: to.0, term: self.core.term() },
            Some(leader) if !self.is_leader() => {
                let message = format!("node {leader} became leader of group {group} instead of node {to}");
                AdminReply::Refused { code: AdminRefusal::OtherLeader, message }
            }
            _ if given_up || pending.ticks_left == 0 => {
                let rest = if given_up { "it leads on" } else { "no new leader is known here" };
                let message = format!("node {to} did not take over group {group} in time; {rest}");
                AdminReply::Refused { code: AdminRefusal::TimedOut, message }
            }
            _ => return,
        };
        self.pending_transfer = None;
        io.reply_admin(pending.asker, &reply);
    }

    /// The replica is given up: the operator hears at once that nothing comes of it.
    pub(super) fn abandon_transfer<D: Disk>(&mut self, io: &mut Io<D>) {
        if let Some(pending) = self.pending_transfer.take() {
            io.reply_admin(pending.asker, &AdminReply::NotLeader { group: self.id.0, leader: None });
        }
    }

    /// One tick of an operator's patience.
    pub(super) fn tick_transfer(&mut self) {
        if let Some(pending) = &mut self.pending_transfer {
            pending.ticks_left = pending.ticks_left.saturating_sub(1);
        }
    }
}
