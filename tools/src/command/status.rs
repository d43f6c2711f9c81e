//! `ringraft status`: what every shard says, as a table or as JSON.
//!
//! Off the data path.

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};
use ringraft_tools::status::{self, ClusterStatus};

use super::{Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft status --dir ./cluster
  ringraft status --endpoints 10.0.0.1:7100,10.0.0.2:7100 --json | jq '.shards[].groups[]'

Exit code 1: some group has no leader that serves, or a shard that was asked does not answer.";

/// Shows every replica: role, term, progress, state hash.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Status) -> Result<Outcome> {
    let addresses = arguments.target.all_addresses()?;
    print(&status::cluster(&addresses), arguments.target.json)
}

/// Prints a status and says by the exit code whether the cluster is whole.
pub(crate) fn print(status: &ClusterStatus, as_json: bool) -> Result<Outcome> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(status)?);
    } else {
        println!("{}", table(status));
        for silent in &status.unreachable {
            println!("{}: {}", silent.address, silent.error);
        }
    }
    Ok(if is_whole(status) { SUCCESS } else { super::FAILURE })
}

/// Whether every group is led and every shard answers.
pub(crate) fn is_whole(status: &ClusterStatus) -> bool {
    let leaders = status.leaders();
    let groups = status.shards.iter().flat_map(|shard| &shard.groups);
    let led = groups.clone().all(|group| leaders.contains_key(&group.group));
    status.unreachable.is_empty() && groups.count() > 0 && led
}

fn table(status: &ClusterStatus) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "group",
        "node",
        "shard",
        "role",
        "term",
        "leader",
        "committed",
        "applied",
        "last",
        "keys",
        "state hash",
    ]);
    let mut rows = Vec::new();
    for shard in &status.shards {
        for group in &shard.groups {
            let role = if group.serving { group.role.clone() } else { format!("{} (not serving)", group.role) };
            let leader = group.leader.map_or_else(|| "?".to_owned(), |node| node.to_string());
            let numbers =
                [group.commit_index, group.last_applied, group.last_index, group.keys].map(|number| number.to_string());
            let mut row = vec![group.group.to_string(), shard.node.to_string(), shard.shard.to_string(), role];
            row.extend([group.term.to_string(), leader]);
            row.extend(numbers);
            row.push(group.state_hash.clone());
            rows.push((group.group, shard.node, row));
        }
    }
    rows.sort();
    rows.into_iter().for_each(|(_, _, row)| {
        table.add_row(row);
    });
    table
}
