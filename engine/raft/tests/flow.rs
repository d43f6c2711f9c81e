//! One test per rule about logs and flow that others got wrong, and about loss: what is sent, repeated, refused, bounded.
//!
//! Off the data path; tests only.
//!
//! Deliberately absent: durability, elections and reads (`lessons.rs`), the paper's own rules (`figure2.rs`).

mod common;

use common::small_config;
use common::solo::{ME, Solo, answer, appends, heartbeat, id, log_after, rejected, result, to};
use ringraft_raft::{
    AppendOutcome, AppendResult, HardState, LogTerms, Membership, Memberships, Message, NodeId, ProgressState,
    ProposeError, RaftCore, Ready, Role,
};

// Logs.

#[test]
fn openraft_511_an_append_below_the_compaction_point_never_truncates() {
    let membership = Membership::new(vec![ME, NodeId(2), NodeId(3)]);
    let hard_state = HardState { current_term: 5, voted_for: None };
    let mut solo = Solo::with(membership, hard_state, log_after(id(3, 10), &[3, 4]));
    assert_eq!((solo.core.commit_index(), solo.core.first_index()), (10, 11));
    let held = AppendOutcome::Accepted { skip: 3, truncate_from: None };
    assert_eq!(solo.append(2, 5, id(2, 7), 0, &[2, 3, 3]), held, "all of it is compacted");
    let across = AppendOutcome::Accepted { skip: 4, truncate_from: None };
    assert_eq!(solo.append(2, 5, id(2, 8), 0, &[2, 3, 3, 4, 5]), across, "the compacted and the held part are skipped");
    assert_eq!(solo.terms(), [3, 4, 5]);
    assert_eq!(result(&solo.ready().after_flush), Some(AppendResult::Accepted { match_index: 13 }));
    assert_eq!(
        solo.append(2, 5, id(2, 8), 0, &[2, 2, 5]),
        AppendOutcome::Ignored,
        "it contradicts the compaction point"
    );
    assert_eq!((solo.terms(), solo.core.refused_conflicts()), (vec![3, 4, 5], 1));
}

#[test]
fn a_contradiction_to_committed_entries_is_refused_and_counted() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 1]);
    let _ = solo.append(2, 5, id(1, 3), 2, &[]);
    assert_eq!(solo.core.commit_index(), 2);
    assert_eq!(solo.append(2, 5, id(1, 1), 0, &[5]), AppendOutcome::Ignored);
    assert_eq!(solo.append(2, 5, id(4, 2), 0, &[5]), AppendOutcome::Ignored);
    assert_eq!((solo.terms(), solo.core.refused_conflicts()), (vec![1, 1, 1], 2));
    let outcome = solo.append(2, 5, id(1, 2), 0, &[5]);
    assert_eq!(outcome, AppendOutcome::Accepted { skip: 0, truncate_from: Some(3) }, "above it the leader decides");
}

#[test]
fn a_heartbeat_commits_only_what_the_follower_acknowledged() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let entry = solo.core.propose(10).unwrap();
    solo.flush();
    solo.accepted(2, entry.index);
    solo.ready();
    solo.tick(2);
    let ready = solo.ready();
    assert_eq!(to(2, &ready.messages), [heartbeat(5, 2, 0)]);
    assert_eq!(to(3, &ready.messages), [heartbeat(5, 1, 0)], "node 3 may hold another entry 2");
}

#[test]
fn a_leader_that_lacks_what_is_compacted_asks_for_a_snapshot_once_per_attempt() {
    let membership = Membership::new(vec![ME, NodeId(2), NodeId(3)]);
    let mut solo = Solo::with(membership, HardState { current_term: 5, voted_for: None }, log_after(id(3, 10), &[3]));
    solo.win();
    solo.ready();
    solo.step(2, Message::AppendEntriesResponse { term: 6, result: rejected(11, 0, 0, 0) });
    let ready = solo.ready();
    assert_eq!((ready.snapshots.clone(), appends(2, &ready)), (vec![NodeId(2)], vec![]));
    solo.step(2, Message::AppendEntriesResponse { term: 6, result: rejected(10, 0, 0, 0) });
    solo.step(2, Message::HeartbeatResponse { term: 6, read_sequence: 0, sent_us: 0, shield_us: 0 });
    let ready = solo.ready();
    assert!(ready.snapshots.is_empty() && appends(2, &ready).is_empty(), "it is on its way");
    solo.core.snapshot_failed(NodeId(2));
    assert!(solo.ready().snapshots.is_empty(), "not before it is heard again");
    solo.tick(1);
    solo.step(2, Message::HeartbeatResponse { term: 6, read_sequence: 0, sent_us: 0, shield_us: 0 });
    assert_eq!(solo.ready().snapshots, [NodeId(2)]);
    solo.accepted(2, 10);
    assert_eq!(appends(2, &solo.ready()), [(id(3, 10), 2)], "it holds the base now");
}

// Flow control and loss.

#[test]
fn late_and_repeated_answers_move_nothing_back() {
    let mut solo = Solo::settled_leader(3, 5, &[1, 1, 1]);
    (0..4).for_each(|_| assert!(solo.core.propose(10).is_ok()));
    solo.ready();
    solo.flush();
    solo.accepted(2, 7);
    let before: Vec<_> = solo.core.progress().collect();
    assert_eq!((before[0], solo.core.commit_index()), ((NodeId(2), 7, 9, ProgressState::Replicate), 7));
    solo.accepted(2, 5);
    solo.step(2, Message::AppendEntriesResponse { term: 5, result: rejected(6, 1, 1, 5) });
    solo.step(2, Message::AppendEntriesResponse { term: 5, result: rejected(40, 1, 1, 5) });
    solo.step(2, Message::AppendEntriesResponse { term: 4, result: rejected(8, 1, 1, 5) });
    solo.step(2, Message::AppendEntriesResponse { term: 4, result: AppendResult::Accepted { match_index: 8 } });
    solo.accepted(2, 99);
    solo.accepted(9, 8);
    assert_eq!(solo.core.progress().collect::<Vec<_>>(), before);
    assert_eq!(solo.core.commit_index(), 7);
}

#[test]
fn a_repeated_refusal_is_obeyed_once() {
    let mut solo = Solo::leader(3, 5, &[1; 20]);
    let refusal = Message::AppendEntriesResponse { term: 5, result: rejected(20, 1, 1, 9) };
    solo.step(2, refusal);
    assert_eq!(appends(2, &solo.ready()), [(id(1, 9), 10)]);
    solo.step(2, refusal);
    assert!(appends(2, &solo.ready()).is_empty());
}

#[test]
fn a_probe_sends_one_message_and_is_repeated_by_a_heartbeats_answer() {
    let mut solo = Solo::leader(3, 5, &[1]);
    assert!(solo.core.propose(10).is_ok());
    assert!(appends(2, &solo.ready()).is_empty(), "one is on the way");
    answer(&mut solo, 2, 0);
    assert!(appends(2, &solo.ready()).is_empty(), "not for every answer: reads make many of them");
    solo.tick(2);
    assert!(appends(2, &solo.ready()).is_empty());
    answer(&mut solo, 2, 0);
    assert_eq!(appends(2, &solo.ready()), [(id(1, 1), 2)]);
}

#[test]
fn a_stream_without_progress_starts_over_after_an_election_timeout() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    assert!(solo.core.propose(10).is_ok());
    assert_eq!(appends(2, &solo.ready()).len(), 1);
    for _ in 0..19 {
        solo.tick(1);
        answer(&mut solo, 2, 0);
        assert!(appends(2, &solo.ready()).is_empty());
    }
    solo.tick(1);
    assert_eq!(appends(2, &solo.ready()), [(id(5, 1), 1)]);
}

#[test]
fn an_unreachable_peer_gets_nothing_until_it_answers_a_heartbeat() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    assert!(solo.core.propose(10).is_ok());
    solo.ready();
    solo.core.unreachable(NodeId(2));
    assert!(solo.core.propose(10).is_ok());
    assert!(appends(2, &solo.ready()).is_empty());
    solo.tick(2);
    solo.ready();
    answer(&mut solo, 2, 0);
    assert_eq!(appends(2, &solo.ready()), [(id(5, 1), 2)], "all of it, from what was acknowledged");
}

#[test]
fn the_window_bounds_bytes_on_the_way_and_opens_with_answers() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    (0..60).for_each(|_| assert!(solo.core.propose(150).is_ok()));
    let sent: u32 = appends(2, &solo.ready()).iter().map(|(_, count)| count).sum();
    assert_eq!(sent, 26, "4,000 bytes of 150");
    solo.accepted(2, 7);
    assert_eq!(appends(2, &solo.ready()), [(id(5, 27), 6)]);
    let mut solo = Solo::settled_leader(3, 5, &[]);
    assert!(solo.core.propose(9_000).is_ok(), "one entry may always go, however large");
    assert_eq!(appends(2, &solo.ready()).len(), 1);
}

#[test]
fn uncommitted_bytes_are_bounded_and_one_entry_is_always_admitted() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    assert!(solo.core.propose(50_000).is_ok());
    assert_eq!(solo.core.propose(1), Err(ProposeError::Overloaded));
    assert_eq!(solo.core.uncommitted_bytes(), 50_000);
    solo.flush();
    solo.accepted(2, 2);
    assert!(solo.core.propose(4_000).is_ok() && solo.core.propose(6_000).is_ok());
    assert_eq!(solo.core.propose(1), Err(ProposeError::Overloaded));
}

/// A leader whose node 3 is `behind` entries of 100 bytes behind, `rate` of which come in, and are committed, in a tick.
fn leader_with_a_laggard(behind: u64, rate: u64) -> Solo {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    while solo.core.last().index < behind {
        busy_tick(&mut solo, rate);
    }
    solo
}

/// Entries come in and are committed with node 2; answers how many went to node 3.
fn busy_tick(solo: &mut Solo, rate: u64) -> u64 {
    (0..rate).for_each(|_| assert!(solo.core.propose(100).is_ok()));
    solo.tick(1);
    let sent = entries_to_3(solo);
    solo.flush();
    solo.accepted(2, solo.core.last().index);
    sent + entries_to_3(solo)
}

fn entries_to_3(solo: &mut Solo) -> u64 {
    appends(3, &solo.ready()).iter().map(|(_, count)| u64::from(*count)).sum()
}

/// Node 3 has what it was sent.
fn acknowledge(solo: &mut Solo) {
    let (_, _, next, state) = solo.core.progress().find(|(node, ..)| *node == NodeId(3)).expect("it has a node 3");
    if state == ProgressState::Replicate {
        return solo.accepted(3, next - 1);
    }
    answer(solo, 3, 0);
    let probe = appends(3, &solo.ready());
    probe.iter().for_each(|(prev, count)| solo.accepted(3, prev.index + u64::from(*count)));
}

#[test]
fn who_lags_gets_three_times_what_comes_in_and_catches_up() {
    let mut solo = leader_with_a_laggard(150, 10);
    for tick in 0.. {
        acknowledge(&mut solo);
        let sent = busy_tick(&mut solo, 10);
        if solo.core.progress().any(|(node, held, _, _)| node == NodeId(3) && held + 10 >= solo.core.commit_index()) {
            assert!(tick >= 4, "it was at once");
            break;
        }
        assert!(sent <= 3 * 10, "{sent} entries in tick {tick}");
        assert!(tick < 20, "it does not catch up");
    }
    acknowledge(&mut solo);
    busy_tick(&mut solo, 10);
    acknowledge(&mut solo);
    assert_eq!(busy_tick(&mut solo, 10), 10, "what comes in goes out at once");
}

#[test]
fn who_lags_gets_the_configured_rate_when_less_comes_in_and_a_long_entry_is_paid_for_by_the_next_ticks() {
    let mut solo = leader_with_a_laggard(150, 1);
    acknowledge(&mut solo);
    assert!((0..8).all(|_| {
        let sent = busy_tick(&mut solo, 1);
        acknowledge(&mut solo);
        sent == 3
    }));
    assert!(solo.core.propose(3_000).is_ok());
    let mut sent = Vec::new();
    for _ in 0..40 {
        acknowledge(&mut solo);
        sent.push(busy_tick(&mut solo, 1));
    }
    let long = sent.windows(9).any(|ticks| ticks[0] > 0 && ticks[1..].iter().all(|sent| *sent == 0));
    assert!(long, "{sent:?}");
}

#[test]
fn who_lags_is_not_held_back_when_it_is_needed_or_nothing_comes_in() {
    let mut needed = leader_with_a_laggard(150, 10);
    acknowledge(&mut needed);
    assert!(needed.core.propose(100).is_ok());
    needed.tick(16); // node 2 is gone: nothing is committed
    needed.ready();
    acknowledge(&mut needed);
    assert!(entries_to_3(&mut needed) > 3 * 10);
    let mut idle = leader_with_a_laggard(150, 10);
    acknowledge(&mut idle);
    idle.tick(16);
    idle.ready();
    acknowledge(&mut idle);
    assert!(entries_to_3(&mut idle) > 3 * 10);
}

#[test]
fn a_joint_group_needs_both_majorities() {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let membership = Membership::with(nodes(&[1, 2, 3]), nodes(&[1, 4, 5]), vec![]);
    let mut solo = Solo::with(membership, HardState::default(), LogTerms::new());
    solo.core.campaign();
    for peer in [2, 3] {
        solo.step(peer, Message::PreVoteResponse { term: 1, granted: true });
    }
    assert_eq!(solo.core.role(), Role::PreCandidate, "a majority of one set only");
    solo.step(4, Message::PreVoteResponse { term: 1, granted: true });
    assert_eq!(solo.core.role(), Role::Candidate);
}

#[test]
fn the_same_events_give_the_same_output() {
    let play = || {
        let config = small_config(ME, 99).validate().unwrap();
        let membership = Membership::new(vec![ME, NodeId(2), NodeId(3)]);
        let mut core = RaftCore::new(config, Memberships::new(membership), HardState::default(), LogTerms::new());
        let mut ready = Ready::new();
        let mut outputs = Vec::new();
        for _ in 0..500 {
            core.tick();
            core.ready(&mut ready);
            outputs.push(ready.clone());
        }
        outputs
    };
    assert_eq!(play(), play());
}
