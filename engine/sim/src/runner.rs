//! Many runs: seeds shared out over threads, what they found summed up.
//!
//! Off the data path.
//! Invariants: a run is alone in its thread and shares nothing; a panic of the code under test is a violation of the run;
//! the first violation by seed number is reported, whatever thread met it.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use crate::checkers::Violation;
use crate::run::Outcome;
use crate::statistics::Statistics;

thread_local! {
    /// Message and place of the panic under way, kept for the report.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `run`; a panic in it becomes a violation.
pub(crate) fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.with_borrow(|quiet| *quiet) {
                PANIC.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.unwrap_or_else(|_| {
        let text = PANIC.take().unwrap_or_else(|| String::from("a panic without a message"));
        Outcome {
            violation: Some(Violation::new("no panic", text)),
            trace_hash: 0,
            lines: Vec::new(),
            statistics: Statistics::default(),
        }
    })
}

/// Which seeds to run, and for how long.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// Behind the last seed.
    pub behind: u64,
    /// No new seed is begun after this time.
    pub within: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// Go on after a violation.
    pub keep_going: bool,
}

/// What a campaign found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that found something, in order.
    pub violations: Vec<(u64, Violation)>,
    /// Counts over all seeds.
    pub statistics: Statistics,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs the seeds of a campaign; `run` is one run of a seed, `progress` hears of every seed that ended.
pub fn campaign(
    campaign: &Campaign,
    run: impl Fn(u64) -> Outcome + Sync,
    progress: impl Fn(u64, &Outcome) + Sync,
) -> Summary {
    let begin = Instant::now();
    let next = AtomicU64::new(campaign.first);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let late = campaign.within.is_some_and(|within| begin.elapsed() >= within);
                    if late || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= campaign.behind {
                        return;
                    }
                    let outcome = run(seed);
                    progress(seed, &outcome);
                    let mut found = found.lock().expect("no thread panics while it holds this");
                    found.seeds += 1;
                    found.statistics.add(&outcome.statistics);
                    if let Some(violation) = outcome.violation {
                        found.violations.push((seed, violation));
                        stop.fetch_or(!campaign.keep_going, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut summary = found.into_inner().expect("no thread panics while it holds this");
    summary.violations.sort_by_key(|(seed, _)| *seed);
    summary.elapsed = begin.elapsed();
    summary
}
