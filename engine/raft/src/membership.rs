//! Who belongs to a group: voters, the outgoing voters of a joint configuration, learners.
//!
//! Off the data path; its quorums decide data path 7/9.
//!
//! Relations: each list is sorted and without repetition; no voter is a learner; the configuration is joint exactly
//! while `outgoing` is not empty, and then every decision needs a majority of both sets (thesis 4.3).
//!
//! ```text
//!   plain {1,2,3} --enter_joint--> joint {1,2,3} and {3,4,5} --leave_joint--> plain {3,4,5}
//!        |  ^                                                                   one change at a time, each an entry
//!        +--+ learners come and go
//! ```
//!
//! The log and the snapshot at its base are the one source of truth: `Memberships` holds what they say and nothing else.

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

    /// The joint configuration on the way to `voters` and `learners` (thesis 4.3).
    #[must_use]
    pub fn enter_joint(&self, voters: Vec<NodeId>, learners: Vec<NodeId>) -> Self {
        Self::with(voters, self.voters.clone(), learners)
    }

    /// What a joint configuration leads to.
    #[must_use]
    pub fn leave_joint(&self) -> Self {
        Self::with(self.voters.clone(), Vec::new(), self.learners.clone())
    }

    /// Whether `next` may follow this configuration in one entry: out of a joint one only to where it leads; out of a
    /// plain one to a joint one that begins here, or to one with the same voters.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        if next.voters.is_empty() {
            return false;
        }
        if self.is_joint() {
            return *next == self.leave_joint();
        }
        let same_voters = !next.is_joint() && next.voters == self.voters;
        same_voters || next.outgoing == self.voters
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

/// The configurations of a log: the one at its base, and those that its entries bring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memberships {
    base: Membership,
    changes: Vec<(Index, Membership)>,
}

impl Memberships {
    /// Those of a log without changes.
    #[must_use]
    pub fn new(base: Membership) -> Self {
        Self { base, changes: Vec::new() }
    }

    /// An entry brings a configuration.
    ///
    /// # Panics
    /// When the entry is not behind the last one that did.
    pub fn push(&mut self, index: Index, membership: Membership) {
        assert!(index > self.last_index(), "configurations come in the order of the log: {index}");
        self.changes.push((index, membership));
    }

    /// The configuration in force: the last one of the log, committed or not (Raft 6).
    #[must_use]
    pub fn current(&self) -> &Membership {
        self.changes.last().map_or(&self.base, |(_, membership)| membership)
    }

    /// The configuration at an index of the log.
    #[must_use]
    pub fn at(&self, index: Index) -> &Membership {
        let behind = self.changes.partition_point(|(change, _)| *change <= index);
        behind.checked_sub(1).map_or(&self.base, |place| &self.changes[place].1)
    }

    /// Whether a node has a vote in the configuration at an index of the log, or in a later one: as long as it is not known
    /// which of them are committed, it may be needed (thesis 4.2.2).
    #[must_use]
    pub fn may_need(&self, node: NodeId, index: Index) -> bool {
        let later = self.changes.iter().filter(|(change, _)| *change > index);
        self.at(index).is_voter(node) || later.into_iter().any(|(_, membership)| membership.is_voter(node))
    }

    /// The index that brought the current configuration; 0: the one at the base.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.changes.last().map_or(0, |(index, _)| *index)
    }

    /// An index that is committed, whatever else is known: a configuration is proposed only when the one before it is
    /// committed (thesis 4.1), so the last but one is; 0: there are not two. After a restart it tells a node what it must
    /// have applied to know the members it needs.
    #[must_use]
    pub fn committed_index(&self) -> Index {
        let last_but_one = self.changes.len().checked_sub(2);
        last_but_one.map_or(0, |place| self.changes[place].0)
    }

    /// The configuration at the base of the log.
    #[must_use]
    pub fn base(&self) -> &Membership {
        &self.base
    }

    /// The configurations that entries behind the base bring, in order.
    #[must_use]
    pub fn changes(&self) -> &[(Index, Membership)] {
        &self.changes
    }

    /// The entries from `from` on are gone.
    pub(crate) fn truncate(&mut self, from: Index) {
        let kept = self.changes.partition_point(|(index, _)| *index < from);
        self.changes.truncate(kept);
    }

    /// The entries up to and with `to` are in a snapshot.
    pub(crate) fn compact(&mut self, to: Index) {
        let gone = self.changes.partition_point(|(index, _)| *index <= to);
        if let Some((_, membership)) = self.changes.drain(..gone).next_back() {
            self.base = membership;
        }
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
    fn changes_go_through_a_joint_configuration_unless_only_learners_change() {
        let old = Membership::new(ids(&[1, 2, 3]));
        let joint = old.enter_joint(ids(&[3, 4, 5]), ids(&[9]));
        assert!(old.may_become(&joint) && joint.is_joint());
        assert!(joint.may_become(&joint.leave_joint()));
        assert_eq!(joint.leave_joint(), Membership::with(ids(&[3, 4, 5]), Vec::new(), ids(&[9])));
        assert!(!joint.may_become(&old), "there is no way back but through the end");
        assert!(!old.may_become(&Membership::new(ids(&[1, 2]))), "voters change only jointly");
        assert!(old.may_become(&Membership::with(ids(&[1, 2, 3]), Vec::new(), ids(&[4]))));
        assert!(!old.may_become(&Membership::with(Vec::new(), ids(&[1, 2, 3]), Vec::new())), "somebody must be left");
    }

    #[test]
    fn a_node_may_be_needed_while_a_configuration_with_it_may_be_the_last_committed_one() {
        let joined = Membership::with(ids(&[1]), Vec::new(), ids(&[2]));
        let joint = Membership::with(ids(&[2, 3]), ids(&[1]), Vec::new());
        let mut memberships = Memberships::new(Membership::new(Vec::new()));
        for (index, membership) in [(10, joined), (20, joint), (30, Membership::new(ids(&[3])))] {
            memberships.push(index, membership);
        }
        let needed = |node| [0, 9, 10, 20, 29, 30, 99].map(|index| memberships.may_need(NodeId(node), index));
        assert_eq!(needed(1), [true, true, true, true, true, false, false]);
        assert_eq!(needed(2), [true, true, true, true, true, false, false]);
        assert_eq!((needed(3), needed(4)), ([true; 7], [false; 7]));
    }

    #[test]
    fn the_last_configuration_of_the_log_counts_until_it_is_truncated() {
        let [first, second, third] = [1, 2, 3].map(|last| Membership::new((1..=last).map(NodeId).collect()));
        let mut memberships = Memberships::new(first.clone());
        memberships.push(10, second.clone());
        memberships.push(20, third.clone());
        assert_eq!((memberships.current(), memberships.last_index()), (&third, 20));
        assert_eq!([9, 10, 19, 20].map(|index| memberships.at(index)), [&first, &second, &second, &third]);
        memberships.truncate(20);
        assert_eq!((memberships.current(), memberships.last_index()), (&second, 10));
        memberships.compact(15);
        assert_eq!((memberships.current(), memberships.at(15), memberships.last_index()), (&second, &second, 0));
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
