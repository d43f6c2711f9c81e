//! The rows of the decision table in `FORMAT.md` that are about snapshots; the name begins with the row.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, Model, block, config, recover_twice, refused, ten, three_segments};
use ringraft_wal::mem::MemDisk;
use ringraft_wal::recovery::Note;
use ringraft_wal::{RecoveryError, SnapshotName};

/// Changes bytes of the only record of a batch of one block and makes all checksums right again.
fn patch_record(disk: &mut MemDisk, place: u64, at: usize, bytes: &[u8]) {
    let block = block(disk, 0, place);
    block[64 + at..64 + at + bytes.len()].copy_from_slice(bytes);
    let length = u32::from_le_bytes(block[68..72].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&block[68..64 + length]);
    block[64..68].copy_from_slice(&crc.to_le_bytes());
    let records = crc32c::crc32c(&block[64..72]);
    block[40..44].copy_from_slice(&records.to_le_bytes());
    let crc = crc32c::crc32c(&block[..60]);
    block[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Where a record's index stands.
const INDEX_AT: usize = 24;

fn gap(log: &Log, place: u64, index: u64) -> RecoveryError {
    let mut disk = log.crashed();
    patch_record(&mut disk, place, INDEX_AT, &index.to_le_bytes());
    let error = refused(&log.config, &disk);
    assert!(error.to_string().contains("replace this replica"), "{error}");
    error
}

#[test]
fn row_32_a_log_that_begins_behind_entry_1_without_a_mark() {
    let mut log = Log::new(config());
    log.flushed_entry(1, 1, 1, 100);
    assert_eq!(gap(&log, 0, 5), RecoveryError::Gap { group: 1, last_index: 0, index: 5, covered: 0 });
}

#[test]
fn row_32_a_log_with_a_hole() {
    let (log, _) = ten();
    assert_eq!(gap(&log, 9, 12), RecoveryError::Gap { group: 1, last_index: 9, index: 12, covered: 0 });
    let mut log = Log::new(config());
    log.mark(1, 9, true);
    log.flush();
    log.flushed_entry(1, 1, 10, 100);
    for index in [11, 9, 1] {
        assert_eq!(gap(&log, 1, index), RecoveryError::Gap { group: 1, last_index: 9, index, covered: 9 });
    }
}

#[test]
fn row_32_a_log_that_ends_below_its_mark() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 3, 100);
    log.mark(1, 3, false);
    log.flush();
    assert_eq!(gap(&log, 3, 7), RecoveryError::Gap { group: 1, last_index: 3, index: 7, covered: 7 });
    assert_eq!(
        gap(&log, 3, u64::MAX),
        RecoveryError::Gap { group: 1, last_index: 3, index: u64::MAX, covered: u64::MAX }
    );
}

/// Three segments of which the first two are reclaimed, with these marks, the last of which covers what is gone.
fn reclaimed(marks: &[u64]) -> Log {
    let (mut log, _) = three_segments();
    for index in marks {
        log.mark(1, *index, false);
    }
    log.reclaim(1, marks[marks.len() - 1] + 1);
    log.flush();
    log.flushed_entry(1, 1, 81, 100);
    log
}

fn name(index: u64) -> SnapshotName {
    SnapshotName { group: 1, index }
}

#[test]
fn row_33_the_snapshot_that_the_log_continues_is_missing() {
    let log = reclaimed(&[70]);
    let sound = recover_twice(&log.config, &log.crashed());
    assert!(sound.groups[&1].first_index() > 1);
    assert_eq!(sound.usable_snapshots(1).map(|mark| mark.index).collect::<Vec<_>>(), [70]);
    let mut disk = log.crashed();
    disk.snapshots_mut().remove(&name(70));
    let error = refused(&log.config, &disk);
    assert_eq!(error, RecoveryError::SnapshotMissing { snapshot: name(70), expected: BLOCK as u64, found: None });
    assert!(error.to_string().contains("00000001-0000000000000046.snapshot is missing"), "{error}");
    for bytes in [0, BLOCK - 1, 2 * BLOCK] {
        let mut disk = log.crashed();
        disk.snapshots_mut().insert(name(70), vec![7; bytes]);
        let found = Some(bytes as u64);
        let error = refused(&log.config, &disk);
        assert_eq!(error, RecoveryError::SnapshotMissing { snapshot: name(70), expected: BLOCK as u64, found });
    }
}

#[test]
fn row_33_an_older_snapshot_that_the_log_does_not_continue_is_no_help() {
    let log = reclaimed(&[30, 70]);
    let mut disk = log.crashed();
    disk.snapshots_mut().remove(&name(70));
    assert!(disk.snapshots().contains_key(&name(30)));
    assert!(
        matches!(refused(&log.config, &disk), RecoveryError::SnapshotMissing { snapshot, .. } if snapshot == name(70))
    );
}

#[test]
fn row_34_the_snapshot_before_serves() {
    let log = reclaimed(&[66, 70]);
    for (lost, left) in [(70, 66), (66, 70)] {
        let mut disk = log.crashed();
        disk.snapshots_mut().remove(&name(lost));
        let recovered = recover_twice(&log.config, &disk);
        assert_eq!(recovered.usable_snapshots(1).map(|mark| mark.index).collect::<Vec<_>>(), [left]);
        assert_eq!(recovered.groups[&1].marks.len(), 2);
        assert!(recovered.notes.contains(&Note::SnapshotSkipped { snapshot: name(lost) }), "{:?}", recovered.notes);
    }
}

#[test]
fn row_35_a_mark_that_replaces_the_log() {
    for behind in [false, true] {
        let mut log = Log::new(config());
        let mut model = Model::default();
        log.flushed_entries(1, 1, 30, 100);
        log.flushed_entry(2, 1, 1, 100);
        model.entry(2, 1, 1, 100);
        let index = if behind { 50 } else { 20 };
        log.mark(1, index, true);
        log.flush();
        model.mark(1, index, true);
        let recovered = recover_twice(&log.config, &log.crashed());
        assert_eq!(Model::of(&recovered), model);
        assert_eq!(recovered.groups[&1].first_index(), index + 1);
        // The mark is carried over several changes of segments, and voids nothing that came after it.
        for next in index + 1..index + 90 {
            log.flushed_entry(1, 2, next, 100);
            model.entry(1, 2, next, 100);
        }
        assert!(log.wal.stats().segments >= 4);
        assert_eq!(Model::of(&recover_twice(&log.config, &log.crashed())), model);
        let (mut log, _) = Log::open(config(), log.crashed()).unwrap();
        log.flushed_entry(1, 2, index + 90, 100);
    }
}

#[test]
fn row_36_files_without_marks_and_marks_without_files() {
    let (mut log, mut model) = ten();
    log.mark(1, 4, false);
    log.mark(1, 8, false);
    log.flush();
    model.mark(1, 4, false);
    model.mark(1, 8, false);
    let mut disk = log.crashed();
    disk.snapshots_mut().clear();
    disk.snapshots_mut().insert(SnapshotName { group: 9, index: 3 }, vec![1; 2 * BLOCK]);
    let recovered = recover_twice(&log.config, &disk);
    assert_eq!(Model::of(&recovered), model, "the log alone is enough");
    assert_eq!(recovered.usable_snapshots(1).count(), 0);
    assert_eq!(recovered.notes.len(), 2);
    let [file] = recovered.snapshots[..] else { panic!("{:?}", recovered.snapshots) };
    assert_eq!((file.name.group, file.name.index, file.bytes), (9, 3, 2 * BLOCK as u64));
}
