//! `ringraft bench suite`: six benchmarks, each on a local cluster of its own, and one report of them all.
//!
//! Off the data path.
//! Invariants: loads are open loops, latency runs from the intended start; what was written to files before a later
//! benchmark failed stays; a benchmark whose promises did not hold makes the exit code 1.
//!
//! ```text
//!   for each name:  cluster ── load (+ what happens meanwhile) ── Section ──▶ DIR/NAME.txt
//!   at the end:     all sections ──▶ DIR/suite.json, DIR/suite.html, standard output
//! ```

mod failover;
mod latency;
mod page;
mod section;
mod slow_follower;
mod stale;
mod testbed;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ringraft_bench::duration;
use ringraft_bench::host::{self, HostFacts};
use ringraft_bench::system::DeviceNumber;
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use section::Section;
use testbed::Testbed;

const EXAMPLES: &str = "\
Examples:
  ringraft bench suite                                            all six, about three minutes
  ringraft bench suite write_latency read_latency --rate 10000 --duration 30s
  ringraft bench suite failover_time --rounds 20 --out results
  ringraft bench suite slow_follower_recovery --absence 30s
  ringraft bench suite --nodes 5 -- --log-level warn              further arguments of every node
  ringraft bench suite --json | jq '.benchmarks.failover_time.first_write_ms'

Every benchmark starts a cluster of its own on this machine. bench/METHODOLOGY.md says what each measures.
Exit code 0: every promise held (no failed operation, no stale answer where none is allowed, everybody caught up).";

/// The benchmarks, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Name {
    /// Puts at a fixed rate
    WriteLatency,
    /// Linearizable gets at a fixed rate
    ReadLatency,
    /// Deletes of keys that exist at a fixed rate
    DeleteLatency,
    /// kill -9 of the leader under load: time to the first write of the next one
    FailoverTime,
    /// How old what reads find is, and what they cost, by consistency
    StaleReads,
    /// A follower that slept, and one that was killed, catch up under load
    SlowFollowerRecovery,
}

impl Name {
    const ALL: [Self; 6] = [
        Self::WriteLatency,
        Self::ReadLatency,
        Self::DeleteLatency,
        Self::FailoverTime,
        Self::StaleReads,
        Self::SlowFollowerRecovery,
    ];

    fn run(self, testbed: &mut Testbed<'_>) -> Result<Section> {
        match self {
            Self::WriteLatency => latency::write(testbed),
            Self::ReadLatency => latency::read(testbed),
            Self::DeleteLatency => latency::delete(testbed),
            Self::FailoverTime => failover::run(testbed),
            Self::StaleReads => stale::run(testbed),
            Self::SlowFollowerRecovery => slow_follower::run(testbed),
        }
    }
}

/// Six benchmarks, alone or all, each on a temporary local cluster of its own; results as text, JSON and one page with
/// plots.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Suite {
    /// Which; all when none is named
    #[arg(value_enum, value_name = "NAME")]
    names: Vec<Name>,
    /// Operations per second, sent when they are due whatever the cluster does
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    rate: u64,
    /// How long to measure each latency, for example 10s, 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// How long to load before measuring
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    warmup: Duration,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    value_size: u32,
    /// Number of distinct keys
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// How often failover_time kills the leader
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long the follower of slow_follower_recovery is away
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    absence: Duration,
    /// Seed of keys, values and order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Nodes of each cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=7))]
    nodes: u64,
    /// Folder for NAME.txt, suite.json and suite.html
    #[arg(long, value_name = "DIR", default_value = ".results/benchmark")]
    out: PathBuf,
    /// Where the temporary clusters are made: must be a real disk [default: the temporary folder, or the current folder
    /// if that is in memory]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print suite.json instead of text
    #[arg(long)]
    json: bool,
    /// Further arguments of each node, behind `--`
    #[arg(last = true, value_name = "NODE ARGUMENTS")]
    node_arguments: Vec<String>,
}

impl Suite {
    /// Those that were asked for, each once, in their order.
    fn chosen(&self) -> Vec<Name> {
        let all = if self.names.is_empty() { Name::ALL.to_vec() } else { self.names.clone() };
        all.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What was run, when and where.
struct Report {
    generated_utc: String,
    command: String,
    host: HostFacts,
    warnings: Vec<String>,
    sections: Vec<Section>,
}

/// What must be kept in mind with all figures.
const CAVEATS: [&str; 5] = [
    "Latency runs from the moment an operation was meant to start, so that a stall shows in every operation it delayed \
     (no coordinated omission). Times are of the client, over loopback.",
    "Tails (p95, p99 and beyond) vary from run to run by the jitter of the scheduler, the disk and whatever else the \
     machine does. Compare medians of several runs on the same machine.",
    "All nodes and the load generator share the processors and one disk. CPU per operation is that of all nodes together.",
    "Heap allocations of the server processes are not counted here. That the leader's shard makes none for a put is \
     tested: cargo test -p ringraft-engine --test allocations.",
    "Units: ops/s is operations per second, us microseconds (1e-6 s), ms milliseconds (1e-3 s), MiB 1,048,576 bytes.",
];

/// Runs what was asked for; whether all promises held.
pub(super) fn run(suite: &Suite, stop: &AtomicBool) -> Result<bool> {
    ensure!(!suite.duration.is_zero() && !suite.absence.is_zero(), "--duration and --absence must be longer than zero");
    fs::create_dir_all(&suite.out).with_context(|| format!("cannot make {}", suite.out.display()))?;
    let mut devices = BTreeSet::new();
    let mut report = Report {
        generated_utc: now_utc()?,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        host: HostFacts::default(),
        warnings: warnings(),
        sections: Vec::new(),
    };
    for name in suite.chosen() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        report.sections.push(one(name, suite, stop, &mut devices)?);
    }
    ensure!(!report.sections.is_empty(), "stopped before anything was measured");
    report.host = host::facts(&devices);
    let as_json = serde_json::to_string_pretty(&report.to_json())?;
    write(&suite.out, "suite.json", &(as_json.clone() + "\n"))?;
    write(&suite.out, "suite.html", &page::page(&report))?;
    if suite.json {
        println!("{as_json}");
    } else {
        println!("{}\n\nfiles: {}", report.text(), suite.out.display());
    }
    Ok(report.is_good() && !stop.load(Ordering::Relaxed))
}

fn one(name: Name, suite: &Suite, stop: &AtomicBool, devices: &mut BTreeSet<DeviceNumber>) -> Result<Section> {
    let label = name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    eprintln!("{label}: a cluster of {} nodes", suite.nodes);
    let mut testbed = Testbed::start(suite, stop)?;
    let section = name.run(&mut testbed).with_context(|| format!("{label} gave no figures"))?;
    devices.append(&mut testbed.stop()?);
    write(&suite.out, &format!("{}.txt", section.name), &(section.text() + "\n"))?;
    Ok(section)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Now, as `2026-02-22T23:35:50.123456Z`.
fn now_utc() -> Result<String> {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text)).context("cannot tell the time")?;
    Ok(text)
}

fn warnings() -> Vec<String> {
    let slow = "This binary was built without optimisation: its figures say nothing about ringraft.";
    if cfg!(debug_assertions) { vec![slow.to_owned()] } else { Vec::new() }
}

impl Report {
    fn is_good(&self) -> bool {
        self.sections.iter().all(|section| section.problems.is_empty())
    }

    fn machine(&self) -> String {
        let host = &self.host;
        let mut text = format!(
            "{}: Linux {}, {} x {}, {:.0} GiB",
            host.hostname,
            host.kernel,
            host.processors,
            host.processor,
            host.memory_bytes as f64 / 1_073_741_824.0
        );
        for disk in &host.disks {
            let cache = disk.write_cache.as_deref().unwrap_or("unknown");
            text.push_str(&format!("; {} on {} (write cache: {cache})", disk.filesystem, disk.device));
        }
        text
    }

    fn to_json(&self) -> Value {
        let benchmarks: Map<String, Value> =
            self.sections.iter().map(|section| (section.name.to_owned(), section.to_json())).collect();
        json!({
            "generated_utc": self.generated_utc,
            "version": env!("CARGO_PKG_VERSION"),
            "command": self.command,
            "host": self.host,
            "ok": self.is_good(),
            "warnings": self.warnings,
            "caveats": CAVEATS,
            "benchmarks": benchmarks,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("generated (UTC): {}\n{}\n", self.generated_utc, self.machine());
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        for section in &self.sections {
            text.push_str(&format!("\n{}\n", section.text()));
        }
        text.push('\n');
        text.push_str(&CAVEATS.map(|caveat| format!("- {caveat}")).join("\n"));
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        suite: Suite,
    }

    fn parse(words: &[&str]) -> Result<Suite, clap::Error> {
        Program::try_parse_from(std::iter::once(&"suite").chain(words)).map(|program| program.suite)
    }

    #[test]
    fn names_are_chosen_once_and_in_order() {
        assert_eq!(parse(&[]).unwrap().chosen(), Name::ALL);
        let some = parse(&["stale_reads", "write_latency", "stale_reads"]).unwrap();
        assert_eq!(some.chosen(), [Name::WriteLatency, Name::StaleReads]);
        assert!(parse(&["write-latency"]).is_err() && parse(&["--rate", "0"]).is_err());
        let with = parse(&["failover_time", "--", "--log-level", "debug"]).unwrap();
        assert_eq!(with.node_arguments, ["--log-level", "debug"]);
    }

    #[test]
    fn the_time_is_in_utc() {
        let now = now_utc().unwrap();
        assert!(now.len() >= 20 && now.ends_with('Z') && now.as_bytes()[10] == b'T', "{now}");
    }
}
