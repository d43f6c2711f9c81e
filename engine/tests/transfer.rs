//! Leadership is handed over: by a node that stops, one whose disk is full or stands still, and when an operator asks.
//!
//! Off the data path; tests only.

mod cluster;

use std::sync::Arc;

use cluster::{Cluster, GROUPS, get, group_of, put, value};
use ringraft_engine::shard::board::NodeBoard;
use ringraft_net::wire::{AdminRefusal, AdminReply, AdminRequest, Outcome, TransferWish};
use ringraft_raft::NodeId;

/// A cluster where "a" is written, its group, and that group's leader.
fn written() -> (Cluster, u32, u64) {
    let mut cluster = Cluster::new(3);
    let group = group_of("a");
    let leader = cluster.leader(group);
    cluster.ask(leader, &put("a", "1")).expect("acknowledged");
    (cluster, group, leader)
}

/// Asks for a transfer; the answer if it came without a tick.
fn transfer(cluster: &mut Cluster, node: u64, group: u32, to: u64) -> Option<AdminReply> {
    let correlation = cluster.administrate(node, &AdminRequest::Transfer { group, to });
    cluster.settle();
    cluster.admin_replies.remove(&correlation)
}

fn refusal(reply: Option<AdminReply>) -> AdminRefusal {
    match reply {
        Some(AdminReply::Refused { code, message }) => {
            assert!(message.contains("group") || message.contains("node"), "{message}");
            code
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_leader_that_is_stopped_hands_over_at_once() {
    let (mut cluster, group, leader) = written();
    let term = cluster.status(leader, group).term;
    cluster.nodes[leader as usize - 1].shard.begin_stop();
    cluster.settle();
    assert_eq!(cluster.status(leader, group).role, "follower", "without a single tick");
    assert!(cluster.nodes[leader as usize - 1].shard.is_drained());
    let next = cluster.status(leader, group).leader.expect("it knows who leads now");
    assert_ne!(next, leader);
    assert_eq!(cluster.status(next, group).term, term + 1);
    assert_eq!(cluster.ask(next, &get("a")), value("1"));
    let told = cluster.ask(leader, &put("a", "2"));
    assert_eq!(told, Some(Outcome::NotLeader { group, leader: Some(next) }), "the client goes on there");
}

#[test]
fn a_leader_that_reaches_nobody_stops_as_before() {
    let (mut cluster, group, leader) = written();
    for other in (1..=3).filter(|other| *other != leader) {
        cluster.nodes[leader as usize - 1].shard.peer_disconnected(NodeId(other));
    }
    cluster.nodes[leader as usize - 1].shard.begin_stop();
    assert!(cluster.nodes[leader as usize - 1].shard.is_drained(), "it waits for nothing");
    assert_eq!(cluster.status(leader, group).role, "leader");
    assert!(matches!(cluster.ask(leader, &put("a", "2")), Some(Outcome::Unavailable { .. })));
}

#[test]
fn nodes_that_stop_together_do_not_hand_leadership_around() {
    let (mut cluster, group, leader) = written();
    let term = cluster.status(leader, group).term;
    (0..3).for_each(|place| cluster.nodes[place].shard.begin_stop());
    cluster.settle();
    assert_eq!(cluster.status(leader, group).term, term, "nobody took over");
    assert!(!cluster.nodes[leader as usize - 1].shard.is_drained(), "it waits for an election timeout at most");
    cluster.tick(20);
    assert!(cluster.nodes[leader as usize - 1].shard.is_drained());
}

#[test]
fn an_operator_moves_leadership_where_it_is_wanted() {
    let (mut cluster, group, leader) = written();
    let term = cluster.status(leader, group).term;
    let to = leader % 3 + 1;
    let done = transfer(&mut cluster, leader, group, to);
    assert_eq!(done, Some(AdminReply::Transferred { group, leader: to, term: term + 1 }));
    assert_eq!(cluster.ask(to, &get("a")), value("1"));
    let again = transfer(&mut cluster, to, group, to);
    assert_eq!(again, Some(AdminReply::Transferred { group, leader: to, term: term + 1 }), "it leads already");
    let elsewhere = transfer(&mut cluster, leader, group, leader);
    assert_eq!(elsewhere, Some(AdminReply::NotLeader { group, leader: Some(to) }));
    let Some(AdminReply::Transferred { leader: next, .. }) = transfer(&mut cluster, to, group, 0) else {
        panic!("no target was needed")
    };
    assert_ne!(next, to);
    assert_eq!(cluster.ask(next, &get("a")), value("1"));
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let (mut cluster, group, leader) = written();
    let (to, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    assert_eq!(refusal(transfer(&mut cluster, leader, GROUPS, 0)), AdminRefusal::UnknownGroup);
    assert_eq!(refusal(transfer(&mut cluster, leader, group, 9)), AdminRefusal::UnknownNode);
    cluster.nodes[leader as usize - 1].shard.peer_disconnected(NodeId(to));
    assert_eq!(refusal(transfer(&mut cluster, leader, group, to)), AdminRefusal::Unreachable);
    cluster.nodes[leader as usize - 1].shard.peer_connected(NodeId(to));
    // What goes to the target is lost: it leads on, and what was asked meanwhile is done.
    cluster.cut = vec![(leader, to)];
    let first = cluster.administrate(leader, &AdminRequest::Transfer { group, to });
    cluster.settle();
    assert_eq!(refusal(transfer(&mut cluster, leader, group, other)), AdminRefusal::Pending);
    let write = cluster.send(leader, &put("a", "2"));
    cluster.settle();
    assert!(cluster.replies.is_empty() && cluster.admin_replies.is_empty(), "both wait");
    cluster.tick(21);
    assert_eq!(refusal(cluster.admin_replies.remove(&first)), AdminRefusal::TimedOut);
    assert!(matches!(cluster.replies.remove(&write).map(|reply| reply.outcome), Some(Outcome::Done(_))));
    assert_eq!(cluster.status(leader, group).role, "leader");
}

#[test]
fn an_operator_hears_of_another_leader_than_the_one_asked_for() {
    let (mut cluster, group, leader) = written();
    let (to, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // The target is never told, and while the leader is not heard the third node wins an election.
    cluster.cut = vec![(leader, to), (leader, other)];
    let asked = cluster.administrate(leader, &AdminRequest::Transfer { group, to });
    cluster.settle();
    (0..10).for_each(|_| cluster.nodes[to as usize - 1].shard.tick());
    for _ in 0..20 {
        cluster.nodes[other as usize - 1].shard.tick();
        cluster.settle();
    }
    assert_eq!(cluster.status(other, group).role, "leader");
    assert_eq!(refusal(cluster.admin_replies.remove(&asked)), AdminRefusal::OtherLeader);
}

#[test]
fn a_leader_whose_disk_stands_still_tells_another_to_campaign() {
    let (mut cluster, group, leader) = written();
    let term = cluster.status(leader, group).term;
    let place = leader as usize - 1;
    cluster.nodes[place].flushing = false;
    cluster.send(leader, &put("a", "2"));
    cluster.settle();
    while cluster.status(leader, group).role == "leader" {
        cluster.tick(1);
        assert!(cluster.status(leader, group).term <= term + 1);
    }
    let next = (1..=3).find(|node| cluster.status(*node, group).role == "leader").expect("in the very same tick");
    assert_ne!(next, leader);
    assert_eq!(cluster.status(next, group).term, term + 1, "one election");
    assert_eq!(cluster.ask(next, &get("a")), value("2"), "the others held it");
}

#[test]
fn a_wish_for_a_leader_whose_disk_stands_still_is_not_followed() {
    let (mut cluster, group, leader) = written();
    let (place, still) = (leader as usize - 1, leader % 3 + 1);
    cluster.nodes[still as usize - 1].flushing = false;
    cluster.ask(leader, &put("a", "2")).expect("acknowledged by the others");
    cluster.tick(100);
    let mut board = NodeBoard::new(Arc::clone(cluster.nodes[place].shard.topology()));
    let mut wish = Vec::new();
    TransferWish { group, to: still }.append_frame(&mut wish);
    for round in 0..40 {
        let shard = &mut cluster.nodes[place].shard;
        shard.peer_bytes(NodeId(still), &wish).expect("a good frame");
        (0..2).for_each(|_| shard.exchange(&mut board));
        let told = cluster.ask(leader, &put("a", &round.to_string()));
        assert!(matches!(told, Some(Outcome::Done(_))), "round {round}: {told:?}");
        cluster.tick(1);
    }
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_to_one_with_room() {
    let (mut cluster, group, leader) = written();
    cluster.nodes[leader as usize - 1].shard.disk().files_max = Some(3);
    let large = "x".repeat(50_000);
    let mut number = 0;
    while let Some(Outcome::Done(_)) = cluster.ask(leader, &put("a", &format!("{number}{large}"))) {
        number += 1;
        assert!(number < 1_000, "24 MiB are full some time");
    }
    cluster.tick(2);
    assert_eq!(cluster.status(leader, group).role, "follower");
    let next = cluster.leader(group);
    assert!(matches!(cluster.ask(next, &put("a", "room")), Some(Outcome::Done(_))));
    assert_eq!(cluster.ask(next, &get("a")), value("room"));
}

#[test]
fn full_leaders_do_not_hand_over_to_full_followers() {
    let (mut cluster, group, _) = written();
    for node in &mut cluster.nodes {
        node.shard.disk().files_max = Some(3);
    }
    let large = "x".repeat(50_000);
    let mut terms = Vec::new();
    for _ in 0..60 {
        let leader = cluster.leader(group);
        while let Some(Outcome::Done(_)) = cluster.ask(leader, &put("a", &large)) {}
        cluster.tick(20);
        let leader = cluster.leader(group);
        assert!(matches!(cluster.ask(leader, &get("a")), Some(Outcome::Done(_))), "reads go on");
        terms.push(cluster.status(leader, group).term);
    }
    assert_eq!(terms[20], terms[59], "when no room is left leadership stays where it is: {terms:?}");
}
