//! A few production shards over in-memory disks and a tiny deterministic host, for the tests of this folder.
//!
//! Off the data path.
//! Invariant: nothing happens but what a test asks for; same calls, same result.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::inspect::MembershipView;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::status::GroupStatus;
use ringraft_engine::shard::{Shard, ShardSettings, SnapshotSettings, Target, WatchSettings};
use ringraft_engine::snapshot::{FileLoader, load_newest};
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    self, AdminReply, AdminRequest, Operation, OperationResult, Outcome, Reply, Request, WatchEvent, WatchRequest,
};
use ringraft_raft::{Membership, NodeId, Role};
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::{Config as WalConfig, Identity, ValidConfig};

pub(crate) const GROUPS: u32 = 2;
pub(crate) const TICK_US: u64 = 10_000;
pub(crate) const LEASE_DRIFT_PERCENT: u32 = 10;

pub(crate) struct Node {
    pub(crate) shard: Shard<MemDisk>,
    pub(crate) client: ConnectionId,
    pub(crate) up: bool,
    pub(crate) flushing: bool,
    /// Its own clock, and how far it goes in a tick.
    pub(crate) clock_us: u64,
    pub(crate) tick_us: u64,
    /// It stands still while its clock goes on; what comes for it waits.
    pub(crate) paused: bool,
    inbox: Vec<(u64, Vec<u8>)>,
    settings: ShardSettings,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) replies: BTreeMap<u32, Reply>,
    pub(crate) admin_replies: BTreeMap<u32, AdminReply>,
    /// What watches were told, by correlation.
    pub(crate) told: BTreeMap<u32, Vec<WatchEvent>>,
    /// Clients do not take what is sent to them.
    pub(crate) deaf: bool,
    pub(crate) correlation: u32,
    pub(crate) cut: Vec<(u64, u64)>,
    /// The members each group is to have, once a test says so.
    pub(crate) targets: BTreeMap<u32, Target>,
    /// Who led each group in each term.
    leaders: BTreeMap<(u32, u64), u64>,
    /// What was reported of each group, newest last, and for how many ticks a report is on its way.
    reports: BTreeMap<u32, VecDeque<Vec<(u64, MembershipView)>>>,
    pub(crate) report_delay_ticks: usize,
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
        catch_up_bytes_per_tick: 0,
        entry_bytes_max: 64 << 10,
        catch_up_bytes: 8 << 10,
        tick_us: TICK_US,
        lease_drift_percent: LEASE_DRIFT_PERCENT,
        seed: 42,
    }
}

pub(crate) fn settings(node: u64, nodes: u64) -> ShardSettings {
    let addressed = (1..=nodes).map(|node| (NodeId(node), vec![format!("127.0.0.1:{node}")]));
    ShardSettings {
        node: NodeId(node),
        shard: 0,
        shards: 1,
        groups: GROUPS,
        initial: vec![Membership::new((1..=nodes).map(NodeId).collect()); GROUPS as usize],
        topology: Arc::new(Topology::initial(addressed, GROUPS, 1, 64).expect("a topology")),
        shared: Arc::default(),
        limits: Limits::CLIENT,
        waiting_max: 10_000,
        connections_max: 16,
        reply_bytes_max: 1 << 20,
        peer_queue_bytes_max: 8 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        snapshots: SnapshotSettings::default(),
        watches: WatchSettings { ring_bytes: 64 << 10, ..WatchSettings::default() },
        incarnation: 1,
        report_ticks: 20,
        leader_priority: 100,
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
        Shard::restore(settings, &consensus(), limits, wal_config(node), (recovered, loaded), disk).expect("settings");
    let client = shard.clients().open().expect("a connection");
    let (clock_us, inbox) = (1_000_000 * node, Vec::new());
    Node { shard, client, up: true, flushing: true, clock_us, tick_us: TICK_US, paused: false, inbox, settings: kept }
}

impl Cluster {
    pub(crate) fn new(count: u64) -> Self {
        Self::with(count, SnapshotSettings::default())
    }

    pub(crate) fn with(count: u64, snapshots: SnapshotSettings) -> Self {
        Self::founded(count, count, snapshots)
    }

    /// `count` nodes, the first `founders` of which have every group at the beginning.
    pub(crate) fn founded(count: u64, founders: u64, snapshots: SnapshotSettings) -> Self {
        Self::of((1..=count).map(|node| {
            let initial = settings(node, founders).initial;
            ShardSettings { snapshots, initial, ..settings(node, count) }
        }))
    }

    /// `count` nodes that all hold `groups` groups.
    pub(crate) fn with_groups(count: u64, groups: u32) -> Self {
        Self::of((1..=count).map(|node| {
            let few = settings(node, count);
            let addressed = few.topology.nodes().iter().map(|node| (node.id, node.addresses.clone()));
            let topology = Arc::new(Topology::initial(addressed, groups, 1, 64).expect("a topology"));
            ShardSettings { groups, initial: vec![few.initial[0].clone(); groups as usize], topology, ..few }
        }))
    }

    fn of(settings: impl Iterator<Item = ShardSettings>) -> Self {
        let start_one = |settings: ShardSettings| {
            let disk = MemDisk::new(&wal_config(settings.node.0), 3);
            start_with(settings, disk)
        };
        let nodes = settings.map(start_one).collect();
        let mut cluster = Self {
            nodes,
            replies: BTreeMap::new(),
            admin_replies: BTreeMap::new(),
            told: BTreeMap::new(),
            deaf: false,
            correlation: 0,
            cut: vec![],
            targets: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reports: BTreeMap::new(),
            report_delay_ticks: 0,
        };
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
        if !node.up || node.paused {
            return false;
        }
        let mut moved = false;
        node.shard.observe_time(node.clock_us);
        while node.flushing && !node.shard.disk().pending().is_empty() {
            let completion = node.shard.disk().finish(0);
            node.shard.disk_done(completion);
            moved = true;
        }
        node.shard.turn();
        moved |= node.shard.wants_turn() || (node.flushing && !node.shard.disk().pending().is_empty());
        assert_eq!(node.shard.fatal(), None, "node {}", place + 1);
        while let Some(to) = self.nodes[place].shard.peers().next_dirty() {
            let Some(bytes) = self.nodes[place].shard.peers().take_outgoing(to) else { continue }; // begun and given up
            self.deliver(place as u64 + 1, to.0, &bytes);
            self.nodes[place].shard.peers().give_back(to, bytes);
            moved = true;
        }
        while let Some(id) = self.nodes[place].shard.clients().next_dirty() {
            if self.deaf {
                continue;
            }
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
            if target.paused {
                return target.inbox.push((from, bytes.to_vec()));
            }
            target.shard.observe_time(target.clock_us);
            let taken = target.shard.peer_bytes(NodeId(from), bytes).expect("frames of a peer");
            assert_eq!(taken, bytes.len(), "whole frames");
        }
    }

    pub(crate) fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                node.clock_us += node.tick_us;
                if !node.paused {
                    node.shard.observe_time(node.clock_us);
                    node.shard.tick();
                }
            }
            self.settle();
            self.follow_targets();
            self.note_leaders();
        }
    }

    /// At most one node leads a group in a term.
    fn note_leaders(&mut self) {
        for (place, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            for view in node.shard.group_views().filter(|view| view.role == Role::Leader) {
                let (group, term, own) = (view.group, view.hard_state.current_term, place as u64 + 1);
                let leader = *self.leaders.entry((group, term)).or_insert(own);
                assert_eq!(leader, own, "two leaders of group {group} in term {term}");
            }
        }
    }

    /// What the nodes of a real cluster do by their topology and their reports: tell replicas the target, make those that
    /// belong here, and give up those of which a leader says that they are out.
    fn follow_targets(&mut self) {
        for (group, target) in self.targets.clone() {
            let up = self.nodes.iter().enumerate().filter(|(_, node)| node.up);
            let views =
                up.filter_map(|(place, node)| Some((place as u64 + 1, node.shard.membership(group)?))).collect();
            let reports = self.reports.entry(group).or_default();
            reports.push_back(views);
            let old = reports.len().saturating_sub(1 + self.report_delay_ticks);
            reports.drain(..old);
            let views = &reports[0];
            for (place, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.up) {
                let own = NodeId(place as u64 + 1);
                node.shard.set_target(group, target.clone());
                let here = node.shard.replicas().any(|held| held == group);
                let belongs = target.voters().contains(&own) || target.learners().contains(&own);
                if belongs && !here {
                    let made = node.shard.create_replica(group);
                    assert!(made.as_ref().is_ok_and(|()| true) || made.is_err_and(|error| error.is_retryable()));
                } else if here && !belongs {
                    let heard = views.iter().filter(|(from, _)| !self.cut.contains(&(*from, own.0)));
                    for proof in heard.filter_map(|(_, view)| view.excludes(own)) {
                        let _ = node.shard.drop_replica(group, proof); // it may be too early
                    }
                }
            }
        }
    }

    /// Sets a group's target.
    pub(crate) fn retarget(&mut self, group: u32, voters: &[u64], learners: &[u64]) {
        let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
        self.targets.insert(group, Target::new(ids(voters), ids(learners)).expect("a target"));
    }

    /// Whether the group is at its target, on all nodes that are up: members, replicas, nothing under way.
    pub(crate) fn is_settled(&self, group: u32) -> bool {
        let target = &self.targets[&group];
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        let (voters, learners) = (numbers(target.voters()), numbers(target.learners()));
        let leads = |node: &Node| {
            node.up
                && node.shard.status().groups.iter().any(|status| {
                    status.group == group
                        && status.change == "settled"
                        && status.voters == voters
                        && status.learners == learners
                })
        };
        let holds = |place: usize| {
            let own = place as u64 + 1;
            let held = self.nodes[place].shard.replicas().any(|held| held == group);
            !self.nodes[place].up || held == (voters.contains(&own) || learners.contains(&own))
        };
        self.nodes.iter().any(leads) && (0..self.nodes.len()).all(holds)
    }

    /// Ticks until the group is at its target.
    pub(crate) fn settle_members(&mut self, group: u32) {
        for _ in 0..2_000 {
            if self.is_settled(group) {
                return;
            }
            self.tick(1);
        }
        let all: Vec<_> = self.nodes.iter().map(|node| (node.up, node.shard.status())).collect();
        panic!("group {group} does not come to {:?}: {all:#?}", self.targets[&group]);
    }

    pub(crate) fn status(&self, node: u64, group: u32) -> GroupStatus {
        let found =
            self.nodes[node as usize - 1].shard.status().groups.into_iter().find(|status| status.group == group);
        found.unwrap_or_else(|| panic!("node {node} has a replica of group {group}"))
    }

    pub(crate) fn leader(&mut self, group: u32) -> u64 {
        for _ in 0..200 {
            if let Some(node) = self.find_leader(group) {
                return node;
            }
            self.tick(1);
        }
        panic!("no leader of group {group}");
    }

    /// The node that leads in the highest term, if any does.
    pub(crate) fn find_leader(&self, group: u32) -> Option<u64> {
        let up = self.nodes.iter().enumerate().filter(|(_, node)| node.up);
        let all = up.flat_map(|(place, node)| node.shard.group_views().map(move |view| (place as u64 + 1, view)));
        let leaders = all.filter(|(_, view)| view.group == group && view.role == Role::Leader && view.serving);
        leaders.max_by_key(|(_, view)| view.hard_state.current_term).map(|(node, _)| node)
    }

    pub(crate) fn send(&mut self, node: u64, request: &Request) -> u32 {
        self.correlation += 1;
        let (mut bytes, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        request.append_frame(&mut bytes, self.correlation);
        buffer.extend(&bytes);
        let target = &mut self.nodes[node as usize - 1];
        target.shard.observe_time(target.clock_us);
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
                FrameKind::WatchEvent => {
                    let event = wire::view_watch_event(parsed.head).expect("an event");
                    self.told.entry(parsed.correlation).or_default().push(event);
                    true
                }
                other => panic!("a client got a frame of kind {other:?}"),
            };
            assert!(first, "one reply per request");
            bytes = &bytes[parsed.total_bytes..];
        }
    }

    /// Clients take what was sent to them, from now on.
    pub(crate) fn listen(&mut self) {
        self.deaf = false;
        for place in 0..self.nodes.len() {
            let (mut bytes, id) = (Vec::new(), self.nodes[place].client);
            assert!(self.nodes[place].shard.clients().take_outgoing(id, &mut bytes));
            self.collect(&bytes);
        }
    }

    /// Watches a group at a node; what it is told comes with [`Cluster::told`].
    pub(crate) fn watch(&mut self, node: u64, request: &WatchRequest) -> u32 {
        self.correlation += 1;
        let mut bytes = Vec::new();
        request.append_frame(&mut bytes, self.correlation);
        self.client_frame(node, &bytes);
        self.correlation
    }

    /// Ends a watch.
    pub(crate) fn unwatch(&mut self, node: u64, correlation: u32) {
        let mut bytes = Vec::new();
        wire::append_unwatch(&mut bytes, correlation);
        self.client_frame(node, &bytes);
    }

    fn client_frame(&mut self, node: u64, bytes: &[u8]) {
        let mut buffer = ReceiveBuffer::new();
        buffer.extend(bytes);
        let target = &mut self.nodes[node as usize - 1];
        target.shard.observe_time(target.clock_us);
        target.shard.client_bytes(target.client, &mut buffer).expect("a good frame");
        self.settle();
    }

    /// Asks what an operator asks; the answer comes with [`Cluster::admin_replies`].
    pub(crate) fn administrate(&mut self, node: u64, request: &AdminRequest) -> u32 {
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

    /// The node goes on; what waited for it is there at once.
    pub(crate) fn resume(&mut self, node: u64) {
        let place = node as usize - 1;
        self.nodes[place].paused = false;
        for (from, bytes) in std::mem::take(&mut self.nodes[place].inbox) {
            self.deliver(from, node, &bytes);
        }
    }

    pub(crate) fn restart(&mut self, node: u64) {
        let place = node as usize - 1;
        let (clock_us, incarnation) = (self.nodes[place].clock_us, self.nodes[place].settings.incarnation + 1);
        self.nodes[place].settings.incarnation = incarnation;
        let disk = self.nodes[place].shard.disk().crash(&mut |_, _| Survival::Lost);
        self.nodes[place] = start_with(self.nodes[place].settings.clone(), disk);
        self.nodes[place].clock_us = clock_us;
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
