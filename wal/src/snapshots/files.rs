//! Handing operations on snapshot files to the disk, and their ends to the host.
//!
//! Off the data path.
//! Invariants: what is under way is bounded; the pieces of a file follow each other without holes, one at a time; after an
//! error a file is written on only from its beginning; a file that a mark still needs is neither removed nor replaced.
//! It retries nothing and poisons nothing.

use ringraft_raft::mutants::{Mutant, is_active};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::SnapshotName;
use crate::disk::{Disk, DiskError, DiskOperation, Done, Ticket};
use crate::error::SnapshotError;
use crate::wal::Wal;

/// The longest piece of a snapshot file.
pub const PIECE_BYTES_MAX: usize = 4 << 20;
/// Operations on snapshot files that may be under way at once.
pub const OPERATIONS_MAX: usize = 16;
/// Snapshots that may be written at once.
const PARTS_MAX: usize = 64;

/// The end of an operation on a snapshot file.
#[derive(Debug)]
pub struct SnapshotDone<B> {
    /// Which operation.
    pub ticket: Ticket,
    /// Which snapshot.
    pub snapshot: SnapshotName,
    /// How it ended. An error means that this snapshot failed, nothing else.
    pub result: Result<Done<B>, DiskError>,
}

/// What is under way, and what is being written.
#[derive(Debug, Default)]
pub(crate) struct SnapshotFiles {
    pending: Vec<Pending>,
    parts: BTreeMap<SnapshotName, Part>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    ticket: Ticket,
    snapshot: SnapshotName,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    Finish,
    Read,
    Remove { part: bool },
}

/// A file that is being written.
#[derive(Clone, Copy, Debug)]
struct Part {
    bytes: u64,
    failed: bool,
}

impl SnapshotFiles {
    /// Whether another operation may begin: reads of one file go beside each other, everything else alone.
    fn admit(&self, snapshot: SnapshotName, kind: Kind) -> Result<(), SnapshotError> {
        let mut own = self.pending.iter().filter(|pending| pending.snapshot == snapshot);
        let alone = own.all(|pending| (pending.kind, kind) == (Kind::Read, Kind::Read));
        let is_new = kind == Kind::Write && !self.parts.contains_key(&snapshot);
        let room = self.pending.len() < OPERATIONS_MAX && !(is_new && self.parts.len() >= PARTS_MAX);
        if alone && room { Ok(()) } else { Err(SnapshotError::Busy { snapshot }) }
    }

    fn reads(&self) -> usize {
        self.pending.iter().filter(|pending| pending.kind == Kind::Read).count()
    }

    /// Notes the end of an operation and says which snapshot it was on; `None` if it was not on one.
    pub(crate) fn ended<B>(&mut self, ticket: Ticket, result: &Result<Done<B>, DiskError>) -> Option<SnapshotName> {
        let place = self.pending.iter().position(|pending| pending.ticket == ticket)?;
        let Pending { snapshot, kind, .. } = self.pending.swap_remove(place);
        match (kind, result) {
            (Kind::Finish, Ok(_)) | (Kind::Remove { part: true }, Ok(_)) => {
                self.parts.remove(&snapshot);
            }
            (Kind::Write | Kind::Finish, Err(_)) => {
                self.parts.entry(snapshot).and_modify(|part| part.failed = true);
            }
            _ => {}
        }
        Some(snapshot)
    }
}

impl<D: Disk> Wal<D> {
    /// Reads of entries and of snapshots that the disk has not ended.
    #[must_use]
    pub fn reads_in_flight(&self) -> usize {
        self.reader.under_way() + self.snapshot_files.reads()
    }

    /// Writes a piece of a snapshot to its part file. The one at 0 begins the file anew; the others follow each other, one
    /// at a time. The end comes out of [`Wal::complete`], as with all of these.
    ///
    /// # Errors
    /// Not the next piece, not of whole blocks, a mark names the finished file, too much under way, failed before, or
    /// poisoned; nothing was begun then.
    pub fn write_snapshot(
        &mut self,
        snapshot: SnapshotName,
        offset: u64,
        bytes: &[u8],
        disk: &mut D,
    ) -> Result<Ticket, SnapshotError> {
        self.check_snapshot_piece(snapshot, offset, bytes.len())?;
        self.snapshot_files.admit(snapshot, Kind::Write)?;
        self.check_unmarked(snapshot)?;
        let known = self.snapshot_files.parts.get(&snapshot).copied().unwrap_or(Part { bytes: 0, failed: false });
        if offset > 0 && known.failed {
            return Err(SnapshotError::Failed { snapshot });
        }
        if offset > 0 && offset != known.bytes {
            return Err(SnapshotError::Order { snapshot, offset, expected: known.bytes });
        }
        let part = Part { bytes: offset + bytes.len() as u64, failed: false };
        self.snapshot_files.parts.insert(snapshot, part);
        let length = bytes.len();
        let mut buffer = disk.allocate(length);
        D::bytes_mut(&mut buffer)[..length].copy_from_slice(bytes);
        D::trim(&mut buffer, length);
        let ticket = self.begin_snapshot_operation(snapshot, Kind::Write);
        disk.submit(DiskOperation::WriteSnapshot { ticket, snapshot, offset, buffer: Rc::new(buffer), length });
        Ok(ticket)
    }

    /// Makes a snapshot whose pieces are all written durable under its final name.
    ///
    /// # Errors
    /// None of it is written, a piece failed, a mark names the finished file, too much under way, or poisoned.
    pub fn finish_snapshot(&mut self, snapshot: SnapshotName, disk: &mut D) -> Result<Ticket, SnapshotError> {
        self.check_poison().map_err(|_| SnapshotError::Poisoned)?;
        self.snapshot_files.admit(snapshot, Kind::Finish)?;
        self.check_unmarked(snapshot)?;
        let bytes = match self.snapshot_files.parts.get(&snapshot) {
            None => return Err(SnapshotError::Order { snapshot, offset: 0, expected: 0 }),
            Some(part) if part.failed => return Err(SnapshotError::Failed { snapshot }),
            Some(part) => part.bytes,
        };
        let ticket = self.begin_snapshot_operation(snapshot, Kind::Finish);
        disk.submit(DiskOperation::FinishSnapshot { ticket, snapshot, bytes });
        Ok(ticket)
    }

    /// Reads whole blocks of a finished snapshot; fewer bytes than asked are an error.
    ///
    /// # Errors
    /// Not of whole blocks, or too much under way.
    pub fn read_snapshot(
        &mut self,
        snapshot: SnapshotName,
        offset: u64,
        length: usize,
        disk: &mut D,
    ) -> Result<Ticket, SnapshotError> {
        self.check_snapshot_piece(snapshot, offset, length)?;
        self.snapshot_files.admit(snapshot, Kind::Read)?;
        let ticket = self.begin_snapshot_operation(snapshot, Kind::Read);
        disk.submit(DiskOperation::ReadSnapshot { ticket, snapshot, offset, length });
        Ok(ticket)
    }

    /// Removes a snapshot's finished file, or its part file.
    ///
    /// # Errors
    /// The log still needs the finished one, too much is under way, or poisoned.
    pub fn remove_snapshot(
        &mut self,
        snapshot: SnapshotName,
        part: bool,
        disk: &mut D,
    ) -> Result<Ticket, SnapshotError> {
        self.check_poison().map_err(|_| SnapshotError::Poisoned)?;
        self.snapshot_files.admit(snapshot, Kind::Remove { part })?;
        if !part && self.needs_snapshot(snapshot) {
            return Err(SnapshotError::Needed { snapshot });
        }
        let ticket = self.begin_snapshot_operation(snapshot, Kind::Remove { part });
        disk.submit(DiskOperation::RemoveSnapshot { ticket, snapshot, part });
        Ok(ticket)
    }

    /// Whether a mark names it, or may name it again if the newest one is lost in a crash.
    fn needs_snapshot(&self, snapshot: SnapshotName) -> bool {
        let Some(known) = self.groups.get(&snapshot.group) else { return false };
        if is_active(Mutant::OlderSnapshotRemovedEarly) {
            return known.marks.last().is_some_and(|mark| mark.index == snapshot.index);
        }
        known.mark_sequence > self.durable_sequence || known.marks.iter().any(|mark| mark.index == snapshot.index)
    }

    /// The file a mark names has the size that stands in the mark: it is not written again.
    fn check_unmarked(&self, snapshot: SnapshotName) -> Result<(), SnapshotError> {
        let marked = self.snapshot_marks(snapshot.group).iter().any(|mark| mark.index == snapshot.index);
        if marked { Err(SnapshotError::Needed { snapshot }) } else { Ok(()) }
    }

    fn check_snapshot_piece(&self, snapshot: SnapshotName, offset: u64, bytes: usize) -> Result<(), SnapshotError> {
        self.check_poison().map_err(|_| SnapshotError::Poisoned)?;
        let block = self.config.block_bytes;
        let whole = bytes.is_multiple_of(block) && offset.is_multiple_of(block as u64);
        if whole && (1..=PIECE_BYTES_MAX).contains(&bytes) {
            return Ok(());
        }
        Err(SnapshotError::Piece { snapshot, offset, bytes, bytes_max: PIECE_BYTES_MAX })
    }

    fn begin_snapshot_operation(&mut self, snapshot: SnapshotName, kind: Kind) -> Ticket {
        let ticket = self.take_ticket();
        self.snapshot_files.pending.push(Pending { ticket, snapshot, kind });
        ticket
    }
}
