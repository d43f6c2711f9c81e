//! Tests of the client core against a scripted cluster: which replica is asked what may be read elsewhere.
//!
//! Off the data path. No sockets, no clock: time passes when the test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use ringraft_net::client::{Options, Submission};
use ringraft_net::wire::{Consistency, OperationRef, Outcome};
use std::collections::BTreeSet;
use world::fake::Verdict;
use world::{World, address, options};

#[test]
fn stale_reads_go_to_any_node() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    for tag in 1..=30 {
        let operation = [OperationRef::Get { key: b"a" }];
        let submission = Submission { consistency: Consistency::Stale, ..Submission::new(tag, &operation) };
        world.core.submit(&submission, world.now_us).unwrap();
        world.settle();
    }
    assert_eq!(world.ended.len(), 31);
    let nodes: BTreeSet<_> = world.cluster.received.iter().map(|received| received.node).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn a_near_node_is_asked_first_and_others_when_it_does_not_have_the_group() {
    let near = options().endpoints.len() as u64;
    let mut world = World::new(1, 1, Options { near: Some(near), ..options() });
    read(&mut world, 0, Consistency::Stale, 0); // the leader answers while there is no connection
    world.settle();
    world.cluster.received.clear();
    (1..=9).for_each(|tag| read(&mut world, tag, [Consistency::Stale, Consistency::Follower][tag as usize % 2], 0));
    assert!(world.cluster.received.iter().all(|received| received.node == near));
    assert_eq!(world.ended.len(), 10);
    world.down.insert(near);
    world.cut(near);
    world.run(10_000, 100);
    (10..=19).for_each(|tag| read(&mut world, tag, Consistency::Stale, 0));
    world.run(10_000, 100);
    assert_eq!(world.ended.len(), 20, "the others answer for it");
}

/// Submits a read of "a" and lets it end.
fn read(world: &mut World, tag: u64, consistency: Consistency, max_staleness_ms: u32) {
    let operation = [OperationRef::Get { key: b"a" }];
    let submission = Submission { consistency, max_staleness_ms, ..Submission::new(tag, &operation) };
    world.core.submit(&submission, world.now_us).unwrap();
    world.settle();
}

#[test]
fn follower_reads_go_to_any_node_and_lease_reads_to_the_leader() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    (1..=9).for_each(|tag| read(&mut world, tag, Consistency::Follower, 0));
    let nodes: BTreeSet<_> = world.cluster.received.iter().map(|received| received.node).collect();
    assert_eq!(nodes.len(), 3);
    world.cluster.received.clear();
    (10..=19).for_each(|tag| read(&mut world, tag, Consistency::Lease, 0));
    assert!(world.cluster.received.iter().all(|received| received.node == world.cluster.leaders[0]));
    assert_eq!(world.ended.len(), 20);
}

#[test]
fn the_bound_of_a_stale_read_travels_and_others_have_none() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    read(&mut world, 1, Consistency::Stale, 250);
    read(&mut world, 2, Consistency::Follower, 250);
    let asked: Vec<_> = world.cluster.received.iter().map(|received| received.request.sequence).collect();
    assert_eq!(asked, [0, 250, 0]);
}

#[test]
fn a_replica_that_cannot_tell_how_old_it_is_sends_nobody_away_but_to_the_leader() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    for (tag, consistency) in (1..).zip([Consistency::Follower, Consistency::Stale].repeat(3)) {
        world.cluster.received.clear();
        let message = String::from("no");
        world.cluster.script.push_back(Verdict::Answer(Outcome::Unavailable { message }));
        read(&mut world, tag, consistency, 10);
        let asked: Vec<_> = world.cluster.received.iter().map(|received| received.node).collect();
        assert_eq!(asked[1..], [world.cluster.leaders[0]], "at once, without a pause");
        assert!(world.results()[&tag].is_ok());
    }
}

#[test]
fn a_stale_read_that_a_replica_cannot_answer_holds_nobody_up() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    (1..=4).for_each(|tag| read(&mut world, tag, Consistency::Stale, 0));
    let refusals = [
        Outcome::Unavailable { message: String::from("no") },
        Outcome::NotLeader { group: 0, leader: None },
        Outcome::NotLeader { group: 0, leader: Some(3) },
        Outcome::OutcomeUnknown,
    ];
    for (tag, refusal) in (10..).step_by(10).zip(refusals.iter().cycle().take(12)) {
        for times in 1..=3 {
            world.cluster.script = (0..times).map(|_| Verdict::Answer(refusal.clone())).collect();
            read(&mut world, tag + times, Consistency::Stale, 0);
            assert!(world.results()[&(tag + times)].is_ok(), "another replica, or the leader, without a pause");
            assert_eq!(world.core.leader(0), Some(1));
        }
        world.put(tag, "a");
        world.settle();
        assert!(world.results()[&tag].is_ok(), "nothing is paused");
    }
    world.cluster.received.clear();
    world.cluster.script = (0..1_000).map(|_| Verdict::Answer(refusals[0].clone())).collect();
    read(&mut world, 999, Consistency::Stale, 0);
    assert!(world.cluster.received.len() < 10, "not in a tight loop: {}", world.cluster.received.len());
}

#[test]
fn a_read_that_waits_for_the_leader_keeps_none_from_the_replicas() {
    let mut world = World::new(1, 1, Options { endpoints: vec![address(3, 0)], ..options() });
    world.silent.insert(1);
    world.get(1, "a");
    world.settle();
    assert!(world.ended.is_empty(), "the leader says nothing");
    read(&mut world, 2, Consistency::Stale, 0);
    assert!(world.results()[&2].is_ok());
    assert_eq!(world.ended.len(), 1);
}
