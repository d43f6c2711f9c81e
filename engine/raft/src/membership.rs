//! Who belongs to a group: voters, the outgoing voters of a joint configuration, learners.
//!
//! Off the data path; its quorums decide data path 7/9.
//!
//! Relations: each list is sorted and without repetition; no voter is a learner; the configuration is joint exactly
//! while `outgoing` is not empty, and then every decision needs a majority of both sets (thesis 4.3).
//!
//! Deliberately absent: changes of membership. The log will be their one source of truth.

use crate::{
    ids::{Index, NodeId},
    quorum,
};
use alloc::vec::Vec;

/// The members of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
}

impl Membership {
    /// A plain configuration of `voters`.
    #[must_use]
    pub fn new(voters: Vec<NodeId>) -> Self {
        Self::with(voters, Vec::new(), Vec::new())
    }

    /// Any configuration. Who is in `voters` or `outgoing` is no learner.
    #[must_use]
    pub fn with(voters: Vec<NodeId>, outgoing: Vec<NodeId>, learners: Vec<NodeId>) -> Self {
        let [voters, outgoing, mut learners] = [voters, outgoing, learners].map(sorted);
        learners.retain(|node| voters.binary_search(node).is_err() && outgoing.binary_search(node).is_err());
        Self { voters, outgoing, learners }
    }

    /// The (incoming) voters, sorted.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The outgoing voters of a joint configuration, sorted; empty otherwise.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// The learners, sorted.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// Whether the configuration is joint.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `node` has a vote.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok() || self.outgoing.binary_search(&node).is_ok()
    }

    /// Whether `node` is a member of any kind.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.binary_search(&node).is_ok()
    }

    /// Every member once, sorted.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        sorted([&self.voters[..], &self.outgoing[..], &self.learners[..]].concat())
    }

    /// Whether the nodes that satisfy `holds` are a quorum.
    #[must_use]
    pub fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        quorum::has_majority(&self.voters, &holds) && quorum::has_majority(&self.outgoing, &holds)
    }

    /// The highest value that a quorum has reached.
    #[must_use]
    pub fn quorum_value(&self, value_of: impl Fn(NodeId) -> Index) -> Index {
        quorum::majority_value(&self.voters, &value_of).min(quorum::majority_value(&self.outgoing, &value_of))
    }
}

fn sorted(mut nodes: Vec<NodeId>) -> Vec<NodeId> {
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn lists_are_sorted_unique_and_disjoint() {
        let membership = Membership::with(ids(&[3, 1, 3]), ids(&[4, 1]), ids(&[4, 9, 3]));
        assert_eq!(membership.voters(), ids(&[1, 3]));
        assert_eq!(membership.outgoing(), ids(&[1, 4]));
        assert_eq!(membership.learners(), ids(&[9]));
        assert_eq!(membership.members(), ids(&[1, 3, 4, 9]));
        assert!(membership.is_joint() && membership.is_voter(NodeId(4)) && !membership.is_voter(NodeId(9)));
        assert!(membership.contains(NodeId(9)) && !membership.contains(NodeId(2)));
        assert!(!Membership::new(ids(&[1])).is_joint());
    }

    #[test]
    fn a_joint_quorum_is_a_majority_of_both_sets() {
        let joint = Membership::with(ids(&[1, 2, 3]), ids(&[3, 4, 5]), Vec::new());
        assert!(!joint.has_quorum(|node| node.0 <= 3));
        assert!(joint.has_quorum(|node| [2, 3, 4].contains(&node.0)));
        assert_eq!(joint.quorum_value(|node| node.0), 2);
        assert_eq!(joint.quorum_value(|node| 10 - node.0), 6);
    }
}
