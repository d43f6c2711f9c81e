//! `ringraft put-batch|get-batch|delete-batch`: many keys from a file or standard input, many requests on their way.
//!
//! Off the data path.
//!
//! ```text
//!   reader thread ── bounded channel ──▶ at most --in-flight requests, one at a time for a key ──▶ counts, progress bar
//! ```
//! Invariants: lines with the same key take effect in their order; memory is bounded by --in-flight lines; a malformed line
//! ends the batch, what was before it is done; the summary counts every line that was sent.

mod input;
mod run;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ringraft_net::wire::Consistency;

use self::input::Form;
use super::Outcome;
use crate::client::Target;

const PUT_EXAMPLES: &str = "\
Examples:
  ringraft put-batch --dir ./cluster pairs.txt
  printf 'a=1\\nb=2\\n' | ringraft put-batch --addr 10.0.0.1:7100,10.0.0.2:7100
  ringraft put-batch --dir ./cluster --format json --json < pairs.jsonl

Lines are `key=value`, `key<TAB>value` or {\"key\": \"k\", \"value\": \"v\"} (key_hex and value_hex for other bytes); the first
line decides unless --format does. Empty lines are skipped. Of two lines with one key the later one counts.

Exit code 1: some were not done. Exit code 5: of some the outcome is unknown. The messages name keys and lines.";

const GET_EXAMPLES: &str = "\
Examples:
  ringraft get-batch --dir ./cluster keys.txt
  ringraft get-batch --addr 10.0.0.1:7100 --consistency stale keys.txt > pairs.tsv
  ringraft get-batch --dir ./cluster --json < keys.txt

Lines are keys, or pairs whose values are not looked at (see `ringraft put-batch --help`; --format pairs ends a key at its
first `=`). It prints `key<TAB>value` as answers come, bytes as they are; with --json one object of key, found and value
per line, then the summary.

Exit code 3: some key has no value. Exit code 1: some were not read.";

const DELETE_EXAMPLES: &str = "\
Examples:
  ringraft delete-batch --dir ./cluster keys.txt
  ringraft delete-batch --addr 10.0.0.1:7100 --format pairs pairs.txt     the keys of a file of pairs
  cut -f1 pairs.tsv | ringraft delete-batch --dir ./cluster --json

Exit code 3: some key had no value. Exit code 1: some were not done. Exit code 5: of some the outcome is unknown.";

/// Sets many keys.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub(crate) struct PutBatch {
    #[command(flatten)]
    batch: Batch,
}

/// Reads many keys.
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(crate) struct GetBatch {
    #[command(flatten)]
    batch: Batch,
    /// How fresh: linearizable, lease, follower, stale; see `ringraft get --help`.
    #[arg(long, value_name = "KIND", default_value = "linearizable")]
    consistency: Consistency,
}

/// Removes many keys.
#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteBatch {
    #[command(flatten)]
    batch: Batch,
}

/// What the three share.
#[derive(Debug, Args)]
struct Batch {
    #[command(flatten)]
    target: Target,
    /// The file; `-` or nothing: standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How its lines are written.
    #[arg(long, value_enum, default_value = "auto")]
    format: Form,
    /// Requests on their way at once.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    in_flight: u32,
}

/// What is done with every line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Put,
    Get(Consistency),
    Delete,
}

pub(crate) fn put(arguments: &PutBatch) -> Result<Outcome> {
    run::run(&arguments.batch, Work::Put)
}

pub(crate) fn get(arguments: &GetBatch) -> Result<Outcome> {
    run::run(&arguments.batch, Work::Get(arguments.consistency))
}

pub(crate) fn delete(arguments: &DeleteBatch) -> Result<Outcome> {
    run::run(&arguments.batch, Work::Delete)
}
