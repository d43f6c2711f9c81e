//! `ringraft get`: reads a key.
//!
//! Off the data path.

use anyhow::{Context, Result};
use clap::Args;
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use serde_json::json;

use super::{NOT_FOUND, Outcome, SUCCESS, Usage, print_bytes, put_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft get --dir ./cluster greeting
  ringraft get --dir ./cluster --consistency follower greeting     the newest value, from any replica
  ringraft get --dir ./cluster --consistency stale greeting        any replica's value, perhaps an old one
  ringraft get --dir ./cluster --consistency stale --max-staleness-ms 500 greeting
                                                                   one that is half a second behind at most
  ringraft get --dir ./cluster --json greeting
  ringraft get --dir ./cluster picture > picture.png

Exit code 3: the key has no value.";

/// Prints the value of a key, byte for byte and without a line break behind it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    #[command(flatten)]
    target: Target,
    /// The key.
    key: String,
    /// How fresh: linearizable (the leader asks a majority), lease (it need not while it holds one, see lease_reads),
    /// follower (any replica, which asks the leader), stale (what any replica has).
    #[arg(long, value_name = "KIND", default_value = "linearizable")]
    consistency: Consistency,
    /// With --consistency stale: how many milliseconds the value may be behind at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_staleness_ms: Option<u32>,
}

pub(crate) fn run(arguments: &Get) -> Result<Outcome> {
    let (consistency, bound) = (arguments.consistency, arguments.max_staleness_ms);
    if bound.is_some() && consistency != Consistency::Stale {
        return Err(Usage::of("--max-staleness-ms bounds stale reads only; add --consistency stale").into());
    }
    if arguments.target.json {
        return with_version(arguments, bound.unwrap_or(0));
    }
    let operation = Operation::Get { key: arguments.key.clone().into_bytes() };
    let answer = client::run(&arguments.target, operation, consistency, bound.unwrap_or(0))?;
    let OperationResult::Value(value) = &answer.result else { return Err(answer.unexpected()) };
    if let Some(value) = value {
        print_bytes(value);
    } else {
        eprintln!("ringraft: the key has no value");
    }
    Ok(if value.is_some() { SUCCESS } else { NOT_FOUND })
}

/// One JSON object, the version of the key in it.
fn with_version(arguments: &Get, max_staleness_ms: u32) -> Result<Outcome> {
    let answer = client::with_client(&arguments.target, async |client| {
        let key = arguments.key.clone();
        client.get_versioned(key, arguments.consistency, max_staleness_ms).await.context("not done")
    })?;
    let found = answer.value;
    let mut object = json!({ "key": arguments.key, "found": found.is_some() });
    put_bytes(&mut object, "value", found.as_ref().map(|item| &*item.value));
    if let Some(item) = &found {
        object["version"] = json!(item.version);
    }
    println!("{}", client::with_position(object, answer.position));
    Ok(if found.is_some() { SUCCESS } else { NOT_FOUND })
}
