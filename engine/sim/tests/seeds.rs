//! A seed is one run, for ever; the seeds that once found something find nothing any more; fresh ones find nothing either.

use std::time::SystemTime;

use ringraft_sim::runner::{Campaign, campaign};
use ringraft_sim::scenario::{SCENARIOS, run_scenario};
use ringraft_sim::{TraceMode, run_seed};

const JOBS: usize = 2;
/// The seed with which every scenario that once failed did fail.
const SCENARIO_SEED: u64 = 4;

#[track_caller]
fn assert_clean(seed: u64) {
    let run = run_seed(seed, TraceMode::Hash);
    if let Some(violation) = run.violation {
        let lines = run_seed(seed, TraceMode::Last).lines.join("\n");
        panic!("{lines}\nseed {seed}: {violation}\nagain: ringraft sim --seed {seed} --trace");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (mut added, mut removed) = (0, 0);
    for seed in 1..=6 {
        let (first, second) = (run_seed(seed, TraceMode::Hash), run_seed(seed, TraceMode::Last));
        added += first.statistics.nodes_added;
        removed += first.statistics.nodes_removed;
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.statistics, second.statistics, "seed {seed}");
        assert!(first.lines.is_empty() && !second.lines.is_empty());
    }
    assert!(added > 0 && removed > 0, "members change in some of them");
    let (one, other) = (run_seed(1, TraceMode::Hash), run_seed(2, TraceMode::Hash));
    assert_ne!(one.trace_hash, other.trace_hash, "two seeds are two runs");
}

#[test]
fn seeds_that_found_something_find_nothing_now() {
    let text = include_str!("seeds.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let seeds: Vec<u64> = lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds.into_iter().for_each(assert_clean);
}

#[test]
fn fresh_seeds_find_nothing() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let first = now.as_secs() * 1_000_000;
    let fresh = Campaign { first, behind: first + 50, within: None, jobs: JOBS, keep_going: false };
    let summary = campaign(&fresh, |seed| run_seed(seed, TraceMode::Hash), |_, _| {});
    if let Some((seed, _)) = summary.violations.first() {
        assert_clean(*seed);
    }
    assert_eq!(summary.seeds, 50);
    let counts = summary.statistics;
    assert!(counts.done > 1_000 && counts.elections > 50 && counts.crashes > 10, "they did something: {counts:?}");
    assert!(counts.nodes_added > 5 && counts.replicas_dropped > 5, "members changed in some of them: {counts:?}");
}

#[test]
fn every_scenario_holds() {
    for scenario in SCENARIOS {
        let run = run_scenario(scenario, SCENARIO_SEED, TraceMode::Last);
        assert_eq!(run.violation, None, "scenario {}:\n{}", scenario.name, run.lines.join("\n"));
    }
}
