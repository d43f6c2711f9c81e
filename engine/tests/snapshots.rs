//! Snapshots in a cluster of in-memory disks: taken while writes go on, the log bounded, followers and restarts from them.

mod cluster;

use cluster::{Cluster, get, group_of, put, value};
use ringraft_engine::shard::SnapshotSettings;
use ringraft_engine::snapshot::{ChunkBytes, load_newest};
use ringraft_net::wire::{OperationResult, Outcome};

/// A snapshot every few dozen entries, in chunks of one block.
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

fn key(number: u32) -> String {
    format!("{{k}}{number}")
}

/// Writes `count` values of 100 bytes, each acknowledged.
fn write(cluster: &mut Cluster, from: u32, count: u32) {
    let group = group_of("{k}");
    for number in from..from + count {
        let leader = cluster.leader(group);
        let answer = cluster.ask(leader, &put(&key(number % 500), &format!("{number:0100}")));
        let done =
            matches!(&answer, Some(Outcome::Done(results)) if matches!(results[..], [OperationResult::Put { .. }]));
        assert!(done, "put {number}: {answer:?}");
        if number.is_multiple_of(7) {
            cluster.tick(1);
        }
    }
}

fn read(cluster: &mut Cluster, number: u32) -> Option<Outcome> {
    let leader = cluster.leader(group_of("{k}"));
    let correlation = cluster.send(leader, &get(&key(number % 500)));
    cluster.tick(4);
    cluster.replies.remove(&correlation).map(|reply| reply.outcome)
}

fn same_state(cluster: &mut Cluster, nodes: u64) {
    let group = group_of("{k}");
    cluster.tick(40);
    let all: Vec<_> = (1..=nodes).map(|node| cluster.status(node, group)).collect();
    for status in &all {
        assert_eq!((status.last_applied, &status.state_hash), (all[0].last_applied, &all[0].state_hash));
    }
}

#[test]
fn logs_stay_short_and_restarts_begin_at_a_snapshot() {
    let mut cluster = Cluster::with(3, eager());
    let group = group_of("{k}");
    write(&mut cluster, 0, 600);
    same_state(&mut cluster, 3);
    for node in 1..=3 {
        let status = cluster.status(node, group);
        assert!(status.first_index > 400, "node {node} holds its log from {} on", status.first_index);
        let files = cluster.nodes[node as usize - 1].shard.disk().snapshots().keys();
        assert!(files.filter(|name| name.group == group).count() <= 3, "old files go");
    }
    for node in 1..=3 {
        cluster.crash(node);
        cluster.restart(node);
        let status = cluster.status(node, group);
        assert!(status.last_applied > 400, "node {node} came back at {}", status.last_applied);
    }
    assert_eq!(read(&mut cluster, 599), value(&format!("{:0100}", 599)));
    write(&mut cluster, 600, 200);
    same_state(&mut cluster, 3);
}

#[test]
fn a_follower_that_was_away_for_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::with(3, eager());
    let group = group_of("{k}");
    write(&mut cluster, 0, 50);
    let leader = cluster.leader(group);
    let away = (1..=3).find(|node| *node != leader).expect("a follower");
    cluster.crash(away);
    write(&mut cluster, 50, 600);
    let leader = cluster.leader(group);
    let held = cluster.status(leader, group).first_index;
    assert!(held > 300, "the leader compacted up to {held}");
    cluster.restart(away);
    cluster.tick(60);
    same_state(&mut cluster, 3);
    assert!(cluster.status(away, group).first_index > 300, "its log begins behind the snapshot");
    // It is as good as the others: it survives a restart, and the loss of another node.
    cluster.crash(away);
    cluster.restart(away);
    cluster.tick(40);
    cluster.crash(leader);
    write(&mut cluster, 650, 30);
    assert_eq!(read(&mut cluster, 649), value(&format!("{:0100}", 649)));
    cluster.restart(leader);
    same_state(&mut cluster, 3);
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before_and_two_damaged_ones_are_an_error() {
    let mut cluster = Cluster::with(3, eager());
    let group = group_of("{k}");
    write(&mut cluster, 0, 2600); // more than a segment, so that the log's beginning is gone
    same_state(&mut cluster, 3);
    let leader = cluster.leader(group);
    let victim = (1..=3).find(|node| *node != leader).expect("a follower");
    let place = victim as usize - 1;
    cluster.crash(victim);
    let mut names: Vec<_> = cluster.nodes[place].shard.disk().snapshots().keys().copied().collect();
    names.retain(|name| name.group == group);
    let [.., older, newest] = names[..] else { panic!("two snapshots: {names:?}") };
    let damage = |cluster: &mut Cluster, name, bit: u8| {
        let bytes = cluster.nodes[place].shard.disk().snapshots_mut().get_mut(&name).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= bit;
    };
    damage(&mut cluster, newest, 1);
    cluster.restart(victim);
    assert_eq!(cluster.status(victim, group).last_applied, older.index, "the one before, then the log");
    same_state(&mut cluster, 3);
    cluster.crash(victim);
    let names: Vec<_> = cluster.nodes[place].shard.disk().snapshots().keys().copied().collect();
    let names: Vec<_> = names.into_iter().filter(|name| name.group == group).collect();
    names.iter().for_each(|name| damage(&mut cluster, *name, 2));
    let recovered = {
        let config = cluster::wal_config(victim);
        cluster.nodes[place].shard.disk().recover(&config).expect("the log itself is whole")
    };
    let disk = cluster.nodes[place].shard.disk();
    let read = |name, loader: &mut ringraft_engine::snapshot::FileLoader| {
        loader.push(&disk.snapshots()[&name]).map_err(|error| error.to_string())
    };
    let mut skipped = Vec::new();
    let limits = ringraft_engine::limits::Limits::default();
    let loaded = load_newest(&recovered, 7, limits, read, |name, _| skipped.push(name));
    let Err(error) = loaded else { panic!("there is nothing to begin with") };
    let error = error.to_string();
    assert!(error.contains("has no snapshot that is whole") && error.contains("snapshot"), "{error}");
    assert!(skipped.len() == 2 && skipped[0] > skipped[1], "the newest first: {skipped:?}");
}
