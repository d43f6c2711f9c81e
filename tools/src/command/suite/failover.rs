//! `failover_time`: the leader is killed under load, again and again; how long nobody could write.
//!
//! Off the data path.
//! Invariant: a failover is over when a put that was meant to start after the old leader's process was gone is
//! acknowledged; nothing the old leader did can be taken for it.

use std::time::Duration;

use anyhow::{Context, Result};
use ringraft_bench::plot::Moments;
use ringraft_bench::samples::first_success_after;
use ringraft_bench::{BenchArgs, Sampled};
use ringraft_tools::status;
use serde::Serialize;
use serde_json::json;

use super::section::{self, Grid, Section};
use super::testbed::{Meanwhile, PATIENCE, Testbed};

/// Load between two kills.
const CALM: Duration = Duration::from_secs(1);

/// One kill.
#[derive(Clone, Copy, Debug)]
struct Kill {
    old: u64,
    new: u64,
    /// Just before the signal.
    killed_ns: u64,
    /// The process is gone.
    gone_ns: u64,
    /// Another node said that it leads and serves.
    elected_ns: u64,
    started_ns: u64,
}

/// What a kill cost.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    old_leader: u64,
    new_leader: u64,
    /// Seconds since the window began.
    killed_at_s: f64,
    elected_ms: f64,
    first_write_ms: Option<f64>,
}

/// Runs it.
pub(super) fn run(testbed: &mut Testbed<'_>) -> Result<Section> {
    let rounds = testbed.suite.rounds;
    let load = BenchArgs { timeout: Duration::from_secs(30), ..testbed.load()? };
    let (sampled, kills) = testbed.run_during(&load, |meanwhile| {
        let mut kills = Vec::new();
        for _ in 0..rounds {
            kills.push(kill(meanwhile)?);
        }
        meanwhile.sleep(CALM)?;
        Ok(kills)
    })?;
    let about = format!(
        "{} puts per second (open loop) while the leader is killed (kill -9) {rounds} times and started again. A failover is \
         over when a put that was meant to start after the process was gone is acknowledged.",
        load.rate
    );
    let mut section = Section::new("failover_time", about);
    section.expect_no_errors("failover_time", &sampled);
    fill(&mut section, &sampled, &kills)?;
    Ok(section)
}

fn kill(meanwhile: &mut Meanwhile<'_>) -> Result<Kill> {
    meanwhile.sleep(CALM)?;
    let old = meanwhile.leader()?;
    let others = meanwhile.addresses_without(old);
    let killed_ns = meanwhile.now();
    meanwhile.cluster.kill(old)?;
    let gone_ns = meanwhile.now();
    let new =
        meanwhile.wait("a new leader", || Ok(status::cluster(&others).leaders().get(&0).map(|(node, _)| *node)))?;
    let elected_ns = meanwhile.now();
    meanwhile.sleep(CALM)?;
    let started_ns = meanwhile.now();
    meanwhile.cluster.start_node(old)?;
    meanwhile.cluster.wait_until_serving(PATIENCE).with_context(|| format!("node {old} does not come back"))?;
    eprintln!("  node {old} was killed, node {new} leads");
    Ok(Kill { old, new, killed_ns, gone_ns, elected_ns, started_ns })
}

fn fill(section: &mut Section, sampled: &Sampled, kills: &[Kill]) -> Result<()> {
    let start_ns = sampled.window_start_ns;
    let rounds: Vec<Round> = kills.iter().map(|kill| round(kill, sampled)).collect();
    let unfinished = rounds.iter().filter(|round| round.first_write_ms.is_none()).count();
    if unfinished > 0 {
        section.problems.push(format!("{unfinished} failovers without a write after them"));
    }
    let mut grid = Grid::new(&["kill", "at", "old leader", "new leader", "elected after", "first write after"]);
    for (number, round) in rounds.iter().enumerate() {
        let first = round.first_write_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0} ms"));
        let (old, new) = (round.old_leader, round.new_leader);
        let elected = format!("{:.0} ms", round.elected_ms);
        let at = format!("{:.1} s", round.killed_at_s);
        grid.row([format!("{}", number + 1), at, format!("node {old}"), format!("node {new}"), elected, first]);
    }
    section.grids.push(grid);
    let mut sorted: Vec<f64> = rounds.iter().filter_map(|round| round.first_write_ms).collect();
    sorted.sort_by(f64::total_cmp);
    let mut summary = Grid::new(&["first write after a kill", "time"]);
    if let (Some(least), Some(greatest)) = (sorted.first(), sorted.last()) {
        let middle = sorted[(sorted.len() - 1) / 2];
        for (name, value) in [("least", least), ("median", &middle), ("greatest", greatest)] {
            summary.row([name.to_owned(), format!("{value:.0} ms")]);
        }
        section.figures["first_write_ms"] = json!({ "min": least, "p50": middle, "max": greatest });
    }
    section.grids.push(summary);
    section.grids.push(section::loads(&[("put", sampled)]));
    section.figures["rounds"] = json!(rounds);
    section.figures["load"] = section::load_figures(sampled);
    let times = |at: fn(&Kill) -> u64| kills.iter().map(|kill| seconds(at(kill), start_ns)).collect();
    let killed = Moments { name: "leader killed", at_s: times(|kill| kill.killed_ns) };
    let started = Moments { name: "old leader started", at_s: times(|kill| kill.started_ns) };
    let title = "puts while leaders are killed: latency over time";
    section.plots.push(section::over_time(title, sampled, vec![killed, started])?);
    section
        .plots
        .push(section::percentiles("puts while leaders are killed: latency by percentile", &[("put", sampled)])?);
    Ok(())
}

fn seconds(at_ns: u64, start_ns: u64) -> f64 {
    at_ns.saturating_sub(start_ns) as f64 / 1e9
}

fn round(kill: &Kill, sampled: &Sampled) -> Round {
    let since = |at_ns: u64| (at_ns.saturating_sub(kill.killed_ns) as f64 / 1e5).round() / 10.0;
    Round {
        old_leader: kill.old,
        new_leader: kill.new,
        killed_at_s: seconds(kill.killed_ns, sampled.window_start_ns),
        elected_ms: since(kill.elected_ns),
        first_write_ms: first_success_after(&sampled.samples, kill.gone_ns).map(since),
    }
}
