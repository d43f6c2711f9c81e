//! Properties: random schedules of whole clusters, with everything that networks and disks do.
//!
//! Off the data path; tests only.
//!
//! Relations: whatever the schedule, the oracle's safety properties hold at every step; and when the faults stop, the
//! cluster converges: one leader, a new entry committed everywhere, equal logs.
//!
//! Deliberately absent: corruption; the host checks bytes before it steps them.

mod common;

use common::{Cluster, small_config};
use proptest::prelude::*;
use ringraft_raft::{Membership, Message, NodeId, Role};

#[derive(Clone, Copy, Debug)]
enum Event {
    Tick(u64),
    TickAll(u8),
    Deliver(u16),
    DeliverAll,
    DeliverTo(u64),
    Drop(u16),
    Duplicate(u16),
    Flush(u64, u8),
    FlushAll,
    Propose(u16),
    ProposeTo(u64, u16),
    Read,
    ReadOf(u64),
    Campaign(u64),
    Contest(u64),
    StepDown(u64),
    StepDownFor(u64, u64),
    Unreachable(u64, u64),
    Crash(u64, u8),
    Start(u64),
    Cut(u64, u64),
    Isolate(u64),
    Heal,
    Compact(u64, u16),
    DeliverSnapshot,
    DropSnapshot,
    SnapshotFailed(u64),
    Change(u8),
    Transfer(u64),
}

/// An event and how much work goes well after it: without the latter nothing would ever be committed, and without the
/// times it is 0 nothing would ever go wrong.
fn event(nodes: u64) -> impl Strategy<Value = (Event, u8)> {
    use Event::*;
    let node = 1..=nodes;
    let event = prop_oneof![
        3 => node.clone().prop_map(Tick),
        8 => (1_u8..12).prop_map(TickAll),
        12 => any::<u16>().prop_map(Deliver),
        4 => Just(DeliverAll),
        4 => node.clone().prop_map(DeliverTo),
        4 => any::<u16>().prop_map(Drop),
        4 => any::<u16>().prop_map(Duplicate),
        6 => (node.clone(), 1_u8..5).prop_map(|(node, records)| Flush(node, records)),
        3 => Just(FlushAll),
        16 => (1_u16..900).prop_map(Propose),
        4 => (node.clone(), 1_u16..900).prop_map(|(node, length)| ProposeTo(node, length)),
        4 => Just(Read),
        6 => node.clone().prop_map(ReadOf),
        2 => node.clone().prop_map(Campaign),
        8 => node.clone().prop_map(Contest),
        1 => node.clone().prop_map(StepDown),
        1 => (node.clone(), node.clone()).prop_map(|(node, to)| StepDownFor(node, to)),
        2 => (node.clone(), node.clone()).prop_map(|(node, peer)| Unreachable(node, peer)),
        4 => (node.clone(), 0_u8..4).prop_map(|(node, keep)| Crash(node, keep)),
        8 => node.clone().prop_map(Start),
        2 => (node.clone(), node.clone()).prop_map(|(from, to)| Cut(from, to)),
        3 => node.clone().prop_map(Isolate),
        4 => Just(Heal),
        3 => (node.clone(), any::<u16>()).prop_map(|(node, pick)| Compact(node, pick)),
        4 => Just(DeliverSnapshot),
        1 => Just(DropSnapshot),
        1 => node.clone().prop_map(SnapshotFailed),
        4 => any::<u8>().prop_map(Change),
        2 => node.prop_map(Transfer),
    ];
    (event, prop_oneof![3 => Just(0_u8), 3 => 1_u8..6, 3 => 6_u8..40])
}

/// Delivers the oldest messages one by one, and flushes a node now and then.
fn work(cluster: &mut Cluster, steps: u8) {
    let members = cluster.ids();
    if steps > 20 {
        cluster.deliver_snapshot();
    }
    for step in 0..steps as usize {
        cluster.deliver_at(0);
        if step % 2 == 1 {
            cluster.flush(members[step / 2 % members.len()], usize::MAX);
        }
    }
}

fn perform(cluster: &mut Cluster, event: Event) {
    match event {
        Event::Tick(node) => cluster.tick(NodeId(node)),
        Event::TickAll(count) => (0..count).for_each(|_| cluster.tick_all()),
        Event::Deliver(pick) => cluster.deliver_at(pick as usize % cluster.network.len().max(1)),
        Event::DeliverAll => (0..cluster.network.len()).for_each(|_| cluster.deliver_at(0)),
        Event::DeliverTo(node) => {
            let envelopes = cluster.take(|envelope| envelope.to == NodeId(node));
            envelopes.into_iter().for_each(|envelope| cluster.hand_over(envelope));
        }
        Event::Drop(pick) if !cluster.network.is_empty() => {
            let position = pick as usize % cluster.network.len();
            cluster.network.remove(position);
        }
        Event::Duplicate(pick) if !cluster.network.is_empty() && cluster.network.len() < 500 => {
            let envelope = cluster.network[pick as usize % cluster.network.len()].clone();
            cluster.network.push(envelope);
        }
        Event::Drop(_) | Event::Duplicate(_) => {}
        Event::Flush(node, records) => cluster.flush(NodeId(node), records as usize),
        Event::FlushAll => cluster.ids().iter().for_each(|node| cluster.flush(*node, usize::MAX)),
        Event::Propose(length) => {
            if let Some(leader) = cluster.leader() {
                let _ = cluster.propose(leader.0, u32::from(length));
            }
        }
        Event::Read => {
            if let Some(leader) = cluster.leader() {
                let _ = cluster.read(leader.0);
            }
        }
        Event::Cut(from, to) => cluster.cut.push((NodeId(from), NodeId(to))),
        Event::Isolate(node) => {
            let others = cluster.ids().into_iter().filter(|id| id.0 != node);
            cluster.cut.extend(others.flat_map(|id| [(NodeId(node), id), (id, NodeId(node))]));
        }
        Event::Heal => cluster.cut.clear(),
        Event::DeliverSnapshot => cluster.deliver_snapshot(),
        Event::DropSnapshot => {
            // The sender believes that it arrived.
            if let Some(snapshot) = cluster.snapshots.first() {
                let (from, to, index) = (snapshot.from, snapshot.to, snapshot.entries.len() as u64);
                cluster.snapshots.remove(0);
                if cluster.is_up(from) {
                    cluster.core(from.0).snapshot_sent(to, index);
                    cluster.run(from);
                }
            }
        }
        Event::SnapshotFailed(node) => {
            if let Some(leader) = cluster.leader() {
                cluster.core(leader.0).snapshot_failed(NodeId(node));
                cluster.run(leader);
            }
        }
        Event::Change(pick) => change(cluster, pick),
        Event::Transfer(node) => {
            if let Some(leader) = cluster.leader() {
                let _ = cluster.core(leader.0).transfer_leadership(NodeId(node));
                cluster.run(leader);
            }
        }
        Event::Start(node) if !cluster.is_up(NodeId(node)) => cluster.start(NodeId(node)),
        Event::Start(_) => {}
        _ => perform_on_live_node(cluster, event),
    }
}

fn perform_on_live_node(cluster: &mut Cluster, event: Event) {
    let (Event::ProposeTo(node, _)
    | Event::ReadOf(node)
    | Event::Campaign(node)
    | Event::Contest(node)
    | Event::StepDown(node)
    | Event::StepDownFor(node, _)
    | Event::Unreachable(node, _)
    | Event::Compact(node, _)
    | Event::Crash(node, _)) = event
    else {
        return;
    };
    if !cluster.is_up(NodeId(node)) {
        return;
    }
    match event {
        Event::ProposeTo(_, length) => drop(cluster.propose(node, u32::from(length))),
        Event::ReadOf(_) => drop(cluster.read(node)),
        Event::Campaign(_) => cluster.campaign(node),
        Event::Contest(_) => contest(cluster, NodeId(node)),
        Event::StepDown(_) => cluster.core(node).step_down(),
        Event::StepDownFor(_, to) => cluster.core(node).step_down_for(NodeId(to)),
        Event::Unreachable(_, peer) => cluster.core(node).unreachable(NodeId(peer)),
        Event::Compact(_, pick) => {
            let applied = cluster.node(node).applied;
            cluster.compact(node, u64::from(pick) % (applied + 1));
        }
        Event::Crash(_, keep) => cluster.crash(NodeId(node), keep as usize),
        _ => {}
    }
    cluster.run(NodeId(node));
}

/// The leader is asked for other members: bits of `pick` are the voters, at least one, the rest learners or nothing.
fn change(cluster: &mut Cluster, pick: u8) {
    let Some(leader) = cluster.leader() else { return };
    let chosen = |bits: u8| move |node: &NodeId| bits >> (node.0 - 1) & 1 == 1;
    let (voters, others): (Vec<_>, Vec<_>) = cluster.ids().into_iter().partition(chosen(pick));
    let learners: Vec<_> = others.into_iter().filter(chosen(pick.rotate_left(3))).collect();
    let current = cluster.core(leader.0).membership().clone();
    if !voters.is_empty() && !current.is_joint() {
        let _ = cluster.change(leader.0, current.enter_joint(voters, learners));
    }
}

/// The others have waited long enough and answer the node's pre-vote: it is a candidate if it can, and everything that
/// matters about votes, flushes and crashes is still to come.
fn contest(cluster: &mut Cluster, node: NodeId) {
    for id in cluster.ids().into_iter().filter(|id| *id != node) {
        (0..10).for_each(|_| cluster.tick(id));
    }
    cluster.campaign(node.0);
    for _ in 0..2 {
        let pre_votes = cluster.take(|envelope| {
            let message = envelope.message;
            let is_pre_vote = matches!(message, Message::PreVote { .. } | Message::PreVoteResponse { .. });
            is_pre_vote && (envelope.from == node || envelope.to == node)
        });
        pre_votes.into_iter().for_each(|envelope| cluster.hand_over(envelope));
    }
}

/// Faults stop: the cluster must heal by ticks alone.
fn converge(cluster: &mut Cluster) {
    cluster.cut.clear();
    for id in cluster.ids() {
        if !cluster.is_up(id) {
            cluster.start(id);
        }
    }
    for _ in 0..600 {
        cluster.tick_all();
        cluster.settle();
    }
    let leader = cluster.leader().expect("liveness: a leader");
    cluster.propose(leader.0, 100).expect("liveness: a proposal");
    let target = cluster.core(leader.0).last().index;
    for _ in 0..10 {
        cluster.settle();
        cluster.tick_all();
    }
    let log = cluster.node(leader.0).entries.clone();
    let membership = cluster.core(leader.0).membership().clone();
    assert!(!membership.is_joint(), "liveness: an interrupted change is carried on");
    let mut leaders = 0;
    for id in membership.members() {
        assert_eq!(cluster.core(id.0).commit_index(), target, "liveness: {id} has committed everything");
        assert_eq!(cluster.node(id.0).entries, log, "liveness: {id} has the leader's log");
        assert_eq!(cluster.core(id.0).membership(), &membership, "liveness: {id} knows the members");
        assert_eq!(cluster.core(id.0).refused_conflicts(), 0);
        leaders += usize::from(cluster.core(id.0).role() == Role::Leader);
    }
    assert_eq!(leaders, 1);
    cluster.read(leader.0).expect("liveness: a read");
    cluster.run(leader);
    cluster.settle();
    assert!(cluster.node(leader.0).reads.is_empty(), "liveness: reads are answered");
}

fn play(mut cluster: Cluster, events: &[(Event, u8)]) {
    for (number, (event, steps)) in events.iter().enumerate() {
        perform(&mut cluster, *event);
        work(&mut cluster, *steps);
        cluster.trace.clear();
        if number % 16 == 0 {
            cluster.oracle.logs_match(&cluster.nodes.values());
        }
    }
    cluster.oracle.logs_match(&cluster.nodes.values());
    converge(&mut cluster);
    cluster.oracle.logs_match(&cluster.nodes.values());
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(128);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn three_nodes_stay_safe_and_converge(seed: u64, events in prop::collection::vec(event(3), 1..500)) {
        play(Cluster::new(3, seed), &events);
    }

    #[test]
    fn five_nodes_stay_safe_and_converge(seed: u64, events in prop::collection::vec(event(5), 1..500)) {
        play(Cluster::new(5, seed), &events);
    }

    #[test]
    fn one_and_two_nodes_stay_safe_and_converge(two: bool, events in prop::collection::vec(event(1), 1..200)) {
        play(Cluster::new(1 + u64::from(two), 3), &events);
    }

    #[test]
    fn three_members_and_two_spares_stay_safe_and_converge(
        seed: u64,
        events in prop::collection::vec(event(5), 1..500),
    ) {
        let membership = Membership::new([1, 2, 3].map(NodeId).to_vec());
        play(Cluster::with_spares(&membership, 2, |id| small_config(id, seed)), &events);
    }

    #[test]
    fn a_joint_group_with_a_learner_stays_safe_and_converges(
        seed: u64,
        events in prop::collection::vec(event(5), 1..400),
    ) {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect::<Vec<_>>();
        let membership = Membership::with(ids(&[1, 2, 3]), ids(&[2, 3, 4]), ids(&[5]));
        play(Cluster::with(&membership, |id| small_config(id, seed)), &events);
    }
}
