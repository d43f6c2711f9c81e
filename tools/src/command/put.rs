//! `ringraft put`: sets a key.
//!
//! Off the data path.

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::{Operation, OperationResult};
use serde_json::json;

use super::{Outcome, SUCCESS, argument_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft put --dir ./cluster greeting hello
  ringraft put --endpoints 10.0.0.1:7100,10.0.0.2:7100 greeting hello
  ringraft put --dir ./cluster picture - < picture.png";

/// Sets a key to a value.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Put {
    #[command(flatten)]
    target: Target,
    /// The key.
    key: String,
    /// Its new value; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

pub(crate) fn run(arguments: Put) -> Result<Outcome> {
    let operation = Operation::Put { key: arguments.key.into_bytes(), value: argument_bytes(&arguments.value)? };
    let answer = client::execute(&arguments.target, operation)?;
    let OperationResult::Put { replaced } = answer.result else { return Err(answer.unexpected()) };
    if arguments.target.json {
        println!("{}", answer.with_position(json!({ "replaced": replaced, "version": answer.version() })));
    } else {
        println!("OK");
    }
    Ok(SUCCESS)
}
