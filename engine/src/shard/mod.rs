//! One shard: all groups of one core, their WAL, their clients and peers, as a state machine without I/O.
//!
//! Data path 2/9 (router) and 3/9 (admission).
//! The host hands it events (`tick`, bytes of a client or peer, a finished disk operation), calls [`Shard::turn`] when
//! the events at hand are in, then moves the outgoing bytes. Two hosts drive it: glommio in production, the simulator.
//! Invariants: it never waits, never looks at a clock (it is told the time) and never blocks; its memory is bounded by its limits;
//! it reaches no other shard.

pub mod admission;
pub mod board;
pub mod clients;
pub mod control;
mod groups;
mod heartbeats;
pub mod inspect;
pub mod io;
pub mod live;
mod metrics;
pub mod peers;
pub mod replicas;
pub mod restore;
pub mod status;
mod watches;

use std::rc::Rc;
use std::sync::Arc;

use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, Frame, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, PeerBody, PeerMessage};
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{GroupId, Membership, Message, NodeId};
use ringraft_wal::{Completed, Disk, DiskCompletion, Durable, Wal};

use self::clients::{Asker, Clients, ConnectionId};
use self::control::Control;
use self::groups::Groups;
use self::io::{Counters, Fatal, Io};
use self::live::Reloads;
use self::peers::Peers;
use self::replicas::Dropped;
use self::restore::ConsensusSettings;
use crate::convert;
use crate::group::snapshots::Budget;
use crate::group::{Append, Group};
use crate::limits::Limits as StateLimits;
use crate::metrics::record::Recorder;
use crate::topology::Topology;

pub use crate::group::membership::encode::ConfigurationError;
pub use crate::group::membership::plan::{TARGET_NODES_MAX, Target, TargetError};
pub use crate::group::snapshots::SnapshotSettings;
pub use watches::WatchSettings;

/// What a shard needs to know besides its groups.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// This node.
    pub node: NodeId,
    /// This shard's number.
    pub shard: u16,
    /// Shards of every node.
    pub shards: u16,
    /// Groups of the cluster.
    pub groups: u32,
    /// The newest topology this node knows: whom to link to, and where everybody is.
    pub topology: Arc<Topology>,
    /// The members that each group of the cluster began with, by group; the same at every start, on every node that was
    /// there then. Such a node holds a replica from its first start on, unless its log says that it gave it up. A node that
    /// joined later has none.
    pub initial: Vec<Membership>,
    /// The settings that all nodes share, for nodes that join.
    pub shared: Arc<Vec<(String, String)>>,
    /// Bounds on frames, keys and values.
    pub limits: Limits,
    /// Requests that may wait in this shard at once.
    pub waiting_max: usize,
    /// Client connections at once.
    pub connections_max: usize,
    /// Unsent reply bytes per connection.
    pub reply_bytes_max: usize,
    /// Unsent bytes per peer.
    pub peer_queue_bytes_max: usize,
    /// Ticks without a finished flush after which leaders here step down.
    pub disk_stall_ticks: u32,
    /// Ticks between two exchanges of state digests.
    pub digest_ticks: u32,
    /// Ticks between two reports to other nodes: a second.
    pub report_ticks: u32,
    /// Of the nodes that could lead a group those with the highest number do.
    pub leader_priority: u32,
    /// When snapshots are taken, and how fast they move.
    pub snapshots: SnapshotSettings,
    /// How many may watch, and how far back.
    pub watches: WatchSettings,
    /// Names this run of the node's process: no two runs of a node have the same.
    pub incarnation: u64,
    /// Ticks after which the preferred node of a brand-new group starts the first election.
    pub first_election_ticks: u32,
}

/// One shard of a node.
pub struct Shard<D: Disk> {
    settings: ShardSettings,
    groups: Groups,
    dropped: Vec<Dropped>,
    control: Control,
    reloads: Reloads,
    consensus: ConsensusSettings,
    state_limits: StateLimits,
    io: Io<D>,
    durables: Vec<Durable>,
    spare_buffers: Vec<Rc<ReceiveBuffer>>,
    held_buffers: Vec<Rc<ReceiveBuffer>>,
    ticks: u64,
    /// Tick at which the WAL last made progress while something was in flight.
    flush_progress_tick: u64,
    /// Tick at which a read of the disk last ended while one was under way.
    read_progress_tick: u64,
    stalled: bool,
    stopping: bool,
}

impl<D: Disk> Shard<D> {
    /// A shard over a recovered WAL and its restored groups.
    #[must_use]
    pub(crate) fn new(
        settings: ShardSettings,
        (consensus, state_limits): (ConsensusSettings, StateLimits),
        groups: Groups,
        wal: Wal<D>,
        disk: D,
    ) -> Self {
        let clients = Clients::new(settings.connections_max, settings.reply_bytes_max, settings.watches.watches_max);
        let others = settings.topology.nodes().iter().map(|node| node.id).filter(|node| *node != settings.node);
        let peers = Peers::new(others, settings.peer_queue_bytes_max);
        let counters = Counters::default();
        Self {
            settings,
            groups,
            dropped: Vec::new(),
            control: Control::default(),
            reloads: Reloads::default(),
            consensus,
            state_limits,
            io: Io {
                wal,
                disk,
                clients,
                peers,
                counters,
                metrics: Recorder::default(),
                snapshots: Budget::default(),
                fatal: None,
                now_us: 0,
                more_work: false,
            },
            durables: Vec::new(),
            spare_buffers: Vec::new(),
            held_buffers: Vec::new(),
            ticks: 0,
            flush_progress_tick: 0,
            read_progress_tick: 0,
            stalled: false,
            stopping: false,
        }
    }

    /// Why the node must stop, once something fatal has happened.
    #[must_use]
    pub fn fatal(&self) -> Option<&Fatal> {
        self.io.fatal.as_ref()
    }

    /// The client connections, for the host.
    pub fn clients(&mut self) -> &mut Clients {
        &mut self.io.clients
    }

    /// The links to peers, for the host.
    pub fn peers(&mut self) -> &mut Peers {
        &mut self.io.peers
    }

    /// The disk, for the host.
    pub fn disk(&mut self) -> &mut D {
        &mut self.io.disk
    }

    /// The host's clock shows `now_us`: one that never goes back, goes on while the process is paused, and is above 0. To
    /// be told before every event, after what the event brings was received: leases and the age of reads are counted by
    /// it. A host that does not tell it has neither.
    pub fn observe_time(&mut self, now_us: u64) {
        self.io.now_us = self.io.now_us.max(now_us);
    }

    /// One tick of logical time. A tick that is late comes once, however late it is: ticks never come faster than they
    /// should, since followers count by them for how long they vote for nobody.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.io.wal.tick(&mut self.io.disk);
        self.watch_disk();
        let io = &mut self.io;
        if self.stalled {
            // No heartbeats and no candidacy while our own flushes do not end.
            return self.groups.for_each(|group| group.tick_questions(io));
        }
        self.io.snapshots.refill(&self.settings.snapshots);
        self.unpin_log();
        self.remove_dropped();
        let io = &mut self.io;
        self.groups.tick(io);
        if self.ticks == u64::from(self.settings.first_election_ticks) {
            self.first_elections();
        }
        if self.ticks.is_multiple_of(u64::from(self.settings.digest_ticks.max(1))) {
            self.groups.iter().filter(|group| group.is_leader()).for_each(|group| group.send_digest(&mut self.io));
        }
    }

    /// Brand-new groups need not wait for a timeout.
    fn first_elections(&mut self) {
        for group in self.groups.ids() {
            let is_ours = |group: &Group| group.term() == 0 && preferred(&self.settings, group);
            if self.groups.get(group).is_some_and(is_ours)
                && let Some(group) = self.groups.get_mut(group)
            {
                group.campaign(&mut self.io);
            }
        }
    }

    /// A log of too many segments is kept by those who have entries in the oldest one.
    fn unpin_log(&mut self) {
        if self.io.wal.stats().segments <= self.settings.snapshots.segments_max {
            return;
        }
        for (group, _) in self.io.wal.oldest_segment_groups() {
            if let Some(group) = self.groups.get_mut(GroupId(group)) {
                group.unpin(&mut self.io);
            }
        }
    }

    /// Leaders here give up when the WAL has not finished a flush, or a read that a follower waits for, for too long,
    /// whatever the disk says (etcd #15247).
    fn watch_disk(&mut self) {
        // A log that is full until a segment is made hangs with the making of it.
        let full = || self.io.wal.is_making_segment() && !crate::group::has_room_to_lead(&self.io);
        if self.io.wal.in_flight() == 0 && !full() {
            self.flush_progress_tick = self.ticks;
        }
        if self.io.wal.reads_in_flight() == 0 {
            self.read_progress_tick = self.ticks;
        }
        let waited = self.ticks - self.flush_progress_tick.min(self.read_progress_tick);
        let stalled = waited >= u64::from(self.settings.disk_stall_ticks) && !is_active(Mutant::StalledLeaderStays);
        if stalled && !self.stalled {
            self.io.counters.disk_stalls += 1;
            let io = &mut self.io;
            self.groups.for_each(|group| {
                if group.is_leader() {
                    group.give_up(io);
                }
            });
        }
        self.stalled = stalled;
    }

    /// Bytes of a client connection. Complete frames are taken together with the buffer; the beginning of an incomplete
    /// one stays, in a fresh buffer to read on into.
    ///
    /// # Errors
    /// The connection must close: why, for the log. What it had asked for before is still answered if possible.
    pub fn client_bytes(&mut self, connection: ConnectionId, received: &mut ReceiveBuffer) -> Result<(), String> {
        if matches!(frame::bytes_needed(received.filled(), &self.settings.limits), Ok(needed) if needed > received.filled().len())
        {
            return Ok(());
        }
        let mut buffer = self.spare_buffers.pop().unwrap_or_else(|| {
            self.io.counters.buffers_allocated += 1;
            Rc::new(ReceiveBuffer::new())
        });
        std::mem::swap(Rc::get_mut(&mut buffer).expect("a spare buffer is not shared"), received);
        let mut start = 0;
        let result = loop {
            match frame::parse(&buffer.filled()[start..], &self.settings.limits) {
                Ok(Some(parsed)) => {
                    if let Err(error) = self.client_frame(connection, &buffer, &parsed) {
                        break Err(error);
                    }
                    start += parsed.total_bytes;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        if result.is_err() {
            self.io.counters.bad_frames += 1;
        }
        received.extend(&buffer.filled()[start..]);
        self.held_buffers.push(buffer);
        result
    }

    fn client_frame(
        &mut self,
        connection: ConnectionId,
        buffer: &Rc<ReceiveBuffer>,
        parsed: &Frame<'_>,
    ) -> Result<(), String> {
        match parsed.kind {
            FrameKind::Request => {
                self.request(connection, buffer, parsed);
                Ok(())
            }
            FrameKind::Status => {
                let json = self.status_json();
                let out = self.io.clients.outgoing(connection);
                wire::append_status_reply(out, parsed.correlation, &json);
                Ok(())
            }
            FrameKind::Admin => {
                let request = wire::view_admin_request(parsed.head).map_err(|error| error.to_string())?;
                self.administrate(Asker { connection, correlation: parsed.correlation }, request);
                Ok(())
            }
            FrameKind::Watch => {
                let request = wire::view_watch_request(parsed.head).map_err(|error| error.to_string())?;
                self.watch(Asker { connection, correlation: parsed.correlation }, request);
                Ok(())
            }
            FrameKind::Unwatch => {
                self.unwatch(Asker { connection, correlation: parsed.correlation });
                Ok(())
            }
            FrameKind::Goodbye => Err(String::from("the client said goodbye")),
            other => Err(format!("a client may not send a frame of kind {other:?}")),
        }
    }

    /// Bytes of the link from `from`. Returns how many were taken; the rest is an incomplete frame.
    ///
    /// # Errors
    /// The link must close: a frame or its records are damaged or do not belong here, or `from` was removed from the
    /// cluster, which it hears when it dials again.
    pub fn peer_bytes(&mut self, from: NodeId, bytes: &[u8]) -> Result<usize, String> {
        if self.settings.topology.removed().binary_search(&from.0).is_ok() {
            return Err(format!("node {from} was removed from the cluster"));
        }
        let mut start = 0;
        while let Some(parsed) =
            frame::parse(&bytes[start..], &self.peer_limits()).map_err(|error| error.to_string())?
        {
            self.peer_frame(from, &parsed)?;
            start += parsed.total_bytes;
        }
        Ok(start)
    }

    fn peer_limits(&self) -> Limits {
        Limits { frame_bytes_max: Limits::PEER.frame_bytes_max, ..self.settings.limits }
    }

    fn peer_frame(&mut self, from: NodeId, parsed: &Frame<'_>) -> Result<(), String> {
        match parsed.kind {
            FrameKind::Raft => {
                let message = wire::view_peer_message(parsed.head).map_err(|error| error.to_string())?;
                if self.question_or_answer(from, &message)? {
                    return Ok(());
                }
                let (group, message) = convert::from_wire(&message)?;
                if self.stopping && matches!(message, Message::TimeoutNow { .. }) {
                    return Ok(()); // it leads on, or finds somebody who stays
                }
                self.with_replica(group, |replica, io| replica.on_message(from, message, io))
            }
            FrameKind::Append => {
                let message = wire::view_peer_message(parsed.head).map_err(|error| error.to_string())?;
                let (group, append): (GroupId, Append) = convert::append_from_wire(&message)?;
                let taken = |replica: &mut Group, io: &mut Io<D>| replica.on_append(from, &append, parsed.tail, io);
                match self.replica(group)? {
                    Some((replica, io)) => taken(replica, io),
                    None => Ok(()),
                }
            }
            FrameKind::Digest => {
                let digest = wire::view_digest(parsed.head).map_err(|error| error.to_string())?;
                self.with_replica(GroupId(digest.group), |replica, io| replica.on_digest(digest.index, digest.hash, io))
            }
            FrameKind::Snapshot => {
                let piece = wire::view_snapshot_piece(parsed.head).map_err(|error| error.to_string())?;
                let tail = parsed.tail;
                self.with_replica(GroupId(piece.group), |replica, io| replica.on_snapshot_piece(from, &piece, tail, io))
            }
            FrameKind::SnapshotAnswer => {
                let answer = wire::view_snapshot_answer(parsed.head).map_err(|error| error.to_string())?;
                self.with_replica(GroupId(answer.group), |replica, io| replica.on_snapshot_answer(from, &answer, io))
            }
            FrameKind::Heartbeats => self.on_heartbeats(from, parsed.head),
            FrameKind::HeartbeatAnswers => self.on_heartbeat_answers(from, parsed.head),
            FrameKind::Report => self.on_report(from, parsed.head),
            FrameKind::TransferWish => self.on_transfer_wish(parsed.head),
            other => Err(format!("a peer may not send a frame of kind {other:?}")),
        }
    }

    /// The replica a peer's frame is for; `None` if this node holds none, which is counted and no fault: members change.
    fn replica(&mut self, group: GroupId) -> Result<Option<(&mut Group, &mut Io<D>)>, String> {
        if !self.groups.lives_here(group) {
            return Err(format!("group {group} does not live here"));
        }
        let replica = self.groups.get_mut(group);
        self.io.counters.frames_without_replica += u64::from(replica.is_none());
        Ok(replica.map(|replica| (replica, &mut self.io)))
    }

    fn with_replica(&mut self, group: GroupId, take: impl FnOnce(&mut Group, &mut Io<D>)) -> Result<(), String> {
        if let Some((replica, io)) = self.replica(group)? {
            take(replica, io);
        }
        Ok(())
    }

    /// Takes what replicas ask each other beside the core's messages; whether it was that.
    fn question_or_answer(&mut self, from: NodeId, message: &PeerMessage) -> Result<bool, String> {
        let group = GroupId(message.group);
        match message.body {
            PeerBody::ReadIndex { incarnation, question } => {
                self.with_replica(group, |replica, io| replica.on_question(from, incarnation, question, io))?;
            }
            PeerBody::ReadIndexResponse { incarnation, question, index, confirmed } => {
                let index = confirmed.then_some(index);
                self.with_replica(group, |replica, io| replica.on_answer(from, (incarnation, question), index, io))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The link to `node` stands.
    pub fn peer_connected(&mut self, node: NodeId) {
        self.io.peers.connected(node);
        self.told_nothing_yet(node);
    }

    /// The link to `node` broke.
    pub fn peer_disconnected(&mut self, node: NodeId) {
        self.io.peers.disconnected(node);
        self.groups.for_each(|group| group.unreachable(node, &mut self.io));
    }

    /// A disk operation ended.
    pub fn disk_done(&mut self, completion: DiskCompletion<D::Buffer>) {
        let mut durables = std::mem::take(&mut self.durables);
        durables.clear();
        match self.io.wal.complete(completion, &mut durables, &mut self.io.disk) {
            Ok(Some(Completed::Read(read))) => {
                self.read_progress_tick = self.ticks;
                self.read_done(&read);
            }
            Ok(Some(Completed::Snapshot(done))) => {
                self.read_progress_tick = self.ticks;
                if let Some(group) = self.groups.get_mut(GroupId(done.snapshot.group)) {
                    group.on_snapshot_done(&done, &mut self.io);
                }
            }
            Ok(None) => {}
            Err(error) => self.io.fail(Fatal::Wal(error.to_string())),
        }
        if !durables.is_empty() {
            self.flush_progress_tick = self.ticks;
        }
        self.io.metrics.durable(self.io.wal.durable_sequence(), self.io.now_us);
        for durable in &durables {
            if let Some(group) = self.groups.get_mut(GroupId(durable.group)) {
                group.on_durable(durable, &mut self.io);
            }
        }
        self.durables = durables;
    }

    fn read_done(&mut self, read: &ringraft_wal::ReadDone) {
        match &read.result {
            Ok(records) => {
                if let Some(group) = self.groups.get_mut(GroupId(read.group)) {
                    group.on_read(read.ticket, records, &mut self.io);
                }
            }
            Err(error) => self.io.fail(Fatal::Wal(error.to_string())),
        }
    }

    /// Ends a turn: waiting requests become entries if the WAL can flush them now, reads are confirmed, one flush batch
    /// is handed to the disk.
    pub fn turn(&mut self) {
        self.io.counters.turns += 1;
        self.io.more_work = false;
        while let Some(node) = self.io.peers.next_lost() {
            self.groups.for_each(|group| group.unreachable(node, &mut self.io));
        }
        // Batch by idleness: while as many flushes as allowed are in flight, requests gather.
        let may_propose = self.io.wal.can_submit();
        let io = &mut self.io;
        self.groups.turn(|group| {
            if may_propose && group.has_proposals() {
                group.propose(io);
            }
            group.confirm_reads(io);
            group.ask_leader(io);
            group.continue_apply(io);
            group.continue_ranges(io);
            group.tell_watchers(io);
            group.continue_snapshots(io);
        });
        self.io.peers.end_turn();
        self.submit();
        self.reclaim_buffers();
    }

    /// Whether the host should give another turn soon although no event came.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        self.io.more_work
    }

    fn reclaim_buffers(&mut self) {
        let spare = &mut self.spare_buffers;
        self.held_buffers.retain_mut(|held| match Rc::get_mut(held) {
            Some(buffer) => {
                if spare.len() < SPARE_BUFFERS_MAX {
                    buffer.clear();
                    spare.push(Rc::clone(held));
                }
                false
            }
            None => true,
        });
    }

    /// Refuses new requests from now on and hands leadership over.
    pub fn begin_stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.groups.for_each(|group| {
                group.hand_over(&mut self.io);
                group.end_watches("this node is stopping; ask another", &mut self.io);
            });
        }
    }

    /// Whether nobody waits for an answer, no leadership is on its way, and everything accepted is durable.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let waiting: usize = self.groups.iter().map(Group::waiting).sum();
        let handed_over = !self.groups.iter().any(Group::is_handing_over);
        waiting == 0 && handed_over && self.io.wal.durable_sequence() >= self.io.wal.accepted_sequence()
    }

    /// Whether the end of the log is marked as durable as often as it is going to be. A log that is still written to, as
    /// a follower's is for as long as its leader sends, does not come to that.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        !self.io.wal.wants_mark()
    }
}

const SPARE_BUFFERS_MAX: usize = 64;

/// The node that should lead a brand-new group, so that first leaders are spread over the nodes.
fn preferred(settings: &ShardSettings, group: &Group) -> bool {
    let voters = group.voters();
    !voters.is_empty() && voters[group.id().0 as usize % voters.len()] == settings.node
}
