//! Evening out leaders: chains over third nodes, bounds, and that it ends as even as can be.
//!
//! Off the data path.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::ids;
use crate::topology::leaders::{Leaders, Led, Move, preferred};
use ringraft_raft::NodeId;

fn of(nodes: u64, groups: &[(u64, Vec<u64>)]) -> Leaders {
    let mut leaders = Leaders::new((1..=nodes).map(NodeId));
    for (group, (leader, voters)) in (0..).zip(groups) {
        leaders.count(NodeId(*leader));
        leaders.offer(Led { group, leader: NodeId(*leader), candidates: ids(voters) });
    }
    leaders
}

#[test]
fn one_more_than_another_is_even_enough() {
    assert_eq!(of(2, &[(1, vec![1, 2])]).even_out(9), []);
    assert_eq!(of(2, &[(1, vec![1, 2]), (1, vec![1, 2])]).even_out(9), [Move { group: 0, to: NodeId(2) }]);
}

#[test]
fn a_chain_goes_over_a_third_node_and_its_last_link_moves_first() {
    let groups = [(1, vec![1, 2]), (1, vec![1, 2]), (2, vec![2, 3])];
    let expected = [Move { group: 2, to: NodeId(3) }, Move { group: 0, to: NodeId(2) }];
    assert_eq!(of(3, &groups).even_out(9), expected);
    assert_eq!(of(3, &groups).even_out(1), expected[..1]);
}

#[test]
fn who_is_not_compared_neither_gives_nor_gets() {
    let groups = [(9, vec![1, 2]), (9, vec![1, 2]), (1, vec![1, 9]), (1, vec![1, 9])];
    assert_eq!(of(2, &groups).even_out(9), []);
    assert_eq!(of(2, &groups).least(ids(&[9, 1, 2])), Some(NodeId(2)));
    assert_eq!(of(2, &groups).least(ids(&[9])), None);
}

#[test]
fn what_is_not_known_may_be_what_makes_it_even() {
    let groups: Vec<(u64, Vec<u64>)> = (0..4).map(|_| (1, vec![1, 2])).collect();
    for (unknown, moves) in [(0, 2), (1, 1), (2, 1), (3, 0)] {
        let mut leaders = of(2, &groups);
        (0..unknown).for_each(|_| leaders.count_unknown());
        assert_eq!(leaders.even_out(9).len(), moves, "{unknown} groups are not known");
    }
}

/// The least possible most: a cap is possible if every group finds a leader below it (augmenting paths, one by one).
fn fits(groups: &[Vec<NodeId>], cap: usize) -> bool {
    fn assign(
        group: usize,
        groups: &[Vec<NodeId>],
        cap: usize,
        led: &mut BTreeMap<NodeId, Vec<usize>>,
        seen: &mut Vec<NodeId>,
    ) -> bool {
        for node in &groups[group] {
            if seen.contains(node) {
                continue;
            }
            seen.push(*node);
            let count = led.entry(*node).or_default().len();
            if count < cap {
                led.entry(*node).or_default().push(group);
                return true;
            }
            for place in 0..count {
                let other = led[node][place];
                if assign(other, groups, cap, led, seen) {
                    led.get_mut(node).expect("it is full")[place] = group;
                    return true;
                }
            }
        }
        false
    }
    let mut led = BTreeMap::new();
    (0..groups.len()).all(|group| assign(group, groups, cap, &mut led, &mut Vec::new()))
}

proptest! {
    #[test]
    fn repeated_transfers_end_and_nothing_is_more_even(
        groups in prop::collection::vec(prop::collection::btree_set(1_u64..=7, 1..4), 1..40), at_once in 1_usize..4,
    ) {
        let groups: Vec<Vec<u64>> = groups.into_iter().map(|voters| voters.into_iter().collect()).collect();
        let mut led: Vec<(u64, Vec<u64>)> = groups.iter().map(|voters| (voters[0], voters.clone())).collect();
        let mut steps = 0;
        loop {
            let moves = of(7, &led).even_out(at_once);
            prop_assert!(moves.len() <= at_once);
            if moves.is_empty() {
                break;
            }
            for Move { group, to } in moves {
                let (leader, voters) = &mut led[group as usize];
                prop_assert!(voters.contains(&to.0) && *leader != to.0);
                *leader = to.0;
            }
            steps += 1;
            prop_assert!(steps <= 7 * groups.len(), "no end");
        }
        let placements: Vec<Vec<NodeId>> = groups.iter().map(|voters| ids(voters)).collect();
        let most = |leaders: &[NodeId]| (1..=7).map(|node| leaders.iter().filter(|leader| leader.0 == node).count()).max();
        let reached: Vec<NodeId> = led.iter().map(|(leader, _)| NodeId(*leader)).collect();
        let best = (1..=groups.len()).find(|cap| fits(&placements, *cap));
        prop_assert_eq!(most(&reached), best);
        prop_assert_eq!(most(&preferred(&placements)), best);
    }
}
