//! The rows of the decision table in `FORMAT.md` that are about whole files; the name begins with the row.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, config, identity, patch, refused, small, ten, three_segments};
use ringraft_wal::meta::Meta;
use ringraft_wal::{Config, FileNumber, Identity, Recovery, RecoveryError};

#[test]
fn row_16_missing_file() {
    let (log, _) = three_segments();
    for number in 0..3 {
        let mut disk = log.crashed();
        disk.files_mut().remove(&FileNumber(number));
        // wal.meta counts four files, whatever is there.
        let missing = RecoveryError::MissingFile { file: FileNumber(number), expected: 5 };
        assert_eq!(refused(&log.config, &disk), missing);
    }
}

#[test]
fn row_17_short_or_long_file() {
    let (log, _) = ten();
    for bytes in [0, BLOCK, 31 * BLOCK, 33 * BLOCK] {
        let mut disk = log.crashed();
        disk.files_mut().get_mut(&FileNumber(1)).unwrap().resize(bytes, 0);
        let expected = 32 * BLOCK as u64;
        let error = RecoveryError::FileSize { file: FileNumber(1), expected, found: bytes as u64 };
        assert_eq!(refused(&log.config, &disk), error);
    }
}

#[test]
fn row_18_a_segment_file_copied_over_another() {
    let (log, _) = three_segments();
    let mut disk = log.crashed();
    let copy = disk.files()[&FileNumber(0)].clone();
    disk.files_mut().insert(FileNumber(2), copy);
    assert!(matches!(refused(&log.config, &disk), RecoveryError::DuplicateSegment { segment_id: 1, .. }));
}

#[test]
fn row_19_a_segment_file_of_another_wal() {
    let (log, _) = ten();
    let other = small().validate(Identity { node: 8, ..identity() }).unwrap();
    let mut other = Log::new(other);
    other.flushed_entry(1, 1, 1, 100);
    let mut disk = log.crashed();
    let foreign = other.disk.files()[&FileNumber(0)].clone();
    disk.files_mut().insert(FileNumber(2), foreign);
    assert_eq!(refused(&log.config, &disk), RecoveryError::ForeignSegment { file: FileNumber(2) });
}

#[test]
fn row_20_another_format_version() {
    let (log, _) = ten();
    for (place, offset) in [(0, 0), (9, 9 * BLOCK as u64)] {
        let mut disk = log.crashed();
        patch(&mut disk, place, 4, &2_u16.to_le_bytes());
        let error = refused(&log.config, &disk);
        assert_eq!(error, RecoveryError::Version { file: FileNumber(0), offset, version: 2 });
    }
}

#[test]
fn row_29_wal_meta() {
    let meta = Meta::new(&config(), 9);
    let mut bytes = meta.encode();
    assert_eq!(Meta::decode(&bytes).unwrap(), meta);
    bytes[20] ^= 1;
    assert_eq!(Meta::decode(&bytes).unwrap(), meta, "the second copy serves");
    bytes[4096 + 30] ^= 1;
    assert_eq!(Meta::decode(&bytes), Err(RecoveryError::Meta));
    assert_eq!(Meta::decode(&bytes[..100]), Err(RecoveryError::Meta));
    assert_eq!(Meta::decode(&[]), Err(RecoveryError::Meta));
    assert!(meta.check(&config()).is_ok());
    let other = small().validate(Identity { shard: 4, ..identity() }).unwrap();
    assert!(matches!(meta.check(&other), Err(RecoveryError::Identity { .. })));
    let other = Config { segment_bytes: 64 * BLOCK as u64, ..small() }.validate(identity()).unwrap();
    assert!(matches!(meta.check(&other), Err(RecoveryError::Geometry { field: "wal.segment_bytes", .. })));
}

#[test]
fn row_30_a_written_file_that_wal_meta_does_not_count() {
    let (log, _) = three_segments();
    let disk = log.crashed();
    let last = FileNumber(2);
    assert!(Recovery::holds_batches(&disk.files()[&last]), "the third segment");
    assert!(!Recovery::holds_batches(&disk.files()[&FileNumber(4)]), "made, counted and never used");
    let mut recovery = Recovery::new(&log.config, 2);
    for number in 0..2 {
        recovery.segment(FileNumber(number), &disk.files()[&FileNumber(number)]).unwrap();
    }
    let error = recovery.finish().expect_err("the seal of the second segment names a file that was written to");
    assert_eq!(error, RecoveryError::Uncounted { file: last, counted: 2 });
}

#[test]
fn row_31_a_segment_id_that_no_program_writes() {
    let (log, _) = three_segments();
    for (at, byte) in [(15, 0x2e), (8, 29)] {
        let mut disk = log.crashed();
        let mut first = disk.files()[&FileNumber(1)][..BLOCK].to_vec();
        first[at] = byte;
        let crc = crc32c::crc32c(&first[..60]);
        first[60..64].copy_from_slice(&crc.to_le_bytes());
        disk.files_mut().get_mut(&FileNumber(4)).unwrap()[..BLOCK].copy_from_slice(&first);
        let error = refused(&log.config, &disk).to_string();
        assert!(error.contains("0004.segment at byte 0") && error.contains("contradicts itself"), "{error}");
    }
}
