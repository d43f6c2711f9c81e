//! The topology: which nodes a cluster has, where each group's replicas are to be, and how both change.
//!
//! Off the data path: group 0 keeps it as the value of one key, so that every node learns of it by replication.
//!
//! ```text
//!   operator ── add, remove, replace ──┐
//!                                      v                                   reports of the groups, who is alive
//!   initial ──────────────────────> Topology (epoch n) <── compare-and-set ── controller: plan ──> leader transfers
//!                                      │
//!                                      └─> each group's leader drives its membership to `replicas(group)`
//! ```
//!
//! Invariants: a `Topology` is valid (`valid.rs`), since only `initial`, `decode`, `changes.rs` and `controller.rs` make
//! one; it has exactly one encoding; every change raises the epoch by one; the same input gives the same output on every
//! node and in every release, for there is no clock, no randomness and no map of random order in here.
//!
//! It does no I/O, proposes nothing and does not know the membership a group really has: reports say that.
//! Slots do not move between groups: `slots::group_of_key` and the number of groups say all of that.

mod changes;
mod controller;
mod document;
pub mod file;
mod leaders;
mod ring;
mod valid;

pub use changes::ChangeError;
pub use controller::{GroupReport, LiveNode, Plan, PlanBounds, Transfer, plan};
pub use document::BYTES_MAX;
use ring::Ring;
pub use valid::{ADDRESS_BYTES_MAX, GROUPS_MAX, NODES_MAX, REMOVED_MAX, SHARDS_MAX, TopologyError};

use ringraft_raft::{GroupId, Membership, NodeId};

/// The group that keeps the topology. Every node is a member of it.
pub const CONTROL_GROUP: GroupId = GroupId(0);

/// Voters of group 0 at most; all other nodes are its learners.
pub const CONTROL_VOTERS_MAX: usize = 5;

/// Replicas of a group unless the cluster was made with another number.
pub const REPLICATION_FACTOR_DEFAULT: u32 = 3;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It is getting its first data. Groups are placed on it already.
    Joining,
    /// It has caught up once.
    Active,
    /// It hands its data over and is deleted then. Nothing is placed on it any more.
    Leaving,
}

/// What the cluster knows of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id, never used again once it was removed.
    pub id: NodeId,
    /// Its place on the ring: its own id, or the place of the node it replaced, so that it takes over the same groups.
    pub seat: u64,
    /// `host:port` of each shard, in order.
    pub addresses: Vec<String>,
    /// Identity of its data directory; 0: not known yet.
    pub instance: u64,
    /// Where it is in its life.
    pub state: NodeState,
}

impl NodeRecord {
    /// Whether groups are placed on it.
    #[must_use]
    pub fn is_placeable(&self) -> bool {
        self.state != NodeState::Leaving
    }
}

/// The nodes of a cluster and where each group is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    epoch: u64,
    shards: u16,
    replication_factor: u32,
    /// Sorted by id.
    nodes: Vec<NodeRecord>,
    /// Sorted.
    removed: Vec<u64>,
    /// Replicas of each group, sorted; of group 0 the voters.
    placements: Vec<Vec<NodeId>>,
}

impl Topology {
    /// The key of group 0 that holds it.
    pub const KEY: &[u8] = b"\0ringraft/topology";

    /// Keys with this beginning are the cluster's own: clients may read and not write them.
    pub const RESERVED: &[u8] = b"\0ringraft/";

    /// The members that each group of a cluster that is made now begins with.
    #[must_use]
    pub fn memberships(&self) -> Vec<Membership> {
        let members = |group| Membership::with(self.replicas(group).to_vec(), Vec::new(), self.learners(group));
        (0..self.groups()).map(GroupId).map(members).collect()
    }

    /// What a new cluster of these nodes (id and addresses of its shards) has. The order of the nodes does not matter.
    ///
    /// # Errors
    /// What is wrong with the nodes or out of bounds.
    pub fn initial(
        nodes: impl IntoIterator<Item = (NodeId, Vec<String>)>,
        groups: u32,
        shards: u16,
        replication_factor: u32,
    ) -> Result<Self, TopologyError> {
        let record = |(id, addresses): (NodeId, _)| {
            let state = NodeState::Active;
            NodeRecord { id, seat: id.0, addresses, instance: 0, state }
        };
        let mut nodes: Vec<NodeRecord> = nodes.into_iter().map(record).collect();
        nodes.sort_by_key(|node| node.id);
        let mut topology =
            Self { epoch: 1, shards, replication_factor, nodes, removed: Vec::new(), placements: Vec::new() };
        topology.validate_settings(groups as usize)?;
        topology.validate_nodes()?;
        topology.placements = topology.placements_of_ring(groups);
        topology.validate()?;
        Ok(topology)
    }

    /// Grows by one with every change.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Groups of the cluster.
    #[must_use]
    pub fn groups(&self) -> u32 {
        // Bounded by GROUPS_MAX.
        self.placements.len() as u32
    }

    /// Shards of every node.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Replicas a group has when there are enough nodes.
    #[must_use]
    pub fn replication_factor(&self) -> u32 {
        self.replication_factor
    }

    /// The nodes, sorted by id.
    #[must_use]
    pub fn nodes(&self) -> &[NodeRecord] {
        &self.nodes
    }

    /// The node of this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.place_of(id).map(|place| &self.nodes[place])
    }

    /// Ids that may never return, sorted.
    #[must_use]
    pub fn removed(&self) -> &[u64] {
        &self.removed
    }

    /// Who is to vote in a group, sorted; for group 0 these are its voters alone.
    ///
    /// # Panics
    /// When there is no such group.
    #[must_use]
    pub fn replicas(&self, group: GroupId) -> &[NodeId] {
        &self.placements[group.0 as usize]
    }

    /// Who is to be a learner of a group for good, sorted: every node without a vote in group 0, nobody elsewhere.
    #[must_use]
    pub fn learners(&self, group: GroupId) -> Vec<NodeId> {
        if group != CONTROL_GROUP {
            return Vec::new();
        }
        let voters = self.replicas(group);
        self.nodes.iter().map(|node| node.id).filter(|id| voters.binary_search(id).is_err()).collect()
    }

    /// For each group the node that should lead it, so that every node leads as many as the others.
    #[must_use]
    pub fn preferred_leaders(&self) -> Vec<NodeId> {
        leaders::preferred(&self.placements)
    }

    fn place_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }

    fn placeable(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.iter().filter(|node| node.is_placeable())
    }

    /// Where the ring wants each group, given the nodes there are.
    fn placements_of_ring(&self, groups: u32) -> Vec<Vec<NodeId>> {
        let mut seats: Vec<(u64, NodeId)> = self.placeable().map(|node| (node.seat, node.id)).collect();
        seats.sort_unstable();
        let ring = Ring::new(seats.iter().map(|(seat, _)| *seat));
        let in_nodes = |places: Vec<usize>| {
            let mut replicas: Vec<NodeId> = places.into_iter().map(|place| seats[place].1).collect();
            replicas.sort_unstable();
            replicas
        };
        let control = ring.first(CONTROL_GROUP, CONTROL_VOTERS_MAX);
        let data = ring.place(groups, self.replication_factor as usize);
        std::iter::once(control).chain(data).map(in_nodes).collect()
    }
}

#[cfg(test)]
mod tests;
