//! Equal state: replicas that applied the same index have the same state hash (the etcd 3.5 postmortem).
//!
//! Off the data path.

use ringraft_engine::shard::inspect::GroupView;

use super::{Replica, Violation};
use crate::world::Checked;

/// The first hash seen after each applied index, by group.
#[derive(Debug)]
pub(crate) struct StateHashes {
    seen: Vec<Vec<Option<(u64, usize)>>>,
}

impl StateHashes {
    pub(crate) fn new(groups: usize) -> Self {
        Self { seen: vec![Vec::new(); groups] }
    }

    pub(crate) fn observe(&mut self, replica: Replica, view: &GroupView) -> Checked {
        let seen = &mut self.seen[replica.group as usize];
        let index = view.last_applied as usize;
        if seen.len() <= index {
            seen.resize(index + 1, None);
        }
        match seen[index] {
            None => seen[index] = Some((view.state_hash, replica.node)),
            Some((hash, _)) if hash == view.state_hash => {}
            Some((hash, node)) => {
                let (here, node) = (view.state_hash, node + 1);
                let text =
                    format!("{replica} has state {here:016x} at index {index}, node {node} had {hash:016x} there");
                return Err(Violation::new("equal state at equal index", text));
            }
        }
        Ok(())
    }
}
