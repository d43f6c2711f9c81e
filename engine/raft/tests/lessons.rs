//! One test per rule that others got wrong: `engine/ARCHITECTURE.md` and the issues named beside each test.
//!
//! Off the data path; tests only.
//!
//! Deliberately absent: logs and flow control (`flow.rs`), the paper's own rules (`figure2.rs`), rules of the host.

mod common;

use common::Cluster;
use common::solo::{ME, Solo, answer, heartbeat, id, log_after, result, to, vote};
use ringraft_raft::{
    AppendOutcome, AppendResult, EntryId, HardState, LogTerms, Membership, Message, NodeId, ProposeError, ReadError,
    Role,
};

// Durability.

#[test]
fn etcd_14370_a_group_of_one_commits_only_what_is_durable() {
    let mut solo = Solo::new(1, 0, &[]);
    solo.core.campaign();
    assert_eq!(solo.core.role(), Role::Candidate, "its vote is on no disk yet");
    let hard_state = solo.ready().hard_state.unwrap();
    assert_eq!(solo.core.role(), Role::Candidate);
    solo.core.hard_state_durable(hard_state);
    assert_eq!(solo.core.role(), Role::Leader);
    assert_eq!((solo.ready().noop, solo.core.commit_index()), (Some(id(1, 1)), 0));
    let entry = solo.core.propose(100).unwrap();
    assert_eq!((solo.ready().commit_index, solo.core.commit_index()), (None, 0));
    solo.core.durable(id(1, 1));
    assert_eq!(solo.ready().commit_index, Some(1));
    solo.core.durable(entry);
    assert_eq!(solo.ready().commit_index, Some(2));
}

#[test]
fn etcd_14370_the_leaders_own_disk_counts_like_any_other() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let entry = solo.core.propose(100).unwrap();
    solo.ready();
    solo.accepted(2, entry.index);
    assert_eq!(solo.core.commit_index(), 1, "one disk of three, whatever the leader has sent");
    solo.core.durable(entry);
    assert_eq!(solo.core.commit_index(), entry.index);
}

#[test]
fn a_majority_of_followers_commits_without_the_leaders_disk() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let entry = solo.core.propose(100).unwrap();
    solo.accepted(2, entry.index);
    solo.accepted(3, entry.index);
    assert_eq!((solo.core.commit_index(), solo.core.durable_index()), (entry.index, 1));
}

#[test]
fn the_hard_state_is_durable_before_anything_of_its_term_is_answered() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.step(2, heartbeat(6, 0, 3));
    let _ = solo.append(2, 6, id(5, 4), 0, &[]);
    let ready = solo.ready();
    assert!(ready.messages.is_empty(), "term 6 is on no disk");
    assert_eq!(ready.after_flush.len(), 2);
    solo.flush();
    solo.step(2, heartbeat(6, 0, 4));
    let _ = solo.append(2, 6, id(5, 4), 0, &[]);
    let ready = solo.ready();
    assert_eq!(ready.messages.len(), 2, "now heartbeats and refusals are answered at once");
    assert!(ready.after_flush.is_empty());
}

#[test]
fn an_append_is_never_acknowledged_before_the_flush_even_when_nothing_is_new() {
    let mut solo = Solo::follower(3, 5, &[1, 1]);
    let _ = solo.append(2, 5, id(1, 1), 0, &[1]);
    let ready = solo.ready();
    assert!(ready.messages.is_empty());
    assert_eq!(result(&ready.after_flush), Some(AppendResult::Accepted { match_index: 2 }));
}

#[test]
fn a_candidate_asks_for_votes_only_when_its_own_vote_and_log_are_durable() {
    // Otherwise it may forget the log it asked with, ask again in the same term, and win with the late answers.
    let mut solo = Solo::follower(3, 5, &[1]);
    let _ = solo.append(2, 5, id(1, 1), 0, &[5]);
    solo.ready();
    solo.tick(10);
    solo.core.campaign();
    solo.step(3, Message::PreVoteResponse { term: 6, granted: true });
    let ready = solo.ready();
    assert!(ready.messages.iter().all(|(_, message)| !matches!(message, Message::RequestVote { .. })));
    assert_eq!(to(3, &ready.after_flush), [Message::RequestVote { term: 6, last: id(5, 2), forced: false }]);
}

#[test]
fn a_candidate_never_wins_before_its_own_vote_is_durable() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    let hard_state = solo.ready().hard_state.unwrap();
    for peer in [2, 3] {
        solo.step(peer, Message::RequestVoteResponse { term: 6, granted: true });
        assert_eq!(solo.core.role(), Role::Candidate, "two votes of others are a majority, and not enough");
    }
    solo.core.hard_state_durable(HardState { current_term: 6, voted_for: None });
    assert_eq!(solo.core.role(), Role::Candidate, "the term is not the vote");
    solo.core.hard_state_durable(hard_state);
    assert_eq!(solo.core.role(), Role::Leader);
}

#[test]
fn a_node_whose_disk_is_behind_starts_no_further_election() {
    let mut solo = Solo::new(1, 5, &[]);
    solo.core.campaign();
    solo.tick(500);
    assert_eq!(
        (solo.core.role(), solo.core.term()),
        (Role::Candidate, 6),
        "terms are not burnt while the disk is slow"
    );
}

#[test]
fn durability_of_a_replaced_entry_does_not_count() {
    let mut solo = Solo::follower(3, 5, &[1]);
    let _ = solo.append(2, 5, id(1, 1), 0, &[5, 5]);
    solo.ready();
    let _ = solo.append(3, 6, id(1, 1), 0, &[6, 6]);
    solo.core.durable(id(5, 3));
    assert_eq!(solo.core.durable_index(), 1, "what is on disk was replaced");
    solo.core.durable(id(6, 2));
    assert_eq!(solo.core.durable_index(), 2);
    solo.core.durable(id(6, 1));
    solo.core.durable(id(6, 9));
    assert_eq!(solo.core.durable_index(), 2, "neither back nor beyond the log");
}

#[test]
fn a_new_leader_counts_itself_up_to_its_durable_index() {
    let mut solo = Solo::leader(3, 5, &[1, 1]);
    assert_eq!(solo.core.durable_index(), 2);
    solo.accepted(2, 3);
    assert_eq!(solo.core.commit_index(), 0);
    solo.core.durable(id(5, 3));
    assert_eq!(solo.core.commit_index(), 3);
}

#[test]
fn the_latest_append_response_replaces_the_one_before() {
    let mut solo = Solo::follower(3, 5, &[1]);
    let _ = solo.append(2, 5, id(1, 1), 0, &[5, 5, 5]);
    let _ = solo.append(2, 5, id(1, 1), 0, &[5]);
    let ready = solo.ready();
    let response = Message::AppendEntriesResponse { term: 5, result: AppendResult::Accepted { match_index: 4 } };
    assert_eq!(ready.after_flush, [(NodeId(2), response)], "one, and a repeated append does not lower it");
}

#[test]
fn a_log_ahead_of_its_hard_state_restarts_in_the_logs_term_without_a_vote() {
    let membership = Membership::new(vec![ME, NodeId(2), NodeId(3)]);
    let recovered = HardState { current_term: 4, voted_for: Some(NodeId(3)) };
    let mut solo = Solo::with(membership, recovered, log_after(EntryId::ZERO, &[1, 5]));
    let raised = HardState { current_term: 5, voted_for: None };
    assert_eq!(solo.core.hard_state(), raised);
    solo.step(2, heartbeat(5, 0, 0));
    let ready = solo.ready();
    assert_eq!(ready.hard_state, Some(raised));
    assert!(ready.messages.is_empty(), "the raised term is on no disk yet");
}

// Elections.

#[test]
fn openraft_1220_a_seen_vote_is_not_a_granted_vote() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    solo.ready();
    solo.flush();
    solo.step(2, Message::RequestVoteResponse { term: 7, granted: true });
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 7));
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.campaign();
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    solo.ready();
    solo.flush();
    for term in [4, 5] {
        solo.step(2, Message::RequestVoteResponse { term, granted: true });
    }
    solo.step(2, Message::PreVoteResponse { term: 6, granted: true });
    solo.step(9, Message::RequestVoteResponse { term: 6, granted: true });
    assert_eq!(solo.core.role(), Role::Candidate, "past terms, pre-votes and strangers elect nobody");
}

#[test]
fn a_pre_vote_changes_neither_term_nor_vote_nor_role() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.tick(5);
    solo.step(2, Message::PreVote { term: 6, last: id(1, 1) });
    let ready = solo.ready();
    assert_eq!(vote(&ready.messages), Some((6, true)));
    assert_eq!((ready.hard_state, ready.role), (None, None));
    solo.step(3, Message::PreVote { term: 6, last: id(1, 1) });
    assert_eq!(vote(&solo.ready().messages), Some((6, true)), "it promises nothing, so everyone gets it");
    solo.tick(15);
    assert_eq!(solo.core.role(), Role::PreCandidate, "and it does not postpone the own election");
}

#[test]
fn a_pre_candidate_stays_in_its_term_however_often_it_asks() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.tick(500);
    let ready = solo.ready();
    assert_eq!((solo.core.role(), solo.core.term(), ready.hard_state), (Role::PreCandidate, 5, None));
}

#[test]
fn a_pre_vote_is_refused_for_an_old_log_or_term() {
    let mut solo = Solo::new(3, 5, &[1, 5]);
    for (term, last) in [(5, id(5, 9)), (4, id(5, 9)), (6, id(5, 1)), (6, id(4, 9))] {
        solo.step(2, Message::PreVote { term, last });
        assert_eq!(vote(&solo.ready().messages), Some((5, false)), "{term} {last}");
    }
}

#[test]
fn whoever_hears_a_leader_refuses_pre_votes_and_ignores_votes() {
    // thesis 4.2.3: not even the term is taken over.
    let mut solo = Solo::follower(3, 5, &[1]);
    solo.tick(9);
    solo.step(3, Message::PreVote { term: 9, last: id(8, 9) });
    solo.step(3, Message::RequestVote { term: 9, last: id(8, 9), forced: false });
    let ready = solo.ready();
    assert_eq!(vote(&ready.messages), Some((5, false)));
    assert!(ready.after_flush.is_empty() && solo.core.term() == 5);
    solo.tick(1);
    solo.step(3, Message::RequestVote { term: 9, last: id(8, 9), forced: false });
    assert_eq!(vote(&solo.ready().after_flush), Some((9, true)), "after election_ticks_min of silence it helps");
}

#[test]
fn a_leader_refuses_pre_votes_and_ignores_votes() {
    let mut solo = Solo::settled_leader(3, 5, &[1]);
    solo.step(3, Message::PreVote { term: 9, last: id(8, 9) });
    solo.step(3, Message::RequestVote { term: 9, last: id(8, 9), forced: false });
    assert_eq!(vote(&solo.ready().messages), Some((5, false)));
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Leader, 5));
}

#[test]
fn check_quorum_an_isolated_leader_steps_down_by_itself() {
    let mut solo = Solo::settled_leader(5, 5, &[1]);
    for _ in 0..10 {
        solo.tick(10);
        for peer in [2, 3] {
            answer(&mut solo, peer, 0);
        }
    }
    assert_eq!(solo.core.role(), Role::Leader, "two followers and itself are a majority of five");
    for _ in 0..2 {
        solo.tick(10);
        answer(&mut solo, 2, 0);
    }
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 5));
    assert!(solo.ready().reads_failed);
}

#[test]
fn a_node_stuck_in_a_higher_term_tells_the_leader_and_is_not_left_behind() {
    let mut solo = Solo::new(3, 9, &[1]);
    solo.step(2, heartbeat(5, 0, 0));
    let _ = solo.append(2, 5, id(1, 1), 0, &[5]);
    let ready = solo.ready();
    assert!(ready.messages.iter().all(|(to, message)| *to == NodeId(2) && message.term() == 9));
    assert_eq!(ready.messages.len(), 2);
}

#[test]
fn a_partitioned_node_neither_inflates_terms_nor_deposes_the_leader() {
    let mut cluster = Cluster::new(3, 5);
    cluster.elect(1);
    for peer in [1, 2] {
        cluster.cut.extend([(NodeId(3), NodeId(peer)), (NodeId(peer), NodeId(3))]);
    }
    for _ in 0..200 {
        cluster.tick_all();
        cluster.settle();
    }
    cluster.cut.clear();
    for _ in 0..200 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!((cluster.core(1).role(), cluster.core(1).term()), (Role::Leader, 1));
    assert_eq!(cluster.core(3).leader(), Some(NodeId(1)));
}

#[test]
fn restart_is_as_a_follower_that_serves_nothing() {
    // openraft #1511, Raft 5.2: a leader that comes back leads no more, and knows no commit index.
    let mut cluster = Cluster::new(1, 5);
    cluster.elect(1);
    cluster.propose(1, 10).unwrap();
    cluster.settle();
    cluster.crash(NodeId(1), 0);
    cluster.start(NodeId(1));
    assert_eq!((cluster.core(1).role(), cluster.core(1).commit_index()), (Role::Follower, 0));
    assert_eq!(cluster.core(1).read_index(), Err(ReadError::NotLeader { leader: None }));
    assert_eq!(cluster.core(1).propose(10), Err(ProposeError::NotLeader { leader: None }));
    (0..10).for_each(|_| cluster.tick(NodeId(1)));
    cluster.elect(1);
    assert_eq!(cluster.core(1).commit_index(), 3, "its no-op commits what was there");
}

#[test]
fn etcd_15247_a_leader_told_that_its_disk_is_stuck_steps_down() {
    let mut solo = Solo::settled_leader(3, 5, &[1]);
    solo.core.read_index().unwrap();
    solo.core.step_down();
    let ready = solo.ready();
    assert_eq!(ready.role, Some((Role::Follower, None, 5)));
    assert!(ready.reads_failed && ready.messages.is_empty(), "no heartbeat any more");
    solo.tick(9);
    assert_eq!(solo.core.role(), Role::Follower, "others get the first chance");
}

#[test]
fn a_no_op_that_was_replaced_before_the_host_saw_it_is_never_told() {
    let mut solo = Solo::new(3, 5, &[1]);
    solo.win();
    assert_eq!(solo.core.propose(10), Err(ProposeError::NotLeader { leader: None }), "not before the no-op is told");
    let outcome = solo.append(2, 7, id(1, 1), 0, &[7]);
    assert_eq!(outcome, AppendOutcome::Accepted { skip: 0, truncate_from: Some(2) });
    assert_eq!(solo.ready().noop, None);
}

// Reads.

#[test]
fn etcd_7331_a_new_leader_answers_no_read_before_it_committed_in_its_term() {
    let mut solo = Solo::leader(3, 5, &[1, 1]);
    solo.flush();
    assert_eq!(solo.core.read_index(), Err(ReadError::NotReady));
    solo.accepted(2, 2);
    assert_eq!(solo.core.read_index(), Err(ReadError::NotReady), "only old entries are on a majority");
    solo.accepted(2, 3);
    assert!(solo.core.read_index().is_ok());
}

#[test]
fn etcd_20418_late_answers_of_an_old_round_confirm_no_later_one() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let first = solo.core.read_index().unwrap();
    solo.ready();
    let second = solo.core.read_index().unwrap();
    assert_ne!(first, second, "a context is never given twice");
    solo.ready();
    answer(&mut solo, 2, first.sequence);
    let confirmed: Vec<_> = solo.ready().reads.iter().map(|read| read.context).collect();
    assert_eq!(confirmed, [first]);
    answer(&mut solo, 3, first.sequence);
    answer(&mut solo, 2, first.sequence);
    assert!(solo.ready().reads.is_empty(), "neither a late answer nor a repeated one");
    solo.step(2, Message::HeartbeatResponse { term: 4, read_sequence: second.sequence, sent_us: 0, shield_us: 0 });
    answer(&mut solo, 3, second.sequence + 1);
    answer(&mut solo, 3, u64::MAX);
    answer(&mut solo, 9, second.sequence);
    assert!(solo.ready().reads.is_empty(), "nor one of another term, of a round to come, or of a stranger");
    answer(&mut solo, 3, second.sequence);
    assert_eq!(solo.ready().reads.len(), 1);
}

#[test]
fn a_heartbeat_of_a_past_term_confirms_nothing_in_this_one() {
    // Node 2 led term 4 and had come to round 7; it leads term 5 now, and this old heartbeat of it is late.
    let mut solo = Solo::new(3, 5, &[1]);
    solo.step(2, heartbeat(4, 0, 7));
    let answers = to(2, &solo.ready().messages);
    assert_eq!(
        answers,
        [Message::HeartbeatResponse { term: 5, read_sequence: 0, sent_us: 0, shield_us: 0 }],
        "the term is told, no round"
    );
}

#[test]
fn a_read_before_the_round_closes_takes_the_index_of_its_end() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let context = solo.core.read_index().unwrap();
    let entry = solo.core.propose(10).unwrap();
    solo.flush();
    solo.accepted(2, entry.index);
    assert_eq!(solo.core.read_index(), Ok(context), "one round until ready");
    let ready = solo.ready();
    assert_eq!(to(2, &ready.messages)[0], heartbeat(5, entry.index, context.sequence));
    answer(&mut solo, 3, context.sequence);
    assert_eq!(solo.ready().reads[0].index, entry.index, "the second call saw that commit");
}

#[test]
fn a_later_answer_confirms_every_round_before_it() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let contexts: Vec<_> = (0..3).map(|_| (solo.core.read_index().unwrap(), solo.ready()).0).collect();
    answer(&mut solo, 2, 3);
    let confirmed: Vec<_> = solo.ready().reads.iter().map(|read| read.context).collect();
    assert_eq!(confirmed, contexts);
}

#[test]
fn rounds_on_the_way_are_bounded_and_the_open_one_gathers() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let contexts: Vec<_> = (0..10).map(|_| (solo.core.read_index().unwrap(), solo.ready()).0).collect();
    assert_eq!(contexts[9], contexts[4], "four are on the way, the fifth waits");
    answer(&mut solo, 2, 1);
    let ready = solo.ready();
    assert_eq!(ready.reads.len(), 1);
    assert_eq!(to(3, &ready.messages), [heartbeat(5, 1, 5)], "room again: the fifth goes");
    answer(&mut solo, 2, 5);
    assert_eq!(solo.ready().reads.len(), 4);
}

#[test]
fn a_lost_round_is_asked_again_by_the_next_heartbeat() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let context = solo.core.read_index().unwrap();
    solo.ready();
    solo.tick(2);
    assert_eq!(to(2, &solo.ready().messages), [heartbeat(5, 1, context.sequence)]);
}

#[test]
fn a_group_of_one_confirms_reads_at_once() {
    let mut solo = Solo::settled_leader(1, 5, &[]);
    let context = solo.core.read_index().unwrap();
    let ready = solo.ready();
    assert_eq!((ready.reads[0].context, ready.reads[0].index), (context, 1));
    assert!(ready.messages.is_empty());
}

#[test]
fn a_follower_takes_no_reads_and_names_its_leader() {
    let mut solo = Solo::follower(3, 5, &[1]);
    assert_eq!(solo.core.read_index(), Err(ReadError::NotLeader { leader: Some(NodeId(2)) }));
}

#[test]
fn a_learner_confirms_no_read_and_commits_nothing() {
    let membership = Membership::with(vec![ME, NodeId(2)], vec![], vec![NodeId(3)]);
    let mut solo = Solo::with(membership, HardState::default(), LogTerms::new());
    solo.win();
    solo.ready();
    solo.flush();
    solo.accepted(3, 1);
    assert_eq!(solo.core.commit_index(), 0);
    solo.accepted(2, 1);
    let context = solo.core.read_index().unwrap();
    solo.ready();
    answer(&mut solo, 3, context.sequence);
    assert!(solo.ready().reads.is_empty());
    answer(&mut solo, 2, context.sequence);
    assert_eq!(solo.ready().reads.len(), 1);
}
