//! A follower that missed 100,000 entries.
//!
//! Off the data path.
//! An entry is a batch, and a flush carries one batch of each group that has something: several groups make many
//! entries out of few flushes.

use std::thread;
use std::time::{Duration, Instant};

use ringraft_net::slots;
use ringraft_tools::local_cluster::Shape;
use ringraft_tools::status::{self, ClusterStatus};

use crate::client::Session;
use crate::harness::{TestCluster, eventually, shape};

const GROUPS: u32 = 16;
const MISSED: u64 = 100_000;
const WRITE_PATIENCE: Duration = Duration::from_secs(240);
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_follower_that_missed_100_000_entries_catches_up() {
    let mut cluster = TestCluster::start(&Shape { groups: GROUPS, ..shape(3) });
    let down = 3;
    let before = last_indexes(&cluster.serve());
    cluster.kill(down).expect("a node is killed");
    let rest = cluster.addresses_without(&[down]);
    let start = Instant::now();
    thread::scope(|scope| {
        for group in 0..GROUPS {
            let rest = &rest;
            scope.spawn(move || fill(group, rest, start));
        }
    });
    let all_answer = || Some(status::cluster(&rest)).filter(|status| status.replicas(0).count() == rest.len());
    let after = last_indexes(&eventually(WRITE_PATIENCE, all_answer).expect("nodes that answer"));
    println!("{} entries written in {:?}", after - before, start.elapsed());
    assert!(after - before >= MISSED, "only {} entries were written in {:?}", after - before, start.elapsed());
    cluster.start_node(down).expect("it starts again");
    let start = Instant::now();
    let status = cluster.wait_for_equal_replicas(CATCH_UP_PATIENCE);
    println!("caught up in {:?}", start.elapsed());
    assert_eq!(last_indexes(&status), last_indexes_of(&status, down), "the follower has what the others have");
}

fn last_indexes(status: &ClusterStatus) -> u64 {
    (0..GROUPS).map(|group| status.replicas(group).map(|(_, replica)| replica.last_index).max().unwrap_or(0)).sum()
}

fn last_indexes_of(status: &ClusterStatus, node: u64) -> u64 {
    let of_node =
        |group| status.replicas(group).find(|(id, _)| *id == node).map_or(0, |(_, replica)| replica.last_applied);
    (0..GROUPS).map(of_node).sum()
}

/// One write after the other: each becomes an entry of its own.
fn fill(group: u32, endpoints: &[String], start: Instant) {
    let key = key_of(group);
    let mut session = Session::without(endpoints);
    for number in 0..=MISSED / u64::from(GROUPS) {
        session.put(&key, &number.to_string()).expect("a write");
        assert!(start.elapsed() < WRITE_PATIENCE, "group {group} wrote only {number} entries in {WRITE_PATIENCE:?}");
    }
}

fn key_of(group: u32) -> String {
    let keys = (0..).map(|number: u32| format!("key-{number}"));
    keys.into_iter().find(|key| slots::group_of_key(key.as_bytes(), GROUPS) == group).expect("some key")
}
