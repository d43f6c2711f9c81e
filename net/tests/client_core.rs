//! Tests of the client core against a scripted cluster: what becomes of requests when things go wrong.
//!
//! Off the data path. No sockets, no clock: time passes when the test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use ringraft_net::client::{ClientError, Options, Submission};
use ringraft_net::wire::{OperationRef, OperationResult, Outcome, RefusalCode};
use std::collections::BTreeSet;
use std::time::Duration;
use world::fake::Verdict;
use world::{World, address, options};

fn put_done(replaced: bool) -> Result<Vec<OperationResult>, ClientError> {
    Ok(vec![OperationResult::Put { replaced }])
}

#[test]
fn a_write_opens_a_session_and_a_read_needs_none() {
    let mut world = World::new(4, 2, options());
    world.get(1, "a");
    world.settle();
    assert_eq!(world.cluster.sessions(), 0);
    world.put(2, "a");
    world.settle();
    world.get(3, "a");
    world.settle();
    let results = world.results();
    assert_eq!(*results[&1], Ok(vec![OperationResult::Value(None)]));
    assert_eq!(*results[&2], put_done(false));
    assert_eq!(*results[&3], Ok(vec![OperationResult::Value(Some(b"value-2".to_vec()))]));
    assert_eq!(world.cluster.sessions(), 1);
    assert!(world.ended[1].1.index > 0);
    assert_eq!(world.core.in_flight(), 0);
}

#[test]
fn requests_of_all_groups_go_to_the_shard_that_hosts_them() {
    let mut world = World::new(16, 4, options());
    world.cluster.leaders = (0..16).map(|group| group % 3 + 1).collect();
    for tag in 0..200 {
        world.put(tag, &format!("key-{tag}"));
    }
    world.settle();
    assert!(world.results().values().all(|result| **result == put_done(false)));
    assert_eq!(world.cluster.sessions(), 16, "one session per group");
    assert_eq!(world.core.statistics().redirects, 0, "the welcome told the leaders");
    assert!(world.sockets.len() <= 12);
}

#[test]
fn several_connections_share_the_load() {
    let mut world = World::new(1, 1, Options { connections: 4, ..options() });
    world.put(0, "warm");
    world.run(10_000, 1);
    for tag in 1..=40 {
        world.put(tag, &format!("key-{tag}"));
    }
    assert_eq!(world.sockets.values().filter(|socket| socket.node == 1).count(), 4);
    world.settle();
    assert_eq!(world.ended.len(), 41);
}

#[test]
fn not_leader_is_followed_at_once_and_remembered() {
    let mut world = World::new(1, 1, options());
    world.cluster.tells_leaders = false;
    world.cluster.leaders = vec![3];
    world.put(1, "a");
    world.settle();
    assert_eq!(*world.results()[&1], put_done(false));
    let asked = world.cluster.received.len();
    world.put(2, "a");
    world.settle();
    assert_eq!(world.cluster.received.len(), asked + 1);
    assert_eq!(world.core.leader(0), Some(3));
}

#[test]
fn without_a_leader_the_nodes_are_asked_with_growing_pauses() {
    let mut world = World::new(1, 1, options());
    world.cluster.leaders = vec![0];
    world.put(1, "a");
    world.run(1_000_000, 1);
    assert!(world.ended.is_empty());
    let asked = world.cluster.received.len();
    assert!((8..60).contains(&asked), "{asked} questions in a second");
    let nodes: BTreeSet<_> = world.cluster.received.iter().map(|received| received.node).collect();
    assert_eq!(nodes.len(), 3, "all were asked");
    world.cluster.leaders = vec![2];
    world.run(500_000, 1);
    assert_eq!(*world.results()[&1], put_done(false));
}

#[test]
fn two_nodes_that_name_each_other_are_not_asked_in_a_tight_loop() {
    let mut world = World::new(1, 1, options());
    let name = |leader| Verdict::Answer(Outcome::NotLeader { group: 0, leader: Some(leader) });
    world.cluster.script = (0..1000).map(|turn| name(turn % 2 + 1)).collect();
    world.get(1, "a");
    world.settle();
    assert!(world.cluster.received.len() < 10, "{}", world.cluster.received.len());
}

#[test]
fn moved_leads_to_the_right_shard() {
    let mut world = World::new(4, 2, options());
    let address = address(1, 1).to_string();
    world.put(0, "warm");
    world.settle();
    // The cluster says that the group lives on the other shard, once; that shard says where it really is.
    let operation = [OperationRef::Get { key: b"b" }];
    let group = ringraft_net::wire::group_of_operations(operation, 4).unwrap();
    let other = 1 - (group % 2) as u16;
    world.cluster.script.push_back(Verdict::Answer(Outcome::Moved { group, node: 1, shard: other, address }));
    world.get(1, "b");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], Ok(vec![OperationResult::Value(None)]));
    let shards: Vec<_> = world.cluster.received.iter().rev().take(3).map(|received| received.shard).collect();
    assert_eq!(shards, [1 - other, other, 1 - other]);
}

#[test]
fn a_retry_in_a_session_keeps_its_sequence_and_takes_effect_once() {
    let mut world = World::new(1, 1, options());
    world.put(1, "a");
    world.settle();
    world.cluster.script.push_back(Verdict::ApplyAndBreak);
    world.put(2, "a");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&2], put_done(true));
    assert_eq!(world.cluster.applied[&b"value-2"[..].to_vec()], 1);
    let writes = world.writes();
    assert_eq!(writes.len(), 3);
    assert_eq!((writes[1].1, writes[1].2), (writes[2].1, writes[2].2), "same client and sequence");
}

#[test]
fn a_retry_after_a_break_without_application_is_applied() {
    let mut world = World::new(1, 1, options());
    world.cluster.script = [Verdict::Break, Verdict::Break].into();
    world.put(1, "a");
    world.run(1_000_000, 1);
    assert_eq!(*world.results()[&1], put_done(false));
    assert_eq!(world.cluster.applied[&b"value-1"[..].to_vec()], 1);
}

#[test]
fn without_a_session_a_write_that_was_sent_is_not_sent_again() {
    let mut world = World::new(1, 1, Options { sessions: false, ..options() });
    world.get(0, "a");
    world.settle();
    world.cluster.script.push_back(Verdict::ApplyAndBreak);
    world.put(1, "a");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], Err(ClientError::OutcomeUnknown));
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn without_a_session_a_write_that_was_not_sent_is_sent_again() {
    let mut world = World::new(1, 1, Options { sessions: false, ..options() });
    world.get(0, "a");
    world.settle();
    world.put(1, "a");
    world.cut(1);
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], put_done(false));
}

#[test]
fn reads_are_sent_again_whatever_happens() {
    let mut world = World::new(1, 1, options());
    let unavailable = Outcome::Unavailable { message: String::from("starting") };
    world.cluster.script =
        [Verdict::Break, Verdict::Answer(unavailable), Verdict::Answer(Outcome::OutcomeUnknown)].into();
    world.get(1, "a");
    world.run(1_000_000, 1);
    assert_eq!(*world.results()[&1], Ok(vec![OperationResult::Value(None)]));
    assert_eq!(world.cluster.received.len(), 4);
}

#[test]
fn a_silent_leader_is_given_up_and_the_next_one_asked() {
    let mut world = World::new(1, 1, options());
    world.put(1, "a");
    world.settle();
    world.silent.insert(1);
    world.cluster.leaders = vec![2];
    world.put(2, "a");
    world.run(1_400_000, 2);
    assert_eq!(world.ended.len(), 1, "patience");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&2], put_done(true));
    assert_eq!(world.core.problem(), Some("10.0.0.1:7000: it owed an answer for too long"));
}

#[test]
fn a_node_that_is_down_does_not_keep_requests_from_the_others() {
    let mut world = World::new(1, 1, options());
    world.down.insert(1);
    world.cluster.leaders = vec![3];
    world.put(1, "a");
    world.run(300_000, 1);
    assert_eq!(*world.results()[&1], put_done(false));
}

#[test]
fn deadlines_say_whether_it_may_have_been_applied() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    world.cluster.script = [Verdict::ApplySilently, Verdict::Ignore].into();
    let within = |world: &World| Some(world.now_us + 10_000);
    let operation = [OperationRef::Put { key: b"a", value: b"1" }];
    let submission = Submission { deadline_us: within(&world), ..Submission::new(1, &operation) };
    world.core.submit(&submission, world.now_us).unwrap();
    let operation = [OperationRef::Get { key: b"a" }];
    let submission = Submission { deadline_us: within(&world), ..Submission::new(2, &operation) };
    world.core.submit(&submission, world.now_us).unwrap();
    world.run(20_000, 3);
    assert_eq!(*world.results()[&1], Err(ClientError::DeadlineExceeded { outcome_unknown: true }));
    assert_eq!(*world.results()[&2], Err(ClientError::DeadlineExceeded { outcome_unknown: false }));
    assert!(world.results()[&2].as_ref().unwrap_err().is_retryable());
}

#[test]
fn a_late_answer_is_not_taken_for_another_request() {
    let mut world = World::new(1, 1, Options { request_timeout: Duration::from_millis(10), ..options() });
    world.put(0, "a");
    world.settle();
    world.silent.insert(1);
    world.get(1, "a");
    world.run(20_000, 2);
    assert_eq!(world.ended.len(), 2);
    assert_eq!(world.core.in_flight(), 3 - 2, "its slot stays taken while its answer may come");
    world.cluster.store.insert(b"a".to_vec(), b"late".to_vec());
    world.get(2, "b");
    world.settle();
    world.wake();
    for tag in 3..100 {
        world.get(tag, "b");
        world.settle();
    }
    assert!(
        world
            .results()
            .iter()
            .filter(|(tag, _)| **tag >= 2)
            .all(|(_, result)| **result == Ok(vec![OperationResult::Value(None)]))
    );
}

#[test]
fn nobody_answers_and_every_request_still_ends() {
    let mut world = World::new(1, 1, options());
    world.down = (1..=3).collect();
    world.put(1, "a");
    world.get(2, "a");
    world.core.submit_status(3, 1, 0, world.now_us).unwrap();
    world.run(6_000_000, 3);
    assert_eq!(world.results().len(), 3);
    for result in world.results().values() {
        assert_eq!(**result, Err(ClientError::DeadlineExceeded { outcome_unknown: false }));
    }
    assert!(world.core.statistics().connects < 200, "{:?}", world.core.statistics());
}

#[test]
fn overloaded_servers_are_left_alone_for_a_while() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    let overloaded = || Verdict::Answer(Outcome::Overloaded { retry_after_us: 5_000 });
    world.cluster.script = (0..3).map(|_| overloaded()).collect();
    world.put(1, "a");
    let start_us = world.now_us;
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], put_done(true));
    assert!(world.now_us - start_us >= 15_000, "{}", world.now_us - start_us);
}

#[test]
fn bounds_of_the_client_itself() {
    let mut world = World::new(1, 1, Options { in_flight_max: 2, pending_bytes_max: 10_000, ..options() });
    world.put(1, "a");
    let large = vec![0; 20_000];
    let operation = [OperationRef::Put { key: b"a", value: &large }];
    let error = world.core.submit(&Submission::new(2, &operation), world.now_us).unwrap_err();
    assert_eq!(error, ClientError::Overloaded { what: "bytes in flight" });
    assert!(error.is_retryable());
    world.put(3, "a");
    let operation = [OperationRef::Get { key: b"a" }];
    let error = world.core.submit(&Submission::new(4, &operation), world.now_us).unwrap_err();
    assert_eq!(error, ClientError::Overloaded { what: "requests in flight" });
    world.settle();
    world.put(5, "a");
    world.settle();
    assert_eq!(world.ended.len(), 3);
}

#[test]
fn requests_that_can_never_succeed_are_refused_at_once() {
    let mut world = World::new(16, 1, options());
    world.get(0, "warm");
    world.settle();
    let long_key = vec![1; 5_000];
    let long_value = vec![1; (1 << 20) + 1];
    let bad: [&[OperationRef<'_>]; 6] = [
        &[],
        &[OperationRef::Get { key: b"" }],
        &[OperationRef::Get { key: &long_key }],
        &[OperationRef::Put { key: b"a", value: &long_value }],
        &[OperationRef::OpenSession { group: 0 }],
        &[OperationRef::Get { key: b"a" }, OperationRef::Get { key: b"b" }],
    ];
    for operations in bad {
        let error = world.core.submit(&Submission::new(1, operations), world.now_us).unwrap_err();
        assert!(matches!(error, ClientError::BadRequest { .. }), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(world.core.in_flight(), 0);
}

#[test]
fn a_request_across_groups_is_refused_also_when_submitted_before_the_cluster_is_known() {
    let mut world = World::new(16, 1, options());
    let operations = [OperationRef::Get { key: b"a" }, OperationRef::Get { key: b"b" }];
    world.core.submit(&Submission::new(1, &operations), world.now_us).unwrap();
    world.settle();
    assert!(matches!(world.results()[&1], Err(ClientError::BadRequest { .. })));
}

#[test]
fn an_expired_session_is_replaced_when_nothing_was_sent_before() {
    let mut world = World::new(1, 1, options());
    world.put(1, "a");
    world.settle();
    world.cluster.expire_sessions();
    for tag in 2..10 {
        world.put(tag, "a");
    }
    world.run(1_000_000, 9);
    for tag in 2..10 {
        assert_eq!(*world.results()[&tag], put_done(true), "{tag}");
    }
    assert_eq!(world.cluster.sessions(), 1);
    assert_eq!(world.core.statistics().sessions, 2);
}

#[test]
fn an_expired_session_leaves_writes_that_were_sent_before_unknown() {
    let mut world = World::new(1, 1, options());
    world.put(1, "a");
    world.settle();
    world.cluster.script = [Verdict::ApplyAndBreak].into();
    world.put(2, "a");
    world.settle();
    world.cluster.expire_sessions();
    world.put(3, "a");
    world.run(1_000_000, 3);
    assert_eq!(*world.results()[&2], Err(ClientError::SessionExpired));
    assert!(world.results()[&2].as_ref().unwrap_err().is_outcome_unknown());
    assert_eq!(*world.results()[&3], put_done(true));
}

#[test]
fn the_window_of_a_session_bounds_what_is_sent_not_what_is_submitted() {
    let mut world = World::new(1, 1, Options { session_window_max: 4, ..options() });
    world.put(0, "a");
    world.settle();
    world.silent.insert(1);
    for tag in 1..=10 {
        world.put(tag, "a");
    }
    world.settle();
    assert_eq!(world.core.statistics().sends, 2 + 4);
    world.silent.clear();
    world.cut(1);
    world.run(1_000_000, 11);
    assert_eq!(world.results().len(), 11);
    assert!(world.cluster.applied.values().all(|&times| times == 1));
    for received in &world.cluster.received {
        assert!(received.request.sequence < received.request.acknowledged + 4 || received.request.sequence == 0);
    }
}

#[test]
fn acknowledged_follows_the_answers() {
    let mut world = World::new(1, 1, options());
    for tag in 0..5 {
        world.put(tag, "a");
        world.settle();
    }
    let numbers: Vec<_> = world.cluster.received.iter().map(|received| &received.request).collect();
    let numbers: Vec<_> = numbers[1..].iter().map(|request| (request.sequence, request.acknowledged)).collect();
    assert_eq!(numbers, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

#[test]
fn a_write_does_not_acknowledge_earlier_ones_that_are_outstanding() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    world.cluster.script = [Verdict::ApplySilently].into();
    world.put(1, "a");
    world.put(2, "a");
    world.settle();
    assert_eq!(world.cluster.received.last().map(|last| last.request.acknowledged), Some(2), "put 1 is outstanding");
    world.cut(1);
    world.run(1_000_000, 3);
    assert_eq!(*world.results()[&1], put_done(true), "its answer was still known");
}

#[test]
fn an_answer_of_another_kind_ends_the_connection_and_nothing_else() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    world.cluster.confused = true;
    world.get(1, "a");
    world.settle();
    assert!(world.core.problem().unwrap().contains("with a StatusReply"), "{:?}", world.core.problem());
    world.cluster.confused = false;
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], Ok(vec![OperationResult::Value(None)]));
    world.cluster.confused = true;
    world.core.submit_status(2, 1, 0, world.now_us).unwrap();
    world.settle();
    assert!(world.core.problem().unwrap().contains("with a Reply"), "{:?}", world.core.problem());
    world.cluster.confused = false;
    world.run(1_000_000, 3);
    assert_eq!((world.statuses.len(), world.core.in_flight()), (1, 0));
}

#[test]
fn the_status_of_a_node_that_is_down_keeps_none_from_the_others() {
    let mut world = World::new(1, 1, Options { endpoints: vec![address(3, 0)], ..options() });
    world.get(0, "a");
    world.settle();
    world.down.insert(1);
    world.cut(1);
    world.core.submit_status(1, 1, 0, world.now_us).unwrap();
    world.core.submit_status(2, 2, 0, world.now_us).unwrap();
    world.settle();
    assert_eq!(world.statuses, ["{\"node\":2,\"shard\":0}"]);
    assert_eq!(world.core.in_flight(), 1, "it may come back");
}

#[test]
fn the_longest_wish_to_be_left_alone_counts() {
    let mut world = World::new(1, 1, options());
    world.get(0, "a");
    world.settle();
    let overloaded = |retry_after_us| Verdict::Answer(Outcome::Overloaded { retry_after_us });
    world.cluster.script = [overloaded(1_000), overloaded(50_000), overloaded(1_000)].into();
    let start_us = world.now_us;
    (1..=3).for_each(|tag| world.get(tag, "a"));
    world.run(1_000_000, 4);
    assert!(world.now_us - start_us >= 50_000, "{}", world.now_us - start_us);
    assert!(world.results().values().all(|result| result.is_ok()));
}

#[test]
fn status_of_any_shard() {
    let mut world = World::new(4, 2, options());
    world.core.submit_status(1, 3, 1, world.now_us).unwrap();
    world.settle();
    assert_eq!(world.statuses, ["{\"node\":3,\"shard\":1}"]);
    assert!(world.core.submit_status(2, 9, 0, world.now_us).is_err());
}

#[test]
fn the_wrong_cluster_is_a_clear_error_at_once() {
    let mut world = World::new(1, 1, Options { cluster: Some([9; 16]), ..options() });
    world.put(1, "a");
    world.settle();
    let Err(ClientError::Refused { code, message }) = world.results()[&1] else { panic!("{:?}", world.ended) };
    assert_eq!(*code, RefusalCode::Cluster);
    assert!(message.contains(&"07".repeat(16)) && message.contains(&"09".repeat(16)), "{message}");
    assert!(world.core.refusal().is_some());
}

#[test]
fn garbage_from_a_server_ends_the_connection_and_nothing_else() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    let id = *world.sockets.iter().find(|(_, socket)| socket.node == 1).unwrap().0;
    world.core.receive(id, b"HTTP/1.1 400 Bad Request\r\n\r\n", world.now_us);
    assert!(world.core.problem().unwrap().contains("not a ringraft frame"));
    world.put(1, "a");
    world.run(1_000_000, 2);
    assert_eq!(*world.results()[&1], put_done(true));
}

#[test]
fn late_events_of_an_old_connection_are_ignored() {
    let mut world = World::new(1, 1, options());
    world.put(0, "a");
    world.settle();
    let id = *world.sockets.keys().next().unwrap();
    world.cut(1);
    world.put(1, "a");
    world.run(1_000_000, 2);
    world.core.receive(id, b"anything", world.now_us);
    world.core.connected(id, world.now_us);
    world.core.disconnected(id, world.now_us);
    assert!(world.core.outgoing(id).is_none());
    world.put(2, "a");
    world.run(1_000_000, 3);
    assert_eq!(*world.results()[&2], put_done(true));
}

#[test]
fn operations_together() {
    let mut world = World::new(4, 1, options());
    let operations = [
        OperationRef::Put { key: b"{t}a", value: b"1" },
        OperationRef::Get { key: b"{t}a" },
        OperationRef::CompareAndSet { key: b"{t}b", expected: Some(b"no"), value: b"2" },
        OperationRef::Delete { key: b"{t}a" },
    ];
    world.core.submit(&Submission::new(1, &operations), world.now_us).unwrap();
    world.settle();
    let expected = vec![
        OperationResult::Put { replaced: false },
        OperationResult::Value(Some(b"1".to_vec())),
        OperationResult::Compared { swapped: false, current: None },
        OperationResult::Deleted { existed: true },
    ];
    assert_eq!(*world.results()[&1], Ok(expected));
}
