//! The checkers: one file per property, fed after every turn, at every start and end of a process, and at the end.
//!
//! Off the data path.
//!
//! | property | file | when |
//! |---|---|---|
//! | one leader per term and group | `election_safety` | every turn |
//! | what is told to peers is on the own disk | `promises` | every send |
//! | a committed entry is on the disks of a majority | `committed` | every commit |
//! | a leader commits by counting only in its own term | `commit_rule` | every turn |
//! | a new leader has every committed entry | `leader_completeness` | every election |
//! | the same entry at a committed index, never rewritten | `committed` | every turn, every start |
//! | logs that share an entry share what precedes it | `log_matching` | every second, end |
//! | terms, commits, applied and durable cursors only grow | `cursors` | every turn |
//! | equal state hash at equal index | `state_hash` | every turn |
//! | what was durable is there after a crash | `durability` | every start |
//! | queues and tables stay within their bounds | `bounds` | every turn |
//! | a leader whose disk stands still gives up | `stalled_leader` | every tick |
//! | acknowledged is never lost, refused never happened, applied once | `log_replay` | end |
//! | the answers of all clients fit one order | `crate::linearizability` | end |
//!
//! Invariant: a checker only reads; it never changes what happens next.

mod bounds;
mod commit_rule;
mod committed;
mod cursors;
mod durability;
mod election_safety;
mod leader_completeness;
mod log_matching;
pub(crate) mod log_replay;
pub(crate) mod promises;
mod stalled_leader;
mod state_hash;

use std::fmt;

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::EntryId;

use crate::disk::SimDisk;
use crate::node::Node;
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
    /// Of which group and term.
    pub(crate) text: String,
}

/// All checkers and what they remember.
pub(crate) struct Checkers {
    elections: election_safety::ElectionSafety,
    committed: committed::Committed,
    hashes: state_hash::StateHashes,
    cursors: cursors::Cursors,
    durability: durability::Durability,
    bounds: bounds::Bounds,
    stalled: stalled_leader::StalledLeader,
    commit_rule: commit_rule::CommitRule,
}

impl Checkers {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (nodes, groups) = (plan.nodes, plan.groups as usize);
        Self {
            elections: election_safety::ElectionSafety::default(),
            committed: committed::Committed::new(nodes, groups),
            hashes: state_hash::StateHashes::new(groups),
            cursors: cursors::Cursors::new(nodes, groups, usize::from(plan.shards)),
            durability: durability::Durability::new(nodes, groups),
            bounds: bounds::Bounds::new(plan),
            stalled: stalled_leader::StalledLeader::new(plan),
            commit_rule: commit_rule::CommitRule::new(nodes, groups),
        }
    }

    /// Looks at a shard after something happened in it.
    pub(crate) fn observe(&mut self, node: usize, shard: usize, nodes: &[Node]) -> Result<Seen, Violation> {
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
            if !news {
                continue;
            }
            if self.elections.observe(replica, &view)? {
                let committed = self.committed.before(view.group, view.hard_state.current_term);
                leader_completeness::check(replica, &view, machine, committed)?;
                seen.elected = true;
                seen.text = format!("group {} in term {}", view.group, view.hard_state.current_term);
            }
            self.commit_rule.observe(replica, &view, machine)?;
            if let Some(entry) = self.committed.observe(replica, &view, machine)? {
                self.on_majority(replica, shard, entry, nodes)?;
            }
            self.hashes.observe(replica, &view)?;
        }
        Ok(seen)
    }

    /// A newly committed entry is on the disks of a majority, those of lost nodes counted as if they still had it.
    fn on_majority(&self, replica: Replica, shard: usize, entry: EntryId, nodes: &[Node]) -> Checked {
        let group = replica.group;
        let holds = |(place, node): (usize, &Node)| match &node.process {
            _ if node.lost.is_some() => true,
            None => self.durability.holds(Replica { node: place, group }, entry),
            Some(process) => {
                let machine = &process.hosts[shard].shard;
                let durable = |view: GroupView| view.group == group && view.durable_index >= entry.index;
                machine.group_views().any(durable) && machine.term_at(group, entry.index) == Some(entry.term)
            }
        };
        let holders = nodes.iter().enumerate().filter(|place| holds(*place)).count();
        if holders > nodes.len() / 2 {
            return Ok(());
        }
        let seen = format!("{replica} calls entry {entry} committed, it is on {holders} of {} disks", nodes.len());
        Err(Violation::new("committed is on a majority of disks", seen))
    }

    /// Looks at a shard after one of its ticks.
    pub(crate) fn tick(&mut self, node: usize, shard: usize, machine: &Shard<SimDisk>) -> Checked {
        self.stalled.tick(node, shard, machine)
    }

    /// A process is gone: what it had reported durable must be there when it comes back.
    pub(crate) fn process_ends<'a>(&mut self, node: usize, shards: impl Iterator<Item = &'a Shard<SimDisk>>) {
        for machine in shards {
            for view in machine.group_views() {
                self.durability.note(Replica { node, group: view.group }, &view, machine);
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
        for machine in shards {
            for view in machine.group_views() {
                self.durability.check(Replica { node, group: view.group }, &view, machine)?;
            }
        }
        Ok(())
    }

    /// A node's disk was emptied on purpose.
    pub(crate) fn wiped(&mut self, node: usize) {
        self.durability.forget(node);
    }

    /// Compares the logs of all replicas.
    pub(crate) fn compare(&self, nodes: &[Node]) -> Checked {
        log_matching::check(nodes)
    }

    /// Terms of the committed entries of a group, from index 1.
    pub(crate) fn committed_terms(&self, group: u32) -> &[u64] {
        self.committed.of(group)
    }

    /// Entries committed in all groups.
    pub(crate) fn entries(&self) -> u64 {
        self.committed.entries()
    }
}

/// The part of a view that checkers of the protocol look at: when it is as before there is nothing to do.
pub(crate) fn is_news(before: &GroupView, now: &GroupView) -> bool {
    before.hard_state != now.hard_state
        || before.role != now.role
        || before.commit_index != now.commit_index
        || before.last_applied != now.last_applied
        || before.last != now.last
        || before.durable_index != now.durable_index
}
