//! What makes a topology valid, and what is said of one that is not.
//!
//! Off the data path.
//! Invariants: whatever passes has exactly one text, which fits in `BYTES_MAX` and still will after any number of changes
//! of the controller; every list is sorted and without repetition; every placement names nodes that there are.

use std::collections::BTreeSet;

use ringraft_net::slots::SLOTS;
use ringraft_raft::{GroupId, NodeId};

use super::document::BYTES_MAX;
use super::{CONTROL_GROUP, CONTROL_VOTERS_MAX, NodeRecord, Topology};
use crate::config::Address;

/// Nodes of a cluster at most, those that leave included.
pub const NODES_MAX: usize = 64;

/// Groups of a cluster at most: each owns a slot.
pub const GROUPS_MAX: usize = SLOTS as usize;

/// Shards of a node at most.
pub const SHARDS_MAX: u16 = 256;

/// Longest address: the longest host name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 255 + 1 + 5;

/// Nodes that can ever be removed from one cluster, whose ids are remembered for good.
pub const REMOVED_MAX: usize = 4_096;

/// An epoch behind this one was not reached by counting.
const EPOCH_MAX: u64 = 1 << 62;

/// Digits of the longest number, with what separates it from the next.
const NUMBER_BYTES: usize = 21;
/// Names, brackets and numbers of the text beside nodes, removed ids and placements.
const HEAD_BYTES: usize = 512;
/// The same of one node beside its addresses.
const NODE_BYTES: usize = 160;

/// Why something is no topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The text is longer than any topology.
    #[error(
        "the topology takes {bytes} bytes, at most {BYTES_MAX} are allowed: \
         use smaller ids, shorter addresses or fewer groups"
    )]
    TooLong {
        /// Its length, or what it may come to.
        bytes: usize,
    },
    /// Not JSON, or not the fields of a topology.
    #[error("the topology cannot be read: {problem}")]
    Syntax {
        /// What the parser says.
        problem: String,
    },
    /// Of another release.
    #[error("the topology has format {found}, this release reads format {known}: run a release that knows both")]
    Format {
        /// In the text.
        found: u32,
        /// What this release reads.
        known: u32,
    },
    /// A number or a list is out of its bounds.
    #[error("{what}: {found}, allowed are {min} to {max}")]
    Bound {
        /// What it counts.
        what: String,
        /// How many there are.
        found: u64,
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// Something that contradicts something else.
    #[error("{0}")]
    Contradiction(String),
}

impl TopologyError {
    /// The same topology will never be accepted.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Nothing can be done with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

fn bound(what: impl Into<String>, found: u64, min: u64, max: u64) -> Result<(), TopologyError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(TopologyError::Bound { what: what.into(), found, min, max })
}

fn demand(holds: bool, message: impl FnOnce() -> String) -> Result<(), TopologyError> {
    if holds { Ok(()) } else { Err(TopologyError::Contradiction(message())) }
}

fn is_ascending<T: PartialOrd>(values: &[T]) -> bool {
    values.windows(2).all(|pair| pair[0] < pair[1])
}

impl Topology {
    /// Checks everything.
    pub(super) fn validate(&self) -> Result<(), TopologyError> {
        self.validate_settings(self.placements.len())?;
        self.validate_nodes()?;
        self.validate_removed()?;
        for (group, replicas) in (0..).map(GroupId).zip(&self.placements) {
            self.validate_placement(group, replicas)?;
        }
        let bytes = self.bytes_at_most();
        if bytes > BYTES_MAX { Err(TopologyError::TooLong { bytes }) } else { Ok(()) }
    }

    /// Checks the numbers that are fixed when a cluster is made.
    pub(super) fn validate_settings(&self, groups: usize) -> Result<(), TopologyError> {
        bound("epoch", self.epoch, 1, EPOCH_MAX)?;
        bound("groups", groups as u64, 1, GROUPS_MAX as u64)?;
        bound("shards", self.shards.into(), 1, SHARDS_MAX.into())?;
        bound("replication factor", self.replication_factor.into(), 1, NODES_MAX as u64)
    }

    /// Checks the nodes, each and among each other.
    pub(super) fn validate_nodes(&self) -> Result<(), TopologyError> {
        bound("nodes", self.nodes.len() as u64, 1, NODES_MAX as u64)?;
        demand(is_ascending(&self.nodes.iter().map(|node| node.id).collect::<Vec<_>>()), || {
            String::from("two nodes have the same id, or the nodes are not in the order of their ids")
        })?;
        demand(self.placeable().next().is_some(), || String::from("every node is leaving: somebody must stay"))?;
        for node in &self.nodes {
            self.validate_node(node)?;
        }
        let mut seats = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        // A node may take over place and addresses of the one it replaces.
        for node in self.placeable() {
            demand(seats.insert(node.seat), || {
                format!("node {}: another node has its seat {} too", node.id.0, node.seat)
            })?;
            for address in &node.addresses {
                demand(addresses.insert(address), || {
                    format!(
                        "node {}: `{address}` is named twice: every shard of every node has its own address",
                        node.id.0
                    )
                })?;
            }
        }
        Ok(())
    }

    fn validate_node(&self, node: &NodeRecord) -> Result<(), TopologyError> {
        demand(node.id != NodeId(0), || String::from("a node has id 0: ids start at 1"))?;
        demand(node.seat != 0, || format!("node {}: its seat is 0: seats start at 1", node.id.0))?;
        demand(node.addresses.len() == usize::from(self.shards), || {
            let (id, given, shards) = (node.id.0, node.addresses.len(), self.shards);
            format!("node {id}: {given} addresses, but every node of this cluster has {shards} shards, each with one")
        })?;
        for address in &node.addresses {
            let length = address.len() as u64;
            bound(format!("node {}: bytes of an address", node.id.0), length, 1, ADDRESS_BYTES_MAX as u64)?;
            let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
            let is_one = is_plain && Address::read(address).is_ok_and(|read| read.of_shard(0) == *address);
            demand(is_one, || format!("node {}: {address:?} is not host:port", node.id.0))?;
        }
        Ok(())
    }

    fn validate_removed(&self) -> Result<(), TopologyError> {
        let leaving = self.nodes.iter().filter(|node| !node.is_placeable()).count();
        let removed = self.removed.len() + leaving;
        bound("nodes that were removed or are leaving", removed as u64, 0, REMOVED_MAX as u64)?;
        demand(is_ascending(&self.removed), || String::from("the removed ids are not ascending"))?;
        demand(self.removed.first() != Some(&0), || String::from("id 0 was removed: ids start at 1"))?;
        match self.nodes.iter().find(|node| self.removed.binary_search(&node.id.0).is_ok()) {
            Some(node) => Err(TopologyError::Contradiction(format!("node {} was removed and is there too", node.id.0))),
            None => Ok(()),
        }
    }

    fn validate_placement(&self, group: GroupId, replicas: &[NodeId]) -> Result<(), TopologyError> {
        bound(format!("group {}: replicas", group.0), replicas.len() as u64, 1, self.replicas_max(group) as u64)?;
        demand(is_ascending(replicas), || {
            format!("group {}: a replica is named twice, or they are not in the order of their ids", group.0)
        })?;
        match replicas.iter().find(|id| self.place_of(**id).is_none()) {
            Some(id) => Err(TopologyError::Contradiction(format!(
                "group {}: node {} is to hold it, but there is no such node",
                group.0, id.0
            ))),
            None => Ok(()),
        }
    }

    fn replicas_max(&self, group: GroupId) -> usize {
        if group == CONTROL_GROUP { CONTROL_VOTERS_MAX } else { self.replication_factor as usize }
    }

    /// A length that the text never exceeds, whatever the controller does with these nodes.
    fn bytes_at_most(&self) -> usize {
        let addresses = self.nodes.iter().flat_map(|node| &node.addresses).map(|address| address.len() + 3);
        let nodes = self.nodes.len() * NODE_BYTES + addresses.sum::<usize>();
        // Placements are made of today's ids; each takes as many bytes as `n` and the id, for there is a comma.
        let last = self.nodes.last().map_or(NUMBER_BYTES, |node| node.id.to_string().len());
        let replicas = self.nodes.len().min(self.replicas_max(GroupId(1)).max(CONTROL_VOTERS_MAX));
        HEAD_BYTES + nodes + self.removed.len() * NUMBER_BYTES + self.placements.len() * (3 + replicas * last)
    }
}
