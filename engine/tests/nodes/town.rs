//! Nodes of several shards over in-memory disks, with boards and links as the production host keeps them.
//!
//! Off the data path.
//! Invariants: same calls, same result; a link is made when the accepting node's topology admits the dialing one, and
//! stays until one of them breaks it; what a process knows after a crash is what its disks and its `topology.json` hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::board::NodeBoard;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::live::{LiveSettings, Reloaded};
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::{Shard, ShardSettings, SnapshotSettings, WatchSettings};
use ringraft_engine::snapshot::{FileLoader, load_newest};
use ringraft_engine::topology::{NodeState, Topology};
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::slots;
use ringraft_net::wire::{self, AdminReply, AdminRequest, Operation, OperationResult, Outcome, Reply, Request};
use ringraft_raft::{Membership, NodeId, Role};
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::{Config as WalConfig, Identity, ValidConfig};

pub(crate) const GROUPS: u32 = 8;
pub(crate) const SHARDS: u16 = 2;
const REPORT_TICKS: u32 = 10;

pub(crate) struct Process {
    shards: Vec<(Shard<MemDisk>, ConnectionId)>,
    board: NodeBoard,
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) process: Option<Process>,
    disks: Vec<MemDisk>,
    initial: Vec<Membership>,
    /// `topology.json`.
    kept: Arc<Topology>,
    /// It stopped because it was removed.
    pub(crate) removed: bool,
    pub(crate) leader_priority: u32,
    starts: u64,
}

pub(crate) struct Town {
    pub(crate) nodes: Vec<Node>,
    replies: BTreeMap<u32, Reply>,
    admin_replies: BTreeMap<u32, AdminReply>,
    correlation: u32,
    /// What was acknowledged.
    pub(crate) acknowledged: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Groups on the move at once, at most, seen in any topology.
    pub(crate) moved_most: usize,
    last_seen: Option<Arc<Topology>>,
    /// What a reading of the configuration yields on every node.
    pub(crate) configuration: (Option<LiveSettings>, Result<Reloaded, String>),
    /// A node that stands still: it hears and says nothing, and no time passes for it.
    pub(crate) asleep: Option<u64>,
}

fn wal_config(node: u64, shard: u16) -> ValidConfig {
    let config = WalConfig { segment_bytes: 8 << 20, cache_bytes_max: 64 << 10, ..WalConfig::default() };
    config.validate(Identity { cluster: [7; 16], node, shard: shard.into() }).expect("valid")
}

pub(crate) fn addresses(node: u64) -> Vec<String> {
    (0..SHARDS).map(|shard| format!("10.0.0.{node}:{}", 7_000 + shard)).collect()
}

fn settings(node: &Node, shard: u16) -> ShardSettings {
    ShardSettings {
        node: NodeId(node.id),
        shard,
        shards: SHARDS,
        groups: GROUPS,
        topology: Arc::clone(&node.kept),
        initial: node.initial.clone(),
        shared: Arc::new(vec![(String::from("groups"), GROUPS.to_string())]),
        limits: Limits::CLIENT,
        waiting_max: 10_000,
        connections_max: 4,
        reply_bytes_max: 1 << 20,
        peer_queue_bytes_max: 8 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        report_ticks: REPORT_TICKS,
        leader_priority: node.leader_priority,
        snapshots: SnapshotSettings::default(),
        watches: WatchSettings::default(),
        incarnation: node.starts,
        first_election_ticks: 2,
    }
}

fn consensus() -> ConsensusSettings {
    ConsensusSettings {
        election_ticks_min: 10,
        election_ticks_max: 20,
        heartbeat_ticks: 2,
        append_bytes_max: 64 << 10,
        inflight_bytes_max: 1 << 20,
        uncommitted_bytes_max: 16 << 20,
        catch_up_bytes_per_tick: 2 << 10,
        entry_bytes_max: 64 << 10,
        catch_up_bytes: 8 << 10,
        tick_us: 25_000,
        lease_drift_percent: 10,
        seed: 42,
    }
}

impl Node {
    fn new(id: u64, initial: Vec<Membership>, kept: Arc<Topology>) -> Self {
        let disks = (0..SHARDS).map(|shard| MemDisk::new(&wal_config(id, shard), 3)).collect();
        Self { id, process: None, disks, initial, kept, removed: false, leader_priority: 100, starts: 0 }
    }

    fn start(&mut self) {
        self.starts += 1;
        let disks = std::mem::take(&mut self.disks);
        let shards = (0..SHARDS).zip(disks).map(|(shard, disk)| {
            let (settings, limits, config) =
                (settings(self, shard), StateLimits::default(), wal_config(self.id, shard));
            let recovered = disk.recover(&config).expect("recovery");
            let read = |name, loader: &mut FileLoader| {
                loader.push(&disk.snapshots()[&name]).map_err(|error| error.to_string())
            };
            let loaded =
                load_newest(&recovered, settings.snapshots.identity, limits, read, |_, _| {}).expect("snapshots");
            let restored = Shard::restore(settings, &consensus(), limits, config, (recovered, loaded), disk);
            let mut shard = restored.expect("settings");
            let client = shard.clients().open().expect("a connection");
            (shard, client)
        });
        let shards = shards.collect();
        self.process = Some(Process { shards, board: NodeBoard::new(Arc::clone(&self.kept)) });
    }

    fn crash(&mut self) {
        if let Some(process) = &mut self.process {
            let shards = process.shards.iter_mut();
            self.disks = shards.map(|(shard, _)| shard.disk().crash(&mut |_, _| Survival::Lost)).collect();
            self.process = None;
        }
    }

    pub(crate) fn topology(&self) -> Option<&Arc<Topology>> {
        Some(self.process.as_ref()?.shards[0].0.topology())
    }

    pub(crate) fn shard(&mut self, number: usize) -> &mut Shard<MemDisk> {
        &mut self.process.as_mut().expect("it runs").shards[number].0
    }

    /// The groups it holds a replica of.
    pub(crate) fn held(&self) -> Vec<u32> {
        let shards = self.process.iter().flat_map(|process| &process.shards);
        let mut held: Vec<u32> = shards.flat_map(|(shard, _)| shard.replicas()).collect();
        held.sort_unstable();
        held
    }
}

impl Town {
    pub(crate) fn new(count: u64) -> Self {
        let nodes = (1..=count).map(|node| (NodeId(node), addresses(node)));
        let topology = Arc::new(Topology::initial(nodes, GROUPS, SHARDS, 3).expect("a topology"));
        let node = |id| Node::new(id, topology.memberships(), Arc::clone(&topology));
        let mut town = Self {
            nodes: (1..=count).map(node).collect(),
            replies: BTreeMap::new(),
            admin_replies: BTreeMap::new(),
            correlation: 0,
            acknowledged: BTreeMap::new(),
            moved_most: 0,
            last_seen: None,
            configuration: (None, Ok(Reloaded::default())),
            asleep: None,
        };
        town.nodes.iter_mut().for_each(Node::start);
        town
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node")
    }

    pub(crate) fn crash(&mut self, id: u64) {
        self.node(id).crash();
    }

    /// A node that is down comes back with the topology it began with: the file is as old as that.
    pub(crate) fn start_with_the_first_topology(&mut self, id: u64) {
        let node = self.node(id);
        let addresses = (NodeId(id), addresses(id));
        node.kept = Arc::new(Topology::initial([addresses], GROUPS, SHARDS, 3).expect("a topology"));
        node.start();
    }

    pub(crate) fn start(&mut self, id: u64) {
        self.node(id).start();
    }

    /// A node with an empty directory and the topology that a member told.
    pub(crate) fn boot_joining(&mut self, id: u64) {
        let known = Arc::clone(self.newest());
        let mut node = Node::new(id, Vec::new(), known);
        node.start();
        self.nodes.push(node);
    }

    /// The newest topology that any process knows.
    pub(crate) fn newest(&self) -> &Arc<Topology> {
        let known = self.nodes.iter().filter_map(Node::topology);
        known.max_by_key(|topology| topology.epoch()).expect("somebody runs")
    }

    /// Links as hosts keep them: dialed by the shard's peers, admitted by the other side's topology.
    fn link(&mut self) {
        let process = |node: &Node| node.process.as_ref().map(|process| process.shards[0].0.admitted());
        let admitting: BTreeMap<u64, (Vec<u64>, Arc<Topology>)> = self
            .nodes
            .iter()
            .filter(|node| self.asleep != Some(node.id))
            .filter_map(|node| Some((node.id, (process(node)?, Arc::clone(node.topology()?)))))
            .collect();
        for node in &mut self.nodes {
            let (id, Some(process)) = (node.id, &mut node.process) else { continue };
            for (shard, _) in &mut process.shards {
                let peers: Vec<NodeId> = shard.peers().nodes().collect();
                for peer in peers {
                    let other = admitting.get(&peer.0);
                    let removed = other.is_some_and(|(_, topology)| topology.removed().contains(&id));
                    let admits = |members: &[u64]| members.is_empty() || members.contains(&id);
                    let accepts = !removed && other.is_some_and(|(members, _)| admits(members));
                    match (shard.peers().is_connected(peer), accepts, removed) {
                        (false, true, _) => shard.peer_connected(peer),
                        (false, _, true) => shard.refused_as_removed(),
                        // An accepted link stays until one side breaks it.
                        (true, _, _) if !admitting.contains_key(&peer.0) => shard.peer_disconnected(peer),
                        _ => {}
                    }
                }
            }
        }
    }

    pub(crate) fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.link();
            for node in self.nodes.iter_mut().filter(|node| self.asleep != Some(node.id)) {
                let Some(process) = &mut node.process else { continue };
                for (shard, _) in &mut process.shards {
                    shard.tick();
                    shard.exchange(&mut process.board);
                }
                if let Some(asked) = process.board.reload_asked() {
                    let (live, outcome) = self.configuration.clone();
                    process.board.reloaded(asked, live, outcome);
                }
                node.kept = Arc::clone(process.board.topology());
                if process.shards.iter().any(|(shard, _)| shard.is_removed()) {
                    node.removed = true;
                }
            }
            self.settle();
            for node in self.nodes.iter_mut().filter(|node| node.removed) {
                node.crash();
            }
            self.watch();
        }
    }

    /// A step of the controller moves a bounded number of groups.
    fn watch(&mut self) {
        let newest = Arc::clone(self.newest());
        if let Some(before) = self.last_seen.take().filter(|before| before.epoch() + 1 == newest.epoch()) {
            let groups = (1..GROUPS).map(ringraft_raft::GroupId);
            let moved = groups.filter(|group| before.replicas(*group) != newest.replicas(*group)).count();
            self.moved_most = self.moved_most.max(moved);
        }
        self.last_seen = Some(newest);
    }

    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            let mut moved = false;
            for place in 0..self.nodes.len() {
                for shard in 0..usize::from(SHARDS) {
                    moved |= self.turn(place, shard);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn turn(&mut self, place: usize, number: usize) -> bool {
        let node = &mut self.nodes[place];
        let (from, Some(process)) = (node.id, &mut node.process) else { return false };
        if self.asleep == Some(from) {
            return false;
        }
        let (shard, _) = &mut process.shards[number];
        let (mut moved, mut sent, mut replied) = (false, Vec::new(), Vec::new());
        while !shard.disk().pending().is_empty() {
            let completion = shard.disk().finish(0);
            shard.disk_done(completion);
            moved = true;
        }
        shard.turn();
        assert_eq!(shard.fatal(), None, "node {from} shard {number}");
        moved |= shard.wants_turn() || !shard.disk().pending().is_empty();
        while let Some(to) = shard.peers().next_dirty() {
            let Some(bytes) = shard.peers().take_outgoing(to) else { continue };
            sent.push((to, bytes.clone()));
            shard.peers().give_back(to, bytes);
        }
        while let Some(id) = shard.clients().next_dirty() {
            let mut bytes = Vec::new();
            assert!(shard.clients().take_outgoing(id, &mut bytes));
            replied.push(bytes);
        }
        moved |= !sent.is_empty() || !replied.is_empty();
        for (to, bytes) in sent {
            let target = self.nodes.iter_mut().find(|node| node.id == to.0 && self.asleep != Some(to.0));
            let Some(process) = target.and_then(|node| node.process.as_mut()) else { continue };
            match process.shards[number].0.peer_bytes(NodeId(from), &bytes) {
                Ok(taken) => assert_eq!(taken, bytes.len(), "whole frames"),
                Err(reason) => {
                    assert!(reason.contains("was removed"), "{reason}");
                    let process = self.nodes[place].process.as_mut().expect("it runs");
                    process.shards[number].0.peer_disconnected(to);
                }
            }
        }
        replied.iter().for_each(|bytes| self.collect(bytes));
        moved
    }

    fn collect(&mut self, mut bytes: &[u8]) {
        while let Some(parsed) = frame::parse(bytes, &Limits::CLIENT).expect("frames") {
            match parsed.kind {
                FrameKind::Reply => {
                    let reply = wire::view_reply(parsed.head).expect("a reply").to_owned_reply();
                    self.replies.insert(parsed.correlation, reply);
                }
                FrameKind::AdminReply => {
                    let reply = wire::view_admin_reply(parsed.head).expect("an answer");
                    self.admin_replies.insert(parsed.correlation, reply);
                }
                other => panic!("a client got a frame of kind {other:?}"),
            }
            bytes = &bytes[parsed.total_bytes..];
        }
    }

    fn send(&mut self, id: u64, shard: u16, write: impl FnOnce(&mut Vec<u8>, u32)) -> u32 {
        self.correlation += 1;
        let (mut bytes, mut buffer, correlation) = (Vec::new(), ReceiveBuffer::new(), self.correlation);
        write(&mut bytes, correlation);
        buffer.extend(&bytes);
        let process = self.node(id).process.as_mut().expect("it runs");
        let (shard, client) = &mut process.shards[usize::from(shard)];
        shard.client_bytes(*client, &mut buffer).expect("a good frame");
        correlation
    }

    /// Asks a node for something of a group; `None`: no answer yet.
    pub(crate) fn ask(&mut self, id: u64, group: u32, request: &Request) -> Option<Outcome> {
        let shard = slots::shard_of_group(group, SHARDS);
        let correlation = self.send(id, shard, |out, correlation| _ = request.append_frame(out, correlation));
        self.settle();
        self.replies.remove(&correlation).map(|reply| reply.outcome)
    }

    /// Asks an operator's question and waits for the answer.
    pub(crate) fn administrate(&mut self, id: u64, shard: u16, request: &AdminRequest) -> AdminReply {
        let correlation = self.send(id, shard, |out, correlation| _ = request.append_frame(out, correlation));
        for _ in 0..400 {
            self.settle();
            if let Some(reply) = self.admin_replies.remove(&correlation) {
                return reply;
            }
            self.tick(1);
        }
        panic!("no answer to {request:?}");
    }

    /// Asks the leader of group 0, until one does it.
    pub(crate) fn change(&mut self, request: &AdminRequest) -> Topology {
        for _ in 0..50 {
            let leader = self.leader(0);
            match self.administrate(leader, 0, request) {
                AdminReply::Topology { text, .. } => return Topology::decode(text.as_bytes()).expect("a topology"),
                AdminReply::NotLeader { .. } => self.tick(5),
                other => panic!("{request:?}: {other:?}"),
            }
        }
        panic!("nobody does {request:?}");
    }

    /// Who leads a group in the latest term and serves it.
    pub(crate) fn find_leader(&self, group: u32) -> Option<u64> {
        let views = self.nodes.iter().filter_map(|node| {
            let (shard, _) = node.process.as_ref()?.shards.get(usize::from(slots::shard_of_group(group, SHARDS)))?;
            let view = shard.group_views().find(|view| view.group == group)?;
            (view.role == Role::Leader && view.serving).then_some((view.hard_state.current_term, node.id))
        });
        views.max().map(|(_, node)| node)
    }

    pub(crate) fn leader(&mut self, group: u32) -> u64 {
        for _ in 0..600 {
            if let Some(node) = self.find_leader(group) {
                return node;
            }
            self.tick(1);
        }
        panic!("no leader of group {group}");
    }

    /// A key of a group.
    pub(crate) fn key(group: u32, number: u32) -> Vec<u8> {
        let keys = (0..).map(|salt| format!("k{number}-{salt}").into_bytes());
        let mut own = keys.filter(|key| slots::group_of_key(key, GROUPS) == group);
        own.next().expect("some key belongs to every group")
    }

    /// Writes a value into every group; what is acknowledged is remembered.
    pub(crate) fn write(&mut self, number: u32) {
        for group in 0..GROUPS {
            let leader = self.leader(group);
            let (key, value) = (Self::key(group, number), format!("v{number}").into_bytes());
            let put = Operation::Put { key: key.clone(), value: value.clone() };
            let request = Request { operations: vec![put], ..Request::default() };
            if let Some(Outcome::Done(_)) = self.ask(leader, group, &request) {
                self.acknowledged.insert(key, value);
            }
        }
    }

    /// Everything acknowledged is read from the leaders.
    pub(crate) fn read_all(&mut self) {
        for (key, value) in self.acknowledged.clone() {
            let group = slots::group_of_key(&key, GROUPS);
            let request = Request { operations: vec![Operation::Get { key: key.clone() }], ..Request::default() };
            let found = (0..200).find_map(|_| {
                let leader = self.leader(group);
                let outcome = self.ask(leader, group, &request);
                self.tick(u32::from(outcome.is_none()));
                outcome.filter(|outcome| matches!(outcome, Outcome::Done(_)))
            });
            let expected = Outcome::Done(vec![OperationResult::Value(Some(value))]);
            assert_eq!(found, Some(expected), "{}", String::from_utf8_lossy(&key));
        }
    }

    /// Whether the topology is where the ring wants it, and every node that runs holds exactly what it says.
    pub(crate) fn is_at_rest(&self) -> bool {
        let topology = self.newest();
        let ids = topology.nodes().iter().map(|node| (node.id, node.addresses.clone()));
        let ring = Topology::initial(ids, GROUPS, SHARDS, 3).expect("a topology");
        let groups = || (0..GROUPS).map(ringraft_raft::GroupId);
        let holds = |node: &Node| {
            let own =
                |group: &ringraft_raft::GroupId| group.0 == 0 || topology.replicas(*group).contains(&NodeId(node.id));
            node.process.is_none() || node.held() == groups().filter(own).map(|group| group.0).collect::<Vec<_>>()
        };
        topology.nodes().iter().all(|node| node.state == NodeState::Active)
            && (self.has_seats() || groups().all(|group| topology.replicas(group) == ring.replicas(group)))
            && self.nodes.iter().all(holds)
    }

    /// Whether a node sits where another one sat: then the ring is not that of the ids.
    fn has_seats(&self) -> bool {
        self.newest().nodes().iter().any(|node| node.seat != node.id.0)
    }

    /// Writes and ticks until the cluster is at rest.
    pub(crate) fn rest(&mut self) {
        for round in 0..3_000 {
            if self.is_at_rest() {
                return;
            }
            if round % 40 == 0 {
                self.write(10_000 + round);
            }
            self.tick(1);
        }
        let held: Vec<_> = self.nodes.iter().map(|node| (node.id, node.held())).collect();
        panic!("the cluster does not come to rest: {held:?} {:#?}", self.newest());
    }
}

pub(crate) fn add(node: u64) -> AdminRequest {
    AdminRequest::AddNode { node, addresses: addresses(node), instance: 70 + node }
}
