//! What the shards of one node share: the topology, the groups each leads, what was heard of other nodes, wishes, metrics.
//!
//! Off the data path: every shard comes by after its tick.
//!
//! ```text
//!   shard 0 ── topology (from group 0), what other nodes report ──> board ──> every shard
//!   every shard ── groups it leads, requests ──> board ──> shard 0, which tells the other nodes
//!   shard 0 ── wishes for transfers ──> board ──> the shard of the group
//!   every shard ── its metrics and what its replicas have become, once a second ──> board ──> whoever asks for them
//! ```
//! Invariants: it is bounded by the groups and nodes there are, and `TRANSITIONS_MAX`; the topology on it never gets older; losing it loses
//! nothing that is not told again.
//! It is a plain value: the host decides how threads share it, and holds it for one exchange at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ringraft_net::slots;
use ringraft_raft::{GroupId, NodeId};

use super::inspect::MembershipView;
use super::live::Reloading;
use crate::metrics::ShardSample;
use crate::metrics::record::Transition;
use crate::topology::{GroupReport, Topology};

/// Wishes that may wait for one shard.
const WISHES_MAX: usize = 64;

/// Transitions that wait to be asked for, if anybody asks; older ones are forgotten.
const TRANSITIONS_MAX: usize = 1_024;

/// What is known of a group from its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedGroup {
    /// The leader.
    pub leader: NodeId,
    /// Epoch of the topology that the leader acts on.
    pub epoch: u64,
    /// Its members, as the leader knows them.
    pub view: MembershipView,
    /// Members that have not caught up.
    pub behind: Vec<NodeId>,
}

impl LedGroup {
    /// The same for the controller.
    #[must_use]
    pub fn report(&self) -> GroupReport {
        GroupReport {
            group: GroupId(self.view.group),
            term: self.view.term,
            epoch: self.epoch,
            leader: self.leader,
            membership: self.view.members.clone(),
            behind: self.behind.clone(),
        }
    }
}

/// Where else a node can be reached, besides its shards; empty: nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Its HTTP.
    pub http: String,
    /// Its gRPC.
    pub grpc: String,
}

/// The newest that is known of each group, by group.
pub type KnownGroups = BTreeMap<u32, LedGroup>;

/// What one shard wrote.
#[derive(Clone, Debug, Default)]
struct Place {
    led: Vec<LedGroup>,
    requests: u64,
    wishes: Vec<(GroupId, NodeId)>,
    sample: Option<Arc<ShardSample>>,
}

/// What the shards of a node share.
#[derive(Clone, Debug)]
pub struct NodeBoard {
    topology: Arc<Topology>,
    known: Arc<KnownGroups>,
    places: Vec<Place>,
    services: Arc<Services>,
    transitions: VecDeque<Transition>,
    pub(super) reloading: Reloading,
}

impl NodeBoard {
    /// A board for a node that knows this topology.
    #[must_use]
    pub fn new(topology: Arc<Topology>) -> Self {
        let places = vec![Place::default(); usize::from(topology.shards())];
        Self {
            topology,
            known: Arc::default(),
            places,
            services: Arc::default(),
            transitions: VecDeque::new(),
            reloading: Reloading::default(),
        }
    }

    /// The same for a node that serves more than its shards do: other nodes are told.
    #[must_use]
    pub fn with_services(mut self, services: Services) -> Self {
        self.services = Arc::new(services);
        self
    }

    /// What this node serves besides its shards.
    pub(super) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The newest topology that a shard of this node knows.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Takes the topology of a shard if it is not older; returns the board's.
    pub(super) fn meet(&mut self, topology: &Arc<Topology>, is_source: bool) -> &Arc<Topology> {
        if topology.epoch() > self.topology.epoch() || is_source && topology.epoch() == self.topology.epoch() {
            self.topology = Arc::clone(topology);
        }
        &self.topology
    }

    /// What is known of the groups that other nodes lead.
    pub(super) fn known(&self) -> &Arc<KnownGroups> {
        &self.known
    }

    pub(super) fn set_known(&mut self, known: KnownGroups) {
        self.known = Arc::new(known);
    }

    /// A shard says which groups it leads and how many requests it took since it last said so.
    pub(super) fn publish(&mut self, shard: u16, led: Vec<LedGroup>, requests: u64) {
        if let Some(place) = self.places.get_mut(usize::from(shard)) {
            (place.led, place.requests) = (led, requests);
        }
    }

    /// A shard tells what its replicas have become.
    pub(super) fn note_transitions(&mut self, transitions: impl Iterator<Item = Transition>) {
        for transition in transitions {
            if self.transitions.len() == TRANSITIONS_MAX {
                self.transitions.pop_front();
            }
            self.transitions.push_back(transition);
        }
    }

    /// What replicas of this node have become since the last call; in their order as far as they are of one group.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        self.transitions.drain(..).collect()
    }

    /// A shard shows its metrics.
    pub(super) fn publish_sample(&mut self, shard: u16, sample: ShardSample) {
        if let Some(place) = self.places.get_mut(usize::from(shard)) {
            place.sample = Some(Arc::new(sample));
        }
    }

    /// What each shard showed last, in their order; a shard that has not begun is left out.
    #[must_use]
    pub fn samples(&self) -> Vec<Arc<ShardSample>> {
        self.places.iter().filter_map(|place| place.sample.clone()).collect()
    }

    /// The groups that this node leads.
    pub(super) fn led(&self) -> impl Iterator<Item = &LedGroup> {
        self.places.iter().flat_map(|place| &place.led)
    }

    /// Requests that this node took in the last second.
    pub(super) fn requests(&self) -> u64 {
        self.places.iter().map(|place| place.requests).sum()
    }

    /// A wish that a group be led by another node, for the shard it lives in.
    pub(super) fn wish(&mut self, group: GroupId, to: NodeId) {
        let shard = slots::shard_of_group(group.0, self.topology.shards());
        if let Some(place) = self.places.get_mut(usize::from(shard))
            && place.wishes.len() < WISHES_MAX
        {
            place.wishes.push((group, to));
        }
    }

    pub(super) fn take_wishes(&mut self, shard: u16) -> Vec<(GroupId, NodeId)> {
        self.places.get_mut(usize::from(shard)).map(|place| std::mem::take(&mut place.wishes)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(nodes: u64, changes: u64) -> Arc<Topology> {
        let nodes = (1..=nodes).map(|node| (NodeId(node), vec![format!("h{node}:1"), format!("h{node}:2")]));
        let mut topology = Topology::initial(nodes, 4, 2, 3).unwrap();
        for node in 0..changes {
            let addresses = [format!("new{node}:1"), format!("new{node}:2")];
            topology = topology.add(NodeId(90 + node), &addresses, 0).unwrap().unwrap();
        }
        Arc::new(topology)
    }

    #[test]
    fn the_topology_never_gets_older() {
        let mut board = NodeBoard::new(topology(3, 1));
        assert_eq!(board.meet(&topology(3, 0), true).epoch(), 2);
        assert_eq!(board.meet(&topology(3, 3), false).epoch(), 4);
        assert_eq!(board.meet(&topology(3, 2), true).epoch(), 4);
        let same = topology(2, 3);
        assert_ne!(board.meet(&same, false), &same, "only group 0 knows which one is committed");
        assert_eq!(board.meet(&same, true), &same);
    }

    #[test]
    fn wishes_reach_the_shard_of_their_group_once_and_are_bounded() {
        let mut board = NodeBoard::new(topology(3, 0));
        board.wish(GroupId(3), NodeId(2));
        assert_eq!(board.take_wishes(0), []);
        assert_eq!(board.take_wishes(1), [(GroupId(3), NodeId(2))]);
        assert_eq!(board.take_wishes(1), []);
        (0..200).for_each(|_| board.wish(GroupId(2), NodeId(1)));
        assert_eq!(board.take_wishes(0).len(), WISHES_MAX);
    }
}
