//! `ringraft chaos`: clusters of real processes under faults, and whether what they promise holds.
//!
//! Off the data path.
//! Invariant: processes, mounts and network namespaces are gone when it ends, also after ^C.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ringraft_tools::chaos::load::LoadOptions;
use ringraft_tools::chaos::runner::{RunResult, Runner, Verdict};
use ringraft_tools::chaos::scenario::{SCENARIOS, Scenario, find};
use ringraft_tools::chaos::stage::Environment;
use ringraft_tools::folder::real_folder;
use serde_json::{Value, json};

use super::{Outcome, Usage, interrupt};

const EXAMPLES: &str = "\
Examples:
  ringraft chaos --list
  ringraft chaos --scenario leader-kill-catchup
  ringraft chaos --scenario leader-kill --repeat 20          median and longest failover
  ringraft chaos --short                                     a small set, for every change
  ringraft chaos --scenario all --out chaos-results          everything, logs and histories kept
  ringraft chaos --scenario power-loss,full-disk --json | jq '.runs[].verdict'

Partitions need network namespaces and nft, disk faults FUSE, full disks a loop mount: all of them the rights of root.
A scenario that cannot be run is skipped, with the reason.

Exit code 0: everything passed or was skipped; 1: something failed.";

/// Kills, stops, partitions and damages clusters of real processes under load, and checks what clients were told.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chaos {
    /// Scenarios, separated by commas, or `all`.
    #[arg(long, value_delimiter = ',', required_unless_present_any = ["short", "list"])]
    scenario: Vec<String>,
    /// The short set.
    #[arg(long, conflicts_with = "scenario")]
    short: bool,
    /// Lists the scenarios and what they need.
    #[arg(long)]
    list: bool,
    /// Runs of each scenario.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repeat: u32,
    /// Clients of the load.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
    /// Mean pause of each client between two calls, in microseconds.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pause_us: u64,
    /// Of the clients' choices; another one for each run of a scenario.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keeps steps, histories and logs of every run in a folder of its own in here; otherwise only those of failed runs
    /// are kept, in a temporary folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Where the nodes' temporary folders are made: must be a real disk [default: the temporary folder, or the current
    /// folder if that is in memory].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// One JSON object at the end; the lines go to standard error.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Chaos) -> Result<Outcome> {
    if arguments.list {
        list(arguments.json);
        return Ok(super::SUCCESS);
    }
    let scenarios = chosen(arguments)?;
    let stop = interrupt::stop_flag()?;
    let executable = std::env::current_exe().context("cannot find the own binary")?;
    let load = LoadOptions { clients: arguments.clients, pause_us: arguments.pause_us, seed: arguments.seed };
    let environment = Environment { executable: &executable, stop: &stop, load };
    let parent = arguments.dir.clone().unwrap_or_else(real_folder);
    let mut runner = Runner::new(environment, &parent, arguments.out.as_deref(), arguments.json);
    let say = |line: &str| if arguments.json { eprintln!("{line}") } else { println!("{line}") };
    let mut results = Vec::new();
    'all: for scenario in scenarios {
        for number in 1..=arguments.repeat {
            say(&format!("{}: {}", scenario.name, scenario.about));
            let result = runner.run(scenario, number)?;
            say(&format!("{}\n", result.line()));
            let skipped = result.verdict == Verdict::Skipped;
            results.push(result);
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                break 'all;
            }
            if skipped {
                break;
            }
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "runs": results, "failover": failover(&results) }))?);
    } else {
        print_totals(&results);
    }
    Ok(Outcome::of(results.iter().all(|result| result.verdict != Verdict::Failed)))
}

fn chosen(arguments: &Chaos) -> Result<Vec<&'static Scenario>> {
    if arguments.short {
        return Ok(SCENARIOS.iter().filter(|scenario| scenario.in_short_set).collect());
    }
    if arguments.scenario.iter().any(|name| name == "all") {
        return Ok(SCENARIOS.iter().collect());
    }
    let one = |name: &String| match find(name) {
        Some(scenario) => Ok(scenario),
        None => Err(Usage::of(format!("there is no scenario {name:?}; `ringraft chaos --list` names them")).into()),
    };
    arguments.scenario.iter().map(one).collect()
}

fn list(as_json: bool) {
    for scenario in SCENARIOS.iter().filter(|_| !as_json) {
        let mut notes: Vec<&str> = scenario.needs.iter().map(|need| need.word()).collect();
        notes.extend(scenario.in_short_set.then_some("short set"));
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        println!("{:<24} {}{notes}", scenario.name, scenario.about);
    }
    if as_json {
        println!("{}", SCENARIOS.iter().map(row).collect::<Value>());
    }
}

fn row(scenario: &Scenario) -> Value {
    let needs: Vec<&str> = scenario.needs.iter().map(|need| need.word()).collect();
    json!({
        "name": scenario.name,
        "about": scenario.about,
        "nodes": scenario.nodes,
        "needs": needs,
        "short": scenario.in_short_set,
    })
}

/// Median and longest of all failovers, in milliseconds.
fn failover(results: &[RunResult]) -> Value {
    let mut times: Vec<u64> = results.iter().flat_map(|result| result.failovers_ms.iter().copied()).collect();
    times.sort_unstable();
    match times.last() {
        None => Value::Null,
        Some(longest) => json!({ "count": times.len(), "p50_ms": times[(times.len() - 1) / 2], "max_ms": longest }),
    }
}

fn print_totals(results: &[RunResult]) {
    let count = |verdict: Verdict| results.iter().filter(|result| result.verdict == verdict).count();
    println!("{} ok, {} failed, {} skipped", count(Verdict::Ok), count(Verdict::Failed), count(Verdict::Skipped));
    if let Value::Object(failover) = failover(results) {
        println!("failover: {} times, p50 {} ms, max {} ms", failover["count"], failover["p50_ms"], failover["max_ms"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(failovers_ms: Vec<u64>) -> RunResult {
        RunResult {
            scenario: "leader-kill".to_owned(),
            run: 1,
            verdict: Verdict::Ok,
            reason: None,
            elapsed_ms: 1,
            seed: 1,
            failovers_ms,
            summary: None,
            steps: Vec::new(),
            folder: None,
        }
    }

    #[test]
    fn the_median_and_the_longest_failover() {
        let results = [result(vec![30]), result(vec![10, 20])];
        assert_eq!(failover(&results), json!({ "count": 3, "p50_ms": 20, "max_ms": 30 }));
        assert_eq!(failover(&[result(Vec::new())]), Value::Null);
    }
}
