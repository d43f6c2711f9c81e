//! Long sleeps: a replica that dozes through any ticks and heartbeats is, when it wakes, what it would have become awake.
//!
//! Off the data path; tests only.
//!
//! Relations: every doze of these tests is compared with the same core awake, message by message and at its end.

mod common;

use common::{Cluster, doze};
use proptest::prelude::*;
use ringraft_raft::{Dozed, Message, NodeId, RaftCore};

#[derive(Clone, Copy, Debug)]
enum Event {
    Tick,
    Heartbeat { from: u64, term: u64, leader_commit: u64, read_sequence: u64, sent_us: u64 },
    Answer { from: u64, term: u64, read_sequence: u64, sent_us: u64 },
    Vote,
}

fn event() -> impl Strategy<Value = Event> {
    let numbers = (1..=4_u64, prop_oneof![9 => Just(1_u64), 1 => 0..4_u64], 0..9_u64, 0..3_u64, 0..90_u64);
    prop_oneof![
        12 => Just(Event::Tick),
        6 => numbers.clone().prop_map(|(from, term, leader_commit, read_sequence, sent_us)| {
            Event::Heartbeat { from, term, leader_commit, read_sequence, sent_us }
        }),
        9 => numbers.prop_map(|(from, term, _, read_sequence, sent_us)| {
            Event::Answer { from, term, read_sequence, sent_us }
        }),
        1 => Just(Event::Vote),
    ]
}

fn message(event: Event) -> Option<(NodeId, Message)> {
    Some(match event {
        Event::Tick => return None,
        Event::Heartbeat { from, term, leader_commit, read_sequence, sent_us } => {
            (NodeId(from), Message::Heartbeat { term, leader_commit, read_sequence, sent_us })
        }
        Event::Answer { from, term, read_sequence, sent_us } => {
            (NodeId(from), Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us: 7 })
        }
        Event::Vote => (NodeId(2), Message::RequestVoteResponse { term: 1, granted: true }),
    })
}

/// Node 1 leads three nodes, all of which have everything.
fn idle() -> Cluster {
    let mut cluster = Cluster::new(3, 42);
    cluster.elect(1);
    for _ in 0..6 {
        cluster.tick_all();
        cluster.settle();
    }
    cluster
}

/// Takes the events awake and dozing until one wakes the sleeper; how many it slept through.
fn sleep(core: &RaftCore, events: &[Event]) -> usize {
    let (mut awake, mut doze, mut ticks) = (core.clone(), core.doze().expect("it is idle"), 0);
    for (place, event) in events.iter().enumerate() {
        let (mut heard, before) = (Vec::new(), (awake.clone(), ticks));
        let now_us = 10 * place as u64;
        let dozes = match message(*event) {
            None => {
                ticks += 1;
                awake.tick();
                let dozes = doze.tick(ticks, now_us, |to, message| heard.push((to, message)));
                if !heard.is_empty() {
                    awake.observe_time(now_us); // what is not said needs no time
                }
                assert!(!dozes || doze.due() > ticks, "what was due is done");
                dozes
            }
            Some((from, message)) => {
                awake.step(from, message);
                let dozed = doze.step(ticks, from, &message);
                heard.extend(if let Dozed::Says(answer) = dozed { Some((from, answer)) } else { None });
                dozed != Dozed::Wakes
            }
        };
        if !dozes {
            let mut slept = core.clone();
            slept.wake(&doze, before.1);
            compare(before.0, slept);
            return place;
        }
        assert_eq!(doze::said(&mut awake), heard);
    }
    let mut slept = core.clone();
    slept.wake(&doze, ticks);
    compare(awake, slept);
    events.len()
}

/// The time a core was told when it said nothing is of no use to it.
fn compare(mut awake: RaftCore, mut slept: RaftCore) {
    awake.observe_time(1 << 40);
    slept.observe_time(1 << 40);
    doze::assert_same(awake, slept);
}

proptest! {
    #[test]
    fn nothing_depends_on_whether_a_leader_slept(events in prop::collection::vec(event(), 0..80)) {
        sleep(idle().core(1), &events);
    }

    #[test]
    fn nothing_depends_on_whether_a_follower_slept(events in prop::collection::vec(event(), 0..80)) {
        sleep(idle().core(2), &events);
    }
}

#[test]
fn idle_replicas_sleep_for_as_long_as_they_hear_each_other() {
    let heartbeat = Event::Heartbeat { from: 1, term: 1, leader_commit: 1, read_sequence: 0, sent_us: 0 };
    let follower: Vec<Event> = [Event::Tick, Event::Tick, heartbeat].repeat(200);
    assert_eq!(sleep(idle().core(2), &follower), follower.len());
    let answers = [2, 3].map(|from| Event::Answer { from, term: 1, read_sequence: 0, sent_us: 0 });
    let leader: Vec<Event> = [Event::Tick, answers[0], Event::Tick, answers[1]].repeat(200);
    assert_eq!(sleep(idle().core(1), &leader), leader.len());
}

#[test]
fn silence_wakes_them() {
    let ticks = [Event::Tick; 100];
    let (leader, follower) = (sleep(idle().core(1), &ticks), sleep(idle().core(2), &ticks));
    assert!((10..=20).contains(&leader), "an election timeout without answers: {leader}");
    assert!((8..=20).contains(&follower), "an election timeout without a leader: {follower}");
}
