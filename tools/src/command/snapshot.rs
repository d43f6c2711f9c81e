//! `ringraft snapshot`: the replicas of groups take snapshots now.
//!
//! Off the data path.
//! Invariant: exit code 0 means that every replica that was asked has a durable snapshot of the printed entry.

use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use ringraft_net::slots;
use ringraft_net::wire::{AdminReply, AdminRequest};
use ringraft_raft::{GroupId, NodeId};
use ringraft_tools::admin::{self, View, Watch};
use serde_json::{Value, json};

use super::{Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft snapshot --dir ./cluster --all                     before an upgrade: restarts replay less
  ringraft snapshot --endpoints 10.0.0.1:7100 --group 3 --json

Exit code 1: some replica did not take one; the others did.";

/// Takes snapshots of groups on all their replicas, and prints the last entry each covers.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    target: Target,
    /// The group.
    #[arg(long, required_unless_present = "all")]
    group: Option<u32>,
    /// Every group.
    #[arg(long, conflicts_with = "group")]
    all: bool,
}

pub(crate) fn run(arguments: &Snapshot) -> Result<Outcome> {
    let target = &arguments.target;
    let mut watch = Watch::new(&target.endpoints()?);
    let view = watch.look()?;
    let groups = view.topology.groups();
    let chosen = match arguments.group {
        Some(group) => {
            ensure!(group < groups, "there is no group {group}; groups are 0 to {}", groups - 1);
            group..group + 1
        }
        None => 0..groups,
    };
    let (mut rows, mut failed) = (Vec::new(), false);
    for group in chosen {
        for (node, taken) in snapshots_of(view, group, target) {
            failed |= taken.is_err();
            match (&taken, target.json) {
                (Ok(index), false) => println!("group {group}  node {node}  {index}"),
                (Err(error), false) => eprintln!("ringraft: group {group}, node {node}: {error:#}"),
                (_, true) => rows.push(row(group, node, &taken)),
            }
        }
    }
    if target.json {
        println!("{}", Value::from(rows));
    }
    Ok(if failed { Outcome::of(false) } else { SUCCESS })
}

fn row(group: u32, node: u64, taken: &Result<u64>) -> Value {
    match taken {
        Ok(index) => json!({ "group": group, "node": node, "index": index }),
        Err(error) => json!({ "group": group, "node": node, "error": format!("{error:#}") }),
    }
}

/// All replicas of a group at once: node and last entry covered.
fn snapshots_of(view: &View, group: u32, target: &Target) -> Vec<(u64, Result<u64>)> {
    let topology = &view.topology;
    let replicas = topology.replicas(GroupId(group)).iter().copied().chain(topology.learners(GroupId(group)));
    let shard = usize::from(slots::shard_of_group(group, topology.shards()));
    let take = |id: NodeId| {
        let address = topology.node(id).and_then(|node| node.addresses.get(shard));
        let address = address.ok_or_else(|| anyhow!("it has no address"))?;
        match admin::ask_node(address, &AdminRequest::Snapshot { group }, target.timeout())? {
            AdminReply::SnapshotTaken { index, .. } => Ok(index),
            AdminReply::Refused { message, .. } => bail!("{message}"),
            AdminReply::NotLeader { .. } => bail!("it has no replica of the group yet"),
            other => bail!("answered with {other:?}"),
        }
    };
    thread::scope(|scope| {
        let asked: Vec<_> = replicas.map(|id| (id.0, scope.spawn(move || take(id)))).collect();
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<u64>>| match thread.join() {
            Ok(taken) => taken,
            Err(_) => Err(anyhow!("panicked")),
        };
        asked.into_iter().map(|(id, thread)| (id, joined(thread))).collect()
    })
}
