//! `slow_follower_recovery`: a follower sleeps, then one is killed, under load; how far behind it is when it comes back, how
//! soon it has caught up, and what clients notice.
//!
//! Off the data path.
//!
//! ```text
//!   load ── calm ── SIGSTOP ── --absence ── SIGCONT ── catches up ── calm ── kill -9 ── --absence ── start ── catches up ── calm
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use ringraft_bench::Sampled;
use ringraft_bench::clock::Clock;
use ringraft_bench::plot::{self, Line, Moments, OverTime};
use ringraft_bench::samples::{self, Sample};
use ringraft_bench::table::count;
use ringraft_tools::status::{self, ClusterStatus};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;

use super::section::{self, Grid, Plot, Section};
use super::testbed::{Meanwhile, Testbed};

const CALM: Duration = Duration::from_secs(2);
/// Between two looks at a node that is away.
const SLOW_LOOK: Duration = Duration::from_millis(100);
/// Who lacks no more entries than are written in so long has caught up: some are always on their way.
const LAG_TIME: Duration = Duration::from_millis(50);
/// And at least so many.
const LAG_MIN: u64 = 100;

/// How a follower goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sleep,
    Kill,
}

/// A follower that was away.
#[derive(Clone, Copy, Debug)]
struct Absence {
    way: Way,
    node: u64,
    left_ns: u64,
    returned_ns: u64,
    caught_up_ns: u64,
    /// Entries it lacked when it first answered.
    behind: u64,
}

/// Entries that the follower lacks, over time.
type Lags = Vec<(u64, u64)>;

/// Runs it.
pub(super) fn run(testbed: &mut Testbed<'_>) -> Result<Section> {
    let load = testbed.load()?;
    let away = testbed.suite.absence;
    let lag_max = ((load.rate as f64 * LAG_TIME.as_secs_f64()) as u64).max(LAG_MIN);
    let (sampled, (absences, lags)) = testbed.run_during(&load, |meanwhile| {
        let mut lags = Lags::new();
        let mut absences = Vec::new();
        meanwhile.sleep(CALM)?;
        for way in [Way::Sleep, Way::Kill] {
            absences.push(leave_and_return(meanwhile, way, away, lag_max, &mut lags)?);
            meanwhile.sleep(CALM)?;
        }
        Ok((absences, lags))
    })?;
    let about = format!(
        "{} puts per second (open loop) while a follower sleeps (SIGSTOP) for {} s and wakes, then is killed (kill -9) and \
         started again after the same time. It has caught up when it lacks at most {lag_max} entries.",
        load.rate,
        away.as_secs_f64()
    );
    let mut section = Section::new("slow_follower_recovery", about);
    section.expect_no_errors("slow_follower_recovery", &sampled);
    fill(&mut section, &sampled, &absences, &lags)?;
    Ok(section)
}

fn leave_and_return(
    meanwhile: &mut Meanwhile<'_>,
    way: Way,
    away: Duration,
    lag_max: u64,
    lags: &mut Lags,
) -> Result<Absence> {
    let leader = meanwhile.leader()?;
    let others = meanwhile.cluster.file().nodes.iter().map(|node| node.id).filter(|id| *id != leader);
    let node = others.max().context("the cluster has one node")?;
    let addresses = meanwhile.addresses_without(node);
    let applied = replica(&status::cluster(&meanwhile.cluster.file().addresses()), node)
        .with_context(|| format!("node {node} does not answer"))?
        .0;
    let left_ns = meanwhile.now();
    match way {
        Way::Sleep => meanwhile.cluster.signal(node, Signal::STOP)?,
        Way::Kill => meanwhile.cluster.kill(node)?,
    }
    let end_ns = left_ns + away.as_nanos() as u64;
    while meanwhile.now() < end_ns {
        let committed = committed(&status::cluster(&addresses));
        lags.push((meanwhile.now(), committed.saturating_sub(applied)));
        meanwhile.sleep(SLOW_LOOK)?;
    }
    let returned_ns = meanwhile.now();
    match way {
        Way::Sleep => meanwhile.cluster.signal(node, Signal::CONT)?,
        Way::Kill => meanwhile.cluster.start_node(node)?,
    }
    let (behind, caught_up_ns) = catch_up(meanwhile, node, lag_max, lags)?;
    eprintln!("  node {node} lacked {behind} entries and has them after {:.2} s", seconds(caught_up_ns, returned_ns));
    Ok(Absence { way, node, left_ns, returned_ns, caught_up_ns, behind })
}

/// Entries the node lacked when it first answered, and when it lacked none worth mentioning.
fn catch_up(meanwhile: &Meanwhile<'_>, node: u64, lag_max: u64, lags: &mut Lags) -> Result<(u64, u64)> {
    let addresses = meanwhile.cluster.file().addresses();
    let mut first = None;
    meanwhile.wait(&format!("node {node} to catch up"), || {
        let status = status::cluster(&addresses);
        let Some((applied, _)) = replica(&status, node) else { return Ok(None) };
        let (lag, now_ns) = (committed(&status).saturating_sub(applied), meanwhile.clock.now());
        lags.push((now_ns, lag));
        let first = *first.get_or_insert(lag);
        Ok((lag <= lag_max).then_some((first, now_ns)))
    })
}

/// What a node has applied and knows as committed.
fn replica(status: &ClusterStatus, node: u64) -> Option<(u64, u64)> {
    let found = status.replicas(0).find(|(id, _)| *id == node)?.1;
    Some((found.last_applied, found.commit_index))
}

fn committed(status: &ClusterStatus) -> u64 {
    status.replicas(0).map(|(_, replica)| replica.commit_index).max().unwrap_or(0)
}

fn seconds(at_ns: u64, start_ns: u64) -> f64 {
    at_ns.saturating_sub(start_ns) as f64 / 1e9
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Sleep => "slept",
            Self::Kill => "killed",
        }
    }
}

/// For programs.
#[derive(Debug, Serialize)]
struct Recovery {
    way: &'static str,
    node: u64,
    away_s: f64,
    behind_entries: u64,
    catch_up_ms: f64,
}

fn fill(section: &mut Section, sampled: &Sampled, absences: &[Absence], lags: &Lags) -> Result<()> {
    let start_ns = sampled.window_start_ns;
    let mut grid = Grid::new(&["follower", "node", "away", "entries behind", "caught up after"]);
    let recoveries: Vec<Recovery> = absences.iter().map(recovery).collect();
    for recovery in &recoveries {
        let (node, away) = (format!("node {}", recovery.node), format!("{:.1} s", recovery.away_s));
        let behind = count(recovery.behind_entries as f64);
        grid.row([recovery.way.to_owned(), node, away, behind, format!("{:.0} ms", recovery.catch_up_ms)]);
    }
    section.grids.push(grid);
    section.grids.push(phases(sampled, absences));
    section.grids.push(section::loads(&[("put", sampled)]));
    section.figures["recoveries"] = json!(recoveries);
    section.figures["load"] = section::load_figures(sampled);
    section.plots.push(section::over_time("puts: latency over time", sampled, moments(absences, start_ns))?);
    section.plots.push(lag_plot(absences, lags, start_ns)?);
    Ok(())
}

fn recovery(absence: &Absence) -> Recovery {
    Recovery {
        way: absence.way.word(),
        node: absence.node,
        away_s: seconds(absence.returned_ns, absence.left_ns),
        behind_entries: absence.behind,
        catch_up_ms: (seconds(absence.caught_up_ns, absence.returned_ns) * 1e4).round() / 10.0,
    }
}

/// Latency of what was meant to start in each phase.
fn phases(sampled: &Sampled, absences: &[Absence]) -> Grid {
    let mut grid = Grid::new(&["puts meanwhile", "operations", "failed", "p50", "p99", "max"]);
    let mut row = |name: String, from_ns: u64, to_ns: u64| {
        let within = |sample: &&Sample| (from_ns..to_ns).contains(&sample.intended_ns);
        let samples: Vec<Sample> = sampled.samples.iter().filter(within).copied().collect();
        for phase in samples::intervals(&samples, from_ns, u64::MAX) {
            let latencies = [phase.p50_ms, phase.p99_ms, phase.max_ms].map(|ms| format!("{ms:.2} ms"));
            let counts = [phase.operations, phase.errors].map(|number| count(number as f64));
            grid.row(std::iter::once(name.clone()).chain(counts).chain(latencies));
        }
    };
    let mut calm_ns = sampled.window_start_ns;
    for absence in absences {
        let word = absence.way.word();
        row("all nodes there".to_owned(), calm_ns, absence.left_ns);
        row(format!("follower away ({word})"), absence.left_ns, absence.returned_ns);
        row(format!("follower catches up ({word})"), absence.returned_ns, absence.caught_up_ns);
        calm_ns = absence.caught_up_ns;
    }
    row("all nodes there".to_owned(), calm_ns, u64::MAX);
    grid
}

fn moments(absences: &[Absence], start_ns: u64) -> Vec<Moments<'static>> {
    let of = |name, read: fn(&Absence) -> u64| Moments {
        name,
        at_s: absences.iter().map(|absence| seconds(read(absence), start_ns)).collect(),
    };
    vec![
        of("follower goes", |absence| absence.left_ns),
        of("follower returns", |absence| absence.returned_ns),
        of("has caught up", |absence| absence.caught_up_ns),
    ]
}

fn lag_plot(absences: &[Absence], lags: &Lags, start_ns: u64) -> Result<Plot> {
    let points = lags.iter().map(|(at_ns, lag)| (seconds(*at_ns, start_ns), *lag as f64)).collect();
    let lines = vec![Line { name: "entries behind", points }];
    let moments = moments(absences, start_ns);
    let drawing = OverTime {
        title: "entries that the follower lacks, over time",
        y: "entries behind",
        logarithmic: false,
        lines,
        moments,
    };
    let caption = "Entries that are committed and that the follower has not applied.".to_owned();
    Ok(Plot { caption, svg: plot::over_time(&drawing)? })
}
