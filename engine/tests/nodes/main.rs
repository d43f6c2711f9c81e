//! Nodes come and go: whole nodes with their boards and controllers, from the first topology to the last.
//!
//! Off the data path. Invariants: see the name of each test; nothing acknowledged is ever lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod town;

use ringraft_engine::shard::SnapshotSettings;
use ringraft_engine::shard::live::{LiveSettings, Reloaded};
use ringraft_engine::topology::{NodeState, Topology};
use ringraft_net::wire::{AdminRefusal, AdminReply, AdminRequest, Operation, Outcome, Request};
use ringraft_raft::NodeId;

use self::town::{GROUPS, Town, add};

/// Three nodes that serve and know where everything is.
fn town(count: u64) -> Town {
    let mut town = Town::new(count);
    (0..GROUPS).for_each(|group| _ = town.leader(group));
    town.write(1);
    town.tick(30);
    town
}

fn grow(town: &mut Town, nodes: &[u64]) {
    for node in nodes {
        town.boot_joining(*node);
        let topology = town.change(&add(*node));
        assert_eq!(topology.node(NodeId(*node)).unwrap().state, NodeState::Joining);
    }
}

fn wait_until_removed(town: &mut Town, node: u64) {
    for _ in 0..3_000 {
        if town.newest().removed().contains(&node) {
            return;
        }
        town.tick(1);
    }
    panic!("node {node} is not removed: {:#?}", town.newest());
}

#[test]
fn two_nodes_join_and_get_their_share_and_one_leaves() {
    let mut town = town(3);
    grow(&mut town, &[4, 5]);
    town.rest();
    let held: Vec<usize> = town.nodes.iter().map(|node| node.held().len()).collect();
    assert_eq!(
        held.iter().sum::<usize>(),
        5 + 3 * (GROUPS as usize - 1),
        "group 0 everywhere, three of each other one"
    );
    assert!(held[3] > 1 && held[4] > 1, "the new nodes hold groups: {held:?}");
    assert!(town.moved_most <= 4, "{} groups were moved at once", town.moved_most);
    town.read_all();

    town.change(&AdminRequest::RemoveNode { node: 1 });
    for round in 0..2_000 {
        if town.node(1).removed {
            break;
        }
        if round % 50 == 0 {
            town.write(round);
        }
        town.tick(1);
    }
    assert!(town.node(1).removed, "it learns that it was removed: {:#?}", town.newest());
    assert!(town.newest().node(NodeId(1)).is_none() && town.newest().removed() == [1]);
    town.rest();
    for group in 0..GROUPS {
        assert_ne!(town.leader(group), 1);
    }
    town.write(2);
    town.read_all();
    let told = town.node(2).shard(0).peer_bytes(NodeId(1), &[]);
    assert!(
        told.unwrap_err().contains("removed"),
        "a link that it still has is closed: it hears why when it dials again"
    );
    // It does not come back, whatever its disk holds.
    town.node(1).removed = false;
    town.start(1);
    town.tick(40);
    assert!(town.node(1).removed);
    town.read_all();
}

#[test]
fn nodes_that_were_removed_while_they_were_away_hear_of_it_though_they_have_each_other() {
    let mut town = town(5);
    for gone in [4, 5] {
        town.crash(gone);
        town.change(&AdminRequest::RemoveNode { node: gone });
        wait_until_removed(&mut town, gone);
    }
    for gone in [4, 5] {
        town.start(gone);
    }
    town.tick(40);
    assert!(town.node(4).removed && town.node(5).removed);
    town.rest();
    town.read_all();
}

#[test]
fn a_leader_that_slept_refuses_no_operator_by_what_it_knew() {
    let mut town = town(3);
    let slept = town.leader(0);
    town.asleep = Some(slept);
    town.tick(60);
    grow(&mut town, &[4]);
    assert!(town.leader(0) != slept && town.node(slept).topology().unwrap().node(NodeId(4)).is_none());
    town.asleep = None;
    // Of node 4 it knows nothing, and it still believes that it leads.
    let answer = town.administrate(slept, 0, &AdminRequest::RemoveNode { node: 4 });
    assert!(matches!(answer, AdminReply::NotLeader { .. }), "{answer:?}");
    town.change(&AdminRequest::RemoveNode { node: 4 });
    // Who leads refuses what is wrong.
    let leader = town.leader(0);
    let answer = town.administrate(leader, 0, &AdminRequest::RemoveNode { node: 9 });
    assert!(matches!(answer, AdminReply::Refused { code: AdminRefusal::NotAllowed, .. }), "{answer:?}");
}

#[test]
fn who_was_away_hears_of_new_nodes_from_those_it_knows() {
    let mut town = town(3);
    town.crash(1);
    grow(&mut town, &[4, 5]);
    for _ in 0..40 {
        town.tick(20);
        if town.newest().nodes().iter().all(|node| node.state == NodeState::Active) {
            break;
        }
    }
    let leader = town.leader(0);
    for _ in 0..20 {
        if town.leader(0) == 4 {
            break;
        }
        let from = town.leader(0);
        town.administrate(from, 0, &AdminRequest::Transfer { group: 0, to: 4 });
        town.tick(5);
    }
    assert_eq!(town.leader(0), 4, "{leader} hands over");
    let epoch = town.newest().epoch();
    town.start(1);
    assert_eq!(town.node(1).topology().unwrap().epoch(), 1, "it knows neither the leader nor the other new node");
    town.tick(60);
    assert!(town.node(1).topology().unwrap().epoch() >= epoch);
    town.rest();
    town.read_all();
}

#[test]
fn who_was_away_while_all_it_knows_were_replaced_is_found_by_the_others() {
    let mut town = town(3);
    town.crash(1);
    for (old, node) in [(2, 4), (3, 5)] {
        town.boot_joining(node);
        let addresses = town::addresses(node);
        town.change(&AdminRequest::ReplaceNode { old, node, addresses, instance: node });
        wait_until_removed(&mut town, old);
    }
    town.start(1);
    assert_eq!(town.node(1).topology().unwrap().epoch(), 1);
    town.tick(60);
    town.rest();
    assert!(town.node(1).topology().unwrap().node(NodeId(5)).is_some());
    town.read_all();
}

#[test]
fn who_founded_a_cluster_alone_and_lost_its_lead_is_found_by_the_others() {
    let mut town = town(1);
    town.boot_joining(2);
    let addresses = town::addresses(2);
    town.change(&AdminRequest::ReplaceNode { old: 1, node: 2, addresses, instance: 2 });
    for _ in 0..400 {
        if town.find_leader(0) == Some(2) {
            break;
        }
        town.tick(1);
    }
    assert_eq!(town.leader(0), 2);
    town.crash(1);
    town.tick(1); // the link breaks
    town.start_with_the_first_topology(1);
    for _ in 0..400 {
        if town.node(1).removed {
            break;
        }
        town.tick(1);
    }
    assert!(town.node(1).removed, "it gave up what it held, and was told: {:#?}", town.newest());
    town.rest();
    town.read_all();
}

#[test]
fn a_node_of_a_higher_priority_leads_whatever_it_can() {
    let mut town = town(3);
    let led_by = |town: &mut Town, id| (0..GROUPS).all(|group| town.find_leader(group) == Some(id));
    assert!(!led_by(&mut town, 3));
    town.crash(3);
    town.node(3).leader_priority = 200;
    town.start(3);
    for _ in 0..400 {
        if led_by(&mut town, 3) {
            break;
        }
        town.tick(1);
    }
    assert!(led_by(&mut town, 3), "{:#?}", town.newest());
    town.crash(3);
    town.tick(100);
    town.write(2);
    town.start(3);
    town.tick(400);
    assert!(led_by(&mut town, 3), "and again when it is back");
    town.rest();
    town.read_all();
}

#[test]
fn a_dead_node_is_replaced_by_a_new_one() {
    let mut town = town(4);
    let before = town.newest().clone();
    town.crash(2);
    town.boot_joining(9);
    let addresses = town::addresses(9);
    town.change(&AdminRequest::ReplaceNode { old: 2, node: 9, addresses, instance: 7 });
    town.rest();
    let after = town.newest().clone();
    assert!(after.node(NodeId(2)).is_none() && after.removed() == [2]);
    for group in (0..GROUPS).map(ringraft_raft::GroupId) {
        let mut expected: Vec<NodeId> =
            before.replicas(group).iter().map(|node| if node.0 == 2 { NodeId(9) } else { *node }).collect();
        expected.sort_unstable();
        assert_eq!(after.replicas(group), expected, "group {group}: only the replaced node's replicas moved");
    }
    town.read_all();
    // The dead one comes back, and is told.
    town.start(2);
    town.tick(40);
    assert!(town.node(2).removed);
}

#[test]
fn the_next_controller_carries_on() {
    let mut town = town(3);
    grow(&mut town, &[4, 5]);
    for round in 0..4 {
        let controller = town.leader(0);
        town.crash(controller);
        town.tick(25 + round);
        town.start(controller);
        town.tick(15);
    }
    town.rest();
    town.read_all();
}

#[test]
fn everything_is_restarted_in_the_middle() {
    let mut town = town(3);
    grow(&mut town, &[4, 5]);
    for round in 0..4 {
        town.tick(17 + 11 * round);
        for node in 1..=5 {
            town.crash(node);
        }
        for node in 1..=5 {
            town.start(node);
        }
        town.write(100 + round);
    }
    town.rest();
    town.read_all();
}

#[test]
fn requests_for_groups_that_are_elsewhere_are_told_whom_to_ask() {
    let mut town = town(5);
    town.tick(100); // leaders are evened out, and all have heard of them
    for group in 1..GROUPS {
        let leader = town.leader(group);
        let stranger = (1..=5).find(|node| !town.node(*node).held().contains(&group)).unwrap();
        let get = Operation::Get { key: Town::key(group, 1) };
        let outcome = town.ask(stranger, group, &Request { operations: vec![get], ..Request::default() });
        assert_eq!(outcome, Some(Outcome::NotLeader { group, leader: Some(leader) }));
    }
}

#[test]
fn the_keys_of_the_cluster_are_its_own() {
    let mut town = town(3);
    let leader = town.leader(0);
    let key = (0..).map(|salt| format!("\0ringraft/{salt}").into_bytes());
    let mut key = key.filter(|key| ringraft_net::slots::group_of_key(key, GROUPS) == 0);
    let key = key.next().unwrap();
    for operation in [
        Operation::Put { key: key.clone(), value: b"x".to_vec() },
        Operation::Delete { key: key.clone() },
        Operation::CompareAndSet { key: key.clone(), expected: None, value: b"x".to_vec() },
    ] {
        let outcome = town.ask(leader, 0, &Request { operations: vec![operation], ..Request::default() });
        assert!(matches!(&outcome, Some(Outcome::BadRequest { message }) if message.contains("own")), "{outcome:?}");
    }
    let get = Request { operations: vec![Operation::Get { key }], ..Request::default() };
    assert!(matches!(town.ask(leader, 0, &get), Some(Outcome::Done(_))));
}

#[test]
fn operators_are_answered() {
    let mut town = town(3);
    let (leader, follower) = (town.leader(0), (1..=3).find(|node| Some(*node) != town.find_leader(0)).unwrap());
    for node in [leader, follower] {
        for shard in 0..town::SHARDS {
            let AdminReply::Topology { text, shared } = town.administrate(node, shard, &AdminRequest::Topology) else {
                panic!("any node and shard answers");
            };
            assert_eq!(&Topology::decode(text.as_bytes()).unwrap(), &**town.newest());
            assert_eq!(shared, [(String::from("groups"), GROUPS.to_string())]);
        }
    }
    let remove = |node| AdminRequest::RemoveNode { node };
    assert_eq!(town.administrate(leader, 1, &remove(1)), AdminReply::Moved { group: 0, shard: 0 });
    let elsewhere = AdminReply::NotLeader { group: 0, leader: Some(leader) };
    assert_eq!(town.administrate(follower, 0, &remove(1)), elsewhere);
    let reply = town.administrate(leader, 0, &remove(77));
    assert!(
        matches!(&reply, AdminReply::Refused { code: AdminRefusal::NotAllowed, message } if message.contains("77"))
    );
    // Asked twice, done once.
    town.boot_joining(4);
    let first = town.change(&add(4));
    assert!(town.change(&add(4)).epoch() >= first.epoch());
    town.rest();
    let mut other = add(4);
    if let AdminRequest::AddNode { instance, .. } = &mut other {
        *instance = 12;
    }
    let leader = town.leader(0);
    let reply = town.administrate(leader, 0, &other);
    assert!(matches!(reply, AdminReply::Refused { code: AdminRefusal::NotAllowed, .. }), "{reply:?}");
}

#[test]
fn new_settings_reach_every_shard_and_who_asked_hears_of_it() {
    let mut town = town(3);
    assert!((0..2).all(|shard| town.node(1).shard(shard).clients().open().is_some()), "four connections are allowed");
    let live = LiveSettings {
        waiting_max: 10_000,
        connections_max: 2,
        reply_bytes_max: 1 << 20,
        disk_stall_ticks: 50,
        digest_ticks: 5,
        catch_up_bytes: 8 << 10,
        snapshots: SnapshotSettings { log_entries: 3, ..SnapshotSettings::default() },
    };
    let (changed, restart) = (vec![(String::from("connections_max"), String::from("2"))], vec![String::from("groups")]);
    town.configuration = (Some(live), Ok(Reloaded { changed: changed.clone(), restart: restart.clone() }));
    assert_eq!(town.administrate(1, 1, &AdminRequest::Reload), AdminReply::Reloaded { changed, restart });
    town.tick(1);
    assert!((0..2).all(|shard| town.node(1).shard(shard).clients().open().is_none()), "on every shard of the node");
    assert!((0..2).all(|shard| town.node(2).shard(shard).clients().open().is_some()), "and on no other node");
    (0..5).for_each(|_| town.write(1));
    town.tick(30);
    let taken = |town: &mut Town, node| {
        (0..2).map(|shard| town.node(node).shard(shard).status().counters.snapshots_taken).sum::<u64>()
    };
    assert!(taken(&mut town, 1) > 0 && taken(&mut town, 2) == 0);
    town.configuration = (None, Err(String::from("tick_ms is wrong")));
    let refused = AdminReply::Refused { code: AdminRefusal::Failed, message: String::from("tick_ms is wrong") };
    assert_eq!(town.administrate(2, 0, &AdminRequest::Reload), refused);
}

#[test]
fn a_snapshot_is_taken_when_asked_for() {
    let mut town = town(3);
    let AdminReply::SnapshotTaken { group: 3, index } = town.administrate(1, 1, &AdminRequest::Snapshot { group: 3 })
    else {
        panic!("a snapshot");
    };
    assert!(index > 0);
    let again = town.administrate(1, 1, &AdminRequest::Snapshot { group: 3 });
    assert_eq!(again, AdminReply::SnapshotTaken { group: 3, index }, "nothing is new");
    town.write(5);
    town.tick(5);
    let reply = town.administrate(1, 1, &AdminRequest::Snapshot { group: 3 });
    assert!(matches!(reply, AdminReply::SnapshotTaken { index: later, .. } if later > index), "{reply:?}");
    let reply = town.administrate(1, 0, &AdminRequest::Snapshot { group: 99 });
    assert!(matches!(reply, AdminReply::Refused { code: AdminRefusal::UnknownGroup, .. }));
    let (from, to) = (town.leader(2), (1..=3).find(|node| Some(*node) != town.find_leader(2)).unwrap());
    let reply = town.administrate(from, 0, &AdminRequest::Transfer { group: 2, to });
    assert!(matches!(reply, AdminReply::Transferred { group: 2, leader, .. } if leader == to), "{reply:?}");
}
