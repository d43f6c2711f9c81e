//! Every crash point: after each step of a script, every subset of the blocks of the unfinished writes survives.
//!
//! Off the data path.
//! Asserted for each: recovery succeeds, nothing acknowledged is lost, what is found is the content after exactly some
//! batch that was submitted; and the same again for a crash while going on from there.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Tracked, config, small};
use ringraft_wal::mem::{MemDisk, Survival};

/// Calls `visit` with the disk after each possible crash at this moment: all subsets of the unsynced blocks, and each
/// block torn at some byte with all others kept or lost.
fn every_crash(tracked: &Tracked, visit: &mut dyn FnMut(MemDisk)) -> usize {
    let blocks = tracked.log.disk.unsynced_blocks().len();
    assert!(blocks <= 12, "the window is too large to try all: {blocks}");
    let mut crashes = 0;
    for subset in 0..1_u32 << blocks {
        let mut place = 0;
        visit(tracked.log.disk.crash(&mut |_, _| {
            place += 1;
            if subset >> (place - 1) & 1 == 1 { Survival::Kept } else { Survival::Lost }
        }));
        crashes += 1;
    }
    for torn in 0..blocks {
        for bytes in [1, 16, 60, 64, 100, BLOCK - 1] {
            for others in [Survival::Kept, Survival::Lost] {
                let mut place = 0;
                visit(tracked.log.disk.crash(&mut |_, _| {
                    place += 1;
                    if place - 1 == torn { Survival::Torn(bytes) } else { others }
                }));
                crashes += 1;
            }
        }
    }
    crashes
}

/// Appends with overlapping flushes, then tries every crash there.
fn second_crash(tracked: &Tracked, disk: MemDisk) -> usize {
    let mut again = tracked.reopen(disk);
    let mut crashes = 0;
    for bytes in [20, 600] {
        let index = again.next_index(1);
        again.entry(1, 90, index, bytes);
        again.log.submit();
    }
    crashes += every_crash(&again, &mut |disk| {
        again.check(&disk);
    });
    again.log.flush();
    again.check(&again.log.crashed());
    crashes
}

/// One step: what is appended before the next submission.
type Step = fn(&mut Tracked);

fn append(tracked: &mut Tracked, group: u32, bytes: usize) {
    let index = tracked.next_index(group);
    tracked.entry(group, 1, index, bytes);
}

/// Runs `steps` with two flushes overlapping: each is submitted while the one before is still in flight, and at every
/// moment every crash is tried.
fn run(mut tracked: Tracked, steps: &[Step], finish_newest_first: bool) {
    let (mut crashes, mut second) = (0, 0);
    for (number, step) in steps.iter().enumerate() {
        step(&mut tracked);
        tracked.log.submit();
        let mut disks = Vec::new();
        crashes += every_crash(&tracked, &mut |disk| {
            tracked.check(&disk);
            disks.push(disk);
        });
        for disk in disks.into_iter().step_by(1 + number % 3 * 5) {
            second += second_crash(&tracked, disk);
        }
        while tracked.log.disk.pending().len() > 1 || !tracked.log.wal.can_submit() {
            let newest = tracked.log.disk.pending().len() - 1;
            tracked.log.finish(if finish_newest_first { newest } else { 0 });
            every_crash(&tracked, &mut |disk| {
                tracked.check(&disk);
            });
        }
    }
    tracked.log.flush();
    tracked.check(&tracked.log.crashed());
    assert!(crashes > 20 && second > 100, "{crashes} {second}");
}

const STEPS: &[Step] = &[
    |tracked| append(tracked, 1, 50),
    |tracked| append(tracked, 1, 700),
    |tracked| tracked.hard_state(1, 2, Some(3)),
    |tracked| {
        append(tracked, 2, 10);
        tracked.hard_state(2, 5, None);
        append(tracked, 1, 900);
    },
    |tracked| {
        let last = tracked.next_index(1) - 1;
        tracked.entry(1, 2, last, 30); // replaces
    },
    |tracked| append(tracked, 1, 1200),
];

#[test]
fn every_crash_of_a_short_log() {
    run(Tracked::new(config()), STEPS, false);
}

#[test]
fn every_crash_when_the_disk_ends_writes_out_of_order() {
    run(Tracked::new(config()), STEPS, true);
}

/// Leaves a log whose active segment has only `left` blocks before its seal.
fn near_the_end(left: u64) -> Tracked {
    let mut tracked = Tracked::new(config());
    tracked.hard_state(2, 4, Some(1));
    for _ in 0..(31 - 2 - left) {
        append(&mut tracked, 1, 60);
        tracked.log.flush();
    }
    tracked
}

#[test]
fn every_crash_around_the_change_of_segments() {
    for left in [0, 1, 2] {
        run(near_the_end(left), &STEPS[..4], left == 1);
    }
}

#[test]
fn every_crash_around_a_recycled_segment() {
    let mut tracked = near_the_end(0);
    for _ in 0..95 {
        append(&mut tracked, 1, 60);
        tracked.log.flush();
        let next = tracked.next_index(1);
        tracked.reclaim(1, next - 3);
    }
    assert!(tracked.log.wal.stats().segments_recycled > 0);
    run(tracked, STEPS, false);
}

const SNAPSHOT_STEPS: &[Step] = &[
    |tracked| append(tracked, 1, 700),
    |tracked| {
        let last = tracked.next_index(1) - 1;
        assert!(tracked.mark(1, last, false));
    },
    |tracked| append(tracked, 1, 50),
    |tracked| {
        let covered = tracked.covered(1);
        tracked.reclaim(1, covered + 1);
        tracked.hard_state(1, 7, Some(2));
        append(tracked, 1, 900);
    },
    |tracked| {
        // A snapshot of the leader's: in one batch with what is before and behind it.
        append(tracked, 1, 30);
        let covered = tracked.covered(1);
        assert!(tracked.mark(1, covered + 40, true));
        append(tracked, 1, 600);
    },
    |tracked| append(tracked, 1, 20),
];

#[test]
fn every_crash_around_snapshot_marks() {
    run(Tracked::new(config()), SNAPSHOT_STEPS, false);
    run(Tracked::new(config()), SNAPSHOT_STEPS, true);
}

#[test]
fn every_crash_around_snapshot_marks_that_are_carried_over() {
    for left in [0, 1, 3] {
        let mut tracked = near_the_end(left);
        let last = tracked.next_index(1) - 1;
        assert!(tracked.mark(1, last - 2, false));
        run(tracked, SNAPSHOT_STEPS, left == 1);
    }
}

#[test]
fn every_crash_with_four_overlapping_flushes() {
    let mut config = small();
    config.flushes_in_flight_max = 4;
    let mut tracked = Tracked::new(config.validate(common::identity()).unwrap());
    let mut submitted = 0;
    for bytes in [50, 600, 20, 700, 10, 30] {
        append(&mut tracked, 1, bytes);
        tracked.log.submit();
        submitted += 1;
        if submitted > 4 {
            tracked.log.finish(1);
            tracked.log.finish(0);
            tracked.log.submit();
        }
        let mut disks = Vec::new();
        every_crash(&tracked, &mut |disk| {
            tracked.check(&disk);
            disks.push(disk);
        });
        for disk in disks.into_iter().step_by(3) {
            second_crash(&tracked, disk);
        }
    }
}
