//! The snapshots of one replica: when one is taken, what the disk holds, and who is sent or receives one.
//!
//! Off the data path.
//!
//! ```text
//!   take:     due -> slices of the state -> chunks -> part file -> finished -> mark in the log -> durable
//!                                                   then: compact up to the snapshot before, remove older files
//!   send:     Ready::snapshots -> newest finished file, chunk by chunk, each answered
//!   receive:  chunks -> part file and a state machine in the making -> finished -> installed
//! ```
//! Invariants: of a replica one snapshot is taken at a time, one received; writes go on meanwhile; the log is compacted
//! only up to what the second newest durable snapshot covers, so that a damaged newest one leaves a way back; a failed
//! snapshot costs only itself and is tried again after a pause.
//! How much goes to disk and network is bounded per tick for all groups of a shard, by [`Budget`].

mod ask;
mod receive;
mod send;
mod take;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, GroupId};
use ringraft_wal::{Disk, SnapshotDone, SnapshotName};

use self::ask::Waiting;
use self::receive::Receiving;
use self::send::Sending;
use self::take::Taking;
use super::Group;
use crate::shard::io::{Counters, Io};
use crate::snapshot::{ChunkBytes, Expected};

/// When snapshots are taken and how fast they move; the same for all groups of a shard.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSettings {
    /// Checksum of the cluster's identity.
    pub identity: u32,
    /// A snapshot is due when so many bytes of entries were applied since the last one, and as many as `state_percent`
    /// of the state's.
    pub log_bytes: u64,
    /// See `log_bytes`.
    pub state_percent: u32,
    /// It is due as well when so many entries were applied since the last one.
    pub log_entries: u64,
    /// Segments of the log above which the groups in the oldest one take snapshots, however little was written.
    pub segments_max: usize,
    /// Bytes of a full chunk.
    pub chunk_bytes: ChunkBytes,
    /// Bytes written for snapshots per tick, of all groups.
    pub write_bytes_per_tick: u64,
    /// Bytes sent of snapshots per tick, of all groups.
    pub send_bytes_per_tick: u64,
    /// Snapshots sent at once, of all groups.
    pub streams_max: usize,
    /// Ticks without an answer after which the sending of one is given up.
    pub patience_ticks: u32,
}

impl Default for SnapshotSettings {
    /// What a node's configuration says by default, for ticks of 25 ms.
    fn default() -> Self {
        Self {
            identity: 0,
            log_bytes: 256 << 20,
            state_percent: 100,
            log_entries: 4_000_000,
            segments_max: 32,
            chunk_bytes: ChunkBytes::default(),
            write_bytes_per_tick: (256 << 20) / 40,
            send_bytes_per_tick: (128 << 20) / 40,
            streams_max: 2,
            patience_ticks: 400,
        }
    }
}

/// What the groups of a shard may still do for snapshots in this tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) write_bytes: u64,
    pub(crate) send_bytes: u64,
    /// Snapshots that are being sent.
    pub(crate) streams: usize,
    /// A group takes one.
    pub(crate) taking: Option<GroupId>,
}

impl Budget {
    /// A tick begins. What was overdrawn by the last chunk of a tick is not counted.
    pub(crate) fn refill(&mut self, settings: &SnapshotSettings) {
        self.write_bytes = settings.write_bytes_per_tick;
        self.send_bytes = settings.send_bytes_per_tick;
    }
}

/// The snapshots of a group.
#[derive(Debug)]
pub(crate) struct Snapshots {
    settings: SnapshotSettings,
    limits_digest: u64,
    taking: Option<Taking>,
    sending: Vec<Sending>,
    receiving: Option<Receiving>,
    installing: Option<Installing>,
    /// Indexes of the finished files, oldest first.
    files: Vec<u64>,
    /// Marked ones that could not be sent.
    damaged: Vec<u64>,
    /// Entries and their bytes applied since the last snapshot.
    log_entries: u64,
    log_bytes: u64,
    /// Somebody asked for one.
    wanted: bool,
    /// Operators who did.
    waiting: Vec<Waiting>,
    /// Ticks until the next attempt, after a failed one.
    pause_ticks: u32,
}

/// A snapshot took the place of the log; the mark that says so is on its way to the disk.
#[derive(Clone, Copy, Debug)]
struct Installing {
    /// The last entry of the snapshot.
    index: u64,
    /// The last entry of the old log that is durable.
    durable_index: u64,
}

/// Ticks between two attempts.
const PAUSE_TICKS: u32 = 40;

impl Snapshots {
    /// Other settings from now on; what is under way goes on as it began.
    pub(crate) fn set_settings(&mut self, settings: SnapshotSettings) {
        self.settings = settings;
    }

    pub(crate) fn new(settings: SnapshotSettings, limits_digest: u64, mut files: Vec<u64>) -> Self {
        files.sort_unstable();
        Self {
            settings,
            limits_digest,
            taking: None,
            sending: Vec::new(),
            receiving: None,
            installing: None,
            files,
            damaged: Vec::new(),
            log_entries: 0,
            log_bytes: 0,
            wanted: false,
            waiting: Vec::new(),
            pause_ticks: 0,
        }
    }

    /// An entry was applied.
    pub(crate) fn note_applied(&mut self, bytes: usize) {
        self.log_entries += 1;
        self.log_bytes += bytes as u64;
    }

    /// What is under way, as metrics show it: 0 nothing, 1 takes one, 2 sends, 3 receives, 4 installs.
    pub(crate) fn state(&self) -> u64 {
        let under_way =
            [self.taking.is_some(), !self.sending.is_empty(), self.receiving.is_some(), self.installing.is_some()];
        under_way.iter().rposition(|state| *state).map_or(0, |place| place as u64 + 1)
    }

    /// Whether a turn may have something to do.
    pub(crate) fn want_turn(&self) -> bool {
        self.taking.is_some() || !self.sending.is_empty()
    }

    fn is_due(&self, state_bytes: u64) -> bool {
        let settings = &self.settings;
        let worth = settings.log_bytes.max(state_bytes.saturating_mul(u64::from(settings.state_percent)) / 100);
        self.wanted || self.log_bytes >= worth || self.log_entries >= settings.log_entries
    }

    /// What is applied from here on counts for the next one.
    fn begin_count(&mut self) {
        (self.log_entries, self.log_bytes, self.wanted) = (0, 0, false);
    }

    fn note_failure(&mut self, counters: &mut Counters) {
        counters.snapshots_failed += 1;
        self.pause_ticks = PAUSE_TICKS;
    }

    fn expected(&self, group: GroupId) -> Expected {
        Expected { group, identity: self.settings.identity, limits_digest: self.limits_digest }
    }
}

impl Group {
    /// Highest entry known to be on this disk: of the old log, while the mark of a snapshot that took its place is on its
    /// way.
    pub(super) fn durable_index(&self) -> u64 {
        self.snapshots.installing.map_or_else(|| self.core.durable_index(), |installing| installing.durable_index)
    }

    /// An entry is durable, or a snapshot up to it; the core knows nothing of those of an old log any more.
    pub(super) fn note_durable(&mut self, index: u64) {
        if let Some(installing) = &mut self.snapshots.installing {
            installing.durable_index = installing.durable_index.max(index.min(installing.index - 1));
        }
    }

    /// The newest durable snapshot's index, 0 without one.
    pub(crate) fn snapshot_index<D: Disk>(&self, io: &Io<D>) -> u64 {
        io.wal.snapshot_marks(self.id.0).last().map_or(0, |mark| mark.index)
    }

    /// A tick: what is due begins, what waits for too long ends, old files go.
    pub(super) fn tick_snapshots<D: Disk>(&mut self, io: &mut Io<D>) {
        self.snapshots.pause_ticks = self.snapshots.pause_ticks.saturating_sub(1);
        self.give_up_streams(io);
        self.install_received(io);
        self.tick_askers(io);
        self.remove_old_snapshots(io);
        if self.snapshots.pause_ticks == 0 && self.snapshots.is_due(self.machine.bytes()) {
            self.begin_taking(io);
        }
    }

    /// Whether the next tick would find nothing to do, if nothing happens until then.
    pub(super) fn are_snapshots_at_rest<D: Disk>(&self, io: &Io<D>) -> bool {
        let snapshots = &self.snapshots;
        let under_way = snapshots.want_turn() || snapshots.receiving.is_some() || snapshots.installing.is_some();
        let counted = snapshots.pause_ticks > 0 || !snapshots.waiting.is_empty();
        !under_way && !counted && !snapshots.is_due(self.machine.bytes()) && self.old_snapshot(io).is_none()
    }

    /// Goes on with what the budget of this tick admits.
    pub(crate) fn continue_snapshots<D: Disk>(&mut self, io: &mut Io<D>) {
        self.continue_taking(io);
        self.continue_sending(io);
    }

    /// An operation on a snapshot file ended.
    pub(crate) fn on_snapshot_done<D: Disk>(&mut self, done: &SnapshotDone<D::Buffer>, io: &mut Io<D>) {
        self.taken_step(done, io);
        self.sent_step(done, io);
        self.received_step(done, io);
    }

    /// The log's front goes as far as the second newest durable snapshot covers it.
    pub(super) fn on_snapshot_durable<D: Disk>(&mut self, index: u64, io: &mut Io<D>) {
        self.snapshots.installing.take_if(|installing| installing.index <= index);
        self.note_durable(index); // of a snapshot that another one has overtaken
        if self.snapshots.taking.take_if(|taking| taking.is_marked(index)).is_some() {
            io.counters.snapshots_taken += 1;
            io.snapshots.taking = None;
        }
        if let [older, _] = *io.wal.snapshot_marks(self.id.0) {
            self.compact(older.index, io);
        }
    }

    /// The group holds entries in the oldest segment of a log that has too many: they are covered by a snapshot soon, or,
    /// when nothing was written since the newest one, go at once.
    pub(crate) fn unpin<D: Disk>(&mut self, io: &mut Io<D>) {
        match io.wal.snapshot_marks(self.id.0).last() {
            Some(newest) if newest.index >= self.machine.last_applied() && self.snapshots.taking.is_none() => {
                self.compact(newest.index, io);
            }
            _ => self.snapshots.wanted = true,
        }
    }

    /// Core and log forget what a durable snapshot covers.
    fn compact<D: Disk>(&mut self, index: u64, io: &mut Io<D>) {
        let covered = index.min(self.machine.last_applied()).min(self.core.commit_index());
        if covered >= self.core.first_index() {
            self.core.compact(covered);
            self.drop_backlogs_below(covered);
        }
        let first = io.wal.entry_range(self.id.0).map_or(0, |(first, _)| first);
        if covered >= first
            && let Err(error) = io.wal.reclaim(self.id.0, covered + 1)
        {
            io.fail(crate::shard::io::Fatal::Wal(error.to_string()));
        }
    }

    /// The place of a file that no mark names any more.
    fn old_snapshot<D: Disk>(&self, io: &Io<D>) -> Option<usize> {
        let marks = io.wal.snapshot_marks(self.id.0);
        let kept =
            if is_active(Mutant::OlderSnapshotRemovedEarly) { &marks[marks.len().saturating_sub(1)..] } else { marks };
        let old = |index: &u64| kept.iter().all(|mark| mark.index != *index);
        self.snapshots.files.iter().position(old)
    }

    /// Removes files that no mark names any more.
    fn remove_old_snapshots<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(place) = self.old_snapshot(io) else { return };
        let index = self.snapshots.files[place];
        let in_use = self.snapshots.sending.iter().any(|sending| sending.index() == index)
            || self.snapshots.taking.as_ref().is_some_and(|taking| taking.name().index == index)
            || self.snapshots.receiving.as_ref().is_some_and(|receiving| receiving.name().index == index);
        let name = SnapshotName { group: self.id.0, index };
        // What cannot go now, for another operation on it or a mark under way, goes at a later tick.
        if !in_use && io.wal.remove_snapshot(name, false, &mut io.disk).is_ok() {
            self.snapshots.files.remove(place);
        }
    }

    /// What is not a member any more is sent nothing.
    pub(super) fn stop_sending_to_strangers<D: Disk>(&mut self, io: &mut Io<D>) {
        let (membership, before) = (self.core.membership(), self.snapshots.sending.len());
        self.snapshots.sending.retain(|sending| membership.contains(sending.to));
        io.snapshots.streams -= before - self.snapshots.sending.len();
    }

    /// The replica is given up: nothing of its snapshots goes on. Returns the indexes of the finished ones.
    pub(super) fn close_snapshots<D: Disk>(&mut self, io: &mut Io<D>) -> Vec<u64> {
        self.stop_sending(None, io);
        self.close_askers(io);
        self.give_up_taking(io);
        self.drop_received(io);
        std::mem::take(&mut self.snapshots.files)
    }

    /// Leadership or a link is gone: nothing is sent any more, to anybody or to `peer`.
    pub(super) fn stop_sending<D: Disk>(&mut self, peer: Option<ringraft_raft::NodeId>, io: &mut Io<D>) {
        let before = self.snapshots.sending.len();
        self.snapshots.sending.retain(|sending| peer.is_some_and(|peer| sending.to != peer));
        io.snapshots.streams -= before - self.snapshots.sending.len();
    }
}

/// Where a log begins that a snapshot precedes.
pub(crate) fn base_of(mark: &ringraft_wal::record::SnapshotMark) -> EntryId {
    EntryId { term: mark.term, index: mark.index }
}
