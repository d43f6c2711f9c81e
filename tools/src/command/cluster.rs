//! `ringraft cluster`: a cluster of node processes on this machine.
//!
//! Off the data path.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use ringraft_tools::local_cluster::{ClusterFile, Http, Lifetime, LocalCluster, Shape};
use ringraft_tools::status;
use serde_json::json;

use super::{FAILURE, Outcome, SUCCESS};

const EXAMPLES: &str = "\
Examples:
  ringraft cluster start --dir ./cluster
  ringraft cluster start --dir ./cluster --nodes 5 --groups 4 --shards 2 --port 7100
  ringraft cluster status --dir ./cluster
  ringraft cluster leader --dir ./cluster
  ringraft cluster add --dir ./cluster
  ringraft cluster remove 4 --dir ./cluster
  ringraft cluster stop --dir ./cluster";

const START_EXAMPLES: &str = "\
Examples:
  ringraft cluster start --dir ./cluster                    three nodes, or those of ./cluster that do not run
  ringraft cluster start --dir ./one --nodes 1
  ringraft cluster start --dir ./cluster --nodes 5 --json
  ringraft cluster start --dir ./cluster --http-port 8081   HTTP and gRPC of node K on 8080 + K
  ringraft cluster start --dir ./cluster -- --log-level debug   further arguments for every node";

const STATUS_EXAMPLES: &str = "\
Examples:
  ringraft cluster status --dir ./cluster
  ringraft cluster status --dir ./cluster --json | jq '.shards[].groups[] | {group, role, term}'

Exit code 1: a node does not answer or some group has no leader that serves.";

const LEADER_EXAMPLES: &str = "\
Examples:
  ringraft cluster leader --dir ./cluster
  ringraft cluster leader --dir ./cluster --json | jq -r '.[0] | .id, .native, .http, .grpc'

Exit code 1: some group has no leader that serves.";

const ADD_EXAMPLES: &str = "\
Examples:
  ringraft cluster add --dir ./cluster                 one more node, under an id that was never used
  ringraft cluster add --dir ./cluster --replace 3     it takes the place of node 3, whose disk may be lost

Exit code 1: the cluster did not take it in, or it is not complete in time and goes on by itself.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  ringraft cluster remove 4 --dir ./cluster            its groups move to the others, then its process ends

Exit code 1: the cluster refused, or it is not complete in time and goes on by itself.";

const STOP_EXAMPLES: &str = "\
Examples:
  ringraft cluster stop --dir ./cluster
  ringraft cluster stop --dir ./cluster --patience-seconds 30";

/// Starts, stops and shows a cluster of local processes.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Cluster {
    Start(Start),
    Status(Show),
    Leader(Leader),
    Add(Add),
    Remove(Remove),
    Stop(Stop),
}

/// Starts the nodes that do not run; returns when every group has a leader that serves.
#[derive(Debug, Args)]
#[command(after_help = START_EXAMPLES)]
pub(crate) struct Start {
    /// Folder of the cluster: cluster.json, and data and log of every node.
    #[arg(long)]
    dir: PathBuf,
    /// Node processes [default: 3, or as the cluster was made].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// Raft groups [default: one for each shard, or as the cluster was made].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    groups: Option<u32>,
    /// Executors (cores) of each node [default: 1, or as the cluster was made].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
    /// First listen port; free ones are looked for when absent.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// HTTP and gRPC port of the first node, the others follow; free ones are looked for when absent.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
    /// Longest wait for leaders.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    patience_seconds: u64,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Further arguments of every node.
    #[arg(last = true)]
    node_arguments: Vec<String>,
}

/// Shows every replica.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct Show {
    /// Folder of the cluster.
    #[arg(long)]
    dir: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints the leader of every group.
#[derive(Debug, Args)]
#[command(after_help = LEADER_EXAMPLES)]
pub(crate) struct Leader {
    /// Folder of the cluster.
    #[arg(long)]
    dir: PathBuf,
    /// One JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

/// Starts one more node, which joins the cluster; returns when it has caught up.
#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(crate) struct Add {
    /// Folder of the cluster.
    #[arg(long)]
    dir: PathBuf,
    /// The node whose place it takes, and which leaves.
    #[arg(long, value_name = "NODE")]
    replace: Option<u64>,
    /// Longest wait until it is complete, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// One JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

/// Removes a node from the cluster and ends its process; its folder stays.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(crate) struct Remove {
    /// Its id.
    node: u64,
    /// Folder of the cluster.
    #[arg(long)]
    dir: PathBuf,
    /// Longest wait until it is complete, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// One JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

/// Stops every node that runs; the data stays.
#[derive(Debug, Args)]
#[command(after_help = STOP_EXAMPLES)]
pub(crate) struct Stop {
    /// Folder of the cluster.
    #[arg(long)]
    dir: PathBuf,
    /// How long nodes may take before they are killed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    patience_seconds: u64,
    /// One JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Cluster) -> Result<Outcome> {
    match arguments {
        Cluster::Start(arguments) => start(arguments),
        Cluster::Status(arguments) => {
            let addresses = ClusterFile::read(&arguments.dir)?.addresses();
            super::status::print(&status::cluster(&addresses), arguments.json)
        }
        Cluster::Leader(arguments) => leader(&arguments),
        Cluster::Add(arguments) => add(&arguments),
        Cluster::Remove(arguments) => remove(&arguments),
        Cluster::Stop(arguments) => stop(&arguments),
    }
}

fn start(arguments: Start) -> Result<Outcome> {
    let mut cluster = if arguments.dir.join("cluster.json").exists() {
        let cluster = open(&arguments.dir)?;
        check_same(&arguments, cluster.file())?;
        cluster
    } else {
        let shape = Shape {
            nodes: arguments.nodes.unwrap_or(3),
            groups: arguments.groups.unwrap_or(u32::from(arguments.shards.unwrap_or(1))),
            shards: arguments.shards.unwrap_or(1),
            base_port: arguments.port,
            http: arguments.http_port.map_or(Http::Free, Http::From),
            hosts: Vec::new(),
            node_arguments: arguments.node_arguments,
        };
        LocalCluster::create(&arguments.dir, &own_binary()?, Lifetime::Detached, &shape)?
    };
    let started = cluster.start()?;
    let status = cluster.wait_until_serving(Duration::from_secs(arguments.patience_seconds))?;
    let leaders = status.leaders();
    if arguments.json {
        let leaders: Vec<_> =
            leaders.iter().map(|(group, (node, term))| json!({ "group": group, "node": node, "term": term })).collect();
        let file = cluster.file();
        let http: Vec<_> = file.nodes.iter().filter_map(|node| node.http.as_ref()).collect();
        println!("{}", json!({ "started": started, "endpoints": file.endpoints(), "http": http, "leaders": leaders }));
        return Ok(SUCCESS);
    }
    for node in &cluster.file().nodes {
        let note = if started.contains(&node.id) { "started" } else { "ran already" };
        let http = node.http.as_deref().unwrap_or("off");
        println!("node {}  {}  http {http}  pid {}  {note}", node.id, node.addresses.join(","), node.pid.unwrap_or(0));
    }
    println!("serving: {} group(s) have leaders; endpoints: {}", leaders.len(), cluster.file().endpoints().join(","));
    Ok(SUCCESS)
}

/// A cluster keeps the shape it was made with.
fn check_same(arguments: &Start, file: &ClusterFile) -> Result<()> {
    let same = |name: &str, asked: Option<u64>, has: u64| {
        ensure!(
            asked.is_none_or(|asked| asked == has),
            "{} has --{name} {has}; leave it out or use another --dir",
            arguments.dir.display()
        );
        Ok(())
    };
    same("nodes", arguments.nodes, file.nodes.len() as u64)?;
    same("groups", arguments.groups.map(u64::from), u64::from(file.groups))?;
    same("shards", arguments.shards.map(u64::from), u64::from(file.shards))?;
    ensure!(
        arguments.node_arguments.is_empty() || arguments.node_arguments == file.node_arguments,
        "further node arguments are given when a cluster is made"
    );
    Ok(())
}

fn leader(arguments: &Leader) -> Result<Outcome> {
    let file = ClusterFile::read(&arguments.dir)?;
    let status = status::cluster(&file.addresses());
    let leaders = status.leaders();
    let shard = |group: u32| usize::try_from(group).unwrap_or(0) % usize::from(file.shards);
    let node = |id: u64| file.nodes.iter().find(|node| node.id == id);
    let address = |group: u32, id: u64| node(id).and_then(|node| node.addresses.get(shard(group)));
    let http = |id: u64| node(id).and_then(|node| node.http.as_ref());
    if arguments.json {
        let row = |(group, (id, term)): (&u32, &(u64, u64))| {
            let (native, http) = (address(*group, *id), http(*id));
            json!({ "group": group, "id": id, "node": id, "term": term, "address": native, "native": native, "http": http, "grpc": http })
        };
        let rows: Vec<_> = leaders.iter().map(row).collect();
        println!("{}", serde_json::to_string(&rows)?);
    } else {
        for (group, (node, term)) in &leaders {
            println!(
                "group {group}  node {node}  {}  http {}  term {term}",
                address(*group, *node).map_or("?", |address| address),
                http(*node).map_or("off", |address| address)
            );
        }
    }
    let unserved = status.groups_without_leader(file.groups);
    if unserved.is_empty() {
        return Ok(SUCCESS);
    }
    eprintln!("ringraft: {}", status.why_not_serving(&unserved));
    Ok(FAILURE)
}

fn own_binary() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find the own binary")
}

fn open(directory: &Path) -> Result<LocalCluster> {
    LocalCluster::open(directory, &own_binary()?, Lifetime::Detached)
}

fn add(arguments: &Add) -> Result<Outcome> {
    let mut cluster = open(&arguments.dir)?;
    let patience = Duration::from_secs(arguments.timeout);
    let id = cluster.add_node(arguments.replace, patience, |line| eprintln!("{line}"))?;
    let addresses = cluster.file().nodes.iter().find(|node| node.id == id).map(|node| node.addresses.clone());
    if arguments.json {
        println!("{}", json!({ "added": id, "addresses": addresses, "removed": arguments.replace }));
    } else {
        println!("node {id}  {}  active", addresses.unwrap_or_default().join(","));
    }
    Ok(SUCCESS)
}

fn remove(arguments: &Remove) -> Result<Outcome> {
    let patience = Duration::from_secs(arguments.timeout);
    open(&arguments.dir)?.remove_node(arguments.node, patience, |line| eprintln!("{line}"))?;
    if arguments.json {
        println!("{}", json!({ "removed": arguments.node }));
    } else {
        println!("node {} is removed", arguments.node);
    }
    Ok(SUCCESS)
}

fn stop(arguments: &Stop) -> Result<Outcome> {
    let mut cluster = open(&arguments.dir)?;
    let stopped = cluster.stop(Duration::from_secs(arguments.patience_seconds))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&stopped)?);
    } else if stopped.stopped.is_empty() {
        println!("nothing runs");
    } else {
        println!("stopped {} node(s), {} of them had to be killed", stopped.stopped.len(), stopped.killed.len());
    }
    Ok(SUCCESS)
}
