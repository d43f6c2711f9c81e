//! Lines in, requests out, answers counted.
//!
//! Off the data path.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use ringraft_net::client::ClientError;
use ringraft_net::client::tokio::Client;
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use ringraft_tools::output;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::input::{Item, Items};
use super::{Batch, Work};
use crate::client;
use crate::command::{FAILURE, NOT_FOUND, OUTCOME_UNKNOWN, Outcome, SUCCESS, put_bytes};

/// Failures that are told one by one.
const TOLD_MAX: u64 = 10;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Summary {
    /// Done, with or without a value found.
    done: u64,
    /// Of these, keys without a value.
    missing: u64,
    /// Surely not done.
    failed: u64,
    /// May have been done.
    unknown: u64,
}

impl Summary {
    fn outcome(self) -> Outcome {
        match self {
            Self { unknown: 1.., .. } => OUTCOME_UNKNOWN,
            Self { failed: 1.., .. } => FAILURE,
            Self { missing: 1.., .. } => NOT_FOUND,
            _ => SUCCESS,
        }
    }
}

/// One line and its answer.
type Answered = (Item, Result<OperationResult, ClientError>);

pub(super) fn run(batch: &Batch, work: Work) -> Result<Outcome> {
    let (source, bytes) = open(&batch.file)?;
    let (sender, lines) = mpsc::channel(batch.in_flight as usize);
    let items = Items::new(BufReader::new(source), batch.format, work == Work::Put);
    thread::spawn(move || {
        for item in items {
            let last = item.is_err();
            if sender.blocking_send(item).is_err() || last {
                return;
            }
        }
    });
    let bar = progress_bar(bytes);
    let mut progress = Progress { work, json: batch.target.json, bar, summary: Summary::default() };
    let started = Instant::now();
    let ended = client::runtime()?.block_on(async {
        let client = client::connect(&batch.target).await?;
        drive(&client, lines, batch, &mut progress).await
    });
    progress.bar.finish_and_clear();
    let summary = progress.summary;
    tell(summary, work, started, batch.target.json);
    if let Err(error) = ended {
        eprintln!("ringraft: {error:#}");
        return Ok(if summary.unknown > 0 { OUTCOME_UNKNOWN } else { FAILURE });
    }
    Ok(summary.outcome())
}

fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), bytes))
}

/// On standard error, and only where that is a terminal.
fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {percent}% {msg} {elapsed} (rest {eta})"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Keeps requests on their way until the lines end. An error ends the batch when everything sent is answered.
async fn drive(
    client: &Client,
    mut lines: mpsc::Receiver<Result<Item>>,
    batch: &Batch,
    progress: &mut Progress,
) -> Result<()> {
    let mut running: JoinSet<Answered> = JoinSet::new();
    let mut keys = BTreeSet::new();
    let mut ended = Ok(());
    while let Some(item) = lines.recv().await {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                ended = Err(error.context("the batch ends here; what was before it is sent"));
                break;
            }
        };
        while running.len() >= batch.in_flight as usize || keys.contains(&item.key) {
            let Some(answered) = running.join_next().await else { break };
            progress.take(answered, &mut keys)?;
        }
        if progress.is_fatal() {
            ended = Err(anyhow!("nothing succeeds: the batch ends before line {}", item.line));
            break;
        }
        keys.insert(item.key.clone());
        running.spawn(ask(client.clone(), item, progress.work, batch.target.timeout()));
    }
    while let Some(answered) = running.join_next().await {
        progress.take(answered, &mut keys)?;
    }
    ended
}

async fn ask(client: Client, mut item: Item, work: Work, timeout: std::time::Duration) -> Answered {
    let (key, value) = (item.key.clone(), std::mem::take(&mut item.value));
    let (operation, consistency) = match work {
        Work::Put => (Operation::Put { key, value }, Consistency::Linearizable),
        Work::Get(consistency) => (Operation::Get { key }, consistency),
        Work::Delete => (Operation::Delete { key }, Consistency::Linearizable),
    };
    let answer = client.request_within(vec![operation], consistency, Some(timeout)).await;
    let empty = || ClientError::BadRequest { message: "the server answered without a result".to_owned() };
    (item, answer.and_then(|answer| answer.value.into_iter().next().ok_or_else(empty)))
}

/// What is shown while it goes on.
struct Progress {
    work: Work,
    json: bool,
    bar: ProgressBar,
    summary: Summary,
}

impl Progress {
    fn take(&mut self, answered: Result<Answered, tokio::task::JoinError>, keys: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        let (item, result) = answered.context("a request panicked")?;
        keys.remove(&item.key);
        match result {
            Ok(result) => {
                self.summary.done += 1;
                self.summary.missing += u64::from(matches!(
                    result,
                    OperationResult::Value(None) | OperationResult::Deleted { existed: false }
                ));
                if let OperationResult::Value(value) = &result {
                    self.print(&item.key, value.as_deref())?;
                }
            }
            Err(error) => self.fail(&item, &error),
        }
        self.bar.inc(item.bytes);
        self.bar.set_message(format!("{} done", self.summary.done));
        Ok(())
    }

    fn fail(&mut self, item: &Item, error: &ClientError) {
        let unknown = error.is_outcome_unknown();
        *(if unknown { &mut self.summary.unknown } else { &mut self.summary.failed }) += 1;
        let told = self.summary.unknown + self.summary.failed;
        if told <= TOLD_MAX {
            let text = format!("ringraft: line {}, key {:?}: {error}", item.line, String::from_utf8_lossy(&item.key));
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// So much fails that going on helps nobody.
    fn is_fatal(&self) -> bool {
        self.summary.done == 0 && self.summary.failed + self.summary.unknown >= TOLD_MAX
    }

    fn print(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut line = Vec::new();
        match value {
            _ if self.json => {
                let mut object = json!({ "found": value.is_some() });
                put_bytes(&mut object, "key", Some(key));
                put_bytes(&mut object, "value", value);
                line.extend(object.to_string().into_bytes());
            }
            Some(value) => line.extend([key, b"\t", value].concat()),
            None => return Ok(()),
        }
        line.push(b'\n');
        // The end of the command must not begin inside of the bar.
        output::checked(self.bar.suspend(|| io::stdout().lock().write_all(&line)));
        Ok(())
    }
}

fn tell(summary: Summary, work: Work, started: Instant, as_json: bool) {
    let Summary { done, missing, failed, unknown } = summary;
    let seconds = started.elapsed().as_secs_f64();
    let rate = (done as f64 / seconds.max(1e-9)).round();
    if as_json {
        let object: Value = json!({
            "done": done, "missing": missing, "failed": failed, "unknown": unknown, "seconds": seconds, "per_second": rate,
        });
        println!("{object}");
        return;
    }
    let (verb, absent) = match work {
        Work::Put => ("set", String::new()),
        Work::Get(_) => ("read", format!(", {missing} of them without a value")),
        Work::Delete => ("deleted", format!(", {missing} of them were not there")),
    };
    let absent = if missing > 0 { absent } else { String::new() };
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    let unknown = if unknown > 0 { format!(", {unknown} of unknown outcome") } else { String::new() };
    eprintln!("{done} {verb}{absent}{failed}{unknown} in {seconds:.1} s, {rate} per second");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_the_worst() {
        let done = Summary { done: 5, ..Summary::default() };
        assert_eq!(done.outcome(), SUCCESS);
        assert_eq!(Summary { missing: 1, ..done }.outcome(), NOT_FOUND);
        assert_eq!(Summary { missing: 1, failed: 1, ..done }.outcome(), FAILURE);
        assert_eq!(Summary { failed: 1, unknown: 1, ..done }.outcome(), OUTCOME_UNKNOWN);
    }
}
