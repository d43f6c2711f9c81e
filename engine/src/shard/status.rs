//! What a shard says about itself, as JSON.
//!
//! Off the data path.

use ringraft_wal::Disk;

use super::Shard;
use super::control::{ElsewhereStatus, NodeStatus};
use super::io::Counters;
pub use crate::group::status::{FollowerStatus, GroupStatus};
use crate::metrics::histogram::Histogram;

/// The state of one shard.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ShardStatus {
    /// The node.
    pub node: u64,
    /// The shard.
    pub shard: u16,
    /// The node's clock, microseconds: one that never goes back.
    pub now_us: u64,
    /// Groups hosted here.
    pub groups: Vec<GroupStatus>,
    /// Counts since start.
    pub counters: Counters,
    /// Messages to peers dropped at the bound of a queue.
    pub peer_messages_dropped: u64,
    /// Epoch of the topology this shard acts on.
    pub topology_epoch: u64,
    /// What shard 0 knows of the other nodes; empty in other shards.
    pub nodes: Vec<NodeStatus>,
    /// Groups of this shard without a replica here, as far as their leaders told.
    pub elsewhere: Vec<ElsewhereStatus>,
    /// Where this node's HTTP is; empty: nowhere.
    pub http_address: String,
    /// Where its gRPC is; empty: nowhere.
    pub grpc_address: String,
    /// Peers whose link stands.
    pub peers_connected: Vec<u64>,
    /// Open client connections.
    pub clients: usize,
    /// Whether this shard's own flushes have stopped.
    pub disk_stalled: bool,
    /// From the proposal of an entry until it is committed, applied and answered by the leader that proposed it.
    pub commit_latency: LatencyStatus,
    /// The write-ahead log.
    pub wal: WalStatus,
}

/// How long something takes, since the start: the mean of an interval is a difference of sums over one of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LatencyStatus {
    /// How often it happened.
    pub count: u64,
    /// All of it together, microseconds.
    pub sum_us: u64,
    /// The longest of the last minute, microseconds.
    pub max_us: u64,
}

impl LatencyStatus {
    fn of(histogram: &Histogram) -> Self {
        Self { count: histogram.count(), sum_us: histogram.sum(), max_us: histogram.maximum() }
    }
}

/// The state of a shard's WAL.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WalStatus {
    /// Highest batch that is durable.
    pub durable_sequence: u64,
    /// Flushes done.
    pub flushes: u64,
    /// From the turn that handed a flush batch to the disk until the turn that saw it durable.
    pub flush_latency: LatencyStatus,
    /// Bytes written, padding included.
    pub bytes_written: u64,
    /// Bytes of records accepted, without batch headers and block padding.
    pub record_bytes: u64,
    /// Segments with live records.
    pub segments: u64,
    /// Segments ready for use.
    pub pool_free: u64,
    /// Whether the last attempt to make a segment met a full disk.
    pub full: bool,
    /// Times a segment was needed and none was ready.
    pub pool_empty: u64,
}

impl<D: Disk> Shard<D> {
    /// The state of this shard.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        ShardStatus {
            node: self.settings.node.0,
            shard: self.settings.shard,
            now_us: self.io.now_us,
            groups: self.groups.iter().map(|group| group.status(&self.io)).collect(),
            counters: self.io.counters,
            peer_messages_dropped: self.io.peers.dropped(),
            topology_epoch: self.settings.topology.epoch(),
            nodes: self.node_statuses(),
            elsewhere: self.elsewhere(),
            http_address: self.services().http.clone(),
            grpc_address: self.services().grpc.clone(),
            peers_connected: self
                .io
                .peers
                .nodes()
                .filter(|node| self.io.peers.is_connected(*node))
                .map(|node| node.0)
                .collect(),
            clients: self.io.clients.open_count(),
            disk_stalled: self.stalled,
            commit_latency: LatencyStatus::of(&self.io.metrics.latencies.commit),
            wal: self.wal_status(),
        }
    }

    pub(super) fn wal_status(&self) -> WalStatus {
        let (wal, stats) = (&self.io.wal, self.io.wal.stats());
        WalStatus {
            durable_sequence: wal.durable_sequence(),
            flushes: stats.flushes,
            flush_latency: LatencyStatus::of(&self.io.metrics.latencies.flush),
            bytes_written: stats.bytes_written,
            record_bytes: stats.record_bytes,
            segments: stats.segments as u64,
            pool_free: stats.pool_free as u64,
            full: stats.disk_full,
            pool_empty: stats.pool_empty,
        }
    }

    pub(super) fn status_json(&self) -> String {
        serde_json::to_string(&self.status()).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// Leader of every group as far as this shard knows, for the `Welcome` of a client: (group, node).
    #[must_use]
    pub fn leaders(&self) -> Vec<(u32, Option<u64>)> {
        self.groups.iter().map(|group| (group.id().0, group.leader().map(|node| node.0))).collect()
    }
}
