//! One simulated node: what outlives its process (disks, clock, power) and the process itself.
//!
//! Off the data path.
//!
//! ```text
//!   Down --start--> Opening --opened--> Running <--pause, resume--> Paused
//!     ^                |                   |                           |
//!     +----------------+----- crash, stop, fatal error, power loss ----+
//! ```
//!
//! Invariants: there is a process exactly in `Running` and `Paused`; every start has another incarnation, and an event of
//! an earlier one is ignored. `Host` holds what the tasks of a production executor hold, and decides as little.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::board::NodeBoard;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::link::Backoff;
use ringraft_raft::NodeId;
use ringraft_wal::DiskCompletion;

use crate::disk::{Buffer, Ending, Medium, SimDisk};
use crate::events::Event;
use crate::network::{LinkId, Part, Side};

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    Opening,
    Running,
    Paused,
}

/// Why a node will not come back: within the fault budget, and only a minority of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Bytes it had been told to be durable were damaged.
    Damaged,
    /// All its files are gone.
    Wiped,
    /// Its machine is gone, with all its files; the operator replaces the node.
    Burnt,
    /// Its disk never answers again.
    Stalled,
    /// Its disk fails everything.
    DeadDisk,
}

/// What is wrong with a node's disk at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskTrouble {
    /// Nothing ends before this moment; `u64::MAX` is never.
    pub(crate) stalled_until_us: u64,
    /// Every operation takes so much longer.
    pub(crate) slow_us: u64,
    /// So many of the next writes, reads, makings of segments or writes of snapshots fail.
    pub(crate) failing_writes: u32,
    pub(crate) failing_reads: u32,
    pub(crate) failing_creates: u32,
    pub(crate) failing_snapshot_writes: u32,
    /// No segment can be made and no snapshot written.
    pub(crate) full: bool,
}

/// A crash that waits for something to happen in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// A write was handed to the disk.
    WriteSubmitted,
    /// A write ended, and the process was not told.
    WriteDone,
    /// A segment is being made.
    SegmentStarted,
    /// A segment is there, and the process was not told.
    SegmentDone,
    /// A snapshot's file is about to be written, finished or removed.
    SnapshotSubmitted,
    /// It was, and the process was not told.
    SnapshotDone,
    /// It gave a vote, or took over a term, that is not on disk yet.
    Voted,
    /// It became leader of a group.
    Elected,
    /// It is about to send to its peers.
    BeforeSend,
    /// It is opening its data folder.
    Opening,
}

impl Trap {
    pub(crate) const ALL: [Self; 10] = [
        Self::WriteSubmitted,
        Self::WriteDone,
        Self::SegmentStarted,
        Self::SegmentDone,
        Self::SnapshotSubmitted,
        Self::SnapshotDone,
        Self::Voted,
        Self::Elected,
        Self::BeforeSend,
        Self::Opening,
    ];
}

/// A trap that was set for a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetTrap {
    pub(crate) trap: Trap,
    pub(crate) ending: Ending,
    pub(crate) down_us: u64,
    /// What it waits for has happened.
    pub(crate) tripped: bool,
}

/// What happened to a paused process and waits for it.
#[derive(Debug)]
pub(crate) enum Deferred {
    Part(LinkId, Side, Part),
    Event(Event),
}

/// One node.
pub(crate) struct Node {
    pub(crate) media: Vec<Medium>,
    pub(crate) trouble: DiskTrouble,
    pub(crate) state: State,
    pub(crate) incarnation: u32,
    pub(crate) process: Option<Process>,
    pub(crate) powered: bool,
    /// Length of its tick in true time: its clock runs fast or slow.
    pub(crate) tick_us: u64,
    /// What its clock takes that for.
    nominal_tick_us: u64,
    /// When its machine was switched on: its clock starts there.
    pub(crate) booted_us: u64,
    pub(crate) lost: Option<Lost>,
    /// The process was given an injected disk error, so it may stop.
    pub(crate) may_fail: bool,
    /// Why it stays down, once it refused to start.
    pub(crate) refused: Option<String>,
    pub(crate) trap: Option<SetTrap>,
    pub(crate) deferred: Vec<Deferred>,
    pub(crate) starts: u32,
    /// It has a data folder: it founded the cluster, or was told to join it.
    pub(crate) born: bool,
    /// It was there when the cluster was made.
    pub(crate) founder: bool,
    /// Tells its data folder from any other; 0 of a founder.
    pub(crate) instance: u64,
    /// Its file `topology.json`, and when it was written.
    pub(crate) kept: Arc<Topology>,
    pub(crate) kept_us: u64,
    /// Its process ended because the cluster has removed it.
    pub(crate) removed: bool,
}

impl Node {
    pub(crate) fn new(
        media: Vec<Medium>,
        (tick_us, nominal_tick_us): (u64, u64),
        founder: bool,
        kept: Arc<Topology>,
    ) -> Self {
        Self {
            born: founder,
            founder,
            instance: 0,
            kept,
            kept_us: 0,
            removed: false,
            media,
            trouble: DiskTrouble::default(),
            state: State::Down,
            incarnation: 0,
            process: None,
            powered: true,
            tick_us,
            nominal_tick_us,
            booted_us: 0,
            lost: None,
            may_fail: false,
            refused: None,
            trap: None,
            deferred: Vec::new(),
            starts: 0,
        }
    }

    /// What its clock shows at a moment of true time: it drifts, goes on in pauses, and starts anew with the machine.
    pub(crate) fn clock_us(&self, now_us: u64) -> u64 {
        1 + (now_us - self.booted_us) * self.nominal_tick_us / self.tick_us
    }

    /// Whether this is the process an event was meant for, and it can take it.
    pub(crate) fn is(&self, incarnation: u32) -> bool {
        self.incarnation == incarnation && self.process.is_some()
    }

    /// A shard of the running process.
    pub(crate) fn host(&mut self, incarnation: u32, shard: usize) -> Option<&mut Host> {
        if self.incarnation != incarnation {
            return None;
        }
        self.process.as_mut()?.hosts.get_mut(shard)
    }

    /// Something happened that a trap may wait for.
    pub(crate) fn trip(&mut self, happened: Trap) {
        if let Some(set) = &mut self.trap {
            set.tripped |= set.trap == happened;
        }
    }

    /// Whether a trap closes now.
    pub(crate) fn is_tripped(&self) -> bool {
        self.trap.is_some_and(|set| set.tripped)
    }

    /// Whether its machine is gone for good, with the disk as it was at the end of its process.
    pub(crate) fn is_burnt(&self) -> bool {
        self.lost == Some(Lost::Burnt)
    }

    /// Whether it may be started: it has a folder, and the cluster has not told it to go.
    pub(crate) fn may_start(&self) -> bool {
        self.born && !self.removed
    }

    /// Whether it runs, is not paused and its disk moves.
    pub(crate) fn is_well(&self) -> bool {
        self.state == State::Running && self.trouble.stalled_until_us != u64::MAX
    }
}

/// A process: its shards' executors.
pub(crate) struct Process {
    pub(crate) hosts: Vec<Host>,
    pub(crate) board: NodeBoard,
    pub(crate) stopping: bool,
    /// Ticks of its shards since the stop began.
    pub(crate) stopping_ticks: u32,
    /// It stops because its node was removed from the cluster.
    pub(crate) removed: bool,
}

/// One shard's executor.
pub(crate) struct Host {
    pub(crate) shard: Shard<SimDisk>,
    pub(crate) turn_scheduled: bool,
    /// A tick came due while the process stood still.
    pub(crate) tick_missed: bool,
    pub(crate) completions: VecDeque<DiskCompletion<Buffer>>,
    pub(crate) senders: Vec<Sender>,
    /// The topology that the senders follow.
    pub(crate) followed: Option<Arc<Topology>>,
    pub(crate) incoming: BTreeMap<LinkId, Incoming>,
    /// The link of every open client connection.
    pub(crate) clients: BTreeMap<u32, (ConnectionId, LinkId)>,
}

/// The sending side of the link to one peer.
pub(crate) struct Sender {
    /// Place of the peer's node.
    pub(crate) peer: usize,
    pub(crate) stage: Stage,
    pub(crate) backoff: Backoff,
    /// What the socket did not take.
    pub(crate) rest: Option<Vec<u8>>,
}

/// How far the link to a peer is.
pub(crate) enum Stage {
    Idle,
    Dialing(LinkId),
    Greeting(LinkId, ReceiveBuffer),
    Up(LinkId),
}

/// The pauses of the production host's senders.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Sender {
    pub(crate) fn new(peer: usize, seed: u64) -> Self {
        let backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX, seed ^ (peer as u64 + 1));
        Self { peer, stage: Stage::Idle, backoff, rest: None }
    }

    /// The link it uses or tries.
    pub(crate) fn link(&self) -> Option<LinkId> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Dialing(link) | Stage::Greeting(link, _) | Stage::Up(link) => Some(*link),
        }
    }
}

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Unknown,
    Peer(NodeId),
    Client(ConnectionId),
    /// A client whose last replies go out.
    Leaving(ConnectionId),
}

/// An accepted connection.
pub(crate) struct Incoming {
    pub(crate) buffer: ReceiveBuffer,
    pub(crate) role: Role,
    /// What the socket did not take.
    pub(crate) rest: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { buffer: ReceiveBuffer::new(), role: Role::Unknown, rest: Vec::new() }
    }
}
