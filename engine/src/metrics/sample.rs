//! What a shard publishes once a second, and the sum of it for the node.
//!
//! Off the data path.
//! Invariants: a sample is bounded: beyond [`GROUPS_MAX`] groups it holds sums and the worst alone; the counters of a node
//! never go back while it runs, also when replicas go.
//! It is copied out of the shard and changed no more.

use std::sync::Arc;

use super::histogram::Maximum;
use super::record::{Latencies, Rejection, Tally};
use crate::shard::io::Counters;
use crate::shard::status::WalStatus;

/// Groups of a node that are shown one by one.
pub const GROUPS_MAX: usize = 64;

/// The part that a replica plays, as `raft_state` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Follows a leader, or waits for one.
    #[default]
    Follower = 0,
    /// Asks for votes.
    Candidate = 1,
    /// Leads.
    Leader = 2,
    /// Asks whether it could win an election.
    PreCandidate = 3,
    /// Follows without a vote.
    Learner = 4,
}

impl State {
    /// All of them, by their number.
    pub const ALL: [Self; 5] = [Self::Follower, Self::Candidate, Self::Leader, Self::PreCandidate, Self::Learner];

    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::PreCandidate => "pre_candidate",
            Self::Learner => "learner",
        }
    }
}

/// A follower, as its leader here sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerSample {
    /// Its node.
    pub node: u64,
    /// Entries of the leader's log that are not known to be durable there.
    pub lag: u64,
    /// 0: the leader looks for the point where the logs meet, 1: it streams, 2: it sends a snapshot.
    pub state: u64,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// The group.
    pub group: u32,
    /// The part it plays.
    pub state: State,
    /// Current term.
    pub term: u64,
    /// The leader's node, 0: none is known.
    pub leader: u64,
    /// First entry of the log.
    pub first_index: u64,
    /// Last entry of the log.
    pub last_index: u64,
    /// Highest entry durable on this disk.
    pub durable_index: u64,
    /// Highest committed entry known here.
    pub commit_index: u64,
    /// Highest applied entry.
    pub applied_index: u64,
    /// The last entry in the newest durable snapshot, 0: there is none.
    pub snapshot_index: u64,
    /// 0: nothing, 1: takes a snapshot, 2: sends one, 3: receives one, 4: installs one.
    pub snapshot_state: u64,
    /// Requests waiting.
    pub waiting: u64,
    /// Keys.
    pub keys: u64,
    /// Open sessions.
    pub sessions: u64,
    /// What was counted.
    pub tally: Tally,
    /// On a leader: the others.
    pub followers: Vec<FollowerSample>,
}

impl GroupSample {
    /// Entries that are committed and not applied.
    #[must_use]
    pub fn apply_lag(&self) -> u64 {
        self.commit_index.saturating_sub(self.applied_index)
    }
}

/// Sums over replicas, and the worst of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSums {
    /// Replicas by [`State`].
    pub states: [u64; State::ALL.len()],
    /// Replicas that know no leader.
    pub without_leader: u64,
    /// Requests waiting.
    pub waiting: u64,
    /// Keys.
    pub keys: u64,
    /// Open sessions.
    pub sessions: u64,
    /// The largest lag of a follower of a leader here.
    pub follower_lag_max: u64,
    /// The largest number of entries that are committed and not applied.
    pub apply_lag_max: u64,
}

impl GroupSums {
    /// Replicas.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.states.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.states.iter_mut().zip(&other.states) {
            *count += more;
        }
        self.without_leader += other.without_leader;
        self.waiting += other.waiting;
        self.keys += other.keys;
        self.sessions += other.sessions;
        self.follower_lag_max = self.follower_lag_max.max(other.follower_lag_max);
        self.apply_lag_max = self.apply_lag_max.max(other.apply_lag_max);
    }
}

/// What one shard publishes.
#[derive(Clone, Debug)]
pub struct ShardSample {
    /// The node.
    pub node: u64,
    /// The shard.
    pub shard: u16,
    /// The first [`GROUPS_MAX`] replicas, by group.
    pub groups: Vec<GroupSample>,
    /// Of all replicas.
    pub sums: GroupSums,
    /// What was counted of all replicas since the start.
    pub tally: Tally,
    /// Counts since the start.
    pub counters: Counters,
    /// Histograms since the start.
    pub latencies: Latencies,
    /// Requests that waited in one group.
    pub waiting_max: Maximum,
    /// The write-ahead log.
    pub wal: WalStatus,
    /// Bytes of the log's cache.
    pub wal_cache_bytes: u64,
    /// Flushes under way.
    pub flushes_in_flight: u64,
    /// Open client connections.
    pub clients: u64,
    /// Links to peers that stand.
    pub peers_connected: u64,
    /// Unsent bytes in the longest queue to a peer.
    pub peer_queue_bytes: u64,
    /// Messages to peers dropped at the bound of a queue.
    pub peer_messages_dropped: u64,
    /// Epoch of the topology it acts on.
    pub topology_epoch: u64,
    /// Whether its flushes have stopped.
    pub disk_stalled: bool,
}

/// What the operating system says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSample {
    /// Processor time used.
    pub cpu_us: u64,
    /// Memory in use.
    pub resident_bytes: u64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// Start, as time since 1970.
    pub start_us: u64,
}

/// All shards of a node together.
#[derive(Clone, Debug, Default)]
pub struct NodeSample {
    /// What each shard published.
    pub shards: Vec<Arc<ShardSample>>,
    /// Of all replicas.
    pub sums: GroupSums,
    /// What was counted of all replicas.
    pub tally: Tally,
    /// Histograms of all shards.
    pub latencies: Latencies,
    /// The process.
    pub process: ProcessSample,
}

impl NodeSample {
    /// The sum of what shards published.
    #[must_use]
    pub fn new(shards: Vec<Arc<ShardSample>>, process: ProcessSample) -> Self {
        let mut node = Self { process, ..Self::default() };
        for shard in &shards {
            node.sums.add(&shard.sums);
            node.tally.add(&shard.tally);
            node.latencies.add(&shard.latencies);
        }
        node.shards = shards;
        node
    }

    /// The replicas one by one, by group; none when there are too many to be shown.
    #[must_use]
    pub fn groups(&self) -> Vec<&GroupSample> {
        if self.sums.groups() > GROUPS_MAX as u64 {
            return Vec::new();
        }
        let mut groups: Vec<_> = self.shards.iter().flat_map(|shard| &shard.groups).collect();
        groups.sort_unstable_by_key(|group| group.group);
        groups
    }

    /// The replica of group 0, which keeps the cluster's topology and of which every node is a member.
    #[must_use]
    pub fn control_group(&self) -> Option<&GroupSample> {
        self.shards.iter().flat_map(|shard| &shard.groups).find(|group| group.group == 0)
    }

    /// The sum of a number over shards.
    #[must_use]
    pub fn sum(&self, number: impl Fn(&ShardSample) -> u64) -> u64 {
        self.shards.iter().map(|shard| number(shard)).sum()
    }

    /// The largest of a number over shards.
    #[must_use]
    pub fn largest(&self, number: impl Fn(&ShardSample) -> u64) -> u64 {
        self.shards.iter().map(|shard| number(shard)).max().unwrap_or(0)
    }
}

/// Counts by reason, with the reasons' names.
pub(super) fn by_reason(tally: &Tally) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    Rejection::ALL.into_iter().map(|reason| (reason.name(), tally.rejected[reason as usize]))
}
