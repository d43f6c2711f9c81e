//! Tests of `ringraft chaos`: some scenarios pass, faults that lose writes are found, nothing is left behind.
//!
//! Off the data path.
//! Invariant: runs go one at a time, so that a scenario's time limits are its own. What needs rights that are missing here
//! is skipped, with the reason printed.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

static EXCLUSIVE: Mutex<()> = Mutex::new(());

fn exclusive() -> MutexGuard<'static, ()> {
    EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn chaos(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
    // On the disk the binary was built on: the temporary folder may be in memory.
    command.args(["chaos", "--dir", env!("CARGO_TARGET_TMPDIR")]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Runs a scenario; its result, or nothing, with the reason printed, when it was skipped.
fn run(scenario: &str) -> Option<Value> {
    let _one = exclusive();
    let output = chaos(&["--json", "--scenario", scenario]).output().expect("the binary runs");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = report["runs"][0].take();
    assert_eq!(run["scenario"], scenario);
    if run["verdict"] == "skipped" {
        println!("SKIPPED: {scenario}: {}", run["reason"]);
        return None;
    }
    assert_eq!(run["verdict"], "ok", "{said}");
    Some(run)
}

#[test]
fn a_killed_leader_is_replaced_and_catches_up() {
    let run = run("leader-kill-catchup").expect("it needs no rights");
    let summary = &run["summary"];
    assert!(summary["counts"]["done"].as_u64() > Some(100), "{summary}");
    assert_eq!(run["failovers_ms"].as_array().map(Vec::len), Some(1), "{run}");
    assert!(run["steps"].as_array().is_some_and(|steps| steps.len() >= 8), "{run}");
}

#[test]
fn a_partition_drops_packets_and_the_majority_goes_on() {
    let Some(run) = run("majority-partition") else { return };
    assert!(run["summary"]["packets_dropped"].as_u64() > Some(0), "{run}");
}

#[test]
fn a_loss_of_power_loses_sectors_and_no_promise() {
    let Some(run) = run("power-loss") else { return };
    assert!(run["summary"]["disk_faults"].as_u64() > Some(0), "{run}");
}

#[test]
fn writes_that_are_lost_are_found() {
    let Some(run) = run("lying-disks") else { return };
    let steps = run["steps"].to_string();
    assert!(steps.contains("not linearizable") && steps.contains(" call "), "{run}");
}

#[test]
fn an_unknown_scenario_is_refused_by_name() {
    let output = chaos(&["--scenario", "leader-kill,nonsense"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("\"nonsense\"") && said(&output).contains("--list"), "{}", said(&output));
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let _one = exclusive();
    for scenario in ["minority-partition", "stalled-disk-leader"] {
        let mut child = chaos(&["--scenario", scenario]).spawn().expect("the binary runs");
        let pid = child.id();
        wait_for_nodes(&mut child);
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let output = child.wait_with_output().expect("its output");
        let said = said(&output);
        if said.contains("skipped") {
            println!("SKIPPED: {said}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let ours = format!("ringraft-chaos-{pid}-");
        let left: Vec<_> = namespaces
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with(&ours))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let kept = said.rsplit("kept: ").next().unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        assert!(
            !kept.is_empty() && !fs::read_to_string("/proc/self/mounts").expect("mounts").contains(&kept),
            "{said}"
        );
        assert!(nodes_below(&kept) == 0, "{said}");
        fs::remove_dir_all(kept).expect("the folder of a run that failed is kept");
    }
}

/// Waits until the nodes of a run are at work, or it has ended.
fn wait_for_nodes(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() && nodes_of(child.id()) < 3 {
        assert!(Instant::now() < deadline, "no nodes are started");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(2));
}

fn command_lines() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.map(|pid| (pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())).collect()
}

fn nodes_of(parent: u32) -> usize {
    let is_child = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|found| found.trim() == parent.to_string()))
    };
    command_lines().iter().filter(|(pid, line)| line.contains("\0node\0") && is_child(*pid)).count()
}

fn nodes_below(folder: &str) -> usize {
    command_lines().iter().filter(|(_, line)| line.contains("\0node\0") && line.contains(folder)).count()
}
