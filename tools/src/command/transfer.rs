//! `ringraft transfer`: the leader of a group hands leadership to another node.
//!
//! Off the data path.
//! Invariants: exit code 0 means that the printed node leads; asking again is safe; with `--json` every ending but wrong usage
//! is one object.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::{AdminRefusal, AdminReply, AdminRequest, Topology};
use ringraft_tools::admin;
use serde_json::{Value, json};

use super::{FAILURE, OUTCOME_UNKNOWN, Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft transfer --dir ./cluster --group 0               to the voter that holds most of the log
  ringraft transfer --dir ./cluster --group 0 --to 2
  ringraft transfer --endpoints 10.0.0.1:7100 --group 3 --to 1 --json

Exit code 1: it was not done, and the message says why. Exit code 5: the connection broke before the answer.";

/// No node of those that were named answers.
const NO_ANSWER: &str = "NoAnswer";

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

/// How it ended.
struct Ending {
    outcome: Outcome,
    object: Value,
    text: String,
}

impl Ending {
    /// It was not done, or nobody knows.
    fn not_done(outcome: Outcome, error: &str, message: String, is_retryable: bool) -> Self {
        let object = json!({ "error": error, "message": message, "retryable": is_retryable });
        let text = if outcome == FAILURE { format!("not done: {message}") } else { message };
        Self { outcome, object, text }
    }

    fn of(reply: AdminReply) -> Self {
        match reply {
            AdminReply::Transferred { group, leader, term } => Self {
                outcome: SUCCESS,
                object: json!({ "group": group, "leader": leader, "term": term }),
                text: format!("node {leader} leads group {group} in term {term}"),
            },
            AdminReply::Refused { code, message } => {
                Self::not_done(FAILURE, &format!("{code:?}"), message, code.is_retryable())
            }
            other => Self::not_done(FAILURE, "UnexpectedReply", format!("answered with {other:?}"), false),
        }
    }
}

pub(crate) fn run(arguments: &Transfer) -> Result<Outcome> {
    let deadline = Instant::now() + arguments.target.timeout();
    let ending = match arguments.target.topology() {
        Ok(topology) => ask(topology, arguments.group, arguments.to.unwrap_or(0), deadline),
        Err(error) => Ending::not_done(FAILURE, NO_ANSWER, format!("{error:#}"), true),
    };
    if arguments.target.json {
        println!("{}", ending.object);
    } else if ending.outcome == SUCCESS {
        println!("{}", ending.text);
    } else {
        eprintln!("ringraft: {}", ending.text);
    }
    Ok(ending.outcome)
}

fn ask(topology: Topology, group: u32, to: u64, deadline: Instant) -> Ending {
    if group >= topology.groups {
        let message = format!("there is no group {group}; groups are 0 to {}", topology.groups.saturating_sub(1));
        return Ending::not_done(FAILURE, &format!("{:?}", AdminRefusal::UnknownGroup), message, false);
    }
    match admin::ask_leader(topology, group, &AdminRequest::Transfer { group, to }, deadline) {
        Ok(Some(reply)) => Ending::of(reply),
        Ok(None) => {
            let message = "the connection broke before the answer; `ringraft status` shows who leads";
            Ending::not_done(OUTCOME_UNKNOWN, "OutcomeUnknown", message.to_owned(), true)
        }
        Err(error) => Ending::not_done(FAILURE, "NoLeader", format!("{error:#}"), true),
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::wire::NodeInfo;

    use super::*;

    fn topology() -> Topology {
        // Nobody is there.
        let node = NodeInfo { node: 1, addresses: vec!["127.0.0.1:1".to_owned()] };
        Topology { epoch: 1, groups: 2, shards: 1, nodes: vec![node], leaders: vec![None; 2] }
    }

    #[test]
    fn every_ending_has_an_object() {
        for (group, error, retryable) in [(7, "UnknownGroup", false), (1, "NoLeader", true)] {
            let ending = ask(topology(), group, 0, Instant::now());
            assert_eq!((ending.outcome, &ending.object["error"]), (FAILURE, &json!(error)));
            assert_eq!(ending.object["retryable"], json!(retryable));
            assert!(ending.object["message"].as_str().is_some_and(|message| message.contains("group")), "{error}");
        }
        let pending = Ending::of(AdminReply::Refused { code: AdminRefusal::Pending, message: "later".to_owned() });
        assert_eq!(pending.object, json!({ "error": "Pending", "message": "later", "retryable": true }));
        let done = Ending::of(AdminReply::Transferred { group: 1, leader: 2, term: 3 });
        assert_eq!((done.outcome, done.object), (SUCCESS, json!({ "group": 1, "leader": 2, "term": 3 })));
    }

    #[test]
    fn a_connection_that_breaks_leaves_the_outcome_open() {
        let ending = Ending::not_done(OUTCOME_UNKNOWN, "OutcomeUnknown", "it broke".to_owned(), true);
        assert_eq!((ending.outcome, &ending.object["error"]), (OUTCOME_UNKNOWN, &json!("OutcomeUnknown")));
        assert_eq!(ending.text, "it broke");
    }
}
