//! The writer: cursors, group commit, cache, reader, reclaim and recycling.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, Model, check_bytes, config, payload, read, small};
use ringraft_wal::{Config, DiskError, DiskOperation, EntryBytes, ReadError, WalError, record};

#[test]
fn a_record_is_the_same_bytes_in_cache_on_disk_and_when_taken_over() {
    let mut leader = Log::new(config());
    leader.entry(5, 2, 1, 100);
    let EntryBytes::Cached(record) = leader.wal.entry_bytes(5, 1) else {
        panic!("the open batch is part of the cache")
    };
    let record = record.to_vec();
    let (view, consumed) = record::parse(&record).unwrap().unwrap();
    assert_eq!((view.group, view.term, view.index, view.count), (5, 2, 1, 1));
    assert_eq!(view.payload, payload(5, 2, 1, 100));
    assert_eq!(consumed, record.len());

    let mut follower = Log::new(config());
    let accepted = follower.wal.append_record(&record, &mut follower.disk).unwrap();
    assert_eq!((accepted.sequence, accepted.length as usize), (1, record.len()));
    follower.flush();
    assert_eq!(read(&mut follower, 5, 1, 1), record);
}

#[test]
fn cursors_and_completions_in_order_whatever_order_the_disk_ends_in() {
    let mut log = Log::new(config());
    for index in 1..=3 {
        log.entry(1, 1, index, 10);
        log.submit();
    }
    // Two in flight, the third gathers.
    assert_eq!((log.wal.accepted_sequence(), log.wal.submitted_sequence(), log.wal.durable_sequence()), (3, 2, 0));
    assert!(!log.wal.can_submit());
    assert!(log.wal.has_open_batch());
    log.finish(1);
    assert_eq!(log.wal.durable_sequence(), 0);
    assert!(log.durables.is_empty());
    log.finish(0);
    assert_eq!(log.wal.durable_sequence(), 2);
    let reported: Vec<_> = log.durables.iter().map(|durable| (durable.sequence, durable.entry)).collect();
    assert_eq!(reported, [(1, Some((1, 1))), (2, Some((1, 2)))]);
    assert!(log.wal.can_submit());
}

#[test]
fn a_batch_reports_once_per_group_the_last_entry_and_the_hard_state() {
    let mut log = Log::new(config());
    log.hard_state(1, 4, Some(9));
    log.entry(1, 4, 1, 10);
    log.entry(2, 4, 1, 10);
    log.entry(1, 4, 2, 10);
    log.entry(1, 5, 2, 10); // replaces
    log.hard_state(1, 5, None);
    log.flush();
    assert_eq!(log.durables.len(), 2);
    assert_eq!(log.durables[0].entry, Some((5, 2)));
    assert_eq!(log.durables[0].hard_state, Some((5, None)));
    assert_eq!((log.durables[1].group, log.durables[1].entry), (2, Some((4, 1))));
    let recovered = log.crashed().recover(&log.config).unwrap();
    assert_eq!(recovered.groups[&1].entries.len(), 2);
    assert_eq!(recovered.groups[&1].hard_state.unwrap().current_term, 5);
}

#[test]
fn an_entry_replaces_the_suffix_here_and_in_recovery() {
    let mut log = Log::new(config());
    let mut model = Model::default();
    for index in 1..=6 {
        log.entry(1, 1, index, 20);
        model.entry(1, 1, index, 20);
    }
    log.flush();
    log.flushed_entry(1, 3, 4, 33);
    model.entry(1, 3, 4, 33);
    assert_eq!(log.wal.entry_range(1), Some((1, 4)));
    assert_eq!(log.wal.entry_bytes(1, 5), EntryBytes::Missing);
    assert_eq!(Model::of(&log.crashed().recover(&log.config).unwrap()), model);
    check_bytes(&mut log, &model);
}

#[test]
fn order_is_checked() {
    let mut log = Log::new(config());
    assert!(matches!(log.try_entry(1, 1, 0, 1), Err(WalError::Gap { .. })));
    assert_eq!(log.try_entry(1, 1, 5, 1), Err(WalError::Gap { group: 1, index: 5, next: 1 }));
    log.mark(1, 4, true); // a log begins behind a snapshot that came from the leader
    log.entry(1, 1, 5, 1);
    assert_eq!(log.try_entry(1, 1, 7, 1), Err(WalError::Gap { group: 1, index: 7, next: 6 }));
    assert_eq!(log.try_entry(1, 1, 4, 1), Err(WalError::Covered { group: 1, index: 4, covered: 4 }));
    let mut bytes = Vec::new();
    record::encode_entry(&mut bytes, 1, 1, 6, 1, b"damaged");
    bytes[36] ^= 1;
    assert!(matches!(log.wal.append_record(&bytes, &mut log.disk), Err(WalError::Record(_))));
    assert!(matches!(log.wal.append_record(&bytes[..16], &mut log.disk), Err(WalError::Record(_))));
    assert_eq!(log.wal.entry_range(1), Some((5, 5)));
}

#[test]
fn large_records_get_their_own_batch_and_too_large_ones_are_refused() {
    let mut log = Log::new(config());
    let mut model = Model::default();
    for (index, bytes) in [(1, 100), (2, 6 * BLOCK), (3, 100), (4, 8 * BLOCK - 32), (5, 1)] {
        log.entry(1, 1, index, bytes);
        model.entry(1, 1, index, bytes);
    }
    let too_large = WalError::RecordTooLarge { bytes: 8 * BLOCK + 1, bytes_max: 8 * BLOCK };
    assert_eq!(log.try_entry(1, 1, 6, 8 * BLOCK - 31), Err(too_large));
    log.flush();
    check_bytes(&mut log, &model);
    assert_eq!(Model::of(&log.crashed().recover(&log.config).unwrap()), model);
}

#[test]
fn the_backlog_is_bounded() {
    let mut log = Log::new(config());
    let mut refused = None;
    for index in 1..200 {
        let room = log.wal.has_room(record::padded_length(400));
        match log.try_entry(1, 1, index, 400) {
            Ok(_) => {}
            Err(error) => {
                assert!(!room, "has_room said yes");
                refused = Some(error);
                break;
            }
        }
    }
    assert!(refused.unwrap().is_retryable());
    log.flush();
    assert!(log.wal.has_room(400));
}

#[test]
fn the_cache_is_bounded() {
    let mut config = small();
    config.cache_bytes_max = 4 * BLOCK;
    let mut log = Log::new(config.validate(common::identity()).unwrap());
    let mut model = Model::default();
    for index in 1..=40 {
        log.flushed_entry(1, 1, index, 100);
        model.entry(1, 1, index, 100);
        assert!(log.wal.stats().cache_bytes <= 4 * BLOCK);
    }
    assert_eq!(log.wal.entry_bytes(1, 1), EntryBytes::OnDisk);
    assert!(matches!(log.wal.entry_bytes(1, 40), EntryBytes::Cached(_)));
    check_bytes(&mut log, &model);
}

/// Blocks and batches as large as real ones.
fn wide() -> Config {
    Config {
        block_bytes: 4_096,
        segment_bytes: 64 * 4_096,
        batch_bytes_max: 8 * 4_096,
        record_bytes_max: 8 * 4_096,
        backlog_bytes_max: 64 * 4_096,
        cache_bytes_max: 4 << 20,
        ..small()
    }
}

#[test]
fn batches_of_few_records_are_cached_without_their_padding() {
    let config = Config { cache_bytes_max: 16 * 4_096, ..wide() };
    let mut log = Log::new(config.validate(common::identity()).unwrap());
    let mut model = Model::default();
    for index in 1..=400 {
        let bytes = if index % 50 == 0 { 2_000 } else { 8 };
        log.flushed_entry(1, 1, index, bytes);
        model.entry(1, 1, index, bytes);
        assert!(log.wal.stats().cache_bytes <= 16 * 4_096);
    }
    let cached = (1..=400).filter(|index| matches!(log.wal.entry_bytes(1, *index), EntryBytes::Cached(_))).count();
    assert!(cached > 2 * 16, "{cached} entries in the room of 16 blocks");
    check_bytes(&mut log, &model);
}

#[test]
fn a_batch_in_the_cache_gives_its_buffer_to_the_next() {
    let mut log = Log::new(wide().validate(common::identity()).unwrap());
    let mut model = Model::default();
    for index in 1..=300 {
        let bytes = 5_000 + (index as usize * 7_919) % 20_000;
        log.flushed_entry(1, 1, index, bytes);
        model.entry(1, 1, index, bytes);
    }
    let stats = log.wal.stats();
    assert!(stats.cache_bytes > 2 << 20, "{stats:?}");
    assert!(log.disk.buffers_alive() <= 8, "fresh memory costs more than a copy: {}", log.disk.buffers_alive());
    check_bytes(&mut log, &model);
}

#[test]
fn reads_are_joined_bounded_and_only_of_flushed_entries() {
    let mut log = Log::new(config());
    for index in 1..=50 {
        log.entry(1, 1, index, 100);
        log.entry(2, 1, index, 50);
        if index % 5 == 0 {
            log.flush();
        }
    }
    let before = log.wal.stats().reads;
    let bytes = read(&mut log, 1, 1, 1 << 20);
    assert_eq!(bytes.len(), 50 * record::padded_length(100));
    assert!(log.wal.stats().reads - before <= 3, "neighbours are read together");
    assert_eq!(read(&mut log, 1, 7, 3 * record::padded_length(100)).len(), 3 * record::padded_length(100));
    assert_eq!(read(&mut log, 1, 7, 0).len(), record::padded_length(100), "at least one");
    log.entry(1, 1, 51, 100);
    let refused = log.wal.read_entries(1, 51, 1, &mut log.disk);
    assert_eq!(refused, Err(WalError::NotFlushed { group: 1, index: 51 }));
    let refused = log.wal.read_entries(1, 52, 1, &mut log.disk);
    assert_eq!(refused, Err(WalError::Missing { group: 1, index: 52 }));
}

#[test]
fn a_read_of_entries_that_are_replaced_meanwhile_returns_only_what_is_current() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 6, 100);
    let ticket = log.wal.read_entries(1, 1, 1 << 20, &mut log.disk).unwrap();
    log.entry(1, 2, 4, 10);
    let reads = common::reads_of(log.disk.run(&mut log.wal, &mut log.durables).unwrap());
    let done = reads.iter().find(|done| done.ticket == ticket).unwrap();
    assert_eq!(done.result.as_ref().unwrap().len(), 3 * record::padded_length(100));

    let ticket = log.wal.read_entries(1, 1, 1 << 20, &mut log.disk).unwrap();
    log.reclaim(1, 3);
    let reads = common::reads_of(log.disk.run(&mut log.wal, &mut log.durables).unwrap());
    let done = reads.iter().find(|done| done.ticket == ticket).unwrap();
    assert!(done.result.as_ref().unwrap().is_empty());
}

#[test]
fn a_read_of_a_segment_that_is_used_again_meanwhile_is_no_damage() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 10, 300);
    let ticket = log.wal.read_entries(1, 1, 1 << 20, &mut log.disk).unwrap();
    let mut overwritten = false;
    for index in 11..400 {
        log.entry(1, 1, index, 300);
        log.submit();
        log.reclaim(1, index);
        // The read stays pending; everything else ends.
        while log.disk.pending().len() > 1 {
            log.finish(1);
        }
        let stats = log.wal.stats();
        overwritten = log.disk.files()[&ringraft_wal::FileNumber(0)][8] != 1;
        if overwritten {
            assert!(stats.segments_recycled > 0);
            break;
        }
    }
    assert!(overwritten);
    let reads = common::reads_of(log.disk.run(&mut log.wal, &mut log.durables).unwrap());
    assert_eq!(reads[0].ticket, ticket);
    assert_eq!(reads[0].result, Ok(Vec::new()));
}

#[test]
fn a_read_of_damaged_bytes_names_the_place() {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 3, 100);
    common::block(&mut log.disk, 0, 1)[150] ^= 1;
    log.wal.read_entries(1, 1, 1 << 20, &mut log.disk).unwrap();
    let reads = common::reads_of(log.disk.run(&mut log.wal, &mut log.durables).unwrap());
    let Err(ReadError::Damaged { group: 1, index: 2, offset, .. }) = &reads[0].result else {
        panic!("{:?}", reads[0].result)
    };
    assert_eq!(*offset, BLOCK as u64 + 64);
    assert!(!log.wal.is_poisoned(), "a failed read does not poison");
}

#[test]
fn segments_are_recycled_in_order_and_hard_states_survive() {
    let mut log = Log::new(config());
    let mut model = Model::default();
    log.hard_state(1, 9, Some(4));
    model.hard_state(1, 9, Some(4));
    log.hard_state(2, 3, None);
    model.hard_state(2, 3, None);
    for index in 1..=400 {
        log.flushed_entry(1, 9, index, 300);
        if index % 10 == 0 {
            log.reclaim(1, index - 5);
        }
    }
    let stats = log.wal.stats();
    assert!(stats.files <= 6, "files are used again: {stats:?}");
    assert!(stats.segments_recycled >= 8, "{stats:?}");
    for index in 395..=400 {
        model.entry(1, 9, index, 300);
    }
    let first = [(1, 395)].into_iter().collect();
    let disk = log.crashed();
    assert_eq!(Model::of(&disk.recover(&log.config).unwrap()).wanted_from(&first).without_marks(), model);
    check_bytes(&mut log, &model);
}

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_resumes_by_itself() {
    let mut log = Log::new(config());
    log.disk.files_max = Some(3);
    log.hard_state(1, 1, None);
    let last = fill(&mut log);
    assert!(!log.wal.has_room(record::padded_length(300)));
    assert!(log.wal.stats().disk_full);
    // Terms and votes still go, reads too.
    log.hard_state(1, 2, Some(1));
    log.flush();
    assert_eq!(log.wal.durable_sequence(), log.wal.accepted_sequence());
    assert_eq!(read(&mut log, 1, 1, 0).len(), record::padded_length(300));
    // It is tried again now and then, in vain; then there is space.
    assert_eq!(attempts(&mut log, 80), 10);
    assert!(!log.wal.has_room(300));
    log.disk.files_max = None;
    assert_eq!(attempts(&mut log, 8), 1);
    assert!(log.wal.has_room(300));
    assert!(!log.wal.stats().disk_full);
    log.flushed_entry(1, 2, last + 1, 300);
    let recovered = log.crashed().recover(&log.config).unwrap();
    assert_eq!(recovered.groups[&1].entries.len() as u64, last + 1);
    assert_eq!(recovered.groups[&1].hard_state.unwrap().current_term, 2);
}

#[test]
fn a_full_disk_resumes_when_space_is_reclaimed_and_the_freed_segment_waits_for_the_seal() {
    let mut log = Log::new(config());
    log.disk.files_max = Some(3);
    let last = fill(&mut log);
    // Use up the blocks that are kept for hard states, too.
    let mut term = 1;
    while log.wal.append_hard_state(1, term, None, &mut log.disk).is_ok() {
        log.flush();
        term += 1;
    }
    assert!(term > 1);
    // Even then a snapshot can be marked, which is the only way to get space back; use up its blocks, too.
    let mut marks = 0;
    while log.try_mark(1, last - 3, false).is_ok() {
        log.flush();
        marks += 1;
    }
    assert!(marks > 0);
    assert!(log.reclaim(1, last - 2) > 0);
    assert!(log.wal.has_room(record::padded_length(300)));
    log.entry(1, 1, last + 1, 300);
    log.submit();
    let offsets = |log: &Log| -> Vec<u64> {
        let writes = log.disk.pending().iter().filter_map(|operation| match operation {
            DiskOperation::Write { offset, .. } => Some(*offset),
            _ => None,
        });
        writes.collect()
    };
    // The freed segment is not written before the seal that declares it free is durable.
    assert_eq!(offsets(&log), [31 * BLOCK as u64]);
    log.finish(0);
    log.submit();
    assert_eq!(offsets(&log), [0]);
    log.flush();
    let recovered = log.crashed().recover(&log.config).unwrap();
    assert_eq!(recovered.groups[&1].entries.back().unwrap().index, last + 1);
    assert_eq!(recovered.groups[&1].hard_state.unwrap().current_term, term - 1);
}

/// How often the WAL asks for another file in so many ticks. While one is asked for, the disk is still full.
fn attempts(log: &mut Log, ticks: u32) -> usize {
    let mut attempts = 0;
    for _ in 0..ticks {
        log.wal.tick(&mut log.disk);
        let asked = |operation: &DiskOperation<_>| matches!(operation, DiskOperation::CreateSegment { .. });
        attempts += log.disk.pending().iter().filter(|operation| asked(operation)).count();
        assert!(log.wal.stats().disk_full);
        log.disk.run(&mut log.wal, &mut log.durables).unwrap();
    }
    attempts
}

/// Appends flushed entries to group 1 until the WAL is full; returns the last index.
fn fill(log: &mut Log) -> u64 {
    for index in 1..1000 {
        match log.try_entry(1, 1, index, 300) {
            Ok(_) => log.flush(),
            Err(error) => {
                assert_eq!(error, WalError::Full);
                return index - 1;
            }
        }
    }
    panic!("the disk never became full")
}

#[test]
fn a_failed_write_poisons() {
    let io =
        DiskError::Io { operation: "write", file: ringraft_wal::FileNumber(0).into(), errno: 5, message: "EIO".into() };
    let short =
        DiskError::Short { operation: "write", file: ringraft_wal::FileNumber(0).into(), done: 512, expected: 1024 };
    for error in [io, short, DiskError::NoSpace] {
        let mut log = Log::new(config());
        log.flushed_entry(1, 1, 1, 10);
        log.entry(1, 1, 2, 10);
        log.submit();
        log.entry(1, 1, 3, 10);
        log.submit();
        // The second of two overlapping batches ends well, the first does not: neither is durable.
        log.finish(1);
        let completion = log.disk.fail(0, error.clone());
        let mut durables = Vec::new();
        let poisoned = Err(WalError::Poisoned { cause: error.clone() });
        assert_eq!(log.wal.complete(completion, &mut durables, &mut log.disk).map(|_| ()), poisoned);
        assert!(durables.is_empty());
        assert_eq!(log.wal.durable_sequence(), 1);
        assert!(log.wal.is_poisoned() && !log.wal.can_submit() && !log.wal.has_room(1));
        assert_eq!(log.try_entry(1, 1, 4, 10).map(|_| ()), poisoned);
        assert_eq!(log.wal.append_hard_state(1, 1, None, &mut log.disk).map(|_| ()), poisoned);
        assert_eq!(log.wal.submit(&mut log.disk).map(|_| ()), poisoned);
        assert!(WalError::Poisoned { cause: error }.is_fatal());
        assert!(log.disk.pending().is_empty(), "nothing is retried");
    }
}

#[test]
fn an_error_other_than_no_space_when_making_a_segment_poisons() {
    let mut log = Log::new(config());
    let mut index = 0;
    while !matches!(log.disk.pending().first(), Some(DiskOperation::CreateSegment { .. })) {
        index += 1;
        log.entry(1, 1, index, 300);
        log.submit();
        while matches!(log.disk.pending().first(), Some(DiskOperation::Write { .. })) {
            log.finish(0);
        }
    }
    let error =
        DiskError::Io { operation: "flush", file: ringraft_wal::FileNumber(3).into(), errno: 5, message: "EIO".into() };
    let completion = log.disk.fail(0, error);
    assert!(log.wal.complete(completion, &mut Vec::new(), &mut log.disk).is_err());
}

#[test]
fn many_groups_in_one_small_segment() {
    let mut log = Log::new(config());
    let mut model = Model::default();
    for round in 1..=6_u64 {
        for group in 0..20 {
            log.hard_state(group, round, Some(u64::from(group)));
            log.entry(group, round, round, 30);
            model.hard_state(group, round, Some(u64::from(group)));
            model.entry(group, round, round, 30);
        }
        log.flush();
    }
    assert_eq!(Model::of(&log.crashed().recover(&log.config).unwrap()), model);
    check_bytes(&mut log, &model);
}
