//! Leadership is handed over between real processes, by command and by a node that stops, while writers go on.
//!
//! Off the data path.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{TestCluster, eventually, ringraft, shape, text};
use crate::load::{self, Load};

const PATIENCE: Duration = Duration::from_secs(30);
/// Far below the election timeouts that go with it: whoever waited for one was not handed anything.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(10);
const LONG_ELECTIONS: [&str; 2] = ["--election-ticks-min=800", "--election-ticks-max=1600"];

/// Runs `ringraft transfer` with `--json`: exit code and answer.
fn transfer(cluster: &TestCluster, arguments: &[&str]) -> (Option<i32>, Value) {
    let endpoints = cluster.file().endpoints().join(",");
    let given = ["transfer", "--endpoints", &endpoints, "--group", "0", "--json"];
    let output = ringraft(&[&given[..], arguments].concat());
    let printed = text(&output);
    let answer = serde_json::from_str(&printed);
    (output.status.code(), answer.unwrap_or_else(|_| panic!("{printed} {}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn leadership_goes_around_under_load_and_no_request_is_lost() {
    let mut cluster = TestCluster::start(&shape(3));
    let endpoints = cluster.file().endpoints();
    let load = Load::start(&endpoints, 4, PATIENCE);
    load.wait_for_more(100, PATIENCE);
    for to in [1, 2, 3, 1] {
        let start = Instant::now();
        let (code, answer) = transfer(&cluster, &["--to", &to.to_string()]);
        println!("to node {to}: {answer} in {:?}", start.elapsed());
        assert_eq!((code, &answer["leader"]), (Some(0), &Value::from(to)), "{answer}");
        assert_eq!(cluster.leader(0), to);
        load.wait_for_more(100, PATIENCE);
    }
    let (code, answer) = transfer(&cluster, &[]);
    assert_eq!(code, Some(0), "{answer}");
    assert_ne!(answer["leader"], 1, "somebody else");
    load.wait_for_more(100, PATIENCE);
    let promises = load.stop();
    load::assert_all_went_on(&promises);
    cluster.wait_for_equal_replicas(PATIENCE);
    load::check(&endpoints, &promises);
}

#[test]
fn what_cannot_be_done_is_said_and_leadership_stays() {
    let mut cluster = TestCluster::start(&shape(3));
    let leader = cluster.leader(0);
    let to = leader % 3 + 1;
    let (code, answer) = transfer(&cluster, &["--to", "9"]);
    assert_eq!((code, &answer["error"]), (Some(1), &Value::from("UnknownNode")), "{answer}");
    let endpoints = cluster.file().endpoints().join(",");
    let output = ringraft(&["transfer", "--endpoints", &endpoints, "--group", "7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("groups are 0 to 0"));
    cluster.signal(to, Signal::STOP).expect("a node stands still");
    let (code, answer) = transfer(&cluster, &["--to", &to.to_string()]);
    cluster.signal(to, Signal::CONT).expect("it goes on");
    // On a slow machine the link to a node that stands still may have been given up.
    let told = ["TimedOut", "Unreachable"].map(Value::from);
    assert!(code == Some(1) && told.contains(&answer["error"]), "{answer}");
    cluster.kill(to).expect("a node is killed");
    // Once the leader has noticed.
    let refused = eventually(PATIENCE, || {
        let (code, answer) = transfer(&cluster, &["--to", &to.to_string()]);
        (code == Some(1) && answer["error"] == "Unreachable").then_some(())
    });
    assert!(refused.is_some(), "a node that is gone cannot be reached");
}

#[test]
fn a_leader_that_stops_in_order_leaves_a_leader_behind() {
    let mut shape = shape(3);
    shape.node_arguments.extend(LONG_ELECTIONS.map(String::from));
    let mut cluster = TestCluster::start(&shape);
    let endpoints = cluster.file().endpoints();
    let load = Load::start(&endpoints, 4, PATIENCE);
    load.wait_for_more(100, PATIENCE);
    for _ in 0..2 {
        let old = cluster.leader(0);
        cluster.signal(old, Signal::TERM).expect("the leader is asked to stop");
        let (new, took) = cluster.wait_for_new_leader(old);
        println!("node {old} stops, node {new} leads after {took:?}");
        assert!(took < HANDED_OVER_WITHIN, "it took {took:?}");
        assert!(cluster.wait_gone(old, PATIENCE), "it stops");
        assert_eq!(cluster.exit_status(old).and_then(|status| status.code()), Some(0));
        load.wait_for_more(100, PATIENCE);
        cluster.start_node(old).expect("it starts again");
        cluster.serve();
    }
    let promises = load.stop();
    load::assert_all_went_on(&promises);
    cluster.wait_for_equal_replicas(PATIENCE);
    load::check(&endpoints, &promises);
}
