//! `ringraft bench --idle`: what groups cost that nobody uses, and how soon all of them have a leader after a restart.
//!
//! Off the data path.
//! Invariants: nothing is asked of the nodes while their processor time is counted; what is counted is that of all node
//! processes together, with their io_uring workers, against one core.
//!
//! ```text
//!   start ── all lead ── settle ── count ── stop all ── start ── all lead ── settle ── count
//!     └─ elected_ms ─┘   --warmup  --duration             └─ elected_ms ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use ringraft_bench::BenchArgs;
use ringraft_bench::system::Sampler;
use ringraft_tools::local_cluster::LocalCluster;
use ringraft_tools::status::{self, ClusterStatus};
use serde::Serialize;

use super::bench::{START_PATIENCE, STOP_PATIENCE, servers};

/// How long a sleep may go on after ^C.
const SLICE: Duration = Duration::from_millis(100);

/// From a start of all nodes on.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    phase: &'static str,
    /// From the start of the processes until every group had a leader that serves.
    elected_ms: u64,
    /// Groups each node led then.
    leaders_at_once: BTreeMap<u64, usize>,
    /// Processor time of all nodes in percent of one core.
    cpu_percent: f64,
    /// Groups each node led at the end.
    leaders: BTreeMap<u64, usize>,
    /// Resident memory of all nodes.
    rss_bytes: u64,
}

/// Measures a cluster that was just started: `started` is when its first process was.
pub(super) fn run(bench: &BenchArgs, cluster: &mut LocalCluster, started: Instant, stop: &AtomicBool) -> Result<bool> {
    let mut phases = Vec::new();
    let status = cluster.wait_until_serving(START_PATIENCE)?;
    phases.push(counted(bench, cluster, ("first start", started.elapsed()), &status, stop)?);
    cluster.stop(STOP_PATIENCE)?;
    let started = Instant::now();
    cluster.start()?;
    let status = cluster.wait_until_serving(START_PATIENCE)?;
    phases.push(counted(bench, cluster, ("restart", started.elapsed()), &status, stop)?);
    print(&phases, (cluster.file().groups, cluster.file().nodes.len()), bench)?;
    Ok(true)
}

fn counted(
    bench: &BenchArgs,
    cluster: &mut LocalCluster,
    (phase, elected): (&'static str, Duration),
    status: &ClusterStatus,
    stop: &AtomicBool,
) -> Result<Phase> {
    eprintln!("{phase}: all groups have a leader after {:.2} s", elected.as_secs_f64());
    sleep(bench.warmup, stop)?;
    let nodes = servers(cluster);
    ensure!(nodes.len() == cluster.file().nodes.len(), "a node ended by itself");
    let sampler = Sampler::new(&nodes);
    let (before, begun) = (sampler.sample(0), Instant::now());
    sleep(bench.duration, stop)?;
    let (after, counted) = (sampler.sample(0), begun.elapsed());
    let cpu_us = |sample: Option<u64>| sample.context("the processor time of a node cannot be read");
    let used_us = cpu_us(after.server_cpu_us)? - cpu_us(before.server_cpu_us)?;
    Ok(Phase {
        phase,
        elected_ms: u64::try_from(elected.as_millis()).unwrap_or(u64::MAX),
        leaders_at_once: led(status),
        cpu_percent: used_us as f64 * 100.0 / counted.as_micros() as f64,
        leaders: led(&status::cluster(&cluster.file().addresses())),
        rss_bytes: after.server_rss_bytes.unwrap_or(0),
    })
}

/// Groups by the node that leads them.
fn led(status: &ClusterStatus) -> BTreeMap<u64, usize> {
    let mut led = BTreeMap::new();
    for (leader, _) in status.leaders().values() {
        *led.entry(*leader).or_default() += 1;
    }
    led
}

fn sleep(duration: Duration, stop: &AtomicBool) -> Result<()> {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted before anything was measured");
        thread::sleep(left.min(SLICE));
    }
    Ok(())
}

fn print(phases: &[Phase], (groups, nodes): (u32, usize), bench: &BenchArgs) -> Result<()> {
    if bench.json {
        let (seconds, version) = (bench.duration.as_secs_f64(), env!("CARGO_PKG_VERSION"));
        let host = ringraft_bench::host::facts(&BTreeSet::new());
        let report = serde_json::json!({
            "idle": phases, "groups": groups, "nodes": nodes, "duration_s": seconds, "version": version, "host": host,
        });
        println!("{report}");
        return Ok(());
    }
    println!("{groups} groups on {nodes} nodes\n{}", table(phases));
    Ok(())
}

fn table(phases: &[Phase]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "all have a leader", "leaders then", "CPU of all nodes", "leaders later", "memory"]);
    let shown = |led: &BTreeMap<u64, usize>| {
        led.iter().map(|(node, count)| format!("n{node} {count}")).collect::<Vec<_>>().join(", ")
    };
    for phase in phases {
        table.add_row([
            phase.phase.to_owned(),
            format!("{:.2} s", phase.elected_ms as f64 / 1e3),
            shown(&phase.leaders_at_once),
            format!("{:.2} % of one core", phase.cpu_percent),
            shown(&phase.leaders),
            format!("{} MiB", phase.rss_bytes >> 20),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_start() {
        let leaders = BTreeMap::from([(1, 3), (2, 4)]);
        let (leaders_at_once, rss_bytes) = (leaders.clone(), 5 << 20);
        let phase =
            Phase { phase: "restart", elected_ms: 1_500, leaders_at_once, cpu_percent: 3.25, leaders, rss_bytes };
        let text = table(&[phase]).to_string();
        assert!(
            text.contains("1.50 s") && text.contains("3.25 % of one core") && text.contains("n1 3, n2 4"),
            "{text}"
        );
    }
}
