//! Routing: what the client knows of the cluster: nodes, shards, groups, leaders.
//!
//! Off the data path of a node.
//!
//! Invariants: endpoint of (node place, shard) = `node place * shards + shard`; a group has a leader that was told or none,
//! and then the nodes are asked in turn.
//!
//! It holds no connections' state, only their places in the table.

use super::{
    Address,
    session::Session,
    slab::{List, NONE},
};
use crate::{limits::NODES_MAX, slots, wire::Topology};
use std::collections::BTreeMap;

/// One shard of one node.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) node: u64,
    pub(super) shard: u16,
    /// `None`: the topology names nothing that can be connected to.
    pub(super) address: Option<Address>,
    /// Places in the table of connections.
    pub(super) connections: Vec<u32>,
    /// The next one to use.
    pub(super) turn: usize,
    pub(super) attempts: u32,
    /// Not dialed again before.
    pub(super) retry_at_us: u64,
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) shard: u16,
    /// Place of the node that leads, as far as known.
    pub(super) leader: Option<usize>,
    /// Place of the node to ask while none is known.
    pub(super) guess: usize,
    pub(super) attempts: u32,
    /// Nothing is sent before.
    pub(super) paused_until_us: u64,
    pub(super) session: Session,
    /// The request that opens the session, while it waits.
    pub(super) opening: List,
    pub(super) reads: List,
    /// Reads that any replica may answer: they do not wait for the leader.
    pub(super) replica_reads: List,
    pub(super) writes: List,
}

impl Group {
    /// Nothing of it waits.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.reads.is_empty() && self.replica_reads.is_empty() && self.writes.is_empty() && self.opening.is_empty()
    }
}

/// The cluster as far as known; empty at first.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) cluster: Option<[u8; 16]>,
    /// Of the topology; never goes back.
    pub(super) epoch: u64,
    pub(super) shards: u16,
    pub(super) nodes: Vec<u64>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) groups: Vec<Group>,
}

impl Routing {
    /// The cluster is known.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Takes over what a node told first. `false`: it makes no sense.
    pub(super) fn learn(&mut self, cluster: [u8; 16], topology: &Topology) -> bool {
        let Topology { groups, shards, nodes, leaders, .. } = topology;
        if !is_sensible(topology) {
            return false;
        }
        self.cluster = Some(cluster);
        self.shards = *shards;
        self.learn_nodes(topology);
        self.groups = (0..*groups)
            .map(|group| {
                let told = leaders.get(group as usize).copied().flatten();
                let leader = told.and_then(|node| self.place_of(node));
                Group::new(slots::shard_of_group(group, *shards), leader, group as usize % nodes.len())
            })
            .collect();
        true
    }

    fn learn_nodes(&mut self, topology: &Topology) {
        self.epoch = topology.epoch;
        self.nodes = topology.nodes.iter().map(|node| node.node).collect();
        let endpoints = topology.nodes.iter().flat_map(|node| {
            node.addresses.iter().zip(0..).map(|(address, shard)| Endpoint::new(node.node, shard, address))
        });
        self.endpoints = endpoints.collect();
    }

    /// Whether a topology can be of the same cluster, later.
    pub(super) fn can_follow(&self, topology: &Topology) -> bool {
        is_sensible(topology) && topology.shards == self.shards && topology.groups as usize == self.groups.len()
    }

    /// Takes over the nodes of a newer topology ([`Routing::can_follow`]). For each endpoint of before: which one it is
    /// now, if the same shard is at the same address still. Connections are listed nowhere after.
    pub(super) fn follow(&mut self, topology: &Topology) -> Vec<Option<u32>> {
        let (old_nodes, old_endpoints) = (std::mem::take(&mut self.nodes), std::mem::take(&mut self.endpoints));
        self.learn_nodes(topology);
        let new: BTreeMap<_, _> = self.endpoints.iter().zip(0_u32..).map(|(state, at)| (state.place(), at)).collect();
        let moves: Vec<_> = old_endpoints.iter().map(|old| new.get(&old.place()).copied()).collect();
        for (old, now) in old_endpoints.iter().zip(&moves) {
            if let Some(now) = now {
                let state = &mut self.endpoints[*now as usize];
                (state.attempts, state.retry_at_us) = (old.attempts, old.retry_at_us);
            }
        }
        let places: Vec<_> = old_nodes.iter().map(|node| self.place_of(*node)).collect();
        let nodes = self.nodes.len();
        for (group, state) in self.groups.iter_mut().enumerate() {
            state.leader = state.leader.and_then(|place| places[place]);
            state.guess = places[state.guess].unwrap_or(group % nodes);
        }
        self.learn_leaders(&topology.leaders);
        moves
    }

    /// What another node tells of leaders fills gaps.
    pub(super) fn learn_leaders(&mut self, leaders: &[Option<u64>]) {
        for (group, leader) in leaders.iter().enumerate().take(self.groups.len()) {
            let place = leader.and_then(|node| self.place_of(node));
            let known = &mut self.groups[group].leader;
            *known = known.or(place);
        }
    }

    pub(super) fn place_of(&self, node: u64) -> Option<usize> {
        self.nodes.iter().position(|&known| known == node)
    }

    #[inline]
    pub(super) fn endpoint_of(&self, node_place: usize, shard: u16) -> u32 {
        (node_place * usize::from(self.shards) + usize::from(shard)) as u32
    }

    /// The endpoint of a node's shard.
    pub(super) fn find(&self, node: u64, shard: u16) -> Option<u32> {
        let place = self.place_of(node)?;
        (shard < self.shards).then(|| self.endpoint_of(place, shard))
    }

    /// Whom to ask for a group.
    #[inline]
    pub(super) fn target(&self, group: u32) -> u32 {
        let state = &self.groups[group as usize];
        self.endpoint_of(state.leader.unwrap_or(state.guess), state.shard)
    }

    /// Whoever was asked last for the group is not the one; ask the next unless somebody is known.
    pub(super) fn forget_leader(&mut self, group: u32, asked: u32) {
        let nodes = self.nodes.len();
        let asked = asked as usize / usize::from(self.shards);
        let state = &mut self.groups[group as usize];
        if state.leader == Some(asked) {
            state.leader = None;
        }
        if state.leader.is_none() && state.guess == asked {
            state.guess = (asked + 1) % nodes;
        }
    }
}

fn is_sensible(topology: &Topology) -> bool {
    let Topology { groups, shards, nodes, .. } = topology;
    (1..=u32::from(slots::SLOTS)).contains(groups)
        && *shards >= 1
        && !nodes.is_empty()
        && nodes.len() <= NODES_MAX
        && nodes.iter().all(|node| node.addresses.len() == usize::from(*shards))
}

impl Endpoint {
    /// What must stay the same for its connections to be of use.
    fn place(&self) -> (u64, u16, Option<&Address>) {
        (self.node, self.shard, self.address.as_ref())
    }

    fn new(node: u64, shard: u16, address: &str) -> Self {
        Self {
            node,
            shard,
            address: Address::parse(address),
            connections: Vec::new(),
            turn: 0,
            attempts: 0,
            retry_at_us: 0,
        }
    }
}

impl Group {
    fn new(shard: u16, leader: Option<usize>, guess: usize) -> Self {
        Self {
            shard,
            leader,
            guess: leader.unwrap_or(guess),
            attempts: 0,
            paused_until_us: 0,
            session: Session::new(),
            opening: List::new(),
            reads: List::new(),
            replica_reads: List::new(),
            writes: List::new(),
        }
    }
}

/// No endpoint: of a connection made before the cluster was known.
pub(super) const NO_ENDPOINT: u32 = NONE;
