//! `ringraft doctor`: can this machine and this folder run a node, and how fast.
//!
//! Off the data path.
//! Invariant: every finding that is not ok names its remedy.
//! What it does not do: change anything but files of its own in the folder, which it removes.

mod disk;
mod glommio;
mod network;
mod system;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use ringraft_bench::Floor;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Outcome, SUCCESS};

const EXAMPLES: &str = "\
Examples:
  ringraft doctor --data-dir /var/lib/ringraft
  ringraft doctor --data-dir /var/lib/ringraft --shards 8 --json | jq .findings

Exit code: 0 when a node can run here (warnings included), 1 when something must change first.";

/// What one write alone pays at least with its data in `folder`: a flush and a round trip, by plain system calls; and what
/// the flush of a majority takes when all `nodes` have their data there.
pub(super) fn floor(folder: &Path, nodes: u64) -> Result<Floor> {
    let round_trip_us = network::measure()?.value_at_quantile(0.5) as f64;
    let flush_us = disk::flush_p50_us(folder, FLOOR_PATIENCE)? as f64;
    let majority_flush_us = disk::majority_flush_p50_us(folder, nodes, FLOOR_PATIENCE)? as f64;
    Ok(Floor { flush_us, round_trip_us, majority_flush_us })
}

const FLOOR_PATIENCE: Duration = Duration::from_millis(500);

/// Checks the machine and the data folder: kernel, io_uring, limits, direct I/O, flush latency, loopback.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Folder (or a place for it) to test: direct I/O, free space, flush latency.
    #[arg(long, visible_alias = "dir", value_name = "FOLDER", default_value = ".")]
    data_dir: PathBuf,
    /// Shards a node is to have here; limits are judged for so many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: u16,
    /// Longest time for each flush measurement, in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Builds an executor and writes one file: what the main process runs in a child.
    #[arg(long, hide = true)]
    probe_executor: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A node runs, but not as well or as safely as it could.
    Warn,
    /// A node cannot run.
    Bad,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "WARN",
            Self::Bad => "BAD",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    check: &'static str,
    level: Level,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    values: Map<String, Value>,
}

impl Finding {
    fn new(check: &'static str, level: Level, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into()).filter(|_| level != Level::Ok);
        Self { check, level, finding: finding.into(), remedy, values: Map::new() }
    }

    fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, finding, "")
    }

    fn bad(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Level::Bad, finding, remedy)
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}

pub(crate) fn run(arguments: &Doctor) -> Result<Outcome> {
    if arguments.probe_executor {
        self::glommio::probe(&arguments.data_dir)?;
        return Ok(SUCCESS);
    }
    let folder = disk::nearest_folder(&arguments.data_dir);
    let mut findings = vec![system::kernel(), system::io_uring_allowed(), system::executor(&folder)];
    findings.extend([system::memlock(arguments.shards), system::open_files(), system::cores(arguments.shards)]);
    findings.extend(disk::examine(&folder, arguments.seconds));
    findings.push(network::loopback());
    findings.push(election_timeout(&findings));
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if arguments.json {
        let report = json!({ "worst": worst, "data_dir": folder, "findings": findings });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", table(&findings));
    }
    Ok(Outcome::of(worst != Level::Bad))
}

/// A vote costs a flush and a round trip, a heartbeat a round trip; an election timeout must stand well above the
/// worst of both, or a slow flush is taken for a dead leader.
const FLUSHES_PER_ELECTION_TIMEOUT: u64 = 10;

fn election_timeout(findings: &[Finding]) -> Finding {
    let p999 = |name: &str| {
        let values = findings.iter().filter_map(|finding| finding.values.get(name)).filter_map(Value::as_u64);
        values.min()
    };
    let Some(flush_us) = p999("p999_us") else {
        return Finding::new(
            "election timeout",
            Level::Warn,
            "unknown: flushes could not be measured",
            "repair direct I/O on the folder first",
        );
    };
    let round_trip_us = p999("round_trip_p999_us").unwrap_or(0);
    let bears_ms = FLUSHES_PER_ELECTION_TIMEOUT * (flush_us + round_trip_us).div_ceil(1000);
    let (tick_ms, used_ms) = system::default_timers_ms();
    let text = format!("the flushes of this disk bear {bears_ms} ms and more; nodes use {used_ms} ms by default");
    let level = if bears_ms <= used_ms { Level::Ok } else { Level::Warn };
    let ticks = bears_ms.div_ceil(tick_ms);
    let remedy = format!(
        "use a faster disk, or start nodes with --election-ticks-min={ticks} --election-ticks-max={}",
        2 * ticks
    );
    Finding::new("election timeout", level, text, remedy).with("bears_ms", bears_ms).with("default_ms", used_ms)
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for finding in findings {
        let remedy = finding.remedy.as_ref().map(|remedy| format!("\n-> {remedy}")).unwrap_or_default();
        table.add_row([finding.level.to_string(), finding.check.to_owned(), format!("{}{remedy}", finding.finding)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_flushes_call_for_a_longer_election_timeout() {
        let flush = |us: u64| Finding::ok("flush", "").with("p999_us", us);
        assert_eq!(election_timeout(&[flush(900)]).level, Level::Ok);
        let slow = election_timeout(&[flush(400_000), flush(500_000)]);
        assert_eq!(slow.level, Level::Warn);
        assert_eq!(slow.values["bears_ms"], 4000);
        assert!(slow.remedy.is_some_and(|remedy| remedy.contains("--election-ticks-min=160")));
        assert_eq!(election_timeout(&[]).level, Level::Warn);
    }

    #[test]
    fn only_an_ok_finding_has_no_remedy() {
        assert!(Finding::ok("a", "b").remedy.is_none());
        assert!(Finding::new("a", Level::Warn, "b", "c").remedy.is_some());
        assert!(Level::Bad > Level::Warn && Level::Warn > Level::Ok);
    }
}
