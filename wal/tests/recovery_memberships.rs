//! What recovery makes of entries that bring configurations, and of beginnings (row 37 of the decision table).
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{Log, Model, block, config, membership, recover_twice, ten};
use ringraft_wal::record::{self, RecordError};
use ringraft_wal::{Beginning, SnapshotName, WalError};

/// Indexes of the configurations a crash now would leave.
fn indexes(log: &Log) -> Vec<u64> {
    let recovered = recover_twice(&log.config, &log.crashed());
    recovered.groups.get(&1).map_or(Vec::new(), |found| found.memberships.iter().map(|(index, _)| *index).collect())
}

fn given_up(index: u64) -> Beginning {
    Beginning { held: false, term: 1, index }
}

fn begun(index: u64) -> Beginning {
    Beginning { held: true, term: 1, index }
}

#[test]
fn live_configurations_are_handed_out_with_their_payload() {
    let mut log = Log::new(config());
    log.flushed_entry(1, 1, 1, 10);
    log.membership(1, 1, 2);
    log.membership(1, 1, 3);
    log.membership(2, 9, 1);
    log.flushed_entry(1, 1, 4, 10);
    let recovered = recover_twice(&log.config, &log.crashed());
    let found = &recovered.groups[&1];
    assert_eq!(found.memberships, [(2, membership(1).into()), (3, membership(1).into())]);
    assert_eq!(recovered.groups[&2].memberships, [(1, membership(9).into())]);
    assert_eq!(found.entries.len(), 4);
}

#[test]
fn a_configuration_goes_with_its_entry() {
    let mut log = Log::new(config());
    log.flushed_entry(1, 1, 1, 10);
    log.membership(1, 1, 2);
    log.membership(1, 1, 3);
    log.flush();
    assert_eq!(indexes(&log), [2, 3]);
    log.entry(1, 2, 3, 10); // a leader of a later term replaces the second one
    assert_eq!(indexes(&log), [2, 3], "a crash before the flush: the log is as it was");
    log.flush();
    assert_eq!(indexes(&log), [2]);
    log.membership(1, 3, 2); // and then the first, with another configuration
    log.flush();
    let recovered = recover_twice(&log.config, &log.crashed());
    assert_eq!(recovered.groups[&1].memberships, [(2, membership(3).into())]);
    assert_eq!(recovered.groups[&1].entries.len(), 2);
}

#[test]
fn a_configuration_goes_with_the_log_that_a_snapshot_replaces() {
    let mut log = Log::new(config());
    log.flushed_entry(1, 1, 1, 10);
    log.membership(1, 1, 2);
    log.mark(1, 30, true);
    log.flush();
    assert_eq!(indexes(&log), [0; 0]);
    log.membership(1, 1, 31);
    log.flush();
    assert_eq!(indexes(&log), [31]);
}

#[test]
fn records_of_a_leader_keep_their_flag_and_other_flags_are_refused() {
    let mut log = Log::new(config());
    let mut bytes = Vec::new();
    record::encode_membership(&mut bytes, 1, 1, 1, &membership(1));
    log.wal.append_record(&bytes, &mut log.disk).unwrap();
    log.flush();
    assert_eq!(indexes(&log), [1]);
    for (at, value) in [(9, 1), (9, 2), (9, 8), (9, 12), (10, 1)] {
        let mut bytes = Vec::new();
        record::encode_membership(&mut bytes, 1, 1, 2, &membership(1));
        bytes[at] = value;
        let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c(&bytes[4..length]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let refused = log.wal.append_record(&bytes, &mut log.disk);
        assert!(matches!(refused, Err(WalError::Record(RecordError::Flags(_)))), "{at} {value}: {refused:?}");
    }
}

#[test]
fn row_37_a_replica_that_was_given_up_does_not_come_back() {
    let (mut log, mut model) = ten();
    log.membership(1, 1, 11);
    log.hard_state(1, 7, Some(2));
    log.mark(1, 8, false);
    log.flushed_entry(2, 1, 1, 100);
    model.membership(1, 1, 11);
    model.hard_state(1, 7, Some(2));
    model.mark(1, 8, false);
    model.entry(2, 1, 1, 100);
    log.try_begin(1, given_up(11)).unwrap();
    assert_eq!((log.wal.entry_range(1), log.wal.snapshot_marks(1).len()), (None, 0));
    let busy = log.wal.remove_snapshot(SnapshotName { group: 1, index: 8 }, false, &mut log.disk);
    assert!(busy.is_err(), "a crash now brings the mark back: {busy:?}");
    assert_eq!(Model::of(&recover_twice(&log.config, &log.crashed())), model, "not durable yet: all of it is there");
    log.flush();
    model.begin(1, given_up(11));
    let recovered = recover_twice(&log.config, &log.crashed());
    assert_eq!(Model::of(&recovered), model);
    assert_eq!(recovered.groups[&1].hard_state.unwrap().current_term, 7, "terms and votes stay");
    log.wal.remove_snapshot(SnapshotName { group: 1, index: 8 }, false, &mut log.disk).unwrap();
    log.flush();
    // Its word outlives the segment it stands in.
    for index in 2..=80 {
        log.flushed_entry(2, 1, index, 100);
        model.entry(2, 1, index, 100);
    }
    log.reclaim(2, 60);
    log.flushed_entries(2, 81, 160, 100);
    (81..=160).for_each(|index| model.entry(2, 1, index, 100));
    assert!(log.wal.stats().segments_recycled > 0);
    let recovered = recover_twice(&log.config, &log.crashed());
    assert_eq!(recovered.groups[&1].beginning, Some(given_up(11)));
    assert_eq!((recovered.groups[&1].entries.len(), recovered.groups[&1].marks.len()), (0, 0));
    let (log, _) = Log::open(config(), log.crashed()).unwrap();
    assert_eq!(log.wal.beginning(1), Some(given_up(11)));
}

#[test]
fn row_37_a_replica_that_begins_anew_starts_at_entry_1_or_at_a_snapshot() {
    for at in [1_u64, 40] {
        let (mut log, mut model) = ten();
        log.try_begin(1, given_up(10)).unwrap();
        log.try_begin(1, begun(10)).unwrap();
        model.begin(1, begun(10));
        assert!(matches!(log.try_entry(1, 2, 2, 10), Err(WalError::Gap { next: 1, .. })));
        if at > 1 {
            log.mark(1, at - 1, true);
            model.mark(1, at - 1, true);
        }
        log.flush();
        for index in at..at + 90 {
            log.flushed_entry(1, 2, index, 100);
            model.entry(1, 2, index, 100);
        }
        assert!(log.wal.stats().segments >= 3, "what is carried forward voids nothing");
        assert_eq!(Model::of(&recover_twice(&log.config, &log.crashed())), model);
        let (mut log, _) = Log::open(config(), log.crashed()).unwrap();
        log.flushed_entry(1, 2, at + 90, 100);
    }
}

#[test]
fn row_37_space_of_a_log_that_was_given_up_comes_back() {
    let (mut log, _) = common::three_segments();
    log.try_begin(1, given_up(80)).unwrap();
    log.flush();
    assert_eq!(log.wal.stats().segments, 1);
    let durable = log.durables.last().unwrap();
    assert_eq!((durable.group, durable.entry, durable.snapshot), (1, None, None));
}

#[test]
fn a_damaged_beginning_is_damage() {
    let mut log = Log::new(config());
    log.try_begin(1, begun(0)).unwrap();
    log.flush();
    log.flushed_entry(1, 1, 1, 10);
    let mut disk = log.crashed();
    block(&mut disk, 0, 0)[64 + 32] ^= 2;
    assert!(disk.recover(&log.config).is_err());
}
