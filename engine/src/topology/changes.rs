//! What an operator, or a node that presents itself, may change: add, remove and replace nodes.
//!
//! Off the data path.
//! Invariants: each is a pure function from a topology to the next one, or to `None` when what is asked is so already,
//! so that a request can be repeated; an id that was removed never returns; a node that comes with another data directory
//! than before is never taken for the one it was, since it has forgotten its votes.
//!
//! ```text
//!            add                 controller: has caught up          remove, replace              controller: holds nothing
//!   (new) ─────────> Joining ───────────────────────────> Active ──────────────────> Leaving ────────────────────> removed
//!                       └──────────────────────── remove, replace ───────────────────────^
//! ```
//!
//! Groups are moved by the controller, with one exception: a replaced node's groups are given to the new one at once.

use ringraft_raft::NodeId;

use super::{NodeRecord, NodeState, Topology, TopologyError};

/// Why a change is refused, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The id was used by a node that is gone.
    #[error(
        "node {id} was removed and ids never return: \
         give the node an empty data directory and an id that was never used"
    )]
    Removed {
        /// The id.
        id: u64,
    },
    /// The node is on its way out.
    #[error("node {id} is leaving the cluster: wait until it is removed, then add it as a new node with a new id")]
    Leaving {
        /// The id.
        id: u64,
    },
    /// The id belongs to a node with another data directory.
    #[error(
        "node {id} is a member with another data directory: its disk was wiped, or another process uses its id; \
         bring back its data, or replace it by a node with a new id"
    )]
    OtherInstance {
        /// The id.
        id: u64,
    },
    /// The id belongs to a node at other addresses, and nothing says that it is the same one.
    #[error(
        "node {id} is a member at {known}: to move it, start it with its data and the new address; \
         to add another node, give it an id of its own"
    )]
    OtherAddresses {
        /// The id.
        id: u64,
        /// The address of its first shard.
        known: String,
    },
    /// There is no such node.
    #[error("there is no node {id}: the nodes are {known}")]
    Unknown {
        /// The id.
        id: u64,
        /// Those there are.
        known: String,
    },
    /// Nobody would be left.
    #[error("node {id} is the last one that is not leaving: add another node first, and remove this one then")]
    LastNode {
        /// The id.
        id: u64,
    },
    /// A node cannot take the place of another while it has one of its own.
    #[error("node {id} has a place of its own already: replace node {old} by a new node, or remove it")]
    NotNew {
        /// The node that was to take over.
        id: u64,
        /// The node that was to be replaced.
        old: u64,
    },
    /// The change would make a topology that is none.
    #[error(transparent)]
    Invalid(#[from] TopologyError),
}

impl ChangeError {
    /// Whether the same request may be granted later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::LastNode { .. })
    }

    /// The request is refused; nothing is broken.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        false
    }
}

impl Topology {
    /// Adds a node, or notes the addresses and the data directory of one that is there. `instance` 0: not known.
    ///
    /// # Errors
    /// When the id is another node's or was one's, or the node cannot be part of this cluster.
    pub fn add(&self, id: NodeId, addresses: &[String], instance: u64) -> Result<Option<Self>, ChangeError> {
        self.refuse_removed(id)?;
        let mut next = self.clone();
        match self.place_of(id) {
            Some(place) => next.nodes[place] = self.nodes[place].presented(addresses, instance)?,
            None => next.insert(id, id.0, addresses, instance),
        }
        self.changed(next)
    }

    /// Lets a node leave. It stays a member until its groups are elsewhere.
    ///
    /// # Errors
    /// When there is no such node, or nobody would be left.
    pub fn remove(&self, id: NodeId) -> Result<Option<Self>, ChangeError> {
        if self.removed.binary_search(&id.0).is_ok() {
            return Ok(None);
        }
        let place = self.known_place(id)?;
        if self.placeable().all(|node| node.id == id) {
            return Err(ChangeError::LastNode { id: id.0 });
        }
        let mut next = self.clone();
        next.nodes[place].state = NodeState::Leaving;
        self.changed(next)
    }

    /// Puts a new node in the place of `old`, which leaves: whatever `old` was to hold, the new one is to hold.
    ///
    /// # Errors
    /// When there is no node `old`, or the other one is not new.
    pub fn replace(
        &self,
        old: NodeId,
        id: NodeId,
        addresses: &[String],
        instance: u64,
    ) -> Result<Option<Self>, ChangeError> {
        self.refuse_removed(id)?;
        if let Some(node) = self.node(id) {
            return self.replaced_before(old, node, addresses, instance);
        }
        let place = self.known_place(old)?;
        let mut next = self.clone();
        let former = &mut next.nodes[place];
        // The seat of a node that was leaving already is given on, too: its groups may still be there.
        former.state = NodeState::Leaving;
        let seat = former.seat;
        let seat = if self.placeable().any(|node| node.seat == seat && node.id != old) { id.0 } else { seat };
        next.insert(id, seat, addresses, instance);
        for replicas in next.placements.iter_mut().filter(|replicas| replicas.contains(&old)) {
            replicas.retain(|replica| *replica != old);
            replicas.push(id);
            replicas.sort_unstable();
        }
        self.changed(next)
    }

    /// A replacement is asked for again: it is so if `old` is leaving or gone and the new node is who it was.
    fn replaced_before(
        &self,
        old: NodeId,
        node: &NodeRecord,
        addresses: &[String],
        instance: u64,
    ) -> Result<Option<Self>, ChangeError> {
        if self.removed.binary_search(&old.0).is_err() {
            let former = &self.nodes[self.known_place(old)?];
            if former.is_placeable() {
                return Err(ChangeError::NotNew { id: node.id.0, old: old.0 });
            }
        }
        self.add(node.id, addresses, instance)
    }

    fn insert(&mut self, id: NodeId, seat: u64, addresses: &[String], instance: u64) {
        let record = NodeRecord { id, seat, addresses: addresses.to_vec(), instance, state: NodeState::Joining };
        let place = self.nodes.partition_point(|node| node.id < id);
        self.nodes.insert(place, record);
    }

    fn refuse_removed(&self, id: NodeId) -> Result<(), ChangeError> {
        match self.removed.binary_search(&id.0) {
            Ok(_) => Err(ChangeError::Removed { id: id.0 }),
            Err(_) => Ok(()),
        }
    }

    fn known_place(&self, id: NodeId) -> Result<usize, ChangeError> {
        self.place_of(id).ok_or_else(|| {
            let known: Vec<String> = self.nodes.iter().map(|node| node.id.0.to_string()).collect();
            ChangeError::Unknown { id: id.0, known: known.join(", ") }
        })
    }

    /// `next` as the topology after this one, if it is another one and valid.
    fn changed(&self, mut next: Self) -> Result<Option<Self>, ChangeError> {
        if next == *self {
            return Ok(None);
        }
        next.epoch = self.epoch + 1;
        next.validate()?;
        Ok(Some(next))
    }
}

impl NodeRecord {
    /// The record of a node that presents itself under this id.
    fn presented(&self, addresses: &[String], instance: u64) -> Result<Self, ChangeError> {
        let id = self.id.0;
        let is_proven = instance != 0 && instance == self.instance;
        if self.state == NodeState::Leaving && !is_proven {
            return Err(ChangeError::Leaving { id });
        }
        if instance != 0 && self.instance != 0 && instance != self.instance {
            return Err(ChangeError::OtherInstance { id });
        }
        if !is_proven && addresses != self.addresses {
            let known = self.addresses.first().cloned().unwrap_or_default();
            return Err(ChangeError::OtherAddresses { id, known });
        }
        let instance = instance.max(self.instance);
        Ok(Self { addresses: addresses.to_vec(), instance, ..self.clone() })
    }
}
