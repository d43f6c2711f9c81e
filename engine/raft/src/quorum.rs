//! Majorities, plain and joint: who forms one, and which index one holds.
//!
//! Data path 7/9: what is committed.
//!
//! Relations: a majority of n voters is `n / 2 + 1`; a joint quorum is a majority of both sets (thesis 4.3); the set
//! without members is satisfied by anything, so that an empty outgoing set does not matter.
//!
//! Deliberately absent: knowledge of what is counted. Votes, match indexes and read sequences all come as closures.

use crate::ids::{Index, NodeId};

/// How many of `voters` are a majority.
pub(crate) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether a majority of `voters` satisfies `holds`.
pub(crate) fn has_majority(voters: &[NodeId], holds: impl Fn(NodeId) -> bool) -> bool {
    voters.is_empty() || voters.iter().filter(|voter| holds(**voter)).count() >= majority(voters.len())
}

/// The highest value that a majority of `voters` has reached. Quadratic in a handful, and without memory of its own.
pub(crate) fn majority_value(voters: &[NodeId], value_of: impl Fn(NodeId) -> Index) -> Index {
    if voters.is_empty() {
        return Index::MAX;
    }
    let needed = majority(voters.len());
    let reached = |value| voters.iter().filter(|voter| value_of(**voter) >= value).count() >= needed;
    voters.iter().map(|voter| value_of(*voter)).filter(|value| reached(*value)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn nodes(count: u64) -> Vec<NodeId> {
        (0..count).map(NodeId).collect()
    }

    #[test]
    fn majorities_of_one_to_seven() {
        let needed: Vec<usize> = (1..=7).map(majority).collect();
        assert_eq!(needed, [1, 2, 2, 3, 3, 4, 4]);
        assert!(has_majority(&nodes(3), |node| node.0 != 1));
        assert!(!has_majority(&nodes(4), |node| node.0 < 2));
        assert!(has_majority(&[], |_| false));
        assert_eq!(majority_value(&[], |_| 3), Index::MAX);
    }

    proptest! {
        #[test]
        fn the_value_of_a_majority_is_the_one_found_by_sorting(values in prop::collection::vec(0_u64..9, 1..8)) {
            let voters = nodes(values.len() as u64);
            let mut sorted = values.clone();
            sorted.sort_unstable_by(|left, right| right.cmp(left));
            let expected = sorted[majority(values.len()) - 1];
            prop_assert_eq!(majority_value(&voters, |node| values[node.0 as usize]), expected);
            prop_assert!(has_majority(&voters, |node| values[node.0 as usize] >= expected));
            prop_assert!(!has_majority(&voters, |node| values[node.0 as usize] > expected));
        }

        #[test]
        fn two_majorities_share_a_voter(count in 1_u64..8, left: u8, right: u8) {
            let voters = nodes(count);
            let in_set = |set: u8| move |node: NodeId| set >> node.0 & 1 == 1;
            if has_majority(&voters, in_set(left)) && has_majority(&voters, in_set(right)) {
                prop_assert!(voters.iter().any(|voter| in_set(left & right)(*voter)));
            }
        }
    }
}
