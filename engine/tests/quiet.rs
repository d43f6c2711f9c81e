//! Many groups that nobody uses: what they say to each other, and that they wake when they must.
//!
//! Off the data path; tests only.

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, get, put, value};
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, Heartbeat, HeartbeatsRef, Outcome};
use ringraft_raft::{NodeId, Role};

const GROUPS: u32 = 40;

/// A cluster whose groups all have leaders and have come to rest.
fn idle() -> Cluster {
    let mut cluster = Cluster::with_groups(3, GROUPS);
    for group in 0..GROUPS {
        cluster.leader(group);
    }
    cluster.tick(30);
    cluster
}

/// The groups a node leads.
fn led(cluster: &Cluster, node: u64) -> Vec<u32> {
    let views = cluster.nodes[node as usize - 1].shard.group_views();
    views.filter(|view| view.role == Role::Leader).map(|view| view.group).collect()
}

/// What a node says to a peer in the turn that ends now, by kind.
fn said(cluster: &mut Cluster, node: u64, to: u64) -> BTreeMap<u8, Vec<Vec<u32>>> {
    let shard = &mut cluster.nodes[node as usize - 1].shard;
    let mut found: BTreeMap<u8, Vec<Vec<u32>>> = BTreeMap::new();
    let Some(bytes) = shard.peers().take_outgoing(NodeId(to)) else { return found };
    let mut left = &bytes[..];
    while let Some(parsed) = frame::parse(left, &Limits::PEER).expect("frames") {
        let groups = match parsed.kind {
            FrameKind::Heartbeats => {
                let view = wire::view_heartbeats(parsed.head).expect("heartbeats");
                view.heartbeats().map(|heartbeat| heartbeat.group).collect()
            }
            _ => Vec::new(),
        };
        found.entry(parsed.kind as u8).or_default().push(groups);
        left = &left[parsed.total_bytes..];
    }
    shard.peers().give_back(NodeId(to), bytes);
    found
}

#[test]
fn heartbeats_of_all_groups_travel_in_one_frame() {
    let mut cluster = idle();
    for node in 1..=3 {
        let peers: Vec<u64> = (1..=3).filter(|peer| *peer != node).collect();
        let mut heard: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for _ in 0..2 {
            cluster.nodes[node as usize - 1].shard.tick();
            cluster.nodes[node as usize - 1].shard.turn();
            for peer in &peers {
                let mut frames = said(&mut cluster, node, *peer);
                let heartbeats = frames.remove(&(FrameKind::Heartbeats as u8)).unwrap_or_default();
                assert!(heartbeats.len() <= 1, "one frame for each tick: {heartbeats:?}");
                assert!(frames.is_empty(), "idle groups say nothing else: {frames:?}");
                heard.entry(*peer).or_default().extend(heartbeats.into_iter().flatten());
            }
        }
        let expected = led(&cluster, node);
        assert!(!expected.is_empty(), "first leaders are spread");
        for (peer, mut groups) in heard {
            groups.sort_unstable();
            assert_eq!(groups, expected, "each group once in two ticks, to node {peer}");
        }
    }
}

#[test]
fn a_read_waits_for_no_tick() {
    let mut cluster = idle();
    let group = ringraft_net::slots::group_of_key(b"a", GROUPS);
    let leader = cluster.leader(group);
    assert!(matches!(cluster.ask(leader, &put("a", "1")), Some(Outcome::Done(_))));
    cluster.tick(30);
    assert_eq!(cluster.ask(leader, &get("a")), value("1"));
}

#[test]
fn sleeping_groups_elect_when_their_leader_is_gone() {
    let mut cluster = idle();
    let orphans = led(&cluster, 1);
    let before: Vec<u64> = orphans.iter().map(|group| cluster.status(2, *group).term).collect();
    cluster.crash(1);
    cluster.tick(9);
    for (group, term) in orphans.iter().zip(&before) {
        assert_eq!(cluster.status(2, *group).term, *term, "nobody campaigns before an election timeout is over");
    }
    cluster.tick(60);
    for group in orphans {
        assert!(cluster.find_leader(group).is_some_and(|leader| leader != 1), "group {group} has another leader");
    }
    cluster.restart(1);
    cluster.tick(30);
    for group in 0..GROUPS {
        assert!(cluster.status(1, group).leader.is_some(), "node 1 is back in group {group}");
    }
}

#[test]
fn a_leader_that_hears_nobody_gives_up_although_it_is_idle() {
    let mut cluster = idle();
    assert!(!led(&cluster, 1).is_empty());
    cluster.cut = vec![(2, 1), (3, 1)];
    cluster.tick(25);
    assert_eq!(led(&cluster, 1), [0_u32; 0], "a quorum was not heard for an election timeout");
}

#[test]
fn heartbeats_of_groups_that_are_not_here_change_nothing() {
    let mut cluster = idle();
    let shard = &mut cluster.nodes[0].shard;
    let framed = |group| {
        let mut bytes = Vec::new();
        let groups = [Heartbeat { group, term: 1, leader_commit: 0, read_sequence: 0 }];
        HeartbeatsRef { sent_us: 1, groups: &groups }.append_frame(&mut bytes);
        bytes
    };
    let before = shard.status().counters.frames_without_replica;
    assert!(shard.peer_bytes(NodeId(2), &framed(GROUPS)).is_err(), "there is no such group");
    let proof = shard.membership(7).expect("a replica").committed;
    let last = proof.index + 1_000;
    cluster.crash(2);
    cluster.crash(3);
    cluster.tick(60);
    let shard = &mut cluster.nodes[0].shard;
    shard.drop_replica(7, ringraft_raft::EntryId { term: 1_000, index: last }).expect("nobody leads it");
    assert!(shard.peer_bytes(NodeId(2), &framed(7)).is_ok(), "members change");
    assert_eq!(shard.status().counters.frames_without_replica, before + 1);
}
