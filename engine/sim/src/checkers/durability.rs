//! Durability: after a crash a replica has everything it had reported durable, vote included; a damaged one stops instead.
//!
//! Off the data path.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, HardState, Term};

use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// What a replica had reported durable when its process ended.
#[derive(Clone, Debug, Default)]
struct Durable {
    terms: Vec<Term>,
    hard_state: HardState,
}

/// By node and group.
#[derive(Debug)]
pub(crate) struct Durability {
    known: Vec<Vec<Durable>>,
}

impl Durability {
    pub(crate) fn new(nodes: usize, groups: usize) -> Self {
        Self { known: vec![vec![Durable::default(); groups]; nodes] }
    }

    /// The process ends.
    pub(crate) fn note(&mut self, replica: Replica, view: &GroupView, machine: &Shard<SimDisk>) {
        let terms = (1..=view.durable_index).filter_map(|index| machine.term_at(replica.group, index)).collect();
        let hard_state = view.durable_hard_state;
        self.known[replica.node][replica.group as usize] = Durable { terms, hard_state };
    }

    /// Whether a replica without a process had reported an entry durable.
    pub(crate) fn holds(&self, replica: Replica, entry: EntryId) -> bool {
        let known = &self.known[replica.node][replica.group as usize];
        known.terms.get(entry.index as usize - 1) == Some(&entry.term)
    }

    /// The node's disk was emptied on purpose.
    pub(crate) fn forget(&mut self, node: usize) {
        self.known[node].fill(Durable::default());
    }

    /// The process is back.
    pub(crate) fn check(&self, replica: Replica, view: &GroupView, machine: &Shard<SimDisk>) -> Checked {
        let known = &self.known[replica.node][replica.group as usize];
        for (index, term) in (1..).zip(&known.terms) {
            let found = machine.term_at(replica.group, index);
            if found != Some(*term) {
                let seen = format!("{replica} had reported {term}.{index} durable and has {found:?} after its restart");
                return Err(Violation::new("durable entries survive", seen));
            }
        }
        let (before, now) = (known.hard_state, view.hard_state);
        let same_term = before.current_term == now.current_term;
        let kept = now.current_term > before.current_term
            || same_term && (before.voted_for.is_none() || before.voted_for == now.voted_for);
        if kept {
            return Ok(());
        }
        let seen = format!("{replica} had {before:?} on disk and has {now:?} after its restart");
        Err(Violation::new("durable votes survive", seen))
    }
}
