//! Snapshot files and marks in the writer: order, bounds, failures, and reclaiming over many segments.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, Tracked, config, mark};
use ringraft_wal::mem::{MemBuffer, Survival};
use ringraft_wal::snapshots::{OPERATIONS_MAX, PIECE_BYTES_MAX};
use ringraft_wal::{
    Completed, DiskError, Done, EntryBytes, FileName, SnapshotDone, SnapshotError, SnapshotName, Ticket, WalError,
};

const NAME: SnapshotName = SnapshotName { group: 1, index: 5 };

impl Log {
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<Ticket, SnapshotError> {
        self.wal.write_snapshot(NAME, offset, bytes, &mut self.disk)
    }

    /// Ends what is pending; returns the ends of operations on snapshots.
    fn ends(&mut self) -> Vec<SnapshotDone<MemBuffer>> {
        let ended = self.disk.run(&mut self.wal, &mut self.durables).unwrap();
        let snapshot = |completed| match completed {
            Completed::Snapshot(done) => Some(done),
            Completed::Read(_) => None,
        };
        ended.into_iter().filter_map(snapshot).collect()
    }

    /// Ends the only pending operation with an error.
    fn fails(&mut self, error: DiskError) -> SnapshotDone<MemBuffer> {
        let completion = self.disk.fail(0, error);
        match self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap() {
            Some(Completed::Snapshot(done)) => done,
            other => panic!("{other:?}"),
        }
    }
}

fn idle() -> Log {
    let mut log = Log::new(config());
    log.flushed_entries(1, 1, 5, 100);
    log
}

#[test]
fn a_snapshot_is_written_finished_read_and_removed() {
    let mut log = idle();
    let ticket = log.piece(0, &[1; 2 * BLOCK]).unwrap();
    assert_eq!(log.piece(2 * BLOCK as u64, &[2; BLOCK]), Err(SnapshotError::Busy { snapshot: NAME }));
    let ends = log.ends();
    assert_eq!((ends[0].ticket, ends[0].snapshot), (ticket, NAME));
    assert!(matches!(ends[0].result, Ok(Done::Written)));
    log.piece(2 * BLOCK as u64, &[2; BLOCK]).unwrap();
    log.ends();
    assert!(log.disk.snapshots().is_empty() && log.disk.parts().len() == 1);
    log.wal.finish_snapshot(NAME, &mut log.disk).unwrap();
    assert!(matches!(log.ends()[0].result, Ok(Done::Finished)));
    assert!(log.disk.parts().is_empty());
    assert_eq!(log.disk.snapshots()[&NAME].len(), 3 * BLOCK);

    // Reads go beside each other, and one beyond the end is an error.
    for offset in [0, BLOCK as u64, 2 * BLOCK as u64] {
        log.wal.read_snapshot(NAME, offset, 2 * BLOCK, &mut log.disk).unwrap();
    }
    let read: Vec<_> = log.ends().into_iter().map(|done| done.result).collect();
    let Ok(Done::Read(bytes)) = &read[1] else { panic!("{:?}", read[1]) };
    assert_eq!(bytes.as_ref(), [[1; BLOCK], [2; BLOCK]].concat());
    let file = FileName::Snapshot(NAME);
    let short = DiskError::Short { operation: "read", file, done: BLOCK as u64, expected: 2 * BLOCK as u64 };
    assert_eq!(read[2].as_ref().map(|_| ()), Err(&short));

    for _ in 0..2 {
        log.wal.remove_snapshot(NAME, false, &mut log.disk).unwrap();
        assert!(matches!(log.ends()[0].result, Ok(Done::Removed)), "also when it is not there");
    }
    assert!(log.disk.snapshots().is_empty());
}

#[test]
fn pieces_are_whole_blocks_in_order_and_bounded() {
    let mut log = idle();
    let piece = |offset, bytes| Err(SnapshotError::Piece { snapshot: NAME, offset, bytes, bytes_max: PIECE_BYTES_MAX });
    assert_eq!(log.piece(0, &[]), piece(0, 0));
    assert_eq!(log.piece(0, &[0; 100]), piece(0, 100));
    assert_eq!(log.piece(7, &[0; BLOCK]), piece(7, BLOCK));
    assert_eq!(log.piece(0, &vec![0; PIECE_BYTES_MAX + BLOCK]), piece(0, PIECE_BYTES_MAX + BLOCK));
    assert_eq!(log.wal.read_snapshot(NAME, 0, 0, &mut log.disk), piece(0, 0));
    let order = |offset, expected| Err(SnapshotError::Order { snapshot: NAME, offset, expected });
    assert_eq!(log.piece(512, &[0; BLOCK]), order(512, 0));
    assert_eq!(log.wal.finish_snapshot(NAME, &mut log.disk), order(0, 0));
    log.piece(0, &[0; BLOCK]).unwrap();
    log.ends();
    assert_eq!(log.piece(1024, &[0; BLOCK]), order(1024, 512));
    // It may begin anew at any time.
    log.piece(0, &[9; BLOCK]).unwrap();
    log.ends();
    log.wal.finish_snapshot(NAME, &mut log.disk).unwrap();
    log.ends();
    assert_eq!(log.disk.snapshots()[&NAME], [9; BLOCK]);
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut log = idle();
    for index in 0..OPERATIONS_MAX as u64 {
        let snapshot = SnapshotName { group: 7, index };
        log.wal.write_snapshot(snapshot, 0, &[0; BLOCK], &mut log.disk).unwrap();
    }
    let refused = log.piece(0, &[0; BLOCK]).unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert_eq!(log.ends().len(), OPERATIONS_MAX);
    log.piece(0, &[0; BLOCK]).unwrap();
    log.ends();
    // As many parts as there may be.
    let mut parts = OPERATIONS_MAX as u64 + 1;
    while log.wal.write_snapshot(SnapshotName { group: 8, index: parts }, 0, &[0; BLOCK], &mut log.disk).is_ok() {
        log.ends();
        parts += 1;
    }
    assert_eq!(parts, 64);
    log.wal.remove_snapshot(NAME, true, &mut log.disk).unwrap();
    log.ends();
    log.piece(0, &[0; BLOCK]).unwrap();
}

#[test]
fn an_error_fails_the_snapshot_and_nothing_else() {
    let io = |file| DiskError::Io { operation: "write", file, errno: 5, message: "EIO".into() };
    for error in [DiskError::NoSpace, io(FileName::Part(NAME))] {
        let mut log = idle();
        log.piece(0, &[1; BLOCK]).unwrap();
        assert_eq!(log.fails(error.clone()).result.map(|_| ()), Err(error.clone()));
        assert_eq!(log.piece(512, &[0; BLOCK]), Err(SnapshotError::Failed { snapshot: NAME }));
        assert_eq!(log.wal.finish_snapshot(NAME, &mut log.disk), Err(SnapshotError::Failed { snapshot: NAME }));
        assert!(!log.wal.is_poisoned());
        log.flushed_entry(1, 1, 6, 100);
        // A failed end, too, asks for a new beginning.
        log.piece(0, &[1; BLOCK]).unwrap();
        log.ends();
        log.wal.finish_snapshot(NAME, &mut log.disk).unwrap();
        log.fails(error.clone());
        assert_eq!(log.wal.finish_snapshot(NAME, &mut log.disk), Err(SnapshotError::Failed { snapshot: NAME }));
        log.wal.remove_snapshot(NAME, true, &mut log.disk).unwrap();
        log.fails(error);
        log.wal.remove_snapshot(NAME, true, &mut log.disk).unwrap();
        log.ends();
        log.piece(0, &[1; BLOCK]).unwrap();
        log.ends();
        log.wal.finish_snapshot(NAME, &mut log.disk).unwrap();
        assert!(matches!(log.ends()[0].result, Ok(Done::Finished)));
        assert!(!log.wal.is_poisoned());
    }
}

#[test]
fn a_poisoned_log_takes_no_snapshots() {
    let mut log = idle();
    log.entry(1, 1, 6, 100);
    log.submit();
    let completion = log.disk.fail(0, DiskError::NoSpace);
    log.wal.complete(completion, &mut log.durables, &mut log.disk).unwrap_err();
    assert_eq!(log.piece(0, &[1; BLOCK]), Err(SnapshotError::Poisoned));
    assert_eq!(log.wal.finish_snapshot(NAME, &mut log.disk), Err(SnapshotError::Poisoned));
    assert_eq!(log.wal.remove_snapshot(NAME, false, &mut log.disk), Err(SnapshotError::Poisoned));
    assert!(matches!(log.try_mark(1, 5, false), Err(WalError::Poisoned { .. })));
}

#[test]
fn a_snapshot_that_the_log_needs_is_not_removed() {
    let mut log = idle();
    for index in [2, 3] {
        log.mark(1, index, false);
    }
    log.flush();
    let remove = |log: &mut Log, index| {
        let snapshot = SnapshotName { group: 1, index };
        let begun = log.wal.remove_snapshot(snapshot, false, &mut log.disk).map(|_| ());
        log.disk.run(&mut log.wal, &mut log.durables).unwrap();
        begun
    };
    let needed = |index| Err(SnapshotError::Needed { snapshot: SnapshotName { group: 1, index } });
    assert_eq!(remove(&mut log, 2), needed(2));
    assert_eq!(remove(&mut log, 1), Ok(()));
    log.mark(1, 5, false);
    assert_eq!(remove(&mut log, 2), needed(2), "the third mark is not durable yet");
    log.flush();
    assert_eq!(remove(&mut log, 2), Ok(()));
    assert_eq!(remove(&mut log, 3), needed(3));
    log.mark(1, 9, true);
    log.flush();
    assert_eq!(remove(&mut log, 5), Ok(()), "no log continues it any more");
    assert_eq!(remove(&mut log, 9), needed(9));
    // Nor is it written again: its mark says how long it is.
    let marked = SnapshotName { group: 1, index: 9 };
    assert_eq!(log.wal.write_snapshot(marked, 0, &[1; BLOCK], &mut log.disk).map(|_| ()), needed(9));
}

#[test]
fn marks_fit_the_log() {
    let mut log = idle();
    let refused = |index, covered| Err(WalError::SnapshotMark { group: 1, index, first: 1, last: 5, covered });
    assert_eq!(log.try_mark(1, 0, false), refused(0, 0));
    assert_eq!(log.try_mark(1, 6, false), refused(6, 0));
    assert_eq!(log.try_mark(1, 0, true), refused(0, 0));
    assert_eq!(log.try_mark(1, u64::MAX, true), refused(u64::MAX, 0));
    assert_eq!(log.wal.reclaim(1, 2), Err(WalError::NotCovered { group: 1, before_index: 2, covered: 0 }));
    log.mark(1, 3, false);
    log.mark(1, 4, false);
    assert_eq!(log.wal.reclaim(1, 6), Err(WalError::NotCovered { group: 1, before_index: 6, covered: 4 }));
    log.mark(1, 3, false); // as of an older entry: the one above is void
    assert_eq!(log.wal.snapshot_marks(1), [mark(1, 3, false)]);
    assert_eq!(log.try_mark(1, 3, true), refused(3, 3));
    log.wal.reclaim(1, 4).unwrap();
    assert!(matches!(log.try_mark(1, 2, false), Err(WalError::SnapshotMark { first: 4, last: 5, .. })));
    assert_eq!(log.try_entry(1, 1, 3, 1), Err(WalError::Covered { group: 1, index: 3, covered: 3 }));
    log.entry(1, 2, 4, 1); // what is behind it may be replaced
}

#[test]
fn a_mark_tells_when_it_is_durable_and_a_replacing_one_empties_the_log_at_once() {
    let mut log = idle();
    log.durables.clear();
    log.mark(1, 2, false);
    log.entry(1, 1, 6, 10);
    log.mark(1, 6, false);
    log.submit();
    assert!(log.durables.is_empty());
    log.finish(0);
    assert_eq!((log.durables[0].snapshot, log.durables[0].entry), (Some(6), Some((1, 6))));
    log.entry(1, 1, 7, 10);
    log.mark(1, 40, true);
    assert_eq!(log.wal.entry_range(1), None);
    assert_eq!(log.wal.entry_bytes(1, 7), EntryBytes::Missing);
    assert_eq!(log.try_entry(1, 1, 42, 10), Err(WalError::Gap { group: 1, index: 42, next: 41 }));
    log.flush();
    assert_eq!((log.durables[1].snapshot, log.durables[1].entry), (Some(40), None));
    log.flushed_entry(1, 3, 41, 10);
    assert_eq!(log.wal.entry_range(1), Some((41, 41)));
}

#[test]
fn a_replaced_log_frees_its_segments() {
    let (mut log, _) = common::three_segments();
    log.mark(1, 500, true);
    log.flush();
    assert_eq!(log.wal.stats().segments, 1);
    let (mut log, recovered) = Log::open(config(), log.crashed()).unwrap();
    assert_eq!(recovered.groups[&1].first_index(), 501);
    assert_eq!(log.wal.stats().segments, 1);
    log.flushed_entries(1, 501, 700, 100);
}

/// Pseudo-random numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The policy of a host: a snapshot of what is applied now; the log goes up to the one before.
fn snapshot(tracked: &mut Tracked, group: u32) {
    let last = tracked.next_index(group) - 1;
    let previous = tracked.covered(group);
    if last > previous && tracked.mark(group, last, false) {
        tracked.log.flush();
        let keep = previous.max(tracked.first.get(&group).copied().unwrap_or(1) - 1);
        tracked.reclaim(group, keep + 1);
        let marks: Vec<u64> = tracked.log.wal.snapshot_marks(group).iter().map(|mark| mark.index).collect();
        tracked.log.disk.snapshots_mut().retain(|name, _| name.group != group || marks.contains(&name.index));
    }
}

#[test]
fn endless_appends_with_snapshots_keep_the_segments_bounded_and_any_crash_recoverable() {
    let mut config = common::small();
    config.segments_max = 12;
    let mut tracked = Tracked::new(config.validate(common::identity()).unwrap());
    let mut numbers = Numbers(1);
    let (mut crashes, mut recycled) = (0, 0);
    tracked.entry(3, 1, 1, 50); // a group that says nothing more
    for round in 0_u64..70_000 {
        let group = 1 + numbers.below(2) as u32;
        let index = tracked.next_index(group);
        assert!(tracked.entry(group, 1 + round, index, numbers.below(600) as usize), "round {round}");
        if numbers.below(3) == 0 {
            tracked.log.flush();
        }
        if round % 40 == 0 {
            snapshot(&mut tracked, group);
        }
        if tracked.log.wal.stats().segments > 6 {
            // What pins the oldest segment is covered by a snapshot and goes, to the newest one if need be.
            for (group, before) in tracked.log.wal.oldest_segment_groups() {
                snapshot(&mut tracked, group);
                tracked.reclaim(group, before.min(tracked.covered(group) + 1));
            }
        }
        let stats = tracked.log.wal.stats();
        assert!(stats.segments <= 8 && stats.files <= 12, "round {round}: {stats:?}");
        if numbers.below(700) == 0 {
            tracked.log.submit();
            recycled += stats.segments_recycled;
            let disk = tracked.log.disk.crash(&mut |_, _| match numbers.below(3) {
                0 => Survival::Lost,
                1 => Survival::Kept,
                _ => Survival::Torn(numbers.below(512) as usize),
            });
            tracked = tracked.reopen(disk);
            crashes += 1;
        }
        tracked.forget();
    }
    recycled += tracked.log.wal.stats().segments_recycled;
    assert!(crashes > 50 && recycled > 1000, "{crashes} {recycled}");
    tracked.log.flush();
    let found = tracked.check(&tracked.log.crashed());
    assert_eq!(found.groups[&3].first_index(), 2, "the quiet group is a snapshot and nothing else");
}

#[test]
fn a_quiet_group_does_not_pin_the_oldest_segment() {
    let mut log = Log::new(config());
    log.flushed_entries(2, 1, 3, 100);
    log.flushed_entries(1, 1, 100, 100);
    log.reclaim(1, 95);
    assert_eq!(log.wal.stats().segments, 4, "group 2 holds the first");
    assert_eq!(log.wal.oldest_segment_groups(), [(2, 4)]);
    log.mark(2, 3, false);
    assert!(log.wal.reclaim(2, 4).unwrap() >= 2);
    log.flush();
    let recovered = common::recover_twice(&log.config, &log.crashed());
    assert_eq!(recovered.groups[&2].first_index(), 4);
    let (mut log, _) = Log::open(config(), log.crashed()).unwrap();
    // A snapshot at the same entry again is the newest one still.
    log.mark(2, 3, false);
    log.flushed_entry(2, 1, 4, 100);
    assert_eq!(log.wal.entry_range(2), Some((4, 4)));
}
