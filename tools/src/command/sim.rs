//! `ringraft sim`: the deterministic simulator, from one seed to campaigns over all cores.
//!
//! Off the data path.
//! Invariant: whatever fails is printed with the one command that shows it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use ringraft_sim::runner::{Campaign, Summary, campaign};
use ringraft_sim::scenario::{SCENARIOS, Scenario, run_scenario};
use ringraft_sim::{Outcome as Run, Statistics, TraceMode, Violation, run_seed};
use serde_json::json;

use super::{FAILURE, Outcome, SUCCESS, Usage};

const EXAMPLES: &str = "\
Examples:
  ringraft sim --seed 42                     one run; its last events if it fails
  ringraft sim --seed 42 --trace             the same, every event
  ringraft sim --seeds 1..1000               many runs, on all cores
  ringraft sim --minutes 30                  fresh seeds for half an hour
  ringraft sim --scenario list               hand-written schedules
  ringraft sim --scenario stall-leader-disk --seeds 1..50
  ringraft sim --mutants --seeds-max 500     known bugs put back one at a time (build with --features mutants)

Exit code 1: a property does not hold.";

/// A year.
const MINUTES_MAX: u64 = 527_040;
/// Last events shown of a campaign's first failure.
const LINES_SHOWN: usize = 40;

/// Runs the cluster's code over simulated disks, network and clocks, with faults drawn from seeds.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sim {
    /// One seed
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Seeds from A up to, and without, B
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "minutes")]
    seeds: Option<(u64, u64)>,
    /// Fresh seeds for so long
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: Option<u64>,
    /// A hand-written schedule instead of drawn faults; `list` shows them
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Print every event
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Runs at the same time [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Go on after a run that failed
    #[arg(long)]
    keep_going: bool,
    /// Put known bugs back one at a time and count the seeds it takes to see each
    #[arg(long, conflicts_with_all = ["seed", "seeds", "minutes", "scenario"])]
    mutants: bool,
    /// With --mutants: give a bug up after so many seeds
    #[arg(long, default_value_t = 500, requires = "mutants", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds_max: u64,
    /// With --mutants: only these
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', requires = "mutants")]
    only: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let problem = || format!("`{text}` is not A..B with A below B");
    let (first, behind) = text.split_once("..").ok_or_else(problem)?;
    let (first, behind) = (first.parse().map_err(|_| problem())?, behind.parse().map_err(|_| problem())?);
    if first < behind { Ok((first, behind)) } else { Err(problem()) }
}

pub(crate) fn run(arguments: &Sim) -> Result<Outcome> {
    if arguments.scenario.as_deref() == Some("list") {
        return Ok(list());
    }
    if arguments.mutants {
        return mutants::run(arguments);
    }
    let scenario = arguments.scenario.as_deref().map(find).transpose()?;
    match arguments.seed {
        Some(seed) => one(arguments, scenario, seed),
        None => many(arguments, scenario),
    }
}

fn list() -> Outcome {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for scenario in SCENARIOS {
        table.add_row([scenario.name, scenario.about]);
    }
    println!("{table}");
    SUCCESS
}

fn find(name: &str) -> Result<&'static Scenario> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let problem = || format!("there is no scenario `{name}`; `ringraft sim --scenario list` shows them");
    Ok(found.ok_or_else(|| Usage::of(problem()))?)
}

fn execute(scenario: Option<&Scenario>, seed: u64, mode: TraceMode) -> Run {
    match scenario {
        Some(scenario) => run_scenario(scenario, seed, mode),
        None => run_seed(seed, mode),
    }
}

fn one(arguments: &Sim, scenario: Option<&Scenario>, seed: u64) -> Result<Outcome> {
    let mode = if arguments.trace { TraceMode::Print } else { TraceMode::Last };
    let run = execute(scenario, seed, mode);
    if arguments.json {
        let trace = format!("{:016x}", run.trace_hash);
        let result =
            json!({ "seed": seed, "trace_hash": trace, "violation": run.violation, "statistics": run.statistics });
        println!("{}", serde_json::to_string_pretty(&result)?);
        return Ok(Outcome::of(run.violation.is_none()));
    }
    if run.violation.is_some() {
        run.lines.iter().for_each(|line| println!("{line}"));
    }
    print_statistics(&run.statistics);
    println!("trace {:016x}", run.trace_hash);
    Ok(match &run.violation {
        None => SUCCESS,
        Some(violation) => {
            print_violation(arguments.scenario.as_deref(), seed, violation);
            FAILURE
        }
    })
}

fn jobs(arguments: &Sim) -> usize {
    let cores = || thread::available_parallelism().map_or(1, std::num::NonZero::get);
    arguments.jobs.map_or_else(cores, usize::from)
}

fn many(arguments: &Sim, scenario: Option<&Scenario>) -> Result<Outcome> {
    let within = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let (first, behind) = match (arguments.seeds, within) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => (fresh_seed()?, u64::MAX),
        (None, None) if scenario.is_some() => (1, 11),
        (None, None) => return Err(Usage::of("say which seeds: --seed N, --seeds A..B or --minutes M").into()),
    };
    let plan = Campaign { first, behind, within, jobs: jobs(arguments), keep_going: arguments.keep_going };
    if !arguments.json {
        eprintln!("seeds from {first}, {} at a time", plan.jobs);
    }
    let done = AtomicU64::new(0);
    let progress = |seed: u64, run: &Run| {
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        if run.violation.is_some() {
            eprintln!("seed {seed} fails");
        } else if count.is_multiple_of(1_000) && !arguments.json {
            eprintln!("{count} seeds");
        }
    };
    let summary = campaign(&plan, |seed| execute(scenario, seed, TraceMode::Hash), progress);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&as_json(first, &summary))?);
    } else {
        print_summary(&summary);
        if let Some((seed, _)) = summary.violations.first() {
            let lines = execute(scenario, *seed, TraceMode::Last).lines;
            println!("\nthe last events of seed {seed}:");
            lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)).for_each(|line| println!("{line}"));
        }
        for (seed, violation) in summary.violations.iter().take(10) {
            print_violation(arguments.scenario.as_deref(), *seed, violation);
        }
    }
    Ok(Outcome::of(summary.violations.is_empty()))
}

/// A start nobody has run before: the time, spread so that neighbouring starts do not overlap.
fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_secs() * 1_000_000)
}

fn as_json(first: u64, summary: &Summary) -> serde_json::Value {
    let violations: Vec<_> =
        summary.violations.iter().map(|(seed, violation)| json!({ "seed": seed, "violation": violation })).collect();
    json!({
        "first_seed": first,
        "seeds": summary.seeds,
        "elapsed_ms": summary.elapsed.as_millis() as u64,
        "violations": violations,
        "statistics": summary.statistics,
    })
}

fn print_summary(summary: &Summary) {
    print_statistics(&summary.statistics);
    let simulated_s = summary.statistics.simulated_us as f64 / 1e6;
    let elapsed_s = summary.elapsed.as_secs_f64();
    println!(
        "{} seeds, {:.1} simulated hours in {elapsed_s:.1} s ({:.0} simulated seconds per second), {} violations",
        summary.seeds,
        simulated_s / 3600.0,
        simulated_s / elapsed_s.max(1e-9),
        summary.violations.len(),
    );
}

fn print_statistics(statistics: &Statistics) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, count) in statistics.counters() {
        table.add_row([name.replace('_', " "), count.to_string()]);
    }
    for (fault, count) in &statistics.faults {
        table.add_row([format!("fault {fault:?}"), count.to_string()]);
    }
    println!("{table}");
}

fn print_violation(scenario: Option<&str>, seed: u64, violation: &Violation) {
    let which = scenario.map_or_else(String::new, |name| format!(" --scenario {name}"));
    println!("\nproperty  {}", violation.property);
    println!("seen      {}", violation.seen);
    println!("again     ringraft sim{which} --seed {seed} --trace");
}

#[cfg(not(feature = "mutants"))]
mod mutants {
    use anyhow::{Result, bail};

    use super::{Outcome, Sim};

    pub(super) fn run(_: &Sim) -> Result<Outcome> {
        bail!("this build has no mutants: cargo run --release -p ringraft-tools --features mutants -- sim --mutants")
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use anyhow::Result;
    use comfy_table::{Table, presets};
    use ringraft_raft::mutants::Mutant;
    use ringraft_sim::mutation::{score, unmutated};
    use serde_json::json;

    use super::{Outcome, Sim, Usage, jobs};

    pub(super) fn run(arguments: &Sim) -> Result<Outcome> {
        let jobs = jobs(arguments);
        let mut scores = Vec::new();
        let known = |name: &String| Mutant::ALL.iter().any(|mutant| mutant.name() == name);
        if let Some(unknown) = arguments.only.iter().find(|name| !known(name)) {
            let problem = format!("there is no mutant `{unknown}`; without --only all are tried and shown");
            return Err(Usage::of(problem).into());
        }
        let wanted =
            |mutant: &&Mutant| arguments.only.is_empty() || arguments.only.iter().any(|name| name == mutant.name());
        for mutant in Mutant::ALL.iter().filter(wanted) {
            let score = score(*mutant, arguments.seeds_max, jobs);
            eprintln!("{}: {}", score.mutant, score.caught_by.first().map_or("survived", String::as_str));
            scores.push(score);
        }
        let wrong = unmutated(arguments.seeds_max, jobs);
        if arguments.json {
            let wrong: Vec<_> = wrong.iter().map(|(seed, violation)| json!([seed, violation])).collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "mutants": scores, "unmutated": wrong }))?);
        } else {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING);
            table.set_header(["mutant", "caught by", "seeds", "origin"]);
            for score in &scores {
                let seeds = score.seeds_median.map_or_else(|| String::from("-"), |median| median.to_string());
                let by = score.caught_by.first().map_or("nothing", String::as_str);
                table.add_row([score.mutant, by, &seeds, score.origin]);
            }
            println!("{table}");
            let caught = scores.iter().filter(|score| score.seeds_median.is_some()).count();
            println!("{caught} of {} caught; without a mutant {} violations", scores.len(), wrong.len());
        }
        let all = scores.iter().all(|score| score.seeds_median.is_some());
        Ok(Outcome::of(all && wrong.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_beginning_below_their_end() {
        assert_eq!(range("3..9"), Ok((3, 9)));
        for text in ["3", "9..3", "3..3", "a..b", "..", "1..-2"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn scenarios_are_found_by_name() {
        assert!(find("calm").is_ok());
        assert!(find("clam").is_err_and(|error| error.to_string().contains("--scenario list")));
    }
}
