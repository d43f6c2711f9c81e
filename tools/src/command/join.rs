//! `ringraft join`: makes the data directory of a new node, lets the cluster know of it, and runs it.
//!
//! Off the data path.
//! Invariants: what all nodes share is asked of the cluster, never guessed; the cluster is asked to take the node in only
//! after its data directory is durable, so that an id never belongs to a node without one.
//!
//! ```text
//!   seeds ── topology, shared settings ──▶ id ──▶ data directory ──▶ leader of group 0: add or replace ──▶ runs the node
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ringraft_engine::config::SETTINGS;
use ringraft_engine::host;
use ringraft_engine::identity::Identity;
use ringraft_net::wire::AdminRequest;
use ringraft_tools::admin::{self, Changed, View, Watch};

use super::members::{refused, shard_addresses};
use super::node;

const EXAMPLES: &str = "\
Examples:
  ringraft join --data-dir /var/lib/ringraft --address 10.0.0.4:7100 --seed 10.0.0.1:7100,10.0.0.2:7100
  ringraft join --data-dir /var/lib/ringraft --address 10.0.0.4:7100 --seed 10.0.0.1:7100 --replace 3
  ringraft join --data-dir /var/lib/ringraft --address 10.0.0.4:7100 --seed 10.0.0.1:7100 -- --log-level debug

From then on the node is started by `ringraft node` with the flags that are printed.

Exit code 1: the cluster did not take it in, and the message says why; else those of `ringraft node`.";

/// Joins a running cluster as a new node, and runs it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Join {
    /// Directory of the node's data; must be empty or absent.
    #[arg(long, value_name = "FOLDER", aliases = ["raft-dir", "raft_dir"])]
    data_dir: PathBuf,
    /// Where others reach it: `host:port` of its first shard, the others follow port by port.
    #[arg(long)]
    address: String,
    /// Address to listen on when it is not that one.
    #[arg(long)]
    listen: Option<String>,
    /// Addresses of some nodes of the cluster.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', required = true, aliases = ["join-addr", "join_addr"])]
    seed: Vec<String>,
    /// Its id, never used in this cluster [default: one more than the highest that ever was].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
    /// The node whose place it takes, and which leaves.
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    replace: Option<u64>,
    /// Longest wait until the cluster took it in, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// Further arguments, as `ringraft node` takes them.
    #[arg(last = true, value_name = "NODE ARGUMENTS")]
    node_arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Join) -> Result<ExitCode> {
    let mut watch = Watch::new(&arguments.seed);
    let view = watch.look().context("cannot join")?;
    let addresses = shard_addresses(std::slice::from_ref(&arguments.address), view.topology.shards())?;
    let id = arguments.id.unwrap_or_else(|| view.unused_id());
    let flags = node_flags(arguments, id, view)?;
    let node = node::configuration(&flags)?;
    let identity = Identity::join(&node.config, &view.shared, &view.topology)?;
    let instance = identity.instance();
    let request = match arguments.replace {
        Some(old) => AdminRequest::ReplaceNode { old, node: id, addresses, instance },
        None => AdminRequest::AddNode { node: id, addresses, instance },
    };
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    if let Changed::Refused(reply) = admin::change_nodes(&view.endpoints(), &request, deadline)? {
        eprintln!("ringraft: {} was made for node {id}, which does not join", arguments.data_dir.display());
        return Ok(refused(&reply, false).into());
    }
    eprintln!("node {id} joins, instance {instance}; start it from now on with: ringraft node {}", flags.join(" "));
    Ok(node::serve(node, |config, reload, observer| host::run_as(config, identity, reload, observer)))
}

/// What `ringraft node` is started with to run the node.
fn node_flags(arguments: &Join, id: u64, view: &View) -> Result<Vec<String>> {
    let data = std::path::absolute(&arguments.data_dir).context("no such directory")?;
    let data = data.to_str().context("the data directory's name is not UTF-8")?.to_owned();
    let peers = format!("{id}={}", arguments.address);
    let mut flags: Vec<String> =
        [("--id", id.to_string()), ("--data-dir", data), ("--peers", peers)].into_iter().flat_map(flag).collect();
    flags.extend(shared_flags(&view.shared));
    flags.extend(arguments.listen.iter().flat_map(|listen| flag(("--listen", listen.clone()))));
    flags.extend(arguments.node_arguments.iter().cloned());
    Ok(flags)
}

fn flag((name, value): (&str, String)) -> [String; 2] {
    [name.to_owned(), value]
}

/// Flags of what all nodes share, as far as these are settings.
fn shared_flags(shared: &[(String, String)]) -> Vec<String> {
    let is_setting = |key: &str| SETTINGS.iter().any(|setting| setting.shared && setting.key == key);
    let given = shared.iter().filter(|(key, _)| is_setting(key));
    given.flat_map(|(key, value)| [format!("--{}", key.replace('_', "-")), value.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_settings_become_flags_and_nothing_else_does() {
        let told = [("groups", "4"), ("key_bytes_max", "64"), ("slots", "16384"), ("nodes", "1,2,3"), ("tick_ms", "9")];
        let shared = told.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(shared_flags(&shared), ["--groups", "4", "--key-bytes-max", "64"]);
    }
}
