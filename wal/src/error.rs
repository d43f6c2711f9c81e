//! What can go wrong with a WAL call.
//!
//! Off the data path.

use crate::disk::DiskError;
use crate::record::RecordError;

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
    /// An entry lies before the reclaimed prefix of its group.
    #[error("entry {index} of group {group} was reclaimed, its log begins at {first}")]
    Reclaimed {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
        /// The first index of the log.
        first: u64,
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
