//! Replicas that are made for a group, or come back to one: they know no members, and what they may vote for.
//!
//! Off the data path; tests only.

mod common;

use common::small_config;
use common::solo::{Solo, id, log_after};
use ringraft_raft::{
    AppendResult, EntryId, EntryMeta, HardState, IncomingEntries, Membership, Message, NodeId, ProgressState, Role,
};

fn nobody() -> Membership {
    Membership::new(Vec::new())
}

fn empty_replica(term: u64) -> Solo {
    Solo::with(nobody(), HardState { current_term: term, voted_for: None }, log_after(EntryId::ZERO, &[]))
}

fn vote_of(solo: &mut Solo, from: u64, term: u64, last: EntryId) -> bool {
    solo.step(from, Message::RequestVote { term, last, forced: false });
    solo.ready();
    let answers = solo.flush();
    let granted = |(_, message): &(NodeId, Message)| match message {
        Message::RequestVoteResponse { granted, .. } => Some(*granted),
        _ => None,
    };
    answers.iter().find_map(granted).expect("an answer")
}

fn pre_vote_of(solo: &mut Solo, from: u64, term: u64, last: EntryId) -> bool {
    solo.step(from, Message::PreVote { term, last });
    let ready = solo.ready();
    let granted = |(_, message): &(NodeId, Message)| match message {
        Message::PreVoteResponse { granted, .. } => Some(*granted),
        _ => None,
    };
    ready.messages.iter().chain(&ready.after_flush).find_map(granted).expect("an answer")
}

#[test]
fn a_replica_without_members_never_campaigns_whatever_it_hears() {
    let mut solo = empty_replica(0);
    for _ in 0..200 {
        solo.core.tick();
    }
    solo.core.campaign();
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 0));
    solo.step(2, Message::Heartbeat { term: 3, leader_commit: 0, read_sequence: 0, sent_us: 0 });
    solo.ready();
    solo.flush();
    solo.step(2, Message::TimeoutNow { term: 3 });
    solo.step(3, Message::RequestVoteResponse { term: 3, granted: true });
    solo.step(3, Message::PreVoteResponse { term: 4, granted: true });
    let ready = solo.ready();
    assert_eq!((solo.core.role(), solo.core.term(), ready.messages.len()), (Role::Follower, 3, 0));
}

#[test]
fn a_replica_without_members_takes_entries_and_learns_who_the_members_are() {
    let mut solo = empty_replica(0);
    let members = Membership::with(vec![NodeId(2)], Vec::new(), vec![NodeId(1)]);
    let entries = [EntryMeta { term: 3, length: 100 }, EntryMeta { term: 3, length: 100 }];
    let changes = [(2, members.clone())];
    let incoming =
        IncomingEntries { term: 3, prev: EntryId::ZERO, leader_commit: 1, entries: &entries, changes: &changes };
    let _ = solo.core.step_append(NodeId(2), &incoming);
    assert_eq!((solo.core.membership(), solo.core.commit_index()), (&members, 1));
    assert!(solo.core.memberships().at(1).voters().is_empty());
    for _ in 0..200 {
        solo.core.tick();
    }
    assert_eq!(solo.core.role(), Role::Follower, "a learner does not campaign either");
}

#[test]
fn a_replica_without_members_votes_as_any_voter_must() {
    // It may be a voter without knowing: its leader promoted it and died.
    let mut solo = empty_replica(0);
    assert!(pre_vote_of(&mut solo, 2, 1, id(0, 0)));
    assert!(vote_of(&mut solo, 2, 1, id(0, 0)));
}

#[test]
fn who_gave_a_log_up_votes_for_nobody_until_it_is_there_again() {
    let mut solo = Solo::with(
        Membership::new([1, 2, 3].map(NodeId).to_vec()),
        HardState { current_term: 5, voted_for: None },
        log_after(EntryId::ZERO, &[1, 1]),
    );
    solo.core.withhold_votes_until(id(5, 4));
    assert!(!pre_vote_of(&mut solo, 2, 6, id(4, 90)), "a stale node that needs a vote which was promised away");
    assert!(!vote_of(&mut solo, 2, 6, id(4, 90)));
    assert!(!vote_of(&mut solo, 3, 7, id(9, 900)), "nor for others: it cannot tell");
    for _ in 0..200 {
        solo.core.tick();
    }
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 7), "nor for itself");
    let _ = solo.append(3, 8, id(1, 2), 0, &[5]);
    solo.ready();
    solo.flush();
    (0..60).for_each(|_| solo.core.tick());
    assert!(!vote_of(&mut solo, 2, 9, id(8, 90)), "one entry is missing");
    let _ = solo.append(3, 10, id(5, 3), 0, &[5]);
    solo.ready();
    solo.flush();
    (0..60).for_each(|_| solo.core.tick());
    assert_eq!(solo.core.role(), Role::PreCandidate);
    assert!(!vote_of(&mut solo, 2, 11, id(4, 90)), "the candidate's log is behind now");
    assert!(vote_of(&mut solo, 2, 12, id(5, 4)));
}

#[test]
fn a_learner_that_begins_anew_is_fed_from_the_start_and_a_voter_is_not_believed() {
    for learner in [true, false] {
        let (voters, learners) = if learner { (vec![1, 2], vec![3]) } else { (vec![1, 2, 3], vec![]) };
        let [voters, learners] = [voters, learners].map(|ids| ids.into_iter().map(NodeId).collect::<Vec<_>>());
        let hard_state = HardState { current_term: 1, voted_for: None };
        let log = log_after(EntryId::ZERO, &[1, 1, 1, 1]);
        let mut solo = Solo::with(Membership::with(voters, Vec::new(), learners), hard_state, log);
        solo.win();
        solo.ready();
        solo.flush();
        let last = solo.core.last().index;
        solo.accepted(2, last);
        solo.accepted(3, last);
        solo.ready();
        assert!(solo.core.has_caught_up(NodeId(3), 0));
        let term = solo.core.term();
        let result =
            AppendResult::Rejected { prev_index: last, conflict_term: 0, conflict_first_index: 0, last_index: 0 };
        solo.step(3, Message::AppendEntriesResponse { term, result });
        let ready = solo.ready();
        let (_, matched, next, state) = solo.core.progress().find(|(node, ..)| *node == NodeId(3)).expect("a peer");
        if learner {
            assert_eq!((matched, next, state), (0, 1, ProgressState::Probe));
            let probed = |(to, message): &(NodeId, Message)| {
                *to == NodeId(3) && matches!(message, Message::AppendEntries { prev: EntryId::ZERO, .. })
            };
            assert!(ready.messages.iter().any(probed), "{:?}", ready.messages);
            assert!(!solo.core.has_caught_up(NodeId(3), 1_000_000));
        } else {
            assert_eq!((matched, state), (last, ProgressState::Replicate), "what a voter acknowledged stays counted");
        }
    }
}

#[test]
fn who_does_not_answer_has_not_caught_up() {
    let mut solo = Solo::settled_leader(3, 2, &[1, 1]);
    assert!(solo.core.has_caught_up(NodeId(2), 0) && solo.core.has_caught_up(NodeId(3), 0));
    assert!(!solo.core.has_caught_up(NodeId(1), 0) && !solo.core.has_caught_up(NodeId(9), 0));
    for _ in 0..small_config(NodeId(1), 7).election_ticks_max {
        solo.core.tick();
        solo.accepted(2, solo.core.last().index);
        solo.ready();
    }
    assert_eq!(solo.core.role(), Role::Leader);
    assert!(solo.core.has_caught_up(NodeId(2), 0));
    assert!(!solo.core.has_caught_up(NodeId(3), 0), "it may be gone");
}
