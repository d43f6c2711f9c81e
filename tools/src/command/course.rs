//! `ringraft bench --grow` and `--outage`: what a change of nodes, or a node that comes back, costs those who use the
//! cluster meanwhile.
//!
//! Off the data path.
//! Invariants: each step is measured by a load of its own that begins before the step and ends after it, so that latency
//! from the intended start shows every stall the step made; a step that fails ends the run; each step has a folder of its
//! own in that of `--output`.
//!
//! ```text
//!   --grow    3 nodes ── add, add ──▶ 5 ── add, add ──▶ 7 ── remove the oldest four ──▶ 3 ── wipe one, replace it ──▶ 3
//!   --outage  3 nodes ── a follower of group 0 sleeps for 30 s ── it wakes and catches up ── the same with kill -9 and start
//! ```

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use comfy_table::{Table, presets};
use ringraft_bench::{BenchArgs, Ended};
use ringraft_tools::local_cluster::LocalCluster;
use ringraft_tools::status::{self, ClusterStatus};
use rustix::process::Signal;
use serde::Serialize;

/// Longest a step may take.
const STEP_PATIENCE: Duration = Duration::from_secs(300);
/// Load without a step, for comparison.
const STEADY: Duration = Duration::from_secs(10);
/// Load without one of the nodes.
const OUTAGE: Duration = Duration::from_secs(30);
/// A replica that lacks no more entries of its group has caught up: some are always on their way.
const LAG_MAX: u64 = 2_000;
/// Between two looks at a node that catches up.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at a load that begins.
const BEGIN_LOOK: Duration = Duration::from_millis(5);
/// Load before a step: not measured, and then measured.
const BEFORE: Duration = Duration::from_secs(1);
/// No step takes as long: the load ends with it.
const LOAD_MAX: Duration = Duration::from_secs(86_400);

/// One step and the load beside it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phase {
    step: String,
    nodes: usize,
    step_ms: u64,
    operations: u64,
    errors: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Steady,
    Add,
    RemoveOldest,
    ReplaceWiped,
    Sleep,
    Wake,
    Kill,
    Start,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Add => "add",
            Self::RemoveOldest => "remove-oldest",
            Self::ReplaceWiped => "replace-wiped",
            Self::Sleep => "sleep",
            Self::Wake => "wake",
            Self::Kill => "kill",
            Self::Start => "start",
        }
    }
}

/// A course of a run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Course {
    Grow,
    Outage,
}

impl Course {
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Grow => &GROW,
            Self::Outage => &OUTAGES,
        }
    }
}

const OUTAGES: [Step; 7] = [Step::Steady, Step::Sleep, Step::Wake, Step::Steady, Step::Kill, Step::Start, Step::Steady];

const GROW: [Step; 13] = [
    Step::Steady,
    Step::Add,
    Step::Add,
    Step::Steady,
    Step::Add,
    Step::Add,
    Step::Steady,
    Step::RemoveOldest,
    Step::RemoveOldest,
    Step::RemoveOldest,
    Step::RemoveOldest,
    Step::ReplaceWiped,
    Step::Steady,
];

/// Where the files of each step go, if files are asked for.
fn outputs(course: Course, bench: &BenchArgs) -> Vec<Option<PathBuf>> {
    let numbered = (1..).zip(course.steps());
    let folder = |(number, step): (u32, &Step)| {
        bench.output.as_ref().map(|output| output.join(format!("{number:02}-{}", step.word())))
    };
    numbered.map(folder).collect()
}

/// Makes the folders of all steps, before anything runs.
pub(super) fn prepare_output(course: Course, bench: &BenchArgs) -> Result<()> {
    for folder in outputs(course, bench).into_iter().flatten() {
        ringraft_bench::prepare_output(&folder)?;
    }
    Ok(())
}

/// Runs all steps; whether no operation failed.
pub(super) fn run(course: Course, bench: &BenchArgs, cluster: &mut LocalCluster, stop: &AtomicBool) -> Result<bool> {
    let steps = course.steps();
    let load = BenchArgs { duration: LOAD_MAX, warmup: BEFORE, ..bench.clone() };
    let (mut phases, mut all_written) = (Vec::new(), true);
    for (&step, output) in steps.iter().zip(outputs(course, bench)) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some((phase, ended)) = measured(&load, cluster, step, stop)? else { break };
        eprintln!("{}: {} ms, {} of {} failed", phase.step, phase.step_ms, phase.errors, phase.operations);
        if let Some(Err(error)) = output.map(|folder| ended.write(&folder)) {
            eprintln!("ringraft: {error}");
            all_written = false;
        }
        phases.push(phase);
    }
    print(&phases, bench.json)?;
    let good = phases.iter().all(|phase| phase.errors == 0 && phase.operations > 0);
    Ok(phases.len() == steps.len() && good && all_written)
}

/// A step and the load beside it; `None`: stopped before it was taken.
fn measured(
    load: &BenchArgs,
    cluster: &mut LocalCluster,
    step: Step,
    stop: &AtomicBool,
) -> Result<Option<(Phase, Ended)>> {
    let endpoints = cluster.file().endpoints();
    let run = |flags: (&AtomicBool, &AtomicBool)| Ok(ringraft_bench::run_until(load, &[], &endpoints, flags)?);
    let taken = beside(run, BEFORE, stop, || {
        let start = Instant::now();
        take(cluster, step).map(|name| (name, start.elapsed()))
    });
    let Some((ended, (name, took))) = taken.with_context(|| format!("step `{}`", step.word()))? else {
        return Ok(None);
    };
    let report = &ended.report;
    let latency = &report.system.latency_us;
    let phase = Phase {
        step: name,
        nodes: cluster.file().nodes.len(),
        step_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        operations: report.system.operations,
        errors: report.system.errors,
        p50_us: latency.p50,
        p99_us: latency.p99,
        max_us: latency.max,
    };
    Ok(Some((phase, ended)))
}

/// Takes a step beside a load, `before` after the load's window has begun, and ends the load behind it. The load is given
/// the flags that it raises when its window begins and that end it. `None`: stopped before the step was taken.
fn beside<L: Send, S>(
    load: impl FnOnce((&AtomicBool, &AtomicBool)) -> Result<L> + Send,
    before: Duration,
    stop: &AtomicBool,
    step: impl FnOnce() -> Result<S>,
) -> Result<Option<(L, S)>> {
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (loaded, stepped) = thread::scope(|scope| {
        let loading = scope.spawn(|| load((&begun, &done)));
        while !(begun.load(Ordering::Acquire) || loading.is_finished() || stop.load(Ordering::Relaxed)) {
            thread::sleep(BEGIN_LOOK);
        }
        let is_loaded = begun.load(Ordering::Acquire) && !stop.load(Ordering::Relaxed);
        let stepped = is_loaded.then(|| {
            thread::sleep(before);
            step()
        });
        done.store(true, Ordering::Relaxed);
        (loading.join().map_err(|_| anyhow!("the load panicked")), stepped)
    });
    match stepped {
        // Why the step failed is the better reason: the load ended because of it.
        Some(stepped) => {
            let stepped = stepped?;
            Ok(Some((loaded??, stepped)))
        }
        None if stop.load(Ordering::Relaxed) => Ok(None),
        None => {
            loaded??;
            bail!("the load ended by itself")
        }
    }
}

/// Takes a step; its name.
fn take(cluster: &mut LocalCluster, step: Step) -> Result<String> {
    let tell = |line: &str| eprintln!("  {line}");
    let oldest = || cluster.file().nodes.iter().map(|node| node.id).min().context("the cluster has no nodes");
    match step {
        Step::Steady => {
            thread::sleep(STEADY);
            Ok(format!("{} nodes, no change", cluster.file().nodes.len()))
        }
        Step::Add => {
            let id = cluster.add_node(None, STEP_PATIENCE, tell)?;
            Ok(format!("add node {id}"))
        }
        Step::RemoveOldest => {
            let id = oldest()?;
            cluster.remove_node(id, STEP_PATIENCE, tell)?;
            Ok(format!("remove node {id}"))
        }
        Step::ReplaceWiped => {
            let old = oldest()?;
            cluster.kill(old)?;
            let data = cluster.data_directory(old);
            fs::remove_dir_all(&data).with_context(|| format!("cannot wipe {}", data.display()))?;
            let id = cluster.add_node(Some(old), STEP_PATIENCE, tell)?;
            Ok(format!("wipe node {old}, replace it by {id}"))
        }
        Step::Sleep => {
            let id = follower(cluster)?;
            cluster.signal(id, Signal::STOP)?;
            thread::sleep(OUTAGE);
            Ok(format!("node {id} sleeps"))
        }
        Step::Wake => {
            let id = absent(cluster)?;
            cluster.signal(id, Signal::CONT)?;
            Ok(format!("node {id} wakes, {} entries behind", catch_up(cluster, id, tell)?))
        }
        Step::Kill => {
            let id = follower(cluster)?;
            cluster.kill(id)?;
            thread::sleep(OUTAGE);
            Ok(format!("node {id} is down"))
        }
        Step::Start => {
            let id = absent(cluster)?;
            cluster.start_node(id)?;
            Ok(format!("node {id} starts, {} entries behind", catch_up(cluster, id, tell)?))
        }
    }
}

/// The node that does not answer.
fn absent(cluster: &LocalCluster) -> Result<u64> {
    let status = status::cluster(&cluster.file().addresses());
    let answers = |id| status.shards.iter().any(|shard| shard.node == id);
    let ids = cluster.file().nodes.iter().map(|node| node.id);
    ids.into_iter().find(|id| !answers(*id)).context("all nodes answer")
}

/// A node that does not lead group 0.
fn follower(cluster: &LocalCluster) -> Result<u64> {
    let leaders = status::cluster(&cluster.file().addresses()).leaders();
    let (leader, _) = leaders.get(&0).context("group 0 has no leader")?;
    let others = cluster.file().nodes.iter().map(|node| node.id).filter(|id| id != leader);
    others.max().context("the cluster has one node")
}

/// Waits until a node has nearly all entries of its groups; how many it lacked when it was first seen.
fn catch_up(cluster: &LocalCluster, id: u64, tell: impl Fn(&str)) -> Result<u64> {
    let deadline = Instant::now() + STEP_PATIENCE;
    let mut first = None;
    loop {
        let lag = lag_of(&status::cluster(&cluster.file().addresses()), id, cluster.file().groups);
        if let (None, Some(lag)) = (first, lag) {
            tell(&format!("node {id} lacks {lag} entries"));
            first = Some(lag);
        }
        if let (Some(first), Some(..=LAG_MAX)) = (first, lag) {
            return Ok(first);
        }
        ensure!(Instant::now() < deadline, "node {id} has not caught up in time: {lag:?} entries are missing");
        thread::sleep(LOOK);
    }
}

/// Entries that a node lacks of all groups; `None`: it does not answer.
fn lag_of(status: &ClusterStatus, id: u64, groups: u32) -> Option<u64> {
    status.shards.iter().find(|shard| shard.node == id)?;
    let lag = |group| {
        let applied = status.replicas(group).find(|(node, _)| *node == id)?.1.last_applied;
        let committed = status.replicas(group).map(|(_, replica)| replica.commit_index).max()?;
        Some(committed.saturating_sub(applied))
    };
    Some((0..groups).filter_map(lag).sum())
}

fn print(phases: &[Phase], as_json: bool) -> Result<()> {
    ensure!(!phases.is_empty(), "stopped before anything was measured");
    if as_json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "phases": phases }))?);
        return Ok(());
    }
    println!("{}", table(phases));
    Ok(())
}

fn table(phases: &[Phase]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["step", "nodes", "time", "operations", "failed", "p50", "p99", "max"]);
    for phase in phases {
        let latencies = [phase.p50_us, phase.p99_us, phase.max_us].map(|us| format!("{:.2} ms", us / 1e3));
        let mut row = vec![phase.step.clone(), phase.nodes.to_string(), format!("{:.1} s", phase.step_ms as f64 / 1e3)];
        row.extend([phase.operations.to_string(), phase.errors.to_string()]);
        row.extend(latencies);
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_go_from_three_to_seven_and_back() {
        let mut nodes = vec![3_i32];
        for step in GROW {
            let change = match step {
                Step::Add => 1,
                Step::RemoveOldest => -1,
                _ => 0,
            };
            nodes.push(nodes[nodes.len() - 1] + change);
        }
        assert_eq!((nodes.iter().max(), nodes.iter().min(), nodes.last()), (Some(&7), Some(&3), Some(&3)));
    }

    #[test]
    fn a_step_waits_for_a_load_that_is_slow_to_begin() {
        let (measuring, never) = (AtomicBool::new(false), AtomicBool::new(false));
        let load = |(begun, done): (&AtomicBool, &AtomicBool)| {
            thread::sleep(Duration::from_millis(300));
            measuring.store(true, Ordering::SeqCst);
            begun.store(true, Ordering::Release);
            while !done.load(Ordering::Relaxed) {
                thread::sleep(BEGIN_LOOK);
            }
            Ok("figures")
        };
        let step = || Ok(measuring.load(Ordering::SeqCst));
        let taken = beside(load, Duration::from_millis(1), &never, step).expect("both went well");
        assert_eq!(taken, Some(("figures", true)));
    }

    #[test]
    fn no_step_without_a_load() {
        let never = AtomicBool::new(false);
        let load = |_: (&AtomicBool, &AtomicBool)| -> Result<()> { bail!("nobody is there") };
        let error = beside(load, BEFORE, &never, || -> Result<()> { panic!("it was taken") }).expect_err("no load");
        assert_eq!(error.to_string(), "nobody is there");
        let load = |(_, done): (&AtomicBool, &AtomicBool)| {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(BEGIN_LOOK);
            }
            Ok(())
        };
        let stopped = beside(load, BEFORE, &AtomicBool::new(true), || -> Result<()> { panic!("it was taken") });
        assert!(stopped.is_ok_and(|taken| taken.is_none()));
    }

    #[test]
    fn each_step_has_a_folder_of_its_own() {
        let command = <BenchArgs as clap::Args>::augment_args(clap::Command::new("bench")).no_binary_name(true);
        let matches = command.get_matches_from(["--output", "results"]);
        let bench = <BenchArgs as clap::FromArgMatches>::from_arg_matches(&matches).expect("it is understood");
        for course in [Course::Grow, Course::Outage] {
            let mut folders = outputs(course, &bench);
            assert_eq!(folders[0], Some(PathBuf::from("results/01-steady")));
            folders.sort_unstable();
            folders.dedup();
            assert_eq!(folders.len(), course.steps().len());
        }
    }

    #[test]
    fn a_row_for_each_step() {
        let phase = Phase {
            step: "add node 4".to_owned(),
            nodes: 4,
            step_ms: 1_500,
            operations: 9,
            errors: 0,
            p50_us: 700.0,
            p99_us: 4_200.0,
            max_us: 9_000.0,
        };
        let text = table(&[phase]).to_string();
        assert!(text.contains("add node 4") && text.contains("1.5 s") && text.contains("4.20 ms"), "{text}");
    }
}
