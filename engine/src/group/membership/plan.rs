//! The next step from the members a group has to those it is to have, as a pure function of both.
//!
//! Off the data path. Thesis 4.2, 4.3.
//!
//! ```text
//!   {1,2,3}  target {3,4,5}
//!      |  learners = what the target has and is no voter yet      {1,2,3} + 4,5
//!      |  all of them have caught up, a majority of the target answers
//!      |  a leader outside the target hands over, if it can
//!      v  joint configuration                                     {3,4,5} and {1,2,3}
//!      |  committed: the core asks to leave it
//!      v                                                          {3,4,5}
//! ```
//! Invariants: every step is allowed from where it starts; from any plain configuration the steps reach the target, and
//! then there are none (nothing flaps); voters change only to the target's, so an interrupted change is carried on by
//! whoever leads next, from whatever is in force.
//! It keeps nothing between two calls, and does not know how steps are made.

use ringraft_raft::{Membership, NodeId};

/// Nodes of each kind that a target has at most: half of what a configuration can hold, since a change needs both.
pub const TARGET_NODES_MAX: usize = crate::snapshot::MEMBERS_MAX / 2;

/// The members a group is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
}

/// Why nodes are no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nobody would have a vote.
    #[error("a group needs a voter")]
    NoVoter,
    /// More than a configuration can hold.
    #[error("more than {TARGET_NODES_MAX} voters or learners")]
    TooMany,
}

impl Target {
    /// These voters and, of the others, these learners, in any order.
    ///
    /// # Errors
    /// No voters, or too many of either.
    pub fn new(voters: Vec<NodeId>, learners: Vec<NodeId>) -> Result<Self, TargetError> {
        let [voters, mut learners] = [voters, learners].map(|mut nodes| {
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        });
        learners.retain(|node| voters.binary_search(node).is_err());
        if voters.is_empty() {
            return Err(TargetError::NoVoter);
        }
        if voters.len().max(learners.len()) > TARGET_NODES_MAX {
            return Err(TargetError::TooMany);
        }
        Ok(Self { voters, learners })
    }

    /// Who is to have a vote, sorted.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Who is to have the data without a vote, sorted.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok()
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: the members are the target's.
    Settled,
    /// Nothing yet: the core says when the joint configuration is to be left.
    Joint,
    /// Nothing yet: new voters lag behind, or too few of the target's voters answer.
    CatchUp,
    /// This leader is to go: it hands over to one of these, and if that does not work goes on with the configuration.
    HandOver { to: Vec<NodeId>, otherwise: Membership },
    /// Propose this configuration.
    Propose(Membership),
}

/// The step of the leader `me` from `membership`, which is committed. `has_caught_up`: whether another member answers and
/// holds nearly everything.
pub(crate) fn next_step(
    membership: &Membership,
    target: &Target,
    me: NodeId,
    has_caught_up: impl Fn(NodeId) -> bool,
) -> Step {
    if membership.is_joint() {
        return Step::Joint;
    }
    let voters = membership.voters();
    let wanted = target.learners.iter().chain(&target.voters).copied();
    let learners: Vec<NodeId> = wanted.filter(|node| !membership.is_voter(*node)).collect();
    let prepared = Membership::with(voters.to_vec(), Vec::new(), learners.clone());
    // A voter that is to be a learner becomes one when it has lost its vote.
    if prepared != *membership {
        return Step::Propose(prepared);
    }
    if voters == target.voters {
        return Step::Settled;
    }
    let is_current = |node: NodeId| node == me || has_caught_up(node);
    let new_voters_are = target.voters.iter().all(|node| membership.is_voter(*node) || is_current(*node));
    if !new_voters_are || !Membership::new(target.voters.clone()).has_quorum(is_current) {
        return Step::CatchUp;
    }
    let joint = membership.enter_joint(target.voters.clone(), learners);
    let staying: Vec<NodeId> =
        target.voters.iter().copied().filter(|node| membership.is_voter(*node) && has_caught_up(*node)).collect();
    if target.is_voter(me) || staying.is_empty() {
        Step::Propose(joint)
    } else {
        Step::HandOver { to: staying, otherwise: joint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        Membership::with(ids(voters), ids(outgoing), ids(learners))
    }

    fn target(voters: &[u64], learners: &[u64]) -> Target {
        Target::new(ids(voters), ids(learners)).unwrap()
    }

    #[test]
    fn targets_are_sorted_and_bounded() {
        let target = Target::new(ids(&[3, 1, 3]), ids(&[9, 1, 2])).unwrap();
        assert_eq!((target.voters(), target.learners()), (&ids(&[1, 3])[..], &ids(&[2, 9])[..]));
        assert_eq!(Target::new(Vec::new(), ids(&[1])), Err(TargetError::NoVoter));
        assert_eq!(Target::new((0..65).map(NodeId).collect(), Vec::new()), Err(TargetError::TooMany));
    }

    #[test]
    fn a_replica_is_replaced_step_by_step() {
        let (me, target) = (NodeId(1), target(&[1, 2, 4], &[]));
        let old = members(&[1, 2, 3], &[], &[]);
        let learning = members(&[1, 2, 3], &[], &[4]);
        assert_eq!(next_step(&old, &target, me, |_| true), Step::Propose(learning.clone()));
        assert_eq!(next_step(&learning, &target, me, |node| node.0 != 4), Step::CatchUp);
        let joint = members(&[1, 2, 4], &[1, 2, 3], &[]);
        assert_eq!(next_step(&learning, &target, me, |node| node.0 != 3), Step::Propose(joint.clone()));
        assert_eq!(next_step(&joint, &target, me, |_| true), Step::Joint);
        assert_eq!(next_step(&joint.leave_joint(), &target, me, |_| true), Step::Settled);
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_to_a_voter_that_stays() {
        let target = target(&[2, 3, 4], &[]);
        let learning = members(&[1, 2, 3], &[], &[4]);
        let joint = members(&[2, 3, 4], &[1, 2, 3], &[]);
        let step = next_step(&learning, &target, NodeId(1), |node| node.0 != 3);
        assert_eq!(step, Step::HandOver { to: ids(&[2]), otherwise: joint });
        let none_stays = members(&[1], &[], &[2, 3, 4]);
        let joint = members(&[2, 3, 4], &[1], &[]);
        assert_eq!(next_step(&none_stays, &target, NodeId(1), |_| true), Step::Propose(joint));
    }

    #[test]
    fn a_group_is_not_given_to_voters_that_do_not_answer() {
        let target = target(&[2, 3], &[]);
        let members = members(&[1, 2, 3], &[], &[]);
        assert_eq!(next_step(&members, &target, NodeId(1), |node| node.0 == 2), Step::CatchUp);
        assert!(matches!(next_step(&members, &target, NodeId(1), |_| true), Step::HandOver { .. }));
    }

    #[test]
    fn a_voter_becomes_a_learner_by_losing_its_vote_first() {
        let target = target(&[1, 2], &[3]);
        let joint = members(&[1, 2], &[1, 2, 3], &[]);
        assert_eq!(
            next_step(&members(&[1, 2, 3], &[], &[]), &target, NodeId(1), |_| true),
            Step::Propose(joint.clone())
        );
        let demoted = members(&[1, 2], &[], &[3]);
        assert_eq!(next_step(&joint.leave_joint(), &target, NodeId(1), |_| true), Step::Propose(demoted.clone()));
        assert_eq!(next_step(&demoted, &target, NodeId(1), |_| true), Step::Settled);
    }

    fn nodes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(1..10_u64, count)
    }

    proptest! {
        #[test]
        fn every_step_is_allowed_and_few_of_them_settle(
            voters in nodes(1..6), learners in nodes(0..4), to_voters in nodes(1..6), to_learners in nodes(0..4),
            leader in any::<prop::sample::Index>(),
        ) {
            let target = target(&to_voters, &to_learners);
            let mut membership = members(&voters, &[], &learners);
            let mut steps = 0;
            loop {
                let me = membership.voters()[leader.index(membership.voters().len())];
                let next = match next_step(&membership, &target, me, |_| true) {
                    Step::Settled => break,
                    Step::Joint => membership.leave_joint(),
                    Step::CatchUp => return Err(TestCaseError::fail("all have caught up")),
                    Step::HandOver { to, otherwise } => {
                        prop_assert!(!to.is_empty() && !target.is_voter(me));
                        otherwise
                    }
                    Step::Propose(next) => next,
                };
                prop_assert!(next != membership && membership.may_become(&next), "{membership:?} -> {next:?}");
                membership = next;
                steps += 1;
                prop_assert!(steps <= 4);
            }
            prop_assert_eq!(membership.voters(), target.voters());
            prop_assert_eq!(membership.learners(), target.learners());
        }
    }
}
