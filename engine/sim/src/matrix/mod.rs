//! The matrix of storage faults: every damage of a log, every pair of them, on one, two and all replicas.
//!
//! Off the data path.
//! In the manner of protocol-aware recovery (Alagappan et al., FAST 2018): a cluster of production shards writes known
//! entries over several segments, some of them in files that were used before, and is killed. Then its disks are damaged case
//! by case, it is started again, and what it has is held against what it had acknowledged.
//!
//! ```text
//!   scenario (write, kill) -> image (damage, open) -> judge (one replica: full, cut, stopped)
//!                                                      '-> cluster (three of them: serves everything, stops, or lost it)
//! ```
//!
//! A case must end in one of these ways:
//! * all start with everything;
//! * some stop, each naming file and byte, or start without their newest batch, and the cluster serves everything;
//! * too many stop: the cluster is not available, and nothing is lost;
//! * lost: two replicas start without an acknowledged batch that *nothing else on their disks* calls durable. That is row
//!   27 of the WAL's `FORMAT.md`, no disk can tell it from a torn write, and every such case is counted.
//!
//! All else is a violation: silently shorter, divergent, an error that names nothing, a majority that does not serve.
//!
//! Replicas that start alike (same end of the log) behave alike, so the cluster is run once for every combination of
//! starts, over the images of the first case of each, and the others are counted. What it does not do: faults while the
//! cluster runs, that is the simulator's.

pub mod cluster;
pub mod image;
mod judge;
mod report;
mod scenario;

use std::collections::BTreeMap;

use ringraft_wal::Recovered;

use self::cluster::{Cluster, NODES};
use self::image::{Damage, Image, Kind};
use self::judge::Start;
pub use self::report::{Counts, Outcome, Report, Row};
pub use self::scenario::Ending;
use self::scenario::{Replica, Scenario};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Every how many pairs of damages one is tried; 1: all.
    pub pair_stride: usize,
    /// Threads that try them.
    pub threads: usize,
}

/// Ticks after which replicas that are up must have the same state.
const EQUAL_TICKS_MAX: usize = 200;

/// Violations kept with their text.
const VIOLATIONS_MAX: usize = 20;

/// Starts of one replica: how many cases of each kind of damage led to each.
type Starts = BTreeMap<(String, Start), u64>;

/// What was found out about one replica.
#[derive(Default)]
struct Found {
    singles: Starts,
    pairs: Starts,
    /// The first damage that led to each start.
    examples: BTreeMap<Start, Vec<Damage>>,
    violations: Vec<String>,
    violation_count: u64,
}

/// Runs the whole matrix.
///
/// # Errors
/// The undamaged cluster does not do what it should.
pub fn run(options: &Options) -> Result<Report, String> {
    let mut report = Report::default();
    for ending in Ending::ALL {
        let scenario = Scenario::new(ending)?;
        let found: Vec<Found> = scenario.replicas.iter().map(|replica| try_replica(replica, options)).collect();
        for (node, found) in found.iter().enumerate() {
            report.violation_count += found.violation_count;
            let named = found.violations.iter().map(|text| format!("{}, node {}: {text}", ending.name(), node + 1));
            report.violations.extend(named.take(VIOLATIONS_MAX));
        }
        combine(&scenario, ending, &found, &mut report);
    }
    Ok(report)
}

fn label(damage: &[Damage]) -> String {
    let part = |damage: &Damage| {
        if Kind::OF_BLOCKS.contains(&damage.kind) {
            "block"
        } else if Kind::OF_FILES.contains(&damage.kind) {
            "file"
        } else {
            "wal.meta"
        }
    };
    match damage {
        [one] => format!("{} {}", part(one), one.kind.name()),
        several => {
            let mut parts: Vec<&str> = several.iter().map(part).collect();
            parts.sort_unstable();
            format!("pair: {}", parts.join(" and "))
        }
    }
}

impl Found {
    fn note(&mut self, replica: &Replica, damage: &[Damage]) {
        match judge::start(replica, damage) {
            Ok((start, _)) => {
                self.examples.entry(start.clone()).or_insert_with(|| damage.to_vec());
                let starts = if damage.len() == 1 { &mut self.singles } else { &mut self.pairs };
                *starts.entry((label(damage), start)).or_default() += 1;
            }
            Err(reason) => {
                self.violation_count += 1;
                if self.violations.len() < VIOLATIONS_MAX {
                    let damage: Vec<String> = damage.iter().map(ToString::to_string).collect();
                    self.violations.push(format!("{}: {reason}", damage.join(", ")));
                }
            }
        }
    }

    fn add(&mut self, other: Self) {
        for (into, from) in [(&mut self.singles, other.singles), (&mut self.pairs, other.pairs)] {
            for (key, count) in from {
                *into.entry(key).or_default() += count;
            }
        }
        for (start, damage) in other.examples {
            self.examples.entry(start).or_insert(damage);
        }
        self.violations.extend(other.violations);
        self.violation_count += other.violation_count;
    }
}

/// Every damage and every pair of damages of one replica.
fn try_replica(replica: &Replica, options: &Options) -> Found {
    let damages = replica.damages();
    let threads = options.threads.max(1);
    let work = |worker: usize| {
        let mut found = Found::default();
        let mut pair = 0;
        for (place, one) in damages.iter().enumerate() {
            if place % threads == worker {
                found.note(replica, &[*one]);
            }
            for other in &damages[place + 1..] {
                pair += 1;
                let chosen = pair % options.pair_stride == 0 && pair / options.pair_stride % threads == worker;
                if chosen && (one.file, one.block) != (other.file, other.block) {
                    found.note(replica, &[*one, *other]);
                }
            }
        }
        found
    };
    let mut all = Found::default();
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|worker| scope.spawn(move || work(worker))).collect();
        for worker in workers {
            match worker.join() {
                Ok(found) => all.add(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all
}

/// Counts the outcomes of damage on one, two and three replicas.
fn combine(scenario: &Scenario, ending: Ending, found: &[Found], report: &mut Report) {
    let mut known: BTreeMap<Vec<Option<Start>>, Result<Outcome, String>> = BTreeMap::new();
    for set in 1_usize..1 << NODES {
        let damaged = set.count_ones() as usize;
        for pairs in [false, true] {
            let starts_of = |node: usize| if pairs { &found[node].pairs } else { &found[node].singles };
            let labels: std::collections::BTreeSet<&String> = found
                .iter()
                .flat_map(|found| if pairs { found.pairs.keys() } else { found.singles.keys() })
                .map(|key| &key.0)
                .collect();
            for label in labels {
                let choices: Vec<Vec<(Option<Start>, u64)>> = (0..NODES)
                    .map(|node| {
                        if set >> node & 1 == 0 {
                            return vec![(None, 1)];
                        }
                        let of_label = starts_of(node).iter().filter(|((other, _), _)| other == label);
                        of_label.map(|((_, start), count)| (Some(start.clone()), *count)).collect()
                    })
                    .collect();
                let row = Row { ending, damage: label.clone(), replicas: damaged };
                for_each_combination(&choices, &mut |starts, count| {
                    let outcome = known.entry(starts.to_vec()).or_insert_with(|| {
                        report.cluster_runs += 1;
                        run_cluster(scenario, found, starts)
                    });
                    match outcome {
                        Ok(outcome) => report.rows.entry(row.clone()).or_default().add(*outcome, count),
                        Err(reason) => {
                            report.violation_count += count;
                            if report.violations.len() < VIOLATIONS_MAX {
                                report.violations.push(format!("{}, {label} on {damaged}: {reason}", ending.name()));
                            }
                        }
                    }
                });
            }
        }
    }
}

fn for_each_combination(choices: &[Vec<(Option<Start>, u64)>], visit: &mut dyn FnMut(&[Option<Start>], u64)) {
    fn descend(
        choices: &[Vec<(Option<Start>, u64)>],
        chosen: &mut Vec<Option<Start>>,
        count: u64,
        visit: &mut dyn FnMut(&[Option<Start>], u64),
    ) {
        let Some(next) = choices.get(chosen.len()) else { return visit(chosen, count) };
        for (start, times) in next {
            chosen.push(start.clone());
            descend(choices, chosen, count * times, visit);
            chosen.pop();
        }
    }
    descend(choices, &mut Vec::new(), 1, visit);
}

/// Starts the cluster over the first images that led to these starts (`None`: not damaged) and asks for everything.
fn run_cluster(scenario: &Scenario, found: &[Found], starts: &[Option<Start>]) -> Result<Outcome, String> {
    let mut opened: Vec<(Image, Option<Recovered>)> = Vec::new();
    for (node, start) in starts.iter().enumerate() {
        let damage = start.as_ref().map_or(&[][..], |start| &found[node].examples[start]);
        let replica = &scenario.replicas[node];
        let (_, state) = judge::start(replica, damage)?;
        opened.push(match state {
            Some((image, recovered)) => (image, Some(recovered)),
            None => (replica.image.clone(), None),
        });
    }
    let up = opened.iter().filter(|(_, recovered)| recovered.is_some()).count();
    if up <= NODES / 2 {
        return Ok(Outcome::Stopped);
    }
    let borrowed: Vec<(&Image, Option<Recovered>)> =
        opened.iter().map(|(image, recovered)| (image, recovered.clone())).collect();
    let cut = starts.iter().filter(|start| matches!(start, Some(Start::Cut { .. }))).count();
    let lost = serve(scenario, &borrowed)?;
    match (lost.is_empty(), cut) {
        (true, 0) if up == NODES => Ok(Outcome::Recovered),
        (true, _) => Ok(Outcome::Serves),
        (false, 2..) => Ok(Outcome::Lost),
        (false, _) => Err(format!("acknowledged writes are lost: {}", lost.join(", "))),
    }
}

/// The acknowledged keys that the cluster does not have any more.
fn serve(scenario: &Scenario, images: &[(&Image, Option<Recovered>)]) -> Result<Vec<String>, String> {
    let mut cluster = Cluster::start(images);
    let mut lost = Vec::new();
    for (key, value) in &scenario.acknowledged {
        if cluster.get(key)?.as_ref() != Some(value) {
            lost.push(key.clone());
        }
    }
    cluster.put("written-after-the-restart", "1")?;
    for _ in 0..EQUAL_TICKS_MAX {
        if cluster.states_are_equal() {
            return Ok(lost);
        }
        cluster.tick()?;
    }
    Err(format!("the replicas differ after {EQUAL_TICKS_MAX} ticks"))
}
