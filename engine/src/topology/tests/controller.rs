//! The controller rule by rule: what it does with which reports, and what it leaves alone.
//!
//! Off the data path.

use super::{addresses, cluster, ids};
use crate::topology::{CONTROL_GROUP, GroupReport, LiveNode, NodeState, Plan, PlanBounds, Topology, Transfer, plan};
use ringraft_raft::{GroupId, Membership, NodeId};

const BOUNDS: PlanBounds = PlanBounds { moves_max: 2, transfers_max: 2 };
const NEW: NodeId = NodeId(9);

/// Reports of groups that are where they are to be, each led by one of its voters in turn.
fn settled(topology: &Topology) -> Vec<GroupReport> {
    (0..topology.groups()).map(|group| report(topology, group, topology.replicas(GroupId(group)))).collect()
}

fn report(topology: &Topology, group: u32, voters: &[NodeId]) -> GroupReport {
    let group = GroupId(group);
    let membership = Membership::with(voters.to_vec(), Vec::new(), topology.learners(group));
    let leader = voters[group.0 as usize % voters.len()];
    GroupReport { group, term: 1, epoch: topology.epoch(), leader, membership, behind: Vec::new() }
}

fn live(ids: &[u64]) -> Vec<LiveNode> {
    ids.iter().map(|id| LiveNode { node: NodeId(*id), leader_priority: 100 }).collect()
}

fn everybody(topology: &Topology) -> Vec<LiveNode> {
    live(&topology.nodes().iter().map(|node| node.id.0).collect::<Vec<_>>())
}

fn planned(topology: &Topology, reports: &[GroupReport]) -> Plan {
    plan(topology, reports, &everybody(topology), BOUNDS)
}

/// Groups with another target than before.
fn moved(before: &Topology, after: &Topology) -> Vec<GroupId> {
    let differs = |group: &GroupId| before.replicas(*group) != after.replicas(*group);
    (0..before.groups()).map(GroupId).filter(differs).collect()
}

fn state(topology: &Topology, id: NodeId) -> Option<NodeState> {
    topology.node(id).map(|node| node.state)
}

/// Five nodes of which the fifth is joining; nothing is placed on it.
fn with_a_joining_node() -> Topology {
    let before = cluster(&[1, 2, 3, 4], 40, 3);
    before.add(NEW, &addresses(9, 1), 5).expect("granted").expect("a change")
}

#[test]
fn a_settled_cluster_is_left_alone() {
    let topology = cluster(&[1, 2, 3, 4], 4, 3);
    let voters = topology.preferred_leaders();
    let mut reports = settled(&topology);
    for (report, leader) in reports.iter_mut().zip(voters) {
        report.leader = leader;
    }
    assert_eq!(planned(&topology, &reports), Plan { next: None, transfers: Vec::new() });
}

#[test]
fn a_few_groups_move_at_once_and_only_to_where_the_ring_wants_them() {
    let topology = with_a_joining_node();
    let next = planned(&topology, &settled(&topology)).next.expect("a step");
    assert_eq!(next.epoch(), topology.epoch() + 1);
    let moved = moved(&topology, &next);
    assert_eq!(moved.iter().filter(|group| **group != CONTROL_GROUP).count(), BOUNDS.moves_max);
    let wanted = topology.placements_of_ring(40);
    assert!(moved.iter().all(|group| next.replicas(*group) == wanted[group.0 as usize]));
    assert!(moved.contains(&CONTROL_GROUP), "four voters become five");
}

#[test]
fn what_is_on_the_move_or_not_known_counts_as_moving() {
    let topology = with_a_joining_node();
    let data_moves = |reports: &[GroupReport]| {
        let next = planned(&topology, reports).next;
        next.map_or(0, |next| moved(&topology, &next).iter().filter(|group| **group != CONTROL_GROUP).count())
    };
    let reports = settled(&topology);
    assert_eq!(data_moves(&reports), 2);
    assert_eq!(data_moves(&reports[..39]), 1, "one is not known");
    assert_eq!(data_moves(&reports[..38]), 0, "two are not known");
    let mut out_of_date = reports.clone();
    out_of_date[39].epoch -= 1;
    assert_eq!(data_moves(&out_of_date), 1, "one leader has not seen this topology");
    let mut joint = reports.clone();
    joint[39].membership = joint[39].membership.enter_joint(joint[39].membership.voters().to_vec(), Vec::new());
    assert_eq!(data_moves(&joint), 1, "one is joint");
    let mut learns = reports.clone();
    learns[39].membership = Membership::with(learns[39].membership.voters().to_vec(), Vec::new(), vec![NEW]);
    assert_eq!(data_moves(&learns), 1, "one has a learner");
    let mut elsewhere = reports;
    elsewhere[39] = report(&topology, 39, &ids(&[1]));
    assert_eq!(data_moves(&elsewhere), 1, "one is not where it is to be");
}

#[test]
fn the_voters_of_group_0_change_one_set_at_a_time() {
    let topology = with_a_joining_node();
    let mut reports = settled(&topology);
    reports[0] = report(&topology, 0, &ids(&[1, 2, 3]));
    let next = planned(&topology, &reports).next.expect("other groups move");
    assert!(!moved(&topology, &next).contains(&CONTROL_GROUP));
}

#[test]
fn nothing_is_newly_placed_on_a_dead_node() {
    let topology = with_a_joining_node();
    let alive = live(&[1, 2, 3, 4]);
    let next = plan(&topology, &settled(&topology), &alive, BOUNDS).next;
    let moved = next.map_or(Vec::new(), |next| {
        let placed = moved(&topology, &next);
        assert!(placed.iter().all(|group| !next.replicas(*group).contains(&NEW)));
        placed
    });
    assert!(!moved.contains(&CONTROL_GROUP));
}

#[test]
fn no_group_is_left_to_nodes_without_a_majority_alive() {
    let topology = cluster(&[1, 2, 3], 3, 3).remove(NodeId(3)).expect("granted").expect("a change");
    let targets = |alive: &[u64]| plan(&topology, &settled(&topology), &live(alive), BOUNDS).next;
    assert_eq!(targets(&[1, 3]), None, "of 1 and 2 alone, both are needed");
    assert!(targets(&[1, 2]).is_some());
}

#[test]
fn of_two_reports_the_later_term_counts() {
    let topology = cluster(&[1, 2, 3], 1, 3);
    let joined = topology.add(NEW, &addresses(9, 1), 5).expect("granted").expect("a change");
    let mut old = report(&joined, 0, &ids(&[1, 2]));
    let mut new = report(&joined, 0, &ids(&[1, 2, 3]));
    (old.term, new.term) = (1, 2);
    for reports in [[old.clone(), new.clone()], [new, old]] {
        let next = planned(&joined, &reports).next.expect("a step");
        assert_eq!(next.replicas(CONTROL_GROUP), ids(&[1, 2, 3, 9]));
    }
}

#[test]
fn reports_of_groups_that_are_not_are_passed_over() {
    let topology = cluster(&[1, 2, 3], 1, 3);
    let mut reports = settled(&topology);
    reports.push(report(&topology, 0, &ids(&[7])));
    reports[1].group = GroupId(1);
    assert_eq!(planned(&topology, &reports).next, None);
}

#[test]
fn a_node_is_active_when_it_has_all_it_is_to_have() {
    let before = cluster(&[1, 2, 3], 3, 3);
    let topology = before.replace(NodeId(3), NEW, &addresses(9, 1), 5).expect("granted").expect("a change");
    let becomes_active = |reports: &[GroupReport], alive: &[LiveNode]| {
        let next = plan(&topology, reports, alive, BOUNDS).next;
        next.is_some_and(|next| state(&next, NEW) == Some(NodeState::Active))
    };
    let alive = live(&[1, 2, 9]);
    let reports = settled(&topology);
    assert!(becomes_active(&reports, &alive));
    assert!(!becomes_active(&reports, &live(&[1, 2])), "it is dead");
    assert!(!becomes_active(&reports[..2], &alive), "a group of its own is not known");
    for group in 0..3 {
        let mut behind = reports.clone();
        behind[group].behind = vec![NEW];
        assert!(!becomes_active(&behind, &alive), "it is behind in group {group}");
        let mut absent = reports.clone();
        absent[group] = report(&topology, group as u32, &ids(&[1, 2]));
        absent[group].membership = Membership::new(ids(&[1, 2]));
        assert!(!becomes_active(&absent, &alive), "it is no member of group {group} yet");
    }
}

/// Three nodes of which the first leaves, after all groups got other targets.
fn with_a_leaving_node() -> Topology {
    let before = cluster(&[1, 2, 3], 3, 3);
    let leaving = before.remove(NodeId(1)).expect("granted").expect("a change");
    let next = plan(&leaving, &settled(&leaving), &everybody(&leaving), PlanBounds { moves_max: 9, ..BOUNDS }).next;
    let next = next.expect("groups move away");
    assert!((0..3).all(|group| next.replicas(GroupId(group)) == ids(&[2, 3])));
    next
}

#[test]
fn a_leaving_node_is_removed_when_nobody_holds_it_any_more() {
    let topology = with_a_leaving_node();
    let is_removed = |reports: &[GroupReport], alive: &[LiveNode]| {
        let next = plan(&topology, reports, alive, BOUNDS).next;
        next.is_some_and(|next| next.removed() == [1] && state(&next, NodeId(1)).is_none())
    };
    let all = live(&[1, 2, 3]);
    let reports = settled(&topology);
    assert!(reports[0].membership.contains(NodeId(1)), "it is a learner of group 0 to the last");
    assert!(is_removed(&reports, &all));
    assert!(is_removed(&reports, &live(&[2, 3])), "dead or alive");
    for group in 0..3 {
        let mut held = reports.clone();
        held[group].membership = Membership::with(ids(&[2, 3]), ids(&[1, 2, 3]), Vec::new());
        assert!(!is_removed(&held, &all), "group {group} is still leaving it");
        let mut unknown = reports.clone();
        unknown.remove(group);
        assert!(!is_removed(&unknown, &all), "nobody knows who is in group {group}");
        let mut out_of_date = reports.clone();
        out_of_date[group].epoch -= 1;
        assert!(!is_removed(&out_of_date, &all), "the leader of group {group} may be about to add it");
    }
    let mut learns = reports;
    learns[2].membership = Membership::with(ids(&[2, 3]), Vec::new(), ids(&[1]));
    assert!(!is_removed(&learns, &all), "a group has it as a learner");
}

#[test]
fn groups_with_leaving_nodes_go_first_even_if_they_are_on_the_move() {
    let before = cluster(&[1, 2, 3, 4, 5], 40, 3);
    let topology = before.remove(NodeId(4)).expect("granted").expect("a change");
    let mut reports = settled(&topology);
    let draining: Vec<GroupId> =
        (1..40).map(GroupId).filter(|group| topology.replicas(*group).contains(&NodeId(4))).collect();
    let next = planned(&topology, &reports).next.expect("a step");
    let first: Vec<GroupId> = moved(&topology, &next).into_iter().filter(|group| *group != CONTROL_GROUP).collect();
    assert_eq!(first, draining[..BOUNDS.moves_max]);
    for group in &draining {
        reports[group.0 as usize] = report(&topology, group.0, &ids(&[1]));
    }
    let next = planned(&topology, &reports).next.expect("a step");
    let retargeted = moved(&topology, &next).into_iter().filter(|group| *group != CONTROL_GROUP);
    assert_eq!(retargeted.collect::<Vec<_>>(), draining, "they were moving anyway");
}

#[test]
fn leaders_go_away_from_leaving_nodes_first() {
    let topology = cluster(&[1, 2, 3], 4, 3).remove(NodeId(2)).expect("granted").expect("a change");
    let mut reports = settled(&topology);
    for (report, leader) in reports.iter_mut().zip([2, 2, 1, 1]) {
        report.leader = NodeId(leader);
    }
    let transfer = |group, to| Transfer { group: GroupId(group), from: NodeId(2), to: NodeId(to) };
    assert_eq!(planned(&topology, &reports).transfers, [transfer(0, 3), transfer(1, 3)]);
    reports[0].behind = ids(&[3]);
    assert_eq!(planned(&topology, &reports).transfers[0], transfer(0, 1), "who is behind cannot lead");
    reports[0].membership = reports[0].membership.enter_joint(ids(&[1, 3]), Vec::new());
    assert_eq!(planned(&topology, &reports).transfers[0], transfer(1, 3), "a joint group is left to its leader");
    let alive = live(&[1, 2]);
    assert_eq!(plan(&topology, &reports, &alive, BOUNDS).transfers, [transfer(1, 1)]);
}

#[test]
fn leaders_are_evened_out_over_those_alive() {
    let topology = cluster(&[1, 2, 3], 7, 3);
    let mut reports = settled(&topology);
    for report in &mut reports {
        report.leader = NodeId(1);
    }
    let transfers = planned(&topology, &reports).transfers;
    assert_eq!(transfers.len(), BOUNDS.transfers_max);
    assert!(transfers.iter().all(|transfer| transfer.from == NodeId(1) && transfer.group != CONTROL_GROUP));
    let to = |alive: &[u64]| -> Vec<u64> {
        let plan = plan(&topology, &reports, &live(alive), PlanBounds { transfers_max: 9, ..BOUNDS });
        plan.transfers.iter().map(|transfer| transfer.to.0).collect()
    };
    assert_eq!(to(&[1, 2, 3]), [2, 3, 2, 3]);
    assert_eq!(to(&[1, 3]), [3, 3, 3]);
    assert_eq!(to(&[1]), Vec::<u64>::new());
    let none = PlanBounds { moves_max: 0, transfers_max: 0 };
    assert_eq!(plan(&topology, &reports, &everybody(&topology), none).transfers, []);
}

#[test]
fn leaders_go_to_nodes_of_a_higher_priority_and_are_evened_out_over_those() {
    let topology = cluster(&[1, 2, 3], 4, 3);
    let mut reports = settled(&topology);
    let led_by = |reports: &mut Vec<GroupReport>, leaders: [u64; 4]| {
        reports.iter_mut().zip(leaders).for_each(|(report, leader)| report.leader = NodeId(leader));
    };
    let transfers = |reports: &[GroupReport], priorities: &[(u64, u32)]| -> Vec<(u32, u64)> {
        let live =
            |(id, leader_priority): &(u64, u32)| LiveNode { node: NodeId(*id), leader_priority: *leader_priority };
        let alive: Vec<LiveNode> = priorities.iter().map(live).collect();
        let plan = plan(&topology, reports, &alive, PlanBounds { transfers_max: 9, ..BOUNDS });
        plan.transfers.iter().map(|transfer| (transfer.group.0, transfer.to.0)).collect()
    };
    led_by(&mut reports, [1, 1, 1, 1]);
    assert_eq!(transfers(&reports, &[(1, 10), (2, 50), (3, 50)]), [(0, 2), (1, 3), (2, 2), (3, 3)]);
    assert_eq!(transfers(&reports, &[(1, 0), (2, 0), (3, 9)]), [(0, 3), (1, 3), (2, 3), (3, 3)]);
    assert_eq!(transfers(&reports, &[(1, 0)]), [], "better somebody than nobody");
    reports[0].behind = ids(&[2]);
    assert_eq!(transfers(&reports, &[(1, 10), (2, 50), (3, 20)])[0], (0, 3), "who is behind cannot lead");
    led_by(&mut reports, [2, 2, 2, 2]);
    assert_eq!(transfers(&reports, &[(1, 10), (2, 50), (3, 50)]), [(1, 3), (2, 3)], "nobody goes down to node 1");
    led_by(&mut reports, [2, 2, 3, 3]);
    assert_eq!(transfers(&reports, &[(1, 10), (2, 50), (3, 50)]), []);
}
