//! Tests of the topology and what several of them share.
//!
//! Off the data path.

mod changes;
mod controller;
mod convergence;
mod document;
mod leaders;
mod ring;

use super::*;

pub(super) fn ids(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Addresses nobody else has.
pub(super) fn addresses(id: u64, shards: u16) -> Vec<String> {
    (0..shards).map(|shard| format!("n{id}:{}", 7_000 + shard)).collect()
}

/// A new cluster of these nodes with one shard each.
pub(super) fn cluster(numbers: &[u64], groups: u32, factor: u32) -> Topology {
    let nodes = numbers.iter().map(|id| (NodeId(*id), addresses(*id, 1)));
    Topology::initial(nodes, groups, 1, factor).expect("a valid cluster")
}

/// How many data groups each node is to hold.
pub(super) fn load_of(topology: &Topology, node: NodeId) -> usize {
    (1..topology.groups()).filter(|group| topology.replicas(GroupId(*group)).contains(&node)).count()
}
