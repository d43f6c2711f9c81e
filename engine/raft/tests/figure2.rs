//! One test per rule of figure 2 of the Raft paper ("Condensed summary of the Raft consensus algorithm").
//!
//! Off the data path; tests only. The names follow the figure, box by box.
//!
//! Deliberately absent: what the figure does not say (pre-vote, check-quorum, ReadIndex, durability): `lessons.rs`.

mod common;

use common::solo::{ME, Solo, heartbeat, id, log_after, result, to, vote};
use ringraft_raft::{
    AppendOutcome, AppendResult, EntryId, HardState, Membership, Message, NodeId, ProgressState, ProposeError, Role,
};

fn request_vote(term: u64, last: EntryId) -> Message {
    Message::RequestVote { term, last, forced: false }
}

fn accepted(match_index: u64) -> Option<AppendResult> {
    Some(AppendResult::Accepted { match_index })
}

// State: initialised as the figure says, persistent before an answer.

#[test]
fn state_starts_at_zero_and_a_server_begins_as_a_follower() {
    let mut solo = Solo::new(3, 0, &[]);
    assert_eq!((solo.core.role(), solo.core.term(), solo.core.commit_index()), (Role::Follower, 0, 0));
    assert_eq!((solo.core.last(), solo.core.first_index(), solo.core.leader()), (EntryId::ZERO, 1, None));
    assert!(solo.ready().is_empty(), "nothing to do before anything happened");
}

#[test]
fn persistent_state_is_updated_before_responding_to_a_vote() {
    let mut solo = Solo::new(3, 1, &[1]);
    solo.step(2, request_vote(2, id(1, 1)));
    let ready = solo.ready();
    assert_eq!(ready.hard_state, Some(HardState { current_term: 2, voted_for: Some(NodeId(2)) }));
    assert!(ready.messages.is_empty(), "the answer waits for the disk");
    assert_eq!(vote(&ready.after_flush), Some((2, true)));
}

#[test]
fn persistent_state_is_updated_before_responding_to_an_append() {
    let mut solo = Solo::new(3, 1, &[1]);
    let outcome = solo.append(2, 3, id(1, 1), 0, &[3]);
    assert_eq!(outcome, AppendOutcome::Accepted { skip: 0, truncate_from: None });
    let ready = solo.ready();
    assert_eq!(ready.hard_state.map(|hard_state| hard_state.current_term), Some(3));
    assert!(ready.messages.is_empty(), "the answer waits for the disk");
    assert_eq!(result(&ready.after_flush), accepted(2));
}

#[test]
fn a_leader_starts_with_next_index_after_its_last_entry_and_match_index_zero() {
    let solo = Solo::leader(3, 5, &[1, 2, 2]);
    let progress: Vec<_> = solo.core.progress().collect();
    let probe = ProgressState::Probe;
    assert_eq!(progress, [(NodeId(2), 0, 4, probe), (NodeId(3), 0, 4, probe)], "4 is the no-op: last + 1 before it");
}

// AppendEntries, receiver implementation.

#[test]
fn append_1_reply_false_if_the_term_is_past() {
    let mut solo = Solo::follower(3, 5, &[1]);
    assert_eq!(solo.append(3, 4, id(1, 1), 1, &[4]), AppendOutcome::Ignored);
    let ready = solo.ready();
    let [(NodeId(3), Message::AppendEntriesResponse { term: 5, result: AppendResult::Rejected { .. } })] =
        ready.messages[..]
    else {
        panic!("told the term: {ready:?}");
    };
    assert_eq!((solo.core.leader(), solo.core.commit_index(), solo.terms()), (Some(NodeId(2)), 0, vec![1]));
}

#[test]
fn append_2_reply_false_if_the_log_is_too_short_or_differs_at_prev() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 3, 3]);
    for prev in [id(5, 9), id(4, 4), id(4, 3)] {
        assert_eq!(solo.append(2, 5, prev, 0, &[5]), AppendOutcome::Ignored);
        let refused = result(&solo.ready().messages);
        assert!(
            matches!(refused, Some(AppendResult::Rejected { prev_index, last_index: 4, .. }) if prev_index == prev.index)
        );
    }
    assert_eq!(solo.terms(), [1, 1, 3, 3]);
}

#[test]
fn append_3_a_conflicting_entry_goes_with_all_that_follow_it() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 3, 3, 3]);
    let outcome = solo.append(2, 5, id(1, 1), 0, &[1, 4, 5]);
    assert_eq!(outcome, AppendOutcome::Accepted { skip: 1, truncate_from: Some(3) });
    assert_eq!(solo.terms(), [1, 1, 4, 5]);
    assert_eq!(solo.core.durable_index(), 2, "what replaced it is not durable yet");
}

#[test]
fn append_3_without_a_conflict_nothing_is_truncated() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 3, 3, 3]);
    assert_eq!(solo.append(2, 5, id(1, 1), 0, &[1, 3]), AppendOutcome::Accepted { skip: 2, truncate_from: None });
    assert_eq!(solo.append(2, 5, id(1, 2), 0, &[]), AppendOutcome::Accepted { skip: 0, truncate_from: None });
    assert_eq!(solo.terms(), [1, 1, 3, 3, 3], "a late message must not drop what came after it");
    assert_eq!(solo.core.durable_index(), 5);
}

#[test]
fn append_4_entries_not_yet_in_the_log_are_appended() {
    let mut solo = Solo::follower(3, 5, &[1, 1]);
    assert_eq!(solo.append(2, 5, id(1, 1), 0, &[1, 5, 5]), AppendOutcome::Accepted { skip: 1, truncate_from: None });
    assert_eq!(solo.core.last(), id(5, 4));
    assert_eq!(result(&solo.ready().after_flush), accepted(4));
}

#[test]
fn append_5_commit_is_the_lower_of_leader_commit_and_the_last_new_entry() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 1, 1]);
    let _ = solo.append(2, 5, id(1, 1), 4, &[1]);
    assert_eq!(solo.core.commit_index(), 2, "entries 3 and 4 may be of another leader");
    let _ = solo.append(2, 5, id(1, 2), 3, &[1, 1]);
    assert_eq!(solo.core.commit_index(), 3);
    let _ = solo.append(2, 5, id(1, 2), 1, &[1, 1]);
    assert_eq!(solo.core.commit_index(), 3, "it never falls");
    assert_eq!(solo.ready().commit_index, Some(3));
}

// RequestVote, receiver implementation.

#[test]
fn vote_1_reply_false_if_the_term_is_past() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.step(2, request_vote(4, id(4, 9)));
    assert_eq!(vote(&solo.ready().after_flush), Some((5, false)));
}

#[test]
fn vote_2_one_vote_per_term_and_the_same_again_for_the_same_candidate() {
    let mut solo = Solo::new(3, 1, &[1]);
    for (candidate, granted) in [(2, true), (3, false), (2, true)] {
        solo.step(candidate, request_vote(2, id(1, 1)));
        assert_eq!(vote(&solo.ready().after_flush), Some((2, granted)), "candidate {candidate}");
    }
    assert_eq!(solo.core.hard_state().voted_for, Some(NodeId(2)));
}

#[test]
fn vote_2_only_for_a_log_at_least_as_up_to_date() {
    let cases = [(id(2, 9), false), (id(3, 2), false), (id(3, 3), true), (id(3, 4), true), (id(4, 1), true)];
    for (last, granted) in cases {
        let mut solo = Solo::new(3, 4, &[1, 2, 3]);
        solo.step(2, request_vote(5, last));
        assert_eq!(vote(&solo.ready().after_flush), Some((5, granted)), "{last}");
        assert_eq!(solo.core.term(), 5, "the term counts either way");
    }
}

#[test]
fn vote_2_a_vote_survives_a_restart() {
    let hard_state = HardState { current_term: 2, voted_for: Some(NodeId(3)) };
    let membership = Membership::new(vec![ME, NodeId(2), NodeId(3)]);
    let mut solo = Solo::with(membership, hard_state, log_after(EntryId::ZERO, &[1]));
    solo.step(2, request_vote(2, id(1, 1)));
    assert_eq!(vote(&solo.ready().after_flush), Some((2, false)));
    solo.step(3, request_vote(2, id(1, 1)));
    assert_eq!(vote(&solo.ready().after_flush), Some((2, true)));
}

// Rules for servers: all.

#[test]
fn all_servers_apply_what_is_committed_in_order() {
    let mut solo = Solo::follower(3, 5, &[1, 1, 1]);
    let _ = solo.append(2, 5, id(1, 1), 2, &[1]);
    assert_eq!(solo.ready().commit_index, Some(2));
    assert_eq!(solo.ready().commit_index, None, "told once");
    let _ = solo.append(2, 5, id(1, 3), 3, &[5]);
    assert_eq!(solo.ready().commit_index, Some(3));
}

#[test]
fn all_servers_take_a_higher_term_and_become_followers() {
    let higher = [
        heartbeat(9, 0, 0),
        Message::HeartbeatResponse { term: 9, read_sequence: 0, sent_us: 0, shield_us: 0 },
        Message::AppendEntries { term: 9, prev: EntryId::ZERO, leader_commit: 0, count: 0 },
        Message::AppendEntriesResponse { term: 9, result: AppendResult::Accepted { match_index: 1 } },
        Message::RequestVoteResponse { term: 9, granted: false },
        Message::RequestVoteResponse { term: 9, granted: true },
        Message::PreVoteResponse { term: 9, granted: false },
    ];
    for message in higher {
        let mut leader = Solo::leader(3, 5, &[1]);
        leader.step(2, message);
        assert_eq!((leader.core.role(), leader.core.term()), (Role::Follower, 9), "{message:?}");
        let ready = leader.ready();
        assert!(ready.reads_failed);
        assert_eq!(ready.hard_state, Some(HardState { current_term: 9, voted_for: None }));
    }
}

// Rules for servers: followers.

#[test]
fn followers_respond_to_candidates_and_leaders_only_when_asked() {
    let mut solo = Solo::follower(3, 5, &[1]);
    solo.tick(9);
    assert!(solo.ready().is_empty());
    assert!(matches!(solo.core.propose(1), Err(ProposeError::NotLeader { leader: Some(NodeId(2)) })));
}

#[test]
fn followers_convert_to_candidates_after_an_election_timeout_of_silence() {
    let mut solo = Solo::follower(3, 5, &[1]);
    solo.tick(9);
    assert_eq!(solo.core.role(), Role::Follower, "never before election_ticks_min");
    solo.tick(11);
    assert_ne!(solo.core.role(), Role::Follower, "always by election_ticks_max");
}

#[test]
fn followers_restart_the_timeout_for_the_leader_and_for_a_vote_given() {
    for rounds in 0..10 {
        let mut solo = Solo::follower(3, 5, &[1]);
        for _ in 0..rounds {
            solo.tick(9);
            let _ = solo.append(2, 5, id(1, 1), 0, &[]);
            solo.tick(9);
            solo.step(2, heartbeat(5, 0, 0));
        }
        solo.tick(9);
        assert_eq!(solo.core.role(), Role::Follower);
    }
    let mut solo = Solo::new(3, 5, &[1]);
    solo.tick(9);
    solo.step(3, request_vote(6, id(1, 1)));
    solo.tick(9);
    assert_eq!(solo.core.role(), Role::Follower);
}

#[test]
fn followers_do_not_restart_the_timeout_for_a_vote_refused() {
    let mut solo = Solo::new(3, 5, &[1, 5]);
    let mut campaigned = false;
    for term in 6..26 {
        solo.core.tick();
        campaigned |= solo.core.role() == Role::PreCandidate;
        solo.step(3, request_vote(term, id(1, 1)));
        solo.ready();
        solo.flush();
    }
    assert!(campaigned);
}

// Rules for servers: candidates.

#[test]
fn candidates_raise_the_term_vote_for_themselves_and_ask_everyone() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Candidate, 6));
    let ready = solo.ready();
    assert_eq!(ready.hard_state, Some(HardState { current_term: 6, voted_for: Some(ME) }));
    for peer in [2, 3] {
        assert_eq!(to(peer, &ready.after_flush), [request_vote(6, id(1, 1))]);
    }
}

#[test]
fn candidates_become_leaders_with_votes_from_a_majority() {
    let mut solo = Solo::new(5, 5, &[1]);
    solo.core.campaign();
    for peer in [2, 3] {
        solo.step(peer, Message::PreVoteResponse { term: 6, granted: true });
    }
    solo.ready();
    solo.flush();
    for (peer, role) in [(2, Role::Candidate), (2, Role::Candidate), (3, Role::Leader)] {
        solo.step(peer, Message::RequestVoteResponse { term: 6, granted: true });
        assert_eq!(solo.core.role(), role, "a repeated vote counts once");
    }
}

#[test]
fn candidates_lose_when_a_majority_refuses() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    solo.ready();
    solo.flush();
    solo.step(2, Message::RequestVoteResponse { term: 6, granted: false });
    assert_eq!(solo.core.role(), Role::Candidate);
    solo.step(3, Message::RequestVoteResponse { term: 6, granted: false });
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 6));
}

#[test]
fn candidates_become_followers_of_a_new_leader_of_their_term() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    assert_eq!(solo.core.role(), Role::Candidate);
    let outcome = solo.append(3, 6, id(1, 1), 0, &[6]);
    assert!(matches!(outcome, AppendOutcome::Accepted { .. }));
    assert_eq!((solo.core.role(), solo.core.leader()), (Role::Follower, Some(NodeId(3))));
    assert_eq!(solo.core.hard_state().voted_for, Some(ME), "the vote of the term stays given");
}

#[test]
fn candidates_start_a_new_election_after_a_timeout() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    solo.ready();
    solo.flush();
    solo.tick(20);
    assert_eq!((solo.core.role(), solo.core.term()), (Role::PreCandidate, 6));
    assert_eq!(to(2, &solo.ready().messages), [Message::PreVote { term: 7, last: id(1, 1) }; 1]);
}

// Rules for servers: leaders.

#[test]
fn leaders_announce_themselves_at_once_and_again_in_time() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.win();
    let ready = solo.ready();
    assert_eq!(ready.noop, Some(id(6, 2)));
    assert_eq!(ready.role, Some((Role::Leader, Some(ME), 6)));
    let announcement = Message::AppendEntries { term: 6, prev: id(1, 1), leader_commit: 0, count: 1 };
    assert_eq!([to(2, &ready.messages), to(3, &ready.messages)], [[announcement]; 2]);
    solo.tick(2);
    assert_eq!(to(2, &solo.ready().messages), [heartbeat(6, 0, 0)]);
    solo.tick(1);
    assert!(solo.ready().is_empty());
}

#[test]
fn leaders_append_what_is_proposed_and_it_is_applied_when_committed() {
    let mut solo = Solo::settled_leader(3, 5, &[1]);
    assert_eq!(solo.core.propose(100), Ok(id(5, 3)));
    let ready = solo.ready();
    assert_eq!(ready.commit_index, None);
    let append = Message::AppendEntries { term: 5, prev: id(5, 2), leader_commit: 2, count: 1 };
    assert_eq!(to(3, &ready.messages), [append]);
    solo.flush();
    solo.accepted(3, 3);
    assert_eq!(solo.ready().commit_index, Some(3));
}

#[test]
fn leaders_send_from_next_index_whatever_a_follower_lacks() {
    let mut solo = Solo::settled_leader(3, 5, &[1]);
    (0..25).for_each(|_| assert!(solo.core.propose(100).is_ok()));
    let counts: Vec<u32> = to(2, &solo.ready().messages).iter().map(count).collect();
    assert_eq!(counts, [10, 10, 5], "1,000 bytes a message");
}

#[test]
fn leaders_raise_next_and_match_index_on_success() {
    let mut solo = Solo::leader(3, 5, &[1, 1]);
    solo.accepted(2, 3);
    assert_eq!(solo.core.progress().next(), Some((NodeId(2), 3, 4, ProgressState::Replicate)));
}

#[test]
fn leaders_lower_next_index_and_retry_after_inconsistency() {
    // The follower's log is 1 1 2 2 2 2, the leader's 1 1 3 3 and its no-op.
    let mut solo = Solo::leader(3, 5, &[1, 1, 3, 3]);
    let refused = AppendResult::Rejected { prev_index: 4, conflict_term: 2, conflict_first_index: 3, last_index: 6 };
    solo.step(2, Message::AppendEntriesResponse { term: 5, result: refused });
    assert_eq!(solo.core.progress().next(), Some((NodeId(2), 0, 3, ProgressState::Probe)));
    let retry = Message::AppendEntries { term: 5, prev: id(1, 2), leader_commit: 0, count: 3 };
    assert_eq!(to(2, &solo.ready().messages), [retry]);
}

#[test]
fn leaders_commit_by_counting_only_in_their_own_term() {
    // Figure 8: entry 2 is of term 2 and on a majority, and still not committed by that.
    let mut solo = Solo::leader(5, 4, &[1, 2]);
    solo.flush();
    for peer in [2, 3, 4, 5] {
        solo.accepted(peer, 2);
    }
    assert_eq!(solo.core.commit_index(), 0);
    solo.accepted(2, 3);
    assert_eq!(solo.core.commit_index(), 0);
    solo.accepted(3, 3);
    assert_eq!(solo.core.commit_index(), 3, "the no-op is of term 4 and takes what is before it along");
}

#[test]
fn leaders_commit_with_a_majority_and_not_before() {
    let mut solo = Solo::settled_leader(5, 4, &[1]);
    assert_eq!(solo.core.propose(10), Ok(id(4, 3)));
    solo.ready();
    solo.flush();
    solo.accepted(2, 3);
    assert_eq!(solo.core.commit_index(), 2);
    solo.accepted(5, 3);
    assert_eq!(solo.core.commit_index(), 3);
}

#[test]
fn leaders_never_truncate_their_own_log() {
    let mut solo = Solo::leader(3, 5, &[1, 1]);
    assert_eq!(solo.append(2, 5, id(1, 1), 0, &[5]), AppendOutcome::Ignored, "a second leader of the term cannot be");
    assert_eq!(solo.append(2, 4, id(1, 1), 0, &[4]), AppendOutcome::Ignored);
    assert_eq!((solo.terms(), solo.core.role()), (vec![1, 1, 5], Role::Leader));
}

#[test]
fn whatever_is_malformed_is_ignored() {
    let mut solo = Solo::follower(3, 5, &[1, 1]);
    let falling = solo.append(2, 5, id(1, 2), 0, &[4, 3]);
    let ahead = solo.append(2, 5, id(1, 2), 0, &[6]);
    let below_prev = solo.append(2, 5, id(3, 2), 0, &[2]);
    let overflow = solo.append(2, 5, id(1, u64::MAX - 1), 0, &[5, 5]);
    let term_max = solo.append(2, u64::MAX, id(1, 2), 0, &[5]);
    let own = solo.append(ME.0, 6, id(1, 2), 0, &[5]);
    assert_eq!([falling, ahead, below_prev, overflow, term_max, own], [AppendOutcome::Ignored; 6]);
    solo.step(2, heartbeat(u64::MAX, 9, 9));
    solo.step(2, Message::AppendEntries { term: 6, prev: id(1, 2), leader_commit: 2, count: 3 });
    assert_eq!((solo.core.term(), solo.terms()), (5, vec![1, 1]));
}

fn count(message: &Message) -> u32 {
    match message {
        Message::AppendEntries { count, .. } => *count,
        _ => 0,
    }
}
