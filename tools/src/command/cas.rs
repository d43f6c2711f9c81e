//! `ringraft cas`: sets a key when its value is the expected one.
//!
//! Off the data path.

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::{Operation, OperationResult};
use serde_json::json;

use super::{COMPARE_FAILED, Outcome, SUCCESS, argument_bytes, put_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft cas --dir ./cluster lock --absent owner-1          take it when it is free
  ringraft cas --dir ./cluster counter --expected 41 42
  ringraft cas --dir ./cluster --json counter --expected 41 42

Exit code 4: the value was another one; it is printed.";

/// Sets a key to a value if it has the expected one (compare-and-set).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cas {
    #[command(flatten)]
    target: Target,
    /// The key.
    key: String,
    /// The value it must have.
    #[arg(
        long,
        value_name = "VALUE",
        required_unless_present = "absent",
        conflicts_with = "absent",
        allow_hyphen_values = true
    )]
    expected: Option<String>,
    /// It must have no value.
    #[arg(long)]
    absent: bool,
    /// Its new value; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

pub(crate) fn run(arguments: Cas) -> Result<Outcome> {
    let expected = arguments.expected.map(String::into_bytes);
    let value = argument_bytes(&arguments.value)?;
    let operation = Operation::CompareAndSet { key: arguments.key.into_bytes(), expected, value };
    let answer = client::execute(&arguments.target, operation)?;
    let OperationResult::Compared { swapped, current } = &answer.result else { return Err(answer.unexpected()) };
    if arguments.target.json {
        let mut object = json!({ "swapped": swapped });
        if !swapped {
            put_bytes(&mut object, "current", current.as_deref());
        }
        println!("{}", answer.with_position(object));
    } else if *swapped {
        println!("OK");
    } else {
        let found = current.as_deref().map(String::from_utf8_lossy);
        println!("not swapped: the value is {}", found.map_or_else(|| "absent".to_owned(), |text| format!("{text:?}")));
    }
    Ok(if *swapped { SUCCESS } else { COMPARE_FAILED })
}
