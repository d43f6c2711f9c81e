//! The configuration of a node: every setting with its unit, default and bounds, declared once.
//!
//! Off the data path.
//! Invariants: a flag wins over its environment variable, that over the configuration file, the file over the default;
//! whatever takes a [`ValidNodeConfig`] may rely on every bound and relation; the values that all nodes of a cluster must
//! share (`shared` below, and the ids of the nodes) make the cluster digest; a running node takes new values of the
//! settings marked `reload`, all others need a restart.
//! It reads the configuration file and touches nothing else; the data directory is `identity.rs`'s.

mod declare;
mod documents;
mod file;
mod load;
mod valid;
mod values;

use std::path::PathBuf;

pub use declare::SettingInfo;
use declare::{help_text, hidden_flags, is_reloaded, is_shared, settings};
pub use documents::DocumentFlags;
pub use file::{Format, default_file};
pub use load::Resolved;
pub use valid::ValidNodeConfig;
pub(crate) use valid::digest_of;
use values::SettingText;
pub use values::{Address, ClusterId, Collector, Cpus, FlushMethod, LogLevel, Peers, Ratio, ServiceName, Switch};

settings! {
    numbers {
        /// This node's id, unique in the cluster and never reused.
        id: u64 = 0, 0..=18_446_744_073_709_551_615, "a number, at least 1", "RINGRAFT_ID", own | "node-id" | "node_id";
        /// Raft groups of the cluster, fixed when it is created.
        groups: u32 = 1, 1..=16_384, "groups", "RINGRAFT_GROUPS", shared;
        /// Replicas of each group, when there are as many nodes; group 0, which keeps the cluster's topology, has up to five.
        replication_factor: u32 = 3, 1..=9, "replicas", "RINGRAFT_REPLICATION_FACTOR", shared;
        /// Shards of every node, one core each, fixed when the cluster is created.
        shards: u16 = 1, 1..=256, "shards", "RINGRAFT_SHARDS", shared;
        /// Length of a tick, the unit of all protocol times.
        tick_ms: u64 = 25, 1..=1_000, "milliseconds", "RINGRAFT_TICK_MS", own;
        /// Ticks between two heartbeats of a leader.
        heartbeat_ticks: u32 = 4, 1..=1_000, "ticks", "RINGRAFT_HEARTBEAT_TICKS", own;
        /// Shortest election timeout; at least twice heartbeat_ticks.
        election_ticks_min: u32 = 20, 2..=10_000, "ticks", "RINGRAFT_ELECTION_TICKS_MIN", own;
        /// Longest election timeout; at least 1.5 times election_ticks_min, and 4 more.
        election_ticks_max: u32 = 40, 6..=20_000, "ticks", "RINGRAFT_ELECTION_TICKS_MAX", own;
        /// Of the replicas that could lead a group those on nodes with the highest number do, within seconds; equal ones share.
        leader_priority: u32 = 100, 0..=1_000, "a number", "RINGRAFT_LEADER_PRIORITY", own;
        /// With lease_reads: clocks of two nodes differ in rate by so much at most; a lease is shorter by it.
        lease_drift_percent: u32 = 10, 1..=90, "percent", "RINGRAFT_LEASE_DRIFT_PERCENT", own;
        /// Unit of direct writes to the log, a power of two; fixed when the node is created.
        block_bytes: u32 = 4_096, 512..=65_536, "bytes", "RINGRAFT_BLOCK_BYTES", own;
        /// Size of a file of the log; fixed when the node is created.
        segment_bytes: u64 = 67_108_864, 33_554_432..=17_179_869_184, "bytes", "RINGRAFT_SEGMENT_BYTES", own;
        /// Files of the log at most: with segment_bytes the bound of its disk space per shard.
        segments_max: u32 = 4_096, 2..=65_536, "files", "RINGRAFT_SEGMENTS_MAX", own;
        /// Zeroed files kept ready ahead of need.
        segment_pool: u32 = 2, 1..=64, "files", "RINGRAFT_SEGMENT_POOL", own;
        /// Flushes that may overlap.
        flushes_in_flight_max: u32 = 2, 1..=64, "flushes", "RINGRAFT_FLUSHES_IN_FLIGHT_MAX", own;
        /// A flush batch grows up to this.
        batch_bytes_max: u64 = 1_048_576, 131_072..=8_388_608, "bytes", "RINGRAFT_BATCH_BYTES_MAX", own;
        /// Records that may wait for a flush, per shard.
        backlog_bytes_max: u64 = 33_554_432, 16_777_216..=1_073_741_824, "bytes", "RINGRAFT_BACKLOG_BYTES_MAX", own;
        /// Recent records kept in memory for followers and for applying, per shard.
        cache_bytes_max: u64 = 134_217_728, 1_048_576..=68_719_476_736, "bytes", "RINGRAFT_CACHE_BYTES_MAX", own;
        /// Requests gather in one entry up to this; a longer request is an entry of its own.
        entry_bytes_max: u32 = 262_144, 4_096..=4_194_304, "bytes", "RINGRAFT_ENTRY_BYTES_MAX", own;
        /// Records in one AppendEntries, one entry excepted.
        append_bytes_max: u32 = 1_048_576, 4_096..=8_388_608, "bytes", "RINGRAFT_APPEND_BYTES_MAX", own;
        /// Records on the way to one follower of a group.
        inflight_bytes_max: u64 = 8_388_608, 4_096..=1_073_741_824, "bytes", "RINGRAFT_INFLIGHT_BYTES_MAX", own;
        /// Records of a group proposed and not yet committed.
        uncommitted_bytes_max: u64 = 67_108_864, 4_096..=1_073_741_824, "bytes", "RINGRAFT_UNCOMMITTED_BYTES_MAX", own;
        /// Longest key.
        key_bytes_max: u32 = 4_096, 64..=4_096, "bytes", "RINGRAFT_KEY_BYTES_MAX", shared;
        /// Longest value.
        value_bytes_max: u32 = 1_048_576, 65_536..=1_048_576, "bytes", "RINGRAFT_VALUE_BYTES_MAX", shared;
        /// Longest frame of a client.
        request_bytes_max: u32 = 4_194_304, 65_536..=4_194_304, "bytes", "RINGRAFT_REQUEST_BYTES_MAX", shared;
        /// Operations in one request.
        operations_max: u32 = 1_024, 1..=1_024, "operations", "RINGRAFT_OPERATIONS_MAX", shared;
        /// Sessions of one group; beyond it the one unused for longest goes.
        sessions_max: u32 = 10_000, 1..=1_000_000, "sessions", "RINGRAFT_SESSIONS_MAX", shared;
        /// Answers kept in one session: how far a client may run ahead of its lowest unanswered request.
        session_window_max: u32 = 8_192, 1..=65_536, "requests", "RINGRAFT_SESSION_WINDOW_MAX", shared;
        /// Answers kept in all sessions of a group.
        sessions_bytes_max: u64 = 67_108_864, 1_048_576..=17_179_869_184, "bytes", "RINGRAFT_SESSIONS_BYTES_MAX", shared;
        /// Client connections of one shard.
        connections_max: u32 = 4_096, 1..=65_536, "connections", "RINGRAFT_CONNECTIONS_MAX", own + reload;
        /// Unsent replies of one connection; beyond it the connection is closed.
        reply_bytes_max: u64 = 16_777_216, 65_536..=1_073_741_824, "bytes", "RINGRAFT_REPLY_BYTES_MAX", own + reload;
        /// Requests that may wait in one shard; beyond it they are refused as overloaded.
        proposals_max: u32 = 65_536, 1..=4_194_304, "requests", "RINGRAFT_PROPOSALS_MAX", own + reload;
        /// Unsent bytes to one peer, per shard; beyond it messages are dropped and sent again later.
        peer_queue_bytes_max: u64 = 33_554_432, 1_048_576..=1_073_741_824, "bytes", "RINGRAFT_PEER_QUEUE_BYTES_MAX", own;
        /// How long an idle shard polls before it sleeps; for cores of its own.
        spin_before_park_us: u64 = 0, 0..=1_000_000, "microseconds", "RINGRAFT_SPIN_BEFORE_PARK_US", own;
        /// Locked memory for I/O buffers of one shard; `ulimit -l` must allow it.
        io_memory_bytes: u64 = 1_048_576, 65_536..=1_073_741_824, "bytes", "RINGRAFT_IO_MEMORY_BYTES", own;
        /// Entries of each of a shard's io_uring queues, a power of two.
        io_ring_depth: u32 = 1_024, 128..=32_768, "entries", "RINGRAFT_IO_RING_DEPTH", own;
        /// Log per second that a member which lags behind gets at least, while others commit without it: three times what comes in if that is more, so that it catches up and the rest goes on undisturbed; 0: as much as it takes.
        catch_up_bytes_per_second: u64 = 8_388_608, 0..=1_099_511_627_776, "bytes", "RINGRAFT_CATCH_UP_BYTES_PER_SECOND", own;
        /// A new member of a group may lack so many bytes of what is committed when it gets its vote.
        catch_up_bytes: u64 = 1_048_576, 0..=1_073_741_824, "bytes", "RINGRAFT_CATCH_UP_BYTES", own + reload;
        /// A snapshot of a group is taken when so many bytes of entries were applied since the last one.
        snapshot_log_bytes: u64 = 268_435_456, 65_536..=1_099_511_627_776, "bytes", "RINGRAFT_SNAPSHOT_LOG_BYTES", own + reload;
        /// ... and at least so many percent of the size of its state.
        snapshot_state_percent: u32 = 100, 0..=10_000, "percent", "RINGRAFT_SNAPSHOT_STATE_PERCENT", own + reload;
        /// One is taken as well when so many entries were applied since the last one.
        snapshot_log_entries: u64 = 4_000_000, 16..=1_000_000_000_000, "entries", "RINGRAFT_SNAPSHOT_LOG_ENTRIES", own + reload;
        /// Files of the log beyond which the groups in the oldest one take snapshots, however little they wrote.
        snapshot_segments: u32 = 32, 2..=65_536, "files", "RINGRAFT_SNAPSHOT_SEGMENTS", own + reload;
        /// Bytes of snapshots written per second, per shard.
        snapshot_write_bytes_per_second: u64 = 268_435_456, 1_048_576..=1_099_511_627_776, "bytes", "RINGRAFT_SNAPSHOT_WRITE_BYTES_PER_SECOND", own + reload;
        /// Bytes of snapshots sent per second, per shard.
        snapshot_send_bytes_per_second: u64 = 134_217_728, 1_048_576..=1_099_511_627_776, "bytes", "RINGRAFT_SNAPSHOT_SEND_BYTES_PER_SECOND", own + reload;
        /// Snapshots sent at once, per shard.
        snapshot_streams_max: u32 = 2, 1..=64, "snapshots", "RINGRAFT_SNAPSHOT_STREAMS_MAX", own + reload;
        /// Latest changes kept in memory for watches that begin in the past or fall behind, per shard; its groups share them equally.
        watch_ring_bytes: u64 = 4_194_304, 65_536..=1_073_741_824, "bytes", "RINGRAFT_WATCH_RING_BYTES", own;
        /// Watches of clients at once, per shard.
        watches_max: u32 = 1_024, 1..=65_536, "watches", "RINGRAFT_WATCHES_MAX", own;
        /// A leader whose own flushes make no progress for this long steps down.
        disk_stall_ms: u64 = 2_000, 10..=600_000, "milliseconds", "RINGRAFT_DISK_STALL_MS", own + reload;
        /// The process ends when a shard has not turned for this long.
        watchdog_ms: u64 = 10_000, 100..=3_600_000, "milliseconds", "RINGRAFT_WATCHDOG_MS", own;
        /// HTTP and gRPC connections at once; further ones wait until one ends.
        http_connections_max: u32 = 10_000, 1..=1_000_000, "connections", "RINGRAFT_HTTP_CONNECTIONS_MAX", own;
        /// HTTP and gRPC requests at once; further ones are refused as overloaded.
        http_requests_max: u32 = 4_096, 1..=32_768, "requests", "RINGRAFT_HTTP_REQUESTS_MAX", own;
        /// An HTTP connection is closed when the head of its next request is not there after so long, idle or slow; a body may take as long, but not more than 10 s.
        http_head_timeout_ms: u64 = 60_000, 10..=86_400_000, "milliseconds", "RINGRAFT_HTTP_HEAD_TIMEOUT_MS", own;
        /// Longest time the cluster may take to answer an HTTP or gRPC request that names none.
        http_request_timeout_ms: u64 = 5_000, 10..=3_600_000, "milliseconds", "RINGRAFT_HTTP_REQUEST_TIMEOUT_MS", own;
        /// Time between two comparisons of the replicas' state hashes.
        digest_ms: u64 = 1_000, 10..=3_600_000, "milliseconds", "RINGRAFT_DIGEST_MS", own + reload;
    }
    texts {
        /// The cluster's id, the same on every node; make one with `openssl rand -hex 16`.
        cluster_id: ClusterId = "", "32 hexadecimal digits", "RINGRAFT_CLUSTER_ID", shared;
        /// Directory of this node's data.
        data_dir: PathBuf = "", "a path", "RINGRAFT_DATA_DIR", own | "data_dir" | "raft-dir" | "raft_dir";
        /// Directory of the log when it is to be on another disk; empty: data_dir/wal.
        wal_dir: Option<PathBuf> = "", "a path or empty", "RINGRAFT_WAL_DIR", own;
        /// The nodes that the cluster is made of at first, this one included, or this node alone when it joins one; shard s of
        /// a node has the port named here plus s. What is added or removed later is kept by the cluster itself.
        peers: Peers = "", "id=host:port,id=host:port,...", "RINGRAFT_PEERS", own;
        /// Address to listen on when it is not the one others reach this node by; shard s adds s to the port.
        listen: Option<Address> = "", "host:port or empty", "RINGRAFT_LISTEN", own;
        /// Where HTTP is served, and gRPC with it unless grpc_address is given.
        http_address: Option<Address> = "", "host:port or empty", "RINGRAFT_HTTP_ADDRESS", own;
        /// Where gRPC is served, when it is to be a port of its own.
        grpc_address: Option<Address> = "", "host:port or empty", "RINGRAFT_GRPC_ADDRESS", own;
        /// Where metrics are served, besides http_address.
        metrics_address: Option<Address> = "", "host:port or empty", "RINGRAFT_METRICS_ADDRESS", own;
        /// Whether an HTTP write that comes to a follower is passed on to the leader; off: the answer is 307 and names the leader.
        http_proxy: Switch = "off", "off or on", "RINGRAFT_HTTP_PROXY", own;
        /// Whether spans of requests and of changes of role are sent to a collector, by OTLP over gRPC.
        tracing_enabled: Switch = "off", "off or on", "RINGRAFT_TRACING_ENABLED", own;
        /// The collector that spans are sent to; http:// may stand before it. TLS is not spoken.
        tracing_endpoint: Collector = "127.0.0.1:4317", "host:port", "RINGRAFT_TRACING_ENDPOINT", own;
        /// What the nodes of this cluster are called in traces; a node's id is its service.instance.id.
        tracing_service_name: ServiceName = "ringraft", "1 to 255 characters", "RINGRAFT_TRACING_SERVICE_NAME", own;
        /// Share of requests that are traced when whoever asks did not decide it by a traceparent; 1: all. Changes of role, leader and term are few and always sent.
        tracing_sample_ratio: Ratio = "1", "0 to 1, in steps of 0.000001", "RINGRAFT_TRACING_SAMPLE_RATIO", own;
        /// Whether a leader that holds a lease answers reads that ask for it without asking a majority; relies on clocks that differ by less than lease_drift_percent and go on in every pause. Lower tick_ms or election_ticks_min only with leases off on all nodes.
        lease_reads: Switch = "off", "off or on", "RINGRAFT_LEASE_READS", own;
        /// How a batch is made durable; auto measures both at start.
        flush_method: FlushMethod = "auto", "auto, fdatasync or dsync", "RINGRAFT_FLUSH_METHOD", own;
        /// Core of each shard.
        cpus: Cpus = "none", "none or one core number per shard: 0,1,...", "RINGRAFT_CPUS", own;
        /// How much is logged to standard error.
        log_level: LogLevel = "info", "off, error, warn, info, debug or trace", "RINGRAFT_LOG_LEVEL", own + reload;
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that is malformed or out of its bounds.
    #[error(
        "{key} = `{value}` (from {origin}): {problem}; allowed: {bounds}; \
         set it with --{flag}, {environment} or `{key} = ...` in the configuration file",
        flag = key.replace('_', "-")
    )]
    Value {
        /// The setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// Who gave it.
        origin: String,
        /// What is wrong with it.
        problem: String,
        /// What is allowed.
        bounds: &'static str,
        /// The setting's environment variable.
        environment: &'static str,
    },
    /// A setting without a default was not given.
    #[error(
        "{key} is not set: {text} Set it with --{flag}, {environment} or `{key} = ...` in the configuration file \
         ({bounds})",
        flag = key.replace('_', "-")
    )]
    Missing {
        /// The setting.
        key: &'static str,
        /// What it is.
        text: &'static str,
        /// What is allowed.
        bounds: &'static str,
        /// The setting's environment variable.
        environment: &'static str,
    },
    /// A key of the file that is not a setting.
    #[error("{path}: there is no setting `{key}`{hint}", path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// The file cannot be read or is not in its format.
    #[error("the configuration file {path} cannot be read: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A setting of another program that has no truthful meaning here.
    #[error("{name} (from {origin}): {problem}")]
    Foreign {
        /// What it is called there.
        name: String,
        /// Who gave it.
        origin: String,
        /// Why it cannot be honoured, and what to do.
        problem: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Relation(String),
}

impl ConfigError {
    fn value(key: &'static str, value: &str, origin: &str, problem: String) -> Self {
        let info = info(key);
        let (value, origin) = (value.to_owned(), origin.to_owned());
        Self::Value { key, value, origin, problem, bounds: info.bounds, environment: info.environment }
    }

    fn missing(key: &'static str) -> Self {
        let info = info(key);
        Self::Missing { key, text: info.text.trim(), bounds: info.bounds, environment: info.environment }
    }

    /// The same configuration will never be accepted.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The node cannot start with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }

    /// The process exit code.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        crate::exit::USAGE
    }
}

fn info(key: &str) -> &'static SettingInfo {
    SETTINGS.iter().find(|info| info.key == key).expect("only settings are asked for")
}

#[cfg(test)]
mod tests;
