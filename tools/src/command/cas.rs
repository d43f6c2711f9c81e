//! `ringraft cas`: sets a key when its value, or its version, is the expected one.
//!
//! Off the data path.

use anyhow::Result;
use clap::{ArgGroup, Args};
use ringraft_net::wire::{Operation, OperationResult};
use serde_json::{Value, json};

use super::{COMPARE_FAILED, Outcome, SUCCESS, argument_bytes, put_bytes};
use crate::client::{self, Answer, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft cas --dir ./cluster lock --absent owner-1          take it when it is free
  ringraft cas --dir ./cluster counter --expected 41 42
  ringraft cas --dir ./cluster --json counter --expected 41 42
  ringraft get --dir ./cluster --json counter                      tells the version, as list, put and cas do
  ringraft cas --dir ./cluster counter --expected-version 458752 42
  ringraft cas --dir ./cluster lock --expected-version 0 owner-1   as --absent

A version grows with every write of the key and is never used again, so that it also sees a value that came back.

Exit code 4: the value, or the version, was another one; it is printed.";

/// Sets a key to a value if it has the expected one, or the expected version (compare-and-set).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("condition").required(true).args(["expected", "absent", "expected_version"])))]
pub(crate) struct Cas {
    #[command(flatten)]
    target: Target,
    /// The key.
    key: String,
    /// The value it must have.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    expected: Option<String>,
    /// It must have no value.
    #[arg(long)]
    absent: bool,
    /// The version it must have; 0: it must have no value.
    #[arg(long, value_name = "N")]
    expected_version: Option<u64>,
    /// Its new value; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

pub(crate) fn run(arguments: Cas) -> Result<Outcome> {
    let (key, value) = (arguments.key.into_bytes(), argument_bytes(&arguments.value)?);
    let operation = match arguments.expected_version {
        Some(version) => Operation::CompareVersion { key, version, value: Some(value) },
        None => Operation::CompareAndSet { key, expected: arguments.expected.map(String::into_bytes), value },
    };
    let answer = client::execute(&arguments.target, operation)?;
    let (swapped, object, text) = told(&answer)?;
    if arguments.target.json {
        println!("{}", answer.with_position(object));
    } else {
        println!("{text}");
    }
    Ok(if swapped { SUCCESS } else { COMPARE_FAILED })
}

/// Whether it was done, and what is said of that: to programs and to people.
fn told(answer: &Answer) -> Result<(bool, Value, String)> {
    match &answer.result {
        OperationResult::Compared { swapped: true, .. } => Ok(done(answer.version())),
        OperationResult::ComparedVersion { swapped: true, version } => Ok(done(*version)),
        OperationResult::Compared { current, .. } => {
            let mut object = json!({ "swapped": false });
            put_bytes(&mut object, "current", current.as_deref());
            let found = current.as_deref().map(String::from_utf8_lossy);
            let found = found.map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"));
            Ok((false, object, format!("not swapped: the value is {found}")))
        }
        OperationResult::ComparedVersion { version, .. } => {
            let found =
                if *version == 0 { "the key is absent".to_owned() } else { format!("the version is {version}") };
            Ok((false, json!({ "swapped": false, "version": version }), format!("not swapped: {found}")))
        }
        _ => Err(answer.unexpected()),
    }
}

fn done(version: u64) -> (bool, Value, String) {
    (true, json!({ "swapped": true, "version": version }), "OK".to_owned())
}
