//! The report of a run: what was offered, what was achieved, at what latency, at what cost.
//!
//! Off the data path.
//!
//! Invariants: one JSON object; the first system's figures are at its top level, rivals are objects with the same
//! fields; a figure that could not be measured is `null`, never zero; units stand last in names.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::arguments::{BenchArgs, TargetName};
use crate::driver::{Load, Outcome, Pace};
use crate::host::HostFacts;
use crate::recorder::Recorder;
use crate::system::Sample;
use crate::targets::TargetFacts;
use crate::workload::{KEY_BYTES, KeyDistribution, OperationKind};

/// Percentiles of a histogram in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90%.
    pub p90: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    pub p999: f64,
    /// 99.99%.
    pub p9999: f64,
    /// The slowest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Number of operations in the histogram.
    pub samples: u64,
}

impl Latency {
    /// Reads the percentiles of a histogram of nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let microseconds = |nanoseconds: f64| (nanoseconds / 100.0).round() / 10.0;
        let at = |quantile: f64| microseconds(histogram.value_at_quantile(quantile).min(histogram.max()) as f64);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: microseconds(histogram.max() as f64),
            mean: microseconds(histogram.mean()),
            samples: histogram.len(),
        }
    }
}

/// Latencies of one kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KindReport {
    /// From the intended start.
    pub latency_us: Latency,
    /// From the send.
    pub service_us: Latency,
}

/// One round of one system.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundReport {
    /// Successful answers per second of the window.
    pub achieved_ops_s: f64,
    /// Failed operations.
    pub errors: u64,
    /// Median from the intended start.
    pub p50_us: f64,
    /// 99% from the intended start.
    pub p99_us: f64,
    /// CPU of the servers per answer.
    pub server_cpu_us_per_op: Option<f64>,
}

/// The figures of one system.
#[derive(Clone, Debug, Serialize)]
pub struct SystemReport {
    /// The system.
    pub target: TargetName,
    /// How it was spoken to: `native`, `http`, `grpc` or `resp`.
    pub protocol: &'static str,
    /// `open` or `closed`.
    pub mode: &'static str,
    /// Operations that were meant to start, per second of the window.
    pub offered_ops_s: f64,
    /// Operations answered successfully within the window, per second of it.
    pub achieved_ops_s: f64,
    /// Operations that were meant to start within the window, however they ended.
    pub operations: u64,
    /// Those that failed.
    pub errors: u64,
    /// Why.
    pub errors_by_kind: BTreeMap<&'static str, u64>,
    /// From the intended start: what a user waits.
    pub latency_us: Latency,
    /// From the send: what the system takes.
    pub service_us: Latency,
    /// Puts alone.
    pub put: Option<KindReport>,
    /// Gets alone.
    pub get: Option<KindReport>,
    /// Deletes alone.
    pub delete: Option<KindReport>,
    /// CPU of all server processes per answer.
    pub server_cpu_us_per_op: Option<f64>,
    /// CPU of the generator per answer.
    pub generator_cpu_us_per_op: Option<f64>,
    /// CPU of the whole machine per answer: servers, generator, kernel threads, and whatever else ran.
    pub machine_cpu_us_per_op: Option<f64>,
    /// Share of the window's processor time which the hypervisor gave to others.
    pub steal_percent: Option<f64>,
    /// Write requests of the whole device per answer, whoever caused them.
    pub device_writes_per_op: Option<f64>,
    /// Bytes written to the whole device per answer.
    pub device_written_bytes_per_op: Option<f64>,
    /// Cache flushes of the whole device per answer.
    pub device_flushes_per_op: Option<f64>,
    /// Bytes the server processes wrote per answer.
    pub server_written_bytes_per_op: Option<f64>,
    /// Resident memory of all server processes at the end.
    pub server_rss_bytes: Option<u64>,
    /// Sum of their highest resident memory.
    pub server_rss_peak_bytes: Option<u64>,
    /// Nodes of the system.
    pub nodes: usize,
    /// Replication groups.
    pub groups: Option<u32>,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Clients; in an open loop, how many may wait at once.
    pub clients: usize,
    /// Operations outstanding per client.
    pub pipeline: usize,
    /// Connections the load went over.
    pub connections: usize,
    /// Length of all windows together.
    pub duration_s: f64,
    /// Settings that decide what the figures mean.
    pub settings: BTreeMap<String, String>,
    /// Reasons to read the figures with care.
    pub warnings: Vec<String>,
    /// Each round by itself.
    pub rounds: Vec<RoundReport>,
}

/// How the first system stands to a rival: its figure divided by the rival's, the median over rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The rival.
    pub rival: TargetName,
    /// Throughput; more is better for the first system.
    pub achieved: Option<f64>,
    /// Median latency; less is better.
    pub p50: Option<f64>,
    /// 99% latency; less is better.
    pub p99: Option<f64>,
    /// CPU of the servers per operation; less is better.
    pub server_cpu: Option<f64>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct RunFacts {
    /// Version of the generator.
    pub version: &'static str,
    /// Seconds since 1970 when the run began.
    pub started_unix_s: u64,
    /// The command line.
    pub command: Vec<String>,
    /// Number of distinct keys.
    pub keys: u64,
    /// How they were chosen.
    pub distribution: KeyDistribution,
    /// Share of gets.
    pub read_percent: u8,
    /// Deletes instead of puts and gets.
    pub deletes: bool,
    /// Seed.
    pub seed: u64,
    /// Warm-up before each window, not measured.
    pub warmup_s: f64,
    /// Rounds asked for.
    pub repeat: u32,
    /// Whether every key was written before, and values read were verified.
    pub preloaded: bool,
    /// Shortest sleep of the open loop.
    pub wake_us: f64,
    /// The run was stopped before its end.
    pub interrupted: bool,
}

/// What one write alone cannot go below on this machine, measured right before and after the run: a flush of 4 KiB and a
/// round trip between two cores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// Median of a direct write of 4 KiB and its fdatasync, by plain system calls.
    pub flush_us: f64,
    /// Median of a round trip of 64 bytes over loopback between two threads on two cores, by plain system calls.
    pub round_trip_us: f64,
    /// Median time until a majority of as many such writes as there are nodes, begun at once, are done: nodes that share
    /// one disk wait for each other.
    pub majority_flush_us: f64,
}

impl Floor {
    /// The mean of two measurements.
    #[must_use]
    pub fn mean(before: Self, after: Self) -> Self {
        let mean = |read: fn(&Self) -> f64| (read(&before) + read(&after)) / 2.0;
        Self {
            flush_us: mean(|floor| floor.flush_us),
            round_trip_us: mean(|floor| floor.round_trip_us),
            majority_flush_us: mean(|floor| floor.majority_flush_us),
        }
    }

    /// One flush and one round trip.
    #[must_use]
    pub fn sum_us(&self) -> f64 {
        self.flush_us + self.round_trip_us
    }

    /// What a replicated put on nodes that share one disk pays at least: client to leader and back, leader to follower
    /// and back, and the flush of a majority.
    #[must_use]
    pub fn replicated_us(&self) -> f64 {
        self.majority_flush_us + 2.0 * self.round_trip_us
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The first system.
    #[serde(flatten)]
    pub system: SystemReport,
    /// The same load on others, in the same run.
    pub rivals: Vec<SystemReport>,
    /// How the first stands to them.
    pub ratios: Vec<Ratio>,
    /// For one client with one request at a time on a cluster started for the run.
    pub floor: Option<Floor>,
    /// What was asked for.
    pub run: RunFacts,
    /// The machine.
    pub host: HostFacts,
}

impl Report {
    /// Every operation of every system succeeded, and there were any.
    #[must_use]
    pub fn ok(&self) -> bool {
        let mut systems = std::iter::once(&self.system).chain(&self.rivals);
        !self.run.interrupted && systems.all(|system| system.errors == 0 && system.operations > 0)
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only string keys")
    }

    /// Prints the report on standard output: as one JSON object, or for people.
    pub fn print(&self, json: bool) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", self.to_json())?;
        } else {
            writeln!(out, "{}", crate::table::format(self))?;
        }
        out.flush()
    }
}

/// One round as it was measured.
pub struct Round {
    /// What the loop measured.
    pub outcome: Outcome,
    /// The servers at the beginning of the window.
    pub before: Option<Sample>,
    /// And at its end.
    pub after: Option<Sample>,
}

/// Sums of differences over rounds; a figure missing in one round is missing in all.
struct Costs<'a>(&'a [Round]);

impl Costs<'_> {
    fn delta(&self, read: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
        self.0.iter().map(|round| delta(round, &read)).sum()
    }

    fn per_op(&self, read: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        per(self.delta(read)?, self.delta(|sample| Some(sample.completed))?)
    }
}

fn delta(round: &Round, read: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
    read(round.after.as_ref()?)?.checked_sub(read(round.before.as_ref()?)?)
}

fn per(total: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| rounded(total as f64 / count as f64))
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn rate(count: u64, window_ns: u64) -> f64 {
    if window_ns == 0 { 0.0 } else { (count as f64 * 1e10 / window_ns as f64).round() / 10.0 }
}

fn round_report(round: &Round) -> RoundReport {
    let latency = Latency::of(&round.outcome.recorder.response());
    RoundReport {
        achieved_ops_s: rate(round.outcome.achieved, round.outcome.window_ns),
        errors: round.outcome.recorder.errors(),
        p50_us: latency.p50,
        p99_us: latency.p99,
        server_cpu_us_per_op: Costs(std::slice::from_ref(round)).per_op(|sample| sample.server_cpu_us),
    }
}

/// Makes the figures of one system; `total` is the sum of the rounds' recorders.
#[must_use]
pub fn system_report(
    target: TargetName,
    args: &BenchArgs,
    facts: TargetFacts,
    rounds: &[Round],
    total: &Recorder,
) -> SystemReport {
    let costs = Costs(rounds);
    let load: Load = args.load();
    let (mode, clients, pipeline) = match load.pace {
        Pace::Open { outstanding_max, .. } => ("open", outstanding_max, 1),
        Pace::Closed { .. } => ("closed", args.clients as usize, args.pipeline as usize),
    };
    let window_ns: u64 = rounds.iter().map(|round| round.outcome.window_ns).sum();
    let kind = |kind: OperationKind| {
        let recorder = total.kind(kind);
        let report =
            KindReport { latency_us: Latency::of(&recorder.response), service_us: Latency::of(&recorder.service) };
        (!recorder.response.is_empty()).then_some(report)
    };
    let last = rounds.last().and_then(|round| round.after.as_ref());
    let processor_us = window_ns as f64 / 1e3 * std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    SystemReport {
        target,
        protocol: protocol(target, args),
        mode,
        offered_ops_s: rate(rounds.iter().map(|round| round.outcome.offered).sum(), window_ns),
        achieved_ops_s: rate(rounds.iter().map(|round| round.outcome.achieved).sum(), window_ns),
        operations: total.operations(),
        errors: total.errors(),
        errors_by_kind: total.errors_by_kind(),
        latency_us: Latency::of(&total.response()),
        service_us: Latency::of(&total.service()),
        put: kind(OperationKind::Put),
        get: kind(OperationKind::Get),
        delete: kind(OperationKind::Delete),
        server_cpu_us_per_op: costs.per_op(|sample| sample.server_cpu_us),
        generator_cpu_us_per_op: costs.per_op(|sample| Some(sample.generator_cpu_us)),
        machine_cpu_us_per_op: costs.per_op(|sample| sample.machine_cpu_us),
        steal_percent: costs
            .delta(|sample| sample.machine_steal_us)
            .filter(|_| window_ns > 0)
            .map(|steal_us| rounded(steal_us as f64 * 100.0 / processor_us)),
        device_writes_per_op: costs.per_op(|sample| Some(sample.device?.writes)),
        device_written_bytes_per_op: costs.per_op(|sample| Some(sample.device?.written_bytes)),
        device_flushes_per_op: costs.per_op(|sample| Some(sample.device?.flushes)),
        server_written_bytes_per_op: costs.per_op(|sample| sample.server_written_bytes),
        server_rss_bytes: last.and_then(|sample| sample.server_rss_bytes),
        server_rss_peak_bytes: last.and_then(|sample| sample.server_rss_peak_bytes),
        nodes: facts.nodes,
        groups: facts.groups,
        value_bytes: args.value_size as usize,
        key_bytes: KEY_BYTES,
        clients,
        pipeline,
        connections: facts.connections,
        duration_s: rounded(window_ns as f64 / 1e9),
        settings: facts.settings,
        warnings: facts.warnings,
        rounds: rounds.iter().map(round_report).collect(),
    }
}

fn protocol(target: TargetName, args: &BenchArgs) -> &'static str {
    match target {
        TargetName::Ringraft => args.protocol.name(),
        TargetName::Etcd => "grpc",
        TargetName::Redis => "resp",
    }
}

/// How `first` stands to `rival`: ratios of rounds that ran next to each other, then their median.
#[must_use]
pub fn ratio(first: &SystemReport, rival: &SystemReport) -> Ratio {
    let median_of = |read: &dyn Fn(&RoundReport) -> Option<f64>| {
        let pairs = first.rounds.iter().zip(&rival.rounds);
        let ratios = pairs.filter_map(|(ours, theirs)| Some((read(ours)?, read(theirs)?)));
        median(ratios.filter(|(_, theirs)| *theirs > 0.0).map(|(ours, theirs)| ours / theirs).collect())
    };
    Ratio {
        rival: rival.target,
        achieved: median_of(&|round| Some(round.achieved_ops_s)),
        p50: median_of(&|round| Some(round.p50_us)),
        p99: median_of(&|round| Some(round.p99_us)),
        server_cpu: median_of(&|round| round.server_cpu_us_per_op),
    }
}

/// The median; of an even number, the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let value = match values.len() {
        0 => return None,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    Some(rounded(value))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
