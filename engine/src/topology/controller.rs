//! The controller's plan: the next step toward what the ring wants, given what is known of the groups.
//!
//! Off the data path: the leader of group 0 asks now and then, proposes the next topology and sends the transfers.
//!
//! ```text
//!   nodes that caught up: Joining -> Active     leaving nodes that hold nothing: removed     group 0: its voters
//!   other groups: at most `moves_max` on the move, those with leaving nodes first            leaders: evened out
//! ```
//!
//! Invariants: a report counts only if its leader knew this very topology, so a plan is made when the last one is
//! known everywhere, and what is not known counts as moving; a settled group moves only if its target is not the ring's;
//! a group on the move gets another target only to let a leaving node go; nothing is newly placed on a node that is not
//! alive, and no group is left to nodes of which no majority is; no target has fewer replicas than
//! `min(factor, nodes that stay)`.
//!
//! It does not drive the change of a group's membership (its leader does), and keeps no state: a new leader of group 0
//! plans on from the topology and the reports.

use ringraft_raft::{GroupId, Membership, NodeId};

use super::leaders::{Leaders, Led, Move};
use super::{CONTROL_GROUP, NodeRecord, NodeState, Topology};

/// What the leader of a group says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The leader's term: of two reports of a group the later one counts.
    pub term: u64,
    /// Epoch of the topology that the leader acts on.
    pub epoch: u64,
    /// The leader.
    pub leader: NodeId,
    /// The configuration in force.
    pub membership: Membership,
    /// Members that have not caught up with the leader.
    pub behind: Vec<NodeId>,
}

impl GroupReport {
    fn has_caught_up(&self, node: NodeId) -> bool {
        self.membership.contains(node) && !self.behind.contains(&node)
    }
}

/// A node that was heard of lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveNode {
    /// The node.
    pub node: NodeId,
    /// Of those that could lead a group the ones with the highest number do.
    pub leader_priority: u32,
}

/// How much a plan may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanBounds {
    /// Groups on the move at once, group 0 not counted.
    pub moves_max: usize,
    /// Transfers of leadership in one plan.
    pub transfers_max: usize,
}

/// A wish that a group be led by another of its voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The group.
    pub group: GroupId,
    /// Who leads it, and is asked.
    pub from: NodeId,
    /// Who is to lead it.
    pub to: NodeId,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The topology to propose in place of the present one, if anything changes.
    pub next: Option<Topology>,
    /// Transfers to ask for.
    pub transfers: Vec<Transfer>,
}

/// Plans the next step. The order of reports and of nodes alive does not matter.
#[must_use]
pub fn plan(topology: &Topology, reports: &[GroupReport], alive: &[LiveNode], bounds: PlanBounds) -> Plan {
    let view = View::new(topology, reports, alive);
    let mut next = topology.clone();
    view.activate(&mut next);
    view.let_go(&mut next);
    view.place(&mut next, bounds.moves_max);
    let changed = next != *topology;
    if changed {
        next.epoch += 1;
        debug_assert_eq!(next.validate(), Ok(()), "a plan leads to a valid topology");
    }
    Plan { next: changed.then_some(next), transfers: view.transfers(bounds.transfers_max) }
}

/// What is known, group by group.
struct View<'a> {
    topology: &'a Topology,
    /// One place for each group; none: nothing is known that is not out of date.
    reports: Vec<Option<&'a GroupReport>>,
    alive: &'a [LiveNode],
}

impl<'a> View<'a> {
    fn new(topology: &'a Topology, reports: &'a [GroupReport], alive: &'a [LiveNode]) -> Self {
        let mut known: Vec<Option<&GroupReport>> = vec![None; topology.placements.len()];
        for report in reports.iter().filter(|report| report.epoch == topology.epoch) {
            let Some(place) = known.get_mut(report.group.0 as usize) else { continue };
            if place.is_none_or(|before| before.term < report.term) {
                *place = Some(report);
            }
        }
        Self { topology, reports: known, alive }
    }

    fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.topology.groups()).map(GroupId)
    }

    fn report(&self, group: GroupId) -> Option<&'a GroupReport> {
        self.reports[group.0 as usize]
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.priority(node).is_some()
    }

    /// None: it is not alive.
    fn priority(&self, node: NodeId) -> Option<u32> {
        self.alive.iter().find(|live| live.node == node).map(|live| live.leader_priority)
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        self.topology.node(node).is_none_or(|record| !record.is_placeable())
    }

    /// Whether a group is where it is to be. Learners of group 0 come and go beside that.
    fn is_settled(&self, group: GroupId) -> bool {
        self.report(group).is_some_and(|report| {
            let membership = &report.membership;
            let no_strangers = group == CONTROL_GROUP || membership.learners().is_empty();
            !membership.is_joint() && no_strangers && membership.voters() == self.topology.replicas(group)
        })
    }

    /// Nodes that have all they are to have are active.
    fn activate(&self, next: &mut Topology) {
        for node in next.nodes.iter_mut().filter(|node| node.state == NodeState::Joining) {
            if self.has_joined(node.id) {
                node.state = NodeState::Active;
            }
        }
    }

    fn has_joined(&self, node: NodeId) -> bool {
        let has_caught_up = |group| self.report(group).is_some_and(|report| report.has_caught_up(node));
        let mut own = self.groups().filter(|group| self.topology.replicas(*group).contains(&node));
        self.is_alive(node)
            && has_caught_up(CONTROL_GROUP)
            && own.all(|group| self.is_settled(group) && has_caught_up(group))
    }

    /// Leaving nodes that hold nothing are removed, dead or alive. A group of which nothing is known may hold them.
    fn let_go(&self, next: &mut Topology) {
        let gone: Vec<u64> =
            self.topology.nodes.iter().filter(|node| self.holds_nothing(node)).map(|node| node.id.0).collect();
        next.nodes.retain(|node| !gone.contains(&node.id.0));
        next.removed.extend(gone);
        next.removed.sort_unstable();
    }

    fn holds_nothing(&self, node: &NodeRecord) -> bool {
        let is_free_of_it = |group| {
            let Some(report) = self.report(group) else { return false };
            // Whoever is in the topology is a learner of group 0, to the last.
            let is_member = match group {
                CONTROL_GROUP => report.membership.is_voter(node.id),
                _ => report.membership.contains(node.id),
            };
            !is_member && !self.topology.replicas(group).contains(&node.id)
        };
        !node.is_placeable() && self.groups().all(is_free_of_it)
    }

    /// Moves targets toward the ring's: group 0 by itself, the others while no more than `moves_max` are on the move.
    fn place(&self, next: &mut Topology, moves_max: usize) {
        let wanted = self.topology.placements_of_ring(self.topology.groups());
        let (draining, others): (Vec<GroupId>, Vec<GroupId>) =
            self.groups().partition(|group| self.is_draining(*group));
        let moving = self.groups().filter(|group| *group != CONTROL_GROUP && !self.is_settled(*group)).count();
        let mut room = moves_max.saturating_sub(moving);
        for group in draining.into_iter().chain(others) {
            let target = &wanted[group.0 as usize];
            if *target == self.topology.replicas(group) || !self.may_place(group, target) {
                continue;
            }
            if self.is_settled(group) && group != CONTROL_GROUP {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            next.placements[group.0 as usize].clone_from(target);
        }
    }

    /// Whether a group is to be held by a node that leaves.
    fn is_draining(&self, group: GroupId) -> bool {
        self.topology.replicas(group).iter().any(|node| self.is_leaving(*node))
    }

    /// Whether a group may get this target now: it stands still or must move on, who is new to it is alive, and so are
    /// enough to go on. One of which nothing is known may stand still or not, and is left alone.
    fn may_place(&self, group: GroupId, target: &[NodeId]) -> bool {
        let may_move = self.is_settled(group) || (self.report(group).is_some() && self.is_draining(group));
        let before = self.topology.replicas(group);
        let mut added = target.iter().filter(|node| !before.contains(node));
        let alive = target.iter().filter(|node| self.is_alive(**node)).count();
        may_move && added.all(|node| self.is_alive(*node)) && alive > target.len() / 2
    }

    /// Leaders move first from nodes that leave or have a lower priority, then from those that lead more than others.
    fn transfers(&self, transfers_max: usize) -> Vec<Transfer> {
        let known: Vec<&GroupReport> = self.reports.iter().copied().flatten().collect();
        let staying = self.topology.placeable().map(|node| node.id).filter(|node| self.is_alive(*node));
        let mut leaders = Leaders::new(staying);
        for report in &self.reports {
            match report {
                Some(report) => leaders.count(report.leader),
                None => leaders.count_unknown(),
            }
        }
        let (unfit, others): (Vec<&GroupReport>, _) =
            known.iter().partition(|report| self.is_leaving(report.leader) || self.is_outranked(report));
        let mut transfers = Vec::new();
        for report in unfit {
            if let Some(to) = leaders.least(self.candidates(report)).filter(|_| transfers.len() < transfers_max) {
                leaders.count(to);
                transfers.push(Transfer { group: report.group, from: report.leader, to });
            }
        }
        // Group 0 stays where it is: its leader is who plans.
        for report in others.into_iter().filter(|report| report.group != CONTROL_GROUP && self.is_settled(report.group))
        {
            leaders.offer(Led { group: report.group.0, leader: report.leader, candidates: self.candidates(report) });
        }
        let moves = leaders.even_out(transfers_max - transfers.len());
        transfers.extend(moves.into_iter().filter_map(|Move { group, to }| {
            let group = GroupId(group);
            self.report(group).map(|report| Transfer { group, from: report.leader, to })
        }));
        transfers
    }

    /// Whether another of a settled group's voters has a higher priority than its leader.
    fn is_outranked(&self, report: &GroupReport) -> bool {
        let best = self.candidates(report).first().and_then(|node| self.priority(*node));
        self.is_settled(report.group) && self.priority(report.leader).zip(best).is_some_and(|(own, best)| own < best)
    }

    /// Who could lead a group: its voters that have caught up; of them those that are to stay, if any, and of these the ones
    /// of the highest priority.
    fn candidates(&self, report: &GroupReport) -> Vec<NodeId> {
        if report.membership.is_joint() {
            return Vec::new();
        }
        let voters = report.membership.voters().iter().copied();
        let able: Vec<NodeId> = voters.filter(|node| self.is_alive(*node) && report.has_caught_up(*node)).collect();
        let target = self.topology.replicas(report.group);
        let staying: Vec<NodeId> =
            able.iter().copied().filter(|node| target.contains(node) && !self.is_leaving(*node)).collect();
        let fit = if staying.is_empty() { able } else { staying };
        let best = fit.iter().filter_map(|node| self.priority(*node)).max();
        fit.into_iter().filter(|node| self.priority(*node) == best).collect()
    }
}
