//! What the WAL asks of a disk, and what comes back.
//!
//! Data path 6a/9.
//! The WAL hands out operations and never waits; the host gives every completion back to
//! [`Wal::complete`](crate::Wal::complete), in any order. Invariant for implementors: a write is reported done only when
//! its bytes are durable (written and flushed, or one `O_DSYNC` write), a short write is an error, and nothing is retried.
//! Implementations: `glommio` (production), `mem` (tests and the simulator).

use std::fmt;
use std::rc::Rc;

use crate::snapshots::SnapshotName;

/// Names one operation; never used twice by one WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A segment file: `0000.segment` is 0. Numbers are contiguous; files are recycled, never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub u32);

impl fmt::Display for FileNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}.segment", self.0)
    }
}

/// Any file of a WAL's folder that operations are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// A segment of the log.
    Segment(FileNumber),
    /// A finished snapshot.
    Snapshot(SnapshotName),
    /// A snapshot that is being written.
    Part(SnapshotName),
}

impl From<FileNumber> for FileName {
    fn from(file: FileNumber) -> Self {
        Self::Segment(file)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(file) => file.fmt(formatter),
            Self::Snapshot(snapshot) => snapshot.fmt(formatter),
            Self::Part(snapshot) => write!(formatter, "{snapshot}{}", crate::snapshots::PART_SUFFIX),
        }
    }
}

/// One thing for the disk to do.
#[derive(Debug)]
pub enum DiskOperation<B> {
    /// Write the first `length` bytes of `buffer`, then flush.
    Write {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Where to.
        file: FileNumber,
        /// First byte in the file, a multiple of the block size.
        offset: u64,
        /// The bytes; the WAL keeps reading them while they are written.
        buffer: Rc<B>,
        /// A multiple of the block size; always `buffer`'s length after [`Disk::trim`].
        length: usize,
    },
    /// Read whole blocks.
    Read {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Where from.
        file: FileNumber,
        /// First byte, a multiple of the block size.
        offset: u64,
        /// A multiple of the block size.
        length: usize,
    },
    /// Make a segment file: create it (or empty what an earlier attempt left), write zeros to its full size, flush it and
    /// its directory, and note the new number of files in `wal.meta`.
    CreateSegment {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Its number: the number of files so far.
        file: FileNumber,
        /// Its size.
        bytes: u64,
    },
    /// Write a piece of a part file. The one at 0 creates the file, or empties what is there. Nothing is promised to be
    /// durable yet.
    WriteSnapshot {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Which snapshot.
        snapshot: SnapshotName,
        /// First byte in the file, a multiple of the block size: the end of the pieces before.
        offset: u64,
        /// The bytes.
        buffer: Rc<B>,
        /// `buffer`'s length, a multiple of the block size.
        length: usize,
    },
    /// Flush a part file, check that it has this size, give it its final name (in place of a file of that name) and flush
    /// the folder.
    FinishSnapshot {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Which snapshot.
        snapshot: SnapshotName,
        /// Its size.
        bytes: u64,
    },
    /// Read whole blocks of a finished file.
    ReadSnapshot {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Which snapshot.
        snapshot: SnapshotName,
        /// First byte, a multiple of the block size.
        offset: u64,
        /// A multiple of the block size.
        length: usize,
    },
    /// Remove a file and flush the folder. That it is not there is no error.
    RemoveSnapshot {
        /// Comes back with the completion.
        ticket: Ticket,
        /// Which snapshot.
        snapshot: SnapshotName,
        /// The part file instead of the finished one.
        part: bool,
    },
}

impl<B> DiskOperation<B> {
    /// The operation's name.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        match self {
            Self::Write { ticket, .. }
            | Self::Read { ticket, .. }
            | Self::CreateSegment { ticket, .. }
            | Self::WriteSnapshot { ticket, .. }
            | Self::FinishSnapshot { ticket, .. }
            | Self::ReadSnapshot { ticket, .. }
            | Self::RemoveSnapshot { ticket, .. } => *ticket,
        }
    }
}

/// What a finished operation yields.
#[derive(Debug)]
pub enum Done<B> {
    /// The bytes are durable; those of a snapshot's piece are merely written.
    Written,
    /// The bytes that were read.
    Read(B),
    /// The segment file is there, durable, full of zeros.
    Created,
    /// The snapshot stands under its final name, durable.
    Finished,
    /// The file is not there, durably.
    Removed,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space (or quota) left.
    #[error("no space left on the device")]
    NoSpace,
    /// Any other error.
    #[error("{operation} of {file} failed: {message}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// To which file.
        file: FileName,
        /// The operating system's number, 0 if it gave none.
        errno: i32,
        /// The operating system's words.
        message: String,
    },
    /// Fewer bytes were written or read than asked.
    #[error("{operation} of {file} ended after {done} of {expected} bytes")]
    Short {
        /// What was done.
        operation: &'static str,
        /// To which file.
        file: FileName,
        /// Bytes that were transferred.
        done: u64,
        /// Bytes that were asked.
        expected: u64,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct DiskCompletion<B> {
    /// Which operation.
    pub ticket: Ticket,
    /// How it ended.
    pub result: Result<Done<B>, DiskError>,
}

/// A disk as the WAL sees it.
pub trait Disk: 'static {
    /// Memory that can be written from and read into.
    type Buffer: AsRef<[u8]> + fmt::Debug + 'static;

    /// Memory of at least `bytes` (a multiple of the block size), suitably aligned. Its content is undefined.
    fn allocate(&mut self, bytes: usize) -> Self::Buffer;
    /// The memory of a buffer that is not being written.
    fn bytes_mut(buffer: &mut Self::Buffer) -> &mut [u8];
    /// Shortens a buffer; it need not be possible to lengthen it again.
    fn trim(buffer: &mut Self::Buffer, bytes: usize);
    /// Starts an operation. Must not call back.
    fn submit(&mut self, operation: DiskOperation<Self::Buffer>);
}
