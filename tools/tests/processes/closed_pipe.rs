//! Outputs that nobody reads any more: commands end quietly and in order, nodes go on.
//!
//! Off the data path.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Output, Stdio};

use ringraft_tools::{ports, status};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{START_PATIENCE, TestCluster, binary, eventually, exclusive, folder, shape};

/// As a shell tells of SIGPIPE.
const READER_GONE: i32 = 141;

/// A pipe whose reader is gone before anything is written.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(closed_pipe()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn ends_quietly(arguments: &[&str]) {
    quiet(arguments, &command(arguments).output().expect("the binary runs"));
}

#[track_caller]
fn quiet(arguments: &[&str], output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(READER_GONE), ""), "ringraft {arguments:?}");
}

#[test]
fn commands_that_print_end_quietly() {
    let table: [&[&str]; 6] = [
        &["completions", "bash"],
        &["config", "default"],
        &["chaos", "--list"],
        &["chaos", "--list", "--json"],
        &["sim", "--scenario", "list"],
        &["sim", "--seed", "1", "--trace"],
    ];
    for arguments in table {
        ends_quietly(arguments);
    }
    let help = command(&["--help"]).output().expect("the binary runs");
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0), "{help:?}");
}

#[test]
fn commands_to_a_cluster_end_quietly() {
    let cluster = TestCluster::start(&shape(1));
    let endpoint = cluster.address(1);
    let data = cluster.data_directory(1).to_string_lossy().into_owned();
    let put = ["put", "--endpoints", &endpoint, "key", "value"];
    ends_quietly(&put);
    let table: [&[&str]; 9] = [
        &["get", "--endpoints", &endpoint, "key"],
        &["get", "--endpoints", &endpoint, "key", "--json"],
        &["list", "--endpoints", &endpoint],
        &["status", "--endpoints", &endpoint],
        &["status", "--endpoints", &endpoint, "--json"],
        &["node", "list", "--endpoints", &endpoint],
        &["admin", "--endpoints", &endpoint, "--once"],
        &["watch", "--endpoints", &endpoint, "", "--from", "1"],
        &["wal", "inspect", "--records", &data],
    ];
    for arguments in table {
        ends_quietly(arguments);
    }
    let batch = ["get-batch", "--endpoints", &endpoint];
    let mut child = command(&batch).stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(b"key\nkey\n").expect("keys");
    quiet(&batch, &child.wait_with_output().expect("it ends"));
}

#[test]
fn what_a_command_started_ends_with_it() {
    let _one = exclusive();
    let folder = folder();
    let cluster = folder.path().join("cluster");
    let place = cluster.to_string_lossy();
    let start =
        ["cluster", "start", "--nodes", "1", "--dir", &place, "--", "--segment-bytes=32MiB", "--segment-pool=1"];
    let started = command(&start).output().expect("the binary runs");
    let stop = Command::new(binary()).args(["cluster", "stop", "--dir", &place]).output().expect("the binary runs");
    quiet(&start, &started);
    assert!(String::from_utf8_lossy(&stop.stdout).contains("stopped 1 node"), "what was started stays: {stop:?}");
    let inner = folder.path().join("bench");
    fs::create_dir(&inner).expect("a folder");
    let place = inner.to_string_lossy();
    let bench = ["bench", "--nodes", "1", "--rate", "100", "--warmup", "100ms", "--duration", "300ms", "--dir", &place];
    let small = ["--json", "--", "--segment-bytes=32MiB", "--segment-pool=1"];
    let output = command(&[&bench[..], &small].concat()).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(READER_GONE), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    assert_eq!(fs::read_dir(&inner).expect("the folder").count(), 0, "its cluster is gone");
}

#[test]
fn a_full_disk_is_told() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = command(&["config", "default"]).stdout(full).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write to standard output: No space left"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_node_whose_log_nobody_reads_goes_on() {
    let _one = exclusive();
    let folder = folder();
    let data = folder.path().join("data");
    let address = format!("127.0.0.1:{}", ports::free_run(1).expect("a port"));
    let peers = format!("1={address}");
    let data = data.to_string_lossy();
    let id = "000102030405060708090a0b0c0d0e0f";
    let flags = ["node", "--init", "--id=1", "--cluster-id", id, "--peers", &peers, "--data-dir", &data];
    let mut node = command(&flags);
    node.args(["--segment-bytes=32MiB", "--segment-pool=1", "--log-level=debug"]).stderr(closed_pipe());
    let mut node = node.spawn().expect("the binary runs");
    let leads = eventually(START_PATIENCE, || {
        let leaders = status::cluster(std::slice::from_ref(&address)).leaders();
        (!leaders.is_empty() || node.try_wait().expect("a child").is_some()).then_some(leaders)
    });
    let ended = node.try_wait().expect("a child");
    if ended.is_none() {
        kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    }
    let status = node.wait().expect("a child");
    assert!(ended.is_none() && leads.is_some_and(|leaders| !leaders.is_empty()), "it ended: {ended:?}");
    assert!(status.success(), "{status:?}");
}
