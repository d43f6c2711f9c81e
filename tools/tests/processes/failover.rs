//! Nodes that are killed under load: nothing acknowledged is lost, nothing is done twice.
//!
//! Off the data path.

use std::time::Duration;

use ringraft_tools::local_cluster::Shape;

use crate::client::Session;
use crate::harness::{TestCluster, shape};
use crate::load::{self, Load};

/// What is asked of a new leader at the default timers, from the kill to its first answer.
const NEW_LEADER_WITHIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);
const WRITERS: usize = 8;

#[test]
fn a_killed_leader_under_load_costs_no_acknowledged_write() {
    let mut cluster = TestCluster::start(&shape(3));
    let endpoints = cluster.file().endpoints();
    let load = Load::start(&endpoints, WRITERS, PATIENCE);
    load.wait_for_more(200, PATIENCE);
    for round in 0..2 {
        let old = cluster.leader(0);
        cluster.kill(old).expect("the leader is killed");
        let (new, took) = cluster.wait_for_new_leader(old);
        println!("round {round}: node {old} killed, node {new} leads after {took:?}");
        assert!(took < NEW_LEADER_WITHIN, "a new leader took {took:?}");
        load.wait_for_more(200, PATIENCE);
        cluster.start_node(old).expect("the old leader starts again");
        cluster.serve();
        load.wait_for_more(100, PATIENCE);
    }
    let promises = load.stop();
    load::assert_all_went_on(&promises);
    cluster.wait_for_equal_replicas(PATIENCE);
    load::check(&endpoints, &promises);
}

#[test]
fn a_killed_follower_is_not_noticed_by_writers() {
    let mut shape = shape(3);
    // However slow the machine is, nobody else has a reason to lead.
    shape.node_arguments.extend(["--election-ticks-min=800", "--election-ticks-max=1600"].map(String::from));
    let mut cluster = TestCluster::start(&shape);
    let endpoints = cluster.file().endpoints();
    let leader = cluster.leader(0);
    let follower = (1..=3).find(|id| *id != leader).expect("a follower");
    let load = Load::start(&endpoints, WRITERS, PATIENCE);
    load.wait_for_more(100, PATIENCE);
    cluster.kill(follower).expect("a follower is killed");
    load.wait_for_more(300, PATIENCE);
    assert_eq!(cluster.wait_for_new_leader(follower).0, leader, "the leader must not change");
    cluster.start_node(follower).expect("it starts again");
    let promises = load.stop();
    load::assert_all_went_on(&promises);
    cluster.wait_for_equal_replicas(PATIENCE);
    load::check(&endpoints, &promises);
}

#[test]
fn all_nodes_killed_at_once_come_back_with_every_acknowledged_write() {
    let mut cluster = TestCluster::start(&shape(3));
    let endpoints = cluster.file().endpoints();
    // Calls end soon, as nothing answers for a while; each writer may be left with one unanswered step.
    let load = Load::start(&endpoints, WRITERS, Duration::from_secs(1));
    load.wait_for_more(400, PATIENCE);
    for id in 1..=3 {
        cluster.kill(id).expect("a node is killed");
    }
    std::thread::sleep(Duration::from_millis(1500));
    let promises = load.stop();
    cluster.start().expect("all start again");
    cluster.serve();
    load::check(&endpoints, &promises);
    cluster.wait_for_equal_replicas(PATIENCE);
}

#[test]
fn a_single_node_keeps_what_it_acknowledged() {
    let mut cluster = TestCluster::start(&shape(1));
    let endpoints = cluster.file().endpoints();
    let mut promises = Vec::new();
    let load = Load::start(&endpoints, 4, Duration::from_secs(1));
    load.wait_for_more(200, PATIENCE);
    cluster.kill(1).expect("the node is killed");
    std::thread::sleep(Duration::from_millis(1200));
    promises.extend(load.stop());
    cluster.start().expect("it starts again");
    cluster.serve();
    load::check(&endpoints, &promises);
    // A graceful stop and a start keep it as well.
    cluster.stop(Duration::from_secs(10)).expect("it stops");
    assert_eq!(
        cluster.exit_status(1).and_then(|status| status.code()),
        Some(0),
        "a graceful stop ends with exit code 0"
    );
    cluster.start().expect("it starts again");
    cluster.serve();
    load::check(&endpoints, &promises);
}

#[test]
fn several_groups_on_several_shards_serve_after_a_kill() {
    let shape = Shape { groups: 4, shards: 2, ..shape(3) };
    let mut cluster = TestCluster::start(&shape);
    let mut session = Session::without(&cluster.file().addresses());
    for number in 0..40 {
        session.put(&format!("key-{number}"), &number.to_string()).expect("a write");
    }
    let old = cluster.leader(0);
    cluster.kill(old).expect("a leader is killed");
    let mut session = Session::without(&cluster.addresses_without(&[old]));
    for number in 0..40 {
        let value = session.get(&format!("key-{number}")).expect("a read");
        assert_eq!(value, Some(number.to_string()));
    }
    cluster.start_node(old).expect("it starts again");
    cluster.wait_for_equal_replicas(PATIENCE);
}
