//! `ringraft get`: reads a key.
//!
//! Off the data path.

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::{Operation, OperationResult};
use serde_json::json;

use super::{NOT_FOUND, Outcome, SUCCESS, print_bytes, put_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft get --dir ./cluster greeting
  ringraft get --dir ./cluster --stale greeting        any replica's value, perhaps an old one
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
    /// Take what a replica has applied, without asking whether it is the newest.
    #[arg(long)]
    stale: bool,
}

pub(crate) fn run(arguments: &Get) -> Result<Outcome> {
    let operation = Operation::Get { key: arguments.key.clone().into_bytes() };
    let answer = if arguments.stale {
        client::execute_stale(&arguments.target, operation)?
    } else {
        client::execute(&arguments.target, operation)?
    };
    let OperationResult::Value(value) = &answer.result else { return Err(answer.unexpected()) };
    if arguments.target.json {
        let mut object = json!({ "key": arguments.key, "found": value.is_some() });
        put_bytes(&mut object, "value", value.as_deref());
        println!("{}", answer.with_position(object));
    } else if let Some(value) = value {
        print_bytes(value)?;
    } else {
        eprintln!("ringraft: the key has no value");
    }
    Ok(if value.is_some() { SUCCESS } else { NOT_FOUND })
}
