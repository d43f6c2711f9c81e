//! A configuration whose bounds and relations hold, and what the parts of a node take from it.
//!
//! Off the data path.
//! Invariant: only [`NodeConfig::validate`] makes a [`ValidNodeConfig`], so constructors that require one need no checks.

use std::collections::HashSet;
use std::path::PathBuf;

use ringraft_net::slots::SLOTS;
use ringraft_raft::{GroupId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use super::{Address, ConfigError, NodeConfig, SETTINGS, Switch};
use crate::limits::Limits;
use crate::shard::board::Services;
use crate::shard::live::{LiveSettings, Reloaded};
use crate::shard::{SnapshotSettings, WatchSettings};
use crate::snapshot::ChunkBytes;
use crate::topology::{NODES_MAX, Topology, TopologyError};

/// A follower that does not answer a chunk of a snapshot for so long is given up for a while.
const SNAPSHOT_PATIENCE_MS: u64 = 10_000;

/// What an archived request takes beside keys and values.
const REQUEST_OVERHEAD_BYTES: u32 = 1024;

/// What a record takes beside its requests.
const RECORD_OVERHEAD_BYTES: usize = 4096;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidNodeConfig(NodeConfig);

impl std::ops::Deref for ValidNodeConfig {
    type Target = NodeConfig;

    fn deref(&self) -> &NodeConfig {
        &self.0
    }
}

fn relation(holds: bool, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Relation(message())) }
}

impl NodeConfig {
    /// Checks every bound and every relation between settings.
    ///
    /// # Errors
    /// The first that does not hold, with the remedy.
    pub fn validate(self) -> Result<ValidNodeConfig, ConfigError> {
        self.check_bounds()?;
        self.check_required()?;
        self.check_addresses()?;
        self.check_relations()?;
        let config = ValidNodeConfig(self);
        config.raft_config(GroupId(0)).validate().map_err(|error| ConfigError::Relation(error.to_string()))?;
        let wal = config.wal_config().validate(config.wal_identity(0));
        let wal = wal.map_err(|error| ConfigError::Relation(error.to_string()))?;
        let groups = config.groups.div_ceil(u32::from(config.shards));
        let bytes = wal.record_bytes_max.max(config.append_bytes_max as usize);
        relation(wal.segment_takes(bytes, groups as usize), || {
            format!(
                "segment_bytes = {} cannot hold {bytes} bytes of entries (append_bytes_max, or the largest entry) beside \
                 the states of {groups} groups of a shard: make it larger, or groups fewer",
                wal.segment_bytes
            )
        })?;
        let topology = config.initial_topology().map_err(|error| ConfigError::Relation(error.to_string()))?;
        let (bytes, bytes_max) = (topology.encode().len(), config.value_bytes_max as usize);
        relation(bytes <= bytes_max, || {
            format!("value_bytes_max = {bytes_max} is too small for the cluster's own topology of {bytes} bytes")
        })?;
        Ok(config)
    }

    fn check_required(&self) -> Result<(), ConfigError> {
        self.missing().first().map_or(Ok(()), |key| Err(ConfigError::missing(key)))
    }

    /// The settings without a default that nobody gave.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let required = [
            ("id", self.id != 0),
            ("cluster_id", self.cluster_id.0 != [0; 16]),
            ("data_dir", !self.data_dir.as_os_str().is_empty()),
            ("peers", !self.peers.0.is_empty()),
        ];
        required.into_iter().filter(|(_, given)| !given).map(|(key, _)| key).collect()
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let peers = &self.peers.0;
        relation(peers.contains_key(&self.id), || {
            format!(
                "peers names the nodes {} but not this one ({}): list it with its own address",
                self.peers.ids(),
                self.id
            )
        })?;
        relation(peers.len() <= NODES_MAX, || {
            format!("peers names {} nodes, at most {NODES_MAX} are allowed", peers.len())
        })?;
        let last_shard = self.shards - 1;
        let mut taken = HashSet::new();
        for (id, address) in peers {
            relation(address.port.checked_add(last_shard).is_some(), || {
                format!("node {id}: port {} leaves no room for the ports of {} shards", address.port, self.shards)
            })?;
            for shard in 0..self.shards {
                relation(taken.insert(address.of_shard(shard)), || {
                    format!(
                        "peers gives {} to two nodes: shard s listens on port + s, so keep the ports of nodes on one \
                         host at least {} apart",
                        address.of_shard(shard),
                        self.shards
                    )
                })?;
            }
        }
        self.check_services()?;
        let listen = self.listen.as_ref();
        relation(listen.is_none_or(|address| address.port.checked_add(last_shard).is_some()), || {
            format!("listen: the port leaves no room for the ports of {} shards", self.shards)
        })
    }

    /// HTTP, gRPC and metrics have ports of their own, away from each other's and from the shards' on this host.
    fn check_services(&self) -> Result<(), ConfigError> {
        let own = self.listen.as_ref().unwrap_or(&self.peers.0[&self.id]).port;
        let given = [
            ("http_address", &self.http_address),
            ("grpc_address", &self.grpc_address),
            ("metrics_address", &self.metrics_address),
        ];
        let mut taken = Vec::new();
        for (key, address) in given.into_iter().filter_map(|(key, address)| Some((key, address.as_ref()?))) {
            let shards = own..=own.saturating_add(self.shards - 1);
            relation(!shards.contains(&address.port), || {
                format!("{key}: port {} is that of a shard of this node: choose another one", address.port)
            })?;
            relation(!taken.contains(&address.port), || {
                format!("{key}: port {} is taken by another of this node's addresses", address.port)
            })?;
            taken.push(address.port);
        }
        Ok(())
    }

    fn check_relations(&self) -> Result<(), ConfigError> {
        let room = self.key_bytes_max + self.value_bytes_max + REQUEST_OVERHEAD_BYTES;
        relation(self.request_bytes_max >= room, || {
            format!(
                "request_bytes_max = {} cannot hold a key of key_bytes_max = {} and a value of value_bytes_max = {}: \
                 make it at least {room}",
                self.request_bytes_max, self.key_bytes_max, self.value_bytes_max
            )
        })?;
        relation(self.groups >= u32::from(self.shards), || {
            format!(
                "groups = {} leaves some of the {} shards without work: make it at least that",
                self.groups, self.shards
            )
        })?;
        relation(self.io_ring_depth.is_power_of_two(), || {
            format!("io_ring_depth = {} is not a power of two", self.io_ring_depth)
        })?;
        let cpus = self.cpus.0.len();
        relation(cpus == 0 || cpus == usize::from(self.shards), || {
            format!("cpus names {cpus} cores for {} shards: name one for each, or none", self.shards)
        })?;
        relation(self.disk_stall_ms >= self.tick_ms && self.digest_ms >= self.tick_ms, || {
            format!("disk_stall_ms and digest_ms must be at least tick_ms = {}", self.tick_ms)
        })?;
        relation(self.watchdog_ms > 2 * self.tick_ms, || {
            format!("watchdog_ms = {} must be more than two ticks of {} ms", self.watchdog_ms, self.tick_ms)
        })
    }

    /// The shortest time without a leader's word after which an election starts, in milliseconds.
    #[must_use]
    pub fn election_timeout_min_ms(&self) -> u64 {
        u64::from(self.election_ticks_min) * self.tick_ms
    }

    /// The longest, in milliseconds.
    #[must_use]
    pub fn election_timeout_max_ms(&self) -> u64 {
        u64::from(self.election_ticks_max) * self.tick_ms
    }
}

impl ValidNodeConfig {
    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.id)
    }

    /// All nodes, this one included, in the order of their ids.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.peers.nodes().collect()
    }

    /// The other nodes.
    #[must_use]
    pub fn other_nodes(&self) -> Vec<NodeId> {
        self.peers.nodes().filter(|node| node.0 != self.id).collect()
    }

    /// Where others reach the shards of each node.
    #[must_use]
    pub fn addresses(&self) -> Vec<(NodeId, Vec<String>)> {
        let shards = |address: &super::Address| (0..self.shards).map(|shard| address.of_shard(shard)).collect();
        self.peers.0.iter().map(|(id, address)| (NodeId(*id), shards(address))).collect()
    }

    /// The topology of a cluster that is made of these nodes now.
    ///
    /// # Errors
    /// More groups or nodes than a topology can hold, or addresses that are none.
    pub fn initial_topology(&self) -> Result<Topology, TopologyError> {
        Topology::initial(self.addresses(), self.groups, self.shards, self.replication_factor)
    }

    /// Where others reach a shard of a node.
    #[must_use]
    pub fn address(&self, node: NodeId, shard: u16) -> Option<String> {
        self.peers.0.get(&node.0).map(|address| address.of_shard(shard))
    }

    /// Where a shard of this node listens.
    #[must_use]
    pub fn listen_address(&self, shard: u16) -> String {
        let address = self.listen.as_ref().unwrap_or(&self.peers.0[&self.id]);
        address.of_shard(shard)
    }

    /// Where others reach this node besides its shards: where it listens, under its own name if it listens everywhere.
    #[must_use]
    pub fn services(&self) -> Services {
        let own = &self.peers.0[&self.id].host;
        let everywhere = ["0.0.0.0", "[::]"];
        let reached = |address: &Address| {
            let host = if everywhere.contains(&address.host.as_str()) { own } else { &address.host };
            format!("{host}:{}", address.port)
        };
        let http = self.http_address.as_ref().map(reached).unwrap_or_default();
        let grpc = self.grpc_address.as_ref().map(reached);
        Services { grpc: grpc.unwrap_or_else(|| http.clone()), http }
    }

    /// The core a shard is pinned to.
    #[must_use]
    pub fn cpu(&self, shard: u16) -> Option<usize> {
        self.cpus.0.get(usize::from(shard)).map(|cpu| usize::from(*cpu))
    }

    /// The groups whose replicas live on a shard, in order.
    pub fn groups_of_shard(&self, shard: u16) -> impl Iterator<Item = GroupId> + use<> {
        (u32::from(shard)..self.groups).step_by(usize::from(self.shards)).map(GroupId)
    }

    /// Directory of the log: one directory per shard below it.
    #[must_use]
    pub fn wal_directory(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("wal"))
    }

    /// `ms` in ticks, at least one.
    #[must_use]
    pub fn ticks(&self, ms: u64) -> u32 {
        u32::try_from(ms.div_ceil(self.tick_ms)).unwrap_or(u32::MAX).max(1)
    }

    /// The bounds of the state machine and of requests.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            key_bytes_max: self.key_bytes_max,
            value_bytes_max: self.value_bytes_max,
            request_bytes_max: self.request_bytes_max,
            operations_max: self.operations_max,
            sessions_max: self.sessions_max,
            session_window_max: self.session_window_max,
            sessions_bytes_max: self.sessions_bytes_max,
            ..Limits::default()
        }
    }

    /// When snapshots are taken and how fast they move.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotSettings {
        let per_tick = |per_second: u64| (per_second.saturating_mul(self.tick_ms) / 1_000).max(1);
        SnapshotSettings {
            identity: crc32c::crc32c(&self.cluster_id.0),
            log_bytes: self.snapshot_log_bytes,
            state_percent: self.snapshot_state_percent,
            log_entries: self.snapshot_log_entries,
            segments_max: self.snapshot_segments as usize,
            chunk_bytes: ChunkBytes::default(),
            write_bytes_per_tick: per_tick(self.snapshot_write_bytes_per_second),
            send_bytes_per_tick: per_tick(self.snapshot_send_bytes_per_second),
            streams_max: self.snapshot_streams_max as usize,
            patience_ticks: self.ticks(SNAPSHOT_PATIENCE_MS),
        }
    }

    /// The settings of a shard that may change while it runs.
    #[must_use]
    pub fn live(&self) -> LiveSettings {
        LiveSettings {
            waiting_max: self.proposals_max as usize,
            connections_max: self.connections_max as usize,
            reply_bytes_max: self.reply_bytes_max as usize,
            disk_stall_ticks: self.ticks(self.disk_stall_ms),
            digest_ticks: self.ticks(self.digest_ms),
            catch_up_bytes: self.catch_up_bytes,
            snapshots: self.snapshots(),
        }
    }

    /// This configuration with the new values of those settings that a running node takes, and what differs.
    ///
    /// # Errors
    /// The new values do not go together with those that stay.
    pub fn with_reloaded(&self, new: &Self) -> Result<(Self, Reloaded), ConfigError> {
        let mut next = self.0.clone();
        let mut reloaded = Reloaded::default();
        for (info, ((key, before), (_, after))) in SETTINGS.iter().zip(self.values().into_iter().zip(new.values())) {
            if before == after {
                continue;
            }
            if !info.reload {
                reloaded.restart.push(key.to_owned());
                continue;
            }
            next.assign(key, &after)
                .map_err(|problem| ConfigError::value(key, &after, "the configuration", problem))?;
            reloaded.changed.push((key.to_owned(), after));
        }
        Ok((next.validate()?, reloaded))
    }

    /// How many may watch, and how far back.
    #[must_use]
    pub fn watches(&self) -> WatchSettings {
        WatchSettings { watches_max: self.watches_max as usize, ring_bytes: self.watch_ring_bytes as usize }
    }

    /// What a follower that lags gets of the log per tick at least; 0: as much as it takes.
    #[must_use]
    pub fn catch_up_bytes_per_tick(&self) -> u64 {
        match self.catch_up_bytes_per_second {
            0 => 0,
            bytes => (bytes.saturating_mul(self.tick_ms) / 1_000).max(1),
        }
    }

    /// The drift that leases allow for; 100: there are none.
    #[must_use]
    pub fn lease_drift_percent(&self) -> u32 {
        if self.lease_reads == Switch::On { self.lease_drift_percent } else { 100 }
    }

    fn raft_config(&self, group: GroupId) -> ringraft_raft::Config {
        ringraft_raft::Config {
            election_ticks_min: self.election_ticks_min,
            election_ticks_max: self.election_ticks_max,
            heartbeat_ticks: self.heartbeat_ticks,
            append_bytes_max: self.append_bytes_max,
            inflight_bytes_max: self.inflight_bytes_max.max(u64::from(self.append_bytes_max)),
            catch_up_bytes_per_tick: self.catch_up_bytes_per_tick(),
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            tick_us: self.tick_ms * 1_000,
            lease_drift_percent: self.lease_drift_percent(),
            ..ringraft_raft::Config::new(self.node(), self.cluster_digest() ^ u64::from(group.0))
        }
    }

    /// The configuration of a group's core.
    #[must_use]
    pub fn raft(&self, group: GroupId) -> ringraft_raft::ValidConfig {
        self.raft_config(group).validate().expect("checked by validate()")
    }

    /// The request that changes the topology: the value before and the one after.
    fn topology_bytes_max(&self) -> u32 {
        2 * self.value_bytes_max + REQUEST_OVERHEAD_BYTES
    }

    fn wal_config(&self) -> ringraft_wal::Config {
        ringraft_wal::Config {
            block_bytes: self.block_bytes as usize,
            segment_bytes: self.segment_bytes,
            segments_max: self.segments_max,
            segments_ready: self.segment_pool,
            batch_bytes_max: self.batch_bytes_max as usize,
            record_bytes_max: self.entry_bytes_max.max(self.request_bytes_max).max(self.topology_bytes_max()) as usize
                + RECORD_OVERHEAD_BYTES,
            flushes_in_flight_max: self.flushes_in_flight_max as usize,
            backlog_bytes_max: self.backlog_bytes_max as usize,
            cache_bytes_max: self.cache_bytes_max as usize,
        }
    }

    /// The identity of a shard's log.
    #[must_use]
    pub fn wal_identity(&self, shard: u16) -> ringraft_wal::Identity {
        ringraft_wal::Identity { cluster: self.cluster_id.0, node: self.id, shard: u32::from(shard) }
    }

    /// The configuration of a shard's log.
    #[must_use]
    pub fn wal(&self, shard: u16) -> ringraft_wal::ValidConfig {
        self.wal_config().validate(self.wal_identity(shard)).expect("checked by validate()")
    }

    /// What every node of the cluster must have the same, in a fixed order: written to the data directory.
    #[must_use]
    pub fn shared_values(&self) -> Vec<(&'static str, String)> {
        let is_shared = |key: &str| SETTINGS.iter().any(|info| info.shared && info.key == key);
        let mut values: Vec<_> = self.values().into_iter().filter(|(key, _)| is_shared(key)).collect();
        values.push(("slots", SLOTS.to_string()));
        values.push(("nodes", self.peers.ids()));
        values
    }

    /// Digest of [`ValidNodeConfig::shared_values`]: compared in the handshake of peers.
    #[must_use]
    pub fn cluster_digest(&self) -> u64 {
        digest_of(self.shared_values().iter().map(|(key, value)| (*key, value.as_str())))
    }
}

/// Digest of keys and values in the given order.
pub(crate) fn digest_of<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let text: String = values.map(|(key, value)| format!("{key}={value}\n")).collect();
    xxh3_64(text.as_bytes())
}
