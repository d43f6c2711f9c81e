//! Runs of scenarios: each in a folder and, where it needs one, a network of its own; their results.
//!
//! Off the data path.
//! Invariants: a scenario whose needs are not met is skipped with the reason; the folder of a run that failed is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::history;
use super::journal::{Journal, Step, milliseconds};
use super::load::LoadOptions;
use super::network::{Member, Network};
use super::rights::Need;
use super::scenario::Scenario;
use super::stage::{Environment, Stage};
use super::verdict::{self, NotLinearizable, Summary};
use crate::namespace;

/// The file of all calls.
pub(super) const HISTORY: &str = "history.jsonl";

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything held.
    Ok,
    /// Something did not.
    Failed,
    /// It could not be run here.
    Skipped,
}

/// One run of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// The scenario.
    pub scenario: String,
    /// Which run of it, from 1.
    pub run: u32,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Of the clients' choices.
    pub seed: u64,
    /// From the fault to the first write acknowledged by a new leader, each time there was one.
    pub failovers_ms: Vec<u64>,
    /// What was seen; of runs that passed.
    pub summary: Option<Summary>,
    /// Its lines.
    pub steps: Vec<Step>,
    /// Logs, history and, of a run that failed, the nodes' data.
    pub folder: Option<PathBuf>,
}

impl RunResult {
    /// The line that ends the run.
    #[must_use]
    pub fn line(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let seconds = self.elapsed_ms as f64 / 1e3;
        match (self.verdict, &self.summary) {
            (Verdict::Skipped, _) => format!("{}: skipped: {reason}", self.scenario),
            (Verdict::Ok, Some(summary)) => {
                let mut seen = format!(
                    "{} calls are linearizable, {} of them unknown; longest gap between writes {} ms, memory {} MiB",
                    summary.counts.calls,
                    summary.counts.unknown,
                    summary.longest_gap_ms,
                    summary.memory_bytes >> 20
                );
                let mut add = |count: u64, what: &str| {
                    if count > 0 {
                        seen.push_str(&format!(", {count} {what}"));
                    }
                };
                add(summary.checked.undecided, "keys undecided");
                add(summary.packets_dropped, "packets dropped");
                add(summary.disk_faults, "disk requests met a fault");
                format!("{}: ok after {seconds:.1} s: {seen}", self.scenario)
            }
            (Verdict::Ok, None) => format!("{}: ok after {seconds:.1} s: the loss was found", self.scenario),
            (Verdict::Failed, _) => {
                let kept = self.folder.as_ref().map(|folder| format!("\n  kept: {}", folder.display()));
                format!("{}: FAILED after {seconds:.1} s: {reason}{}", self.scenario, kept.unwrap_or_default())
            }
        }
    }
}

/// Runs scenarios.
#[derive(Debug)]
pub struct Runner<'a> {
    environment: Environment<'a>,
    /// Where temporary folders are made: a real disk.
    parent: PathBuf,
    /// Where results are kept.
    out: Option<PathBuf>,
    quiet: bool,
    probed: BTreeMap<Need, Option<String>>,
}

impl<'a> Runner<'a> {
    /// A runner. `quiet`: standard output is for JSON, lines go to standard error.
    #[must_use]
    pub fn new(environment: Environment<'a>, parent: &Path, out: Option<&Path>, quiet: bool) -> Self {
        let (parent, out) = (parent.to_owned(), out.map(Path::to_owned));
        Self { environment, parent, out, quiet, probed: BTreeMap::new() }
    }

    /// Runs a scenario for the `run`th time.
    ///
    /// # Errors
    /// When no folder can be made; everything else is part of the result.
    pub fn run(&mut self, scenario: &Scenario, run: u32) -> Result<RunResult> {
        let seed = self.environment.load.seed.wrapping_add(u64::from(run) - 1);
        let mut result = RunResult {
            scenario: scenario.name.to_owned(),
            run,
            verdict: Verdict::Skipped,
            reason: self.missing(scenario),
            elapsed_ms: 0,
            seed,
            failovers_ms: Vec::new(),
            summary: None,
            steps: Vec::new(),
            folder: None,
        };
        if result.reason.is_some() {
            return Ok(result);
        }
        let (folder, temporary) = self.folder(scenario, run)?;
        let environment = Environment { load: LoadOptions { seed, ..self.environment.load }, ..self.environment };
        let journal = Journal::begin(self.quiet);
        let performance = perform(scenario, environment, &folder, journal);
        let failure = performance.and_then(|performance| settle(scenario, performance, &mut result)).err();
        result.verdict = if failure.is_none() { Verdict::Ok } else { Verdict::Failed };
        result.reason = failure.map(|error| format!("{error:#}"));
        self.keep(&mut result, &folder, temporary)?;
        Ok(result)
    }

    /// Why the scenario cannot be run here.
    fn missing(&mut self, scenario: &Scenario) -> Option<String> {
        let (probed, parent) = (&mut self.probed, &self.parent);
        scenario.needs.iter().find_map(|need| {
            let probe = || need.probe(parent).err().map(|error| format!("{error:#}"));
            probed.entry(*need).or_insert_with(probe).clone()
        })
    }

    fn folder(&self, scenario: &Scenario, run: u32) -> Result<(PathBuf, Option<TempDir>)> {
        let Some(out) = &self.out else {
            let folder = TempDir::with_prefix_in("ringraft-chaos-", &self.parent);
            let folder = folder.with_context(|| format!("cannot make a folder in {}", self.parent.display()))?;
            return Ok((folder.path().to_owned(), Some(folder)));
        };
        // Results of before stay.
        let folders = (run..).map(|number| out.join(format!("{}-{number}", scenario.name)));
        let folder = folders.into_iter().find(|folder| !folder.exists()).context("no number is free")?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok((folder, None))
    }

    /// Leaves what is asked for or needed to understand a failure.
    fn keep(&self, result: &mut RunResult, folder: &Path, temporary: Option<TempDir>) -> Result<()> {
        let failed = result.verdict == Verdict::Failed;
        if !failed {
            remove_data(folder)?;
        }
        match temporary {
            Some(temporary) if !failed => return temporary.close().context("cannot remove the folder of the run"),
            Some(temporary) => drop(temporary.keep()),
            None => {}
        }
        result.folder = Some(folder.to_owned());
        let path = folder.join("result.json");
        fs::write(&path, serde_json::to_vec_pretty(result)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Takes over what a run gave; an error is why it failed.
fn settle(scenario: &Scenario, performance: Performance, result: &mut RunResult) -> Result<()> {
    result.elapsed_ms = performance.elapsed_ms;
    result.failovers_ms = performance.failovers_ms;
    result.steps = performance.steps;
    match performance.judged {
        Ok(_) if scenario.loses_writes => bail!("acknowledged writes were lost and the check did not find it"),
        Ok(summary) => {
            let nothing = "nothing was tried:";
            let (network, disk) = (scenario.needs.contains(&Need::Network), scenario.needs.contains(&Need::Disk));
            ensure!(!network || summary.packets_dropped > 0, "{nothing} no packet was dropped");
            ensure!(!disk || summary.disk_faults > 0, "{nothing} no request met a fault of its disk");
            result.summary = Some(summary);
        }
        Err(error) if scenario.loses_writes && error.is::<NotLinearizable>() => {
            result.steps.push(Step { elapsed_ms: result.elapsed_ms, text: format!("found: {error:#}") });
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The disks of the nodes, which nobody needs after a run that passed.
fn remove_data(folder: &Path) -> Result<()> {
    for node in 1..=9 {
        let node = folder.join(format!("cluster/node-{node}"));
        for part in ["data", "backing", "backing.removed"] {
            match fs::remove_dir_all(node.join(part)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", node.join(part).display()));
                }
                _ => {}
            }
        }
        // Only some scenarios have one.
        let _ = fs::remove_file(node.join("image"));
    }
    Ok(())
}

/// What a run gave.
struct Performance {
    judged: Result<Summary>,
    elapsed_ms: u64,
    failovers_ms: Vec<u64>,
    steps: Vec<Step>,
}

/// Runs the scenario where its clients live.
fn perform(scenario: &Scenario, environment: Environment<'_>, folder: &Path, journal: Journal) -> Result<Performance> {
    let network = if scenario.needs.contains(&Need::Network) { Some(Network::create(scenario.nodes)?) } else { None };
    let namespace = network.as_ref().map(|network| network.namespace(Member::Clients));
    namespace::inside(namespace.as_deref(), || {
        let mut stage = Stage::set(scenario, environment, &folder.join("cluster"), network, journal)?;
        let judged = (scenario.steps)(&mut stage).and_then(|()| verdict::judge(&mut stage, folder));
        if let Some(load) = stage.load.take() {
            history::save(&load.stop()?, &folder.join(HISTORY))?;
        }
        let elapsed_ms = milliseconds(stage.journal.elapsed());
        let (failovers_ms, steps) = (stage.failovers_ms.clone(), stage.journal.steps().to_vec());
        Ok(Performance { judged, elapsed_ms, failovers_ms, steps })
    })
}
