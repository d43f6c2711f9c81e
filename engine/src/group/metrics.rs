//! What is counted of a replica, and how it looks to those who watch.
//!
//! Data path: additions.
//! Invariant: everything is counted twice, for the replica and for the shard, so that sums never go back when a replica
//! goes; nothing here decides anything.

use ringraft_raft::{Index, NodeId, ProgressState, Role, Term};
use ringraft_wal::Disk;

use super::Group;
use crate::metrics::record::{Rejection, Tally, Transition};
use crate::metrics::sample::{FollowerSample, GroupSample, GroupSums, State};
use crate::shard::io::Io;

/// What was counted up to here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    commit_index: Index,
    /// The last term of which the leader was known...
    led_term: Term,
    /// ... since then; 0: there is no clock.
    led_us: u64,
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
            (self.seen.led_term, self.seen.led_us) = (term, io.now_us);
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
        GroupSample {
            group: self.id.0,
            state: self.state(),
            term: self.core.term(),
            leader: self.core.leader().map_or(0, |node| node.0),
            first_index: self.core.first_index(),
            last_index: self.core.last().index,
            durable_index: self.durable_index(),
            commit_index: self.core.commit_index(),
            applied_index: self.machine.last_applied(),
            snapshot_index: self.snapshot_index(io),
            snapshot_state: self.snapshots.state(),
            waiting: self.waiting() as u64,
            keys: self.machine.key_count() as u64,
            sessions: self.machine.session_count() as u64,
            tally: self.tally,
            followers: self.follower_samples().collect(),
        }
    }

    /// Counts the replica.
    pub(crate) fn count_in(&self, sums: &mut GroupSums) {
        sums.states[self.state() as usize] += 1;
        sums.without_leader += u64::from(self.core.leader().is_none());
        sums.waiting += self.waiting() as u64;
        sums.keys += self.machine.key_count() as u64;
        sums.sessions += self.machine.session_count() as u64;
        let apply_lag = self.core.commit_index().saturating_sub(self.machine.last_applied());
        sums.apply_lag_max = sums.apply_lag_max.max(apply_lag);
        let lag = self.follower_samples().map(|follower| follower.lag).max();
        sums.follower_lag_max = sums.follower_lag_max.max(lag.unwrap_or(0));
    }

    /// The other members, as this leader sees them.
    fn follower_samples(&self) -> impl Iterator<Item = FollowerSample> {
        let (last_index, me, leads) = (self.core.last().index, self.core.config().id, self.is_leader());
        let others = self.core.progress().filter(move |(node, ..)| leads && *node != me);
        others.map(move |(node, match_index, _, state)| FollowerSample {
            node: node.0,
            lag: last_index.saturating_sub(match_index),
            state: match state {
                ProgressState::Probe => 0,
                ProgressState::Replicate => 1,
                ProgressState::Snapshot => 2,
            },
        })
    }

    /// Since when it knows its leader, by its node's clock; `None`: it knows none.
    pub(super) fn leader_since_us(&self) -> Option<u64> {
        self.core.leader().map(|_| self.seen.led_us)
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
