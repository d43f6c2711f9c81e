//! Leader leases: one test per rule of `lease.rs` (thesis 6.4.1), and what stickiness has to keep for them.
//!
//! Off the data path; tests only.

mod common;

use common::small_config;
use common::solo::{ME, Solo, heartbeat, id, log_after, to, vote};
use ringraft_raft::{Config, EntryId, HardState, Membership, Memberships, Message, NodeId, RaftCore, Role};

const TICK_US: u64 = 10_000;
/// What a follower with the same configuration promises: nine ticks of ten.
const SHIELD_US: u64 = 9 * TICK_US;
/// A lease with 10% drift.
const LEASE_US: u64 = SHIELD_US / 10 * 9;

fn with_leases(drift_percent: u32) -> Config {
    Config { tick_us: TICK_US, lease_drift_percent: drift_percent, ..small_config(ME, 7) }
}

/// A voter of `voters` in `term` that allows leases.
fn voter(voters: u64, term: u64, drift_percent: u32) -> Solo {
    let mut solo = Solo::new(voters, term, &[1]);
    let membership = Membership::new((1..=voters).map(NodeId).collect());
    let hard_state = HardState { current_term: term, voted_for: None };
    let config = with_leases(drift_percent).validate().expect("valid settings");
    solo.core = RaftCore::new(config, Memberships::new(membership), hard_state, log_after(EntryId::ZERO, &[1]));
    solo
}

/// The leader of term 5 that won at time 1,000.
fn leader(voters: u64, drift_percent: u32) -> Solo {
    let mut solo = voter(voters, 4, drift_percent);
    solo.core.observe_time(1_000);
    solo.win();
    solo.ready();
    solo.flush();
    (2..=voters).for_each(|peer| solo.accepted(peer, 2));
    solo.ready();
    assert_eq!((solo.core.role(), solo.core.commit_index()), (Role::Leader, 2));
    solo
}

/// Sends heartbeats at `now_us`; the time they carry.
fn beat(solo: &mut Solo, now_us: u64) -> u64 {
    solo.core.observe_time(now_us);
    solo.tick(2);
    let beats = to(2, &solo.ready().messages);
    let sent = beats.iter().find_map(|message| match message {
        Message::Heartbeat { sent_us, .. } => Some(*sent_us),
        _ => None,
    });
    sent.expect("a heartbeat is due after two ticks")
}

fn hear(solo: &mut Solo, from: u64, sent_us: u64) {
    let term = solo.core.term();
    solo.step(from, Message::HeartbeatResponse { term, read_sequence: 0, sent_us, shield_us: SHIELD_US });
}

#[test]
fn a_lease_counts_from_when_the_heartbeat_was_sent_not_from_its_answer() {
    let mut solo = leader(3, 10);
    assert!(!solo.core.holds_lease(), "nobody answered a heartbeat yet");
    let sent_us = beat(&mut solo, 20_000);
    assert_eq!(sent_us, 20_000);
    solo.core.observe_time(70_000);
    hear(&mut solo, 2, sent_us);
    assert!(solo.core.holds_lease());
    solo.core.observe_time(sent_us + LEASE_US - 1);
    assert!(solo.core.holds_lease());
    solo.core.observe_time(sent_us + LEASE_US);
    assert!(!solo.core.holds_lease(), "at its very end it is over");
}

#[test]
fn a_lease_ends_in_a_pause_in_which_no_tick_comes() {
    let mut solo = leader(3, 10);
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    assert!(solo.core.holds_lease());
    solo.core.observe_time(sent_us + 10 * LEASE_US);
    assert!(!solo.core.holds_lease());
    solo.core.observe_time(sent_us + 1);
    assert!(!solo.core.holds_lease(), "time does not go back");
}

#[test]
fn a_lease_needs_a_quorum() {
    let mut solo = leader(5, 10);
    let first = beat(&mut solo, 20_000);
    hear(&mut solo, 2, first);
    assert!(!solo.core.holds_lease(), "two of five");
    let second = beat(&mut solo, 40_000);
    hear(&mut solo, 3, second);
    solo.core.observe_time(first + LEASE_US - 1);
    assert!(solo.core.holds_lease());
    solo.core.observe_time(first + LEASE_US);
    assert!(!solo.core.holds_lease(), "it lasts as long as its third voter's");
    assert!(leader(1, 10).core.holds_lease(), "a leader alone waits for nobody");
}

#[test]
fn a_lease_is_cut_by_the_drift_and_by_what_the_follower_promises() {
    let mut solo = leader(3, 50);
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    solo.core.observe_time(sent_us + SHIELD_US / 2 - 1);
    assert!(solo.core.holds_lease());
    solo.core.observe_time(sent_us + SHIELD_US / 2);
    assert!(!solo.core.holds_lease());
    let sent_us = beat(&mut solo, 200_000);
    let none = Message::HeartbeatResponse { term: 5, read_sequence: 0, sent_us, shield_us: 0 };
    solo.step(2, none);
    assert!(!solo.core.holds_lease(), "a follower that does not know its tick promises nothing");
    let mut never = leader(3, 100);
    let sent_us = beat(&mut never, 20_000);
    hear(&mut never, 2, sent_us);
    hear(&mut never, 3, sent_us);
    assert!(!never.core.holds_lease(), "leases are off");
    assert_eq!(never.core.led_until_us(), Some(sent_us), "when it led needs no lease");
}

#[test]
fn only_answers_of_this_term_to_what_was_sent_count() {
    let mut solo = leader(3, 10);
    let sent_us = beat(&mut solo, 20_000);
    let old = Message::HeartbeatResponse { term: 4, read_sequence: 0, sent_us, shield_us: SHIELD_US };
    solo.step(2, old);
    hear(&mut solo, 3, sent_us + 1);
    hear(&mut solo, 3, 0);
    hear(&mut solo, 9, sent_us);
    assert!(!solo.core.holds_lease(), "nor one of another term, of a time to come, without one, of a stranger");
    assert_eq!(solo.core.led_until_us(), None);
    hear(&mut solo, 3, sent_us);
    assert!(solo.core.holds_lease());
}

#[test]
fn a_leader_without_an_entry_of_its_term_holds_none() {
    let mut solo = voter(3, 4, 10);
    solo.core.observe_time(1_000);
    solo.win();
    solo.ready();
    solo.flush();
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    assert!(!solo.core.holds_lease());
    assert_eq!(solo.core.led_until_us(), None);
    solo.accepted(2, 2);
    assert!(solo.core.holds_lease());
}

#[test]
fn a_transfer_ends_the_lease_until_it_is_given_up() {
    let mut solo = leader(3, 10);
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    let entry = solo.core.propose(10).unwrap();
    solo.core.transfer_leadership(NodeId(2)).unwrap();
    assert!(!solo.core.holds_lease(), "from the moment it begins, though nothing was sent yet");
    for _ in 0..20 {
        solo.tick(1);
        hear(&mut solo, 3, sent_us); // check-quorum
    }
    assert_eq!((solo.core.transfer_target(), solo.core.last()), (None, entry));
    let sent_us = beat(&mut solo, 300_000);
    hear(&mut solo, 2, sent_us);
    assert!(solo.core.holds_lease(), "the target was never told");
}

#[test]
fn once_the_target_was_told_there_is_no_lease_in_this_term() {
    let mut solo = leader(3, 10);
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    solo.core.transfer_leadership(NodeId(2)).unwrap();
    assert!(to(2, &solo.ready().messages).contains(&Message::TimeoutNow { term: 5 }));
    for _ in 0..20 {
        solo.tick(1);
        hear(&mut solo, 3, sent_us);
    }
    assert_eq!(solo.core.transfer_target(), None, "it leads on");
    let sent_us = beat(&mut solo, 300_000);
    hear(&mut solo, 3, sent_us);
    assert_eq!(solo.core.role(), Role::Leader);
    assert!(!solo.core.holds_lease(), "the message may still arrive");
    assert_eq!(solo.core.led_until_us(), Some(sent_us));
}

#[test]
fn who_steps_down_holds_no_lease() {
    let mut solo = leader(3, 10);
    let sent_us = beat(&mut solo, 20_000);
    hear(&mut solo, 2, sent_us);
    solo.core.step_down();
    assert!(!solo.core.holds_lease());
    assert_eq!(solo.core.led_until_us(), None);
}

#[test]
fn a_follower_gives_the_time_back_with_its_promise() {
    let mut solo = voter(3, 5, 10);
    let beat = |term| Message::Heartbeat { term, leader_commit: 0, read_sequence: 3, sent_us: 77 };
    solo.step(2, beat(5));
    let answer = Message::HeartbeatResponse { term: 5, read_sequence: 3, sent_us: 77, shield_us: SHIELD_US };
    assert_eq!(to(2, &solo.ready().messages), [answer]);
    solo.step(3, beat(4));
    let deposed = Message::HeartbeatResponse { term: 5, read_sequence: 0, sent_us: 0, shield_us: SHIELD_US };
    assert_eq!(to(3, &solo.ready().messages), [deposed], "whom it does not follow it promises nothing");
}

#[test]
fn the_promise_outlives_a_higher_term_and_the_own_candidacy() {
    let pre_vote = Message::PreVote { term: 9, last: id(8, 9) };
    let request = Message::RequestVote { term: 9, last: id(8, 9), forced: false };
    let refuses = |solo: &mut Solo| {
        solo.step(3, pre_vote);
        solo.step(3, request);
        let ready = solo.ready();
        solo.flush();
        vote(&ready.messages).is_some_and(|(_, granted)| !granted) && vote(&ready.after_flush).is_none()
    };
    // Somebody tells it of a higher term.
    let mut solo = Solo::follower(3, 5, &[1]);
    solo.tick(5);
    solo.step(3, Message::RequestVoteResponse { term: 7, granted: false });
    assert_eq!((solo.core.term(), solo.core.leader()), (7, None));
    solo.ready();
    solo.flush();
    assert!(refuses(&mut solo));
    solo.tick(4);
    assert!(refuses(&mut solo), "nine ticks");
    solo.tick(1);
    assert!(!refuses(&mut solo), "ten ticks");
    // It campaigns by order of its host: nobody's pre-vote makes it a candidate, its own vote would count.
    let mut solo = Solo::follower(5, 5, &[1]);
    solo.core.campaign();
    assert!(refuses(&mut solo));
    for voter in 2..=5 {
        solo.step(voter, Message::PreVoteResponse { term: 6, granted: true });
    }
    assert_eq!((solo.core.role(), solo.core.term()), (Role::Follower, 5));
}

#[test]
fn a_restarted_voter_has_perhaps_heard_a_leader_and_a_new_one_has_not() {
    let pre_vote = Message::PreVote { term: 6, last: id(5, 9) };
    let granted = |solo: &mut Solo| {
        solo.step(3, pre_vote);
        vote(&solo.ready().messages).map(|(_, granted)| granted)
    };
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.restarted();
    assert_eq!(granted(&mut solo), Some(false));
    solo.tick(9);
    assert_eq!(granted(&mut solo), Some(false));
    solo.tick(1);
    assert_eq!(granted(&mut solo), Some(true));
    assert_eq!(granted(&mut Solo::new(3, 0, &[])), Some(true), "first elections wait for nothing");
    // The leader may ask for a vote at any time: its lease is over then.
    let mut solo = Solo::new(3, 5, &[1]);
    solo.core.restarted();
    solo.step(2, heartbeat(5, 0, 0));
    solo.step(3, Message::RequestVote { term: 6, last: id(5, 9), forced: true });
    let ready = solo.ready();
    assert_eq!(vote(&ready.after_flush), Some((6, true)));
}
