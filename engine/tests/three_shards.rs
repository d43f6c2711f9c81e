//! Three production shards over in-memory disks, driven by a tiny deterministic host: writes, reads, failover, restart.

use std::collections::BTreeMap;

use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::status::GroupStatus;
use ringraft_engine::shard::{Shard, ShardSettings};
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, Consistency, Operation, OperationResult, Outcome, Reply, Request};
use ringraft_raft::NodeId;
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::{Config as WalConfig, Identity, ValidConfig};

const GROUPS: u32 = 2;

struct Node {
    shard: Shard<MemDisk>,
    client: ConnectionId,
    up: bool,
    flushing: bool,
}

struct Cluster {
    nodes: Vec<Node>,
    replies: BTreeMap<u32, Reply>,
    correlation: u32,
    cut: Vec<(u64, u64)>,
}

fn wal_config(node: u64) -> ValidConfig {
    let config = WalConfig { segment_bytes: 8 << 20, cache_bytes_max: 64 << 10, ..WalConfig::default() };
    config.validate(Identity { cluster: [7; 16], node, shard: 0 }).expect("valid")
}

fn consensus() -> ConsensusSettings {
    ConsensusSettings {
        election_ticks_min: 10,
        election_ticks_max: 20,
        heartbeat_ticks: 2,
        append_bytes_max: 64 << 10,
        inflight_bytes_max: 1 << 20,
        uncommitted_bytes_max: 16 << 20,
        entry_bytes_max: 64 << 10,
        seed: 42,
    }
}

fn settings(node: u64, nodes: u64) -> ShardSettings {
    ShardSettings {
        node: NodeId(node),
        shard: 0,
        shards: 1,
        groups: GROUPS,
        peers: (1..=nodes).filter(|peer| *peer != node).map(NodeId).collect(),
        addresses: (1..=nodes).map(|node| (NodeId(node), vec![format!("127.0.0.1:{node}")])).collect(),
        limits: Limits::CLIENT,
        waiting_max: 10_000,
        connections_max: 16,
        reply_bytes_max: 1 << 20,
        peer_queue_bytes_max: 8 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        first_election_ticks: 2,
    }
}

fn start(node: u64, nodes: u64, disk: MemDisk) -> Node {
    let recovered = disk.recover(&wal_config(node)).expect("recovery");
    let mut shard =
        Shard::restore(settings(node, nodes), &consensus(), StateLimits::default(), wal_config(node), recovered, disk)
            .expect("settings");
    let client = shard.clients().open().expect("a connection");
    Node { shard, client, up: true, flushing: true }
}

impl Cluster {
    fn new(count: u64) -> Self {
        let nodes = (1..=count).map(|node| start(node, count, MemDisk::new(&wal_config(node), 3))).collect();
        let mut cluster = Self { nodes, replies: BTreeMap::new(), correlation: 0, cut: vec![] };
        cluster.link_all();
        cluster
    }

    fn link_all(&mut self) {
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
    fn settle(&mut self) {
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

    fn turn(&mut self, place: usize) -> bool {
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
        moved |= node.shard.wants_turn();
        assert_eq!(node.shard.fatal(), None, "node {}", place + 1);
        while let Some(to) = self.nodes[place].shard.peers().next_dirty() {
            let bytes = self.nodes[place].shard.peers().take_outgoing(to).expect("queued bytes");
            self.deliver(place as u64 + 1, to.0, &bytes);
            self.nodes[place].shard.peers().give_back(to, bytes);
            moved = true;
        }
        let node = &mut self.nodes[place];
        while let Some(id) = node.shard.clients().next_dirty() {
            let mut bytes = Vec::new();
            assert!(node.shard.clients().take_outgoing(id, &mut bytes));
            collect(&bytes, &mut self.replies);
            moved = true;
        }
        moved
    }

    fn deliver(&mut self, from: u64, to: u64, bytes: &[u8]) {
        let target = &mut self.nodes[to as usize - 1];
        if target.up && !self.cut.contains(&(from, to)) {
            let taken = target.shard.peer_bytes(NodeId(from), bytes).expect("frames of a peer");
            assert_eq!(taken, bytes.len(), "whole frames");
        }
    }

    fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                node.shard.tick();
            }
            self.settle();
        }
    }

    fn status(&self, node: u64, group: u32) -> GroupStatus {
        self.nodes[node as usize - 1].shard.status().groups[group as usize].clone()
    }

    fn leader(&mut self, group: u32) -> u64 {
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

    fn send(&mut self, node: u64, request: &Request) -> u32 {
        self.correlation += 1;
        let (mut bytes, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        request.append_frame(&mut bytes, self.correlation);
        buffer.extend(&bytes);
        let target = &mut self.nodes[node as usize - 1];
        target.shard.client_bytes(target.client, &mut buffer).expect("a good frame");
        assert!(buffer.filled().is_empty());
        self.correlation
    }

    fn ask(&mut self, node: u64, request: &Request) -> Option<Outcome> {
        let correlation = self.send(node, request);
        self.settle();
        self.replies.remove(&correlation).map(|reply| reply.outcome)
    }

    fn crash(&mut self, node: u64) {
        let place = node as usize - 1;
        self.nodes[place].up = false;
        for other in 0..self.nodes.len() {
            if other != place && self.nodes[other].up {
                self.nodes[other].shard.peer_disconnected(NodeId(node));
            }
        }
    }

    fn restart(&mut self, node: u64) {
        let place = node as usize - 1;
        let disk = self.nodes[place].shard.disk().crash(&mut |_, _| Survival::Lost);
        self.nodes[place] = start(node, self.nodes.len() as u64, disk);
        self.link_all();
    }
}

fn collect(mut bytes: &[u8], replies: &mut BTreeMap<u32, Reply>) {
    while let Some(parsed) = frame::parse(bytes, &Limits::CLIENT).expect("frames") {
        assert_eq!(parsed.kind, FrameKind::Reply);
        let reply = wire::view_reply(parsed.head).expect("a reply").to_owned_reply();
        assert!(replies.insert(parsed.correlation, reply).is_none(), "one reply per request");
        bytes = &bytes[parsed.total_bytes..];
    }
}

fn put(key: &str, value: &str) -> Request {
    Request { operations: vec![Operation::Put { key: key.into(), value: value.into() }], ..Request::default() }
}

fn get(key: &str) -> Request {
    Request { operations: vec![Operation::Get { key: key.into() }], ..Request::default() }
}

fn value(value: &str) -> Option<Outcome> {
    Some(Outcome::Done(vec![OperationResult::Value(Some(value.into()))]))
}

fn group_of(key: &str) -> u32 {
    ringraft_net::slots::group_of_key(key.as_bytes(), GROUPS)
}

#[test]
fn writes_are_replicated_and_read_back_from_the_leader_only() {
    let mut cluster = Cluster::new(3);
    for number in 0..50 {
        let key = format!("key-{number}");
        let leader = cluster.leader(group_of(&key));
        let outcome = cluster.ask(leader, &put(&key, &format!("value-{number}")));
        assert_eq!(outcome, Some(Outcome::Done(vec![OperationResult::Put { replaced: false }])));
        assert_eq!(cluster.ask(leader, &get(&key)), value(&format!("value-{number}")));
        let follower = leader % 3 + 1;
        let refused = cluster.ask(follower, &get(&key));
        assert_eq!(refused, Some(Outcome::NotLeader { group: group_of(&key), leader: Some(leader) }));
    }
    cluster.tick(10);
    for group in 0..GROUPS {
        let states: Vec<_> = (1..=3).map(|node| cluster.status(node, group)).collect();
        assert!(states.iter().all(|state| state.last_applied == states[0].last_applied), "{states:?}");
        assert!(states.iter().all(|state| state.state_hash == states[0].state_hash), "{states:?}");
    }
    assert!(cluster.status(1, 0).keys + cluster.status(1, 1).keys == 50);
}

#[test]
fn a_stale_read_is_served_by_a_follower() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.ask(leader, &put("a", "1"));
    cluster.tick(5);
    let stale = Request { consistency: Consistency::Stale, ..get("a") };
    assert_eq!(cluster.ask(leader % 3 + 1, &stale), value("1"));
}

#[test]
fn an_acknowledged_write_survives_the_leader_and_then_the_power_of_all() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.ask(leader, &put("a", "1")).expect("acknowledged");
    cluster.crash(leader);
    let second = cluster.leader(group_of("a"));
    assert_ne!(leader, second);
    assert_eq!(cluster.ask(second, &get("a")), value("1"));
    cluster.ask(second, &put("a", "2")).expect("acknowledged");
    cluster.restart(leader);
    cluster.tick(20);
    (1..=3).for_each(|node| cluster.crash(node));
    (1..=3).for_each(|node| cluster.restart(node));
    let third = cluster.leader(group_of("a"));
    assert_eq!(cluster.ask(third, &get("a")), value("2"));
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_on_a_majority() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.nodes[node as usize - 1].flushing = false;
    }
    let request = put("a", "1");
    assert_eq!(cluster.ask(leader, &request), None, "only the leader's own disk has it");
    let correlation = cluster.correlation;
    cluster.nodes[leader as usize % 3].flushing = true;
    cluster.settle();
    assert!(cluster.replies.contains_key(&correlation), "a majority has it");
}

#[test]
fn a_single_node_answers_after_its_own_flush() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(0);
    cluster.leader(1);
    cluster.nodes[0].flushing = false;
    assert_eq!(cluster.ask(leader, &put("a", "1")), None, "etcd #14370");
    let correlation = cluster.correlation;
    cluster.nodes[0].flushing = true;
    cluster.settle();
    assert!(cluster.replies.contains_key(&correlation));
}

#[test]
fn a_leader_whose_flushes_stop_steps_down() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.nodes[leader as usize - 1].flushing = false;
    cluster.send(leader, &put("a", "1"));
    cluster.tick(120);
    let other = cluster.leader(group_of("a"));
    assert_ne!(other, leader, "etcd #15247");
    assert!(cluster.ask(other, &put("a", "2")).is_some());
    assert!(cluster.nodes[leader as usize - 1].shard.status().disk_stalled);
    cluster.nodes[leader as usize - 1].flushing = true;
    cluster.tick(60);
    let state = cluster.status(leader, group_of("a"));
    assert_eq!(state.state_hash, cluster.status(other, group_of("a")).state_hash);
}

#[test]
fn a_deposed_leader_serves_no_read() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader(group_of("a"));
    cluster.ask(old, &put("a", "1"));
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    for other in &others {
        cluster.cut.push((old, *other));
        cluster.cut.push((*other, old));
    }
    let read = cluster.send(old, &get("a"));
    cluster.settle();
    assert!(!cluster.replies.contains_key(&read), "no majority confirms it");
    cluster.tick(60);
    let answer = cluster.replies.remove(&read).expect("answered when check-quorum deposed it");
    assert!(matches!(answer.outcome, Outcome::NotLeader { .. }), "{answer:?}");
    let new = others.iter().copied().find(|node| cluster.status(*node, group_of("a")).role == "leader");
    let new = new.expect("the majority has a leader");
    assert!(cluster.ask(new, &put("a", "2")).is_some());
}

#[test]
fn a_follower_that_missed_a_lot_catches_up_from_the_disk_of_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    let slow = leader % 3 + 1;
    cluster.crash(slow);
    let large = "x".repeat(2_000);
    for number in 0..500 {
        assert!(cluster.ask(leader, &put("a", &format!("{number}{large}"))).is_some());
    }
    cluster.restart(slow);
    cluster.tick(60);
    let (state, expected) = (cluster.status(slow, group_of("a")), cluster.status(leader, group_of("a")));
    assert_eq!((state.last_applied, state.state_hash), (expected.last_applied, expected.state_hash));
}

#[test]
fn a_retry_of_a_session_is_applied_once() {
    let mut cluster = Cluster::new(3);
    let group = group_of("counter");
    let leader = cluster.leader(group);
    let open = Request { operations: vec![Operation::OpenSession { group }], ..Request::default() };
    let Some(Outcome::Done(results)) = cluster.ask(leader, &open) else { panic!("a session") };
    let OperationResult::Session { client } = results[0] else { panic!("a session") };
    let operations = vec![Operation::CompareAndSet { key: b"counter".to_vec(), expected: None, value: b"1".to_vec() }];
    let request = Request { client, sequence: 1, acknowledged: 1, operations, ..Request::default() };
    let first = cluster.ask(leader, &request).expect("an answer");
    assert_eq!(first, Outcome::Done(vec![OperationResult::Compared { swapped: true, current: None }]));
    assert_eq!(cluster.ask(leader, &request), Some(first.clone()), "the first answer again");
    cluster.crash(leader);
    let second = cluster.leader(group);
    assert_eq!(cluster.ask(second, &request), Some(first), "also from the next leader");
}

#[test]
fn bad_requests_are_answered_and_change_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(0);
    let (mut first, mut second) = (None, None);
    for number in 0..100 {
        let key = format!("k{number}");
        if group_of(&key) == 0 { first = Some(key) } else { second = Some(key) }
    }
    let get = |key: Option<String>| Operation::Get { key: key.expect("both groups have keys").into() };
    let crossing = Request { operations: vec![get(first), get(second)], ..Request::default() };
    assert!(matches!(cluster.ask(leader, &crossing), Some(Outcome::BadRequest { .. })));
    let empty = Request::default();
    assert!(matches!(cluster.ask(leader, &empty), Some(Outcome::BadRequest { .. })));
    let long = put(&"k".repeat(5_000), "v");
    assert!(matches!(cluster.ask(leader, &long), Some(Outcome::BadRequest { .. })));
    let node = &mut cluster.nodes[0];
    let mut garbage = ReceiveBuffer::new();
    garbage.extend(b"garbage");
    assert!(node.shard.client_bytes(node.client, &mut garbage).is_err());
}
