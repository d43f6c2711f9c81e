//! `ringraft node list|add|remove|replace`: the nodes of a cluster, and changes of them.
//!
//! Off the data path.
//! Invariants: exit code 0 of a change means that it is complete, or with `--no-wait` that it is decided; asking again is
//! safe, since a change that was made already changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use ringraft_engine::topology::{CONTROL_GROUP, NodeRecord, NodeState, Topology};
use ringraft_net::wire::{AdminReply, AdminRequest};
use ringraft_tools::admin::{self, Changed, Goal, Watch};
use serde_json::{Value, json};

use super::{FAILURE, Outcome, SUCCESS};
use crate::client::Target;

const LIST_EXAMPLES: &str = "\
Examples:
  ringraft node list --dir ./cluster
  ringraft node list --endpoints 10.0.0.1:7100 --json | jq '.nodes[] | {id, state}'";

const ADD_EXAMPLES: &str = "\
Examples:
  ringraft node add 4 --address 10.0.0.4:7100 --endpoints 10.0.0.1:7100
  ringraft node add 4 --address 10.0.0.4:7100 --dir ./cluster --no-wait

`ringraft join` on the new machine does this and starts the node.

Exit code 1: it was refused, or it is not complete in time and goes on by itself.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  ringraft node remove 3 --endpoints 10.0.0.1:7100
  ringraft node remove 3 --dir ./cluster --timeout 3600

What the node holds is moved to the others first, so it should run; one that is gone for good can be removed as well.

Exit code 1: it was refused, or it is not complete in time and goes on by itself.";

const REPLACE_EXAMPLES: &str = "\
Examples:
  ringraft node replace 3 --with 4 --address 10.0.0.4:7100 --endpoints 10.0.0.1:7100

`ringraft join --replace 3` on the new machine does this and starts the node.

Exit code 1: it was refused, or it is not complete in time and goes on by itself.";

/// The subcommands of `ringraft node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Members {
    List(List),
    Add(Add),
    Remove(Remove),
    Replace(Replace),
}

/// Shows the nodes of a cluster, their states and how many groups are to be on each.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    target: Target,
}

/// Lets a node join that was made by `ringraft join` and waits until it has caught up.
#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(crate) struct Add {
    /// Its id, never used in this cluster.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    #[command(flatten)]
    newcomer: Newcomer,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

/// Moves everything off a node and deletes it from the cluster.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(crate) struct Remove {
    /// Its id.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

/// Puts a new node in the place of another one, which leaves: for a machine whose disk is lost.
#[derive(Debug, Args)]
#[command(after_help = REPLACE_EXAMPLES)]
pub(crate) struct Replace {
    /// The node that leaves.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    /// Id of the new one, never used in this cluster.
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    with: u64,
    #[command(flatten)]
    newcomer: Newcomer,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

/// What is said of a new node.
#[derive(Debug, Args)]
struct Newcomer {
    /// Where it is reached: `host:port` of its first shard, the others follow port by port; or one address per shard,
    /// separated by commas.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', required = true)]
    address: Vec<String>,
    /// Identity of its data directory, as `ringraft join` prints it; 0: not known.
    #[arg(long, default_value_t = 0)]
    instance: u64,
}

/// How long a change is waited for.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Returns as soon as the change is decided, not when it is complete.
    #[arg(long)]
    no_wait: bool,
    /// Longest wait until it is complete, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

pub(crate) fn run(arguments: &Members) -> Result<Outcome> {
    match arguments {
        Members::List(arguments) => list(&arguments.target),
        Members::Add(Add { node, newcomer, waiting, target }) => {
            let addresses = newcomer.addresses(target)?;
            change(target, waiting, &AdminRequest::AddNode { node: *node, addresses, instance: newcomer.instance })
        }
        Members::Remove(Remove { node, waiting, target }) => {
            change(target, waiting, &AdminRequest::RemoveNode { node: *node })
        }
        Members::Replace(Replace { node: old, with, newcomer, waiting, target }) => {
            let (addresses, instance) = (newcomer.addresses(target)?, newcomer.instance);
            change(target, waiting, &AdminRequest::ReplaceNode { old: *old, node: *with, addresses, instance })
        }
    }
}

impl Newcomer {
    fn addresses(&self, target: &Target) -> Result<Vec<String>> {
        shard_addresses(&self.address, target.topology()?.shards)
    }
}

/// The address of each shard: given one by one, or port by port from the first.
pub(crate) fn shard_addresses(given: &[String], shards: u16) -> Result<Vec<String>> {
    if let [first] = given {
        let parts = first.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts.filter(|(host, port)| !host.is_empty() && *port > 0) else {
            bail!("{first:?} is no address: host:port is wanted");
        };
        ensure!(u32::from(port) + u32::from(shards) <= 1 << 16, "{first} leaves no ports for {shards} shards");
        return Ok((0..shards).map(|shard| format!("{host}:{}", port + shard)).collect());
    }
    let count = given.len();
    ensure!(count == usize::from(shards), "{count} addresses were given, nodes of this cluster have {shards} shards");
    given.iter().map(|address| Ok(shard_addresses(std::slice::from_ref(address), 1)?.remove(0))).collect()
}

fn list(target: &Target) -> Result<Outcome> {
    let mut watch = Watch::new(&target.endpoints()?);
    let topology = &watch.look()?.topology;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&document(topology))?);
        return Ok(SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["node", "state", "addresses", "groups", "votes in group 0"]);
    for node in topology.nodes() {
        let row = Row::of(topology, node);
        let votes = if row.is_control_voter { "yes" } else { "no" };
        let (id, addresses, groups) = (row.id.to_string(), row.addresses.join(","), row.groups.to_string());
        table.add_row([id.as_str(), row.state, &addresses, &groups, votes]);
    }
    println!("{table}");
    println!("epoch {}, {} group(s)", topology.epoch(), topology.groups());
    Ok(SUCCESS)
}

struct Row<'a> {
    id: u64,
    state: &'static str,
    addresses: &'a [String],
    groups: usize,
    is_control_voter: bool,
}

impl<'a> Row<'a> {
    fn of(topology: &Topology, node: &'a NodeRecord) -> Self {
        let state = match node.state {
            NodeState::Joining => "joining",
            NodeState::Active => "active",
            NodeState::Leaving => "leaving",
        };
        let is_control_voter = topology.replicas(CONTROL_GROUP).contains(&node.id);
        let groups = admin::groups_of(topology, node.id.0);
        Self { id: node.id.0, state, addresses: &node.addresses, groups, is_control_voter }
    }
}

fn document(topology: &Topology) -> Value {
    let nodes = topology.nodes().iter().map(|node| {
        let Row { id, state, addresses, groups, is_control_voter } = Row::of(topology, node);
        json!({ "id": id, "state": state, "addresses": addresses, "groups": groups, "control_voter": is_control_voter })
    });
    let (nodes, removed) = (nodes.collect::<Vec<_>>(), topology.removed());
    json!({ "epoch": topology.epoch(), "groups": topology.groups(), "nodes": nodes, "removed": removed })
}

/// Asks for a change, and waits until it is complete.
fn change(target: &Target, waiting: &Waiting, request: &AdminRequest) -> Result<Outcome> {
    let endpoints = target.endpoints()?;
    match admin::change_nodes(&endpoints, request, Instant::now() + target.timeout())? {
        Changed::Refused(reply) => return Ok(refused(&reply, target.json)),
        Changed::Accepted => {}
    }
    let mut watch = Watch::new(&endpoints);
    let deadline = Instant::now() + Duration::from_secs(waiting.timeout);
    let complete =
        !waiting.no_wait && admin::wait_for(&mut watch, &Goal::of(request), deadline, |line| eprintln!("{line}"))?;
    if target.json {
        let mut object = document(&watch.look()?.topology);
        object["complete"] = json!(complete);
        println!("{object}");
    } else {
        println!("{}", if complete { "done" } else { "decided; it goes on by itself" });
    }
    if !complete && !waiting.no_wait {
        eprintln!("ringraft: not complete after {} s; `ringraft node list` shows how far it is", waiting.timeout);
        return Ok(FAILURE);
    }
    Ok(SUCCESS)
}

/// Prints why a change was not made.
pub(crate) fn refused(reply: &AdminReply, as_json: bool) -> Outcome {
    let AdminReply::Refused { code, message } = reply else { return FAILURE };
    if as_json {
        println!("{}", json!({ "error": format!("{code:?}"), "message": message, "retryable": code.is_retryable() }));
    } else {
        eprintln!("ringraft: not done: {message}");
    }
    FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_shards() {
        let given = |texts: &[&str]| texts.iter().copied().map(String::from).collect::<Vec<_>>();
        assert_eq!(shard_addresses(&given(&["a:7100"]), 2).unwrap(), ["a:7100", "a:7101"]);
        assert_eq!(shard_addresses(&given(&["[::1]:7100"]), 1).unwrap(), ["[::1]:7100"]);
        assert_eq!(shard_addresses(&given(&["a:1", "b:2"]), 2).unwrap(), ["a:1", "b:2"]);
        for (bad, shards) in
            [(&["a"][..], 1), (&["a:x"], 1), (&[":1"], 1), (&["a:0"], 1), (&["a:65535"], 2), (&["a:1", "b:2"], 3)]
        {
            assert!(shard_addresses(&given(bad), shards).is_err(), "{bad:?}");
        }
        assert_eq!(shard_addresses(&given(&["a:65535"]), 1).unwrap(), ["a:65535"]);
    }
}
