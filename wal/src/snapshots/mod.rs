//! Snapshots as the WAL knows them: files beside the segments, and marks in the log that say which are durable.
//!
//! Off the data path.
//!
//! ```text
//!   pieces --> part file --finish--> finished file --mark--> the mark is durable: older entries may be reclaimed
//!     (files)               (disk)                 (marks)                         and older files removed
//! ```
//!
//! What stands on disk is in `FORMAT.md`. Invariants: a mark is appended only for a finished file (the host's duty); an
//! error of a file's operation is that snapshot's alone and never poisons the log.
//! It does not know what is in a snapshot.

mod files;
pub(crate) mod glommio;
mod marks;

use std::fmt;

pub(crate) use files::SnapshotFiles;
pub use files::{OPERATIONS_MAX, PIECE_BYTES_MAX, SnapshotDone};
pub(crate) use marks::{MARKS_MAX, note_mark};

/// Behind a finished file's name.
pub(crate) const SUFFIX: &str = ".snapshot";
/// Behind the name of a finished file, while it is being written.
pub(crate) const PART_SUFFIX: &str = ".part";

/// Names a snapshot: of which group, up to which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// The group.
    pub group: u32,
    /// The last entry it covers.
    pub index: u64,
}

impl SnapshotName {
    /// Reads the name of a finished file.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let (group, index) = file_name.strip_suffix(SUFFIX)?.split_once('-')?;
        let name = Self { group: u32::from_str_radix(group, 16).ok()?, index: u64::from_str_radix(index, 16).ok()? };
        (name.to_string() == file_name).then_some(name)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}-{:016x}{SUFFIX}", self.group, self.index)
    }
}

/// A finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotFile {
    /// Whose it is.
    pub name: SnapshotName,
    /// Its size.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is() {
        let name = SnapshotName { group: 42, index: 8000 };
        assert_eq!(name.to_string(), "0000002a-0000000000001f40.snapshot");
        assert_eq!(SnapshotName::parse("0000002a-0000000000001f40.snapshot"), Some(name));
        for other in [
            "",
            ".snapshot",
            "0000.segment",
            "2a-1f40.snapshot",
            "0000002A-0000000000001f40.snapshot",
            "+000002a-0000000000001f40.snapshot",
            "0000002a-0000000000001f40.snapshot.part",
            "0000002a-0000000000001f40",
        ] {
            assert_eq!(SnapshotName::parse(other), None, "{other}");
        }
    }
}
