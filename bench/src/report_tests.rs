//! Tests of the report: its fields, its arithmetic, its table.
//!
//! Off the data path.

use clap::Parser;

use super::*;
use crate::recorder::ErrorKind;
use crate::system::DeviceCounters;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    bench: BenchArgs,
}

fn args(words: &[&str]) -> BenchArgs {
    Program::try_parse_from(std::iter::once(&"bench").chain(words)).unwrap().bench
}

fn round(achieved: u64, latency_ns: u64) -> Round {
    let mut recorder = Recorder::new();
    for _ in 0..achieved {
        recorder.success(OperationKind::Put, latency_ns, latency_ns / 2);
    }
    let before = Sample { server_cpu_us: Some(1_000), ..Sample::default() };
    let after = Sample {
        completed: achieved,
        server_cpu_us: Some(1_000 + achieved * 8),
        generator_cpu_us: achieved * 2,
        server_rss_bytes: Some(4096),
        device: Some(DeviceCounters { writes: achieved / 2, written_bytes: achieved * 4096, flushes: 0 }),
        ..Sample::default()
    };
    let before = Sample { device: Some(DeviceCounters::default()), ..before };
    let (samples, window_start_ns, window_ns) = (Vec::new(), 0, 1_000_000_000);
    let offered = achieved;
    let outcome = Outcome { recorder, offered, achieved, samples, window_start_ns, window_ns, interrupted: false };
    Round { outcome, before: Some(before), after: Some(after) }
}

fn system(target: TargetName, rounds: &[Round]) -> SystemReport {
    let mut total = Recorder::new();
    for round in rounds {
        total.merge(&round.outcome.recorder);
    }
    let facts = TargetFacts { nodes: 3, groups: Some(1), connections: 8, ..TargetFacts::default() };
    system_report(target, &args(&["--closed"]), facts, rounds, &total)
}

fn report() -> Report {
    let system_a = system(TargetName::Ringraft, &[round(3_000, 1_000_000), round(1_000, 2_000_000)]);
    let rival = system(TargetName::Etcd, &[round(1_000, 4_000_000), round(500, 4_000_000)]);
    let ratios = vec![ratio(&system_a, &rival)];
    let run = RunFacts {
        version: "0",
        started_unix_s: 0,
        command: Vec::new(),
        keys: 1,
        distribution: KeyDistribution::Uniform,
        read_percent: 0,
        deletes: false,
        seed: 1,
        warmup_s: 0.0,
        repeat: 2,
        preloaded: false,
        wake_us: 100.0,
        interrupted: false,
    };
    let floor = Some(Floor { flush_us: 80.0, round_trip_us: 45.0, majority_flush_us: 150.0 });
    Report { system: system_a, rivals: vec![rival], ratios, floor, run, host: HostFacts::default() }
}

#[test]
fn json_is_one_object_with_the_promised_fields() {
    let report = report();
    let text = report.to_json();
    assert!(!text.contains('\n'));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for field in [
        "protocol",
        "offered_ops_s",
        "achieved_ops_s",
        "operations",
        "errors",
        "errors_by_kind",
        "latency_us",
        "service_us",
        "server_cpu_us_per_op",
        "generator_cpu_us_per_op",
        "device_writes_per_op",
        "server_rss_bytes",
        "nodes",
        "groups",
        "value_bytes",
        "clients",
        "pipeline",
        "connections",
        "host",
        "rivals",
        "ratios",
    ] {
        assert!(!json[field].is_null(), "{field}");
    }
    for histogram in ["latency_us", "service_us"] {
        for percentile in ["p50", "p90", "p99", "p999", "max"] {
            assert!(json[histogram][percentile].as_f64().unwrap() > 0.0, "{histogram}.{percentile}");
            assert!(json["rivals"][0][histogram][percentile].is_number());
        }
    }
    assert_eq!(json["put"]["latency_us"]["samples"], 4_000);
    assert!(json["get"].is_null());
    assert_eq!(json["server_written_bytes_per_op"], serde_json::Value::Null);
}

#[test]
fn figures_are_what_was_measured() {
    let report = report();
    let system = &report.system;
    assert!((system.achieved_ops_s - 2_000.0).abs() < 0.1);
    assert_eq!((system.operations, system.errors), (4_000, 0));
    assert_eq!(system.server_cpu_us_per_op, Some(8.0));
    assert_eq!(system.generator_cpu_us_per_op, Some(2.0));
    assert_eq!(system.device_writes_per_op, Some(0.5));
    assert_eq!(system.device_written_bytes_per_op, Some(4096.0));
    assert!((system.latency_us.p50 - 1_000.0).abs() < 2.0 && (system.latency_us.p99 - 2_000.0).abs() < 3.0);
    // Rounds are compared with their neighbours: 3 and 2, 1/4 and 1/2.
    assert_eq!(report.ratios[0].achieved, Some(2.5));
    assert!((report.ratios[0].p50.unwrap() - 0.375).abs() < 0.002);
    assert_eq!(report.ratios[0].server_cpu, Some(1.0));
}

#[test]
fn one_failure_anywhere_is_not_ok() {
    let mut report = report();
    assert!(report.ok());
    report.rivals[0].errors = 1;
    assert!(!report.ok());
    report.rivals[0].errors = 0;
    report.run.interrupted = true;
    assert!(!report.ok());
}

#[test]
fn the_table_shows_both_systems_and_the_errors() {
    let mut first = round(1_000, 1_000_000);
    first.outcome.recorder.failure(OperationKind::Put, ErrorKind::Overloaded, 1);
    let mut report = report();
    report.system = system(TargetName::Ringraft, &[first]);
    let text = crate::table::format(&report);
    for word in ["ringraft", "etcd", "achieved", "p99", "overloaded", "CPU"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
}

#[test]
fn medians() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
}
