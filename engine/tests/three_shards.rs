//! Three production shards over in-memory disks: writes, reads, failover, restart.

mod cluster;

use cluster::{Cluster, GROUPS, get, group_of, put, value};
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::wire::{Consistency, Operation, OperationResult, Outcome, Request};

#[test]
fn writes_are_replicated_and_read_back_from_the_leader_only() {
    let mut cluster = Cluster::new(3);
    for number in 0..50 {
        let key = format!("key-{number}");
        let leader = cluster.leader(group_of(&key));
        let outcome = cluster.ask(leader, &put(&key, &format!("value-{number}")));
        assert_eq!(outcome, Some(Outcome::Done(vec![OperationResult::Put { replaced: false }])));
        assert_eq!(cluster.ask(leader, &get(&key)), value(&format!("value-{number}")));
        let follower = leader % 3 + 1;
        let refused = cluster.ask(follower, &get(&key));
        assert_eq!(refused, Some(Outcome::NotLeader { group: group_of(&key), leader: Some(leader) }));
    }
    cluster.tick(10);
    for group in 0..GROUPS {
        let states: Vec<_> = (1..=3).map(|node| cluster.status(node, group)).collect();
        assert!(states.iter().all(|state| state.last_applied == states[0].last_applied), "{states:?}");
        assert!(states.iter().all(|state| state.state_hash == states[0].state_hash), "{states:?}");
    }
    assert!(cluster.status(1, 0).keys + cluster.status(1, 1).keys == 50);
}

#[test]
fn a_stale_read_is_served_by_a_follower() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.ask(leader, &put("a", "1"));
    cluster.tick(5);
    let stale = Request { consistency: Consistency::Stale, ..get("a") };
    assert_eq!(cluster.ask(leader % 3 + 1, &stale), value("1"));
}

#[test]
fn an_acknowledged_write_survives_the_leader_and_then_the_power_of_all() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.ask(leader, &put("a", "1")).expect("acknowledged");
    cluster.crash(leader);
    let second = cluster.leader(group_of("a"));
    assert_ne!(leader, second);
    assert_eq!(cluster.ask(second, &get("a")), value("1"));
    cluster.ask(second, &put("a", "2")).expect("acknowledged");
    cluster.restart(leader);
    cluster.tick(20);
    (1..=3).for_each(|node| cluster.crash(node));
    (1..=3).for_each(|node| cluster.restart(node));
    let third = cluster.leader(group_of("a"));
    assert_eq!(cluster.ask(third, &get("a")), value("2"));
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_on_a_majority() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.nodes[node as usize - 1].flushing = false;
    }
    let request = put("a", "1");
    assert_eq!(cluster.ask(leader, &request), None, "only the leader's own disk has it");
    let correlation = cluster.correlation;
    cluster.nodes[leader as usize % 3].flushing = true;
    cluster.settle();
    assert!(cluster.replies.contains_key(&correlation), "a majority has it");
}

#[test]
fn a_single_node_answers_after_its_own_flush() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.leader(0);
    cluster.leader(1);
    cluster.nodes[0].flushing = false;
    assert_eq!(cluster.ask(leader, &put("a", "1")), None, "etcd #14370");
    let correlation = cluster.correlation;
    cluster.nodes[0].flushing = true;
    cluster.settle();
    assert!(cluster.replies.contains_key(&correlation));
}

#[test]
fn a_leader_whose_flushes_stop_steps_down() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    cluster.nodes[leader as usize - 1].flushing = false;
    cluster.send(leader, &put("a", "1"));
    cluster.tick(120);
    let other = cluster.leader(group_of("a"));
    assert_ne!(other, leader, "etcd #15247");
    assert!(cluster.ask(other, &put("a", "2")).is_some());
    assert!(cluster.nodes[leader as usize - 1].shard.status().disk_stalled);
    cluster.nodes[leader as usize - 1].flushing = true;
    cluster.tick(60);
    let state = cluster.status(leader, group_of("a"));
    assert_eq!(state.state_hash, cluster.status(other, group_of("a")).state_hash);
}

#[test]
fn a_deposed_leader_serves_no_read() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader(group_of("a"));
    cluster.ask(old, &put("a", "1"));
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    for other in &others {
        cluster.cut.push((old, *other));
        cluster.cut.push((*other, old));
    }
    let read = cluster.send(old, &get("a"));
    cluster.settle();
    assert!(!cluster.replies.contains_key(&read), "no majority confirms it");
    cluster.tick(60);
    let answer = cluster.replies.remove(&read).expect("answered when check-quorum deposed it");
    assert!(matches!(answer.outcome, Outcome::NotLeader { .. }), "{answer:?}");
    let new = others.iter().copied().find(|node| cluster.status(*node, group_of("a")).role == "leader");
    let new = new.expect("the majority has a leader");
    assert!(cluster.ask(new, &put("a", "2")).is_some());
}

#[test]
fn a_follower_that_missed_a_lot_catches_up_from_the_disk_of_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    let slow = leader % 3 + 1;
    cluster.crash(slow);
    let large = "x".repeat(2_000);
    for number in 0..500 {
        assert!(cluster.ask(leader, &put("a", &format!("{number}{large}"))).is_some());
    }
    cluster.restart(slow);
    cluster.tick(60);
    let (state, expected) = (cluster.status(slow, group_of("a")), cluster.status(leader, group_of("a")));
    assert_eq!((state.last_applied, state.state_hash), (expected.last_applied, expected.state_hash));
}

#[test]
fn a_leader_that_can_read_nothing_for_its_followers_steps_down() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(group_of("a"));
    let slow = leader % 3 + 1;
    cluster.crash(slow);
    let large = "x".repeat(2_000);
    for number in 0..200 {
        assert!(cluster.ask(leader, &put("a", &format!("{number}{large}"))).is_some());
    }
    cluster.nodes[leader as usize - 1].flushing = false;
    cluster.restart(slow);
    cluster.tick(120);
    assert!(cluster.nodes[leader as usize - 1].shard.status().disk_stalled, "with nothing to flush");
    assert_ne!(cluster.leader(group_of("a")), leader);
    cluster.nodes[leader as usize - 1].flushing = true;
    cluster.tick(60);
    assert!(!cluster.nodes[leader as usize - 1].shard.status().disk_stalled);
}

#[test]
fn a_retry_of_a_session_is_applied_once() {
    let mut cluster = Cluster::new(3);
    let group = group_of("counter");
    let leader = cluster.leader(group);
    let open = Request { operations: vec![Operation::OpenSession { group }], ..Request::default() };
    let Some(Outcome::Done(results)) = cluster.ask(leader, &open) else { panic!("a session") };
    let OperationResult::Session { client } = results[0] else { panic!("a session") };
    let operations = vec![Operation::CompareAndSet { key: b"counter".to_vec(), expected: None, value: b"1".to_vec() }];
    let request = Request { client, sequence: 1, acknowledged: 1, operations, ..Request::default() };
    let first = cluster.ask(leader, &request).expect("an answer");
    assert_eq!(first, Outcome::Done(vec![OperationResult::Compared { swapped: true, current: None }]));
    assert_eq!(cluster.ask(leader, &request), Some(first.clone()), "the first answer again");
    cluster.crash(leader);
    let second = cluster.leader(group);
    assert_eq!(cluster.ask(second, &request), Some(first), "also from the next leader");
}

/// Index and term of the answer.
fn stand(cluster: &mut Cluster, node: u64, request: &Request) -> (u64, u64) {
    let correlation = cluster.send(node, request);
    cluster.settle();
    let reply = cluster.replies.remove(&correlation).expect("an answer");
    (reply.position.index, reply.term)
}

#[test]
fn replies_tell_the_term_of_their_entry() {
    let mut cluster = Cluster::new(3);
    let group = group_of("a");
    let first = cluster.leader(group);
    let first_term = cluster.status(first, group).term;
    let open = Request { operations: vec![Operation::OpenSession { group }], ..Request::default() };
    let Some(Outcome::Done(results)) = cluster.ask(first, &open) else { panic!("a session") };
    let OperationResult::Session { client } = results[0] else { panic!("a session") };
    let request = Request { client, sequence: 1, acknowledged: 1, ..put("a", "1") };
    let (index, term) = stand(&mut cluster, first, &request);
    assert_eq!(term, first_term);
    cluster.crash(first);
    let second = cluster.leader(group);
    let second_term = cluster.status(second, group).term;
    assert!(second_term > first_term);
    let again = stand(&mut cluster, second, &request);
    assert_eq!(again, (index, first_term), "a repeated request stands where it stood first");
    let (later, term) = stand(&mut cluster, second, &put("a", "2"));
    assert!(later > index && term == second_term);
    assert_eq!(stand(&mut cluster, second, &get("a")), (later, second_term));
    let (other, stale) = (6 - first - second, Request { consistency: Consistency::Stale, ..get("a") });
    cluster.tick(5);
    assert_eq!(stand(&mut cluster, other, &stale), (later, second_term));
    assert_eq!(stand(&mut cluster, other, &get("a")).1, 0, "nothing was read");
}

#[test]
fn a_full_disk_stops_no_node_and_elections_wait_for_room() {
    let mut cluster = Cluster::new(3);
    for node in &mut cluster.nodes {
        node.shard.disk().files_max = Some(3);
    }
    let large = "x".repeat(50_000);
    let (mut number, mut leader) = (0, cluster.leader(group_of("a")));
    while let Some(Outcome::Done(_)) = cluster.ask(leader, &put("a", &format!("{number}{large}"))) {
        number += 1;
        assert!(number < 1_000, "24 MiB are full some time");
    }
    for _ in 0..40 {
        // Elections by the dozen: `settle` asserts that none of them is fatal.
        cluster.crash(leader);
        cluster.tick(100);
        cluster.restart(leader);
        cluster.nodes[leader as usize - 1].shard.disk().files_max = Some(3);
        leader = leader % 3 + 1;
    }
    for node in &mut cluster.nodes {
        node.shard.disk().files_max = None;
    }
    cluster.tick(100);
    let leader = cluster.leader(group_of("a"));
    assert!(matches!(cluster.ask(leader, &put("a", "room again")), Some(Outcome::Done(_))));
    assert_eq!(cluster.ask(leader, &get("a")), value("room again"));
}

#[test]
fn a_sole_voter_with_a_learner_waits_for_room_too() {
    let mut cluster = Cluster::founded(2, 1, ringraft_engine::shard::SnapshotSettings::default());
    for group in [0, 1] {
        cluster.leader(group);
        cluster.retarget(group, &[1], &[2]);
        cluster.settle_members(group);
    }
    cluster.nodes[0].shard.disk().files_max = Some(3);
    let large = "x".repeat(50_000);
    let mut number = 0;
    while let Some(Outcome::Done(_)) = cluster.ask(1, &put("a", &format!("{number}{large}"))) {
        number += 1;
        assert!(number < 1_000, "24 MiB are full some time");
    }
    for _ in 0..20 {
        cluster.crash(1);
        cluster.restart(1);
        cluster.nodes[0].shard.disk().files_max = Some(3);
        cluster.tick(100); // it would be elected by itself, several times: `settle` asserts that this is not fatal
    }
    cluster.nodes[0].shard.disk().files_max = None;
    cluster.tick(100);
    assert_eq!(cluster.leader(group_of("a")), 1);
    assert!(matches!(cluster.ask(1, &put("a", "room again")), Some(Outcome::Done(_))));
}

#[test]
fn bad_requests_are_answered_and_change_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader(0);
    let (mut first, mut second) = (None, None);
    for number in 0..100 {
        let key = format!("k{number}");
        if group_of(&key) == 0 { first = Some(key) } else { second = Some(key) }
    }
    let get = |key: Option<String>| Operation::Get { key: key.expect("both groups have keys").into() };
    let crossing = Request { operations: vec![get(first), get(second)], ..Request::default() };
    assert!(matches!(cluster.ask(leader, &crossing), Some(Outcome::BadRequest { .. })));
    let empty = Request::default();
    assert!(matches!(cluster.ask(leader, &empty), Some(Outcome::BadRequest { .. })));
    let long = put(&"k".repeat(5_000), "v");
    assert!(matches!(cluster.ask(leader, &long), Some(Outcome::BadRequest { .. })));
    let node = &mut cluster.nodes[0];
    let mut garbage = ReceiveBuffer::new();
    garbage.extend(b"garbage");
    assert!(node.shard.client_bytes(node.client, &mut garbage).is_err());
}
