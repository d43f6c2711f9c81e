//! The commands as a user or a script meets them: outputs, exit codes, error texts.
//!
//! Off the data path.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringraft_tools::local_cluster::ClusterFile;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{binary, eventually, exclusive, folder, ringraft, ringraft_within, text};

const PATIENCE: Duration = Duration::from_secs(60);
const SMALL: [&str; 3] = ["--", "--segment-bytes=32MiB", "--segment-pool=1"];

/// Stops the cluster whatever the test does.
struct Stopped(PathBuf);

impl Drop for Stopped {
    fn drop(&mut self) {
        ringraft(&["cluster", "stop", "--patience-seconds", "5", "--dir", &self.0.to_string_lossy()]);
    }
}

#[track_caller]
fn expect(code: i32, arguments: &[&str]) -> String {
    let output = ringraft(arguments);
    let said = format!("{}{}", text(&output), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "ringraft {arguments:?} said {said}");
    text(&output)
}

#[test]
fn a_local_cluster_from_start_to_stop() {
    let _one = exclusive();
    let folder = folder();
    let path = folder.path().join("cluster");
    let dir = path.to_string_lossy().into_owned();
    let _stopped = Stopped(path.clone());
    let start = [&["cluster", "start", "--dir", &dir][..], &SMALL].concat();
    assert!(expect(0, &start).contains("serving: 1 group(s)"));
    assert!(expect(0, &["cluster", "start", "--dir", &dir]).contains("ran already"), "starting twice changes nothing");
    assert!(expect(1, &["cluster", "start", "--dir", &dir, "--nodes", "5"]).is_empty());
    assert!(expect(0, &["cluster", "status", "--dir", &dir]).contains("leader"));
    assert!(expect(0, &["cluster", "leader", "--dir", &dir]).contains("group 0"));
    client_commands(&dir);
    logs_can_be_read(&path);
    restart_one_node(&dir, &path);
    assert!(expect(0, &["cluster", "stop", "--dir", &dir]).contains("stopped 3 node(s), 0 of them had to be killed"));
    assert!(expect(0, &["cluster", "stop", "--dir", &dir]).contains("nothing runs"));
    expect(1, &["cluster", "status", "--dir", &dir]);
    let verified: Value =
        serde_json::from_str(&expect(0, &["wal", "verify", "--json", &dir_of_node(&path, 1)])).expect("JSON");
    assert_eq!(verified["sound"], true, "{verified}");
    expect(0, &["cluster", "start", "--dir", &dir]);
    assert_eq!(expect(0, &["get", "--dir", &dir, "greeting"]), "hello", "a stop and a start lose nothing");
}

fn client_commands(dir: &str) {
    assert_eq!(expect(3, &["get", "--dir", dir, "greeting"]), "");
    assert_eq!(expect(0, &["put", "--dir", dir, "greeting", "hello"]), "OK\n");
    assert_eq!(expect(0, &["get", "--dir", dir, "greeting"]), "hello");
    for kind in ["follower", "lease", "linearizable"] {
        assert_eq!(expect(0, &["get", "--dir", dir, "--consistency", kind, "greeting"]), "hello");
    }
    // Another replica hears of the commit with the next heartbeat.
    let stale = ["get", "--dir", dir, "--consistency", "stale", "--max-staleness-ms", "1000", "greeting"];
    let read = eventually(PATIENCE, || Some(ringraft(&stale)).filter(|output| output.status.success()));
    assert_eq!(text(&read.expect("a stale read that finds it")), "hello");
    let got: Value = serde_json::from_str(&expect(0, &["get", "--dir", dir, "--json", "greeting"])).expect("JSON");
    assert_eq!((&got["value"], &got["found"]), (&Value::from("hello"), &Value::from(true)), "{got}");
    assert!(got["position"]["index"].as_u64().is_some_and(|index| index > 0), "{got}");
    expect(0, &["cas", "--dir", dir, "lock", "--absent", "one"]);
    assert!(expect(4, &["cas", "--dir", dir, "lock", "--absent", "two"]).contains("one"));
    expect(0, &["cas", "--dir", dir, "lock", "--expected", "one", "two"]);
    compared_by_version(dir);
    assert_eq!(expect(0, &["delete", "--dir", dir, "lock"]), "OK\n");
    expect(3, &["delete", "--dir", dir, "lock"]);
    let file = ClusterFile::read(Path::new(dir)).expect("cluster.json");
    let endpoint = file.endpoints()[0].clone();
    assert_eq!(expect(0, &["get", "--addr", &endpoint, "greeting"]), "hello", "one endpoint is enough");
    let status: Value =
        serde_json::from_str(&expect(0, &["status", "--endpoints", &endpoint, "--json"])).expect("JSON");
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(3), "the others are learnt from one: {status}");
    let mut binary_value = Command::new(binary());
    binary_value.args(["put", "--dir", dir, "binary", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = binary_value.spawn().expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(&[0, 255, 10]).expect("a value");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(ringraft(&["get", "--dir", dir, "binary"]).stdout, [0, 255, 10]);
}

/// `lock` has the value `two`.
fn compared_by_version(dir: &str) {
    let told = |code, arguments: &[&str]| -> Value {
        let arguments = [arguments, &["--json", "--dir", dir]].concat();
        serde_json::from_str(&expect(code, &arguments)).expect("JSON")
    };
    let by = |version: &Value| format!("--expected-version={version}");
    let read = told(0, &["get", "lock"])["version"].clone();
    assert!(read.as_u64().is_some_and(|version| version > 0), "{read}");
    assert_eq!(told(4, &["cas", "lock", "--expected-version", "0", "x"])["version"], read, "it is not absent");
    let swapped = told(0, &["cas", "lock", &by(&read), "three"]);
    assert_eq!((&swapped["swapped"], &swapped["version"]), (&true.into(), &told(0, &["get", "lock"])["version"]));
    let refused = told(4, &["cas", "lock", &by(&read), "four"]);
    assert_eq!((&refused["swapped"], &refused["version"]), (&false.into(), &swapped["version"]), "{refused}");
    let said = expect(4, &["cas", "--dir", dir, "lock", &by(&read), "four"]);
    assert_eq!(said, format!("not swapped: the version is {}\n", swapped["version"]));
    assert_eq!(expect(0, &["get", "--dir", dir, "lock"]), "three");
    let put = told(0, &["put", "lock", "four"])["version"].clone();
    assert_eq!(expect(0, &["cas", "--dir", dir, "lock", &by(&put), "five"]), "OK\n");
    let by_value = told(0, &["cas", "lock", "--expected", "five", "six"])["version"].clone();
    assert_eq!(expect(0, &["cas", "--dir", dir, "lock", &by(&by_value), "seven"]), "OK\n");
    assert_eq!(expect(0, &["cas", "--dir", dir, "new", "--expected-version", "0", "one"]), "OK\n");
    expect(0, &["delete", "--dir", dir, "new"]);
    assert!(expect(4, &["cas", "--dir", dir, "new", &by(&put), "two"]).contains("absent"));
}

fn dir_of_node(path: &Path, id: u64) -> String {
    path.join(format!("node-{id}/data")).to_string_lossy().into_owned()
}

fn logs_can_be_read(path: &Path) {
    let shown = expect(0, &["wal", "inspect", &dir_of_node(path, 1)]);
    assert!(shown.contains("group 0: entries 1..="), "{shown}");
    assert!(expect(0, &["wal", "inspect", "--records", "--group", "0", &dir_of_node(path, 2)]).contains("entry"));
}

/// `cluster start` starts what does not run, and only that.
fn restart_one_node(dir: &str, path: &Path) {
    let file = ClusterFile::read(path).expect("cluster.json");
    let pid = file.nodes[1].pid.and_then(|pid| Pid::from_raw(pid as i32)).expect("a pid");
    kill_process(pid, Signal::KILL).expect("node 2 is killed");
    let gone = eventually(PATIENCE, || {
        (ringraft(&["cluster", "status", "--dir", dir]).status.code() == Some(1)).then_some(())
    });
    assert!(gone.is_some(), "status must tell of a node that does not answer");
    let started: Value = serde_json::from_str(&expect(0, &["cluster", "start", "--dir", dir, "--json"])).expect("JSON");
    assert_eq!(started["started"], serde_json::json!([2]), "{started}");
}

#[test]
fn wrong_usage_is_told() {
    let table: [(&[&str], i32, &str); 16] = [
        (&["put", "--endpoints", "127.0.0.1:1", "key"], 2, "VALUE"),
        (&["cas", "--endpoints", "127.0.0.1:1", "k", "--expected-version", "1", "--absent", "v"], 2, "--absent"),
        (&["cas", "--endpoints", "127.0.0.1:1", "k", "--expected-version", "new", "v"], 2, "--expected-version"),
        (&["get", "key"], 2, "--endpoints"),
        (&["cas", "--endpoints", "127.0.0.1:1", "key", "value"], 2, "--expected"),
        (&["cluster", "start", "--dir", "x", "--nodes", "10"], 2, "10 is not in 1..=9"),
        (&["cluster", "status", "--dir", "/nonexistent"], 1, "no cluster at /nonexistent"),
        (&["node", "list"], 2, "--endpoints"),
        (&["node", "--id", "1", "list", "--endpoints", "127.0.0.1:1"], 2, "list"),
        (&["node", "add", "4", "--endpoints", "127.0.0.1:1"], 2, "--address"),
        (&["node", "replace", "3", "--address", "a:1", "--endpoints", "127.0.0.1:1"], 2, "--with"),
        (&["snapshot", "--endpoints", "127.0.0.1:1"], 2, "--group"),
        (&["join", "--data-dir", "/nonexistent", "--address", "a:1"], 2, "--seed"),
        (&["join", "--data-dir", "/nonexistent", "--address", "a:1", "--seed", "127.0.0.1:1"], 1, "cannot join"),
        (&["bench", "--rate", "0"], 2, "--rate"),
        (&["wal", "verify", "/nonexistent"], 1, "/nonexistent"),
    ];
    for (arguments, code, expected) in table {
        let (ended, said) = ringraft_within(PATIENCE, arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?} said {said:?}, not {expected:?}");
    }
}

#[test]
fn an_unreachable_cluster_is_an_error_and_nothing_was_done() {
    let (code, said) =
        ringraft_within(PATIENCE, &["put", "--endpoints", "127.0.0.1:1", "--timeout-ms", "300", "key", "value"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not done"), "{said}");
}

#[test]
fn node_flags_out_of_range_are_told_with_their_bounds() {
    let folder = folder();
    let data = folder.path().join("data");
    let data = data.to_string_lossy();
    let id = "000102030405060708090a0b0c0d0e0f";
    let required = ["--id=1", "--cluster-id", id, "--peers=1=127.0.0.1:7100,2=127.0.0.1:7200", "--data-dir", &data];
    let table: [(&str, &str); 14] = [
        ("--tick-ms=0", "below 1 (milliseconds)"),
        ("--tick-ms=abc", "not a whole number"),
        ("--groups=0", "below 1 (groups)"),
        ("--groups=16385", "above 16384 (groups)"),
        ("--shards=0", "below 1 (shards)"),
        ("--shards=2", "groups = 1 leaves some of the 2 shards without work"),
        ("--segment-bytes=1KiB", "below 33554432 (bytes)"),
        ("--block-bytes=100", "below 512 (bytes)"),
        ("--block-bytes=5000", "power of two"),
        ("--election-ticks-min=3", "twice heartbeat_ticks"),
        ("--election-ticks-max=20", "1.5 times election_ticks_min"),
        ("--flush-method=maybe", "no such method"),
        ("--log-level=loud", "no such level"),
        ("--config=/nonexistent.toml", "/nonexistent.toml cannot be read"),
    ];
    for (flag, expected) in table {
        let arguments = [&["node"][..], &required, &[flag]].concat();
        let (code, said) = ringraft_within(PATIENCE, &arguments);
        assert_eq!(code, Some(64), "{flag}: {said}");
        assert!(said.contains(expected), "{flag} said {said:?}, not {expected:?}");
        assert!(!Path::new(&*data).exists(), "{flag}: nothing may be made");
    }
    let (code, said) = ringraft_within(PATIENCE, &["node", "--id=1"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("is not set"), "{said}");
}

#[test]
fn the_doctor_finds_this_machine_fit() {
    let _one = exclusive();
    let folder = folder();
    let arguments = ["doctor", "--seconds", "1", "--json", "--data-dir", &folder.path().to_string_lossy()];
    let report: Value = serde_json::from_str(&expect(0, &arguments)).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    for check in [
        "kernel",
        "io_uring works",
        "direct I/O",
        "flush: write, fdatasync",
        "flush: O_DSYNC write",
        "loopback",
        "election timeout",
    ] {
        assert!(findings.iter().any(|finding| finding["check"] == check), "no finding on {check}: {report}");
    }
    for finding in findings {
        assert!(finding["level"] == "ok" || finding["remedy"].is_string(), "no remedy: {finding}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "the doctor leaves nothing behind");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(expect(0, &["completions", shell]).contains("doctor"), "{shell}");
    }
}

#[test]
fn a_short_bench_succeeds_and_leaves_nothing() {
    let _one = exclusive();
    let folder = folder();
    let place = folder.path().to_string_lossy();
    let load = ["bench", "--json", "--rate", "300", "--warmup", "200ms", "--duration", "1s", "--dir", &place];
    let report: Value = serde_json::from_str(&expect(0, &[&load[..], &SMALL].concat())).expect("JSON");
    assert_eq!(report["errors"], 0, "{report}");
    for field in
        ["offered_ops_s", "achieved_ops_s", "operations", "latency_us", "service_us", "server_cpu_us_per_op", "nodes"]
    {
        assert!(!report[field].is_null(), "no {field}: {report}");
    }
    assert_eq!(report["nodes"], 3);
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "its cluster is gone");
}

#[test]
fn a_bench_that_is_interrupted_cleans_up() {
    let _one = exclusive();
    let folder = folder();
    let mut command = Command::new(binary());
    command.args(["bench", "--rate", "200", "--duration", "60s", "--dir"]).arg(folder.path()).args(SMALL);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let nodes = eventually(PATIENCE, || running_nodes(folder.path()));
    std::thread::sleep(Duration::from_secs(2));
    for pid in nodes.iter().flatten() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        assert!(!status.contains("THP_enabled:\t1"), "fresh memory of node process {pid} comes in huge pages");
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("^C");
    let ended = eventually(Duration::from_secs(30), || child.try_wait().expect("a child"));
    if ended.is_none() {
        child.kill().expect("a child");
    }
    assert!(ended.is_some_and(|status| !status.success()), "an interrupted run is no success: {ended:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "its cluster is gone");
    for pid in nodes.expect("three nodes ran") {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "node process {pid} is still there");
    }
}

/// Pids of the nodes of the only cluster below this folder, once all have started.
fn running_nodes(folder: &Path) -> Option<Vec<u32>> {
    let cluster = fs::read_dir(folder).ok()?.flatten().next()?.path();
    let file = ClusterFile::read(&cluster).ok()?;
    let pids: Vec<u32> = file.nodes.iter().filter_map(|node| node.pid).collect();
    (pids.len() == 3 && file.initialised).then_some(pids)
}
