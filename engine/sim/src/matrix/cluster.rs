//! Three production shards over images of their disks, driven until nothing moves any more.
//!
//! Off the data path.
//! A network that loses nothing and disks that finish at once: here only what stands on the disks is in question.
//! Invariant: the same images give the same run.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::{Shard, ShardSettings};
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame;
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, Operation, OperationResult, Outcome, Reply, Request};
use ringraft_raft::{Membership, NodeId};
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::meta::Meta;
use ringraft_wal::{Config, Identity, Recovered, ValidConfig};

use super::image::Image;

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// Groups, all on the one shard of each node.
pub(super) const GROUPS: u32 = 2;

/// Ticks after which a majority must have a leader.
const LEADER_TICKS_MAX: usize = 400;
/// Rounds of turns and deliveries after which a cluster must be quiet.
const ROUNDS_MAX: usize = 2_000;

/// Small segments, so that a short log fills several.
#[must_use]
pub fn config(node: usize) -> ValidConfig {
    let config = Config {
        block_bytes: 512,
        segment_bytes: 24 * 512,
        segments_max: 16,
        segments_ready: 2,
        batch_bytes_max: 4 * 512,
        record_bytes_max: 8 * 512,
        flushes_in_flight_max: 2,
        backlog_bytes_max: 64 << 10,
        cache_bytes_max: 1 << 10,
    };
    let identity = Identity { cluster: *b"matrix of faults", node: node as u64 + 1, shard: 0 };
    config.validate(identity).unwrap_or_else(|error| panic!("{error}"))
}

fn settings(node: usize) -> (ShardSettings, ConsensusSettings) {
    let nodes = || (1..=NODES as u64).map(NodeId);
    let own = NodeId(node as u64 + 1);
    let addressed = nodes().map(|node| (node, vec![format!("n{node}:1")]));
    let topology = Topology::initial(addressed, GROUPS, 1, NODES as u32).unwrap_or_else(|error| panic!("{error}"));
    let settings = ShardSettings {
        node: own,
        shard: 0,
        shards: 1,
        groups: GROUPS,
        initial: vec![Membership::new(nodes().collect()); GROUPS as usize],
        topology: Arc::new(topology),
        shared: Arc::default(),
        limits: Limits::CLIENT,
        waiting_max: 1_000,
        connections_max: 4,
        reply_bytes_max: 1 << 20,
        peer_queue_bytes_max: 1 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        snapshots: ringraft_engine::shard::SnapshotSettings::default(),
        watches: ringraft_engine::shard::WatchSettings::default(),
        incarnation: 1,
        report_ticks: 20,
        leader_priority: 100,
        first_election_ticks: 2,
    };
    let consensus = ConsensusSettings {
        election_ticks_min: 10,
        election_ticks_max: 20,
        heartbeat_ticks: 2,
        append_bytes_max: 16 << 10,
        inflight_bytes_max: 64 << 10,
        catch_up_bytes_per_tick: 0,
        uncommitted_bytes_max: 64 << 10,
        entry_bytes_max: 1 << 10,
        catch_up_bytes: 16 << 10,
        tick_us: 10_000,
        lease_drift_percent: 100,
        seed: 7,
    };
    (settings, consensus)
}

struct Node {
    shard: Shard<MemDisk>,
    client: ConnectionId,
}

/// The cluster; a node that did not start is `None`.
pub(super) struct Cluster {
    nodes: Vec<Option<Node>>,
    replies: BTreeMap<u32, Reply>,
    correlation: u32,
    flushing: bool,
}

fn disk_of(image: &Image, config: &ValidConfig) -> MemDisk {
    let mut disk = MemDisk::new(config, 0);
    disk.files_mut().clone_from(&image.files);
    disk
}

fn start(node: usize, image: &Image, recovered: Recovered) -> Node {
    let (settings, consensus) = settings(node);
    let disk = disk_of(image, &config(node));
    let mut shard =
        Shard::restore(settings, &consensus, StateLimits::default(), config(node), (recovered, BTreeMap::new()), disk)
            .unwrap_or_else(|error| panic!("{error}"));
    let client = shard.clients().open().unwrap_or_else(|| panic!("no room for one client"));
    Node { shard, client }
}

impl Cluster {
    /// Starts the nodes whose logs were recovered.
    pub(super) fn start(images: &[(&Image, Option<Recovered>)]) -> Self {
        let nodes = images
            .iter()
            .enumerate()
            .map(|(node, (image, recovered))| recovered.clone().map(|recovered| start(node, image, recovered)));
        let mut cluster = Self { nodes: nodes.collect(), replies: BTreeMap::new(), correlation: 0, flushing: true };
        let up: Vec<usize> = (0..NODES).filter(|node| cluster.nodes[*node].is_some()).collect();
        for from in &up {
            for to in up.iter().filter(|to| *to != from) {
                cluster.shard(*from).peer_connected(NodeId(*to as u64 + 1));
            }
        }
        cluster
    }

    fn shard(&mut self, node: usize) -> &mut Shard<MemDisk> {
        let node = self.nodes[node].as_mut();
        &mut node.unwrap_or_else(|| panic!("a node that is down was asked")).shard
    }

    /// Ends disk operations and delivers messages until nothing moves.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for node in 0..NODES {
                moved |= self.nodes[node].is_some() && self.turn(node)?;
            }
            if !moved {
                return Ok(());
            }
        }
        Err(format!("the cluster is not quiet after {ROUNDS_MAX} rounds"))
    }

    fn turn(&mut self, node: usize) -> Result<bool, String> {
        let mut moved = false;
        let flushing = self.flushing;
        let shard = self.shard(node);
        while flushing && !shard.disk().pending().is_empty() {
            let completion = shard.disk().finish(0);
            shard.disk_done(completion);
            moved = true;
        }
        shard.turn();
        moved |= shard.wants_turn();
        if let Some(fatal) = shard.fatal() {
            return Err(format!("node {} stopped while it served: {fatal}", node + 1));
        }
        while let Some(to) = self.shard(node).peers().next_dirty() {
            let bytes = self.shard(node).peers().take_outgoing(to).unwrap_or_default();
            let target = to.0 as usize - 1;
            if self.nodes[target].is_some() {
                self.shard(target).peer_bytes(NodeId(node as u64 + 1), &bytes)?;
            }
            self.shard(node).peers().give_back(to, bytes);
            moved = true;
        }
        while let Some(id) = self.shard(node).clients().next_dirty() {
            let mut bytes = Vec::new();
            self.shard(node).clients().take_outgoing(id, &mut bytes);
            self.collect(&bytes)?;
            moved = true;
        }
        Ok(moved)
    }

    fn collect(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(parsed) = frame::parse(bytes, &Limits::CLIENT).map_err(|error| error.to_string())? {
            let reply = wire::view_reply(parsed.head).map_err(|error| error.to_string())?;
            self.replies.insert(parsed.correlation, reply.to_owned_reply());
            bytes = &bytes[parsed.total_bytes..];
        }
        Ok(())
    }

    /// One tick of every node.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        for node in self.nodes.iter_mut().flatten() {
            node.shard.tick();
        }
        self.settle()
    }

    /// The node that leads a group and serves.
    pub(super) fn leader(&mut self, group: u32) -> Result<usize, String> {
        for _ in 0..LEADER_TICKS_MAX {
            let serves = |node: &Node| {
                let status = &node.shard.status().groups[group as usize];
                status.role == "leader" && status.serving
            };
            if let Some(place) = self.nodes.iter().position(|node| node.as_ref().is_some_and(serves)) {
                return Ok(place);
            }
            self.tick()?;
        }
        Err(format!("no leader of group {group} after {LEADER_TICKS_MAX} ticks although a majority started"))
    }

    /// Asks the leader of the keys' group; the answer, once nothing moves any more.
    pub(super) fn ask(&mut self, key: &str, operation: Operation) -> Result<Option<OperationResult>, String> {
        let leader = self.leader(ringraft_net::slots::group_of_key(key.as_bytes(), GROUPS))?;
        self.correlation += 1;
        let (mut bytes, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        Request { operations: vec![operation], ..Request::default() }.append_frame(&mut bytes, self.correlation);
        buffer.extend(&bytes);
        let client =
            self.nodes[leader].as_ref().map(|node| node.client).unwrap_or(ConnectionId { slot: 0, generation: 0 });
        self.shard(leader).client_bytes(client, &mut buffer)?;
        self.settle()?;
        match self.replies.remove(&self.correlation).map(|reply| reply.outcome) {
            Some(Outcome::Done(results)) => Ok(results.into_iter().next()),
            Some(other) => Err(format!("{key} was answered {other:?}")),
            None => Ok(None),
        }
    }

    /// Sets a key and waits for the acknowledgement.
    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        match self.ask(key, Operation::Put { key: key.into(), value: value.into() })? {
            Some(_) => Ok(()),
            None => Err(format!("{key} was not acknowledged")),
        }
    }

    /// Sets a key on disks that do not finish any more.
    pub(super) fn put_without_flush(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.flushing = false;
        match self.ask(key, Operation::Put { key: key.into(), value: value.into() })? {
            Some(_) => Err(format!("{key} was acknowledged although no disk finished")),
            None => Ok(()),
        }
    }

    /// What a key has.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.ask(key, Operation::Get { key: key.into() })? {
            Some(OperationResult::Value(value)) => Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned())),
            other => Err(format!("a get of {key} was answered {other:?}")),
        }
    }

    /// Whether all nodes that are up have applied the same, to the same state.
    pub(super) fn states_are_equal(&mut self) -> bool {
        let mut states = self.nodes.iter().flatten().map(|node| {
            let groups = node.shard.status().groups;
            groups.into_iter().map(|group| (group.last_applied, group.state_hash)).collect::<Vec<_>>()
        });
        let first = states.next();
        states.all(|state| Some(&state) == first.as_ref())
    }

    /// Ends every process at once. Of unfinished writes some blocks survive, some half, some not.
    pub(super) fn kill(mut self) -> Vec<Image> {
        (0..NODES)
            .map(|node| {
                let survivals = [Survival::Kept, Survival::Torn(200), Survival::Lost];
                let disk = self.shard(node).disk().crash(&mut |_, block| survivals[(block as usize + node) % 3]);
                let count = disk.files().keys().next_back().map_or(0, |last| last.0 + 1);
                Image { files: disk.files().clone(), meta: Some(Meta::new(&config(node), count).encode()) }
            })
            .collect()
    }
}
