//! Random appends, truncations, reclaims, restarts and crashes against a model made of plain vectors.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{Tracked, check_bytes, small};
use proptest::prelude::*;
use ringraft_wal::Beginning;
use ringraft_wal::mem::Survival;

#[derive(Clone, Debug)]
enum Step {
    Entry { group: u32, bytes: usize },
    Replace { group: u32, back: u64, bytes: usize },
    HardState { group: u32, term: u64 },
    Submit,
    Finish { place: usize },
    Flush,
    Reclaim { group: u32, keep: u64 },
    Crash { seed: u64 },
    Mark,
    Snapshot { group: u32, back: u64 },
    Install { group: u32, ahead: u64 },
    Membership { group: u32 },
    Begin { group: u32, held: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..4_u32;
    prop_oneof![
        8 => (group.clone(), 0..900_usize).prop_map(|(group, bytes)| Step::Entry { group, bytes }),
        1 => (group.clone(), 3000..4000_usize).prop_map(|(group, bytes)| Step::Entry { group, bytes }),
        2 => (group.clone(), 0..6_u64, 0..300_usize)
            .prop_map(|(group, back, bytes)| Step::Replace { group, back, bytes }),
        2 => (group.clone(), 1..50_u64).prop_map(|(group, term)| Step::HardState { group, term }),
        6 => Just(Step::Submit),
        5 => (0..4_usize).prop_map(|place| Step::Finish { place }),
        2 => Just(Step::Flush),
        2 => (group.clone(), 0..8_u64).prop_map(|(group, keep)| Step::Reclaim { group, keep }),
        2 => (group.clone(), 0..5_u64).prop_map(|(group, back)| Step::Snapshot { group, back }),
        2 => group.clone().prop_map(|group| Step::Membership { group }),
        1 => (group.clone(), any::<bool>()).prop_map(|(group, held)| Step::Begin { group, held }),
        1 => (group, 0..20_u64).prop_map(|(group, ahead)| Step::Install { group, ahead }),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Mark),
    ]
}

fn crash(tracked: &Tracked, mut seed: u64) -> Tracked {
    let disk = tracked.log.disk.crash(&mut |_, _| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (seed >> 33) % 5 {
            0 | 1 => Survival::Lost,
            2 | 3 => Survival::Kept,
            _ => Survival::Torn((seed >> 40) as usize % 512),
        }
    });
    tracked.reopen(disk)
}

fn apply(tracked: &mut Tracked, step: &Step, term: u64) {
    match *step {
        Step::Entry { group, bytes } => {
            let index = tracked.next_index(group);
            tracked.entry(group, term, index, bytes);
        }
        Step::Replace { group, back, bytes } => {
            let lowest = tracked.log.wal.entry_range(group).map_or(0, |(first, _)| first);
            let lowest = lowest.max(tracked.covered(group) + 1);
            let index = tracked.next_index(group).saturating_sub(back).max(lowest).max(1);
            if tracked.log.wal.entry_range(group).is_some() {
                tracked.entry(group, term, index, bytes);
            }
        }
        Step::HardState { group, term } => tracked.hard_state(group, term, (term % 3 == 0).then_some(term)),
        Step::Submit => tracked.log.submit(),
        Step::Finish { place } => {
            let pending = tracked.log.disk.pending().len();
            if pending > 0 {
                tracked.log.finish(place % pending);
            }
        }
        Step::Flush => tracked.log.flush(),
        Step::Reclaim { group, keep } => {
            let before = tracked.next_index(group).saturating_sub(keep);
            tracked.reclaim(group, before);
        }
        Step::Snapshot { group, back } => {
            if let Some((first, last)) = tracked.log.wal.entry_range(group) {
                tracked.mark(group, last.saturating_sub(back).max(first - 1).max(1), false);
            }
        }
        Step::Install { group, ahead } => {
            tracked.mark(group, tracked.covered(group) + 1 + ahead, true);
        }
        Step::Membership { group } => {
            let index = tracked.next_index(group);
            tracked.membership(group, term, index);
        }
        Step::Begin { group, held } => {
            let index = tracked.next_index(group) - 1;
            tracked.begin(group, Beginning { held, term, index });
        }
        Step::Crash { seed } => *tracked = crash(tracked, seed),
        Step::Mark => {
            let _ = tracked.log.wal.append_mark(&mut tracked.log.disk);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_the_model_is(
        steps in prop::collection::vec(step(), 1..160),
        cache_blocks in 0..40_usize,
        flushes in 1..5_usize,
        files in 3..8_u32,
    ) {
        let mut config = small();
        config.cache_bytes_max = cache_blocks * common::BLOCK;
        config.flushes_in_flight_max = flushes;
        let mut tracked = Tracked::new(config.validate(common::identity()).unwrap());
        tracked.log.disk.files_max = Some(files);
        for (number, step) in steps.iter().enumerate() {
            apply(&mut tracked, step, number as u64 + 1);
            prop_assert!(tracked.log.wal.accepted_sequence() >= tracked.log.wal.submitted_sequence());
            prop_assert!(tracked.log.wal.submitted_sequence() >= tracked.log.wal.durable_sequence());
        }
        tracked.log.flush();
        let model = tracked.model.clone().wanted_from(&tracked.first);
        check_bytes(&mut tracked.log, &model);
        tracked.check(&tracked.log.crashed());
    }
}
