//! Commands of an operator on a running cluster: batches, the shell, the dashboard, configuration that is read again.
//!
//! Off the data path.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{TestCluster, binary, eventually, folder, ringraft, shape, text};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the binary with this standard input.
fn fed(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("RINGRAFT_ENDPOINTS");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("its output")
}

#[track_caller]
fn expect(output: &Output, code: i32) -> String {
    let said = format!("{}{}", text(output), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    text(output)
}

#[track_caller]
fn json_of(output: &Output, code: i32) -> Value {
    let text = expect(output, code);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn many_keys_a_shell_and_a_dashboard() {
    let cluster = TestCluster::start(&shape(3));
    let addresses = cluster.addresses_without(&[]).join(",");
    batches(&addresses);
    shell(&addresses);
    dashboard(&addresses);
}

fn batches(addresses: &str) {
    let pairs: String = (0..500).map(|number| format!("key-{number}=value {number}\n")).collect();
    let put = json_of(&fed(&["put-batch", "--addr", addresses, "--json"], &pairs), 0);
    assert_eq!((&put["done"], &put["failed"]), (&Value::from(500), &Value::from(0)), "{put}");
    let folder = folder();
    let file = folder.path().join("keys.txt");
    fs::write(&file, "key-0\nkey-499\nno-such-key\n").expect("a file");
    let file = file.to_string_lossy();
    let mut lines: Vec<String> =
        expect(&ringraft(&["get-batch", "--addr", addresses, &file]), 3).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["key-0\tvalue 0", "key-499\tvalue 499"]);
    let objects = expect(&ringraft(&["get-batch", "--addr", addresses, "--json", &file]), 3);
    let again =
        fed(&["put-batch", "--addr", addresses, "--format", "json"], objects.lines().next().unwrap_or_default());
    assert!(matches!(again.status.code(), Some(0 | 1)), "an object without a value is no pair");
    let same = "one=1\none=2\none=3\n".repeat(50);
    expect(&fed(&["put-batch", "--addr", addresses], &same), 0);
    assert_eq!(expect(&ringraft(&["get", "--addr", addresses, "one"]), 0), "3", "the last line of a key counts");
    let output = fed(&["put-batch", "--addr", addresses, "--json"], "good=1\nbad\nnever=1\n");
    assert_eq!(json_of(&output, 1)["done"], 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2: there is no `=`"));
    expect(&ringraft(&["get", "--addr", addresses, "never"]), 3);
    let deleted = json_of(&fed(&["delete-batch", "--addr", addresses, "--format", "pairs", "--json"], &pairs), 0);
    assert_eq!((&deleted["done"], &deleted["missing"]), (&Value::from(500), &Value::from(0)), "{deleted}");
    let deleted = json_of(&fed(&["delete-batch", "--addr", addresses, "--format", "pairs", "--json"], &pairs), 3);
    assert_eq!(deleted["missing"], 500, "{deleted}");
}

fn shell(addresses: &str) {
    let script =
        "# a comment\nset greeting hello world\nget greeting\nget nothing\ndelete greeting\nstatus\nhelp get\n";
    let output = fed(&["shell", "--addr", addresses], script);
    let said = expect(&output, 3);
    assert!(said.starts_with("OK\nhello world\nnot found\nOK\n"), "{said}");
    assert!(said.contains("leader") && said.contains("get <key>"), "{said}");
    let output = fed(&["shell", "--addr", addresses, "--json"], "set a 1\nget a\nfrobnicate\nexit\nset b 2\n");
    let lines: Vec<Value> =
        expect(&output, 1).lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    assert_eq!(lines.len(), 3, "nothing behind exit: {lines:?}");
    assert_eq!((&lines[0]["replaced"], &lines[1]["value"]), (&Value::from(false), &Value::from("1")));
    assert!(lines[2]["error"].as_str().is_some_and(|error| error.contains("frobnicate")), "{lines:?}");
    let refused = fed(&["shell", "--addr", addresses], "clean\n");
    expect(&refused, 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("clean --yes"), "a pipe cannot be asked");
    assert_eq!(expect(&ringraft(&["get", "--addr", addresses, "a"]), 0), "1");
    let removed = fed(&["shell", "--addr", addresses], "set b 2\nclean --yes\nget a\n");
    assert!(expect(&removed, 3).contains("key(s) are removed\nnot found"), "{removed:?}");
    let unknown = fed(&["shell", "--addr", addresses], "remove-server 77\n");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("77"), "{unknown:?}");
    expect(&unknown, 1);
}

fn dashboard(addresses: &str) {
    let frame = expect(&ringraft(&["admin", "--addr", addresses, "--once", "--interval-ms", "200"]), 0);
    assert!(frame.contains("3 node(s), 1 group(s)") && frame.contains(":L"), "{frame}");
    let status = expect(&ringraft(&["admin", "--addr", addresses, "--once", "--json"]), 0);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_configuration_is_read_again() {
    let mut cluster = TestCluster::prepare(&shape(1));
    let folder = folder();
    let file = folder.path().join("node.yaml");
    let write = |text: &str| fs::write(&file, text).expect("a file");
    write("snapshot_log_entries: 1000\nlog_level: info\n");
    let config = format!("--config={}", file.display());
    cluster.add_arguments(1, &[config.as_str()]).expect("a node");
    cluster.start().expect("it starts");
    cluster.serve();
    let address = cluster.address(1);
    let reload = |code| json_of(&ringraft(&["config", "reload", "--addr", &address, "--json"]), code)[0].clone();
    let none: [&str; 0] = [];
    assert_eq!(
        (&reload(0)["changed"], &reload(0)["needs_restart"]),
        (&Value::from(&none[..]), &Value::from(&none[..]))
    );
    write("snapshot_log_entries: 16\nlog_level: debug\ntick_ms: 50\nelection_ticks_max: 80\n");
    let changed = reload(0);
    assert_eq!(changed["changed"], serde_json::json!(["log_level = debug", "snapshot_log_entries = 16"]), "{changed}");
    assert_eq!(changed["needs_restart"], serde_json::json!(["tick_ms", "election_ticks_max"]), "{changed}");
    let pairs: String = (0..100).map(|number| format!("key-{number}=1\n")).collect();
    expect(&fed(&["put-batch", "--addr", &address, "--in-flight", "1"], &pairs), 0);
    let taken = eventually(PATIENCE, || {
        let status = json_of_status(&address);
        (status["shards"][0]["counters"]["snapshots_taken"].as_u64()? > 0).then_some(())
    });
    assert!(taken.is_some(), "the new snapshot_log_entries is in effect");
    write("snapshot_log_entries: 16\nlog_level: chatty\n");
    let refused = reload(1);
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("log_level")), "{refused}");
    write("snapshot_log_entries: 17\nlog_level: info\n");
    let pid = cluster.file().nodes[0].pid.and_then(|pid| Pid::from_raw(pid as i32)).expect("a pid");
    kill_process(pid, Signal::HUP).expect("it runs");
    let log = cluster.log_path(1);
    let told = eventually(PATIENCE, || {
        let text = fs::read_to_string(&log).ok()?;
        (text.matches("was read again").count() >= 5).then_some(())
    });
    assert!(told.is_some(), "{:?}", fs::read_to_string(&log));
}

fn json_of_status(address: &str) -> Value {
    let output = ringraft(&["status", "--addr", address, "--json"]);
    serde_json::from_str(&text(&output)).unwrap_or_default()
}

#[test]
fn configurations_are_printed_checked_and_shown() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for format in ["toml", "yaml", "json"] {
        let default = expect(&ringraft(&["config", "default", "--format", format]), 0);
        fs::write(path(&format!("default.{format}")), &default).expect("a file");
        let said = expect(&ringraft(&["config", "check", &path(&format!("default.{format}"))]), 0);
        assert!(said.starts_with("valid; left to flags or environment: id, cluster_id, data_dir, peers"), "{said}");
    }
    fs::write(path("bad.toml"), "tick_ms = 0\n").expect("a file");
    let checked = json_of(&ringraft(&["config", "check", "--json", &path("bad.toml")]), 1);
    assert!(checked["error"].as_str().is_some_and(|error| error.contains("tick_ms")), "{checked}");
    fs::write(path("node.json"), "{\"tick_ms\": 20, \"digest_ms\": 500}").expect("a file");
    let mut command = Command::new(binary());
    let config = format!("--config={}", path("node.json"));
    command.args(["config", "show", "--json", &config, "--digest-ms=600"]);
    command.env("APP_NODE_ID", "node-3").env("APP_PEERS", ":8081,:8082,:8083").env("RINGRAFT_TICK_MS", "30");
    let output = command.env("APP_DATA_DIR", "d").output().expect("it runs");
    let shown: Value = serde_json::from_str(&expect(&output, 0)).expect("JSON");
    let setting = |key: &str| {
        let found = shown["settings"].as_array().into_iter().flatten().find(|setting| setting["key"] == key);
        let found = found.unwrap_or_else(|| panic!("{key}"));
        (
            found["value"].as_str().unwrap_or_default().to_owned(),
            found["origin"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(setting("tick_ms"), pair("30", "RINGRAFT_TICK_MS"));
    assert_eq!(setting("digest_ms"), pair("600", "--digest-ms"));
    assert_eq!(setting("id"), pair("3", "APP_NODE_ID"));
    assert_eq!(setting("groups"), pair("1", "default"));
    assert_eq!(setting("peers"), pair("1=127.0.0.1:8081,2=127.0.0.1:8082,3=127.0.0.1:8083", "APP_PEERS"));
    let table = expect(&ringraft(&["config", "show", "--id=2", "--peers=2=a:1"]), 1);
    assert!(table.contains("log_level") && table.contains("reload") && table.contains("--peers"), "{table}");
}
