//! Ranges and versions through whole shards: every kind of read, while the order of the keys is being built, and refusals.
//!
//! Off the data path; tests only.

mod cluster;

use cluster::{Cluster, GROUPS, group_of, put};
use ringraft_net::wire::items::all_items;
use ringraft_net::wire::{Consistency, Operation, OperationResult, Outcome, Request};

fn range(group: u32, start: &str, end: &str, limit: u32) -> Request {
    let operation = Operation::Range { group, start: start.into(), end: end.into(), limit, keys_only: false };
    Request { operations: vec![operation], ..Request::default() }
}

fn with(consistency: Consistency, request: Request) -> Request {
    Request { consistency, ..request }
}

/// Keys and values of an answer, and whether more follow.
fn listed(outcome: Option<Outcome>) -> (Vec<(String, String)>, bool) {
    let Some(Outcome::Done(results)) = outcome else { panic!("{outcome:?}") };
    let [OperationResult::Items { items, more }] = &results[..] else { panic!("{results:?}") };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let items = all_items(items).expect("items");
    (items.iter().map(|item| (text(item.key), text(item.value.expect("a value")))).collect(), *more)
}

fn key(number: u32) -> String {
    format!("{{k}}{number:06}")
}

/// One request with many puts.
fn puts(numbers: std::ops::Range<u32>) -> Request {
    let put = |number| Operation::Put { key: key(number).into(), value: format!("{number}").into() };
    Request { operations: numbers.map(put).collect(), ..Request::default() }
}

fn written(count: u32) -> (Cluster, u32, u64) {
    let mut cluster = Cluster::new(3);
    let group = group_of("{k}");
    let leader = cluster.leader(group);
    for first in (0..count).step_by(500) {
        assert!(matches!(cluster.ask(leader, &puts(first..count.min(first + 500))), Some(Outcome::Done(_))));
    }
    cluster.tick(4);
    (cluster, group, leader)
}

#[test]
fn every_kind_of_read_lists_keys_in_order() {
    let (mut cluster, group, leader) = written(20);
    let other = leader % 3 + 1;
    let expected = |numbers: std::ops::Range<u32>| numbers.map(|n| (key(n), n.to_string())).collect::<Vec<_>>();
    let asked = [
        (leader, Consistency::Linearizable),
        (leader, Consistency::Lease),
        (other, Consistency::Follower),
        (other, Consistency::Stale),
    ];
    for (node, consistency) in asked {
        let request = with(consistency, range(group, &key(3), &key(15), 5));
        assert_eq!(listed(cluster.ask(node, &request)), (expected(3..8), true), "{consistency:?}");
        let request = with(consistency, range(group, &key(8), &key(12), 0));
        assert_eq!(listed(cluster.ask(node, &request)), (expected(8..12), false), "{consistency:?}");
    }
    let refused = cluster.ask(other, &range(group, "", "", 0));
    assert!(matches!(refused, Some(Outcome::NotLeader { leader: told, .. }) if told == Some(leader)));
    assert!(listed(cluster.ask(leader, &range(group, "x", "y", 0))).0.is_empty());
}

#[test]
fn the_first_range_waits_until_the_keys_are_in_order_and_nothing_else_does() {
    let (mut cluster, group, leader) = written(10_000);
    let place = leader as usize - 1;
    let correlation = cluster.send(leader, &with(Consistency::Stale, range(group, &key(9_000), "", 3)));
    cluster.nodes[place].shard.turn();
    assert!(cluster.nodes[place].shard.wants_turn(), "a slice is done, more are to come");
    assert!(!cluster.replies.contains_key(&correlation));
    // A write meanwhile is seen: the answer is as of when it is given.
    assert!(matches!(cluster.ask(leader, &put(&key(9_000), "new")), Some(Outcome::Done(_))));
    let answer = cluster.replies.remove(&correlation).map(|reply| reply.outcome);
    let (keys, more) = listed(answer);
    let numbers: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((numbers, more), (vec![&*key(9_000), &*key(9_001), &*key(9_002)], true));
    let again = cluster.ask(leader, &with(Consistency::Stale, range(group, &key(9_000), "", 1)));
    assert_eq!(listed(again).0, [(key(9_000), String::from("new"))]);
}

#[test]
fn an_isolated_leader_lists_nothing_that_may_be_old() {
    let (mut cluster, group, leader) = written(3);
    cluster.cut =
        (1..=3).filter(|other| *other != leader).flat_map(|other| [(leader, other), (other, leader)]).collect();
    assert_eq!(cluster.ask(leader, &range(group, "", "", 0)), None);
    assert_eq!(listed(cluster.ask(leader, &with(Consistency::Stale, range(group, "", "", 0)))).0.len(), 3);
}

#[test]
fn what_cannot_be_listed_is_refused() {
    let (mut cluster, group, leader) = written(1);
    let several = Request {
        operations: [range(group, "", "", 0).operations, puts(0..1).operations].concat(),
        ..Request::default()
    };
    for request in [several, range(GROUPS, "", "", 0), range(group, &"k".repeat(5_000), "", 0)] {
        assert!(matches!(cluster.ask(leader, &request), Some(Outcome::BadRequest { .. })));
    }
}

#[test]
fn versions_decide_who_writes() {
    let (mut cluster, _, leader) = written(1);
    let compare = |version, value: Option<&str>| Request {
        operations: vec![Operation::CompareVersion { key: key(0).into(), version, value: value.map(Into::into) }],
        ..Request::default()
    };
    let mut ask = |request| match cluster.ask(leader, &request) {
        Some(Outcome::Done(results)) => match results[..] {
            [OperationResult::ComparedVersion { swapped, version }] => (swapped, version),
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let (swapped, first) = ask(compare(0, Some("x")));
    assert!(!swapped && first > 0);
    let (swapped, second) = ask(compare(first, Some("x")));
    assert!(swapped && second > first);
    assert_eq!(ask(compare(first, None)), (false, second));
    assert_eq!(ask(compare(second, None)), (true, 0));
    assert_eq!(ask(compare(second, None)), (false, 0));
    let (swapped, third) = ask(compare(0, Some("y")));
    assert!(swapped && third > second);
}
