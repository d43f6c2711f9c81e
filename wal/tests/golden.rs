//! Golden bytes: the format as it stands on disk. A change here is a change of the format version.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, config};
use ringraft_wal::meta::Meta;
use ringraft_wal::record;
use ringraft_wal::{Beginning, FileNumber, SnapshotMark};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as lines of 32, zeros at the end left out.
fn lines(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].chunks(32).map(hex).collect()
}

#[test]
fn an_entry_record() {
    let mut bytes = Vec::new();
    record::encode_entry(&mut bytes, 0x0102_0304, 0x1112_1314_1516_1718, 0x2122_2324_2526_2728, 0x3132, b"hello");
    assert_eq!(lines(&bytes), [GOLDEN_RECORD, "68656c6c6f"]);
    assert_eq!(bytes.len(), 40);
}

#[test]
fn the_first_batches_of_a_wal() {
    let mut log = Log::new(config());
    log.hard_state(5, 2, Some(9));
    log.wal.begin_entry(5, 2, 1, 11, &mut log.disk).unwrap();
    log.wal.put(b"hello ");
    log.wal.put(b"world");
    log.wal.finish_entry(2).unwrap();
    log.flush();
    log.wal.begin_entry(6, 3, 1, 0, &mut log.disk).unwrap();
    log.wal.finish_entry(0).unwrap();
    log.flush();
    let image = &log.disk.files()[&FileNumber(0)];
    assert_eq!(lines(&image[..BLOCK]), GOLDEN_FIRST);
    assert_eq!(lines(&image[BLOCK..2 * BLOCK]), GOLDEN_COPY);
    assert_eq!(lines(&image[2 * BLOCK..3 * BLOCK]), GOLDEN_SECOND);
}

#[test]
fn a_snapshot_mark() {
    let mut log = Log::new(config());
    let (state_hash, file_bytes) = (0x3132_3334_3536_3738, 0x4142_4344_4546_4748);
    let mark = SnapshotMark { term: 6, index: 0x0102, file_bytes, state_hash, replaces_log: true };
    log.wal.append_snapshot_mark(5, mark, &mut log.disk).unwrap();
    log.flush();
    let image = &log.disk.files()[&FileNumber(0)];
    assert_eq!(lines(&image[64..BLOCK]), GOLDEN_MARK);
    log.flushed_entries(5, 0x0103, 0x0140, 10);
    let image = &log.disk.files()[&FileNumber(1)];
    assert_eq!(lines(&image[64..64 + 56]), GOLDEN_CARRIED);
}

#[test]
fn a_configuration_record() {
    let mut bytes = Vec::new();
    record::encode_membership(&mut bytes, 0x0102_0304, 0x1112_1314_1516_1718, 0x2122_2324_2526_2728, b"members");
    assert_eq!(lines(&bytes), [GOLDEN_MEMBERSHIP, "6d656d62657273"]);
    let (view, consumed) = record::parse(&bytes).unwrap().unwrap();
    assert_eq!((view.flags, view.count, consumed), (record::FLAG_MEMBERSHIP, 0, 40));
    let mut log = Log::new(config());
    log.wal.append_membership(5, 6, 1, b"members", &mut log.disk).unwrap();
    log.flush();
    let mut written = Vec::new();
    record::encode_membership(&mut written, 5, 6, 1, b"members");
    assert_eq!(log.disk.files()[&FileNumber(0)][64..104], written);
}

#[test]
fn a_beginning() {
    let mut log = Log::new(config());
    log.wal.append_beginning(5, Beginning { held: true, term: 6, index: 0x0102 }, &mut log.disk).unwrap();
    log.flush();
    let image = &log.disk.files()[&FileNumber(0)];
    assert_eq!(lines(&image[64..BLOCK]), GOLDEN_BEGINNING);
    log.flushed_entries(5, 1, 0x40, 10);
    let image = &log.disk.files()[&FileNumber(1)];
    assert_eq!(lines(&image[64..64 + 40]), GOLDEN_BEGINNING_CARRIED);
    log.wal.append_beginning(5, Beginning { held: false, term: 7, index: 0x40 }, &mut log.disk).unwrap();
    assert_eq!(log.wal.beginning(5), Some(Beginning { held: false, term: 7, index: 0x40 }));
}

#[test]
fn a_seal() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 32, 10);
    let image = &log.disk.files()[&FileNumber(0)];
    assert_eq!(lines(&image[31 * BLOCK..]), GOLDEN_SEAL);
}

#[test]
fn wal_meta() {
    let bytes = Meta::new(&config(), 3).encode();
    assert_eq!(bytes.len(), 8192);
    assert_eq!(lines(&bytes[..4096]), GOLDEN_META);
    assert_eq!(bytes[..4096], bytes[4096..]);
}

const GOLDEN_RECORD: &str = "3ee23a3425000000010032310403020118171615141312112827262524232221";
const GOLDEN_FIRST: &[&str] = &[
    "5257414c01000100010000000000000001000000000000000000000000000000",
    "00000000f0010000db7cc3a504000000f73e6bcff73e6bcf00000000331df96c",
    "a554ac4830000000020000000500000002000000000000000000000000000000",
    "09000000000000000100000000000000dcc4bd042b0000000100020005000000",
    "0200000000000000010000000000000068656c6c6f20776f726c640000000000",
    "347c81716001000004",
];
const GOLDEN_COPY: &[&str] =
    &["db55526830000000020100000500000002000000000000000000000000000000", "090000000000000001"];
const GOLDEN_SECOND: &[&str] = &[
    "5257414c01000000010000000000000002000000000000000100000000000000",
    "0200000020000000023e228e01000000331df96cf73e6bcf000000006f3f5e28",
    "e9fb0daf200000000100000006000000030000000000000001",
];
const GOLDEN_MARK: &[&str] =
    &["d5b2a49f38000000050000000500000006000000000000000201000000000000", "4847464544434241383736353433323101"];
const GOLDEN_CARRIED: &[&str] =
    &["6dbcb40138000000050200000500000006000000000000000201000000000000", "4847464544434241383736353433323101"];
const GOLDEN_MEMBERSHIP: &str = "f774028327000000010400000403020118171615141312112827262524232221";
const GOLDEN_BEGINNING: &[&str] = &["c59dcef428000000060000000500000006000000000000000201000000000000", "01"];
const GOLDEN_BEGINNING_CARRIED: &[&str] = &["df5c800528000000060200000500000006000000000000000201000000000000", "01"];
const GOLDEN_SEAL: &[&str] = &[
    "5257414c01000200010000000000000020000000000000001f00000000000000",
    "1f00000030000000ad961b8c01000000cc73f1c4f73e6bcf0000000079a7e3a2",
    "1a1d7e4030000000030000000000000000000000000000000000000000000000",
    "010000000000000002",
];
const GOLDEN_META: &[&str] = &[
    "5257414c4d455441010000000002000000400000000000000300000000000000",
    "7369787465656e206279746573206964070000000000000003000000dc079f83",
];
