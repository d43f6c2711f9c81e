//! The kinds of reads: by lease, at a follower, stale within a bound; under partition, pause, skew, transfer and restart.
//!
//! Off the data path; tests only.

mod cluster;

use cluster::{Cluster, LEASE_DRIFT_PERCENT, TICK_US, get, group_of, put, value};
use ringraft_net::wire::{AdminRequest, Consistency, Outcome, Request};
use ringraft_raft::NodeId;

fn lease() -> Request {
    Request { consistency: Consistency::Lease, ..get("a") }
}

fn follower() -> Request {
    Request { consistency: Consistency::Follower, ..get("a") }
}

fn bounded(milliseconds: u64) -> Request {
    Request { consistency: Consistency::Stale, sequence: milliseconds, ..get("a") }
}

/// A cluster where "a" is "old", that group, its leader and the two others; heartbeats were answered.
fn written() -> (Cluster, u32, u64, [u64; 2]) {
    let mut cluster = Cluster::new(3);
    let group = group_of("a");
    let leader = cluster.leader(group);
    assert!(matches!(cluster.ask(leader, &put("a", "old")), Some(Outcome::Done(_))));
    cluster.tick(4);
    (cluster, group, leader, [leader % 3 + 1, (leader + 1) % 3 + 1])
}

/// Cuts a node from all others.
fn isolate(cluster: &mut Cluster, node: u64) {
    cluster.cut = (1..=3).filter(|other| *other != node).flat_map(|other| [(node, other), (other, node)]).collect();
}

/// What the node answers without hearing from anybody.
fn alone(cluster: &mut Cluster, node: u64, request: &Request) -> Option<Outcome> {
    let cut = std::mem::take(&mut cluster.cut);
    isolate(cluster, node);
    let outcome = cluster.ask(node, request);
    cluster.cut = cut;
    outcome
}

fn leads(cluster: &Cluster, node: u64, group: u32) -> bool {
    cluster.status(node, group).role == "leader"
}

fn is_unavailable(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Unavailable { message }) if message.contains("ask again"))
}

fn counters(cluster: &Cluster, node: u64) -> (u64, u64) {
    let counters = cluster.nodes[node as usize - 1].shard.status().counters;
    (counters.lease_reads, counters.follower_reads)
}

/// Ticks until another than `old` leads and "a" is "new" there; `check` looks at every tick.
fn replace(cluster: &mut Cluster, group: u32, old: u64, mut check: impl FnMut(&mut Cluster)) -> u64 {
    for _ in 0..100 {
        cluster.tick(1);
        check(cluster);
        let next = (1..=3).find(|node| *node != old && leads(cluster, *node, group));
        if let Some(next) = next
            && matches!(cluster.ask(next, &put("a", "new")), Some(Outcome::Done(_)))
        {
            return next;
        }
    }
    panic!("nobody else was elected");
}

// Leases.

#[test]
fn a_leader_with_a_lease_asks_nobody() {
    let (mut cluster, _, leader, [other, _]) = written();
    assert_eq!(alone(&mut cluster, leader, &get("a")), None, "without a lease it waits for a majority");
    assert_eq!(alone(&mut cluster, leader, &lease()), value("old"));
    assert_eq!(counters(&cluster, leader), (1, 0));
    let elsewhere = cluster.ask(other, &lease());
    assert!(matches!(elsewhere, Some(Outcome::NotLeader { leader: told, .. }) if told == Some(leader)));
}

#[test]
fn without_a_lease_the_read_asks_the_majority() {
    let (mut cluster, _, leader, _) = written();
    cluster.nodes[leader as usize - 1].clock_us += 50 * TICK_US;
    assert_eq!(cluster.ask(leader, &lease()), value("old"));
    assert_eq!(counters(&cluster, leader), (0, 0), "the clock says that the lease is over");
}

#[test]
fn an_isolated_leader_answers_nothing_old_once_another_leads() {
    let (mut cluster, group, leader, _) = written();
    isolate(&mut cluster, leader);
    let mut by_lease = 0;
    replace(&mut cluster, group, leader, |cluster| {
        let answered = cluster.ask(leader, &lease()) == value("old");
        by_lease += u32::from(answered);
        let deposed = (1..=3).any(|node| node != leader && leads(cluster, node, group));
        assert!(!(answered && deposed));
    });
    assert!((5..9).contains(&by_lease), "a lease lasts {by_lease} ticks of ten");
    assert_ne!(cluster.ask(leader, &lease()), value("old"));
}

#[test]
fn a_paused_leader_answers_nothing_old_when_it_goes_on() {
    let (mut cluster, group, leader, _) = written();
    cluster.nodes[leader as usize - 1].paused = true;
    let next = replace(&mut cluster, group, leader, |_| {});
    let place = leader as usize - 1;
    // The request is the first thing it sees: no tick, no message of the new leader.
    cluster.nodes[place].paused = false;
    assert!(leads(&cluster, leader, group), "it does not know better");
    assert_eq!(alone(&mut cluster, leader, &lease()), None);
    cluster.resume(leader);
    cluster.settle();
    assert_eq!(cluster.status(leader, group).leader, Some(next));
    assert_eq!(cluster.ask(next, &get("a")), value("new"));
}

#[test]
fn a_clock_that_is_slow_by_the_drift_is_no_danger() {
    for slow in 0..3 {
        let (mut cluster, group, leader, _) = written();
        // The leader's clock goes as much slower as is allowed; the others' are right.
        let slow_us = TICK_US * u64::from(100 - LEASE_DRIFT_PERCENT) / 100;
        cluster.nodes[leader as usize - 1].tick_us = slow_us;
        cluster.tick(4 + slow);
        isolate(&mut cluster, leader);
        replace(&mut cluster, group, leader, |cluster| {
            let answered = cluster.ask(leader, &lease()) == value("old");
            let deposed = (1..=3).any(|node| node != leader && leads(cluster, node, group));
            assert!(!(answered && deposed));
        });
    }
}

#[test]
fn a_transfer_ends_the_lease() {
    let (mut cluster, group, leader, [to, _]) = written();
    assert_eq!(alone(&mut cluster, leader, &lease()), value("old"));
    // The target is told, but what it does about it is not heard.
    cluster.cut = (1..=3).filter(|other| *other != leader).map(|other| (leader, other)).collect();
    cluster.administrate(leader, &AdminRequest::Transfer { group, to });
    cluster.settle();
    assert!(leads(&cluster, leader, group));
    assert_eq!(alone(&mut cluster, leader, &lease()), None, "the forced election may be won at any moment");
    cluster.tick(1);
    cluster.cut.clear();
    cluster.tick(30);
    let leader = cluster.leader(group);
    assert_eq!(cluster.ask(leader, &get("a")), value("old"));
}

#[test]
fn a_restarted_voter_votes_for_nobody_while_it_may_have_promised() {
    for offset in 0..20 {
        let (mut cluster, group, leader, [voter, rival]) = written();
        // The rival hears nobody but the voter, which knows better; then the voter forgets that it heard the leader.
        cluster.cut = vec![(leader, rival), (rival, leader)];
        cluster.tick(20 + offset);
        assert!(leads(&cluster, leader, group));
        cluster.crash(voter);
        cluster.restart(voter);
        isolate(&mut cluster, leader);
        let mut held = false;
        replace(&mut cluster, group, leader, |cluster| {
            let answered = cluster.ask(leader, &lease()) == value("old");
            held |= answered;
            assert!(!(answered && leads(cluster, rival, group)), "offset {offset}");
        });
        assert!(held, "there was a lease to be broken");
    }
}

// Reads at followers.

#[test]
fn a_follower_answers_with_what_is_acknowledged() {
    let (mut cluster, _, leader, [first, second]) = written();
    for (number, node) in [first, second, leader].into_iter().enumerate() {
        let text = format!("{number}");
        assert!(matches!(cluster.ask(leader, &put("a", &text)), Some(Outcome::Done(_))));
        assert_eq!(cluster.ask(node, &follower()), value(&text));
    }
    assert_eq!((counters(&cluster, first), counters(&cluster, second)), ((0, 1), (0, 1)));
}

#[test]
fn reads_of_a_turn_share_a_question_and_later_ones_gather() {
    let (mut cluster, _, leader, [node, _]) = written();
    let turns = |cluster: &Cluster| cluster.nodes[leader as usize - 1].shard.status().counters.turns;
    let asked: Vec<u32> = (0..5).map(|_| cluster.send(node, &follower())).collect();
    assert!(cluster.turn(node as usize - 1), "one question goes");
    let late: Vec<u32> = (0..5).map(|_| cluster.send(node, &follower())).collect();
    assert!(!cluster.turn(node as usize - 1), "the others wait for its answer");
    let before = turns(&cluster);
    cluster.settle();
    assert!(asked.iter().chain(&late).all(|read| cluster.replies.contains_key(read)));
    assert!(turns(&cluster) > before);
    assert_eq!(counters(&cluster, node), (0, 10));
}

#[test]
fn a_follower_waits_until_it_has_applied_what_the_leader_names() {
    let (mut cluster, _, leader, [node, _]) = written();
    // Its disk stands still: it acknowledges nothing, and is not told that the others have committed.
    cluster.nodes[node as usize - 1].flushing = false;
    assert!(matches!(cluster.ask(leader, &put("a", "new")), Some(Outcome::Done(_))));
    let asked = cluster.send(node, &follower());
    cluster.settle();
    assert!(!cluster.replies.contains_key(&asked));
    cluster.nodes[node as usize - 1].flushing = true;
    cluster.settle();
    cluster.tick(3);
    assert_eq!(cluster.replies.remove(&asked).map(|reply| reply.outcome), value("new"));
}

#[test]
fn a_follower_that_reaches_nobody_says_so() {
    let (mut cluster, group, leader, [node, _]) = written();
    isolate(&mut cluster, node);
    let asked = cluster.send(node, &follower());
    cluster.settle();
    assert!(!cluster.replies.contains_key(&asked), "it waits for the answer");
    cluster.tick(20);
    assert!(is_unavailable(cluster.replies.remove(&asked).map(|reply| reply.outcome)), "an election timeout");
    assert_ne!(cluster.status(node, group).leader, Some(leader));
    assert!(is_unavailable(cluster.ask(node, &follower())), "at once while it knows no leader");
    cluster.cut.clear();
    cluster.tick(30);
    assert_eq!(cluster.ask(node, &follower()), value("old"));
    // A link that is known to be down is not waited for.
    let leader = cluster.leader(group);
    let node = leader % 3 + 1;
    cluster.cut = vec![(node, leader)];
    let asked = cluster.send(node, &follower());
    cluster.settle();
    cluster.nodes[node as usize - 1].shard.peer_disconnected(NodeId(leader));
    cluster.settle();
    assert!(is_unavailable(cluster.replies.remove(&asked).map(|reply| reply.outcome)));
    assert!(is_unavailable(cluster.ask(node, &follower())));
}

#[test]
fn a_change_of_leaders_fails_what_was_asked_of_the_old_one() {
    let (mut cluster, group, leader, [node, to]) = written();
    cluster.cut = vec![(node, leader)];
    let asked = cluster.send(node, &follower());
    cluster.settle();
    assert!(!cluster.replies.contains_key(&asked));
    cluster.cut.clear();
    cluster.administrate(leader, &AdminRequest::Transfer { group, to });
    cluster.settle();
    assert!(leads(&cluster, to, group));
    assert!(is_unavailable(cluster.replies.remove(&asked).map(|reply| reply.outcome)));
    assert_eq!(cluster.ask(node, &follower()), value("old"));
}

#[test]
fn a_deposed_leader_confirms_nothing_to_its_last_follower() {
    let mut cluster = Cluster::new(5);
    let group = group_of("a");
    let leader = cluster.leader(group);
    assert!(matches!(cluster.ask(leader, &put("a", "old")), Some(Outcome::Done(_))));
    cluster.tick(4);
    // Two on one side, three on the other, which elect one of theirs.
    let loyal = leader % 5 + 1;
    let side = |node: u64| node == leader || node == loyal;
    let pairs = (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to)));
    cluster.cut = pairs.filter(|(from, to)| side(*from) != side(*to)).collect();
    for _ in 0..60 {
        let answer = cluster.ask(loyal, &follower());
        let next = (1..=5).find(|node| !side(*node) && leads(&cluster, *node, group));
        assert_ne!(answer, value("old"), "nothing is confirmed by two of five");
        if let Some(next) = next {
            cluster.ask(next, &put("a", "new"));
        }
        cluster.tick(1);
    }
    cluster.cut.clear();
    cluster.tick(40);
    assert_eq!(cluster.ask(loyal, &follower()), value("new"));
}

// Stale reads with a bound.

#[test]
fn a_replica_answers_within_the_bound_and_asks_beyond_it() {
    let (mut cluster, _, leader, [node, _]) = written();
    assert_eq!(alone(&mut cluster, node, &bounded(60_000)), None, "it does not know that it was ever current");
    cluster.tick(21);
    cluster.replies.clear();
    assert_eq!(cluster.ask(node, &bounded(50)), value("old"), "it asks");
    isolate(&mut cluster, node);
    assert!(matches!(cluster.ask(leader, &put("a", "new")), Some(Outcome::Done(_))));
    cluster.tick(3);
    assert_eq!(cluster.ask(node, &bounded(50)), value("old"), "30 ms old");
    assert_eq!(cluster.ask(node, &bounded(29)), None, "too old: it asks");
    cluster.tick(3);
    assert_eq!(cluster.ask(node, &bounded(50)), None, "60 ms old");
    assert_eq!(cluster.ask(node, &Request { sequence: 0, ..bounded(0) }), value("old"), "however old");
    cluster.tick(20);
    let refused = std::mem::take(&mut cluster.replies);
    assert_eq!(refused.len(), 2);
    assert!(refused.into_values().all(|reply| is_unavailable(Some(reply.outcome))));
    cluster.cut.clear();
    cluster.tick(30);
    assert_eq!(cluster.ask(node, &bounded(50)), value("new"));
}

#[test]
fn a_leader_knows_how_current_it_is_without_a_lease() {
    let (mut cluster, _, leader, _) = written();
    isolate(&mut cluster, leader);
    assert_eq!(cluster.ask(leader, &bounded(50)), value("old"));
    cluster.tick(6);
    assert_eq!(cluster.ask(leader, &bounded(50)), None, "it asks a majority");
    assert_eq!(cluster.ask(leader, &bounded(500)), value("old"));
}

#[test]
fn a_pause_makes_what_a_replica_knows_older() {
    let (mut cluster, group, leader, [node, _]) = written();
    assert_eq!(cluster.ask(node, &bounded(100)), value("old"));
    cluster.nodes[node as usize - 1].paused = true;
    assert!(matches!(cluster.ask(leader, &put("a", "new")), Some(Outcome::Done(_))));
    cluster.tick(12);
    cluster.nodes[node as usize - 1].paused = false;
    assert_eq!(alone(&mut cluster, node, &bounded(100)), None, "120 ms old, and no tick said so");
    cluster.resume(node);
    cluster.tick(30);
    let leader = cluster.leader(group);
    assert_eq!(cluster.ask(leader, &get("a")), value("new"));
}
