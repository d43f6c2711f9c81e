//! Taking a snapshot: slices of the state become chunks of a file while entries go on being applied.
//!
//! Off the data path.
//! Invariants: one slice or one chunk at a time, and never more than the budget of the tick plus one chunk, unless what is
//! kept aside of changed keys has grown beyond [`PENDING_BYTES_MAX`]; the mark is appended only when the file is finished.

use std::collections::VecDeque;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_wal::record::SnapshotMark;
use ringraft_wal::{Disk, SnapshotDone, SnapshotName, Ticket, WalError};

use super::Group;
use crate::group::membership::encode::members_of;
use crate::shard::io::{Fatal, Io};
use crate::snapshot::{ChunkWriter, FileHead};
use crate::state_machine::SnapshotHead;

/// Bytes kept aside of keys that changed since, beyond which the snapshot is written as fast as the disk takes it.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// A snapshot being taken.
#[derive(Debug)]
pub(super) struct Taking {
    name: SnapshotName,
    head: SnapshotHead,
    /// `None`: the state is walked to its end.
    writer: Option<ChunkWriter>,
    slice: Vec<u8>,
    /// Whole chunks that are not written.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes written.
    offset: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Walking,
    Writing(Ticket),
    Finishing(Ticket),
    /// The file is there; the mark waits for room in the log.
    Finished,
    Marked,
}

impl Taking {
    pub(super) fn name(&self) -> SnapshotName {
        self.name
    }

    pub(super) fn is_marked(&self, index: u64) -> bool {
        self.stage == Stage::Marked && self.name.index == index
    }
}

impl Group {
    /// Begins a snapshot as of what is applied, if there is something new and no other group takes one.
    pub(super) fn begin_taking<D: Disk>(&mut self, io: &mut Io<D>) {
        let index = self.machine.last_applied();
        let new = index > self.snapshot_index(io) && !self.snapshots.files.contains(&index);
        if !new
            || io.snapshots.taking.is_some()
            || self.snapshots.taking.is_some()
            || self.snapshots.receiving.is_some()
        {
            return;
        }
        let Ok(members) = members_of(self.core.memberships().at(index)) else { return };
        let Ok(head) = self.machine.begin_snapshot() else { return };
        let settings = self.snapshots.settings;
        let file_head = FileHead {
            identity: settings.identity,
            limits_digest: self.snapshots.limits_digest,
            source: self.core.config().id,
            chunk_bytes: settings.chunk_bytes,
            state: head,
            members,
        };
        let mut chunks = VecDeque::new();
        let writer = ChunkWriter::new(self.id, &file_head, &mut |chunk| chunks.push_back(chunk.to_vec()));
        let name = SnapshotName { group: self.id.0, index: head.last.index };
        self.snapshots.begin_count();
        let (slice, writer) = (Vec::new(), Some(writer));
        self.snapshots.taking = Some(Taking { name, head, writer, slice, chunks, offset: 0, stage: Stage::Walking });
        io.snapshots.taking = Some(self.id);
    }

    pub(super) fn continue_taking<D: Disk>(&mut self, io: &mut Io<D>) {
        let pressed = self.machine.snapshot_pending_bytes() > PENDING_BYTES_MAX;
        let Some(taking) = &mut self.snapshots.taking else { return };
        match taking.stage {
            Stage::Walking if io.snapshots.write_bytes == 0 && !pressed => {}
            Stage::Walking => self.walk(io),
            Stage::Finished => self.mark_taken(io),
            Stage::Writing(_) | Stage::Finishing(_) | Stage::Marked => {}
        }
    }

    /// One slice; a chunk that is whole is written, and the next slice waits for it.
    fn walk<D: Disk>(&mut self, io: &mut Io<D>) {
        let slice_bytes = self.snapshots.settings.chunk_bytes.get();
        let Some(taking) = &mut self.snapshots.taking else { return };
        if taking.chunks.is_empty()
            && let Some(writer) = &mut taking.writer
        {
            taking.slice.clear();
            let more = self.machine.snapshot_slice(&mut taking.slice, slice_bytes);
            let chunks = &mut taking.chunks;
            let mut emit = |chunk: &[u8]| chunks.push_back(chunk.to_vec());
            writer.push(&taking.slice, &mut emit);
            if !more && let Some(writer) = taking.writer.take() {
                writer.finish(&mut emit);
            }
        }
        let begun = match taking.chunks.front() {
            Some(chunk) => {
                io.snapshots.write_bytes = io.snapshots.write_bytes.saturating_sub(chunk.len() as u64);
                io.wal.write_snapshot(taking.name, taking.offset, chunk, &mut io.disk).map(Stage::Writing)
            }
            None if taking.writer.is_none() && is_active(Mutant::MarkBeforeFile) => Ok(Stage::Finished),
            None if taking.writer.is_none() => io.wal.finish_snapshot(taking.name, &mut io.disk).map(Stage::Finishing),
            None => return io.more_work = true,
        };
        match begun {
            Ok(stage) => taking.stage = stage,
            Err(error) if error.is_retryable() => {} // with the next turn or tick
            Err(_) => self.give_up_taking(io),
        }
    }

    /// A write or the finish of the file ended.
    pub(super) fn taken_step<D: Disk>(&mut self, done: &SnapshotDone<D::Buffer>, io: &mut Io<D>) {
        let Some(taking) = &mut self.snapshots.taking else { return };
        let (writes, finishes) =
            (taking.stage == Stage::Writing(done.ticket), taking.stage == Stage::Finishing(done.ticket));
        if !writes && !finishes {
            return;
        }
        if done.result.is_err() {
            return self.give_up_taking(io);
        }
        if finishes {
            taking.stage = Stage::Finished;
            self.snapshots.files.push(done.snapshot.index);
            return self.mark_taken(io);
        }
        if let Some(chunk) = taking.chunks.pop_front() {
            taking.offset += chunk.len() as u64;
        }
        taking.stage = Stage::Walking;
        self.continue_taking(io);
    }

    /// Refers to the finished file from the log.
    fn mark_taken<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(taking) = &mut self.snapshots.taking else { return };
        let SnapshotHead { last, state_hash, .. } = taking.head;
        let mark = SnapshotMark {
            term: last.term,
            index: last.index,
            file_bytes: taking.offset,
            state_hash,
            replaces_log: false,
        };
        match io.wal.append_snapshot_mark(self.id.0, mark, &mut io.disk) {
            Ok(accepted) => {
                self.flush_mark = accepted.sequence;
                taking.stage = Stage::Marked;
            }
            Err(error) if error.is_retryable() => {} // full: with the next tick
            Err(WalError::SnapshotMark { .. }) => self.give_up_taking(io), // a newer one was installed meanwhile
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
    }

    /// Ends a snapshot that failed, or that another one has overtaken.
    pub(super) fn give_up_taking<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(taking) = self.snapshots.taking.take() else { return };
        self.machine.abort_snapshot();
        io.snapshots.taking = None;
        self.snapshots.note_failure(&mut io.counters);
        if !matches!(taking.stage, Stage::Finished | Stage::Marked) {
            // Refused while something is under way: then the part file is begun anew or removed at the next start.
            let _ = io.wal.remove_snapshot(taking.name, true, &mut io.disk);
        }
    }
}
