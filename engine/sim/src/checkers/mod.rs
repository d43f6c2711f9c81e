//! The checkers: one file per property, fed after every turn, at every start and end of a process, and at the end.
//!
//! Off the data path.
//!
//! | property | file | when |
//! |---|---|---|
//! | a log begins behind a committed entry that is applied | `archive`, `cursors` | every turn, every start |
//! | one leader per term and group | `election_safety` | every turn |
//! | what is told to peers is on the own disk | `promises` | every send |
//! | a committed entry is on the disks of a quorum, of both majorities while members change | `membership` | every commit |
//! | members are those of the log; one change at a time | `membership` | every turn |
//! | a new leader has the votes of a quorum of its configuration | `membership` | every election |
//! | members keep their replicas; who gave one up votes for nobody without it | `membership` | every turn, every send |
//! | a leader commits by counting only in its own term | `commit_rule` | every turn |
//! | a new leader is elected while nobody holds a lease | `leases` | every election |
//! | a new leader has every committed entry | `leader_completeness` | every election |
//! | the same entry (all bytes) at a committed index, never rewritten | `committed` | every turn, every start |
//! | logs that share an entry share what precedes it | `log_matching` | every second, end |
//! | terms, commits, applied and durable cursors only grow | `cursors` | every turn |
//! | equal state hash at equal index, a restored state that of the log | `state_hash` | every turn, every start, end |
//! | what was durable is there after a crash | `durability` | every start |
//! | queues and tables stay within their bounds | `bounds` | every turn |
//! | a leader whose disk stands still gives up | `stalled_leader` | every tick |
//! | the disks hold what is committed, from their bases on | `disk_logs` | end |
//! | acknowledged is never lost, refused never happened, applied once | `log_replay` | end |
//! | a read is as old as it allowed at most | `staleness` | end |
//! | the answers of all clients fit one order | `crate::linearizability` | end |
//!
//! Logs lose their fronts to snapshots: what was committed is kept whole in the `archive`, and a replica's log is compared
//! with it from its base on, its base with the entry there, and its state with the state the archive gives.
//!
//! Invariant: a checker only reads; it never changes what happens next.

pub(crate) mod archive;
mod bounds;
mod commit_rule;
mod committed;
mod cursors;
pub(crate) mod disk_logs;
mod durability;
mod election_safety;
mod leader_completeness;
mod leases;
mod log_matching;
pub(crate) mod log_replay;
mod membership;
mod promises;
pub(crate) mod staleness;
mod stalled_leader;
mod state_hash;
#[cfg(test)]
mod testing;

use std::borrow::Cow;
use std::fmt;

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::{EntryRecord, GroupView};
use ringraft_engine::topology::Topology;
use ringraft_raft::{EntryId, Membership, NodeId};
use ringraft_wal::record;

use self::archive::Archive;
use self::log_replay::Replayed;
use crate::disk::{Medium, SimDisk};
use crate::node::{Lost, Node};
use crate::plan::Plan;
use crate::world::Checked;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which one.
    pub property: String,
    /// What was seen.
    pub seen: String,
}

impl Violation {
    /// A violation of `property`.
    pub(crate) fn new(property: &str, seen: impl Into<String>) -> Self {
        Self { property: property.to_owned(), seen: seen.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.property, self.seen)
    }
}

/// A replica's place in the tables of the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) node: usize,
    pub(crate) group: u32,
}

impl fmt::Display for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "group {} on node {}", self.group, self.node + 1)
    }
}

/// What a look at a shard found worth telling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Some replica became leader since the last look.
    pub(crate) elected: bool,
    /// Some replica's term or vote is not on disk yet.
    pub(crate) voting: bool,
    /// Some leader has proposed another configuration.
    pub(crate) changing: bool,
    /// Of which group and term.
    pub(crate) text: String,
}

/// All checkers and what they remember.
pub(crate) struct Checkers {
    archive: Archive,
    elections: election_safety::ElectionSafety,
    committed: committed::Committed,
    hashes: state_hash::StateHashes,
    cursors: cursors::Cursors,
    durability: durability::Durability,
    bounds: bounds::Bounds,
    stalled: stalled_leader::StalledLeader,
    commit_rule: commit_rule::CommitRule,
    members: membership::Members,
    groups: u32,
    shards: u16,
}

impl Checkers {
    pub(crate) fn new(plan: &Plan, topology: &Topology) -> Self {
        let (nodes, groups) = (plan.nodes, plan.groups as usize);
        Self {
            archive: Archive::new(groups),
            elections: election_safety::ElectionSafety::default(),
            committed: committed::Committed::new(nodes, groups),
            hashes: state_hash::StateHashes::new(nodes, groups, plan.limits),
            cursors: cursors::Cursors::new(nodes, groups, usize::from(plan.shards)),
            durability: durability::Durability::new(nodes, groups),
            bounds: bounds::Bounds::new(plan),
            stalled: stalled_leader::StalledLeader::new(plan),
            commit_rule: commit_rule::CommitRule::new(nodes, groups),
            members: membership::Members::new(topology),
            groups: plan.groups,
            shards: plan.shards,
        }
    }

    /// Looks at a shard after something happened in it.
    pub(crate) fn observe(
        &mut self,
        node: usize,
        shard: usize,
        nodes: &[Node],
        now_us: u64,
    ) -> Result<Seen, Violation> {
        let Some(process) = &nodes[node].process else { return Ok(Seen::default()) };
        let machine = &process.hosts[shard].shard;
        let mut seen = Seen::default();
        self.cursors.log(node, shard, machine.log_cursors())?;
        self.bounds.shard(node, shard, &machine.held())?;
        for view in machine.group_views() {
            let replica = Replica { node, group: view.group };
            self.bounds.group(replica, &view)?;
            let news = self.cursors.group(replica, &view)?;
            seen.voting |= view.hard_state != view.durable_hard_state;
            let elected = news && self.replica(replica, shard, &view, nodes, machine)?;
            let found = machine.memberships(view.group).filter(|_| news);
            seen.changing |= found.is_some_and(|found| self.members.proposes(replica, &view, found));
            if elected {
                leases::check(replica, view.hard_state.current_term, shard, nodes, now_us)?;
                seen.elected = true;
                seen.text = format!("group {} in term {}", view.group, view.hard_state.current_term);
            }
        }
        self.look_for_missing(node, shard, machine)?;
        Ok(seen)
    }

    /// Replicas that were there at the last look and are not now were given up.
    fn look_for_missing(&mut self, node: usize, shard: usize, machine: &Shard<SimDisk>) -> Checked {
        for group in (shard as u32..self.groups).step_by(usize::from(self.shards)) {
            let replica = Replica { node, group };
            let Some(last) = self.cursors.last(replica).filter(|_| machine.replicas().all(|held| held != group)) else {
                continue;
            };
            self.cursors.forget(replica);
            self.committed.forget(replica);
            self.commit_rule.forget(replica);
            self.hashes.forget(replica);
            let promised = self.durability.given_up(replica);
            self.members.given_up(replica, last, promised)?;
        }
        Ok(())
    }

    /// Looks at what a node is about to send to a peer.
    pub(crate) fn sends(&mut self, node: usize, peer: usize, bytes: &[u8], machine: &Shard<SimDisk>) -> Checked {
        let members = &mut self.members;
        promises::check(node, peer, bytes, machine, |voter, term, candidate, last| {
            members.vote(voter, term, candidate, last)
        })
    }

    /// Looks at a replica that has changed; whether it has just become leader.
    fn replica(
        &mut self,
        replica: Replica,
        shard: usize,
        view: &GroupView,
        nodes: &[Node],
        machine: &Shard<SimDisk>,
    ) -> Result<bool, Violation> {
        let node = &nodes[replica.node];
        let log = committed::Log {
            damaged: node.lost == Some(Lost::Damaged),
            term_at: |index| machine.term_at(replica.group, index),
            record: |entry| record_of(machine, &node.media[shard], replica.group, entry),
        };
        self.archive.covers_base(replica, view)?;
        let elected = self.elections.observe(replica, view)?;
        if elected {
            leader_completeness::check(replica, view, &self.archive, log.term_at)?;
        }
        self.commit_rule.observe(replica, view, machine)?;
        let committed = self.committed.observe(replica, view, &log, &mut self.archive)?;
        let configurations = self.members.learn(replica.group, &self.archive)?;
        let Some(found) = machine.memberships(replica.group) else { return Ok(elected) };
        if elected {
            self.members.elected(replica, view.hard_state.current_term, found.current())?;
        }
        for entry in configurations {
            let holds = |place| self.holds(place, replica.group, shard, entry, nodes);
            self.on_quorum(replica, entry, &[self.members.at(replica.group, entry.index)], holds)?;
        }
        if let Some(entry) = committed {
            // What is in force behind it may count already, or not yet.
            let holds = |place| self.holds(place, replica.group, shard, entry, nodes);
            let either = [found.current(), self.members.at(replica.group, entry.index)];
            self.on_quorum(replica, entry, &either, holds)?;
        }
        let record = |index| {
            let term = machine.term_at(replica.group, index)?;
            record_of(machine, &node.media[shard], replica.group, EntryId { term, index })
        };
        if let Some(withheld_until) = machine.votes_withheld_until(replica.group) {
            self.members.remembers(replica, view.last, withheld_until)?;
        }
        if !log.damaged {
            self.members.replica(replica, view, found, record)?;
        }
        self.hashes.observe(replica, view, &self.archive)?;
        Ok(elected)
    }

    /// Whether a node has an entry on its disk; one that lost its own is counted as if it still had it, a machine that
    /// burnt down as it was then.
    fn holds(&self, place: usize, group: u32, shard: usize, entry: EntryId, nodes: &[Node]) -> bool {
        let node = &nodes[place];
        match &node.process {
            _ if node.lost.is_some() && !node.is_burnt() => true,
            None => self.durability.holds(Replica { node: place, group }, entry),
            Some(process) => {
                let machine = &process.hosts[shard].shard;
                let durable = |view: GroupView| {
                    let covered = || entry.index <= view.base.index;
                    view.group == group
                        && view.durable_index >= entry.index
                        && (machine.term_at(group, entry.index) == Some(entry.term) || covered())
                };
                machine.group_views().any(durable)
            }
        }
    }

    /// A newly committed entry is on the disks of a quorum of one of these configurations.
    fn on_quorum(
        &self,
        replica: Replica,
        entry: EntryId,
        any_of: &[&Membership],
        holds: impl Fn(usize) -> bool,
    ) -> Checked {
        let has = |node: NodeId| holds(node.0 as usize - 1);
        if any_of.iter().any(|membership| membership.has_quorum(has)) {
            return Ok(());
        }
        let members = any_of.first().map(|membership| membership.members()).unwrap_or_default();
        let holders: Vec<NodeId> = members.into_iter().filter(|node| has(*node)).collect();
        let seen = format!("{replica} calls entry {entry} committed, it is on the disks of {holders:?} by {any_of:?}");
        Err(Violation::new("committed is on a quorum of disks", seen))
    }

    /// Looks at a shard after one of its ticks.
    pub(crate) fn tick(&mut self, node: usize, shard: usize, machine: &Shard<SimDisk>) -> Checked {
        self.stalled.tick(node, shard, machine)
    }

    /// A process is gone: what it had reported durable must be there when it comes back.
    pub(crate) fn process_ends<'a>(&mut self, node: usize, shards: impl Iterator<Item = &'a Shard<SimDisk>>) {
        for machine in shards {
            for view in machine.group_views() {
                let term_at = |index| machine.term_at(view.group, index);
                self.durability.note(Replica { node, group: view.group }, &view, term_at);
            }
        }
    }

    /// A process recovered.
    pub(crate) fn process_starts<'a>(
        &mut self,
        node: usize,
        shards: impl Iterator<Item = &'a Shard<SimDisk>>,
    ) -> Checked {
        self.cursors.restart(node);
        self.committed.restart(node);
        self.stalled.restart(node);
        self.commit_rule.restart(node);
        self.hashes.restart(node);
        let mut held = Vec::new();
        for machine in shards {
            for view in machine.group_views() {
                held.push(view.group);
                let replica = Replica { node, group: view.group };
                self.archive.covers_base(replica, &view)?;
                self.durability.check(replica, &view, &self.archive, |index| machine.term_at(view.group, index))?;
                self.hashes.observe(replica, &view, &self.archive)?;
            }
        }
        let missing = (0..self.groups).filter(|group| !held.contains(group));
        missing.map(|group| Replica { node, group }).try_for_each(|replica| self.durability.check_absent(replica))
    }

    /// A node's disk was emptied on purpose.
    pub(crate) fn wiped(&mut self, node: usize) {
        self.durability.forget(node);
    }

    /// Compares the logs of all replicas.
    pub(crate) fn compare(&self, nodes: &[Node]) -> Checked {
        log_matching::check(nodes, &self.archive)
    }

    /// Every state that was ever seen is what a replay of the archive gave at its index.
    pub(crate) fn compare_states(&self, group: u32, replayed: &Replayed) -> Checked {
        self.hashes.compare(group, &replayed.hashes)
    }

    /// Everything that was committed.
    pub(crate) fn archive(&self) -> &Archive {
        &self.archive
    }
}

/// The verified record of an entry, from the cache of the log or from the medium.
fn record_of<'a>(machine: &'a Shard<SimDisk>, medium: &Medium, group: u32, entry: EntryId) -> Option<Cow<'a, [u8]>> {
    let bytes = match machine.entry(group, entry.index)? {
        EntryRecord::Cached(bytes) => Cow::Borrowed(bytes),
        EntryRecord::OnDisk(place) => {
            let bytes = medium.record(place);
            record::parse(&bytes).ok()??;
            Cow::Owned(bytes)
        }
    };
    let header = record::header(&bytes);
    let is_it = (header.group, header.term, header.index) == (group, entry.term, entry.index);
    is_it.then_some(bytes)
}

/// The part of a view that checkers of the protocol look at: when it is as before there is nothing to do.
pub(crate) fn is_news(before: &GroupView, now: &GroupView) -> bool {
    before.hard_state != now.hard_state
        || before.role != now.role
        || before.commit_index != now.commit_index
        || before.last_applied != now.last_applied
        || before.base != now.base
        || before.last != now.last
        || before.durable_index != now.durable_index
}
