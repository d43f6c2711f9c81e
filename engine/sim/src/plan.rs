//! What a seed stands for: the cluster's shape, how fast network and disks are, what clients do, which faults there are.
//!
//! Off the data path.
//! Swarm testing: each seed switches every class of fault on or off and draws how strong it is, so that one class does not
//! hide behind another. A scenario writes its plan by hand.
//! Invariants: sizes keep the proportions that the production configuration demands (an append fits in a segment many
//! times, a request in a record); the plan is a function of the seed.

use ringraft_engine::limits::Limits;
use ringraft_engine::shard::SnapshotSettings;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::snapshot::ChunkBytes;
use ringraft_engine::topology::Topology;
use ringraft_raft::NodeId;
use ringraft_wal::{Config as WalConfig, Identity, ValidConfig};

use crate::network::Latency;
use crate::random::Random;
use crate::world::World;

mod members;

pub(crate) use members::Members;

/// Classes of faults. One that is switched off never happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the name says it; nemesis.rs does it")]
pub enum Fault {
    Kill,
    PowerLoss,
    PowerLossOfAll,
    Trap,
    Pause,
    GracefulStop,
    RollingRestart,
    Partition,
    OneWayPartition,
    ClientsCut,
    Flapping,
    Slow,
    Sever,
    CorruptBytes,
    Datagrams,
    DiskStall,
    DiskSlow,
    WriteError,
    ReadError,
    DiskFull,
    Damage,
    Wipe,
    DeadDisk,
    DiskStallForEver,
    Overload,
    ClientRestart,
    Transfer,
    InsideChange,
}

impl Fault {
    /// Every class.
    pub const ALL: [Self; 28] = [
        Self::Kill,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::Trap,
        Self::Pause,
        Self::GracefulStop,
        Self::RollingRestart,
        Self::Partition,
        Self::OneWayPartition,
        Self::ClientsCut,
        Self::Flapping,
        Self::Slow,
        Self::Sever,
        Self::CorruptBytes,
        Self::Datagrams,
        Self::DiskStall,
        Self::DiskSlow,
        Self::WriteError,
        Self::ReadError,
        Self::DiskFull,
        Self::Damage,
        Self::Wipe,
        Self::DeadDisk,
        Self::DiskStallForEver,
        Self::Overload,
        Self::ClientRestart,
        Self::Transfer,
        Self::InsideChange,
    ];

    /// How often it is drawn beside the others.
    fn weight(self) -> u32 {
        match self {
            Self::Kill | Self::PowerLoss | Self::Trap | Self::Pause | Self::Partition => 8,
            Self::OneWayPartition
            | Self::Flapping
            | Self::Sever
            | Self::DiskStall
            | Self::ClientRestart
            | Self::Transfer => 4,
            Self::Wipe | Self::DeadDisk | Self::DiskStallForEver => 1,
            _ => 3,
        }
    }
}

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Pause between two requests of a client, on average.
    pub(crate) pause_us: u64,
    pub(crate) outstanding_max: usize,
    pub(crate) sessions: bool,
    pub(crate) connections: usize,
    pub(crate) hot_tags: u64,
    pub(crate) cold_tags: u64,
    pub(crate) hot_per_million: u32,
    pub(crate) value_bytes_max: u64,
    /// Weights of a fresh read's kinds: linearizable, by lease, at a follower.
    pub(crate) reads: [u32; 3],
    /// How old what a stale read returns may be, one of these in milliseconds; 0 is as old as it is.
    pub(crate) bounds_ms: [u32; 2],
    /// Weights: get, stale get, put, delete, compare-and-set, several operations, several gets.
    pub(crate) mix: [u32; 7],
    pub(crate) request_timeout_us: u64,
}

/// How the disks behave when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskPace {
    pub(crate) write_us: u64,
    pub(crate) read_us: u64,
    pub(crate) create_us: u64,
}

/// Everything that is fixed when a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Nodes there ever are: those that found the cluster, then those that may join it.
    pub(crate) nodes: usize,
    pub(crate) founders: usize,
    pub(crate) replication_factor: u32,
    /// How nodes come and go; none: they do not.
    pub(crate) members: Option<Members>,
    /// Time between two reports of nodes to each other.
    pub(crate) report_us: u64,
    pub(crate) shards: u16,
    pub(crate) groups: u32,
    pub(crate) tick_us: u64,
    /// Length of each node's tick.
    pub(crate) node_tick_us: Vec<u64>,
    pub(crate) consensus: ConsensusSettings,
    /// When snapshots are taken, and how fast they move.
    pub(crate) snapshots: SnapshotSettings,
    pub(crate) wal: WalConfig,
    pub(crate) limits: Limits,
    pub(crate) waiting_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) reply_bytes_max: usize,
    pub(crate) peer_queue_bytes_max: usize,
    pub(crate) latency: Latency,
    pub(crate) disk: DiskPace,
    /// How long each node's disk takes, in hundredths of that.
    pub(crate) disk_percent: Vec<u64>,
    /// A start takes so long at most.
    pub(crate) open_us: u64,
    /// Shortest and longest time a crashed node is away.
    pub(crate) away_us: (u64, u64),
    /// A turn starts so long after there is work, on average.
    pub(crate) turn_us: u64,
    pub(crate) load: Load,
    /// Weight of each class of [`Fault::ALL`]; 0 is off.
    pub(crate) faults: Vec<u32>,
    /// Pause between two faults, on average.
    pub(crate) fault_pause_us: u64,
    /// Faults happen between these moments.
    pub(crate) faults_from_us: u64,
    pub(crate) faults_until_us: u64,
}

const MILLISECOND_US: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;
/// Groups of a plan with many: most of them sleep, and their heartbeats share frames.
const MANY_GROUPS: u32 = 40;

impl Plan {
    /// The plan of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let random = &mut Random::stream(seed, "plan");
        let shards = if random.chance(700_000) { 1 } else { 2 };
        let groups = random.between(u64::from(shards), 4) as u32;
        let nodes = *random.pick(&[1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5]);
        let many = Random::stream(seed, "groups").chance(40_000);
        let mut plan = Self::calm(seed, nodes, shards, if many { MANY_GROUPS } else { groups });
        plan.wal = draw_wal(random);
        plan.waiting_max = *random.pick(&[6, 40, 1_000]);
        plan.peer_queue_bytes_max = *random.pick(&[64 << 10, 1 << 20]);
        plan.limits.sessions_max = if random.chance(100_000) { 4 } else { 1_000 };
        plan.latency = Latency { min_us: random.magnitude(20, 2_000), jitter_us: random.magnitude(20, 4_000) };
        plan.disk = DiskPace {
            write_us: random.magnitude(40, 8_000),
            read_us: random.magnitude(40, 4_000),
            create_us: random.magnitude(2 * MILLISECOND_US, 100 * MILLISECOND_US),
        };
        if random.chance(500_000) {
            plan.disk_percent = (0..nodes).map(|_| *random.pick(&[30, 100, 100, 300, 1_000])).collect();
        }
        plan.open_us = random.magnitude(3_000, 200_000);
        plan.away_us = *random.pick(&[(5_000, 200_000), (20_000, 2_000_000), (20_000, 8_000_000)]);
        plan.turn_us = random.magnitude(5, 500);
        plan.load = draw_load(random);
        draw_consensus(&mut plan, random);
        if random.chance(500_000) {
            let tick_us = plan.tick_us;
            plan.node_tick_us = (0..nodes).map(|_| random.between(tick_us * 9 / 10, tick_us * 11 / 10)).collect();
        }
        draw_reads(&mut plan);
        let pace = &mut Random::stream(seed, "pace");
        plan.consensus.catch_up_bytes_per_tick = *pace.pick(&[0, 256, 4 << 10, 64 << 10]);
        while !plan.segments_suffice() {
            plan.wal.segment_bytes *= 2;
        }
        let switch = |fault: &Fault| match fault {
            Fault::InsideChange => 0, // for members.rs to draw
            fault if random.chance(450_000) => fault.weight(),
            _ => 0,
        };
        plan.faults = Fault::ALL.iter().map(switch).collect();
        plan.fault_pause_us = random.magnitude(200 * MILLISECOND_US, 4 * SECOND_US);
        plan.faults_until_us = plan.faults_from_us + random.between(5 * SECOND_US, 25 * SECOND_US);
        members::draw(&mut plan);
        plan
    }

    /// A cluster without faults: what scenarios start from.
    pub(crate) fn calm(seed: u64, nodes: usize, shards: u16, groups: u32) -> Self {
        let tick_us = 25 * MILLISECOND_US;
        Self {
            seed,
            nodes,
            founders: nodes,
            replication_factor: nodes as u32,
            members: None,
            report_us: SECOND_US,
            shards,
            groups,
            tick_us,
            node_tick_us: vec![tick_us; nodes],
            consensus: calm_consensus(seed, tick_us),
            snapshots: calm_snapshots(),
            wal: WalConfig {
                block_bytes: 512,
                segment_bytes: 128 << 10,
                segments_max: 4_096,
                segments_ready: 2,
                batch_bytes_max: 32 << 10,
                record_bytes_max: 20 << 10,
                flushes_in_flight_max: 2,
                backlog_bytes_max: 1 << 20,
                cache_bytes_max: 256 << 10,
            },
            limits: Limits {
                key_bytes_max: 128,
                value_bytes_max: 8 << 10,
                request_bytes_max: 16 << 10,
                operations_max: 64,
                answer_bytes_max: 12 << 10,
                sessions_max: 1_000,
                session_window_max: 256,
                sessions_bytes_max: 16 << 20,
            },
            waiting_max: 1_000,
            connections_max: 64,
            reply_bytes_max: 256 << 10,
            peer_queue_bytes_max: 1 << 20,
            latency: Latency { min_us: 100, jitter_us: 100 },
            disk: DiskPace { write_us: 200, read_us: 200, create_us: 10 * MILLISECOND_US },
            disk_percent: vec![100; nodes],
            open_us: 100 * MILLISECOND_US,
            away_us: (20_000, 8 * SECOND_US),
            turn_us: 20,
            load: Load {
                clients: 4,
                pause_us: 40 * MILLISECOND_US,
                outstanding_max: 4,
                sessions: true,
                connections: 1,
                hot_tags: 2,
                cold_tags: 50,
                hot_per_million: 600_000,
                value_bytes_max: 200,
                reads: [1, 1, 1],
                bounds_ms: [0, 300],
                mix: [4, 1, 5, 1, 2, 1, 1],
                request_timeout_us: 3 * SECOND_US,
            },
            faults: vec![0; Fault::ALL.len()],
            fault_pause_us: SECOND_US,
            faults_from_us: 2 * SECOND_US,
            faults_until_us: 12 * SECOND_US,
        }
    }

    /// What the cluster has at first.
    ///
    /// # Panics
    /// When the plan makes no valid topology.
    pub(crate) fn initial_topology(&self) -> Topology {
        let nodes = (0..self.founders).map(|node| (NodeId(node as u64 + 1), self.addresses(node)));
        Topology::initial(nodes, self.groups, self.shards, self.replication_factor)
            .unwrap_or_else(|error| panic!("a plan makes a valid topology: {error}"))
    }

    /// The addresses clients and peers know the shards of a node by.
    pub(crate) fn addresses(&self, node: usize) -> Vec<String> {
        (0..usize::from(self.shards)).map(|shard| World::address(node, shard)).collect()
    }

    /// The cluster every node and client means.
    pub(crate) fn cluster(&self) -> [u8; 16] {
        let mut cluster = [0x51; 16];
        cluster[..8].copy_from_slice(&self.seed.to_le_bytes());
        cluster
    }

    /// The log of one shard.
    ///
    /// # Panics
    /// When the plan's sizes are out of their bounds.
    pub(crate) fn wal_of(&self, node: usize, shard: usize) -> ValidConfig {
        let identity = Identity { cluster: self.cluster(), node: node as u64 + 1, shard: shard as u32 };
        self.wal.clone().validate(identity).expect("the plan keeps the bounds of the log")
    }

    /// Ticks without progress of the own disk after which a leader gives up.
    pub(crate) fn disk_stall_ticks(&self) -> u32 {
        self.ticks(2 * SECOND_US)
    }

    /// What the rates of two clocks differ by at most, rounded up.
    fn drift_percent(&self) -> u32 {
        let slowest = self.node_tick_us.iter().max().copied().unwrap_or(1);
        let fastest = self.node_tick_us.iter().min().copied().unwrap_or(1);
        (100 * (slowest - fastest)).div_ceil(slowest) as u32
    }

    /// A time of the slowest clock takes so many hundredths of it in truth, rounded up.
    pub(crate) fn slowest_clock_percent(&self) -> u64 {
        let slowest = self.node_tick_us.iter().max().copied().unwrap_or(self.tick_us);
        (100 * slowest).div_ceil(self.tick_us) + 1
    }

    /// Whether every append finds room in an empty segment, as the production configuration demands.
    fn segments_suffice(&self) -> bool {
        let config = self.wal.clone().validate(Identity::default()).expect("the bounds of the log");
        let bytes = self.wal.record_bytes_max.max(self.consensus.append_bytes_max as usize);
        config.segment_takes(bytes, self.groups.div_ceil(u32::from(self.shards)) as usize)
    }

    /// In every fourth run nodes differ in it.
    pub(crate) fn leader_priority(&self, node: usize) -> u32 {
        if self.seed.is_multiple_of(4) { 100 + node as u32 % 3 } else { 100 }
    }

    /// A time in ticks of the nominal clock.
    pub(crate) fn ticks(&self, time_us: u64) -> u32 {
        time_us.div_ceil(self.tick_us).max(1) as u32
    }
}

fn draw_wal(random: &mut Random) -> WalConfig {
    // At least 64 blocks: of fewer not enough are kept for hard states while a file is made on a slow disk.
    let (block_bytes, segment_bytes, batch_bytes_max) = *random.pick(&[
        (512, 32 << 10, 8 << 10),
        (512, 64 << 10, 16 << 10),
        (512, 128 << 10, 32 << 10),
        (1_024, 128 << 10, 16 << 10),
        (2_048, 128 << 10, 32 << 10),
        (4_096, 256 << 10, 64 << 10),
    ]);
    WalConfig {
        block_bytes,
        segment_bytes,
        segments_max: 4_096,
        segments_ready: random.between(1, 2) as u32,
        batch_bytes_max,
        record_bytes_max: 20 << 10,
        flushes_in_flight_max: random.between(1, 4) as usize,
        backlog_bytes_max: *random.pick(&[96 << 10, 1 << 20]),
        cache_bytes_max: *random.pick(&[0, 16 << 10, 256 << 10, 8 << 20]),
    }
}

fn draw_load(random: &mut Random) -> Load {
    Load {
        clients: random.between(3, 10) as usize,
        pause_us: random.magnitude(15 * MILLISECOND_US, 300 * MILLISECOND_US),
        outstanding_max: random.magnitude(1, 12) as usize,
        sessions: random.chance(700_000),
        connections: random.between(1, 2) as usize,
        hot_tags: random.between(1, 4),
        cold_tags: random.magnitude(4, 200),
        hot_per_million: *random.pick(&[200_000, 700_000, 950_000]),
        value_bytes_max: random.magnitude(30, 1_500),
        mix: [
            random.between(0, 6) as u32,
            random.between(0, 2) as u32,
            random.between(1, 8) as u32,
            random.between(0, 2) as u32,
            random.between(0, 4) as u32,
            random.between(0, 2) as u32,
            random.between(0, 2) as u32,
        ],
        reads: [1, 0, 0],
        bounds_ms: [0, 0],
        request_timeout_us: random.magnitude(300 * MILLISECOND_US, 6 * SECOND_US),
    }
}

/// Leases are held where they allow for the drift of the clocks; elsewhere reads that ask for them ask a majority.
fn draw_reads(plan: &mut Plan) {
    let random = &mut Random::stream(plan.seed, "reads");
    plan.load.reads = *random.pick(&[[1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 1, 0], [0, 3, 1], [0, 0, 1]]);
    let bound_ms = random.magnitude(1, 5_000) as u32;
    plan.load.bounds_ms = *random.pick(&[[0, 0], [0, bound_ms], [bound_ms, 1 + bound_ms / 10]]);
    let drift_percent = plan.drift_percent().max(1);
    let spare_percent = *random.pick(&[0, 0, 5, 30]);
    let leases = random.chance(800_000);
    plan.consensus.lease_drift_percent = if leases { drift_percent + spare_percent } else { 100 };
}

fn draw_snapshots(plan: &mut Plan, random: &mut Random) {
    plan.snapshots = SnapshotSettings {
        log_bytes: random.magnitude(2 << 10, 1 << 20),
        state_percent: *random.pick(&[0, 50, 200]),
        log_entries: random.magnitude(10, 3_000),
        segments_max: random.between(3, 12) as usize,
        chunk_bytes: chunk_bytes(*random.pick(&[4 << 10, 16 << 10, 64 << 10])),
        write_bytes_per_tick: *random.pick(&[1, 16 << 10, 1 << 20]),
        send_bytes_per_tick: *random.pick(&[1, 16 << 10, 1 << 20]),
        streams_max: random.between(1, 3) as usize,
        ..plan.snapshots
    };
}

fn chunk_bytes(bytes: u32) -> ChunkBytes {
    ChunkBytes::new(bytes).expect("a chunk is whole blocks")
}

fn draw_consensus(plan: &mut Plan, random: &mut Random) {
    if random.chance(500_000) {
        plan.tick_us = *random.pick(&[10 * MILLISECOND_US, 25 * MILLISECOND_US, 50 * MILLISECOND_US]);
        plan.consensus.election_ticks_min = random.between(8, 20) as u32;
        // A narrow spread makes several replicas stand for one term.
        let shortest = plan.consensus.election_ticks_min;
        let spread = *random.pick(&[(shortest / 2).max(4), shortest, 2 * shortest]);
        plan.consensus.election_ticks_max = plan.consensus.election_ticks_min + spread;
        plan.consensus.heartbeat_ticks = random.between(1, 3) as u32;
        plan.node_tick_us.fill(plan.tick_us);
    }
    plan.consensus.inflight_bytes_max = *random.pick(&[32 << 10, 256 << 10]);
    plan.consensus.uncommitted_bytes_max = *random.pick(&[64 << 10, 1 << 20]);
    plan.consensus.append_bytes_max = *random.pick(&[4 << 10, 16 << 10]);
    plan.consensus.entry_bytes_max = *random.pick(&[1 << 10, 8 << 10]);
    draw_snapshots(plan, random);
}

fn calm_consensus(seed: u64, tick_us: u64) -> ConsensusSettings {
    ConsensusSettings {
        election_ticks_min: 20,
        election_ticks_max: 40,
        heartbeat_ticks: 2,
        append_bytes_max: 16 << 10,
        inflight_bytes_max: 256 << 10,
        catch_up_bytes_per_tick: 0,
        uncommitted_bytes_max: 1 << 20,
        entry_bytes_max: 8 << 10,
        catch_up_bytes: 64 << 10,
        tick_us,
        lease_drift_percent: 10,
        seed,
    }
}

fn calm_snapshots() -> SnapshotSettings {
    SnapshotSettings {
        identity: 0x51,
        log_bytes: 64 << 10,
        state_percent: 50,
        log_entries: 400,
        segments_max: 8,
        chunk_bytes: chunk_bytes(8 << 10),
        write_bytes_per_tick: 64 << 10,
        send_bytes_per_tick: 64 << 10,
        streams_max: 2,
        patience_ticks: 80,
    }
}
