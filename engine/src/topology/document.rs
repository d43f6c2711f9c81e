//! The text of a topology: one JSON document, format 1.
//!
//! Off the data path.
//!
//! ```text
//! {"format":1,"epoch":1,"shards":1,"replication_factor":3,
//!  "nodes":[{"id":1,"seat":1,"addresses":["a:7000"],"instance":0,"state":"active"}],
//!  "removed":[],
//!  "placements":[[1],[1]]}                              the replicas of group 0, of group 1, ...; in one line
//! ```
//!
//! Invariants: the same topology has the same bytes, which a compare-and-set needs; whatever is decoded is valid; what
//! this release does not know is refused, never dropped, since the next change would lose it.

use ringraft_raft::NodeId;
use serde::{Deserialize, Serialize};

use super::{NodeRecord, NodeState, Topology, TopologyError};

/// Longest text of a topology.
pub const BYTES_MAX: usize = 1 << 20;

const FORMAT: u32 = 1;

/// What is read first, whatever else there is.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    epoch: u64,
    shards: u16,
    replication_factor: u32,
    nodes: Vec<NodeDocument>,
    removed: Vec<u64>,
    placements: Vec<Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeDocument {
    id: u64,
    seat: u64,
    addresses: Vec<String>,
    instance: u64,
    state: StateDocument,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateDocument {
    Joining,
    Active,
    Leaving,
}

impl Topology {
    /// Its text.
    ///
    /// # Panics
    /// Never: numbers, lists and strings are always JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let placements = self.placements.iter().map(|replicas| replicas.iter().map(|id| id.0).collect());
        let document = Document {
            format: FORMAT,
            epoch: self.epoch,
            shards: self.shards,
            replication_factor: self.replication_factor,
            nodes: self.nodes.iter().map(NodeDocument::of).collect(),
            removed: self.removed.clone(),
            placements: placements.collect(),
        };
        serde_json::to_vec(&document).expect("numbers, lists and strings are always JSON")
    }

    /// The topology of a text.
    ///
    /// # Errors
    /// When it is not one, is of another format, or says what cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, TopologyError> {
        if bytes.len() > BYTES_MAX {
            return Err(TopologyError::TooLong { bytes: bytes.len() });
        }
        let syntax = |error: serde_json::Error| TopologyError::Syntax { problem: error.to_string() };
        let head: Head = serde_json::from_slice(bytes).map_err(syntax)?;
        if head.format != FORMAT {
            return Err(TopologyError::Format { found: head.format, known: FORMAT });
        }
        let document: Document = serde_json::from_slice(bytes).map_err(syntax)?;
        let placements = document.placements.into_iter().map(|replicas| replicas.into_iter().map(NodeId).collect());
        let topology = Self {
            epoch: document.epoch,
            shards: document.shards,
            replication_factor: document.replication_factor,
            nodes: document.nodes.into_iter().map(NodeDocument::into_record).collect(),
            removed: document.removed,
            placements: placements.collect(),
        };
        topology.validate()?;
        Ok(topology)
    }
}

impl NodeDocument {
    fn of(node: &NodeRecord) -> Self {
        let state = match node.state {
            NodeState::Joining => StateDocument::Joining,
            NodeState::Active => StateDocument::Active,
            NodeState::Leaving => StateDocument::Leaving,
        };
        let addresses = node.addresses.clone();
        Self { id: node.id.0, seat: node.seat, addresses, instance: node.instance, state }
    }

    fn into_record(self) -> NodeRecord {
        let state = match self.state {
            StateDocument::Joining => NodeState::Joining,
            StateDocument::Active => NodeState::Active,
            StateDocument::Leaving => NodeState::Leaving,
        };
        let Self { id, seat, addresses, instance, .. } = self;
        NodeRecord { id: NodeId(id), seat, addresses, instance, state }
    }
}
