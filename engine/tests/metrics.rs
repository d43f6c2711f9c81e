//! What shards count while they work, against what was done.
//!
//! Off the data path; tests only.

mod cluster;

use std::sync::Arc;

use cluster::{Cluster, group_of, put};
use ringraft_engine::metrics::record::{Rejection, Transition};
use ringraft_engine::metrics::sample::{GroupSample, State};
use ringraft_engine::metrics::{NodeSample, ProcessSample, ShardSample, render};
use ringraft_engine::shard::board::NodeBoard;
use ringraft_net::wire::Outcome;

const WRITES: u64 = 20;

fn sample(cluster: &Cluster, node: u64) -> ShardSample {
    cluster.nodes[node as usize - 1].shard.sample()
}

fn group(sample: &ShardSample, group: u32) -> GroupSample {
    sample.groups.iter().find(|one| one.group == group).expect("a replica").clone()
}

/// A cluster, the group of "a", its leader.
fn serving() -> (Cluster, u32, u64) {
    let mut cluster = Cluster::new(3);
    let group = group_of("a");
    let leader = cluster.leader(group);
    cluster.tick(4);
    (cluster, group, leader)
}

#[test]
fn entries_commits_and_applied_entries_are_those_that_were_written() {
    let (mut cluster, number, leader) = serving();
    let before: Vec<GroupSample> = (1..=3).map(|node| group(&sample(&cluster, node), number)).collect();
    for count in 0..WRITES {
        assert!(cluster.ask(leader, &put("a", &count.to_string())).is_some());
    }
    cluster.tick(8); // followers hear of the last commit with a heartbeat
    for node in 1..=3 {
        let (shard, before) = (sample(&cluster, node), &before[node as usize - 1]);
        let (now, expected) = (group(&shard, number), WRITES);
        assert_eq!(now.tally.entries - before.tally.entries, expected, "node {node}");
        assert_eq!(now.tally.commits - before.tally.commits, expected, "node {node}");
        assert_eq!(now.tally.applied - before.tally.applied, expected, "node {node}");
        assert_eq!((now.state == State::Leader, now.leader), (node == leader, leader));
        assert_eq!((now.keys, now.apply_lag()), (1, 0));
        assert!(shard.tally.entries >= now.tally.entries && shard.latencies.flush.count() > 0);
    }
    let led = group(&sample(&cluster, leader), number);
    assert_eq!(led.followers.iter().map(|one| (one.lag, one.state)).collect::<Vec<_>>(), [(0, 1), (0, 1)]);
    assert_eq!(led.tally.leader_changes, 1);
    let elections: u64 = (1..=3).map(|node| group(&sample(&cluster, node), number).tally.elections).sum();
    assert_eq!(elections, 1);
}

#[test]
fn a_commit_takes_as_long_as_the_disks_do() {
    let (mut cluster, _, leader) = serving();
    let (before, tick_us) = (sample(&cluster, leader).latencies, cluster.nodes[0].tick_us);
    cluster.nodes.iter_mut().for_each(|node| node.flushing = false);
    let correlation = cluster.send(leader, &put("a", "1"));
    cluster.tick(3);
    assert!(!cluster.replies.contains_key(&correlation));
    cluster.nodes.iter_mut().for_each(|node| node.flushing = true);
    cluster.settle();
    assert!(cluster.replies.contains_key(&correlation));
    let after = sample(&cluster, leader).latencies;
    assert_eq!(after.commit.count() - before.commit.count(), 1);
    // The turn behind the first tick proposes it, that behind the third sees it durable.
    assert_eq!(after.proposal_wait.sum() - before.proposal_wait.sum(), tick_us);
    assert_eq!(after.commit.sum() - before.commit.sum(), 2 * tick_us);
    assert!(after.flush.sum() - before.flush.sum() >= 2 * tick_us && after.flush.maximum() == 2 * tick_us);
    assert_eq!(after.entry_requests.sum() - before.entry_requests.sum(), 1);
    assert!(after.batch_bytes.count() > before.batch_bytes.count());
}

#[test]
fn what_is_not_taken_is_counted_by_its_reason() {
    let (mut cluster, number, leader) = serving();
    let follower = leader % 3 + 1;
    let refused = cluster.ask(follower, &put("a", "1"));
    assert_eq!(refused, Some(Outcome::NotLeader { group: number, leader: Some(leader) }));
    let shard = sample(&cluster, follower);
    let count = |reason: Rejection| {
        (shard.tally.rejected[reason as usize], group(&shard, number).tally.rejected[reason as usize])
    };
    assert_eq!(count(Rejection::NotLeader), (1, 1));
    assert_eq!(count(Rejection::Overloaded), (0, 0));
    assert_eq!(sample(&cluster, leader).tally.rejected.iter().sum::<u64>(), 0);
}

#[test]
fn a_follower_that_hears_nothing_lags() {
    let (mut cluster, number, leader) = serving();
    let lost = leader % 3 + 1;
    cluster.cut = vec![(leader, lost), (lost, leader)];
    for count in 0..WRITES {
        assert!(cluster.ask(leader, &put("a", &count.to_string())).is_some());
    }
    let shard = sample(&cluster, leader);
    let led = group(&shard, number);
    let lag = led.followers.iter().find(|one| one.node == lost).expect("a follower").lag;
    assert_eq!((lag, shard.sums.follower_lag_max), (WRITES, WRITES));
}

#[test]
fn a_shard_shows_itself_once_a_second_and_a_reader_needs_no_shard() {
    let (mut cluster, _, leader) = serving();
    let node = &mut cluster.nodes[leader as usize - 1];
    let mut board = NodeBoard::new(Arc::clone(node.shard.topology()));
    assert!(board.samples().is_empty());
    let mut shown = 0;
    for _ in 0..40 {
        let before = board.samples().first().map(Arc::as_ptr);
        node.shard.tick();
        node.shard.exchange(&mut board);
        shown += u32::from(board.samples().first().map(Arc::as_ptr) != before);
    }
    assert_eq!(shown, 2, "report_ticks is 20");
    let text = render(NodeSample::new(board.samples(), ProcessSample::default()));
    let term = group(&sample(&cluster, leader), 0).term;
    assert!(text.contains(&format!("\nraft_term_current{{group=\"0\"}} {term}\n")), "{text}");
    assert!(text.contains(&format!("\nringraft_node_info{{node=\"{leader}\",version=")), "{text}");
}

#[test]
fn what_replicas_become_is_told_once_and_in_order() {
    let (mut cluster, number, leader) = serving();
    let term = group(&sample(&cluster, leader), number).term;
    for id in 1..=3 {
        let shard = &mut cluster.nodes[id as usize - 1].shard;
        let mut board = NodeBoard::new(Arc::clone(shard.topology()));
        shard.exchange(&mut board);
        assert_eq!(board.take_transitions(), [], "with the report, once a second");
        while board.samples().is_empty() {
            shard.tick();
            shard.exchange(&mut board);
        }
        let told: Vec<Transition> =
            board.take_transitions().into_iter().filter(|transition| transition.group == number).collect();
        assert_eq!(board.take_transitions(), [], "each is told once");
        for (first, second) in told.iter().zip(&told[1..]) {
            assert_eq!((second.before, second.since_us), (first.state, first.at_us));
            assert!(second.at_us >= first.at_us && second.term >= first.term, "{told:?}");
        }
        let knew = |one: &&Transition| one.leader == leader && one.term == term;
        let known = told.iter().find(knew).expect("the leader became known");
        let expected =
            if id == leader { (State::Candidate, State::Leader) } else { (State::Follower, State::Follower) };
        assert_eq!((known.before, known.state), expected, "{told:?}");
        assert!(known.at_us > 0 && told[0].since_us == 0 && told[0].before == State::Follower);
    }
}
