//! What can go wrong with a WAL call.
//!
//! Off the data path.

use crate::disk::DiskError;
use crate::record::RecordError;
use crate::snapshots::SnapshotName;

/// Why a call on the WAL did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// No segment is left to write to and the disk (or `segments_max`) allows no new one. Reads go on; appending works
    /// again by itself when space was reclaimed or freed.
    #[error("the write-ahead log is full: no free segment and no space for another")]
    Full,
    /// More bytes wait for a flush than `backlog_bytes_max`.
    #[error("more than {bytes_max} bytes wait for a flush")]
    Backlog {
        /// The bound.
        bytes_max: usize,
    },
    /// A write or flush failed. What was not reported durable has an unknown outcome; the process must end, and a new one
    /// reads back what the disk holds.
    #[error(
        "a write or flush of the write-ahead log failed ({cause}); the outcome of what was not acknowledged is unknown"
    )]
    Poisoned {
        /// The first error.
        cause: DiskError,
    },
    /// A record is longer than `record_bytes_max`.
    #[error("a record of {bytes} bytes is longer than record_bytes_max = {bytes_max}")]
    RecordTooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An entry does not follow the last one of its group.
    #[error("entry {index} of group {group} does not follow its log, the next one is {next}")]
    Gap {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
        /// The first index that may come.
        next: u64,
    },
    /// An entry is in a snapshot already: it is committed, and cannot be written again.
    #[error("entry {index} of group {group} is in its snapshot, which covers all up to {covered}")]
    Covered {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
        /// What the newest mark covers.
        covered: u64,
    },
    /// A snapshot mark does not fit what the log holds of its group.
    #[error(
        "a snapshot of group {group} up to entry {index} does not fit its log, which holds entries {first} to {last} \
         and whose newest snapshot covers all up to {covered}"
    )]
    SnapshotMark {
        /// The group.
        group: u32,
        /// The last entry the snapshot covers.
        index: u64,
        /// The first index of the log.
        first: u64,
        /// The last index of the log, `first - 1` if it holds none.
        last: u64,
        /// What the newest mark covers, 0 if there is none.
        covered: u64,
    },
    /// Entries were to be reclaimed that no snapshot covers.
    #[error(
        "entries of group {group} below {before_index} cannot be reclaimed: its snapshots cover only up to {covered}"
    )]
    NotCovered {
        /// The group.
        group: u32,
        /// Entries below this should go.
        before_index: u64,
        /// What the newest mark covers, 0 if there is none.
        covered: u64,
    },
    /// Bytes given as a record are none.
    #[error("not a record: {0}")]
    Record(#[from] RecordError),
    /// An entry to read is not in the log.
    #[error("entry {index} of group {group} is not in the log")]
    Missing {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
    },
    /// An entry to read from disk is not there yet; its bytes are in the cache.
    #[error("entry {index} of group {group} is not flushed yet")]
    NotFlushed {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
    },
}

impl WalError {
    /// The same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Backlog { .. } | Self::NotFlushed { .. })
    }

    /// The process must end.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }
}

/// Why entries could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The disk gave other bytes than were written.
    #[error("entry {index} of group {group} in {file} at byte {offset} is damaged: {error}; replace this replica")]
    Damaged {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
        /// The segment file.
        file: crate::disk::FileNumber,
        /// Where its record begins.
        offset: u64,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// Why an operation on a snapshot's file was not begun. None of these touches the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Too much is under way; the same call may succeed when something has ended.
    #[error("{snapshot}: another operation on it, or as many on others as may be, are under way")]
    Busy {
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// The piece is empty, too long, or not of whole blocks.
    #[error("{snapshot}: a piece of {bytes} bytes at byte {offset} is not 1 to {bytes_max} bytes in whole blocks")]
    Piece {
        /// The snapshot.
        snapshot: SnapshotName,
        /// Where it begins.
        offset: u64,
        /// Its length.
        bytes: usize,
        /// The longest there may be.
        bytes_max: usize,
    },
    /// The piece does not follow the ones before, or the file to be finished is not being written.
    #[error("{snapshot}: the next piece begins at byte {expected}, not at {offset}")]
    Order {
        /// The snapshot.
        snapshot: SnapshotName,
        /// Where it begins.
        offset: u64,
        /// Where the pieces so far end.
        expected: u64,
    },
    /// One of its operations failed: remove it, or begin again at byte 0.
    #[error("{snapshot}: an earlier operation on it failed")]
    Failed {
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// A mark names the file, or one that would replace it is not durable yet.
    #[error("{snapshot}: the log still needs it")]
    Needed {
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// The write-ahead log is poisoned; the process must end.
    #[error("the write-ahead log failed")]
    Poisoned,
}

impl SnapshotError {
    /// The same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}
