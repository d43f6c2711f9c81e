//! `ringraft transfer`: the leader of a group hands leadership to another node.
//!
//! Off the data path.
//! Invariant: exit code 0 means that the printed node leads; asking again is safe.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ringraft_net::slots;
use ringraft_net::wire::{AdminReply, AdminRequest, Topology};
use ringraft_tools::probe::Connection;
use serde_json::json;

use super::{FAILURE, OUTCOME_UNKNOWN, Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft transfer --dir ./cluster --group 0               to the voter that holds most of the log
  ringraft transfer --dir ./cluster --group 0 --to 2
  ringraft transfer --endpoints 10.0.0.1:7100 --group 3 --to 1 --json

Exit code 1: it was not done, and the message says why. Exit code 5: the connection broke before the answer.";

/// Between two questions for a leader.
const PAUSE: Duration = Duration::from_millis(50);

/// Hands the leadership of a group to another node; nobody's request is lost by it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Transfer {
    #[command(flatten)]
    target: Target,
    /// The group.
    #[arg(long)]
    group: u32,
    /// The node that is to lead; without it the reachable voter that holds most of the log.
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
}

pub(crate) fn run(arguments: &Transfer) -> Result<Outcome> {
    let deadline = Instant::now() + arguments.target.timeout();
    let topology = arguments.target.topology()?;
    let group = arguments.group;
    ensure!(group < topology.groups, "there is no group {group}; groups are 0 to {}", topology.groups - 1);
    let request = AdminRequest::Transfer { group, to: arguments.to.unwrap_or(0) };
    match ask_leader(&topology, group, request, deadline)? {
        Some(reply) => print(reply, arguments.target.json),
        None => {
            eprintln!("ringraft: the connection broke before the answer; `ringraft status` shows who leads");
            Ok(OUTCOME_UNKNOWN)
        }
    }
}

/// Asks one node after the other until one leads the group; `None`: the connection broke while the leader was at it.
fn ask_leader(topology: &Topology, group: u32, request: AdminRequest, deadline: Instant) -> Result<Option<AdminReply>> {
    let shard = usize::from(slots::shard_of_group(group, topology.shards));
    let mut leader = topology.leaders.get(group as usize).copied().flatten();
    let mut problem = String::from("nobody was asked");
    for turn in 0.. {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            bail!("no leader of group {group} was found in time: {problem}");
        }
        let any = &topology.nodes[turn % topology.nodes.len()];
        let node = topology.nodes.iter().find(|node| Some(node.node) == leader).unwrap_or(any);
        leader = None;
        let address = node.addresses.get(shard).with_context(|| format!("node {} has no shard {shard}", node.node))?;
        match Connection::open(address) {
            Ok((mut connection, _)) => {
                connection.set_patience(rest)?;
                let Ok(reply) = connection.administrate(request) else { return Ok(None) };
                let AdminReply::NotLeader { leader: known, .. } = reply else { return Ok(Some(reply)) };
                problem = format!("node {} does not lead it", node.node);
                leader = known.filter(|known| *known != node.node);
            }
            Err(error) => problem = format!("{address}: {error:#}"),
        }
        if leader.is_none() {
            thread::sleep(PAUSE.min(rest));
        }
    }
    unreachable!("the loop ends by the deadline")
}

fn print(reply: AdminReply, as_json: bool) -> Result<Outcome> {
    let (outcome, object, text) = match reply {
        AdminReply::Transferred { group, leader, term } => (
            SUCCESS,
            json!({ "group": group, "leader": leader, "term": term }),
            format!("node {leader} leads group {group} in term {term}"),
        ),
        AdminReply::Refused { code, message } => (
            FAILURE,
            json!({ "error": format!("{code:?}"), "message": message, "retryable": code.is_retryable() }),
            format!("not done: {message}"),
        ),
        other => bail!("not done: {other:?}"),
    };
    if as_json {
        println!("{object}");
    } else if outcome == SUCCESS {
        println!("{text}");
    } else {
        eprintln!("ringraft: {text}");
    }
    Ok(outcome)
}
