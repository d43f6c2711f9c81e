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

#[cfg(test)]
mod tests {
    use ringraft_wal::{Completed, Config, Identity, SnapshotMark, Wal};

    use super::super::{Ending, SimDisk};
    use super::*;

    const BLOCK: usize = 512;

    fn medium() -> Medium {
        let config = Config {
            block_bytes: BLOCK,
            segment_bytes: 32 * BLOCK as u64,
            segments_ready: 1,
            batch_bytes_max: 4 * BLOCK,
            record_bytes_max: 8 * BLOCK,
            backlog_bytes_max: 64 * BLOCK,
            ..Config::default()
        };
        let mut medium = Medium::new(config.validate(Identity::default()).expect("valid"));
        medium.open(64, None).expect("an empty folder");
        medium
    }

    fn start(medium: &mut Medium, disk: &mut SimDisk) -> Wal<SimDisk> {
        let recovered = medium.recover().expect("a disk nobody damaged");
        Wal::new(medium.config().clone(), recovered, disk)
    }

    /// Ends what was asked for; an operation on a snapshot ends by the verdict, and its end is returned.
    fn end(
        medium: &mut Medium,
        wal: &mut Wal<SimDisk>,
        disk: &mut SimDisk,
        verdict: Verdict,
        random: &mut Random,
    ) -> Option<Result<(), DiskError>> {
        let mut ended = None;
        for operation in disk.take() {
            let name = medium.begin(operation);
            let verdict = if medium.kind(name).is_some_and(super::super::OperationKind::is_of_snapshot) {
                verdict
            } else {
                Verdict::Sound
            };
            let completion = medium.finish(name, verdict, random).expect("it was begun");
            if let Some(Completed::Snapshot(done)) =
                wal.complete(completion, &mut Vec::new(), disk).expect("no log error")
            {
                ended = Some(done.result.map(|_| ()));
            }
        }
        ended
    }

    const NAME: SnapshotName = SnapshotName { group: 4, index: 9 };

    /// Two pieces, the end, the mark; stops and loses power before the step `crash_before`. Says whether it was finished and
    /// whether the mark is durable.
    fn written(medium: &mut Medium, crash_before: u32, random: &mut Random) -> (bool, bool) {
        let mut disk = SimDisk::default();
        let mut wal = start(medium, &mut disk);
        let (mut finished, mut marked) = (false, false);
        for step in 0..4 {
            match step {
                0 | 1 => {
                    let offset = u64::from(step) * BLOCK as u64;
                    wal.write_snapshot(NAME, offset, &[step as u8; BLOCK], &mut disk).map(|_| ()).expect("in order");
                }
                2 => wal.finish_snapshot(NAME, &mut disk).map(|_| ()).expect("both pieces are there"),
                _ => {
                    let mark = SnapshotMark { term: 1, index: 9, file_bytes: 1024, state_hash: 5, replaces_log: true };
                    wal.append_snapshot_mark(4, mark, &mut disk).expect("room");
                    wal.submit(&mut disk).expect("sound");
                }
            }
            if step == crash_before {
                disk.take().into_iter().for_each(|operation| {
                    medium.begin(operation);
                });
                break;
            }
            end(medium, &mut wal, &mut disk, Verdict::Sound, random);
            finished |= step == 2;
            marked |= step == 3;
        }
        medium.crash(Ending::PowerLost, random);
        medium.open(64, None).expect("a disk nobody damaged");
        (finished, marked)
    }

    #[test]
    fn whatever_a_crash_leaves_a_durable_mark_has_its_file_whole() {
        let mut random = Random::stream(7, "snapshots");
        let mut seen = [0; 3];
        for round in 0..400 {
            let mut medium = medium();
            let (finished, marked) = written(&mut medium, round % 5, &mut random);
            assert!(medium.parts.is_empty(), "a start removes them");
            let recovered = medium.recover().expect("a disk nobody damaged");
            let there = medium.snapshots.get(&NAME);
            if let Some(bytes) = there {
                assert_eq!(*bytes, [[0; BLOCK], [1; BLOCK]].concat(), "whole or not there");
            }
            assert!(there.is_some() || !finished);
            let usable = recovered.usable_snapshots(NAME.group).count();
            assert!(usable == 1 || !marked);
            seen[usize::from(there.is_some()) + usize::from(usable == 1)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    }

    #[test]
    fn errors_are_typed_and_the_log_goes_on() {
        let mut random = Random::stream(8, "snapshots");
        let (mut medium, mut disk) = (medium(), SimDisk::default());
        let mut wal = start(&mut medium, &mut disk);
        wal.write_snapshot(NAME, 0, &[1; BLOCK], &mut disk).expect("the first piece");
        let full = end(&mut medium, &mut wal, &mut disk, Verdict::NoSpace, &mut random);
        assert_eq!(full, Some(Err(DiskError::NoSpace)));
        wal.write_snapshot(NAME, 0, &[1; BLOCK], &mut disk).expect("it begins anew");
        let failed = end(&mut medium, &mut wal, &mut disk, Verdict::Failed, &mut random);
        assert!(matches!(failed, Some(Err(DiskError::Io { operation: "write", file: FileName::Part(NAME), .. }))));
        assert!(!wal.is_poisoned());
        assert_eq!(medium.damage_snapshot(&mut random), None, "none is finished");
    }

    #[test]
    fn a_flipped_bit_is_one_bit_of_a_finished_file() {
        let mut random = Random::stream(9, "snapshots");
        let mut medium = medium();
        written(&mut medium, 4, &mut random);
        let before = medium.snapshots[&NAME].clone();
        assert!(medium.damage_snapshot(&mut random).is_some());
        let flipped = before.iter().zip(&medium.snapshots[&NAME]).map(|(one, other)| (one ^ other).count_ones());
        assert_eq!(flipped.sum::<u32>(), 1);
        assert!(medium.recover().is_ok(), "the log does not look into it");
    }
}
