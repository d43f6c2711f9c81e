//! Log matching: two logs with the same entry at an index are the same up to there (Raft 5.3).
//!
//! Off the data path.

use ringraft_raft::Index;

use super::{Replica, Violation};
use crate::node::Node;
use crate::world::Checked;

/// Compares every two replicas of every group.
pub(crate) fn check(nodes: &[Node]) -> Checked {
    for (place, one) in nodes.iter().enumerate() {
        for (step, other) in nodes.iter().enumerate().skip(place + 1) {
            compare(place, one, step, other)?;
        }
    }
    Ok(())
}

fn compare(place: usize, one: &Node, other_place: usize, other: &Node) -> Checked {
    let (Some(left), Some(right)) = (&one.process, &other.process) else { return Ok(()) };
    for (left, right) in left.hosts.iter().zip(&right.hosts) {
        for (one, other) in left.shard.group_views().zip(right.shard.group_views()) {
            let group = one.group;
            let differ = |index: Index| left.shard.term_at(group, index) != right.shard.term_at(group, index);
            let last = one.last.index.min(other.last.index);
            // Find the last index at which they agree, then look for a difference before it.
            let agreed = (1..=last).rev().find(|index| !differ(*index)).unwrap_or(0);
            if let Some(index) = (1..agreed).find(|index| differ(*index)) {
                let (one, other) = (Replica { node: place, group }, Replica { node: other_place, group });
                let seen = format!("{one} and {other} agree at index {agreed} and differ at {index}");
                return Err(Violation::new("log matching", seen));
            }
        }
    }
    Ok(())
}
