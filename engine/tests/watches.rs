//! Watches through whole shards: at every replica the same changes, once and in order; what is forgotten is said.
//!
//! Off the data path; tests only.

mod cluster;

use cluster::{Cluster, GROUPS, group_of, put};
use ringraft_engine::shard::SnapshotSettings;
use ringraft_engine::snapshot::ChunkBytes;
use ringraft_net::wire::items::{all_items, index_of_version};
use ringraft_net::wire::{Operation, Outcome, Request, WatchEnd, WatchEvent, WatchRequest};

type Change = (String, Option<Vec<u8>>, u64);

fn request(group: u32, from: u64, prefix: &str) -> WatchRequest {
    WatchRequest { group, from, prefix: prefix.into() }
}

/// All changes that a watch was told; where it is to go on.
fn changes(cluster: &Cluster, watch: u32) -> (Vec<Change>, u64) {
    let (mut all, mut last) = (Vec::new(), 0);
    for event in cluster.told.get(&watch).into_iter().flatten() {
        if let WatchEvent::Changes { next, items, .. } = event {
            assert!(*next >= last, "it goes back");
            last = *next;
            for item in all_items(items).expect("items") {
                let key = String::from_utf8(item.key.to_vec()).expect("text");
                all.push((key, item.value.map(<[u8]>::to_vec), item.version));
            }
        }
    }
    (all, last)
}

/// How a watch ended, and the index with it.
fn end(cluster: &Cluster, watch: u32) -> Option<(WatchEnd, u64)> {
    match cluster.told.get(&watch)?.last()? {
        WatchEvent::Ended { end, index, .. } => Some((*end, *index)),
        WatchEvent::Changes { .. } => None,
    }
}

fn done(cluster: &mut Cluster, operations: Vec<Operation>) {
    let leader = cluster.leader(group_of("{k}"));
    let outcome = cluster.ask(leader, &Request { operations, ..Request::default() });
    assert!(matches!(outcome, Some(Outcome::Done(_))), "{outcome:?}");
}

fn write(cluster: &mut Cluster, numbers: std::ops::Range<u32>, bytes: usize) {
    for number in numbers {
        done(cluster, put(&format!("{{k}}{number}"), &"x".repeat(bytes)).operations);
    }
}

fn started() -> (Cluster, u32, u64) {
    let mut cluster = Cluster::new(3);
    let group = group_of("{k}");
    let leader = cluster.leader(group);
    cluster.tick(4);
    (cluster, group, leader)
}

#[test]
fn every_replica_tells_the_same_changes_in_order() {
    let (mut cluster, group, _) = started();
    let before: Vec<_> = (1..=3).map(|node| cluster.watch(node, &request(group, 1, "{k}"))).collect();
    let now: Vec<_> = (1..=3).map(|node| cluster.watch(node, &request(group, 0, ""))).collect();
    let text = |text: &str| text.as_bytes().to_vec();
    let cas = |expected: &str| Operation::CompareAndSet {
        key: text("{k}a"),
        expected: Some(text(expected)),
        value: text("2"),
    };
    done(&mut cluster, put("{k}a", "1").operations);
    done(&mut cluster, vec![cas("other")]); // no change
    done(
        &mut cluster,
        vec![cas("1"), Operation::Delete { key: text("{k}none") }, Operation::Delete { key: text("{k}a") }],
    );
    done(&mut cluster, vec![Operation::Put { key: text("x{k}"), value: text("3") }]); // another prefix
    done(&mut cluster, vec![Operation::CompareVersion { key: text("{k}b"), version: 0, value: Some(text("4")) }]);
    done(&mut cluster, vec![Operation::Put { key: text("{k}c"), value: text("5") }, cas("never")]); // undone
    cluster.tick(4);
    let (told, next) = changes(&cluster, before[0]);
    let kinds: Vec<_> = told.iter().map(|(key, value, _)| (key.as_str(), value.clone())).collect();
    assert_eq!(
        kinds,
        [("{k}a", Some(text("1"))), ("{k}a", Some(text("2"))), ("{k}a", None), ("{k}b", Some(text("4")))]
    );
    assert!(told.windows(2).all(|pair| pair[0].2 <= pair[1].2), "versions grow");
    for (at_first, at_now) in before.iter().zip(&now) {
        assert_eq!(changes(&cluster, *at_first).0, told);
        let all = changes(&cluster, *at_now).0;
        assert_eq!(all.len(), told.len() + 1, "the other prefix too");
        assert!(all.iter().filter(|change| change.0.starts_with("{k}")).eq(&told));
    }
    // From the middle on, and from what is not there yet.
    let middle = cluster.watch(2, &request(group, index_of_version(told[1].2), "{k}"));
    assert_eq!(changes(&cluster, middle).0, told[1..]);
    let later = cluster.watch(3, &request(group, next + 2, ""));
    assert_eq!(changes(&cluster, later), (vec![], next + 2));
    write(&mut cluster, 0..4, 1);
    cluster.tick(4);
    let all = changes(&cluster, before[2]).0;
    assert_eq!(changes(&cluster, later).0, all[all.len() - changes(&cluster, later).0.len()..]);
    assert!(changes(&cluster, later).0.iter().all(|change| index_of_version(change.2) >= next + 2));
}

#[test]
fn what_is_forgotten_is_said() {
    let (mut cluster, group, leader) = started();
    write(&mut cluster, 0..100, 1_000);
    let watch = cluster.watch(leader, &request(group, 1, ""));
    let Some((WatchEnd::Compacted, first)) = end(&cluster, watch) else { panic!("{:?}", cluster.told) };
    assert!(first > 50, "32 KiB are kept, not from {first} on");
    let watch = cluster.watch(leader, &request(group, first, ""));
    let (told, _) = changes(&cluster, watch);
    assert_eq!(index_of_version(told[0].2), first);
    assert_eq!(told.last().map(|change| change.0.as_str()), Some("{k}99"));
    let refused = cluster.watch(leader, &request(GROUPS, 0, ""));
    assert_eq!(end(&cluster, refused), Some((WatchEnd::BadRequest, 0)));
}

#[test]
fn who_does_not_take_what_it_is_told_is_cut_off_and_nobody_waits_for_it() {
    let (mut cluster, group, leader) = started();
    let slow = cluster.watch(leader, &request(group, 0, ""));
    let elsewhere = cluster.watch(leader % 3 + 1, &request(group, 0, "{k}1"));
    cluster.deaf = true;
    for number in 0..800 {
        cluster.send(leader, &put(&format!("{{k}}{number}"), &"x".repeat(1_000)));
        cluster.settle();
    }
    cluster.tick(2);
    cluster.listen();
    cluster.tick(2);
    assert_eq!(end(&cluster, slow), Some((WatchEnd::TooSlow, 0)));
    let (told, next) = changes(&cluster, slow);
    assert!((300..700).contains(&told.len()), "{} changes of 800", told.len());
    let again = cluster.watch(leader, &request(group, next, ""));
    assert!(matches!(end(&cluster, again), Some((WatchEnd::Compacted, first)) if first > next));
    // The other one needed little room, and has everything.
    cluster.tick(4);
    assert_eq!(changes(&cluster, elsewhere).0.len(), 1 + 10 + 100);
    assert!(cluster.replies.len() >= 800, "the writes were answered");
}

#[test]
fn a_full_connection_is_told_the_rest_when_it_has_room() {
    let (mut cluster, group, leader) = started();
    let watch = cluster.watch(leader, &request(group, 0, ""));
    cluster.deaf = true;
    let large = |number: u32| put(&format!("{{k}}{number}"), &"x".repeat(300_000));
    for number in 0..3 {
        cluster.send(leader, &large(number));
        cluster.settle();
    }
    assert!(cluster.nodes[leader as usize - 1].shard.clients().longest_outgoing_bytes() < 700_000);
    cluster.listen();
    cluster.tick(3);
    assert_eq!((changes(&cluster, watch).0.len(), end(&cluster, watch)), (3, None));
}

#[test]
fn a_turn_spends_a_bounded_time_on_however_many_watches_and_all_hear_everything() {
    let (mut cluster, group, leader) = started();
    let place = leader as usize - 1;
    let watches: Vec<_> = (0..400)
        .map(|number| cluster.watch(leader, &request(group, 0, if number % 2 == 0 { "{k}" } else { "none" })))
        .collect();
    let spent = |cluster: &Cluster| cluster.nodes[place].shard.status().counters.watch_bytes;
    let (before, mut most, mut seen) = (spent(&cluster), 0, 0);
    let operations = (0..20).flat_map(|number| put(&format!("{{k}}{number}"), &"x".repeat(1_000)).operations);
    cluster.send(leader, &Request { operations: operations.collect(), ..Request::default() });
    for _ in 0..2_000 {
        (0..3).for_each(|place| _ = cluster.turn(place));
        let now = spent(&cluster) - before;
        most = most.max(now - seen);
        seen = now;
    }
    assert!(seen > 400 * 20_000, "every watch has to look at every change: {seen}");
    assert!(most < 300 << 10, "one turn looked at {most} bytes");
    for (number, watch) in watches.iter().enumerate() {
        let expected = if number % 2 == 0 { 20 } else { 0 };
        assert_eq!((changes(&cluster, *watch).0.len(), end(&cluster, *watch)), (expected, None), "watch {number}");
    }
    assert!(!cluster.nodes[place].shard.wants_turn(), "nothing is left to do");
}

#[test]
fn the_part_of_a_group_is_that_of_its_watches() {
    let (mut cluster, group, leader) = started();
    let place = leader as usize - 1;
    let other = (0..GROUPS).find(|other| *other != group).expect("another group");
    for _ in 0..600 {
        cluster.watch(leader, &request(other, 0, "none"));
    }
    let watch = cluster.watch(leader, &request(group, 0, ""));
    let spent = |cluster: &Cluster| cluster.nodes[place].shard.status().counters.watch_bytes;
    let operations = (0..20).flat_map(|number| put(&format!("{{k}}{number}"), &"x".repeat(1_000)).operations);
    cluster.send(leader, &Request { operations: operations.collect(), ..Request::default() });
    let (mut most, mut seen) = (0, spent(&cluster));
    for _ in 0..200 {
        (0..3).for_each(|place| _ = cluster.turn(place));
        let now = spent(&cluster);
        (most, seen) = (most.max(now - seen), now);
    }
    assert!(most < 3_000, "one watch of 601 had {most} bytes of a turn");
    assert_eq!(changes(&cluster, watch).0.len(), 20);
}

#[test]
fn a_replica_without_a_leader_sends_its_watches_away_and_others_go_on() {
    let (mut cluster, group, leader) = started();
    let away = leader % 3 + 1;
    let watch = cluster.watch(away, &request(group, 0, ""));
    write(&mut cluster, 0..5, 10);
    cluster.tick(4);
    let (told, next) = changes(&cluster, watch);
    assert_eq!(told.len(), 5);
    cluster.cut = (1..=3).filter(|other| *other != away).flat_map(|other| [(away, other), (other, away)]).collect();
    write(&mut cluster, 5..10, 10);
    cluster.tick(40);
    assert_eq!((changes(&cluster, watch).0.len(), end(&cluster, watch)), (5, Some((WatchEnd::Unavailable, 0))));
    let refused = cluster.watch(away, &request(group, next, ""));
    assert_eq!(end(&cluster, refused), Some((WatchEnd::Unavailable, 0)));
    let other = cluster.leader(group);
    let resumed = cluster.watch(other, &request(group, next, ""));
    let keys: Vec<_> = changes(&cluster, resumed).0.into_iter().map(|change| change.0).collect();
    assert_eq!(keys, (5..10).map(|number| format!("{{k}}{number}")).collect::<Vec<_>>());
}

#[test]
fn a_watch_that_is_ended_or_whose_client_is_gone_is_forgotten() {
    let (mut cluster, group, leader) = started();
    let first = cluster.watch(leader, &request(group, 0, ""));
    let second = cluster.watch(leader, &request(group, 0, ""));
    assert_eq!(cluster.nodes[leader as usize - 1].shard.clients().watches(), 2);
    cluster.unwatch(leader, first);
    cluster.unwatch(leader, 12_345);
    write(&mut cluster, 0..1, 1);
    assert_eq!((changes(&cluster, first).0.len(), changes(&cluster, second).0.len()), (0, 1));
    let node = &mut cluster.nodes[leader as usize - 1];
    node.shard.clients().close(node.client);
    node.client = node.shard.clients().open().expect("room");
    assert_eq!(node.shard.clients().watches(), 0);
    write(&mut cluster, 1..2, 1);
    assert_eq!(changes(&cluster, second).0.len(), 1);
}

#[test]
fn a_replica_that_gets_a_snapshot_or_restarts_says_what_it_cannot_tell() {
    let snapshots = SnapshotSettings {
        identity: 7,
        log_bytes: 8 << 10,
        state_percent: 0,
        log_entries: 40,
        chunk_bytes: ChunkBytes::new(4096).expect("a block"),
        segments_max: 1,
        patience_ticks: 20,
        ..SnapshotSettings::default()
    };
    let mut cluster = Cluster::with(3, snapshots);
    let group = group_of("{k}");
    write(&mut cluster, 0..50, 100);
    let leader = cluster.leader(group);
    let away = leader % 3 + 1;
    cluster.crash(away);
    write(&mut cluster, 50..650, 100);
    cluster.restart(away);
    cluster.tick(100);
    let applied = cluster.status(away, group).last_applied;
    let old = cluster.watch(away, &request(group, 60, ""));
    assert!(matches!(end(&cluster, old), Some((WatchEnd::Compacted, first)) if first > 300 && first <= applied + 1));
    let new = cluster.watch(away, &request(group, 0, ""));
    write(&mut cluster, 650..655, 100);
    cluster.tick(4);
    assert_eq!(changes(&cluster, new).0.len(), 5);
}
