//! Property of the client core: whatever happens, each request ends once and each write takes effect at most once.
//!
//! Off the data path. No sockets, no clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use proptest::prelude::*;
use ringraft_net::client::Options;
use ringraft_net::wire::Outcome;
use std::collections::BTreeSet;
use world::fake::Verdict;
use world::{World, options};

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Get(u8),
    Mishap(Verdict),
    Leader(u8, u64),
    Cut(u64),
    Down(u64),
    Up,
    Silent(u64),
    Expire,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mishap = prop_oneof![
        Just(Verdict::ApplySilently),
        Just(Verdict::Ignore),
        Just(Verdict::Break),
        Just(Verdict::ApplyAndBreak),
        Just(Verdict::Answer(Outcome::OutcomeUnknown)),
        Just(Verdict::Answer(Outcome::Overloaded { retry_after_us: 700 })),
        Just(Verdict::Answer(Outcome::Unavailable { message: String::from("starting") })),
        Just(Verdict::Answer(Outcome::NotLeader { group: 0, leader: None })),
        (1u64..=3).prop_map(|node| Verdict::Answer(Outcome::NotLeader { group: 0, leader: Some(node) })),
    ];
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Put),
        2 => any::<u8>().prop_map(Step::Get),
        4 => mishap.prop_map(Step::Mishap),
        2 => (0u8..4, 0u64..=3).prop_map(|(group, node)| Step::Leader(group, node)),
        1 => (1u64..=3).prop_map(Step::Cut),
        1 => (1u64..=3).prop_map(Step::Down),
        2 => Just(Step::Up),
        1 => (1u64..=3).prop_map(Step::Silent),
        1 => Just(Step::Expire),
        4 => (1u64..3_000_000).prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: Step, tag: u64) {
    match step {
        Step::Put(key) => world.put(tag, &format!("key-{key}")),
        Step::Get(key) => world.get(tag, &format!("key-{key}")),
        Step::Mishap(verdict) => world.cluster.script.push_back(verdict),
        Step::Leader(group, node) => world.cluster.leaders[usize::from(group)] = node,
        Step::Cut(node) => world.cut(node),
        Step::Down(node) => {
            world.down.insert(node);
            world.cut(node);
        }
        Step::Up => {
            world.down.clear();
            world.wake();
        }
        Step::Silent(node) => {
            world.silent.insert(node);
        }
        Step::Expire => world.cluster.expire_sessions(),
        Step::Pass(microseconds) => world.run(microseconds, usize::MAX),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens: each request ends once, in time; a write takes effect at most once; one that is acknowledged
    /// took effect exactly once; one that surely failed did not.
    #[test]
    fn exactly_once(steps in prop::collection::vec(step(), 1..60), sessions in any::<bool>(), piece in 1usize..200) {
        let mut world = World::new(4, 2, Options { sessions, connections: 2, session_window_max: 5, ..options() });
        world.piece_bytes = piece;
        let mut puts = BTreeSet::new();
        let mut submitted = 0;
        for (tag, step) in steps.into_iter().enumerate() {
            let tag = tag as u64;
            if matches!(step, Step::Put(_)) {
                puts.insert(tag);
            }
            submitted += usize::from(matches!(step, Step::Put(_) | Step::Get(_)));
            take(&mut world, step, tag);
            if tag.is_multiple_of(3) {
                world.settle();
            }
        }
        world.run(6_000_000, submitted);
        prop_assert_eq!(world.ended.len(), submitted);
        for (tag, result) in world.results() {
            if !puts.contains(&tag) {
                continue;
            }
            let applied = world.cluster.applied.get(format!("value-{tag}").as_bytes()).copied().unwrap_or(0);
            match result {
                Ok(_) => prop_assert_eq!(applied, 1, "{} was acknowledged", tag),
                Err(error) if error.is_outcome_unknown() => prop_assert!(applied <= 1),
                Err(error) => prop_assert_eq!(applied, 0, "{} {}", tag, error),
            }
        }
        // Afterwards the cluster is whole again, and so is the client.
        world.cluster.script.clear();
        world.cluster.leaders = vec![1, 2, 3, 1];
        world.down.clear();
        world.wake();
        world.put(1_000, "after");
        world.run(5_000_000, submitted + 1);
        prop_assert!(world.results()[&1_000].is_ok(), "{:?}", world.results()[&1_000]);
        prop_assert!(world.core.in_flight() == 0 || !world.sockets.is_empty());
    }
}
