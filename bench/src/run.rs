//! One run: connects to each system in turn, loads it, gathers the report and its files.
//!
//! Off the data path.
//!
//! Systems take turns and are never loaded at once; with several rounds the turns alternate, because machines change
//! their speed over minutes and only neighbours in time can be compared.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::arguments::{ArgumentsError, BenchArgs, Protocol, TargetName};
use crate::clock::MonotonicClock;
use crate::driver::{Driver, Load};
use crate::plot::{PlotError, Series};
use crate::progress::RunObserver;
use crate::recorder::Recorder;
use crate::report::{self, Report, Round, RunFacts, SystemReport};
use crate::system::{DeviceNumber, Sampler, ServerProcess, listening_processes};
use crate::targets::etcd::{EtcdApi, EtcdTarget};
use crate::targets::redis::RedisTarget;
use crate::targets::ringraft::RingraftTarget;
use crate::targets::ringraft_grpc::{RingraftApi, RingraftGrpcTarget};
use crate::targets::ringraft_http::RingraftHttpTarget;
use crate::targets::{Target, TargetError, TargetFacts};
use crate::workload::{OperationKind, Workload, WorkloadOptions};
use crate::{hgrm, host, plot, samples};

/// The report in the folder of `--output`.
const REPORT: &str = "report.json";

/// Why a run gave no report. Failed operations are part of the report instead.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Flags that contradict each other.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// No address of the ringraft cluster.
    #[error("no endpoint of the ringraft cluster was given")]
    NoEndpoints,
    /// A system cannot be reached or used.
    #[error("{system}: {source}")]
    Target {
        /// Which.
        system: &'static str,
        /// Why.
        source: TargetError,
    },
    /// Keys could not be written before the run.
    #[error("{system}: preloading stopped after {written} keys: {failures} puts failed, the first as {first}")]
    Preload {
        /// Which.
        system: &'static str,
        /// Keys written.
        written: u64,
        /// Failed puts.
        failures: usize,
        /// Why the first failed.
        first: &'static str,
    },
    /// Stopped before anything was measured.
    #[error("stopped before anything was measured")]
    Interrupted,
    /// The folder of `--output` holds a report.
    #[error("{path} exists already: give another --output, or move it away")]
    Exists {
        /// The report.
        path: String,
    },
    /// A file of `--output` could not be written.
    #[error("{path}: {source}")]
    Output {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The plot could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// One system over all rounds.
struct System {
    name: TargetName,
    endpoints: Vec<String>,
    sampler: Sampler,
    /// Its processes were looked for: whether they are all is seen when it tells how many nodes it has.
    is_guessed: bool,
    /// Why the figures of its processes are missing.
    uncounted: Option<String>,
    facts: TargetFacts,
    rounds: Vec<Round>,
    total: Recorder,
    preloaded: bool,
}

/// A run that has ended: its report, and what the files of `--output` are made of.
pub struct Ended {
    /// Its figures.
    pub report: Report,
    /// The histograms of each system.
    totals: Vec<(TargetName, Recorder)>,
}

impl Ended {
    /// Writes the files of `--output`.
    pub fn write(&self, folder: &Path) -> Result<(), BenchError> {
        write_files(folder, &self.report, &self.totals)
    }
}

/// Makes the folder of `--output`, before anything runs: a report that is there already is not replaced.
pub fn prepare_output(folder: &Path) -> Result<(), BenchError> {
    let error = |source| BenchError::Output { path: folder.display().to_string(), source };
    fs::create_dir_all(folder).map_err(error)?;
    let path = folder.join(REPORT);
    if path.try_exists().map_err(error)? {
        return Err(BenchError::Exists { path: path.display().to_string() });
    }
    Ok(())
}

/// Runs the load that the flags describe. `servers` are the processes of the ringraft cluster whose CPU, memory and
/// writes are counted (empty: those that listen locally at the endpoints, if they are all); `endpoints` are its addresses.
/// Writes no files: [`Ended::write`] does.
pub fn run(args: &BenchArgs, servers: &[ServerProcess], endpoints: &[String]) -> Result<Ended, BenchError> {
    run_until(args, servers, endpoints, (&AtomicBool::new(false), &AtomicBool::new(false)))
}

/// As [`run`], and raises `begun` when the first window begins, and ends early, with a report of what was measured until
/// then, when `stop` becomes true.
pub fn run_until(
    args: &BenchArgs,
    servers: &[ServerProcess],
    endpoints: &[String],
    (begun, stop): (&AtomicBool, &AtomicBool),
) -> Result<Ended, BenchError> {
    args.validate()?;
    // A sleep of 100 us must not become 150: the default slack is 50 us. A refusal costs only precision.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut systems = Vec::new();
    for name in args.systems() {
        systems.push(System::new(name, args, servers, endpoints)?);
    }
    for round in 0..args.repeat {
        for system in &mut systems {
            if !stop.load(Ordering::Relaxed) {
                let measured = system.round(args, args.load(), round, MonotonicClock::start(), (begun, stop));
                measured.map_err(|error| error.of(system.name))?;
            }
        }
    }
    let interrupted = stop.load(Ordering::Relaxed);
    if interrupted && systems.iter().all(|system| system.total.operations() == 0) {
        return Err(BenchError::Interrupted);
    }
    let report = assemble(args, &systems, started_unix_s, interrupted);
    Ok(Ended { report, totals: systems.into_iter().map(|system| (system.name, system.total)).collect() })
}

/// A run of one system whose operations were kept one by one.
pub struct Sampled {
    /// Its figures.
    pub report: SystemReport,
    /// Its histograms.
    pub recorder: Recorder,
    /// Its operations, in the order in which they ended.
    pub samples: Vec<samples::Sample>,
    /// Begin of the window, by the clock that was given.
    pub window_start_ns: u64,
    /// The devices below the servers' files.
    pub devices: BTreeSet<DeviceNumber>,
}

/// One round of one system, every operation kept, times by `clock`. Raises `begun` when the window begins, and ends early
/// when `stop` becomes true.
pub fn run_sampled(
    args: &BenchArgs,
    servers: &[ServerProcess],
    endpoints: &[String],
    clock: MonotonicClock,
    (begun, stop): (&AtomicBool, &AtomicBool),
) -> Result<Sampled, BenchError> {
    args.validate()?;
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let mut system = System::new(args.target, args, servers, endpoints)?;
    let load = Load { samples_max: samples::SAMPLES_MAX, ..args.load() };
    system.round(args, load, 0, clock, (begun, stop)).map_err(|error| error.of(system.name))?;
    let report = system.report(args);
    let outcome = system.rounds.pop().ok_or(BenchError::Interrupted)?.outcome;
    let (samples, window_start_ns) = (outcome.samples, outcome.window_start_ns);
    Ok(Sampled { report, recorder: system.total, samples, window_start_ns, devices: system.sampler.devices().clone() })
}

/// An error before it is known which system it belongs to.
enum RoundError {
    Target(TargetError),
    Preload { written: u64, failures: usize, first: &'static str },
}

impl From<TargetError> for RoundError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl RoundError {
    fn of(self, name: TargetName) -> BenchError {
        let system = name.name();
        match self {
            Self::Target(source) => BenchError::Target { system, source },
            Self::Preload { written, failures, first } => BenchError::Preload { system, written, failures, first },
        }
    }
}

impl System {
    fn new(
        name: TargetName,
        args: &BenchArgs,
        servers: &[ServerProcess],
        endpoints: &[String],
    ) -> Result<Self, BenchError> {
        let endpoints = match name {
            TargetName::Ringraft if endpoints.is_empty() => args.endpoints.clone(),
            TargetName::Ringraft => endpoints.to_vec(),
            TargetName::Etcd => args.etcd.clone(),
            TargetName::Redis => args.redis.iter().cloned().collect(),
        };
        if endpoints.is_empty() {
            return Err(BenchError::NoEndpoints);
        }
        let is_guessed = name != TargetName::Ringraft || servers.is_empty();
        let servers = if is_guessed { listening_processes(&addresses(&endpoints)) } else { servers.to_vec() };
        Ok(Self {
            name,
            endpoints,
            sampler: Sampler::new(&servers),
            is_guessed,
            uncounted: None,
            facts: TargetFacts::default(),
            rounds: Vec::new(),
            total: Recorder::new(),
            preloaded: false,
        })
    }

    fn connect(&self, args: &BenchArgs, clock: MonotonicClock) -> Result<Box<dyn Target>, TargetError> {
        let (endpoints, connections) = (&self.endpoints, args.connections as usize);
        Ok(match self.name {
            TargetName::Ringraft => return connect_ringraft(args, endpoints, clock),
            TargetName::Etcd => Box::new(EtcdTarget::connect(EtcdApi, endpoints, connections, args.timeout, clock)?),
            TargetName::Redis => Box::new(RedisTarget::connect(&endpoints[0], connections, clock)?),
        })
    }

    /// Connects, preloads if that has not been done, and runs warm-up, window and drain.
    fn round(
        &mut self,
        args: &BenchArgs,
        load: Load,
        round: u32,
        clock: MonotonicClock,
        (begun, stop): (&AtomicBool, &AtomicBool),
    ) -> Result<(), RoundError> {
        let mut target = self.connect(args, clock)?;
        if self.is_guessed
            && let Err(reason) = check_all_found(self.sampler.servers().len(), target.facts().nodes)
        {
            self.sampler = Sampler::new(&[]);
            self.uncounted = Some(reason);
        }
        let seed = args.seed.wrapping_add(u64::from(round) << 32);
        let mut workload = Workload::new(WorkloadOptions { seed, ..args.workload() });
        let label = self.name.name();
        // Another round must find the keys that the last one deleted.
        if args.preloads() && (args.deletes || !self.preloaded) {
            self.preload(args, target.as_mut(), &mut workload, &clock, stop)?;
        }
        let mut observer = self.observer(args, label.to_owned());
        observer.begun = Some(begun);
        let outcome = Driver::new(target.as_mut(), &clock, &mut workload, load).run(&mut observer, stop)?;
        let (before, after) = (observer.before.take(), observer.after.take());
        self.facts = target.facts();
        self.facts.warnings.extend(self.uncounted.clone());
        self.total.merge(&outcome.recorder);
        self.rounds.push(Round { outcome, before, after });
        Ok(())
    }

    fn observer(&self, args: &BenchArgs, label: String) -> RunObserver<'_> {
        use std::io::IsTerminal as _;
        RunObserver::new(&self.sampler, label, args.progress || std::io::stderr().is_terminal())
    }

    fn preload(
        &mut self,
        args: &BenchArgs,
        target: &mut dyn Target,
        workload: &mut Workload,
        clock: &MonotonicClock,
        stop: &AtomicBool,
    ) -> Result<(), RoundError> {
        let mut observer = self.observer(args, format!("{} preload", self.name.name()));
        let preload = Driver::new(target, clock, workload, args.preload_load()).preload(&mut observer, stop)?;
        if let Some(first) = preload.failures.first() {
            let (written, failures) = (preload.written, preload.failures.len());
            return Err(RoundError::Preload { written, failures, first: first.name() });
        }
        self.preloaded = true;
        Ok(())
    }

    fn report(&self, args: &BenchArgs) -> SystemReport {
        report::system_report(self.name, args, self.facts.clone(), &self.rounds, &self.total)
    }
}

fn connect_ringraft(
    args: &BenchArgs,
    endpoints: &[String],
    clock: MonotonicClock,
) -> Result<Box<dyn Target>, TargetError> {
    let (connections, consistency) = (args.connections as usize, args.read_consistency);
    Ok(match args.protocol {
        Protocol::Native => {
            Box::new(RingraftTarget::connect(endpoints, connections, consistency, args.timeout, clock)?)
        }
        Protocol::Http => Box::new(RingraftHttpTarget::connect(endpoints, connections, consistency, clock)?),
        Protocol::Grpc => {
            let api = RingraftApi { consistency };
            Box::new(RingraftGrpcTarget::connect(api, endpoints, connections, args.timeout, clock)?)
        }
    })
}

/// The figures of some processes are not those of a system that has more of them. None at all: they run elsewhere.
fn check_all_found(found: usize, nodes: usize) -> Result<(), String> {
    if found == 0 || found == nodes {
        return Ok(());
    }
    let what = "CPU, memory and writes of the servers are not counted";
    Err(match nodes {
        0 => format!("{what}: the system does not say how many nodes it has"),
        _ => format!(
            "{what}: {found} local processes listen at the addresses given, of {nodes} nodes; give all addresses"
        ),
    })
}

/// What can be resolved of a list of addresses, also when they are URLs.
fn addresses(endpoints: &[String]) -> Vec<SocketAddr> {
    let plain = endpoints.iter().map(|endpoint| endpoint.rsplit_once("://").map_or(endpoint.as_str(), |(_, a)| a));
    plain.filter_map(|address| crate::targets::socket::resolve(address.trim_end_matches('/')).ok()).collect()
}

fn assemble(args: &BenchArgs, systems: &[System], started_unix_s: u64, interrupted: bool) -> Report {
    let mut reports: Vec<SystemReport> = systems.iter().map(|system| system.report(args)).collect();
    let rivals = reports.split_off(1);
    let system = reports.remove(0);
    let devices = systems.iter().flat_map(|system| system.sampler.devices().iter().copied()).collect();
    Report {
        ratios: rivals.iter().map(|rival| report::ratio(&system, rival)).collect(),
        rivals,
        system,
        floor: None,
        run: RunFacts {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_s,
            command: std::env::args().collect(),
            keys: args.keys,
            distribution: args.distribution,
            read_percent: args.read_percent,
            deletes: args.deletes,
            seed: args.seed,
            warmup_s: args.warmup.as_secs_f64(),
            repeat: args.repeat,
            preloaded: args.preloads(),
            wake_us: args.wake.as_secs_f64() * 1e6,
            interrupted,
        },
        host: host::facts(&devices),
    }
}

/// `report.json`, `SYSTEM-KIND.hgrm` (from intended start), `SYSTEM-KIND-service.hgrm`, `latency.svg`.
fn write_files(folder: &Path, report: &Report, totals: &[(TargetName, Recorder)]) -> Result<(), BenchError> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|source| BenchError::Output { path: path.display().to_string(), source })
    };
    write(REPORT, &(report.to_json() + "\n"))?;
    let mut series = Vec::new();
    for (name, total) in totals {
        for (kind, kind_name) in OperationKind::NAMED {
            let recorder = total.kind(kind);
            if recorder.response.is_empty() {
                continue;
            }
            let name = name.name();
            write(&format!("{name}-{kind_name}.hgrm"), &hgrm::format(&recorder.response))?;
            write(&format!("{name}-{kind_name}-service.hgrm"), &hgrm::format(&recorder.service))?;
            series.push(Series { name: format!("{name} {kind_name}"), histogram: &recorder.response });
        }
    }
    let first = &report.system;
    let load = match first.mode {
        "open" => format!("open loop, {:.0} ops/s", first.offered_ops_s),
        _ => format!("closed loop, {} clients x {}", first.clients, first.pipeline),
    };
    write("latency.svg", &plot::svg(&format!("{load}, {} B values", first.value_bytes), &series)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_counted_only_when_all_were_found() {
        assert!(check_all_found(3, 3).is_ok() && check_all_found(1, 1).is_ok());
        assert!(check_all_found(0, 3).is_ok(), "they run elsewhere");
        for (found, nodes) in [(1, 3), (2, 3), (4, 3), (1, 0)] {
            assert!(
                check_all_found(found, nodes).is_err_and(|reason| reason.contains("not counted")),
                "{found}, {nodes}"
            );
        }
    }

    #[test]
    fn a_report_that_is_there_already_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a/b");
        prepare_output(&output).unwrap();
        prepare_output(&output).unwrap();
        fs::write(output.join("report.json"), "kept").unwrap();
        let error = prepare_output(&output).unwrap_err().to_string();
        assert!(error.contains("report.json exists already"), "{error}");
        assert_eq!(fs::read_to_string(output.join("report.json")).unwrap(), "kept");
        assert!(prepare_output(&output.join("report.json")).is_err(), "no folder");
    }
}
