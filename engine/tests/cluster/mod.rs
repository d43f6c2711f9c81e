//! Three production shards over in-memory disks and a tiny deterministic host, for the tests of this folder.
//!
//! Off the data path.
//! Invariant: nothing happens but what a test asks for; same calls, same result.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::status::GroupStatus;
use ringraft_engine::shard::{Shard, ShardSettings, SnapshotSettings};
use ringraft_engine::snapshot::{FileLoader, load_newest};
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, AdminReply, AdminRequest, Operation, OperationResult, Outcome, Reply, Request};
use ringraft_raft::{Membership, NodeId};
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::{Config as WalConfig, Identity, ValidConfig};

pub(crate) const GROUPS: u32 = 2;

pub(crate) struct Node {
    pub(crate) shard: Shard<MemDisk>,
    pub(crate) client: ConnectionId,
    pub(crate) up: bool,
    pub(crate) flushing: bool,
    settings: ShardSettings,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) replies: BTreeMap<u32, Reply>,
    pub(crate) admin_replies: BTreeMap<u32, AdminReply>,
    pub(crate) correlation: u32,
    pub(crate) cut: Vec<(u64, u64)>,
}

pub(crate) fn wal_config(node: u64) -> ValidConfig {
    let config = WalConfig { segment_bytes: 8 << 20, cache_bytes_max: 64 << 10, ..WalConfig::default() };
    config.validate(Identity { cluster: [7; 16], node, shard: 0 }).expect("valid")
}

pub(crate) fn consensus() -> ConsensusSettings {
    ConsensusSettings {
        election_ticks_min: 10,
        election_ticks_max: 20,
        heartbeat_ticks: 2,
        append_bytes_max: 64 << 10,
        inflight_bytes_max: 1 << 20,
        uncommitted_bytes_max: 16 << 20,
        entry_bytes_max: 64 << 10,
        catch_up_bytes: 8 << 10,
        seed: 42,
    }
}

pub(crate) fn settings(node: u64, nodes: u64) -> ShardSettings {
    ShardSettings {
        node: NodeId(node),
        shard: 0,
        shards: 1,
        groups: GROUPS,
        peers: (1..=nodes).filter(|peer| *peer != node).map(NodeId).collect(),
        initial: vec![Membership::new((1..=nodes).map(NodeId).collect()); GROUPS as usize],
        addresses: (1..=nodes).map(|node| (NodeId(node), vec![format!("127.0.0.1:{node}")])).collect(),
        limits: Limits::CLIENT,
        waiting_max: 10_000,
        connections_max: 16,
        reply_bytes_max: 1 << 20,
        peer_queue_bytes_max: 8 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        snapshots: SnapshotSettings::default(),
        first_election_ticks: 2,
    }
}

pub(crate) fn start_with(settings: ShardSettings, disk: MemDisk) -> Node {
    let (node, kept) = (settings.node.0, settings.clone());
    let recovered = disk.recover(&wal_config(node)).expect("recovery");
    let read = |name, loader: &mut FileLoader| loader.push(&disk.snapshots()[&name]).map_err(|error| error.to_string());
    let limits = StateLimits::default();
    let loaded = load_newest(&recovered, settings.snapshots.identity, limits, read, |_, _| {}).expect("snapshots");
    let mut shard =
        Shard::restore(settings, &consensus(), limits, wal_config(node), recovered, loaded, disk).expect("settings");
    let client = shard.clients().open().expect("a connection");
    Node { shard, client, up: true, flushing: true, settings: kept }
}

impl Cluster {
    pub(crate) fn new(count: u64) -> Self {
        Self::with(count, SnapshotSettings::default())
    }

    pub(crate) fn with(count: u64, snapshots: SnapshotSettings) -> Self {
        let start_one = |node| {
            let settings = ShardSettings { snapshots, ..settings(node, count) };
            start_with(settings, MemDisk::new(&wal_config(node), 3))
        };
        let nodes = (1..=count).map(start_one).collect();
        let mut cluster =
            Self { nodes, replies: BTreeMap::new(), admin_replies: BTreeMap::new(), correlation: 0, cut: vec![] };
        cluster.link_all();
        cluster
    }

    pub(crate) fn link_all(&mut self) {
        let count = self.nodes.len() as u64;
        for from in 1..=count {
            for to in (1..=count).filter(|to| *to != from) {
                if self.nodes[to as usize - 1].up && self.nodes[from as usize - 1].up {
                    self.nodes[from as usize - 1].shard.peer_connected(NodeId(to));
                }
            }
        }
    }

    /// Disks, turns and deliveries until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            let mut moved = false;
            for place in 0..self.nodes.len() {
                moved |= self.turn(place);
            }
            if !moved {
                return;
            }
        }
    }

    pub(crate) fn turn(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        if !node.up {
            return false;
        }
        let mut moved = false;
        while node.flushing && !node.shard.disk().pending().is_empty() {
            let completion = node.shard.disk().finish(0);
            node.shard.disk_done(completion);
            moved = true;
        }
        node.shard.turn();
        moved |= node.shard.wants_turn() || (node.flushing && !node.shard.disk().pending().is_empty());
        assert_eq!(node.shard.fatal(), None, "node {}", place + 1);
        while let Some(to) = self.nodes[place].shard.peers().next_dirty() {
            let bytes = self.nodes[place].shard.peers().take_outgoing(to).expect("queued bytes");
            self.deliver(place as u64 + 1, to.0, &bytes);
            self.nodes[place].shard.peers().give_back(to, bytes);
            moved = true;
        }
        while let Some(id) = self.nodes[place].shard.clients().next_dirty() {
            let mut bytes = Vec::new();
            assert!(self.nodes[place].shard.clients().take_outgoing(id, &mut bytes));
            self.collect(&bytes);
            moved = true;
        }
        moved
    }

    pub(crate) fn deliver(&mut self, from: u64, to: u64, bytes: &[u8]) {
        let target = &mut self.nodes[to as usize - 1];
        if target.up && !self.cut.contains(&(from, to)) {
            let taken = target.shard.peer_bytes(NodeId(from), bytes).expect("frames of a peer");
            assert_eq!(taken, bytes.len(), "whole frames");
        }
    }

    pub(crate) fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                node.shard.tick();
            }
            self.settle();
        }
    }

    pub(crate) fn status(&self, node: u64, group: u32) -> GroupStatus {
        self.nodes[node as usize - 1].shard.status().groups[group as usize].clone()
    }

    pub(crate) fn leader(&mut self, group: u32) -> u64 {
        for _ in 0..200 {
            let found = (1..=self.nodes.len() as u64)
                .filter(|node| self.nodes[*node as usize - 1].up)
                .find(|node| self.status(*node, group).role == "leader" && self.status(*node, group).serving);
            if let Some(node) = found {
                return node;
            }
            self.tick(1);
        }
        panic!("no leader of group {group}");
    }

    pub(crate) fn send(&mut self, node: u64, request: &Request) -> u32 {
        self.correlation += 1;
        let (mut bytes, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        request.append_frame(&mut bytes, self.correlation);
        buffer.extend(&bytes);
        let target = &mut self.nodes[node as usize - 1];
        target.shard.client_bytes(target.client, &mut buffer).expect("a good frame");
        assert!(buffer.filled().is_empty());
        self.correlation
    }

    pub(crate) fn ask(&mut self, node: u64, request: &Request) -> Option<Outcome> {
        let correlation = self.send(node, request);
        self.settle();
        self.replies.remove(&correlation).map(|reply| reply.outcome)
    }

    fn collect(&mut self, mut bytes: &[u8]) {
        while let Some(parsed) = frame::parse(bytes, &Limits::CLIENT).expect("frames") {
            let first = match parsed.kind {
                FrameKind::Reply => {
                    let reply = wire::view_reply(parsed.head).expect("a reply").to_owned_reply();
                    self.replies.insert(parsed.correlation, reply).is_none()
                }
                FrameKind::AdminReply => {
                    let reply = wire::view_admin_reply(parsed.head).expect("an answer");
                    self.admin_replies.insert(parsed.correlation, reply).is_none()
                }
                other => panic!("a client got a frame of kind {other:?}"),
            };
            assert!(first, "one reply per request");
            bytes = &bytes[parsed.total_bytes..];
        }
    }

    /// Asks what an operator asks; the answer comes with [`Cluster::admin_replies`].
    pub(crate) fn administrate(&mut self, node: u64, request: AdminRequest) -> u32 {
        self.correlation += 1;
        let (mut bytes, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        request.append_frame(&mut bytes, self.correlation);
        buffer.extend(&bytes);
        let target = &mut self.nodes[node as usize - 1];
        target.shard.client_bytes(target.client, &mut buffer).expect("a good frame");
        self.correlation
    }

    pub(crate) fn crash(&mut self, node: u64) {
        let place = node as usize - 1;
        self.nodes[place].up = false;
        for other in 0..self.nodes.len() {
            if other != place && self.nodes[other].up {
                self.nodes[other].shard.peer_disconnected(NodeId(node));
            }
        }
    }

    pub(crate) fn restart(&mut self, node: u64) {
        let place = node as usize - 1;
        let disk = self.nodes[place].shard.disk().crash(&mut |_, _| Survival::Lost);
        self.nodes[place] = start_with(self.nodes[place].settings.clone(), disk);
        self.link_all();
    }
}

pub(crate) fn put(key: &str, value: &str) -> Request {
    Request { operations: vec![Operation::Put { key: key.into(), value: value.into() }], ..Request::default() }
}

pub(crate) fn get(key: &str) -> Request {
    Request { operations: vec![Operation::Get { key: key.into() }], ..Request::default() }
}

pub(crate) fn value(value: &str) -> Option<Outcome> {
    Some(Outcome::Done(vec![OperationResult::Value(Some(value.into()))]))
}

pub(crate) fn group_of(key: &str) -> u32 {
    ringraft_net::slots::group_of_key(key.as_bytes(), GROUPS)
}
