//! The commit rule: a leader commits by counting only entries of its own term, earlier ones with them (Raft 5.4.2).
//!
//! Off the data path.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{Index, Role, Term};

use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// Term and commit index of whoever led at the last look, by node and group.
#[derive(Debug)]
pub(crate) struct CommitRule {
    led: Vec<Vec<Option<(Term, Index)>>>,
}

impl CommitRule {
    pub(crate) fn new(nodes: usize, groups: usize) -> Self {
        Self { led: vec![vec![None; groups]; nodes] }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.led[node].fill(None);
    }

    pub(crate) fn forget(&mut self, replica: Replica) {
        self.led[replica.node][replica.group as usize] = None;
    }

    pub(crate) fn observe(&mut self, replica: Replica, view: &GroupView, machine: &Shard<SimDisk>) -> Checked {
        let term = view.hard_state.current_term;
        let now = (view.role == Role::Leader).then_some((term, view.commit_index));
        let before = std::mem::replace(&mut self.led[replica.node][replica.group as usize], now);
        let (Some((old_term, old_commit)), Some(_)) = (before, now) else { return Ok(()) };
        if old_term != term || view.commit_index == old_commit {
            return Ok(());
        }
        let committed = machine.term_at(replica.group, view.commit_index);
        if committed == Some(term) {
            return Ok(());
        }
        let index = view.commit_index;
        let seen = format!("{replica} leads in term {term} and commits index {index} of term {committed:?}");
        Err(Violation::new("a leader commits entries of its own term", seen))
    }
}
