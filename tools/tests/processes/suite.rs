//! `ringraft bench suite` from its arguments to its files.
//!
//! Off the data path.

use std::fs;

use serde_json::Value;

use crate::harness::{exclusive, folder, ringraft, text};

const NAMES: [&str; 6] =
    ["write_latency", "read_latency", "delete_latency", "failover_time", "stale_reads", "slow_follower_recovery"];

#[test]
fn every_benchmark_of_the_suite_gives_its_figures() {
    let _one = exclusive();
    let (work, results) = (folder(), folder());
    let (dir, out) = (work.path().to_string_lossy(), results.path().to_string_lossy());
    let short = ["bench", "suite", "--json", "--rate", "200", "--duration", "1s", "--warmup", "300ms", "--keys", "200"];
    let rest = ["--rounds", "1", "--absence", "1s", "--dir", &dir, "--out", &out];
    let output = ringraft(&[&short[..], &rest, &["--", "--segment-bytes=32MiB", "--segment-pool=1"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&text(&output)).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let page = fs::read_to_string(results.path().join("suite.html")).expect("a page");
    for name in NAMES {
        assert_eq!(report["benchmarks"][name]["ok"], true, "{name}");
        let shown = fs::read_to_string(results.path().join(format!("{name}.txt"))).expect("a text");
        assert!(shown.starts_with(name) && shown.contains("p99"), "{shown}");
        assert!(page.contains(&format!("<h2 id=\"{name}\">")), "{name} is not on the page");
    }
    let of = |name: &str| &report["benchmarks"][name];
    assert_eq!(of("write_latency")["put"]["latency_us"]["samples"], 200);
    assert_eq!(of("read_latency")["get"]["latency_us"]["samples"], 200);
    assert_eq!(of("delete_latency")["delete"]["latency_us"]["samples"], 200);
    assert!(of("delete_latency")["put"].is_null(), "no key was written while keys were deleted");
    assert!(of("write_latency")["over_time"].as_array().is_some_and(|course| course.len() > 1));
    assert!(of("failover_time")["rounds"][0]["first_write_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report:#}");
    for kind in ["linearizable", "lease", "follower"] {
        assert_eq!(of("stale_reads")[kind]["staleness"]["stale"], 0, "{kind}");
    }
    assert!(of("stale_reads")["stale"]["staleness"]["reads"].as_u64() > Some(10));
    let recoveries = of("slow_follower_recovery")["recoveries"].as_array().expect("recoveries");
    assert_eq!(recoveries.iter().map(|recovery| &recovery["way"]).collect::<Vec<_>>(), ["slept", "killed"]);
    assert!(page.matches("<svg").count() >= 10 && !page.contains("<script"), "{}", page.matches("<svg").count());
    assert_eq!(fs::read_dir(work.path()).expect("the folder").count(), 0, "its clusters are gone");
}
