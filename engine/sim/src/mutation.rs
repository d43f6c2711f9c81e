//! The mutation score: historic bugs put back one at a time, and how many seeds it takes until a checker sees each.
//!
//! Off the data path; only in a build with the feature `mutants`.
//! Invariant: one mutant is active at a time, for all threads; the code without any must survive the very same seeds.

use ringraft_raft::mutants::{self, Mutant};

use crate::checkers::Violation;
use crate::run_seed;
use crate::runner::{Campaign, campaign};
use crate::trace::TraceMode;

/// Where the searches for one mutant start: far apart, so that they share no seed.
const STARTS: [u64; 3] = [1, 1_000_001, 2_000_001];

/// What became of one mutant.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Score {
    /// The mutant.
    pub mutant: &'static str,
    /// Where the bug comes from.
    pub origin: &'static str,
    /// Properties that caught it, one for each start; empty: it survived everywhere.
    pub caught_by: Vec<String>,
    /// Median over the starts of the seeds needed; `None`: it survived from most starts.
    pub seeds_median: Option<u64>,
    /// Seeds run in all.
    pub seeds: u64,
}

/// Searches for one mutant from every start.
#[must_use]
pub fn score(mutant: Mutant, seeds_max: u64, jobs: usize) -> Score {
    mutants::activate(Some(mutant));
    let mut needed = Vec::new();
    let mut caught_by = Vec::new();
    let mut seeds = 0;
    for first in STARTS {
        let summary = search(first, seeds_max, jobs);
        seeds += summary.seeds;
        match summary.violations.first() {
            Some((seed, violation)) => {
                needed.push(seed - first + 1);
                caught_by.push(violation.property.clone());
            }
            None => needed.push(u64::MAX),
        }
    }
    mutants::activate(None);
    needed.sort_unstable();
    let seeds_median = Some(needed[STARTS.len() / 2]).filter(|median| *median != u64::MAX);
    Score { mutant: mutant.name(), origin: mutant.origin(), caught_by, seeds_median, seeds }
}

/// Runs the code without mutants over the seeds of the searches; what it finds, which should be nothing.
#[must_use]
pub fn unmutated(seeds_max: u64, jobs: usize) -> Vec<(u64, Violation)> {
    mutants::activate(None);
    STARTS.into_iter().flat_map(|first| search(first, seeds_max, jobs).violations).collect()
}

fn search(first: u64, seeds_max: u64, jobs: usize) -> crate::runner::Summary {
    let behind = first + seeds_max;
    let search = Campaign { first, behind, within: None, jobs, keep_going: false };
    campaign(&search, |seed| run_seed(seed, TraceMode::Hash), |_, _| {})
}
