//! What is counted of a replica, and how it looks to those who watch.
//!
//! Data path: additions.
//! Invariant: everything is counted twice, for the replica and for the shard, so that sums never go back when a replica
//! goes; nothing here decides anything.

use ringraft_raft::{Index, NodeId, ProgressState, Role, Term};
use ringraft_wal::Disk;

use super::Group;
use crate::metrics::record::{Rejection, Tally, Transition};
use crate::metrics::sample::{FollowerSample, GroupSample, State};
use crate::shard::io::Io;

/// What was counted up to here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    commit_index: Index,
    /// The last term of which the leader was known.
    led_term: Term,
    /// The last term in which this replica stood for election.
    election_term: Term,
    /// The part it played at the last change...
    state: State,
    /// ... which was then; 0: there was none, or no clock.
    changed_us: u64,
}

impl Group {
    fn count<D: Disk>(&mut self, io: &mut Io<D>, count: impl Fn(&mut Tally)) {
        count(&mut self.tally);
        count(&mut io.metrics.tally);
    }

    /// A request is not taken.
    pub(super) fn reject<D: Disk>(&mut self, reason: Rejection, io: &mut Io<D>) {
        self.count(io, |tally| tally.reject(reason));
    }

    /// The shard did not take a request for this replica, and has counted it.
    pub(crate) fn note_rejected(&mut self, reason: Rejection) {
        self.tally.reject(reason);
    }

    /// An entry joins the log.
    pub(super) fn count_entry<D: Disk>(&mut self, io: &mut Io<D>) {
        self.count(io, |tally| tally.entries += 1);
    }

    /// Entries up to `commit_index` are committed. What was committed before this replica served is not counted: it may be
    /// all of a long history at once.
    pub(super) fn count_commits<D: Disk>(&mut self, commit_index: Option<Index>, io: &mut Io<D>) {
        let Some(index) = commit_index else { return };
        let commits = index.saturating_sub(self.seen.commit_index);
        self.seen.commit_index = index;
        if self.serving {
            self.count(io, |tally| tally.commits += commits);
        }
    }

    /// Role, leader or term are others now. A voter on its own leads without having been seen as a candidate.
    pub(super) fn count_role<D: Disk>(&mut self, role: Role, leader: Option<NodeId>, term: Term, io: &mut Io<D>) {
        if matches!(role, Role::Candidate | Role::Leader) && term > self.seen.election_term {
            self.seen.election_term = term;
            self.count(io, |tally| tally.elections += 1);
        }
        if leader.is_some() && term > self.seen.led_term {
            self.seen.led_term = term;
            self.count(io, |tally| tally.leader_changes += 1);
        }
        let transition = Transition {
            group: self.id.0,
            term,
            state: self.state(),
            before: self.seen.state,
            leader: leader.map_or(0, |node| node.0),
            since_us: self.seen.changed_us,
            at_us: io.now_us,
        };
        (self.seen.state, self.seen.changed_us) = (transition.state, transition.at_us);
        io.metrics.changed(transition);
    }

    /// The replica as it is.
    pub(crate) fn sample<D: Disk>(&self, io: &Io<D>) -> GroupSample {
        let last_index = self.core.last().index;
        let me = self.core.config().id;
        let others = self.core.progress().filter(|(node, ..)| *node != me && self.is_leader());
        let follower = |(node, match_index, _, state): (NodeId, Index, Index, ProgressState)| FollowerSample {
            node: node.0,
            lag: last_index.saturating_sub(match_index),
            state: match state {
                ProgressState::Probe => 0,
                ProgressState::Replicate => 1,
                ProgressState::Snapshot => 2,
            },
        };
        GroupSample {
            group: self.id.0,
            state: self.state(),
            term: self.core.term(),
            leader: self.core.leader().map_or(0, |node| node.0),
            first_index: self.core.first_index(),
            last_index,
            durable_index: self.durable_index(),
            commit_index: self.core.commit_index(),
            applied_index: self.machine.last_applied(),
            snapshot_index: self.snapshot_index(io),
            snapshot_state: self.snapshots.state(),
            waiting: self.waiting() as u64,
            keys: self.machine.key_count() as u64,
            sessions: self.machine.session_count() as u64,
            tally: self.tally,
            followers: others.map(follower).collect(),
        }
    }

    fn state(&self) -> State {
        match self.core.role() {
            Role::Leader => State::Leader,
            Role::Candidate => State::Candidate,
            Role::PreCandidate => State::PreCandidate,
            Role::Follower => {
                let (members, me) = (self.core.membership(), self.core.config().id);
                if members.contains(me) && !members.is_voter(me) { State::Learner } else { State::Follower }
            }
        }
    }
}
