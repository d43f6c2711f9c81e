//! One test per row of the decision table in `FORMAT.md`; the name begins with the row. Rows of whole files are in
//! `recovery_files.rs`.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, Model, block, config, patch, recover_twice, refused, ten, three_segments};
use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::recovery::{Damage, Note, StopReason};
use ringraft_wal::{FileNumber, RecoveryError, ValidConfig};

/// Goes on after a recovery: appends, crashes, recovers, and expects everything.
fn go_on(disk: MemDisk, mut model: Model) {
    let (mut log, _) = Log::open(config(), disk).unwrap();
    let next = log.wal.entry_range(1).map_or(1, |(_, last)| last + 1);
    for index in next..next + 50 {
        log.flushed_entry(1, 2, index, 120);
        model.entry(1, 2, index, 120);
    }
    assert_eq!(Model::of(&recover_twice(&log.config, &log.crashed())), model);
}

fn damage(config: &ValidConfig, disk: &MemDisk) -> Box<Damage> {
    match disk.recover(config) {
        Err(RecoveryError::Corruption(damage)) => {
            let text = RecoveryError::Corruption(damage.clone()).to_string();
            assert!(text.contains("replace this replica") && text.contains("segment at byte"), "{text}");
            damage
        }
        other => panic!("corruption was expected, not {other:?}"),
    }
}

#[test]
fn row_01_nothing_was_ever_written() {
    let disk = MemDisk::new(&config(), 3);
    let recovered = recover_twice(&config(), &disk);
    assert_eq!(recovered.last_sequence(), 0);
    assert!(recovered.groups.is_empty() && recovered.notes.is_empty());
    go_on(disk, Model::default());
}

#[test]
fn row_02_the_log_ends_before_zeros() {
    let (log, model) = ten();
    let recovered = recover_twice(&log.config, &log.disk);
    assert_eq!(Model::of(&recovered), model);
    assert!(recovered.notes.is_empty());
    go_on(log.disk, model);
}

#[test]
fn row_03_the_log_ends_before_batches_of_an_earlier_use_of_the_file() {
    let mut log = Log::new(config());
    let mut recycled = 0;
    for index in 1..=200 {
        log.flushed_entry(1, 1, index, 100);
        if index % 10 == 0 {
            log.reclaim(1, index - 2);
            recycled = log.wal.stats().segments_recycled;
        }
    }
    assert!(recycled > 2);
    let recovered = recover_twice(&log.config, &log.disk);
    assert_eq!(recovered.groups[&1].entries.back().unwrap().index, 200);
    assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
    let (mut log, _) = Log::open(config(), log.disk).unwrap();
    log.flushed_entry(1, 2, 201, 100);
    assert_eq!(log.disk.recover(&log.config).unwrap().groups[&1].entries.back().unwrap().index, 201);
}

/// Submits one batch of four blocks behind `ten` and crashes; `keep` says which of the four survive.
fn torn(keep: [Survival; 4]) -> (MemDisk, Model) {
    let (mut log, model) = ten();
    log.entry(1, 1, 11, 3 * BLOCK + 100);
    log.submit();
    let mut kept = keep.into_iter();
    let disk = log.disk.crash(&mut |_, _| kept.next().unwrap());
    (disk, model)
}

#[test]
fn row_04_torn_tail_without_its_header_block() {
    use Survival::{Kept, Lost};
    let (disk, model) = torn([Lost, Kept, Kept, Kept]);
    assert_eq!(Model::of(&recover_twice(&config(), &disk)), model);
    go_on(disk, model);
}

#[test]
fn row_05_torn_tail_with_its_header_block() {
    use Survival::{Kept, Lost, Torn};
    for keep in [[Kept, Kept, Lost, Kept], [Kept, Lost, Lost, Lost], [Kept, Kept, Kept, Torn(10)]] {
        let (disk, model) = torn(keep);
        let recovered = recover_twice(&config(), &disk);
        assert_eq!(Model::of(&recovered), model);
        let [Note::TornTail { file: FileNumber(0), offset, sequence: 11, reason: StopReason::Body }] =
            recovered.notes[..]
        else {
            panic!("{:?}", recovered.notes)
        };
        assert_eq!(offset, 10 * BLOCK as u64);
        go_on(disk, model);
    }
}

#[test]
fn row_05_torn_header_block() {
    use Survival::{Kept, Torn};
    for bytes in [1, 8, 59, 63, 64, 100] {
        let (disk, model) = torn([Torn(bytes), Kept, Kept, Kept]);
        assert_eq!(Model::of(&recover_twice(&config(), &disk)), model);
        go_on(disk, model);
    }
}

#[test]
fn row_06_a_later_batch_that_does_not_call_the_torn_one_durable_goes_with_it() {
    let (mut log, model) = ten();
    log.entry(1, 1, 11, 100);
    log.submit();
    log.entry(1, 1, 12, 100);
    log.submit();
    let disk = log.disk.crash(&mut |_, block| if block == 10 { Survival::Lost } else { Survival::Kept });
    let recovered = recover_twice(&config(), &disk);
    assert_eq!(Model::of(&recovered), model);
    assert!(matches!(recovered.notes[..], [Note::TornTail { sequence: 11, .. }]));
    // Writing goes on in another segment, and the leftover batch 12 stays where it is for ever after.
    let (mut log, _) = Log::open(config(), disk).unwrap();
    log.flushed_entry(1, 2, 11, 50);
    let leftover = block(&mut log.disk, 0, 11);
    assert_eq!(&leftover[0..4], b"RWAL");
    go_on(log.disk, {
        let mut model = model;
        model.entry(1, 2, 11, 50);
        model
    });
}

/// Two overlapping batches over a segment's end, the first lost, the second kept.
fn leftover_segment() -> (MemDisk, Model) {
    let mut log = Log::new(config());
    let mut model = Model::default();
    let mut index = 0;
    loop {
        index += 1;
        log.entry(1, 1, index, 100);
        log.submit();
        // The seal of the first segment is in flight together with the first batch of the second.
        let (blocks, entry) = (log.disk.unsynced_blocks(), log.wal.accepted_sequence());
        if blocks.contains(&(FileNumber(0), 31)) {
            assert_eq!(blocks.len(), 2, "{blocks:?} {entry}");
            let disk = log.disk.crash(&mut |_, block| if block == 31 { Survival::Lost } else { Survival::Kept });
            return (disk, model);
        }
        log.flush();
        model.entry(1, 1, index, 100);
    }
}

#[test]
fn row_07_a_segment_behind_a_torn_tail_is_a_leftover() {
    let (disk, model) = leftover_segment();
    let recovered = recover_twice(&config(), &disk);
    assert_eq!(Model::of(&recovered), model);
    assert!(recovered.notes.iter().any(|note| matches!(note, Note::LeftoverSegment { segment_id: 2, .. })));
    go_on(disk, model);
}

#[test]
fn row_08_the_segment_that_replaces_a_torn_tail_wins_over_leftovers() {
    let (disk, mut model) = leftover_segment();
    let (mut log, _) = Log::open(config(), disk).unwrap();
    let next = log.wal.entry_range(1).unwrap().1 + 1;
    // The new segment's first batch is complete and durable; the leftover still stands in its file.
    log.entry(1, 7, next, 10);
    log.submit();
    log.finish(0);
    model.entry(1, 7, next, 10);
    let disk = log.crashed();
    let ids: Vec<_> = disk.files().values().map(|image| u64::from_le_bytes(image[8..16].try_into().unwrap())).collect();
    assert!(ids.contains(&3), "{ids:?}");
    let recovered = recover_twice(&config(), &disk);
    assert_eq!(Model::of(&recovered), model);
    go_on(disk, model);
}

#[test]
fn row_08_a_batch_that_was_replaced_stays_replaced_even_if_it_can_be_read_again() {
    let (mut log, mut model) = ten();
    log.entry(2, 1, 1, 600);
    log.submit();
    let whole = log.disk.crash(&mut |_, _| Survival::Kept);
    let torn = log.disk.crash(&mut |_, block| if block == 11 { Survival::Lost } else { Survival::Kept });
    let (mut log, _) = Log::open(config(), torn).unwrap();
    log.flushed_entry(1, 2, 11, 50);
    model.entry(1, 2, 11, 50);
    let good = whole.files()[&FileNumber(0)].clone();
    let mut disk = log.crashed();
    disk.files_mut().insert(FileNumber(0), good);
    assert_eq!(Model::of(&recover_twice(&config(), &disk)), model);
    go_on(disk, model);
}

#[test]
fn row_09_bit_flip_in_a_durable_header() {
    let (log, _) = ten();
    for byte in 0..64 {
        let mut disk = log.crashed();
        block(&mut disk, 0, 4)[byte] ^= 0x10;
        let damage = damage(&log.config, &disk);
        assert_eq!((damage.file, damage.offset, damage.sequence), (FileNumber(0), 4 * BLOCK as u64, 5));
        assert_eq!(damage.durable_sequence, 9);
        assert_eq!((damage.lost[0].group, damage.lost[0].first_index), (1, 5));
        assert_eq!(damage.lost[0].last_index, Some(5));
    }
}

#[test]
fn row_10_bit_flip_in_a_durable_body() {
    let (log, model) = ten();
    for byte in 64..BLOCK {
        let mut disk = log.crashed();
        block(&mut disk, 0, 4)[byte] ^= 0x01;
        if byte < 64 + 136 {
            let damage = damage(&log.config, &disk);
            assert_eq!((damage.offset, damage.reason), (4 * BLOCK as u64, StopReason::Body));
        } else {
            // The filler up to the block's end means nothing.
            assert_eq!(Model::of(&recover_twice(&log.config, &disk)), model);
        }
    }
}

#[test]
fn row_11_zeroed_durable_block() {
    let (log, _) = ten();
    for place in 0..8 {
        let mut disk = log.crashed();
        block(&mut disk, 0, place).fill(0);
        let damage = damage(&log.config, &disk);
        assert_eq!((damage.offset, damage.reason), (place * BLOCK as u64, StopReason::Zero));
    }
}

#[test]
fn row_12_a_durable_write_that_never_reached_a_recycled_file() {
    let mut log = Log::new(config());
    for index in 1..=150 {
        log.flushed_entry(1, 1, index, 100);
        log.reclaim(1, index.saturating_sub(3));
    }
    let newest = log.wal.stats();
    assert!(newest.segments_recycled > 0);
    let before = log.disk.files().clone();
    for index in 151..=156 {
        log.flushed_entry(1, 1, index, 100);
    }
    // One of the blocks written since is put back to what it was: a lost write.
    let mut found = 0;
    for (file, image) in &before {
        for place in 0..32 {
            let mut disk = log.crashed();
            let start = place as usize * BLOCK;
            let now = block(&mut disk, file.0, place);
            if now == &image[start..start + BLOCK] {
                continue;
            }
            now.copy_from_slice(&image[start..start + BLOCK]);
            match disk.recover(&log.config) {
                Err(RecoveryError::Corruption(damage)) => {
                    assert_eq!((damage.file, damage.offset), (*file, start as u64));
                    found += 1;
                }
                Ok(recovered) => {
                    // Only the very last batch, which nothing calls durable yet.
                    assert_eq!(recovered.groups[&1].entries.back().unwrap().index, 155);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(found >= 5);
}

#[test]
fn row_13_misdirected_write() {
    let (log, model) = ten();
    // A sound batch overwrites a durable one.
    for (from, to) in [(2, 5), (7, 3), (9, 0)] {
        let mut disk = log.crashed();
        let moved = block(&mut disk, 0, from).to_vec();
        block(&mut disk, 0, to).copy_from_slice(&moved);
        assert_eq!(damage(&log.config, &disk).offset, to * BLOCK as u64);
    }
    // Behind the end it changes nothing.
    let mut disk = log.crashed();
    let moved = block(&mut disk, 0, 3).to_vec();
    block(&mut disk, 0, 10).copy_from_slice(&moved);
    assert_eq!(Model::of(&recover_twice(&log.config, &disk)), model);
    go_on(disk, model);
}

#[test]
fn row_13_a_batch_of_another_history_at_the_right_place() {
    let (log, _) = ten();
    let mut disk = log.crashed();
    patch(&mut disk, 5, 48, b"else");
    assert_eq!(damage(&log.config, &disk).reason, StopReason::Chain { sequence: 6 });
}

#[test]
fn row_07_a_segment_of_another_history_does_not_continue_the_log() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 32, 100);
    let mut disk = log.crashed();
    // Its only batch has the right sequence, but follows another batch.
    let first = &mut disk.files_mut().get_mut(&FileNumber(1)).unwrap()[..64];
    first[48..52].copy_from_slice(b"else");
    let crc = crc32c::crc32c(&first[..60]);
    first[60..64].copy_from_slice(&crc.to_le_bytes());
    let recovered = recover_twice(&log.config, &disk);
    assert_eq!(recovered.groups[&1].entries.back().unwrap().index, 31);
    assert!(recovered.notes.iter().any(|note| matches!(note, Note::LeftoverSegment { .. })));
}

#[test]
fn row_14_the_oldest_needed_segment_is_gone() {
    let (log, _) = three_segments();
    let mut disk = log.crashed();
    disk.files_mut().get_mut(&FileNumber(0)).unwrap().fill(0);
    let damage = damage(&log.config, &disk);
    assert_eq!((damage.file, damage.offset, damage.sequence), (FileNumber(0), 0, 32));
    assert_eq!(damage.reason, StopReason::SegmentMissing { segment_id: 1 });
    let mut disk = log.crashed();
    block(&mut disk, 0, 0)[3] ^= 1;
    assert!(matches!(refused(&log.config, &disk), RecoveryError::Corruption(_)));
}

#[test]
fn row_15_a_needed_segment_in_the_middle_is_gone() {
    let (log, _) = three_segments();
    let mut disk = log.crashed();
    disk.files_mut().get_mut(&FileNumber(1)).unwrap().fill(0);
    let damage = damage(&log.config, &disk);
    assert_eq!((damage.file, damage.offset, damage.sequence), (FileNumber(1), 0, 33), "the seal names the file");
    assert_eq!(damage.reason, StopReason::Zero);
}

/// A batch with the hard states of two groups and two entries, called durable by a later batch.
fn with_hard_states(called_durable: bool) -> (Log, Model) {
    let (mut log, mut model) = ten();
    log.entry(1, 2, 11, 40);
    model.entry(1, 2, 11, 40);
    for (group, term) in [(1, 2), (2, 5)] {
        log.hard_state(group, term, Some(9));
        model.hard_state(group, term, Some(9));
    }
    log.entry(1, 2, 12, 40);
    model.entry(1, 2, 12, 40);
    log.flush();
    if called_durable {
        log.flushed_entry(1, 2, 13, 10);
        model.entry(1, 2, 13, 10);
    }
    (log, model)
}

/// In `with_hard_states`: the two hard states stand behind a batch header and a record of 72 bytes, their copies in the
/// next block.
const FIRST: (u64, usize) = (10, 64 + 72);
const SECOND: (u64, usize) = (10, 64 + 72 + 48);
const FIRST_COPY: (u64, usize) = (11, 0);
const SECOND_COPY: (u64, usize) = (11, 48);

#[test]
fn row_21_one_copy_of_a_hard_state_is_damaged() {
    for called_durable in [true, false] {
        let (log, model) = with_hard_states(called_durable);
        let sets: [&[(u64, usize)]; 6] =
            [&[FIRST], &[SECOND], &[FIRST_COPY], &[SECOND_COPY], &[FIRST, SECOND_COPY], &[FIRST_COPY, SECOND_COPY]];
        for set in sets {
            for byte in 0..48 {
                let mut disk = log.crashed();
                for (place, at) in set {
                    block(&mut disk, 0, *place)[at + byte] ^= 0x40;
                }
                let recovered = recover_twice(&log.config, &disk);
                assert_eq!(Model::of(&recovered), model, "{set:?} {byte}");
                assert!(recovered.notes.iter().any(|note| matches!(note, Note::HardStateCopyDamaged { .. })));
                assert!(disk.recover(&log.config).is_ok());
            }
        }
    }
}

#[test]
fn row_22_both_copies_of_a_durable_hard_state_are_damaged() {
    let (log, _) = with_hard_states(true);
    for (first, copy) in [(FIRST, FIRST_COPY), (SECOND, SECOND_COPY)] {
        let mut disk = log.crashed();
        block(&mut disk, 0, first.0)[first.1 + 16] ^= 1;
        block(&mut disk, 0, copy.0)[copy.1 + 32] ^= 1;
        assert_eq!(damage(&log.config, &disk).offset, 10 * BLOCK as u64);
    }
}

#[test]
fn row_22_an_entry_is_not_mistaken_for_a_hard_state() {
    let (log, _) = with_hard_states(true);
    let mut disk = log.crashed();
    block(&mut disk, 0, 10)[64 + 40] ^= 1;
    assert!(matches!(refused(&log.config, &disk), RecoveryError::Corruption(_)));
    // One hard state and one entry: still an entry too many.
    block(&mut disk, 0, 10)[FIRST.1 + 16] ^= 1;
    assert!(matches!(refused(&log.config, &disk), RecoveryError::Corruption(_)));
}

#[test]
fn row_23_both_copies_damaged_in_a_batch_nothing_calls_durable() {
    let (log, _) = with_hard_states(false);
    let (_, model) = ten();
    let mut disk = log.crashed();
    block(&mut disk, 0, 10)[FIRST.1 + 16] ^= 1;
    block(&mut disk, 0, 11)[FIRST_COPY.1 + 16] ^= 1;
    assert_eq!(Model::of(&recover_twice(&log.config, &disk)), model);
    go_on(disk, model);
}

#[test]
fn row_24_damage_in_a_segment_that_is_no_longer_needed() {
    let mut log = Log::new(config());
    for index in 1..=100 {
        log.flushed_entry(1, 1, index, 100);
    }
    log.reclaim(1, 70);
    log.flushed_entry(1, 1, 101, 100);
    let sound = Model::of(&log.crashed().recover(&log.config).unwrap());
    for damaged in 0..4 {
        let mut disk = log.crashed();
        block(&mut disk, 0, damaged * 7).fill(0xEE);
        assert_eq!(Model::of(&recover_twice(&log.config, &disk)), sound);
    }
}

#[test]
fn row_25_a_header_that_contradicts_itself_is_not_believed() {
    let (log, model) = ten();
    // It claims to be durable itself; the batch before it is the last that is believed.
    let mut disk = log.crashed();
    patch(&mut disk, 9, 24, &10_u64.to_le_bytes());
    let recovered = recover_twice(&log.config, &disk);
    assert_eq!(recovered.last_sequence(), 9);
    assert!(matches!(recovered.notes[..], [Note::TornTail { reason: StopReason::Contradiction, .. }]));
    // The same in the middle is corruption.
    let mut disk = log.crashed();
    patch(&mut disk, 5, 24, &10_u64.to_le_bytes());
    assert_eq!(damage(&log.config, &disk).reason, StopReason::Contradiction);
    drop(model);
}

#[test]
fn row_26_a_bad_batch_at_a_segments_end_that_the_next_segment_calls_durable() {
    let (log, _) = three_segments();
    for place in [28, 30, 31] {
        let mut disk = log.crashed();
        block(&mut disk, 0, place)[70] ^= 1;
        let damage = damage(&log.config, &disk);
        assert_eq!((damage.file, damage.offset), (FileNumber(0), place * BLOCK as u64));
    }
}

#[test]
fn row_27_damage_in_the_last_batch_cannot_be_told_from_a_torn_write() {
    let (log, _) = ten();
    let mut disk = log.crashed();
    block(&mut disk, 0, 9)[100] ^= 1;
    let recovered = recover_twice(&log.config, &disk);
    assert_eq!(recovered.last_sequence(), 9);
    assert!(matches!(recovered.notes[..], [Note::TornTail { sequence: 10, .. }]));
    go_on(disk, Model::of(&recovered));
}

#[test]
fn row_28_a_mark_at_the_end_tells_them_apart() {
    let (mut log, model) = ten();
    log.wal.append_mark(&mut log.disk).unwrap();
    log.flush();
    assert_eq!(Model::of(&log.crashed().recover(&log.config).unwrap()), model);
    let mut disk = log.crashed();
    block(&mut disk, 0, 9)[100] ^= 1;
    assert_eq!(damage(&log.config, &disk).sequence, 10);
    go_on(log.crashed(), model);
}

#[test]
fn row_28_an_idle_log_marks_itself_so_that_two_damaged_blocks_are_told_from_a_torn_write() {
    let (mut log, model) = ten();
    let idle = |log: &mut Log, ticks: usize| {
        for _ in 0..ticks {
            log.wal.tick(&mut log.disk);
            log.flush();
        }
    };
    idle(&mut log, 2);
    assert!(log.wal.wants_mark(), "a pause of two ticks is none");
    idle(&mut log, 10);
    assert!(!log.wal.wants_mark());
    assert_eq!(log.wal.durable_sequence(), 12, "two marks and no more");
    for other in [10, 11] {
        let mut disk = log.crashed();
        block(&mut disk, 0, 9)[100] ^= 1;
        block(&mut disk, 0, other)[100] ^= 1;
        assert_eq!(damage(&log.config, &disk).sequence, 10);
    }
    let mut disk = log.crashed();
    block(&mut disk, 0, 10)[20] ^= 1;
    block(&mut disk, 0, 11)[20] ^= 1;
    assert_eq!(Model::of(&disk.recover(&log.config).unwrap()), model, "only marks are lost");
    go_on(disk, model);
}

#[test]
fn bytes_of_any_kind_never_panic() {
    let (log, _) = with_hard_states(true);
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    for _ in 0..3000 {
        let mut disk = log.crashed();
        for _ in 0..1 + random() % 6 {
            let place = random() % 14;
            let at = random() % BLOCK;
            let bytes = block(&mut disk, 0, place as u64);
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => bytes[at..].fill(0xFF),
                _ => {
                    // A header that passes its checksum although a field is nonsense.
                    bytes[at % 60] = random() as u8;
                    let crc = crc32c::crc32c(&bytes[..60]);
                    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
                }
            }
        }
        let _ = disk.recover(&log.config);
    }
}
