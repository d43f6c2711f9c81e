//! What a group says about itself, and the exchange of state digests.
//!
//! Off the data path.

use ringraft_raft::{Doze, EntryId, Index, Memberships, NodeId, Role, Term};
use ringraft_wal::Disk;

use super::Group;
use crate::shard::inspect::{GroupView, MembershipView};
use crate::shard::io::{Fatal, Io};

/// Replication of one follower, as its leader sees it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FollowerStatus {
    /// The follower's node.
    pub node: u64,
    /// Highest entry known to be durable there.
    pub match_index: Index,
    /// Next entry to send.
    pub next_index: Index,
}

/// The state of one replica.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupStatus {
    /// The group.
    pub group: u32,
    /// `follower`, `pre_candidate`, `candidate` or `leader`.
    pub role: &'static str,
    /// Current term.
    pub term: u64,
    /// The leader as far as this replica knows.
    pub leader: Option<u64>,
    /// Since when it knows this leader: microseconds of its node's clock, see `ShardStatus::now_us`.
    pub leader_since_us: Option<u64>,
    /// Whether this replica has applied what was committed before its start.
    pub serving: bool,
    /// Highest committed entry known here.
    pub commit_index: Index,
    /// Highest applied entry.
    pub last_applied: Index,
    /// First and last entry of the log.
    pub first_index: Index,
    /// See `first_index`.
    pub last_index: Index,
    /// Highest own entry on this disk.
    pub durable_index: Index,
    /// The last entry in the newest durable snapshot; 0 without one.
    pub snapshot_index: Index,
    /// Keys in the state machine.
    pub keys: u64,
    /// Open client sessions.
    pub sessions: u64,
    /// Rolling state hash at `last_applied`, in hexadecimal.
    pub state_hash: String,
    /// Requests waiting.
    pub waiting: usize,
    /// Elections started here.
    pub elections: u64,
    /// Who has a vote, by the last configuration of the log; empty: not known yet.
    pub voters: Vec<u64>,
    /// Who has one until a change is over.
    pub outgoing: Vec<u64>,
    /// Who has the data without a vote.
    pub learners: Vec<u64>,
    /// The entry that brought this configuration; 0: it is older than the log.
    pub membership_index: Index,
    /// The members the group is to have, as far as this replica was told.
    pub target: Option<TargetStatus>,
    /// On a leader that has a target: `settled`, `committing`, `catching_up`, `handing_over` or `joint`; else `idle`.
    pub change: &'static str,
    /// On a leader: the other members.
    pub followers: Vec<FollowerStatus>,
}

/// The members a group is to have.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TargetStatus {
    /// Who is to have a vote.
    pub voters: Vec<u64>,
    /// Who is to have the data without a vote.
    pub learners: Vec<u64>,
}

impl Group {
    pub(crate) fn status<D: Disk>(&self, io: &Io<D>) -> GroupStatus {
        let leader = self.is_leader();
        let progress = self.core.progress().filter(|_| leader);
        let me = self.core.config().id;
        let followers = progress
            .filter(|(node, ..)| *node != me)
            .map(|(node, match_index, next_index, _)| FollowerStatus { node: node.0, match_index, next_index })
            .collect();
        let membership = self.core.membership();
        let target = self
            .drive
            .target
            .as_ref()
            .map(|target| TargetStatus { voters: numbers(target.voters()), learners: numbers(target.learners()) });
        GroupStatus {
            group: self.id.0,
            role: match self.core.role() {
                Role::Follower => "follower",
                Role::PreCandidate => "pre_candidate",
                Role::Candidate => "candidate",
                Role::Leader => "leader",
            },
            term: self.core.term(),
            leader: self.core.leader().map(|node| node.0),
            leader_since_us: self.leader_since_us(),
            serving: self.serving,
            commit_index: self.core.commit_index(),
            last_applied: self.machine.last_applied(),
            first_index: self.core.first_index(),
            last_index: self.core.last().index,
            durable_index: self.durable_index(),
            snapshot_index: self.snapshot_index(io),
            keys: self.machine.key_count() as u64,
            sessions: self.machine.session_count() as u64,
            state_hash: format!("{:016x}", self.machine.digest().hash),
            waiting: self.waiting(),
            elections: self.tally.elections,
            voters: numbers(membership.voters()),
            outgoing: numbers(membership.outgoing()),
            learners: numbers(membership.learners()),
            membership_index: self.core.memberships().last_index(),
            target,
            change: self.drive.stage.name(),
            followers,
        }
    }

    /// Who the members are, for reports to other nodes.
    pub(crate) fn membership(&self) -> MembershipView {
        let commit_index = self.core.commit_index();
        MembershipView {
            group: self.id.0,
            leads: self.is_leader(),
            term: self.core.term(),
            members: self.core.membership().clone(),
            index: self.core.memberships().last_index(),
            committed: EntryId { term: self.core.term_at(commit_index).unwrap_or(0), index: commit_index },
        }
    }

    /// What its log must reach before it votes.
    pub(crate) fn votes_withheld_until(&self) -> EntryId {
        self.core.votes_withheld_until()
    }

    /// The configurations of its log.
    pub(crate) fn memberships(&self) -> &Memberships {
        self.core.memberships()
    }

    /// Members that have not caught up, as this leader sees them.
    pub(crate) fn behind(&self) -> Vec<NodeId> {
        let others = self.core.membership().members().into_iter().filter(|node| *node != self.core.config().id);
        others.filter(|node| !self.core.has_caught_up(*node, self.catch_up_bytes)).collect()
    }

    /// The same for checkers: without text, and with what is on disk.
    pub(crate) fn view(&self) -> GroupView {
        GroupView {
            group: self.id.0,
            role: self.core.role(),
            leader: self.core.leader(),
            hard_state: self.core.hard_state(),
            durable_hard_state: self.core.durable_hard_state(),
            commit_index: self.core.commit_index(),
            last_applied: self.machine.last_applied(),
            base: self.core.base(),
            last: self.core.last(),
            durable_index: self.durable_index(),
            state_hash: self.machine.digest().hash,
            waiting: self.waiting(),
            serving: self.serving,
        }
    }

    /// Whether it holds a lease when its node's clock shows `now_us`; `slept`: its doze, and for how many ticks.
    pub(crate) fn holds_lease(&self, slept: Option<(Doze, u64)>, now_us: u64) -> bool {
        let mut core = self.core.clone();
        if let Some((doze, ticks)) = slept {
            core.wake(&doze, ticks);
        }
        core.holds_lease_at(now_us)
    }

    /// The term of an entry of the log.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.core.term_at(index)
    }

    /// Sends the newest checkpoint of the state hash to the followers.
    pub(crate) fn send_digest<D: Disk>(&self, io: &mut Io<D>) {
        if let Some((index, hash)) = self.digests.newest() {
            io.peers.send_digest(self.id, index, hash);
        }
    }

    /// Compares a leader's checkpoint with the own one; a difference is fatal.
    pub(crate) fn on_digest<D: Disk>(&self, index: Index, there: u64, io: &mut Io<D>) {
        match self.digests.agrees(index, there) {
            Some(false) => {
                let here = self.digests.at(index);
                io.fail(Fatal::Diverged { group: self.id.0, index, here, there });
            }
            Some(true) => io.counters.digests_compared += 1,
            None => {}
        }
    }

    /// Goes on with applying when a slice ended early.
    pub(crate) fn continue_apply<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.machine.last_applied() < self.core.commit_index() && self.applying.is_none() {
            self.advance(super::Input::Nothing, io);
        }
    }
}

fn numbers(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}
