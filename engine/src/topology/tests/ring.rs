//! Properties of the placement: complete, distinct, within capacity, stable when nodes come and go.
//!
//! Off the data path.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{cluster, ids, load_of};
use crate::topology::ring::Ring;
use crate::topology::{CONTROL_GROUP, CONTROL_VOTERS_MAX, Topology};
use ringraft_raft::{GroupId, NodeId};

fn seats_of(numbers: &BTreeSet<u64>, groups: u32, factor: usize) -> Vec<BTreeSet<u64>> {
    let names: Vec<u64> = numbers.iter().copied().collect();
    let placed = Ring::new(names.iter().copied()).place(groups, factor);
    placed.into_iter().map(|places| places.into_iter().map(|place| names[place]).collect()).collect()
}

/// Replicas that are in `after` and were not in `before`.
fn moved(before: &[BTreeSet<u64>], after: &[BTreeSet<u64>]) -> usize {
    before.iter().zip(after).map(|(before, after)| after.difference(before).count()).sum()
}

fn distinct(nodes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = BTreeSet<u64>> {
    prop_oneof![
        nodes.clone().prop_map(|count| (1..=count as u64).collect()),
        prop::collection::btree_set(1_u64.., nodes)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_group_has_its_replicas_and_no_seat_more_than_its_capacity(
        seats in distinct(1..=64), groups in 1_u32..400, factor in 1_usize..8,
    ) {
        let placed = seats_of(&seats, groups, factor);
        let replicas = factor.min(seats.len());
        prop_assert_eq!(placed.len(), groups as usize - 1);
        prop_assert!(placed.iter().all(|group| group.len() == replicas));
        let average = (placed.len() * replicas) as f64 / seats.len() as f64;
        let most = (average * 1.25).ceil() as usize;
        for seat in &seats {
            let held = placed.iter().filter(|group| group.contains(seat)).count();
            prop_assert!(held <= most, "seat {seat} holds {held}, average {average}");
        }
    }

    /// What a new node holds comes from the others; capacities, which shrink for all, move as much again at most.
    #[test]
    fn a_node_more_or_less_moves_little(seats in distinct(4..=24), groups in 128_u32..600, which in any::<prop::sample::Index>()) {
        let factor = 3;
        let gone = *which.get(&seats.iter().copied().collect::<Vec<_>>());
        let mut fewer = seats.clone();
        fewer.remove(&gone);
        let (less, more) = (seats_of(&fewer, groups, factor), seats_of(&seats, groups, factor));
        let held = more.iter().filter(|group| group.contains(&gone)).count();
        let ideal = more.len() * factor / seats.len();
        let (joined, left) = (moved(&less, &more), moved(&more, &less));
        prop_assert!(joined >= held && left >= held);
        prop_assert!(joined <= held + ideal, "{joined} replicas moved to a node that holds {held}, fair are {ideal}");
        prop_assert!(left <= held + ideal, "{left} replicas moved from a node that held {held}, fair are {ideal}");
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(
        seats in distinct(1..=16).prop_map(|seats| seats.into_iter().collect::<Vec<_>>()).prop_shuffle(), groups in 1_u32..64,
    ) {
        let mut sorted = seats.clone();
        sorted.sort_unstable();
        prop_assert_eq!(cluster(&seats, groups, 3), cluster(&sorted, groups, 3));
    }

    #[test]
    fn every_node_leads_about_as_many_groups(seats in distinct(1..=32), groups_per_node in 8_u32..24) {
        let numbers: Vec<u64> = seats.into_iter().collect();
        let topology = cluster(&numbers, groups_per_node * numbers.len() as u32, 3);
        let leaders = topology.preferred_leaders();
        for (group, leader) in leaders.iter().enumerate() {
            prop_assert!(topology.replicas(GroupId(group as u32)).contains(leader));
        }
        let led = |node: &u64| leaders.iter().filter(|leader| leader.0 == *node).count();
        let (fewest, most) = (numbers.iter().map(led).min(), numbers.iter().map(led).max());
        prop_assert!(most <= fewest.map(|fewest| fewest + 1), "between {fewest:?} and {most:?}");
    }
}

#[test]
fn with_as_many_nodes_as_replicas_everybody_holds_everything() {
    for nodes in 1..=3_u64 {
        let numbers: Vec<u64> = (1..=nodes).collect();
        let topology = cluster(&numbers, 50, 3);
        for group in (0..50).map(GroupId) {
            assert_eq!(topology.replicas(group), ids(&numbers));
            assert_eq!(topology.learners(group), []);
        }
    }
}

#[test]
fn group_0_has_five_voters_and_the_rest_learn() {
    for nodes in 1..=12_u64 {
        let topology = cluster(&(1..=nodes).collect::<Vec<_>>(), 4, 3);
        let voters = topology.replicas(CONTROL_GROUP);
        assert_eq!(voters.len(), CONTROL_VOTERS_MAX.min(nodes as usize));
        let mut all = [voters, &topology.learners(CONTROL_GROUP)].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=nodes).map(NodeId).collect::<Vec<_>>());
        assert_eq!(topology.learners(GroupId(1)), []);
    }
}

/// Every release must compute the same, or a mixed cluster would move groups to and fro.
#[test]
fn the_ring_is_golden() {
    let topology = cluster(&[1, 2, 3, 4, 5, 6, 7], 8, 3);
    let expected: [&[u64]; 8] =
        [&[1, 3, 4, 6, 7], &[2, 4, 6], &[2, 3, 4], &[1, 3, 7], &[2, 6, 7], &[2, 5, 6], &[4, 5, 7], &[3, 4, 5]];
    for (group, replicas) in (0..).map(GroupId).zip(expected) {
        assert_eq!(topology.replicas(group), ids(replicas), "{group}");
    }
}

#[test]
fn the_largest_cluster_is_placed_evenly() {
    let topology: Topology = cluster(&(1..=64).collect::<Vec<_>>(), 16_384, 3);
    let most = Ring::capacity(16_383, 3, 64);
    for node in topology.nodes() {
        let load = load_of(&topology, node.id);
        assert!((most / 2..=most).contains(&load), "{} holds {load} of at most {most}", node.id);
    }
}
