//! Snapshot files on the virtual disk: how operations on them end, what a crash leaves of them, and their damage.
//!
//! Off the data path.
//! Pieces of a part file are promised nothing: a crash may leave them lost, torn or whole, and as the next start removes
//! every part file, that is not told apart. A finish or a removal that a crash or an error interrupts has happened or not,
//! nothing in between, because the production disk flushes a file before it renames it and a folder after it.

use ringraft_wal::{DiskError, DiskOperation, Done, FileName, SnapshotName};

use super::{Buffer, Medium, Verdict, injected};
use crate::random::Random;

impl Medium {
    pub(super) fn finish_snapshot_operation(
        &mut self,
        operation: &DiskOperation<Buffer>,
        verdict: Verdict,
        random: &mut Random,
    ) -> Result<Done<Buffer>, DiskError> {
        match verdict {
            Verdict::Sound => self.apply_snapshot_operation(operation),
            Verdict::NoSpace => Err(DiskError::NoSpace),
            Verdict::Failed => {
                self.survive_snapshot_operation(operation, random);
                let (name, file) = described(operation);
                Err(injected(name, file))
            }
        }
    }

    fn apply_snapshot_operation(&mut self, operation: &DiskOperation<Buffer>) -> Result<Done<Buffer>, DiskError> {
        match operation {
            DiskOperation::WriteSnapshot { snapshot, offset, buffer, length, .. } => {
                let part = self.parts.entry(*snapshot).or_default();
                part.resize(*offset as usize, 0);
                part.extend_from_slice(&buffer.as_ref().as_ref()[..*length]);
                Ok(Done::Written)
            }
            DiskOperation::FinishSnapshot { snapshot, bytes, .. } => self.finish_part(*snapshot, *bytes),
            DiskOperation::ReadSnapshot { snapshot, offset, length, .. } => {
                self.read_snapshot(*snapshot, *offset, *length)
            }
            DiskOperation::RemoveSnapshot { snapshot, part, .. } => {
                if *part {
                    self.parts.remove(snapshot)
                } else {
                    self.snapshots.remove(snapshot)
                };
                Ok(Done::Removed)
            }
            DiskOperation::Write { .. } | DiskOperation::Read { .. } | DiskOperation::CreateSegment { .. } => {
                unreachable!("the log's own operations end elsewhere")
            }
        }
    }

    fn finish_part(&mut self, snapshot: SnapshotName, bytes: u64) -> Result<Done<Buffer>, DiskError> {
        let file = FileName::Part(snapshot);
        let Some(part) = self.parts.remove(&snapshot) else {
            return Err(DiskError::Short { operation: "finish", file, done: 0, expected: bytes });
        };
        let done = part.len() as u64;
        if done != bytes {
            return Err(DiskError::Short { operation: "finish", file, done, expected: bytes });
        }
        self.snapshots.insert(snapshot, part);
        Ok(Done::Finished)
    }

    fn read_snapshot(&self, snapshot: SnapshotName, offset: u64, length: usize) -> Result<Done<Buffer>, DiskError> {
        let bytes = self.snapshots.get(&snapshot).map_or(&[][..], Vec::as_slice);
        let behind = bytes.get(offset as usize..).unwrap_or_default();
        let (file, done) = (FileName::Snapshot(snapshot), behind.len() as u64);
        let short = DiskError::Short { operation: "read", file, done, expected: length as u64 };
        behind.get(..length).map(|found| Done::Read(Buffer(found.to_vec()))).ok_or(short)
    }

    /// An operation on a snapshot file was interrupted: it has happened or not.
    pub(super) fn survive_snapshot_operation(&mut self, operation: &DiskOperation<Buffer>, random: &mut Random) {
        let has_effect = !matches!(operation, DiskOperation::ReadSnapshot { .. });
        if has_effect && random.chance(500_000) {
            self.apply_snapshot_operation(operation).ok(); // what could not be done has not happened
        }
    }

    /// Flips one bit of a finished file; says where, `None` when there is none.
    pub(super) fn damage_snapshot(&mut self, random: &mut Random) -> Option<String> {
        let names: Vec<SnapshotName> = self.snapshots.keys().copied().collect();
        if names.is_empty() {
            return None;
        }
        let name = *random.pick(&names);
        let bytes = self.snapshots.get_mut(&name)?;
        let bit = random.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        Some(format!("bit {bit} of {name}"))
    }
}

fn described(operation: &DiskOperation<Buffer>) -> (&'static str, FileName) {
    match operation {
        DiskOperation::WriteSnapshot { snapshot, .. } => ("write", FileName::Part(*snapshot)),
        DiskOperation::FinishSnapshot { snapshot, .. } => ("flush", FileName::Part(*snapshot)),
        DiskOperation::ReadSnapshot { snapshot, .. } => ("read", FileName::Snapshot(*snapshot)),
        DiskOperation::RemoveSnapshot { snapshot, part: true, .. } => ("remove", FileName::Part(*snapshot)),
        DiskOperation::RemoveSnapshot { snapshot, .. } => ("remove", FileName::Snapshot(*snapshot)),
        DiskOperation::Write { file, .. }
        | DiskOperation::Read { file, .. }
        | DiskOperation::CreateSegment { file, .. } => ("use", FileName::Segment(*file)),
    }
}
