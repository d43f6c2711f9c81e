//! Tests of the client core in a cluster whose nodes come and go.
//!
//! Off the data path. No sockets, no clock: time passes when the test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use ringraft_net::client::{ClientError, Options, Submission};
use ringraft_net::wire::{Consistency, OperationRef, OperationResult, Outcome};
use std::collections::BTreeSet;
use world::fake::Verdict;
use world::{World, options};

fn put_done(replaced: bool) -> Result<Vec<OperationResult>, ClientError> {
    Ok(vec![OperationResult::Put { replaced }])
}

/// A world whose client is connected to all three nodes.
fn connected(options: Options) -> World {
    let mut world = World::new(1, 1, options);
    world.put(900, "warm");
    world.settle();
    for tag in 901..=904 {
        stale_get(&mut world, tag);
    }
    assert_eq!(world.connected(), BTreeSet::from([1, 2, 3]));
    world
}

fn stale_get(world: &mut World, tag: u64) {
    let operation = [OperationRef::Get { key: b"warm" }];
    let submission = Submission { consistency: Consistency::Stale, ..Submission::new(tag, &operation) };
    world.core.submit(&submission, world.now_us).unwrap();
    world.settle();
}

#[test]
fn a_leader_that_joined_is_found() {
    let mut world = connected(options());
    world.change_nodes(&[1, 2, 3, 4, 5]);
    world.cluster.leaders = vec![5];
    world.put(1, "a");
    world.run(100_000, 6);
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!((world.core.epoch(), world.core.nodes()), (2, &[1, 2, 3, 4, 5][..]));
    assert_eq!(world.core.leader(0), Some(5));
    assert_eq!(world.core.statistics().topologies, 1);
}

#[test]
fn nodes_are_found_by_name() {
    let mut world = World::new(1, 1, options());
    for node in &mut world.cluster.topology.nodes {
        node.addresses.iter_mut().for_each(|address| *address = address.replace(':', ".example:"));
    }
    world.cluster.leaders = vec![3];
    world.put(1, "a");
    world.run(100_000, 6);
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!(world.core.leader(0), Some(3));
}

#[test]
fn the_welcome_of_a_reconnection_is_enough() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    world.change_nodes(&[1, 2, 3, 4]);
    world.cut(1);
    world.put(1, "a");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], put_done(true));
    assert_eq!(world.core.epoch(), 2);
    let connects = world.core.statistics().connects;
    assert!(connects <= 3, "no connection was made for the topology alone: {connects}");
}

#[test]
fn a_node_that_is_reached_where_it_was_and_told_to_be_elsewhere() {
    for connections in 1..=2 {
        let mut world = connected(Options { connections, ..options() });
        world.cluster.topology.epoch += 1;
        // To this world the last number of an address is the node.
        world.cluster.topology.nodes[0].addresses[0] = String::from("10.0.9.1:7000");
        world.cut(1);
        world.put(1, "a");
        world.run(1_000_000, 6);
        assert_eq!(*world.results()[&1], put_done(false));
        assert_eq!(world.core.epoch(), 2);
        world.cut(1);
        world.put(2, "a");
        world.run(1_000_000, 7);
        assert_eq!(*world.results()[&2], put_done(true));
    }
}

#[test]
fn a_caller_that_only_listens_hears_of_nodes_by_looking() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    world.change_nodes(&[2, 3, 4]);
    let connects = world.core.statistics().connects;
    world.core.look(10_000_000, world.now_us);
    world.run(1_000_000, usize::MAX);
    assert_eq!((world.core.epoch(), world.core.statistics().connects), (1, connects), "a node told it just now");
    world.now_us += 10_000_000;
    world.core.look(10_000_000, world.now_us);
    world.run(1_000_000, usize::MAX);
    assert_eq!((world.core.epoch(), world.core.nodes()), (2, &[2, 3, 4][..]));
}

#[test]
fn connections_to_nodes_that_left_are_closed() {
    let mut world = connected(options());
    // They left and have not noticed.
    world.change_nodes(&[1, 2, 3, 4]);
    world.cluster.topology.nodes.retain(|info| info.node != 3);
    world.cluster.leaders = vec![4];
    world.put(1, "a");
    world.run(1_000_000, 6);
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!(world.core.nodes(), [1, 2, 4]);
    assert!(!world.connected().contains(&3), "{:?}", world.connected());
    let asked = world.cluster.received.len();
    for tag in 10..30 {
        stale_get(&mut world, tag);
    }
    assert!(world.cluster.received[asked..].iter().all(|received| received.node != 3));
}

/// A request is in flight to node 1, silent, when the client learns that it left.
fn in_flight_at_a_node_that_leaves(options: Options) -> World {
    let mut world = connected(options);
    world.silent.insert(1);
    world.put(1, "a");
    world.get(2, "warm");
    world.settle();
    world.cluster.leaders = vec![2];
    world.cluster.topology.epoch += 1;
    world.cluster.topology.nodes.retain(|info| info.node != 1);
    // Whatever makes it reconnect.
    world.cut(3);
    world.run(10_000, 100);
    for tag in 3..=5 {
        stale_get(&mut world, tag);
    }
    world.run(1_000_000, 10);
    assert!(!world.connected().contains(&1));
    assert_eq!(world.core.nodes(), [2, 3]);
    assert_eq!(*world.results()[&2], Ok(vec![OperationResult::Value(Some(b"value-900".to_vec()))]));
    world
}

#[test]
fn requests_to_a_node_that_left_are_sent_again_in_a_session() {
    let world = in_flight_at_a_node_that_leaves(options());
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!(world.cluster.applied[&b"value-1"[..].to_vec()], 1);
    assert!(world.now_us < 500_000, "nobody waited for node 1: {}", world.now_us);
}

#[test]
fn a_write_to_a_node_that_left_is_unknown_without_a_session() {
    let world = in_flight_at_a_node_that_leaves(Options { sessions: false, ..options() });
    assert_eq!(*world.results()[&1], Err(ClientError::OutcomeUnknown));
    assert!(!world.cluster.applied.contains_key(&b"value-1"[..]), "it was not sent again");
}

#[test]
fn all_nodes_are_replaced_one_by_one() {
    for tells_leaders in [true, false] {
        let mut world = World::new(4, 2, options());
        world.cluster.tells_leaders = tells_leaders;
        let mut nodes = vec![1, 2, 3];
        for round in 0..9_u64 {
            let (joins, leaves) = (4 + round, 1 + round);
            nodes.push(joins);
            world.change_nodes(&nodes);
            for (group, leader) in world.cluster.leaders.iter_mut().enumerate() {
                *leader = nodes[1 + (group + round as usize) % 3];
            }
            for tag in 0..20 {
                world.put(round * 100 + tag, &format!("key-{tag}"));
            }
            world.settle();
            nodes.retain(|node| *node != leaves);
            world.change_nodes(&nodes);
            for tag in 20..40 {
                world.put(round * 100 + tag, &format!("key-{tag}"));
            }
            world.run(2_000_000, (round as usize + 1) * 40);
        }
        let results = world.results();
        assert_eq!(results.len(), 9 * 40);
        assert!(results.values().all(|result| result.is_ok()), "{results:?}");
        assert!(world.cluster.applied.values().all(|&times| times == 1));
        assert!(world.core.nodes().iter().all(|node| *node >= 8), "{:?}", world.core.nodes());
    }
}

#[test]
fn an_epoch_of_before_is_ignored() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    let before = world.cluster.topology.clone();
    world.change_nodes(&[1, 2, 4]);
    world.cluster.behind.insert(2, before);
    world.cluster.leaders = vec![4];
    world.put(1, "a");
    world.run(1_000_000, 2);
    assert_eq!((world.core.epoch(), world.core.nodes()), (2, &[1, 2, 4][..]));
    // Node 2 welcomes it with the nodes of before.
    world.cluster.leaders = vec![2];
    world.put(2, "a");
    world.run(1_000_000, 3);
    assert_eq!(*world.results()[&2], put_done(true));
    assert!(world.connected().contains(&2));
    assert_eq!((world.core.epoch(), world.core.nodes()), (2, &[1, 2, 4][..]));
}

#[test]
fn a_leader_that_cannot_be_reached_for_long_may_have_left() {
    let mut world = connected(options());
    let names_node_1 = || Verdict::Answer(Outcome::NotLeader { group: 0, leader: Some(1) });
    world.cluster.script = (0..30).map(|_| names_node_1()).collect();
    world.change_nodes(&[2, 3, 4]);
    world.cluster.leaders = vec![4];
    world.put(1, "a");
    world.run(4_000_000, 6);
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!((world.core.epoch(), world.core.nodes()), (2, &[2, 3, 4][..]));
}

#[test]
fn a_leader_nobody_knows_is_not_looked_for_in_a_tight_loop() {
    let mut world = connected(options());
    let stranger = || Verdict::Answer(Outcome::NotLeader { group: 0, leader: Some(9) });
    world.cluster.script = (0..1_000).map(|_| stranger()).collect();
    world.put(1, "a");
    let (before, asked) = (world.core.statistics().connects, world.cluster.received.len());
    world.run(1_000_000, 6);
    let (connects, asked) = (world.core.statistics().connects - before, world.cluster.received.len() - asked);
    assert!((4..60).contains(&connects) && (8..60).contains(&asked), "{connects} connects, {asked} questions");
    assert_eq!(world.connected(), BTreeSet::from([1, 2, 3]));
    assert!(world.sockets.len() <= 4, "connections for the topology alone are closed: {}", world.sockets.len());
}

#[test]
fn a_topology_of_another_shape_is_not_followed() {
    let mut world = World::new(2, 1, options());
    world.put(0, "a");
    world.settle();
    world.cluster.topology.epoch += 1;
    world.cluster.topology.groups = 3;
    world.cut(1);
    world.get(1, "a");
    world.run(100_000, 2);
    assert_eq!((world.core.epoch(), world.core.groups()), (1, 2));
    assert!(world.core.problem().unwrap().contains("does not follow"), "{:?}", world.core.problem());
}

#[test]
fn the_status_of_a_node_that_left_is_refused() {
    let mut world = connected(options());
    world.down.insert(3);
    world.cut(3);
    world.core.submit_status(1, 3, 0, world.now_us).unwrap();
    world.run(50_000, 6);
    assert_eq!(world.ended.len(), 5, "it may come back");
    world.change_nodes(&[1, 2]);
    world.cut(1);
    world.get(2, "warm");
    world.run(1_000_000, 7);
    assert!(matches!(world.results()[&1], Err(ClientError::BadRequest { .. })), "{:?}", world.ended);
}

#[test]
fn a_question_for_a_node_that_nobody_named_makes_the_client_look() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    world.change_nodes(&[1, 2, 3, 4]);
    assert!(world.core.submit_status(1, 4, 0, world.now_us).is_err(), "it does not know the node yet");
    world.settle();
    world.core.submit_status(2, 4, 0, world.now_us).unwrap();
    world.settle();
    assert_eq!(world.statuses.len(), 1);
}
