//! `stale_reads`: what reads of each consistency cost, and how old what they find may be.
//!
//! Off the data path.
//! A writer counts up in one key and remembers when each number was acknowledged; a reader notes before each read what was
//! acknowledged by then. What it finds is stale if a higher number had been acknowledged before it asked; its age is the
//! time since the first number that it missed was. Both run beside an open loop of gets, which is what latencies are of.
//! Invariant: only a stale read may be stale; any other that is makes the benchmark fail.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result};
use ringraft_bench::clock::Clock;
use ringraft_bench::{BenchArgs, Sampled};
use ringraft_net::client::Options;
use ringraft_net::client::tokio::Client;
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Builder;

use super::section::{self, Grid, Section};
use super::testbed::{Meanwhile, Testbed};

const KINDS: [Consistency; 4] =
    [Consistency::Linearizable, Consistency::Lease, Consistency::Follower, Consistency::Stale];
/// Between two writes, and two reads, of the counter.
const PAUSE: Duration = Duration::from_millis(1);

/// What readers of the counter found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Staleness {
    writes: usize,
    reads: usize,
    stale: usize,
    /// Of the stale ones.
    missed_writes_max: usize,
    age_ms_p50: f64,
    age_ms_p99: f64,
    age_ms_max: f64,
}

/// One read: writes it missed, and how long ago the first of them had been acknowledged.
#[derive(Clone, Copy, Debug)]
struct Seen {
    missed: usize,
    age_ns: u64,
}

/// Runs it.
pub(super) fn run(testbed: &mut Testbed<'_>) -> Result<Section> {
    let load = BenchArgs { read_percent: 100, ..testbed.load()? };
    let mut measured = Vec::new();
    for kind in KINDS {
        let load = BenchArgs { read_consistency: kind, ..load.clone() };
        let (sampled, staleness) = testbed.run_during(&load, |meanwhile| probe(meanwhile, kind, load.duration))?;
        eprintln!("  {}: {} of {} reads were stale", kind.name(), staleness.stale, staleness.reads);
        measured.push((kind, sampled, staleness));
    }
    let about = format!(
        "{} gets per second (open loop) for {} s of each consistency; stale and follower reads are spread over all nodes. \
         Beside them one client counts up in a key and another reads it with the same consistency: a read is stale if a \
         higher number had been acknowledged before it was asked, and as old as the first such acknowledgement.",
        load.rate,
        load.duration.as_secs_f64()
    );
    let mut section = Section::new("stale_reads", about);
    fill(&mut section, &measured)?;
    Ok(section)
}

fn probe(meanwhile: &mut Meanwhile<'_>, kind: Consistency, duration: Duration) -> Result<Staleness> {
    let endpoints = meanwhile.cluster.file().endpoints();
    let clock = meanwhile.clock;
    let end_ns = clock.now() + duration.as_nanos() as u64;
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let (writer, reader) = (connect(&endpoints, 1).await?, connect(&endpoints, 2).await?);
        // A key of its own: numbers of an earlier load must not look like those of this one.
        let key = format!("suite-counter-{}", kind.name()).into_bytes();
        let acknowledged = RefCell::new(Vec::new());
        let writing = async {
            while clock.now() < end_ns {
                let number = acknowledged.borrow().len() + 1;
                writer.put(key.clone(), number.to_string().into_bytes()).await.context("a number is not written")?;
                acknowledged.borrow_mut().push(clock.now());
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        let reading = async {
            let mut seen = Vec::new();
            while clock.now() < end_ns {
                let (known, asked_ns) = (acknowledged.borrow().len(), clock.now());
                let found = read(&reader, &key, kind).await?;
                seen.push(judged(&acknowledged.borrow(), known, asked_ns, found));
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(seen)
        };
        let ((), seen) = tokio::try_join!(writing, reading)?;
        Ok(summary(acknowledged.borrow().len(), &seen))
    })
}

async fn connect(endpoints: &[String], seed: u64) -> Result<Client> {
    let options = Options { seed, ..Options::default() };
    Client::connect(endpoints, options).await.context("cannot connect")
}

/// The number that a read finds.
async fn read(client: &Client, key: &[u8], kind: Consistency) -> Result<usize> {
    let operations = vec![Operation::Get { key: key.to_vec() }];
    let answer = client.request_with(operations, kind, 0, None).await.context("the counter is not read")?;
    match answer.value.into_iter().next() {
        Some(OperationResult::Value(None)) => Ok(0),
        Some(OperationResult::Value(Some(value))) => {
            let text = std::str::from_utf8(&value).context("the counter is no text")?;
            text.parse().context("the counter is no number")
        }
        other => anyhow::bail!("a get was answered with {other:?}"),
    }
}

/// `acknowledged` has the time of each number, from 1 on; `known` of them were acknowledged when it was asked.
fn judged(acknowledged: &[u64], known: usize, asked_ns: u64, found: usize) -> Seen {
    match acknowledged[..known].get(found) {
        None => Seen { missed: 0, age_ns: 0 },
        Some(missed_since_ns) => Seen { missed: known - found, age_ns: asked_ns.saturating_sub(*missed_since_ns) },
    }
}

fn summary(writes: usize, seen: &[Seen]) -> Staleness {
    let mut ages: Vec<u64> = seen.iter().filter(|seen| seen.missed > 0).map(|seen| seen.age_ns).collect();
    ages.sort_unstable();
    let age_ms = |share: f64| {
        let place = ((ages.len() as f64 * share).ceil() as usize).max(1) - 1;
        ages.get(place).map_or(0.0, |ns| (*ns as f64 / 1e3).round() / 1e3)
    };
    Staleness {
        writes,
        reads: seen.len(),
        stale: ages.len(),
        missed_writes_max: seen.iter().map(|seen| seen.missed).max().unwrap_or(0),
        age_ms_p50: age_ms(0.5),
        age_ms_p99: age_ms(0.99),
        age_ms_max: age_ms(1.0),
    }
}

fn fill(section: &mut Section, measured: &[(Consistency, Sampled, Staleness)]) -> Result<()> {
    let mut grid =
        Grid::new(&["consistency", "writes", "reads", "stale", "missed writes, max", "age p50", "age p99", "age max"]);
    for (kind, sampled, staleness) in measured {
        let name = kind.name();
        section.expect_no_errors(name, sampled);
        if *kind != Consistency::Stale && staleness.stale > 0 {
            section.problems.push(format!("{name}: {} reads missed writes that were acknowledged", staleness.stale));
        }
        if staleness.reads == 0 || staleness.writes == 0 {
            section.problems.push(format!("{name}: the counter was not used"));
        }
        let share = staleness.stale as f64 * 100.0 / staleness.reads.max(1) as f64;
        let counts = [staleness.writes, staleness.reads].map(|count| count.to_string());
        let ages = [staleness.age_ms_p50, staleness.age_ms_p99, staleness.age_ms_max].map(|ms| format!("{ms:.2} ms"));
        let stale = [format!("{} ({share:.2} %)", staleness.stale), staleness.missed_writes_max.to_string()];
        grid.row(std::iter::once(name.to_owned()).chain(counts).chain(stale).chain(ages));
        section.figures[name] = json!({ "staleness": staleness, "load": section::load_figures(sampled) });
    }
    let loads: Vec<(&str, &Sampled)> = measured.iter().map(|(kind, sampled, _)| (kind.name(), sampled)).collect();
    section.grids.push(grid);
    section.grids.push(section::loads(&loads));
    section.plots.push(section::percentiles("gets by consistency: latency by percentile", &loads)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_as_old_as_the_first_write_it_missed() {
        // Numbers 1, 2, 3 were acknowledged at 10, 20, 30.
        let acknowledged = [10, 20, 30];
        let missed = |known, found| {
            let seen = judged(&acknowledged, known, 35, found);
            (seen.missed, seen.age_ns)
        };
        assert_eq!(missed(3, 3), (0, 0), "all that was acknowledged");
        assert_eq!(missed(2, 3), (0, 0), "more than was acknowledged when it was asked");
        assert_eq!(missed(3, 1), (2, 15), "2 was missed, 15 after it was acknowledged");
        assert_eq!(missed(3, 0), (3, 25));
        assert_eq!(missed(0, 0), (0, 0));
    }

    #[test]
    fn ages_are_those_of_stale_reads() {
        let seen = |missed, age_ms: u64| Seen { missed, age_ns: age_ms * 1_000_000 };
        let found = summary(9, &[seen(0, 0), seen(1, 2), seen(3, 4), seen(0, 0)]);
        assert_eq!((found.reads, found.stale, found.missed_writes_max), (4, 2, 3));
        assert_eq!((found.age_ms_p50, found.age_ms_p99, found.age_ms_max), (2.0, 4.0, 4.0));
        assert_eq!(summary(0, &[]), Staleness::default());
    }
}
