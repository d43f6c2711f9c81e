//! Recovery: from the images of the segment files to the state a [`Wal`](crate::Wal) goes on from.
//!
//! Off the data path.
//! A pure function over block images: no I/O, no clock. The decision table with one row per case is in `FORMAT.md`; one
//! test per row is in `tests/recovery_table.rs` and `tests/recovery_files.rs`. Invariants: what may have been acknowledged is never dropped (a bad
//! batch that any later header calls durable is [`RecoveryError::Corruption`]); recovering twice gives the same result;
//! nothing is written.
//! It does not repair from peers.

mod link;
mod recovered;
pub(crate) mod scan;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use recovered::Cursor;
pub use recovered::{Recovered, RecoveredEntry, RecoveredGroup};
pub use scan::{Scan, StopReason};

use crate::batch::BatchHeader;
use crate::config::{Identity, ValidConfig};
use crate::disk::FileNumber;
use crate::snapshots::{SnapshotFile, SnapshotName};
use scan::SegmentScan;

/// Something recovery met that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The last batch was not completely written; it was never acknowledged. Writing goes on in a new segment.
    TornTail {
        /// Where the log ends.
        file: FileNumber,
        /// First byte behind the last intact batch.
        offset: u64,
        /// The sequence that was expected there.
        sequence: u64,
        /// What stands there.
        reason: StopReason,
    },
    /// A whole segment that follows a torn tail; nothing in it was ever acknowledged. Its file is used again.
    LeftoverSegment {
        /// The file.
        file: FileNumber,
        /// Its segment.
        segment_id: u64,
    },
    /// One copy of a hard state is damaged, the other is intact.
    HardStateCopyDamaged {
        /// The file.
        file: FileNumber,
        /// Where the batch's records begin.
        offset: u64,
        /// The batch.
        sequence: u64,
    },
    /// A snapshot of a group cannot be loaded, but the log does not need it.
    SnapshotSkipped {
        /// The one that is missing or has another size.
        snapshot: SnapshotName,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { file, offset, sequence, reason } => {
                write!(formatter, "{file} at {offset}: the log ends before batch {sequence}: {reason}")
            }
            Self::LeftoverSegment { file, segment_id } => {
                write!(formatter, "{file}: segment {segment_id} follows a torn tail and is not part of the log")
            }
            Self::HardStateCopyDamaged { file, offset, sequence } => {
                write!(formatter, "{file} at {offset}: batch {sequence} holds a damaged copy of a hard state")
            }
            Self::SnapshotSkipped { snapshot } => {
                write!(formatter, "{snapshot} is missing or has another size; the log can do without it")
            }
        }
    }
}

/// Entries of a group that are lost or unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The group.
    pub group: u32,
    /// The first index that is missing.
    pub first_index: u64,
    /// The last one, where a later entry was found.
    pub last_index: Option<u64>,
}

/// Damage in something that may have been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: FileNumber,
    /// First damaged byte, a block boundary.
    pub offset: u64,
    /// The batch that should stand there.
    pub sequence: u64,
    /// The highest batch that is known to have been durable.
    pub durable_sequence: u64,
    /// What stands there instead.
    pub reason: StopReason,
    /// What is lost, as far as it is known.
    pub lost: Vec<LostRange>,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} at byte {}: batch {} was durable (all up to {} were), but {}",
            self.file, self.offset, self.sequence, self.durable_sequence, self.reason
        )?;
        for lost in &self.lost {
            match lost.last_index {
                Some(last) => {
                    write!(formatter, "; group {} lost entries {} to {last}", lost.group, lost.first_index)?;
                }
                None => write!(formatter, "; group {} may have lost entries from {} on", lost.group, lost.first_index)?,
            }
        }
        Ok(())
    }
}

/// Why a WAL cannot be recovered. Nothing was changed on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Something that may have been acknowledged is damaged.
    #[error(
        "the write-ahead log is damaged: {0}. Acknowledged entries are lost on this disk, so this node must not vote \
         or acknowledge from it. Keep a copy of the folder, check the disk, and replace this replica: remove the \
         node's data folder and let it join again under a new node id"
    )]
    Corruption(Box<Damage>),
    /// A group's log lacks entries that no snapshot covers.
    #[error(
        "the write-ahead log is damaged: the log of group {group} has entry {last_index} and then entry {index}, and its \
         snapshots cover only up to entry {covered}. Keep a copy of the folder and replace this replica"
    )]
    Gap {
        /// The group.
        group: u32,
        /// The last entry before the gap, 0 if it is at the beginning.
        last_index: u64,
        /// The first one behind it.
        index: u64,
        /// What the newest snapshot mark covers, 0 if there is none.
        covered: u64,
    },
    /// A group's log continues a snapshot whose file is not there.
    #[error(
        "{snapshot} {}, and without it the log of group {} has no beginning: put the file back from where it was moved \
         to, or replace this replica",
        match found {
            Some(found) => format!("has {found} bytes instead of {expected}"),
            None => String::from("is missing"),
        },
        snapshot.group
    )]
    SnapshotMissing {
        /// The snapshot.
        snapshot: SnapshotName,
        /// The size its mark says.
        expected: u64,
        /// The size of the file, if there is one.
        found: Option<u64>,
    },
    /// A segment file that `wal.meta` counts is not there.
    #[error(
        "{file} is missing: {expected} segment files were made. Put the file back from where it was moved to, or replace this replica"
    )]
    MissingFile {
        /// The file.
        file: FileNumber,
        /// Files there must be.
        expected: u32,
    },
    /// A segment file behind those that `wal.meta` counts was written to.
    #[error(
        "{file} was written to, but wal.meta counts only {counted} segment files: wal.meta is an old copy. Put the right one back, or replace this replica"
    )]
    Uncounted {
        /// The file.
        file: FileNumber,
        /// Files that are counted.
        counted: u32,
    },
    /// A segment file has another size than it was made with.
    #[error(
        "{file} has {found} bytes instead of {expected}: it was cut or extended by something else; replace this replica"
    )]
    FileSize {
        /// The file.
        file: FileNumber,
        /// Configured size.
        expected: u64,
        /// Actual size.
        found: u64,
    },
    /// A segment file of another WAL.
    #[error("{file} belongs to another cluster, node or shard: it was copied here by mistake; put the right file back")]
    ForeignSegment {
        /// The file.
        file: FileNumber,
    },
    /// Two files claim to be the same segment.
    #[error("{file} and {other} both hold segment {segment_id}: one is a copy; put the right file back")]
    DuplicateSegment {
        /// One file.
        file: FileNumber,
        /// The other.
        other: FileNumber,
        /// The segment.
        segment_id: u64,
    },
    /// A batch of another format version.
    #[error(
        "{file} at byte {offset} has format version {version}, this program knows version 1: use the program that wrote it"
    )]
    Version {
        /// The file.
        file: FileNumber,
        /// Where.
        offset: u64,
        /// The version found.
        version: u16,
    },
    /// The directory was made with other values.
    #[error(
        "the folder was made with {field} = {found}, the configuration says {configured}: use the value it was made with"
    )]
    Geometry {
        /// Which setting.
        field: &'static str,
        /// In the folder.
        found: u64,
        /// In the configuration.
        configured: u64,
    },
    /// The directory belongs to another cluster, node or shard.
    #[error(
        "the folder is the WAL of {found}, not of {configured}: give the right folder, or an empty one for a new node"
    )]
    Identity {
        /// In the folder.
        found: Box<Identity>,
        /// In the configuration.
        configured: Box<Identity>,
    },
    /// Both copies in `wal.meta` are unreadable.
    #[error("wal.meta is damaged in both copies: restore it, or replace this replica")]
    Meta,
    /// `wal.meta` was written by another version.
    #[error("wal.meta has version {version}, this program knows version 1: use the program that wrote it")]
    MetaVersion {
        /// The version found.
        version: u16,
    },
    /// The directory holds segments but no `wal.meta`.
    #[error("there are segment files but no wal.meta: restore it, or replace this replica")]
    MetaMissing,
}

/// Gathers the images of all segment files, then decides.
pub struct Recovery {
    config: ValidConfig,
    file_count: u32,
    scans: BTreeMap<FileNumber, SegmentScan>,
    snapshots: Vec<SnapshotFile>,
}

impl Recovery {
    /// Starts a recovery of `file_count` segment files (the number in `wal.meta`).
    #[must_use]
    pub fn new(config: &ValidConfig, file_count: u32) -> Self {
        Self { config: config.clone(), file_count, scans: BTreeMap::new(), snapshots: Vec::new() }
    }

    /// Whether a file begins with a batch. One that `wal.meta` does not count must not: it is counted before it is used.
    #[must_use]
    pub fn holds_batches(image: &[u8]) -> bool {
        BatchHeader::decode(image).is_ok()
    }

    /// Takes the whole image of one segment file; in any order, one at a time. The image can be dropped afterwards.
    ///
    /// # Errors
    /// The file has the wrong size, or belongs to another WAL or version.
    pub fn segment(&mut self, file: FileNumber, image: &[u8]) -> Result<(), RecoveryError> {
        let mut scan = self.begin_segment(file);
        scan.advance(image);
        self.end_segment(scan)
    }

    /// The same in steps: [`Scan::advance`] takes what was read, until that is the whole file.
    #[must_use]
    pub fn begin_segment(&self, file: FileNumber) -> Scan {
        Scan::new(&self.config, file)
    }

    /// Takes the scan of a whole file.
    ///
    /// # Errors
    /// As [`Recovery::segment`].
    pub fn end_segment(&mut self, scan: Scan) -> Result<(), RecoveryError> {
        let scan = scan.finish()?;
        self.scanned(scan);
        Ok(())
    }

    /// Takes note of a finished snapshot file; in any order.
    pub fn snapshot(&mut self, file: SnapshotFile) {
        self.snapshots.push(file);
    }

    pub(crate) fn scanned(&mut self, scan: SegmentScan) {
        self.scans.insert(scan.file, scan);
    }

    /// Decides what the log is.
    ///
    /// # Errors
    /// A missing file, damage in something that may have been acknowledged, or a group whose beginning is nowhere.
    pub fn finish(self) -> Result<Recovered, RecoveryError> {
        for number in 0..self.file_count {
            let file = FileNumber(number);
            if !self.scans.contains_key(&file) {
                return Err(RecoveryError::MissingFile { file, expected: self.file_count });
            }
        }
        let scans: Vec<SegmentScan> = self.scans.into_values().filter(|scan| scan.file.0 < self.file_count).collect();
        let mut recovered = link::link(&self.config, &scans, self.file_count)?;
        recovered.snapshots = self.snapshots;
        recovered.snapshots.sort_unstable();
        recovered.check_snapshots()?;
        recovered.note_skipped_snapshots();
        Ok(recovered)
    }
}
