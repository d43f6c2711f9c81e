//! `ringraft transfer`: the leader of a group hands leadership to another node.
//!
//! Off the data path.
//! Invariant: exit code 0 means that the printed node leads; asking again is safe.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;
use ringraft_net::wire::{AdminReply, AdminRequest};
use ringraft_tools::admin;
use serde_json::json;

use super::{FAILURE, OUTCOME_UNKNOWN, Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft transfer --dir ./cluster --group 0               to the voter that holds most of the log
  ringraft transfer --dir ./cluster --group 0 --to 2
  ringraft transfer --endpoints 10.0.0.1:7100 --group 3 --to 1 --json

Exit code 1: it was not done, and the message says why. Exit code 5: the connection broke before the answer.";

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
    match admin::ask_leader(topology, group, &request, deadline)? {
        Some(reply) => print(reply, arguments.target.json),
        None => {
            eprintln!("ringraft: the connection broke before the answer; `ringraft status` shows who leads");
            Ok(OUTCOME_UNKNOWN)
        }
    }
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
