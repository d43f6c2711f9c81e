//! `write_latency`, `read_latency`, `delete_latency`: one kind of operation at a fixed rate.
//!
//! Off the data path.

use anyhow::Result;
use ringraft_bench::BenchArgs;

use super::section::{self, Section};
use super::testbed::Testbed;

/// Puts.
pub(super) fn write(testbed: &mut Testbed<'_>) -> Result<Section> {
    let load = testbed.load()?;
    let about = format!(
        "{} over {} keys; acknowledged when a majority has flushed.",
        pace(&format!("puts of {} bytes", load.value_size), &load),
        load.keys
    );
    measured(testbed, "write_latency", about, "put", &load)
}

/// Linearizable gets.
pub(super) fn read(testbed: &mut Testbed<'_>) -> Result<Section> {
    let load = BenchArgs { read_percent: 100, ..testbed.load()? };
    let about = format!(
        "{} over {} keys, all of which were written before; every value is verified. Linearizable: the leader asks a majority.",
        pace("gets", &load),
        load.keys
    );
    measured(testbed, "read_latency", about, "get", &load)
}

/// Deletes of keys that exist.
pub(super) fn delete(testbed: &mut Testbed<'_>) -> Result<Section> {
    let load = testbed.load()?;
    // One key for each operation that is meant to start.
    let seconds = (load.warmup + load.duration).as_secs_f64();
    let keys = ((load.rate as f64 * seconds).ceil() as u64 + 1).max(1);
    let load = BenchArgs { deletes: true, keys, ..load };
    let about = format!("{}; each of the {keys} keys was written before and is deleted once.", pace("deletes", &load));
    measured(testbed, "delete_latency", about, "delete", &load)
}

fn pace(what: &str, load: &BenchArgs) -> String {
    format!("{} {what} per second (open loop) for {} s", load.rate, load.duration.as_secs_f64())
}

fn measured(
    testbed: &mut Testbed<'_>,
    name: &'static str,
    about: String,
    kind: &str,
    load: &BenchArgs,
) -> Result<Section> {
    let sampled = testbed.run(load)?;
    let mut section = Section::new(name, about);
    section.expect_no_errors(name, &sampled);
    let loads = [(kind, &sampled)];
    section.grids.push(section::loads(&loads));
    section.plots.push(section::percentiles(&format!("{kind}: latency by percentile"), &loads)?);
    section.plots.push(section::over_time(&format!("{kind}: latency over time"), &sampled, Vec::new())?);
    section.figures = section::load_figures(&sampled);
    Ok(section)
}
