//! `ringraft delete`: removes a key.
//!
//! Off the data path.

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::{Operation, OperationResult};
use serde_json::json;

use super::{NOT_FOUND, Outcome, SUCCESS};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft delete --dir ./cluster greeting
  ringraft delete --dir ./cluster --json greeting

Exit code 3: the key had no value.";

/// Removes a key.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    #[command(flatten)]
    target: Target,
    /// The key.
    key: String,
}

pub(crate) fn run(arguments: Delete) -> Result<Outcome> {
    let answer = client::execute(&arguments.target, Operation::Delete { key: arguments.key.into_bytes() })?;
    let OperationResult::Deleted { existed } = answer.result else { return Err(answer.unexpected()) };
    if arguments.target.json {
        println!("{}", answer.with_position(json!({ "existed": existed })));
    } else {
        println!("{}", if existed { "OK" } else { "not found" });
    }
    Ok(if existed { SUCCESS } else { NOT_FOUND })
}
