//! A seed is one run, for ever; the seeds that once found something; a few fresh ones.

use ringraft_sim::{TraceMode, run_seed};

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let (first, second) = (run_seed(seed, TraceMode::Hash), run_seed(seed, TraceMode::Last));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.statistics, second.statistics, "seed {seed}");
        assert_eq!(first.violation, None, "seed {seed}: {:#?}", second.lines);
    }
}
