//! Snapshots, changes of membership, leadership transfer: one test per rule.
//!
//! Off the data path; tests only.

mod common;

use common::solo::Solo;
use common::{Cluster, small_config};
use ringraft_raft::{
    ChangeError, Config, EntryId, EntryMeta, HardState, LogTerms, Membership, Memberships, Message, NodeId,
    ProgressState, ProposeError, RaftCore, Ready, Role, TransferError,
};

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
    numbers.into_iter().map(NodeId).collect()
}

fn with_spares(members: u64, spares: u64) -> Cluster {
    Cluster::with_spares(&Membership::new(ids(1..=members)), spares, |id| small_config(id, 5))
}

fn entries(cluster: &mut Cluster, leader: u64, count: usize) {
    for _ in 0..count {
        cluster.propose(leader, 100).expect("a proposal");
        cluster.settle();
    }
}

fn tick(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        cluster.tick_all();
        cluster.settle();
    }
}

fn progress_of(cluster: &mut Cluster, leader: u64, peer: u64) -> (u64, u64, ProgressState) {
    let found = cluster.core(leader).progress().find(|(id, ..)| id.0 == peer);
    found.map(|(_, matched, next, state)| (matched, next, state)).expect("a peer")
}

#[test]
fn a_follower_that_needs_compacted_entries_gets_a_snapshot_and_goes_on_behind_it() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect(1);
    cluster.crash(NodeId(3), 0);
    entries(&mut cluster, 1, 20);
    cluster.compact(1, 15);
    assert_eq!(cluster.core(1).first_index(), 16);
    cluster.start(NodeId(3));
    tick(&mut cluster, 40);
    assert!(cluster.trace.iter().any(|line| line.contains("n3 begins anew at")), "{:#?}", cluster.trace);
    let target = cluster.core(1).last().index;
    assert_eq!((cluster.core(3).commit_index(), cluster.core(3).first_index()), (target, 16));
    assert_eq!(progress_of(&mut cluster, 1, 3), (target, target + 1, ProgressState::Replicate));
    // It comes back from its own disk as what it was, and can lead.
    cluster.crash(NodeId(3), 0);
    cluster.start(NodeId(3));
    tick(&mut cluster, 6);
    assert_eq!((cluster.core(3).last().index, cluster.core(3).first_index()), (target, 16));
    cluster.crash(NodeId(1), 0);
    tick(&mut cluster, 60);
    let leader = cluster.leader().expect("a leader");
    cluster.propose(leader.0, 100).expect("both are needed for a commit");
    cluster.settle();
    assert_eq!(cluster.core(3).last(), cluster.core(2).last());
    assert!(cluster.core(leader.0).commit_index() > target);
}

#[test]
fn reads_on_their_way_are_confirmed_by_whoever_is_left() {
    let mut solo = Solo::settled_leader(3, 5, &[]);
    let joint = Membership::with(ids([1]), ids([1, 2, 3]), vec![]);
    let change = solo.core.propose_membership(100, joint.clone()).expect("nothing is under way");
    solo.flush();
    solo.accepted(2, change.index);
    assert_eq!(solo.core.commit_index(), change.index);
    for _ in 0..5 {
        solo.core.read_index().expect("it leads");
        assert!(solo.ready().reads.is_empty(), "node 2 or 3 has to answer");
    }
    solo.core.propose_membership(100, joint.leave_joint()).expect("the joint configuration is committed");
    let confirmed = solo.ready().reads.len() + solo.ready().reads.len();
    assert_eq!(confirmed, 5, "nobody else will ever answer");
}

#[test]
fn compaction_overtakes_a_slow_follower_in_the_middle_of_its_stream() {
    let mut cluster = Cluster::new(3, 2);
    cluster.elect(1);
    entries(&mut cluster, 1, 3);
    cluster.cut = vec![(NodeId(1), NodeId(3))];
    entries(&mut cluster, 1, 60); // more than its window
    assert_eq!(progress_of(&mut cluster, 1, 3).2, ProgressState::Replicate);
    cluster.compact(1, 55);
    assert_eq!(progress_of(&mut cluster, 1, 3).2, ProgressState::Snapshot, "what it would get next is gone");
    cluster.cut.clear();
    cluster.core(1).snapshot_failed(NodeId(3));
    tick(&mut cluster, 8);
    let target = cluster.core(1).last().index;
    assert_eq!(cluster.core(3).commit_index(), target);
}

#[test]
fn a_snapshot_never_takes_the_place_of_what_is_held() {
    let mut cluster = Cluster::new(3, 3);
    cluster.elect(1);
    entries(&mut cluster, 1, 8);
    tick(&mut cluster, 4);
    let (first, last) = (cluster.core(2).first_index(), cluster.core(2).last());
    let membership = cluster.core(1).membership().clone();
    let term = cluster.core(1).term();
    use ringraft_raft::InstallOutcome::{Held, Ignored};
    let old = EntryId::new(1, 5);
    assert_eq!(cluster.core(2).install_snapshot(NodeId(1), term, old, membership.clone()), Held, "openraft #511");
    assert_eq!(cluster.core(2).install_snapshot(NodeId(1), term, last, membership.clone()), Held);
    let future = EntryId::new(term + 1, 99);
    assert_eq!(cluster.core(2).install_snapshot(NodeId(1), term, future, membership.clone()), Ignored);
    assert_eq!(cluster.core(2).install_snapshot(NodeId(2), term, last, membership), Ignored, "its own");
    cluster.run(NodeId(2));
    assert_eq!((cluster.core(2).first_index(), cluster.core(2).last()), (first, last));
}

#[test]
fn a_snapshot_of_a_leader_that_was_deposed_meanwhile_is_taken_all_the_same() {
    let mut cluster = Cluster::new(3, 12);
    cluster.elect(1);
    let term = cluster.core(1).term();
    cluster.crash(NodeId(3), 0);
    entries(&mut cluster, 1, 8);
    let (last, membership) = (cluster.core(1).last(), cluster.core(1).membership().clone());
    cluster.start(NodeId(3));
    cluster
        .core(3)
        .step(NodeId(2), Message::Heartbeat { term: term + 1, leader_commit: 0, read_sequence: 0, sent_us: 0 });
    cluster.run(NodeId(3));
    assert!(!cluster.core(3).covers(last));
    let outcome = cluster.core(3).install_snapshot(NodeId(1), term, last, membership);
    assert_eq!(outcome, ringraft_raft::InstallOutcome::Replaced, "on its disk it has replaced the log already");
    let core = cluster.core(3);
    assert_eq!((core.term(), core.leader()), (term + 1, Some(NodeId(2))), "the new leader stays the leader");
    assert_eq!((core.commit_index(), core.first_index(), core.last()), (last.index, last.index + 1, last));
    assert!(core.covers(last));
    let mut ready = ringraft_raft::Ready::new();
    core.ready(&mut ready);
    let told = ready.messages.iter().chain(&ready.after_flush).filter(|(to, _)| *to == NodeId(1));
    assert!(told.clone().count() > 0 && told.clone().all(|(_, message)| message.term() == term + 1), "{ready:?}");
}

#[test]
fn voters_are_replaced_through_a_joint_configuration_and_the_leader_outside_steps_down() {
    let mut cluster = with_spares(3, 2);
    cluster.elect(1);
    entries(&mut cluster, 1, 3);
    let joint = cluster.core(1).membership().enter_joint(ids([3, 4, 5]), Vec::new());
    let entry = cluster.change(1, joint.clone()).expect("a change");
    assert_eq!(cluster.core(1).membership(), &joint, "in force at once (Raft 6)");
    assert_eq!(cluster.change(1, joint.leave_joint()), Err(ChangeError::Pending), "one at a time");
    cluster.settle();
    tick(&mut cluster, 6);
    assert!(cluster.oracle.committed.len() as u64 > entry.index, "the joint one and what it leads to");
    let plain = Membership::new(ids([3, 4, 5]));
    assert_ne!(cluster.core(1).role(), Role::Leader, "it is no voter any more");
    tick(&mut cluster, 60);
    let leader = cluster.leader().expect("the new voters elect one of them");
    assert!(plain.is_voter(leader), "{leader}");
    for node in [3, 4, 5] {
        assert_eq!(cluster.core(node).membership(), &plain);
    }
    cluster.propose(leader.0, 100).expect("a proposal");
    cluster.settle();
    cluster.crash(NodeId(1), 0);
    cluster.crash(NodeId(2), 0);
    tick(&mut cluster, 4);
    cluster.propose(leader.0, 100).expect("the old ones are not needed");
}

#[test]
fn a_joint_configuration_needs_both_majorities() {
    let mut cluster = with_spares(3, 2);
    cluster.elect(1);
    cluster.crash(NodeId(4), 0);
    cluster.crash(NodeId(5), 0);
    let joint = cluster.core(1).membership().enter_joint(ids([3, 4, 5]), Vec::new());
    let entry = cluster.change(1, joint).expect("a change");
    cluster.settle();
    assert!(cluster.core(1).commit_index() < entry.index, "one of three new voters has it");
    cluster.start(NodeId(4));
    tick(&mut cluster, 6);
    assert!(cluster.core(4).commit_index() >= entry.index);
}

#[test]
fn an_uncommitted_change_goes_with_its_entry() {
    let mut cluster = with_spares(3, 1);
    cluster.elect(1);
    let before = cluster.core(1).membership().clone();
    cluster.cut = ids([2, 3, 4]).into_iter().flat_map(|other| [(NodeId(1), other), (other, NodeId(1))]).collect();
    let joint = before.enter_joint(ids([1, 2, 4]), Vec::new());
    cluster.change(1, joint.clone()).expect("a change");
    cluster.settle();
    assert_eq!(cluster.core(1).membership(), &joint);
    tick(&mut cluster, 60);
    let leader = cluster.leader().expect("the others elect one");
    entries(&mut cluster, leader.0, 3);
    cluster.cut.clear();
    tick(&mut cluster, 10);
    assert_eq!(cluster.core(1).membership(), &before, "the entry was replaced");
}

#[test]
fn the_next_leader_goes_on_with_an_interrupted_change() {
    let mut cluster = with_spares(3, 1);
    cluster.elect(1);
    let joint = cluster.core(1).membership().enter_joint(ids([1, 2, 3, 4]), Vec::new());
    cluster.change(1, joint).expect("a change");
    for _ in 0..3 {
        cluster.deliver();
        ids([1, 2, 3, 4]).into_iter().for_each(|id| cluster.flush(id, 1));
    }
    cluster.crash(NodeId(1), 0);
    tick(&mut cluster, 80);
    let leader = cluster.leader().expect("a leader");
    assert_eq!(cluster.core(leader.0).membership(), &Membership::new(ids([1, 2, 3, 4])));
}

#[test]
fn a_learner_catches_up_without_a_vote_and_is_promoted() {
    let mut cluster = with_spares(3, 1);
    cluster.elect(1);
    entries(&mut cluster, 1, 30);
    cluster.compact(1, 25);
    let learner = Membership::with(ids([1, 2, 3]), Vec::new(), ids([4]));
    cluster.change(1, learner).expect("a change");
    assert!(!cluster.core(1).has_caught_up(NodeId(4), 1_000));
    tick(&mut cluster, 6);
    assert!(cluster.core(1).has_caught_up(NodeId(4), 0), "by a snapshot and the entries behind it");
    cluster.crash(NodeId(2), 0);
    cluster.crash(NodeId(3), 0);
    let entry = cluster.propose(1, 100).expect("a proposal");
    cluster.settle();
    assert!(cluster.core(1).commit_index() < entry.index, "its copy does not count");
    cluster.start(NodeId(2));
    tick(&mut cluster, 6);
    let promoted = cluster.core(1).membership().enter_joint(ids([1, 2, 3, 4]), Vec::new());
    cluster.change(1, promoted).expect("a change");
    tick(&mut cluster, 6);
    assert_eq!(cluster.core(4).membership(), &Membership::new(ids([1, 2, 3, 4])));
}

#[test]
fn changes_that_skip_the_joint_step_or_come_before_an_own_commit_are_refused() {
    let mut cluster = Cluster::new(3, 4);
    cluster.elect(1);
    let two = Membership::new(ids([1, 2]));
    assert_eq!(cluster.change(1, two.clone()), Err(ChangeError::NotAllowed));
    assert_eq!(cluster.change(2, two), Err(ChangeError::NotLeader { leader: Some(NodeId(1)) }));
    cluster.crash(NodeId(1), 0);
    (0..10).for_each(|_| cluster.tick(NodeId(2)));
    (0..12).for_each(|_| cluster.tick(NodeId(3)));
    cluster.campaign(2);
    for _ in 0..50 {
        if cluster.core(2).role() != Role::Leader {
            cluster.deliver_at(0);
            ids([2, 3]).into_iter().for_each(|id| cluster.flush(id, usize::MAX));
        }
    }
    assert_eq!(cluster.core(2).role(), Role::Leader);
    let joint = cluster.core(2).membership().enter_joint(ids([2, 3]), Vec::new());
    let early = cluster.core(2).propose_membership(100, joint.clone());
    assert!(cluster.core(2).commit_index() < cluster.core(2).last().index);
    assert_eq!(early, Err(ChangeError::Pending), "raft-dev 2015: nothing of this term is committed");
    tick(&mut cluster, 4);
    cluster.change(2, joint).expect("now it may");
}

#[test]
fn leadership_is_handed_to_a_follower_that_has_everything() {
    let mut cluster = Cluster::new(3, 6);
    cluster.elect(1);
    entries(&mut cluster, 1, 5);
    assert_eq!(cluster.core(1).transfer_leadership(NodeId(9)), Err(TransferError::NotAVoter));
    assert_eq!(cluster.core(1).transfer_leadership(NodeId(1)), Err(TransferError::NotAVoter));
    let refused = cluster.core(2).transfer_leadership(NodeId(3));
    assert_eq!(refused, Err(TransferError::NotLeader { leader: Some(NodeId(1)) }));
    cluster.cut = vec![(NodeId(1), NodeId(2))];
    cluster.propose(1, 100).expect("a proposal");
    cluster.settle();
    cluster.core(1).transfer_leadership(NodeId(2)).expect("a transfer");
    assert_eq!(cluster.core(1).transfer_leadership(NodeId(3)), Err(TransferError::Pending));
    assert_eq!(cluster.propose(1, 100), Err(ProposeError::Transferring));
    cluster.run(NodeId(1));
    assert!(!cluster.trace.iter().any(|line| line.contains("TimeoutNow")), "it lacks the last entry");
    cluster.cut.clear();
    cluster.core(1).unreachable(NodeId(2));
    tick(&mut cluster, 12);
    assert_eq!(cluster.leader(), Some(NodeId(2)), "while everybody still heard the old leader");
    assert_eq!(cluster.core(1).role(), Role::Follower);
    assert_eq!(cluster.core(2).term(), 2, "one election");
}

#[test]
fn a_transfer_that_does_not_happen_is_given_up() {
    let mut cluster = Cluster::new(3, 7);
    cluster.elect(1);
    cluster.crash(NodeId(3), 0);
    cluster.core(1).transfer_leadership(NodeId(3)).expect("a transfer");
    assert_eq!(cluster.core(1).transfer_target(), Some(NodeId(3)));
    tick(&mut cluster, 20);
    assert_eq!((cluster.core(1).role(), cluster.core(1).transfer_target()), (Role::Leader, None));
    cluster.propose(1, 100).expect("it leads on");
}

#[test]
fn nothing_is_handed_over_before_the_leaders_own_entries_are_committed() {
    let mut cluster = Cluster::new(5, 10);
    cluster.elect(1);
    let away = ids([3, 4, 5]);
    cluster.cut = away.iter().flat_map(|other| [(NodeId(1), *other), (*other, NodeId(1))]).collect();
    let entry = cluster.propose(1, 100).expect("a proposal");
    cluster.settle();
    assert_eq!(progress_of(&mut cluster, 1, 2).0, entry.index, "the target holds it");
    cluster.core(1).transfer_leadership(NodeId(2)).expect("a transfer");
    cluster.settle();
    assert!(!cluster.trace.iter().any(|line| line.contains("TimeoutNow")), "{entry} is on two of five");
    cluster.cut.clear();
    away.into_iter().for_each(|node| cluster.core(1).unreachable(node));
    tick(&mut cluster, 8);
    assert_eq!(cluster.leader(), Some(NodeId(2)));
    assert!(cluster.oracle.committed.len() as u64 > entry.index, "and what the next leader adds");
}

#[test]
fn a_leader_that_can_do_nothing_more_lets_another_campaign_at_once() {
    let mut cluster = Cluster::new(3, 11);
    cluster.elect(1);
    entries(&mut cluster, 1, 3);
    cluster.core(1).step_down_for(NodeId(2));
    assert_eq!(cluster.core(1).role(), Role::Follower, "it waits for nothing");
    cluster.run(NodeId(1));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(NodeId(2)), "without a single tick");
    cluster.core(2).step_down_for(NodeId(9));
    cluster.run(NodeId(2));
    cluster.settle();
    assert_eq!(cluster.core(2).role(), Role::Follower);
    assert_eq!(cluster.leader(), None, "nobody was told");
}

#[test]
fn only_the_leader_can_tell_a_follower_to_campaign() {
    let mut cluster = Cluster::new(3, 8);
    cluster.elect(1);
    let term = cluster.core(1).term();
    cluster.core(2).step(NodeId(3), Message::TimeoutNow { term });
    cluster.core(2).step(NodeId(1), Message::TimeoutNow { term: term - 1 });
    cluster.run(NodeId(2));
    assert_eq!((cluster.core(2).role(), cluster.core(2).term()), (Role::Follower, term));
}

#[test]
fn a_node_on_its_way_out_may_be_needed_as_leader_until_its_removal_is_committed() {
    let mut cluster = Cluster::new(2, 9);
    cluster.elect(1);
    let joint = cluster.core(1).membership().enter_joint(ids([2]), Vec::new());
    cluster.change(1, joint).expect("a change");
    // The joint configuration is committed; the entry that leaves it stands on the leader's disk alone.
    while cluster.core(1).membership().is_joint() {
        cluster.deliver_at(0);
        ids([1, 2]).into_iter().for_each(|id| cluster.flush(id, usize::MAX));
    }
    cluster.network.clear();
    cluster.flush(NodeId(1), usize::MAX);
    cluster.crash(NodeId(1), 0);
    cluster.start(NodeId(1));
    assert!(!cluster.core(1).membership().is_voter(NodeId(1)));
    tick(&mut cluster, 100);
    assert_eq!(cluster.leader(), Some(NodeId(2)), "thesis 4.2.2: it needed the other's vote, or its entry");
    assert_eq!(cluster.core(2).membership(), &Membership::new(ids([2])));
}

/// Nodes 1 and 2 gave the group to node 3 alone, which gives it to node 4: only node 3 holds the last entry, and node 4, in
/// the joint configuration before, cannot win without its vote.
#[test]
fn who_lost_its_vote_by_an_entry_that_it_alone_holds_campaigns_after_a_restart() {
    let members = |voters: &[u64], outgoing: &[u64]| {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        Membership::with(ids(voters), ids(outgoing), Vec::new())
    };
    let mut memberships = Memberships::new(members(&[1, 2], &[]));
    let changes = [members(&[3], &[1, 2]), members(&[3], &[]), members(&[4], &[3]), members(&[4], &[])];
    let mut log = LogTerms::new();
    for (index, membership) in (1..).zip(changes) {
        log.push(EntryMeta { term: 1, length: 100 });
        memberships.push(index, membership);
    }
    let hard_state = HardState { current_term: 1, voted_for: None };
    let config = Config::new(NodeId(3), 7).validate().unwrap();
    let mut core = RaftCore::new(config, memberships, hard_state, log);
    core.campaign();
    let mut ready = Ready::new();
    core.ready(&mut ready);
    let last = EntryId { term: 1, index: 4 };
    assert_eq!(
        ready.messages,
        [(NodeId(4), Message::PreVote { term: 2, last })],
        "it asks the one that is to vote now"
    );
}

/// Whoever proposed the second change knew that the first one is committed. In the cluster's own group the addresses of
/// the members it needs stand before the first.
#[test]
fn a_change_in_the_log_says_after_a_restart_that_the_one_before_it_is_committed() {
    let old = Membership::new(ids([1, 2]));
    let joint = Membership::with(ids([1, 3]), ids([1, 2]), Vec::new());
    let restarted = |changes: &[(u64, Membership)]| {
        let mut memberships = Memberships::new(old.clone());
        let mut log = LogTerms::after(EntryId { term: 1, index: 10 });
        for _ in 11..=20 {
            log.push(EntryMeta { term: 1, length: 100 });
        }
        for (index, membership) in changes {
            memberships.push(*index, membership.clone());
        }
        let config = Config::new(NodeId(1), 7).validate().unwrap();
        let mut core = RaftCore::new(config, memberships, HardState { current_term: 1, voted_for: None }, log);
        let mut ready = Ready::new();
        core.ready(&mut ready);
        (core.commit_index(), ready.commit_index)
    };
    let learner = Membership::with(ids([1, 2]), Vec::new(), ids([3]));
    assert_eq!(restarted(&[]), (10, None));
    assert_eq!(restarted(&[(13, learner.clone())]), (10, None), "it may be given up");
    let two = [(13, learner), (16, joint.clone())];
    assert_eq!(restarted(&two), (13, Some(13)), "the host hears of it");
    let [first, second] = two;
    assert_eq!(restarted(&[first, second, (18, joint.leave_joint())]), (16, Some(16)));
}

/// The stream of the snapshot was under way when it stood for election.
#[test]
fn a_candidate_that_begins_anew_at_a_snapshot_without_its_vote_stands_no_more() {
    let hard_state = HardState { current_term: 1, voted_for: None };
    let config = Config::new(NodeId(3), 7).validate().unwrap();
    let mut core = RaftCore::new(config, Memberships::new(Membership::new(ids(1..=3))), hard_state, LogTerms::new());
    core.campaign();
    core.step(NodeId(2), Message::PreVoteResponse { term: 2, granted: true });
    assert_eq!((core.role(), core.term()), (Role::Candidate, 2));
    let outcome = core.install_snapshot(NodeId(1), 1, EntryId { term: 1, index: 9 }, Membership::new(ids([1, 2])));
    assert_eq!(outcome, ringraft_raft::InstallOutcome::Replaced);
    assert_eq!(core.role(), Role::Follower);
    assert_eq!(core.hard_state().voted_for, Some(NodeId(3)), "its vote of this term is given");
}
