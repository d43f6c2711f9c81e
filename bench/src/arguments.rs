//! The flags of `ringraft bench`: declared once, checked once, before anything starts.
//!
//! Off the data path.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringraft_net::wire::Consistency;
use serde::Serialize;
use thiserror::Error;

use crate::driver::{Load, Pace};
use crate::duration;
use crate::workload::{KEYS_MAX, KeyDistribution, WorkloadOptions};

/// The system that is measured first, which rivals are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetName {
    /// ringraft: the cluster of `--endpoints`, or a local one started for the run.
    Ringraft,
    /// The etcd of `--etcd`.
    Etcd,
    /// The Redis of `--redis`.
    Redis,
}

impl TargetName {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringraft => "ringraft",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
        }
    }
}

/// How ringraft is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The binary protocol of its shards.
    Native,
    /// HTTP/1.1 of its gateways: raw bodies, connections that stay open.
    Http,
    /// gRPC of its gateways.
    Grpc,
}

impl Protocol {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// When all keys are written before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PreloadWhen {
    /// When the run reads or deletes.
    Auto,
    /// Always.
    Always,
    /// Never: values read are then not verified.
    Never,
}

const EXAMPLES: &str = "Examples:
  ringraft bench
      10,000 puts/s for 30 s against a three-node cluster started for the run
  ringraft bench --closed --clients 256 --duration 15s
      as many puts as 256 clients can make
  ringraft bench --closed --clients 1 --read-percent 100
      latency of one linearizable get at a time
  ringraft bench --closed --clients 1 --operations 300
      300 puts one after another
  ringraft bench --closed --read-percent 100 --read-consistency follower
      linearizable gets that all nodes answer
  ringraft bench --rate 50000 --distribution zipfian --read-percent 50 --output results
      half reads, hot keys; report.json, .hgrm files and latency.svg in the folder results
  ringraft bench --closed --etcd 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383 --redis 127.0.0.1:6379 --repeat 3
      the same load for etcd and Redis in the same run, taking turns three times
  ringraft bench --protocol grpc --closed --clients 64 --connections 64 --etcd 127.0.0.1:2379
      puts through the gateways' gRPC beside etcd's, one connection for each client
  ringraft bench --endpoints 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000 --json
      a cluster that is already running; the report as one JSON object
  ringraft bench suite --out results
      write, read and delete latency, failover, staleness and recovery of a follower; text, JSON and a page with plots
  ringraft bench --grow --rate 5000
      what clients notice while three nodes become seven and three again, and a wiped one is replaced
  ringraft bench --idle --groups 1000 --duration 20s
      what 1,000 groups cost that nobody uses, and how soon they have leaders after a restart

Latency runs from the moment an operation was meant to start, so that a stall shows in every operation it delayed.
bench/METHODOLOGY.md says what the figures mean and what they do not say.";

/// The flags of `ringraft bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Open loop: operations per second, sent when they are due whatever the system does
    #[arg(long, value_name = "N", default_value_t = 10_000, conflicts_with = "closed", help_heading = "Load",
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,

    /// Closed loop: each client sends its next operation when the last is answered
    #[arg(long, help_heading = "Load")]
    pub closed: bool,

    /// Clients of the closed loop
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,

    /// Operations each client of the closed loop keeps outstanding
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pipeline: u32,

    /// Connections that clients share: to each leader (ringraft native), to the server (redis), in all (ringraft http and
    /// grpc, etcd)
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,

    /// Open loop: operations outstanding at most; beyond it they wait, and their latency with them
    #[arg(long, value_name = "N", default_value_t = 16_384, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: u32,

    /// Open loop: shortest sleep between two sends; smaller costs CPU, larger adds up to itself to latencies
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = duration::parse, help_heading = "Load")]
    pub wake: Duration,

    /// How long to measure, for example 15s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, help_heading = "Load")]
    pub duration: Duration,

    /// End when so many operations were measured, if that is before --duration is over
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true, help_heading = "Load",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: u64,

    /// How long to load before measuring
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration::parse, help_heading = "Load")]
    pub warmup: Duration,

    /// The deadline of one operation, and how long to wait for outstanding answers at the end
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "Load")]
    pub timeout: Duration,

    /// Rounds; with rivals the systems take turns, and ratios are medians over rounds
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128, help_heading = "Data",
          value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_size: u32,

    /// Number of distinct keys (16 bytes each)
    #[arg(long, value_name = "N", default_value_t = 100_000, help_heading = "Data",
          value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub keys: u64,

    /// How keys are chosen
    #[arg(long, value_name = "HOW", default_value = "uniform", help_heading = "Data")]
    pub distribution: KeyDistribution,

    /// Share of gets, the rest are puts
    #[arg(long, value_name = "PERCENT", default_value_t = 0, help_heading = "Data",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,

    /// Deletes instead of puts and gets: each of a key that exists, each key once; when none is left, all are written again
    #[arg(long, help_heading = "Data", conflicts_with = "read_percent")]
    pub deletes: bool,

    /// How fresh gets are, ringraft only: linearizable, lease (the nodes must allow it: lease_reads), follower, stale; the
    /// last two are spread over all nodes
    #[arg(long, value_name = "KIND", default_value = "linearizable", help_heading = "Data")]
    pub read_consistency: Consistency,

    /// Seed of keys, values and order
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Data")]
    pub seed: u64,

    /// Write every key once before the run; values read are then verified
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Data")]
    pub preload: PreloadWhen,

    /// The system to measure
    #[arg(long, value_name = "SYSTEM", default_value = "ringraft", help_heading = "Systems")]
    pub target: TargetName,

    /// How ringraft is spoken to; for http, nodes that do not lead must pass writes on (http_proxy)
    #[arg(long, value_name = "PROTOCOL", default_value = "native", help_heading = "Systems")]
    pub protocol: Protocol,

    /// A running ringraft cluster (its addresses for that protocol) instead of a local one started for the run
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',', help_heading = "Systems")]
    pub endpoints: Vec<String>,

    /// Also load this etcd in the same run
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',', help_heading = "Systems")]
    pub etcd: Vec<String>,

    /// Also load this Redis in the same run
    #[arg(long, value_name = "HOST:PORT", help_heading = "Systems")]
    pub redis: Option<String>,

    /// Print the report as one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Folder for report.json, one .hgrm per system and kind of operation, and latency.svg
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// Show a line per second on standard error, also when it is no terminal
    #[arg(long, help_heading = "Output")]
    pub progress: bool,
}

/// Flags that contradict each other.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArgumentsError {
    /// `--target X` without the address of X.
    #[error("--target {0} needs its address: --{0} HOST:PORT")]
    Address(&'static str),
    /// Nothing would be measured.
    #[error("--duration must be longer than zero")]
    Duration,
    /// Too coarse to be a schedule.
    #[error("--wake must be at most 100ms")]
    Wake,
    /// Every operation would fail.
    #[error("--timeout must be longer than zero")]
    Timeout,
    /// More than the generator holds.
    #[error("--clients times --pipeline must be at most 1000000")]
    Outstanding,
    /// The preload would not end.
    #[error("--keys must be at most 100000000 when they are preloaded (--preload never reads without it)")]
    Keys,
}

const OUTSTANDING_MAX: u64 = 1_000_000;
const PRELOAD_KEYS_MAX: u64 = 100_000_000;
/// Operations outstanding during a preload.
const PRELOAD_OUTSTANDING: usize = 512;

impl BenchArgs {
    /// Finds contradictions between flags; single flags were checked when they were parsed.
    pub fn validate(&self) -> Result<(), ArgumentsError> {
        match self.target {
            TargetName::Etcd if self.etcd.is_empty() => return Err(ArgumentsError::Address("etcd")),
            TargetName::Redis if self.redis.is_none() => return Err(ArgumentsError::Address("redis")),
            _ => {}
        }
        if self.duration.is_zero() {
            return Err(ArgumentsError::Duration);
        }
        if self.timeout.is_zero() {
            return Err(ArgumentsError::Timeout);
        }
        if self.wake > Duration::from_millis(100) {
            return Err(ArgumentsError::Wake);
        }
        if u64::from(self.clients) * u64::from(self.pipeline) > OUTSTANDING_MAX {
            return Err(ArgumentsError::Outstanding);
        }
        if self.preloads() && self.keys > PRELOAD_KEYS_MAX {
            return Err(ArgumentsError::Keys);
        }
        Ok(())
    }

    /// Whether the caller has to start a ringraft cluster for this run.
    #[must_use]
    pub fn needs_cluster(&self) -> bool {
        self.target == TargetName::Ringraft && self.endpoints.is_empty()
    }

    /// Whether there is one client with one request at a time: then latency is what is looked at.
    #[must_use]
    pub fn is_one_at_a_time(&self) -> bool {
        self.closed && self.clients == 1 && self.pipeline == 1
    }

    /// Whether every key is written before the run.
    #[must_use]
    pub fn preloads(&self) -> bool {
        match self.preload {
            PreloadWhen::Auto => self.read_percent > 0 || self.deletes,
            PreloadWhen::Always => true,
            PreloadWhen::Never => false,
        }
    }

    /// The systems to measure, in order.
    #[must_use]
    pub fn systems(&self) -> Vec<TargetName> {
        let rivals = [(TargetName::Etcd, !self.etcd.is_empty()), (TargetName::Redis, self.redis.is_some())];
        let rivals = rivals.iter().filter(|(name, given)| *given && *name != self.target).map(|(name, _)| *name);
        std::iter::once(self.target).chain(rivals).collect()
    }

    /// The stream of operations.
    #[must_use]
    pub fn workload(&self) -> WorkloadOptions {
        WorkloadOptions {
            keys: self.keys,
            distribution: self.distribution,
            value_bytes: self.value_size as usize,
            read_percent: self.read_percent,
            deletes: self.deletes,
            seed: self.seed,
        }
    }

    /// The run.
    #[must_use]
    pub fn load(&self) -> Load {
        let pace = if self.closed {
            Pace::Closed { outstanding: (self.clients * self.pipeline) as usize }
        } else {
            Pace::Open { rate: self.rate, outstanding_max: self.outstanding as usize }
        };
        Load {
            pace,
            warmup_ns: self.warmup.as_nanos() as u64,
            window_ns: self.duration.as_nanos() as u64,
            timeout_ns: self.timeout.as_nanos() as u64,
            wake_ns_min: self.wake.as_nanos() as u64,
            verify_values: self.preloads(),
            samples_max: 0,
            operations_max: self.operations,
        }
    }

    /// The preload before the run.
    #[must_use]
    pub fn preload_load(&self) -> Load {
        // Large values need fewer outstanding to keep a system busy, and less of its memory.
        let outstanding = (PRELOAD_OUTSTANDING * 1024 / (self.value_size as usize).max(1024)).max(4);
        Load { pace: Pace::Closed { outstanding }, verify_values: false, operations_max: u64::MAX, ..self.load() }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(words: &[&str]) -> Result<BenchArgs, clap::Error> {
        Program::try_parse_from(std::iter::once(&"bench").chain(words)).map(|program| program.bench)
    }

    #[test]
    fn defaults_are_those_of_the_main_job() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.rate, args.clients, args.connections, args.pipeline), (10_000, 256, 8, 1));
        assert_eq!((args.duration.as_secs(), args.warmup.as_secs(), args.value_size, args.keys), (30, 3, 128, 100_000));
        assert!(args.needs_cluster() && !args.preloads() && args.validate().is_ok());
        assert_eq!(args.protocol, Protocol::Native);
        assert!(matches!(args.load().pace, Pace::Open { rate: 10_000, .. }));
        assert_eq!(args.systems(), [TargetName::Ringraft]);
    }

    #[test]
    fn rivals_join_the_run() {
        let args = parse(&["--closed", "--etcd", "a:1,b:2,c:3", "--redis", "d:4", "--clients", "64"]).unwrap();
        assert_eq!(args.etcd, ["a:1", "b:2", "c:3"]);
        assert_eq!(args.systems(), [TargetName::Ringraft, TargetName::Etcd, TargetName::Redis]);
        assert!(matches!(args.load().pace, Pace::Closed { outstanding: 64 }));
        let args = parse(&["--target", "redis", "--redis", "d:4"]).unwrap();
        assert_eq!(args.systems(), [TargetName::Redis]);
        assert!(!args.needs_cluster());
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            ["--rate", "0"],
            ["--read-percent", "101"],
            ["--value-size", "1048577"],
            ["--duration", "15"],
            ["--clients", "0"],
            ["--keys", "0"],
            ["--distribution", "normal"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        assert!(parse(&["--closed", "--rate", "5"]).is_err());
        assert!(parse(&["--deletes", "--read-percent", "5"]).is_err());
        let refused = |words: &[&str]| parse(words).unwrap().validate().unwrap_err();
        assert_eq!(refused(&["--target", "etcd"]), ArgumentsError::Address("etcd"));
        assert_eq!(refused(&["--duration", "0s"]), ArgumentsError::Duration);
        assert_eq!(refused(&["--timeout", "0s"]), ArgumentsError::Timeout);
        assert_eq!(refused(&["--wake", "1s"]), ArgumentsError::Wake);
        assert_eq!(refused(&["--clients", "100000", "--pipeline", "1000"]), ArgumentsError::Outstanding);
        assert_eq!(refused(&["--keys", "200000000", "--read-percent", "1"]), ArgumentsError::Keys);
    }
}
