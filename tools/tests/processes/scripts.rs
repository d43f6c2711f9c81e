//! The scripts of `tools/scripts` do what they say.
//!
//! Off the data path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{START_PATIENCE, binary, eventually, exclusive, folder, text};

/// The smallest log files.
const SMALL: [&str; 3] = ["--", "--segment-bytes=32MiB", "--segment-pool=1"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn run(folder: &Path, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(script(name));
    command.args(arguments).env("RINGRAFT", binary()).current_dir(folder).stdin(Stdio::null());
    // Whoever runs the tests may have set them.
    command.env_remove("CLUSTER_DIR").env_remove("RESULTS").env_remove("CLIENTS");
    command.output().expect("the script runs")
}

#[track_caller]
fn expect(code: i32, folder: &Path, name: &str, arguments: &[&str]) -> String {
    let output = run(folder, name, arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{name} {arguments:?} said {out}{error}");
    out.into_owned()
}

#[test]
fn the_demo_shows_it_all() {
    let _one = exclusive();
    let folder = folder();
    let said = expect(0, folder.path(), "demo.sh", &[]);
    for part in
        ["serving: 1 group(s)", "group 0  node", "hello", "(not found: exit code 3)", "leader", "stopped 3 node(s)"]
    {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "it leaves nothing behind");
}

/// Stops the cluster whatever the test does.
struct Stopped<'a>(&'a Path);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        run(self.0, "run_cluster.sh", &["stop"]);
    }
}

#[test]
fn a_cluster_by_script_from_start_to_stop() {
    let _one = exclusive();
    let folder = folder();
    let start = [&["start"][..], &SMALL].concat();
    let _stopped = Stopped(folder.path());
    assert!(expect(0, folder.path(), "run_cluster.sh", &start).contains("serving: 1 group(s)"));
    let status = || Some(run(folder.path(), "run_cluster.sh", &["status"])).filter(|output| output.status.success());
    let status = eventually(START_PATIENCE, status).expect("nodes that answer");
    assert!(text(&status).contains("leader"));
    assert!(expect(0, folder.path(), "run_cluster.sh", &["leader"]).contains("group 0  node"));
    assert!(expect(0, folder.path(), "run_cluster.sh", &["stop"]).contains("stopped 3 node(s)"));
    expect(2, folder.path(), "run_cluster.sh", &["restart"]);
}

#[test]
fn so_many_writes_and_reads_are_reported() {
    let _one = exclusive();
    let folder = folder();
    let arguments = [&["20", "30", "--out", "results/latest.md", "--keys", "100"][..], &SMALL].concat();
    let report: Value =
        serde_json::from_str(&expect(0, folder.path(), "benchmark.sh", &arguments)).expect("one JSON object");
    assert_eq!((&report["write"]["operations"], &report["read"]["operations"]), (&Value::from(20), &Value::from(30)));
    assert!(report["generated_utc"].as_str().is_some_and(|stamp| stamp.ends_with('Z')), "{report}");
    let markdown = fs::read_to_string(folder.path().join("results/latest.md")).expect("the report");
    assert!(markdown.contains("| write | 20 | ") && markdown.contains("| read | 30 | "), "{markdown}");
    let mean = markdown.lines().find(|line| line.starts_with("| write")).and_then(|line| line.split('|').nth(4));
    let mean: f64 = mean.expect("a cell").trim().parse().expect("a number");
    let expected = report["write"]["latency_us"]["mean"].as_f64().expect("a number") / 1e3;
    assert!((mean - expected).abs() < 0.01, "{mean} is not {expected}: {markdown}");
    expect(1, folder.path(), "benchmark.sh", &[]);
}

#[test]
fn faults_leave_their_results() {
    let _one = exclusive();
    let folder = folder();
    let place = folder.path().to_string_lossy();
    let said = expect(0, folder.path(), "fault_tolerance.sh", &["leader-kill", "--dir", &place]);
    assert!(said.contains("leader-kill: ok"), "{said}");
    let results = fs::read_dir(folder.path().join(".results/fault")).expect("results").next().expect("a run");
    let results = results.expect("a run").path();
    assert!(fs::read_to_string(results.join("summary.txt")).expect("a summary").contains("leader-kill: ok"));
    assert!(fs::read_dir(&results).expect("results").count() > 1, "steps, history and logs are kept");
}

#[test]
fn the_chaos_test_kills_a_leader() {
    let _one = exclusive();
    let folder = folder();
    let said = expect(0, folder.path(), "chaos_test.sh", &["--dir", &folder.path().to_string_lossy()]);
    for part in ["100 keys are written", "is killed", "leads", "read back", "more keys are written", "is back"] {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}
