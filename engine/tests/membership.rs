//! Members of a group that change in a cluster of in-memory disks: growing, shrinking, replacing, interrupted anywhere.
//!
//! Off the data path.

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, get, group_of, put, value};
use ringraft_engine::shard::replicas::ReplicaError;
use ringraft_engine::shard::restore::RestoreError;
use ringraft_engine::shard::{ConfigurationError, Shard, SnapshotSettings};
use ringraft_engine::snapshot::ChunkBytes;
use ringraft_net::wire::{self, AdminRequest, OperationResult, Outcome, PeerBody, PeerMessage};
use ringraft_raft::{EntryId, NodeId};
use ringraft_wal::mem::MemDisk;
use ringraft_wal::{Wal, record};

/// A snapshot every few dozen entries.
fn eager() -> SnapshotSettings {
    SnapshotSettings {
        identity: 7,
        log_bytes: 8 << 10,
        state_percent: 0,
        log_entries: 40,
        chunk_bytes: ChunkBytes::new(4096).expect("a block"),
        segments_max: 1,
        patience_ticks: 20,
        ..SnapshotSettings::default()
    }
}

/// The group under test.
fn group() -> u32 {
    group_of("{k}")
}

fn key(number: u32) -> String {
    format!("{{k}}{number}")
}

/// Writes each key once, acknowledged.
fn write(cluster: &mut Cluster, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let leader = cluster.leader(group());
        let correlation = cluster.send(leader, &put(&key(number), &format!("{number:0100}")));
        cluster.settle();
        if number.is_multiple_of(7) {
            cluster.tick(1);
        }
        let answer = cluster.replies.remove(&correlation).map(|reply| reply.outcome);
        let done =
            matches!(&answer, Some(Outcome::Done(results)) if matches!(results[..], [OperationResult::Put { .. }]));
        assert!(done, "put {number}: {answer:?}");
    }
}

/// Every key is there, and the replicas are the same.
fn check(cluster: &mut Cluster, numbers: std::ops::Range<u32>) {
    let leader = cluster.leader(group());
    let asked: Vec<_> = numbers.map(|number| (number, cluster.send(leader, &get(&key(number))))).collect();
    cluster.tick(4);
    for (number, correlation) in asked {
        let answer = cluster.replies.remove(&correlation).map(|reply| reply.outcome);
        assert_eq!(answer, value(&format!("{number:0100}")), "key {number}");
    }
    cluster.tick(20);
    let up = cluster.nodes.iter().filter(|node| node.up);
    let views: Vec<_> = up.flat_map(|node| node.shard.group_views().filter(|view| view.group == group())).collect();
    for view in &views {
        assert_eq!((view.last_applied, view.state_hash), (views[0].last_applied, views[0].state_hash), "{views:#?}");
    }
}

fn holders(cluster: &Cluster) -> Vec<u64> {
    let holds = |place: &usize| cluster.nodes[*place].shard.replicas().any(|held| held == group());
    (0..cluster.nodes.len()).filter(holds).map(|place| place as u64 + 1).collect()
}

fn isolate(cluster: &mut Cluster, side: &[u64]) {
    let count = cluster.nodes.len() as u64;
    for from in 1..=count {
        let others = (1..=count).filter(|to| side.contains(&from) != side.contains(to));
        cluster.cut.extend(others.map(|to| (from, to)));
    }
}

/// Makes `node` lead the group.
fn elect(cluster: &mut Cluster, node: u64) {
    for _ in 0..200 {
        let leader = cluster.leader(group());
        if leader == node {
            return;
        }
        cluster.administrate(leader, &AdminRequest::Transfer { group: group(), to: node });
        cluster.tick(3);
    }
    panic!("node {node} does not come to lead");
}

#[test]
fn a_group_grows_from_one_to_three_to_five_while_it_is_written_to() {
    let mut cluster = Cluster::founded(5, 1, SnapshotSettings::default());
    write(&mut cluster, 0..50);
    assert_eq!(holders(&cluster), [1]);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    write(&mut cluster, 50..80);
    cluster.settle_members(group());
    assert_eq!(holders(&cluster), [1, 2, 3]);
    check(&mut cluster, 0..80);
    cluster.retarget(group(), &[1, 2, 3, 4, 5], &[]);
    cluster.settle_members(group());
    write(&mut cluster, 80..100);
    for gone in [1, 2] {
        cluster.crash(gone); // two of five may go
    }
    write(&mut cluster, 100..120);
    check(&mut cluster, 0..120);
}

#[test]
fn a_group_shrinks_from_five_to_three_to_one_and_nothing_is_left_behind() {
    let mut cluster = Cluster::with(5, eager());
    write(&mut cluster, 0..150);
    cluster.retarget(group(), &[2, 3, 4], &[]);
    cluster.settle_members(group());
    assert_eq!(holders(&cluster), [2, 3, 4]);
    write(&mut cluster, 150..200);
    cluster.retarget(group(), &[3], &[]);
    cluster.settle_members(group());
    cluster.tick(10);
    assert_eq!(holders(&cluster), [3]);
    for node in [1, 2, 4, 5] {
        let left =
            cluster.nodes[node as usize - 1].shard.disk().snapshots().keys().filter(|name| name.group == group());
        assert_eq!(left.count(), 0, "node {node} has snapshots of the group");
        cluster.crash(node);
        cluster.restart(node);
    }
    assert_eq!(holders(&cluster), [3], "what was given up does not come back with a restart");
    write(&mut cluster, 200..220);
    check(&mut cluster, 0..220);
}

#[test]
fn a_dead_member_is_replaced() {
    let mut cluster = Cluster::founded(4, 3, SnapshotSettings::default());
    write(&mut cluster, 0..30);
    elect(&mut cluster, 1);
    cluster.crash(3);
    cluster.retarget(group(), &[1, 2, 4], &[]);
    cluster.settle_members(group());
    write(&mut cluster, 30..60);
    cluster.crash(2);
    write(&mut cluster, 60..70);
    check(&mut cluster, 0..70);
    // It comes back, hears that it is out, and gives its replica up.
    cluster.restart(3);
    cluster.restart(2);
    cluster.settle_members(group());
    assert_eq!(holders(&cluster), [1, 2, 4]);
    check(&mut cluster, 0..70);
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let mut cluster = Cluster::founded(4, 3, SnapshotSettings::default());
    write(&mut cluster, 0..30);
    elect(&mut cluster, 1);
    let term = cluster.status(1, group()).term;
    cluster.retarget(group(), &[2, 3, 4], &[]);
    cluster.settle_members(group());
    let leader = cluster.leader(group());
    assert_eq!((holders(&cluster), cluster.status(leader, group()).term), (vec![2, 3, 4], term + 1), "one election");
    write(&mut cluster, 30..60);
    check(&mut cluster, 0..60);
}

#[test]
fn a_group_moves_to_other_nodes_altogether() {
    let mut cluster = Cluster::founded(5, 2, SnapshotSettings::default());
    write(&mut cluster, 0..30);
    cluster.retarget(group(), &[3, 4, 5], &[]);
    cluster.settle_members(group());
    assert_eq!(holders(&cluster), [3, 4, 5]);
    write(&mut cluster, 30..60);
    check(&mut cluster, 0..60);
}

#[test]
fn learners_have_the_data_and_no_say_and_voters_become_learners() {
    let mut cluster = Cluster::founded(5, 3, SnapshotSettings::default());
    cluster.retarget(group(), &[1, 2, 3], &[4, 5]);
    cluster.settle_members(group());
    write(&mut cluster, 0..30);
    check(&mut cluster, 0..30);
    elect(&mut cluster, 1);
    cluster.retarget(group(), &[1, 2, 4], &[3]);
    cluster.settle_members(group());
    assert_eq!(holders(&cluster), [1, 2, 3, 4]);
    let leader = cluster.leader(group());
    let status = cluster.status(leader, group());
    assert_eq!((status.voters, status.outgoing, status.learners), (vec![1, 2, 4], vec![], vec![3]));
    assert_eq!(status.followers.len(), 3, "learners are followed as well");
    check(&mut cluster, 0..30);
    isolate(&mut cluster, &[leader, 3]);
    let correlation = cluster.send(leader, &put(&key(99), "x"));
    cluster.tick(60);
    let answer = cluster.replies.remove(&correlation).map(|reply| reply.outcome);
    assert!(!matches!(answer, Some(Outcome::Done(_))), "a learner is no majority: {answer:?}");
}

#[test]
fn a_change_is_carried_on_after_a_crash_of_its_leader_at_any_step() {
    for crash_at in 0..14 {
        let mut cluster = Cluster::founded(5, 3, SnapshotSettings::default());
        write(&mut cluster, 0..20);
        let leader = cluster.leader(group());
        cluster.retarget(group(), &[3, 4, 5], &[]);
        // Half a turn at a time: the leader may go in the middle of anything.
        for step in 0..crash_at {
            (0..5).for_each(|place| cluster.nodes[place].flushing = step % 2 == 0 || place % 2 == 0);
            cluster.tick(1);
        }
        cluster.nodes.iter_mut().for_each(|node| node.flushing = true);
        let gone = cluster.find_leader(group()).unwrap_or(leader);
        cluster.crash(gone);
        cluster.tick(60);
        cluster.restart(gone);
        cluster.settle_members(group());
        write(&mut cluster, 20..30);
        check(&mut cluster, 0..30);
    }
}

#[test]
fn a_configuration_that_was_never_committed_goes_with_its_deposed_leader() {
    let mut cluster = Cluster::founded(5, 3, SnapshotSettings::default());
    write(&mut cluster, 0..20);
    elect(&mut cluster, 1);
    cluster.retarget(group(), &[1, 4, 5], &[]);
    for _ in 0..50 {
        let caught_up =
            cluster.status(1, group()).learners == [4, 5] && cluster.status(1, group()).followers.len() == 4;
        if caught_up {
            break;
        }
        cluster.tick(1);
    }
    isolate(&mut cluster, &[1, 4, 5]);
    for _ in 0..10 {
        cluster.tick(1);
        if cluster.status(1, group()).change == "committing" {
            break;
        }
    }
    let status = cluster.status(1, group());
    assert_eq!((&status.voters[..], &status.outgoing[..]), (&[1, 4, 5][..], &[1, 2, 3][..]), "a joint configuration");
    assert!(status.commit_index < status.membership_index, "which the old voters do not know");
    cluster.tick(60); // neither side alone is a majority of both
    assert_eq!(cluster.status(4, group()).outgoing, [1, 2, 3]);
    let other = cluster.leader(group());
    assert!([2, 3].contains(&other), "the old voters still are a majority of their own");
    cluster.retarget(group(), &[1, 2, 3], &[4, 5]);
    cluster.tick(1);
    cluster.cut.clear();
    write(&mut cluster, 20..30);
    cluster.tick(30);
    for node in [1, 2, 3, 4, 5] {
        let status = cluster.status(node, group());
        let members = (&status.voters[..], &status.outgoing[..], &status.learners[..]);
        assert_eq!(members, (&[1, 2, 3][..], &[][..], &[4, 5][..]), "node {node} forgot it");
    }
    cluster.retarget(group(), &[1, 4, 5], &[]);
    cluster.settle_members(group());
    check(&mut cluster, 0..30);
}

#[test]
fn a_partition_in_the_middle_of_a_joint_configuration_heals() {
    for side in [&[1_u64, 2][..], &[1, 4], &[2, 3, 4], &[1, 4, 5], &[5]] {
        let mut cluster = Cluster::founded(5, 3, SnapshotSettings::default());
        write(&mut cluster, 0..20);
        elect(&mut cluster, 1);
        cluster.retarget(group(), &[1, 4, 5], &[]);
        // Old voters do not flush: the joint configuration is proposed and stays.
        for _ in 0..30 {
            if cluster.status(1, group()).outgoing.is_empty() {
                let learning = cluster.status(1, group()).learners == [4, 5];
                [1, 2].iter().for_each(|place| cluster.nodes[*place].flushing = !learning);
                cluster.tick(1);
            }
        }
        assert_eq!(cluster.status(1, group()).outgoing, [1, 2, 3]);
        isolate(&mut cluster, side);
        cluster.nodes.iter_mut().for_each(|node| node.flushing = true);
        cluster.tick(80);
        cluster.cut.clear();
        cluster.settle_members(group());
        write(&mut cluster, 20..30);
        check(&mut cluster, 0..30);
    }
}

#[test]
fn restarts_know_the_members_from_the_snapshot_and_from_the_log() {
    let mut cluster = Cluster::founded(4, 1, eager());
    write(&mut cluster, 0..20);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    cluster.settle_members(group());
    for round in 0..2 {
        if round == 1 {
            write(&mut cluster, 20..220);
        }
        for node in 1..=4 {
            cluster.crash(node);
            cluster.restart(node);
        }
        assert_eq!(holders(&cluster), [1, 2, 3]);
        for node in 1..=3 {
            let status = cluster.status(node, group());
            assert_eq!((&status.voters[..], status.learners.len()), (&[1, 2, 3][..], 0), "node {node}");
            let in_snapshot = round == 1;
            assert_eq!(status.membership_index == 0, in_snapshot, "node {node} has it from its snapshot or log");
        }
        cluster.settle_members(group());
    }
    check(&mut cluster, 0..220);
}

#[test]
fn a_new_replica_begins_with_a_snapshot_if_the_log_has_lost_its_front() {
    let mut cluster = Cluster::founded(3, 1, eager());
    write(&mut cluster, 0..200);
    assert!(cluster.status(1, group()).first_index > 100);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    cluster.settle_members(group());
    assert!(cluster.nodes[1].shard.status().counters.snapshots_installed > 0);
    cluster.crash(1);
    write(&mut cluster, 200..220);
    cluster.crash(2);
    cluster.restart(2);
    check(&mut cluster, 0..220);
}

#[test]
fn a_replica_that_was_given_up_comes_back_as_a_new_one() {
    for restart in [false, true] {
        let mut cluster = Cluster::with(4, eager());
        write(&mut cluster, 0..60);
        cluster.retarget(group(), &[1, 2, 3], &[]);
        cluster.settle_members(group());
        let before = cluster.nodes[3].shard.status().counters.replicas_dropped;
        assert_eq!(before, 1);
        write(&mut cluster, 60..80);
        if restart {
            cluster.crash(4);
            cluster.restart(4);
            cluster.tick(5);
        }
        cluster.retarget(group(), &[1, 2, 4], &[]);
        cluster.settle_members(group());
        write(&mut cluster, 80..90);
        cluster.crash(4);
        cluster.restart(4);
        cluster.crash(1);
        write(&mut cluster, 90..100);
        check(&mut cluster, 0..100);
    }
}

#[test]
fn a_crash_before_the_replica_is_given_up_for_good_leaves_it_whole() {
    let mut cluster = Cluster::with(4, eager());
    write(&mut cluster, 0..60);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    for _ in 0..200 {
        cluster.nodes[3].flushing = false; // what node 4 decides from here on does not reach its disk
        cluster.tick(1);
        if !holders(&cluster).contains(&4) {
            break;
        }
        cluster.nodes[3].flushing = true;
        cluster.settle();
    }
    assert_eq!(holders(&cluster), [1, 2, 3]);
    let made = cluster.nodes[3].shard.create_replica(group());
    assert!(made.is_err_and(|error| error.is_retryable()), "it is not gone from the disk");
    let busy = cluster.nodes[3].shard.disk().snapshots().keys().any(|name| name.group == group());
    assert!(busy, "its snapshots stay until it is gone for good");
    cluster.crash(4);
    cluster.targets.clear();
    cluster.restart(4);
    assert_eq!(holders(&cluster), [1, 2, 3, 4], "the disk knows nothing of it");
    assert!(cluster.status(4, group()).last_applied > 0 || cluster.status(4, group()).last_index > 0);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    cluster.settle_members(group());
    check(&mut cluster, 0..60);
}

#[test]
fn replicas_are_not_given_up_without_proof() {
    let mut cluster = Cluster::founded(4, 3, SnapshotSettings::default());
    write(&mut cluster, 0..20);
    let leader = cluster.leader(group());
    let follower = (1..=3).find(|node| *node != leader).expect("a follower");
    let all = EntryId { term: u64::MAX, index: u64::MAX };
    for member in [leader, follower] {
        let shard = &mut cluster.nodes[member as usize - 1].shard;
        assert_eq!(shard.drop_replica(group(), all), Err(ReplicaError::InUse(group())), "node {member}");
        assert_eq!(shard.create_replica(group()), Err(ReplicaError::Exists(group())));
    }
    let view = cluster.nodes[leader as usize - 1].shard.membership(group()).expect("a replica");
    assert_eq!(view.excludes(NodeId(follower)), None);
    assert_eq!(view.excludes(NodeId(4)), Some(view.committed));
    isolate(&mut cluster, &[follower]);
    cluster.tick(40);
    let shard = &mut cluster.nodes[follower as usize - 1].shard;
    let proof = EntryId { term: 1, index: 3 };
    assert!(matches!(shard.drop_replica(group(), proof), Err(ReplicaError::Needed { .. })));
    let other = &mut cluster.nodes[3].shard;
    assert_eq!(other.drop_replica(group(), all), Err(ReplicaError::Absent(group())));
    assert_eq!(other.create_replica(77), Err(ReplicaError::NotHere(77)));
}

#[test]
fn a_stale_member_cannot_win_with_a_replica_that_came_back_empty() {
    let mut cluster = Cluster::founded(5, 3, SnapshotSettings::default());
    write(&mut cluster, 0..20);
    elect(&mut cluster, 3);
    isolate(&mut cluster, &[2]); // it stays where it was: a voter of {1, 2, 3}
    write(&mut cluster, 20..40);
    cluster.retarget(group(), &[3, 4, 5], &[]);
    for _ in 0..400 {
        cluster.tick(1);
        if !holders(&cluster).contains(&1) {
            break;
        }
    }
    assert_eq!(holders(&cluster), [2, 3, 4, 5], "node 1 gave its replica up");
    cluster.targets.clear();
    for restart in [false, true] {
        if restart {
            cluster.crash(1);
            cluster.restart(1);
        }
        cluster.tick(5);
        if !restart {
            cluster.nodes[0].shard.create_replica(group()).expect("a replica");
        }
        // With node 1 it would be a majority of the three that it knows.
        cluster.cut.clear();
        isolate(&mut cluster, &[1, 2]);
        cluster.tick(200);
        for node in [1, 2] {
            assert_ne!(
                cluster.status(node, group()).role,
                "leader",
                "node {node} leads with a log that was left behind"
            );
        }
    }
    cluster.cut.clear();
    cluster.retarget(group(), &[1, 3, 4], &[]);
    cluster.settle_members(group());
    check(&mut cluster, 0..40);
}

#[test]
fn who_waits_at_a_replica_that_is_given_up_is_told() {
    let mut cluster = Cluster::with(4, SnapshotSettings::default());
    write(&mut cluster, 0..20);
    cluster.retarget(group(), &[1, 2, 3], &[]);
    cluster.settle_members(group());
    let answer = cluster.ask(4, &put(&key(5), "x"));
    assert_eq!(answer, Some(Outcome::NotLeader { group: group(), leader: Some(1) }));
    let answer = cluster.ask(4, &get(&key(5)));
    assert_eq!(answer, Some(Outcome::NotLeader { group: group(), leader: Some(1) }));
}

#[test]
fn a_configuration_that_is_damaged_ends_the_link_and_changes_nothing() {
    let mut cluster = Cluster::with(3, SnapshotSettings::default());
    write(&mut cluster, 0..5);
    let leader = cluster.leader(group());
    let follower = (1..=3).find(|node| *node != leader).expect("a follower");
    let before = cluster.status(follower, group());
    let (term, prev_index) = (before.term, before.last_index);
    let shard = &mut cluster.nodes[follower as usize - 1].shard;
    let prev_term = shard.term_at(group(), prev_index).expect("its last entry");
    let body = PeerBody::AppendEntries { prev_term, prev_index, leader_commit: prev_index + 1, count: 1 };
    let mut frame = Vec::new();
    let mut append = wire::begin_append(&mut frame, &PeerMessage { group: group(), term, body });
    record::encode_membership(append.bytes(), group(), term, prev_index + 1, b"not members");
    append.finish();
    let refused = shard.peer_bytes(NodeId(leader), &frame).expect_err("damage");
    assert!(refused.contains("brings no configuration"), "{refused}");
    let after = cluster.status(follower, group());
    assert_eq!((after.last_index, after.commit_index, after.voters), (prev_index, before.commit_index, before.voters));
}

#[test]
fn a_log_with_a_configuration_of_another_program_is_not_guessed_at() {
    let config = cluster::wal_config(1);
    let mut disk = MemDisk::new(&config, 3);
    let mut wal = Wal::new(config.clone(), disk.recover(&config).expect("an empty log"), &mut disk);
    wal.append_membership(1, 1, 1, &[9, 0, 0, 0], &mut disk).expect("room");
    wal.submit(&mut disk).expect("submitted");
    disk.run(&mut wal, &mut Vec::new()).expect("flushed");
    let recovered = disk.recover(&config).expect("a sound log");
    let limits = ringraft_engine::limits::Limits::default();
    let found = (recovered, BTreeMap::new());
    let restored =
        Shard::restore(cluster::settings(1, 3), &cluster::consensus(), limits, config, found, disk).map(|_| ());
    assert_eq!(restored, Err(RestoreError::Configuration { group: 1, index: 1, error: ConfigurationError::Version }),);
}

#[test]
fn links_follow_the_nodes() {
    let mut cluster = Cluster::founded(3, 2, SnapshotSettings::default());
    write(&mut cluster, 0..10);
    let shard = &mut cluster.nodes[0].shard;
    shard.set_peers(&[NodeId(1), NodeId(2)]);
    assert_eq!(shard.peers().nodes().collect::<Vec<_>>(), [NodeId(2)]);
    assert!(shard.peers().is_connected(NodeId(2)), "a link that stays is not broken");
    shard.set_peers(&[NodeId(3), NodeId(2)]);
    assert!(!shard.peers().is_connected(NodeId(3)));
    shard.peer_connected(NodeId(3));
    cluster.retarget(group(), &[1, 2, 3], &[]);
    cluster.settle_members(group());
    check(&mut cluster, 0..10);
}
