//! A real log with any bytes changed, also with checksums made right again: refused, or a log that can be gone on from.
//!
//! Off the data path.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringraft_wal::mem::MemDisk;
use ringraft_wal::{
    Beginning, Config, FileNumber, Identity, Recovered, RecoveredGroup, SnapshotMark, SnapshotName, ValidConfig, Wal,
};

const BLOCK: usize = 512;
const EDITS_MAX: usize = 12;

type Files = BTreeMap<FileNumber, Vec<u8>>;
type Snapshots = BTreeMap<SnapshotName, Vec<u8>>;

fn config() -> ValidConfig {
    let config = Config {
        block_bytes: BLOCK,
        segment_bytes: 24 * BLOCK as u64,
        segments_max: 16,
        segments_ready: 1,
        batch_bytes_max: 4 * BLOCK,
        record_bytes_max: 8 * BLOCK,
        flushes_in_flight_max: 2,
        backlog_bytes_max: 64 * BLOCK,
        cache_bytes_max: 0,
    };
    config.validate(Identity { cluster: [3; 16], node: 1, shard: 0 }).expect("valid")
}

fn flush(wal: &mut Wal<MemDisk>, disk: &mut MemDisk) {
    let mut durables = Vec::new();
    while wal.durable_sequence() < wal.accepted_sequence() {
        wal.submit(disk).expect("not poisoned");
        disk.run(wal, &mut durables).expect("not poisoned");
    }
}

fn append(wal: &mut Wal<MemDisk>, disk: &mut MemDisk, group: u32, term: u64, index: u64, bytes: usize) -> bool {
    if wal.begin_entry(group, term, index, bytes, disk).is_err() {
        return false;
    }
    wal.put(&vec![index as u8; bytes]);
    wal.finish_entry(1).is_ok()
}

fn mark(wal: &mut Wal<MemDisk>, disk: &mut MemDisk, group: u32, index: u64, replaces_log: bool) {
    let mark = SnapshotMark { term: 1, index, file_bytes: BLOCK as u64, state_hash: index, replaces_log };
    wal.append_snapshot_mark(group, mark, disk).expect("room");
    disk.snapshots_mut().insert(SnapshotName { group, index }, vec![1; BLOCK]);
}

/// Every ten entries a snapshot, and nothing below it in the log.
fn snapshot(wal: &mut Wal<MemDisk>, disk: &mut MemDisk, group: u32, index: u64) {
    if index > 0 && index.is_multiple_of(10) {
        mark(wal, disk, group, index, false);
        wal.reclaim(group, index + 1).expect("covered");
    }
}

/// Four segments, three groups, votes, replaced and reclaimed entries, snapshots, files that were used before.
fn written() -> &'static (Files, Snapshots) {
    static WRITTEN: OnceLock<(Files, Snapshots)> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let config = config();
        let mut disk = MemDisk::new(&config, 3);
        let recovered = disk.recover(&config).expect("an empty log");
        let mut wal = Wal::new(config, recovered, &mut disk);
        for index in 1..=110_u64 {
            let term = 1 + index / 20;
            assert!(append(&mut wal, &mut disk, 1, term, index, 40 + index as usize * 17 % 700));
            if index % 3 == 0 {
                assert!(append(&mut wal, &mut disk, 2, term, index / 3, 30));
            }
            if index % 20 == 0 {
                wal.append_hard_state(1, term + 1, Some(2), &mut disk).expect("room");
                wal.append_hard_state(2, term + 1, None, &mut disk).expect("room");
            }
            flush(&mut wal, &mut disk);
            snapshot(&mut wal, &mut disk, 1, index.saturating_sub(60));
            snapshot(&mut wal, &mut disk, 2, (index / 3).saturating_sub(15));
            if index == 90 {
                mark(&mut wal, &mut disk, 3, 7, true);
                assert!(append(&mut wal, &mut disk, 3, 2, 8, 60));
                wal.append_beginning(4, Beginning { held: true, term: 2, index: 9 }, &mut disk).expect("room");
                wal.append_membership(4, 3, 1, b"members", &mut disk).expect("room");
                wal.append_beginning(5, Beginning { held: false, term: 2, index: 9 }, &mut disk).expect("room");
            }
        }
        (disk.files().clone(), disk.snapshots().clone())
    })
}

fn edit(files: &mut Files, input: &mut Unstructured<'_>) -> Result<()> {
    let count = files.len();
    let number = FileNumber(input.choose_index(count)? as u32);
    let other = FileNumber(input.choose_index(count)? as u32);
    let (block, other_block) = (input.int_in_range(0..=23_usize)?, input.int_in_range(0..=23_usize)?);
    let source = files[&other].get(other_block * BLOCK..(other_block + 1) * BLOCK).map(<[u8]>::to_vec);
    let Some(bytes) = files.get_mut(&number).filter(|bytes| bytes.len() >= 24 * BLOCK) else { return Ok(()) };
    let target = &mut bytes[block * BLOCK..(block + 1) * BLOCK];
    match input.int_in_range(0..=6)? {
        0 => target.fill(0),
        1 => target[input.choose_index(BLOCK)?] ^= 1 << input.int_in_range(0..=7)?,
        2 => {
            let at = input.choose_index(BLOCK)?;
            let new = input.bytes(input.len().min(8).min(BLOCK - at))?;
            target[at..at + new.len()].copy_from_slice(new);
        }
        3 => target.copy_from_slice(&source.unwrap_or_else(|| vec![0; BLOCK])),
        4 => {
            // A header that is intact and says something else.
            let at = input.choose_index(60)?;
            target[at] = input.arbitrary()?;
            let crc = crc32c::crc32c(&target[..60]);
            target[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        5 => {
            // A first record that is intact and says something else.
            let at = 64 + 4 + input.choose_index(40)?;
            target[at] = input.arbitrary()?;
            let length = u32::from_le_bytes([target[68], target[69], target[70], target[71]]) as usize;
            if let Some(covered) = target.get(68..64 + length) {
                let crc = crc32c::crc32c(covered);
                target[64..68].copy_from_slice(&crc.to_le_bytes());
            }
        }
        _ if input.ratio(1, 4)? => bytes.truncate(input.choose_index(24 * BLOCK)?),
        _ => {}
    }
    Ok(())
}

/// All live entries can be read, and are contiguous.
fn check(recovered: &Recovered, files: &Files) {
    for found in recovered.groups.values() {
        let indexes = found.entries.iter().map(|entry| entry.index);
        assert!(indexes.clone().zip(indexes.skip(1)).all(|(one, next)| next == one + 1));
        let brings = |index: u64| found.entries.iter().any(|entry| entry.index == index);
        assert!(found.memberships.iter().all(|(index, _)| brings(*index)));
    }
    for file in recovered.replay_order() {
        recovered.replay_segment(file, &files[&file], &mut |_| {}).expect("what recovery read is still there");
    }
}

fuzz_target!(|data: &[u8]| {
    let config = config();
    let mut files = written().0.clone();
    let mut input = Unstructured::new(data);
    for _ in 0..EDITS_MAX {
        if input.is_empty() || edit(&mut files, &mut input).is_err() {
            break;
        }
    }
    let mut disk = MemDisk::new(&config, 0);
    disk.files_mut().clone_from(&files);
    disk.snapshots_mut().clone_from(&written().1);
    if input.ratio(1, 8).unwrap_or(false) {
        disk.snapshots_mut().pop_last();
    }
    let recovered = match disk.recover(&config) {
        Ok(recovered) => recovered,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    check(&recovered, &files);
    let next = recovered.groups.get(&1).and_then(|found| found.entries.back().copied());
    let first = recovered.groups.get(&1).map_or(1, RecoveredGroup::first_index);
    let (term, index) = next.map_or((1, first), |last| (last.term, last.index.saturating_add(1)));
    let mut wal = Wal::new(config.clone(), recovered, &mut disk);
    if index < u64::MAX && append(&mut wal, &mut disk, 1, term, index, 100) {
        flush(&mut wal, &mut disk);
        let again = disk.recover(&config).expect("what was just written can be recovered");
        check(&again, disk.files());
        assert_eq!(again.groups[&1].entries.back().map(|last| last.index), Some(index));
    }
});
