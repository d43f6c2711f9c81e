//! What is on the disks in the end: every sound one holds the committed log, from the base of its replica on.
//!
//! Off the data path.
//! The log is recovered from the medium with the production recovery. Invariants checked: its entries are contiguous, they
//! are those of the archive to the last byte, none is missing between the replica's base and the last commit.

use std::collections::BTreeMap;

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::Index;
use ringraft_wal::FileNumber;
use ringraft_wal::record::RecordView;

use super::archive::Archive;
use super::{Replica, Violation};
use crate::disk::Medium;
use crate::world::Checked;

/// What the disk of one shard holds of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    first: Index,
    last: Index,
    entries: Index,
    /// The first entry that is not what was committed.
    different: Option<Index>,
}

impl Held {
    /// Takes in a live record of the log, in whatever order they stand on the disk.
    fn add(&mut self, index: Index, is_archived: bool) {
        self.first = if self.entries == 0 { index } else { self.first.min(index) };
        self.last = self.last.max(index);
        self.entries += 1;
        if !is_archived {
            self.different = Some(self.different.map_or(index, |other| other.min(index)));
        }
    }

    /// What is wrong with it for a replica with this base, when everything up to `committed` is committed.
    fn problem(&self, base: Index, committed: Index) -> Option<String> {
        if let Some(index) = self.different {
            return Some(format!("at index {index} stands another entry than was committed"));
        }
        if self.entries > 0 && self.last - self.first + 1 != self.entries {
            return Some(format!("{} entries cannot be all from {} to {}", self.entries, self.first, self.last));
        }
        let (first, last) = if self.entries == 0 { (base + 1, base) } else { (self.first, self.last) };
        if first > base + 1 || last < committed {
            return Some(format!("entries {first} to {last} are there, {} to {committed} are needed", base + 1));
        }
        None
    }
}

/// Reads the log of one shard back from its sound disk and compares it with the archive.
pub(crate) fn check(
    node: usize,
    medium: &mut Medium,
    views: impl Iterator<Item = GroupView>,
    archive: &Archive,
) -> Checked {
    let held = read(node, medium, archive)?;
    for view in views {
        let held = held.get(&view.group).copied().unwrap_or_default();
        if let Some(problem) = held.problem(view.base.index, archive.last_index(view.group)) {
            let replica = Replica { node, group: view.group };
            let text = format!("the disk does not hold what {replica} has committed: {problem}");
            return Err(Violation::new("acknowledged is never lost", text));
        }
    }
    Ok(())
}

fn read(node: usize, medium: &mut Medium, archive: &Archive) -> Result<BTreeMap<u32, Held>, Violation> {
    let refused = |error: &dyn std::fmt::Display| {
        let text = format!("the sound disk of node {} is refused: {error}", node + 1);
        Violation::new("the log can be read back", text)
    };
    let recovered = medium.recover().map_err(|error| refused(&error))?;
    let mut groups: BTreeMap<u32, Held> = BTreeMap::new();
    let mut problem = None;
    medium.images(&recovered, |file: FileNumber, image| {
        let mut visit = |record: RecordView<'_>| {
            // What is not committed yet may be anything.
            let is_archived = archive.get(record.group, record.index).is_none_or(|entry| entry.is(record.bytes));
            groups.entry(record.group).or_default().add(record.index, is_archived);
        };
        if let Err(error) = recovered.replay_segment(file, image, &mut visit) {
            problem = Some(refused(&error));
        }
    });
    problem.map_or(Ok(groups), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(indexes: &[Index], base: Index, committed: Index) -> Option<String> {
        let mut held = Held::default();
        indexes.iter().for_each(|index| held.add(*index, true));
        held.problem(base, committed)
    }

    #[test]
    fn a_disk_holds_everything_between_base_and_commit() {
        assert_eq!(problem(&[1, 2, 3], 0, 3), None);
        assert_eq!(problem(&[2, 3, 4], 2, 3), None, "more than is needed, at both ends");
        assert_eq!(problem(&[4, 3], 2, 4), None, "in any order");
        assert_eq!(problem(&[], 3, 3), None, "all of it is in a snapshot");
        assert_eq!(problem(&[], 0, 0), None);
    }

    #[test]
    fn what_is_missing_or_different_is_seen() {
        assert!(problem(&[2, 3], 0, 3).is_some(), "the front");
        assert!(problem(&[1, 2], 0, 3).is_some(), "the end");
        assert!(problem(&[1, 3], 0, 3).is_some(), "the middle");
        assert!(problem(&[], 2, 3).is_some(), "everything");
        let mut held = Held::default();
        held.add(1, true);
        held.add(2, false);
        assert!(held.problem(0, 2).unwrap().contains("index 2"));
    }
}
