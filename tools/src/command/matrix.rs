//! `ringraft sim-matrix`: the matrix of storage faults.
//!
//! Off the data path.
//! It reads and writes no file: logs are written, damaged and recovered in memory, by the production code.

use anyhow::Result;
use clap::Args;
use ringraft_sim::matrix::{self, Options, Report};
use serde_json::{Value, json};

use super::Outcome;

const EXAMPLES: &str = "\
Examples:
  ringraft sim-matrix                 every damage, and every pair of them on one disk
  ringraft sim-matrix --pairs 100     every hundredth pair
  ringraft sim-matrix --json

Exit code 1: a case ended as none may (silently shorter, divergent, an error that names no file).";

/// Damages the disks of a small cluster in every way, one after the other, and shows what it does then.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Matrix {
    /// Every how many pairs of damages one is tried.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Threads; all processors if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Matrix) -> Result<Outcome> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = arguments.threads.map_or(processors, usize::from);
    let options = Options { pair_stride: arguments.pairs as usize, threads };
    let report = matrix::run(&options).map_err(anyhow::Error::msg)?;
    if arguments.json {
        println!("{:#}", to_json(&report));
    } else {
        print!("{report}");
    }
    Ok(Outcome::of(report.violation_count == 0))
}

fn to_json(report: &Report) -> Value {
    let rows: Vec<Value> = report
        .rows
        .iter()
        .map(|(row, counts)| {
            json!({
                "ending": row.ending.name(), "damage": row.damage, "replicas": row.replicas,
                "recovered": counts.recovered, "serves": counts.serves, "stopped": counts.stopped, "lost": counts.lost,
            })
        })
        .collect();
    json!({
        "rows": rows, "cluster_runs": report.cluster_runs,
        "violations": report.violation_count, "first_violations": report.violations,
    })
}
