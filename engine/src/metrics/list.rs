//! The one declaration of all metrics: name, meaning, and where the value comes from.
//!
//! Off the data path. `engine/METRICS.md` is made from it.
//! Invariants: a name says its unit (`_seconds`, `_bytes`) or counts things; what only grows ends in `_total`; values in
//! seconds are kept in microseconds.
//! The names that begin with `raft_` are those of common Raft dashboards; everything of our own begins with `ringraft_`.

use super::histogram::Histogram;
use super::record::Tally;
use super::sample::{FollowerSample, GroupSample, NodeSample, ShardSample};

/// A number of the node.
type OfNode = fn(&NodeSample) -> u64;
/// A number of a replica.
type OfGroup = fn(&GroupSample) -> u64;

/// Where the values of a metric come from, and by that its labels.
#[derive(Clone, Copy)]
pub(super) enum Values {
    /// One value, no labels.
    Node(OfNode),
    /// One value without labels, and one per `group`.
    NodeAndGroups(OfNode, OfGroup),
    /// One per `group`.
    Groups(OfGroup),
    /// One per `group` and `follower`, where this node leads.
    Followers(fn(&FollowerSample) -> u64),
    /// One per `shard`.
    Shards(fn(&ShardSample) -> u64),
    /// Counts by `reason`.
    Reasons(fn(&NodeSample) -> &Tally),
    /// Counts by `group` and `reason`.
    GroupReasons,
    /// Replicas by `state`.
    States,
    /// A histogram, shown from one bucket to another.
    Histogram(fn(&NodeSample) -> &Histogram, u64, u64),
    /// The value 1 with `node` and `version`.
    Info,
}

/// One metric.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    pub(super) values: Values,
}

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// A value as it is now.
    Gauge,
    /// Counts of values by size.
    Histogram,
}

impl Metric {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.values {
            Values::Histogram(..) => Kind::Histogram,
            _ if self.name.ends_with("_total") => Kind::Counter,
            _ => Kind::Gauge,
        }
    }

    /// Its unit, as the name says it; empty: it counts things.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let name = self.name.trim_end_matches("_total");
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default()
    }

    /// The labels of its series; several kinds of series are separate.
    #[must_use]
    pub fn labels(&self) -> &'static str {
        match self.values {
            Values::Node(_) => "none",
            Values::Histogram(..) => "`le`",
            Values::NodeAndGroups(..) => "none; `group`",
            Values::Groups(_) => "`group`",
            Values::Followers(_) => "`group`, `follower`",
            Values::Shards(_) => "`shard`",
            Values::Reasons(_) => "`reason`",
            Values::GroupReasons => "`group`, `reason`",
            Values::States => "`state`",
            Values::Info => "`node`, `version`",
        }
    }
}

const fn metric(name: &'static str, values: Values, help: &'static str) -> Metric {
    Metric { name, help, values }
}

fn control(node: &NodeSample, number: OfGroup) -> u64 {
    node.control_group().map_or(0, number)
}

use Values::{
    Followers, GroupReasons, Groups, Histogram as Buckets, Info, Node, NodeAndGroups, Reasons, Shards, States,
};

/// From 16 microseconds to 16.8 seconds.
const TIME: (u64, u64) = (16, 1 << 24);

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("raft_term_current", NodeAndGroups(|node| control(node, |group| group.term), |group| group.term),
        "Current term; without a label that of group 0, of which every node is a member."),
    metric("raft_state", NodeAndGroups(|node| control(node, |group| group.state as u64), |group| group.state as u64),
        "0 follower, 1 candidate, 2 leader, 3 pre-candidate, 4 learner; without a label that of group 0."),
    metric("raft_log_entries_total", NodeAndGroups(|node| node.tally.entries, |group| group.tally.entries),
        "Entries added to the log; without a label of all groups."),
    metric("raft_commits_total", NodeAndGroups(|node| node.tally.commits, |group| group.tally.commits),
        "Entries committed while the replica served; without a label of all groups."),
    metric("raft_leader_elections_total", NodeAndGroups(|node| node.tally.elections, |group| group.tally.elections),
        "Elections started here; without a label of all groups."),

    metric("ringraft_node_info", Info, "Which node this is, and its release."),
    metric("ringraft_topology_epoch", Node(|node| node.largest(|shard| shard.topology_epoch)),
        "Epoch of the newest topology of the cluster that a shard acts on."),
    metric("ringraft_groups", States, "Replicas by the part they play."),
    metric("ringraft_groups_without_leader", Node(|node| node.sums.without_leader), "Replicas that know no leader."),
    metric("ringraft_keys", Node(|node| node.sums.keys), "Keys in all state machines."),
    metric("ringraft_sessions", Node(|node| node.sums.sessions), "Open sessions of clients in all state machines."),

    metric("ringraft_proposed_entries_total", Node(|node| node.sum(|shard| shard.counters.entries_proposed)),
        "Entries proposed by leaders here."),
    metric("ringraft_proposed_requests_total", Node(|node| node.sum(|shard| shard.counters.requests_proposed)),
        "Requests of clients inside proposed entries: the writes."),
    metric("ringraft_applied_entries_total", Node(|node| node.tally.applied), "Entries applied."),
    metric("ringraft_reads_total", Node(|node| node.sum(|shard| shard.counters.reads)), "Reads answered."),
    metric("ringraft_lease_reads_total", Node(|node| node.sum(|shard| shard.counters.lease_reads)),
        "Reads that a leader answered by its lease."),
    metric("ringraft_follower_reads_total", Node(|node| node.sum(|shard| shard.counters.follower_reads)),
        "Reads that a replica answered after asking its leader."),
    metric("ringraft_replies_total", Node(|node| node.sum(|shard| shard.counters.replies)), "Replies to clients."),
    metric("ringraft_requests_rejected_total", Reasons(|node| &node.tally), "Requests that were not taken, by reason."),
    metric("ringraft_requests_outcome_unknown_total", Node(|node| node.tally.unknown),
        "Requests whose outcome is unknown: leadership was lost while they waited."),
    metric("ringraft_bad_frames_total", Node(|node| node.sum(|shard| shard.counters.bad_frames)),
        "Frames of clients that were refused as malformed."),
    metric("ringraft_waiting_requests", Node(|node| node.sums.waiting), "Requests that wait here."),
    metric("ringraft_waiting_requests_max", Node(|node| node.largest(|shard| shard.waiting_max.last_minute())),
        "The most requests that waited in one group in the last minute."),
    metric("ringraft_client_connections", Node(|node| node.sum(|shard| shard.clients)), "Open connections of clients."),
    metric("ringraft_leader_changes_total", Node(|node| node.tally.leader_changes),
        "Terms of which the leader became known, of all groups."),

    metric("ringraft_proposal_wait_seconds", Buckets(|node| &node.latencies.proposal_wait, TIME.0, TIME.1),
        "From the arrival of the oldest request of an entry until the entry is proposed."),
    metric("ringraft_proposal_wait_max_seconds", Node(|node| node.latencies.proposal_wait.maximum()),
        "The longest such wait of the last minute."),
    metric("ringraft_commit_latency_seconds", Buckets(|node| &node.latencies.commit, TIME.0, TIME.1),
        "From the proposal of an entry until it is committed, applied and answered, at the leader that proposed it."),
    metric("ringraft_commit_latency_max_seconds", Node(|node| node.latencies.commit.maximum()),
        "The longest such latency of the last minute."),
    metric("ringraft_flush_latency_seconds", Buckets(|node| &node.latencies.flush, TIME.0, TIME.1),
        "From the turn that handed a flush batch to the disk until the turn that saw it durable."),
    metric("ringraft_flush_latency_max_seconds", Node(|node| node.latencies.flush.maximum()),
        "The longest such latency of the last minute."),
    metric("ringraft_flush_batch_bytes", Buckets(|node| &node.latencies.batch_bytes, 512, 8 << 20),
        "Bytes of a flush batch, header and padding included."),
    metric("ringraft_flush_batch_max_bytes", Node(|node| node.latencies.batch_bytes.maximum()),
        "The largest flush batch of the last minute."),
    metric("ringraft_flush_batch_records", Buckets(|node| &node.latencies.batch_records, 1, 4_096),
        "Records in a flush batch: entries, terms and votes, marks."),
    metric("ringraft_flush_batch_records_max", Node(|node| node.latencies.batch_records.maximum()),
        "The most records in a flush batch of the last minute."),
    metric("ringraft_entry_requests", Buckets(|node| &node.latencies.entry_requests, 1, 4_096),
        "Requests in an entry that a leader here made of requests."),
    metric("ringraft_entry_requests_max", Node(|node| node.latencies.entry_requests.maximum()),
        "The most requests in an entry of the last minute."),

    metric("ringraft_wal_flushes_total", Node(|node| node.sum(|shard| shard.wal.flushes)), "Flush batches that became durable."),
    metric("ringraft_wal_written_bytes_total", Node(|node| node.sum(|shard| shard.wal.bytes_written)),
        "Bytes written to the log, headers and padding included."),
    metric("ringraft_wal_record_bytes_total", Node(|node| node.sum(|shard| shard.wal.record_bytes)),
        "Bytes of records accepted by the log."),
    metric("ringraft_wal_flushes_in_flight", Node(|node| node.sum(|shard| shard.flushes_in_flight)), "Flushes under way."),
    metric("ringraft_wal_segments", Node(|node| node.sum(|shard| shard.wal.segments)), "Files of the log with live records."),
    metric("ringraft_wal_segments_free", Node(|node| node.sum(|shard| shard.wal.pool_free)), "Files of the log ready for use."),
    metric("ringraft_wal_segment_waits_total", Node(|node| node.sum(|shard| shard.wal.pool_empty)),
        "Times a file of the log was needed and none was ready."),
    metric("ringraft_wal_cache_bytes", Node(|node| node.sum(|shard| shard.wal_cache_bytes)),
        "Bytes of recent records kept in memory."),
    metric("ringraft_wal_disk_full", Node(|node| node.largest(|shard| u64::from(shard.wal.full))),
        "1: the last attempt to make a file of the log met a full disk."),
    metric("ringraft_disk_stalled", Node(|node| node.largest(|shard| u64::from(shard.disk_stalled))),
        "1: flushes of a shard have stopped."),
    metric("ringraft_disk_stalls_total", Node(|node| node.sum(|shard| shard.counters.disk_stalls)),
        "Times leaders stepped down because flushes had stopped."),

    metric("ringraft_follower_lag_max_entries", Node(|node| node.sums.follower_lag_max),
        "The largest lag of a follower of a leader here."),
    metric("ringraft_apply_lag_max_entries", Node(|node| node.sums.apply_lag_max),
        "The most entries of a group that are committed and not applied."),
    metric("ringraft_peers_connected", Node(|node| node.sum(|shard| shard.peers_connected)), "Links of shards to peers that stand."),
    metric("ringraft_peer_queue_max_bytes", Node(|node| node.largest(|shard| shard.peer_queue_bytes)),
        "Unsent bytes in the longest queue to a peer."),
    metric("ringraft_peer_messages_dropped_total", Node(|node| node.sum(|shard| shard.peer_messages_dropped)),
        "Messages to peers dropped at the bound of a queue; they are sent again later."),
    metric("ringraft_digests_compared_total", Node(|node| node.sum(|shard| shard.counters.digests_compared)),
        "Comparisons of a replica's state with its leader's."),
    metric("ringraft_snapshots_taken_total", Node(|node| node.sum(|shard| shard.counters.snapshots_taken)), "Snapshots taken."),
    metric("ringraft_snapshots_sent_total", Node(|node| node.sum(|shard| shard.counters.snapshots_sent)),
        "Snapshots sent to their end."),
    metric("ringraft_snapshots_installed_total", Node(|node| node.sum(|shard| shard.counters.snapshots_installed)),
        "Snapshots of leaders that took the place of a log here."),
    metric("ringraft_snapshots_failed_total", Node(|node| node.sum(|shard| shard.counters.snapshots_failed)),
        "Snapshots that could not be taken, sent or received; they are tried again."),

    metric("ringraft_watch_bytes_total", Node(|node| node.sum(|shard| shard.counters.watch_bytes)),
        "Bytes of changes that were looked at for watches, 128 for each visit of a watch included."),

    metric("ringraft_shard_turns_total", Shards(|shard| shard.counters.turns), "Turns of a shard: at 0 per second it stands still."),
    metric("ringraft_shard_replies_total", Shards(|shard| shard.counters.replies), "Replies of a shard to clients."),
    metric("ringraft_shard_waiting_requests", Shards(|shard| shard.sums.waiting), "Requests that wait in a shard."),
    metric("ringraft_shard_groups", Shards(|shard| shard.sums.groups()), "Replicas in a shard."),

    metric("ringraft_group_leader", Groups(|group| group.leader), "The leader's node as far as known here, 0: none."),
    metric("ringraft_group_leader_changes_total", Groups(|group| group.tally.leader_changes),
        "Terms of which the leader became known."),
    metric("ringraft_group_first_index", Groups(|group| group.first_index), "First entry of the log."),
    metric("ringraft_group_last_index", Groups(|group| group.last_index), "Last entry of the log."),
    metric("ringraft_group_durable_index", Groups(|group| group.durable_index), "Highest entry durable on this disk."),
    metric("ringraft_group_commit_index", Groups(|group| group.commit_index), "Highest committed entry known here."),
    metric("ringraft_group_applied_index", Groups(|group| group.applied_index), "Highest applied entry."),
    metric("ringraft_group_apply_lag_entries", Groups(GroupSample::apply_lag), "Entries committed and not applied."),
    metric("ringraft_group_applied_entries_total", Groups(|group| group.tally.applied), "Entries applied."),
    metric("ringraft_group_snapshot_index", Groups(|group| group.snapshot_index),
        "The last entry in the newest durable snapshot, 0: there is none."),
    metric("ringraft_group_snapshot_state", Groups(|group| group.snapshot_state),
        "0 nothing, 1 takes a snapshot, 2 sends one, 3 receives one, 4 installs one."),
    metric("ringraft_group_waiting_requests", Groups(|group| group.waiting), "Requests that wait."),
    metric("ringraft_group_keys", Groups(|group| group.keys), "Keys in the state machine."),
    metric("ringraft_group_requests_rejected_total", GroupReasons, "Requests that were not taken, by reason."),
    metric("ringraft_group_requests_outcome_unknown_total", Groups(|group| group.tally.unknown),
        "Requests whose outcome is unknown."),
    metric("ringraft_follower_lag_entries", Followers(|follower| follower.lag),
        "Entries of the leader's log that are not known to be durable at a follower; shown by the leader."),
    metric("ringraft_follower_state", Followers(|follower| follower.state),
        "0: the leader looks for the point where the logs meet, 1: it streams, 2: it sends a snapshot; shown by the leader."),

    metric("process_cpu_seconds_total", Node(|node| node.process.cpu_us), "Processor time of the process."),
    metric("process_resident_memory_bytes", Node(|node| node.process.resident_bytes), "Memory of the process."),
    metric("process_open_fds", Node(|node| node.process.open_fds), "Open files and sockets of the process."),
    metric("process_start_time_seconds", Node(|node| node.process.start_us), "Start of the process since 1970."),
];
