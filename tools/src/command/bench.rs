//! `ringraft bench`: loads a cluster and reports; starts one for the run if none is given.
//!
//! Off the data path.
//! Invariant: a cluster that was started here is stopped and its folder removed, also after ^C; should this process be
//! killed, its nodes stop by themselves; what was measured is printed whatever fails afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use clap::{Args, Subcommand};
use ringraft_bench::{BenchArgs, Ended, Floor, Protocol, ServerProcess};
use ringraft_tools::folder::real_folder;
use ringraft_tools::local_cluster::{Http, Lifetime, LocalCluster, Shape};
use ringraft_tools::output;
use tempfile::TempDir;

use super::course::{self, Course};
use super::suite::{self, Suite};
use super::{Outcome, Usage, doctor, idle, interrupt};

pub(super) const START_PATIENCE: Duration = Duration::from_secs(30);
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Loads a cluster, by default a temporary one of three nodes on this machine, and reports throughput and latency.
/// Exit code 0 only if every operation succeeded.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    further: Option<Further>,
    #[command(flatten)]
    bench: BenchArgs,
    /// Where the temporary cluster's folder is made: must be a real disk [default: the temporary folder, or the current
    /// folder if that is in memory]
    #[arg(long, value_name = "FOLDER", help_heading = "Local cluster", conflicts_with = "endpoints")]
    dir: Option<PathBuf>,
    /// Nodes of the temporary cluster
    #[arg(long, value_parser = ["1", "3", "5", "7"], default_value = "3", help_heading = "Local cluster")]
    nodes: String,
    /// Raft groups of the temporary cluster [default: one for each shard]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_384), help_heading = "Local cluster")]
    groups: Option<u32>,
    /// Executors of each of its nodes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Local cluster")]
    shards: u16,
    /// Loads the temporary cluster while it grows from three nodes to seven and shrinks to three again, and one of its
    /// nodes with a wiped disk is replaced: failed operations and latency of each step
    #[arg(long, help_heading = "Local cluster", conflicts_with_all = ["endpoints", "protocol", "closed", "etcd", "redis", "nodes"])]
    grow: bool,
    /// Loads the temporary cluster while one of its nodes sleeps for 30 s, wakes and catches up, and once more with a node that is killed and started: failed
    /// operations and latency of each step
    #[arg(long, help_heading = "Local cluster", conflicts_with_all = ["endpoints", "protocol", "closed", "etcd", "redis", "grow"])]
    outage: bool,
    /// Asks nothing of the temporary cluster: processor time of its idle groups, and how soon all of them have a leader
    /// after its first start and after a restart of all nodes
    #[arg(long, help_heading = "Local cluster", conflicts_with_all = ["endpoints", "protocol", "closed", "etcd", "redis", "grow", "outage"])]
    idle: bool,
    /// Further arguments of each of its nodes, behind `--`
    #[arg(last = true, value_name = "NODE ARGUMENTS")]
    node_arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Further {
    Suite(Suite),
}

impl Bench {
    fn shape(&self) -> Result<Shape> {
        let protocol = self.bench.protocol;
        let mut node_arguments = self.node_arguments.clone();
        if protocol == Protocol::Http {
            // Connections are spread over all nodes, as those to other systems are.
            node_arguments.splice(..0, ["--http-proxy", "on"].map(String::from));
        }
        Ok(Shape {
            nodes: self.nodes.parse()?,
            groups: self.groups.unwrap_or(u32::from(self.shards)),
            shards: self.shards,
            base_port: None,
            http: if protocol == Protocol::Native { Http::Off } else { Http::Free },
            hosts: Vec::new(),
            node_arguments,
        })
    }
}

pub(crate) fn run(arguments: &Bench) -> Result<Outcome> {
    let stop = interrupt::stop_flag()?;
    if let Some(Further::Suite(suite)) = &arguments.further {
        return suite::run(suite, &stop).map(Outcome::of);
    }
    arguments.bench.validate().map_err(Usage::of)?;
    let courses = [(arguments.grow, Course::Grow), (arguments.outage, Course::Outage)];
    if let Some((_, course)) = courses.into_iter().find(|(is_asked, _)| *is_asked) {
        course::prepare_output(course, &arguments.bench)?;
        let mut local = LocalRun::start(arguments.dir.as_deref(), &arguments.shape()?)?;
        let good = course::run(course, &arguments.bench, &mut local.cluster, &stop);
        local.stop()?;
        return good.map(Outcome::of);
    }
    if arguments.idle {
        let started = Instant::now();
        let mut local = LocalRun::start(arguments.dir.as_deref(), &arguments.shape()?)?;
        let good = idle::run(&arguments.bench, &mut local.cluster, started, &stop);
        local.stop()?;
        return good.map(Outcome::of);
    }
    if let Some(folder) = &arguments.bench.output {
        ringraft_bench::prepare_output(folder)?;
    }
    let (ended, trouble) = if arguments.bench.needs_cluster() {
        with_local_cluster(arguments, &stop)?
    } else {
        let endpoints = &arguments.bench.endpoints;
        (ringraft_bench::run_until(&arguments.bench, &[], endpoints, (&AtomicBool::new(false), &stop))?, None)
    };
    Ok(tell(&arguments.bench, &ended, trouble.as_ref()))
}

/// Writes the report and prints it; one that cannot be written is printed all the same.
fn tell(bench: &BenchArgs, ended: &Ended, trouble: Option<&Error>) -> Outcome {
    let written = bench.output.as_deref().map_or(Ok(()), |folder| ended.write(folder));
    // Before the report is printed: whoever reads it may go away, which ends this process.
    if let Err(error) = &written {
        eprintln!("ringraft: {error}");
    }
    if let Some(error) = trouble {
        eprintln!("ringraft: {error:#}");
    }
    output::checked(ended.report.print(bench.json));
    Outcome::of(written.is_ok() && trouble.is_none() && ended.report.ok())
}

/// A temporary cluster that serves.
pub(super) struct LocalRun {
    pub(super) cluster: LocalCluster,
    folder: TempDir,
}

impl LocalRun {
    /// Starts it in a folder of its own in `parent`, by default on a real disk.
    pub(super) fn start(parent: Option<&Path>, shape: &Shape) -> Result<Self> {
        let parent = parent.map_or_else(real_folder, Path::to_owned);
        let folder = TempDir::with_prefix_in("ringraft-bench-", &parent);
        let folder = folder.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let executable = std::env::current_exe().context("cannot find the own binary")?;
        let mut cluster = LocalCluster::create(folder.path(), &executable, Lifetime::Tied, shape)?;
        cluster.start()?;
        cluster.wait_until_serving(START_PATIENCE)?;
        Ok(Self { cluster, folder })
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.cluster.stop(STOP_PATIENCE)?;
        drop(self.cluster);
        self.folder.close().context("cannot remove the folder of the cluster")
    }
}

/// The run, and what went wrong behind it.
fn with_local_cluster(arguments: &Bench, stop: &AtomicBool) -> Result<(Ended, Option<Error>)> {
    let shape = arguments.shape()?;
    let mut local = LocalRun::start(arguments.dir.as_deref(), &shape)?;
    let (folder, nodes) = (local.folder.path().to_owned(), shape.nodes);
    let alone = arguments.bench.is_one_at_a_time();
    let floor_before = alone.then(|| doctor::floor(&folder, nodes)).transpose()?;
    let processes = servers(&mut local.cluster);
    let file = local.cluster.file();
    let endpoints = match arguments.bench.protocol {
        Protocol::Native => file.endpoints(),
        Protocol::Http | Protocol::Grpc => file.nodes.iter().filter_map(|node| node.http.clone()).collect(),
    };
    let flags = (&AtomicBool::new(false), stop);
    let mut ended = ringraft_bench::run_until(&arguments.bench, &processes, &endpoints, flags);
    let nodes_ended = report_ended(&mut local.cluster);
    let mut trouble = None;
    if let (Some(before), Ok(ended)) = (floor_before, &mut ended) {
        match doctor::floor(&folder, nodes) {
            Ok(after) => ended.report.floor = Some(Floor::mean(before, after)),
            Err(error) => trouble = Some(error.context("the floor was not measured")),
        }
    }
    let stopped = local.stop();
    let ended = ended.with_context(|| format!("the run gave no report{nodes_ended}"))?;
    Ok((ended, trouble.or(stopped.err())))
}

pub(super) fn servers(cluster: &mut LocalCluster) -> Vec<ServerProcess> {
    let ids: Vec<u64> = cluster.file().nodes.iter().map(|node| node.id).collect();
    ids.into_iter().filter_map(|node| cluster.running_pid(node).map(|pid| ServerProcess { pid, node })).collect()
}

/// Says on standard error which nodes ended by themselves during the run; the text for an error message.
fn report_ended(cluster: &mut LocalCluster) -> String {
    let ids: Vec<u64> = cluster.file().nodes.iter().map(|node| node.id).collect();
    let mut text = String::new();
    for id in ids {
        if let Some(status) = cluster.exit_status(id) {
            text.push_str(&format!("\nnode {id} ended by itself ({status}){}", cluster.log_tail(id)));
        }
    }
    if !text.is_empty() {
        eprintln!("ringraft:{text}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parsed(words: &[&str]) -> Bench {
        let command = <Bench as Args>::augment_args(Command::new("bench")).no_binary_name(true);
        Bench::from_arg_matches(&command.get_matches_from(words)).expect("it is understood")
    }

    #[test]
    fn a_report_that_is_there_already_ends_the_run_before_it_begins() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().to_str().expect("UTF-8").to_owned();
        std::fs::write(folder.path().join("report.json"), "kept").expect("a file");
        // Nobody is there: a run that began would say so.
        let refused = run(&parsed(&["--endpoints", "127.0.0.1:1", "--output", &output])).expect_err("it is refused");
        assert!(refused.to_string().contains("exists already"), "{refused}");
        assert_eq!(std::fs::read_to_string(folder.path().join("report.json")).expect("it is there"), "kept");
    }

    #[test]
    fn contradicting_flags_are_wrong_usage() {
        for words in [["--target", "etcd"], ["--target", "redis"], ["--duration", "0s"]] {
            let refused = run(&parsed(&words)).expect_err("it is refused");
            assert!(refused.is::<Usage>(), "{words:?}: {refused}");
        }
    }
}
