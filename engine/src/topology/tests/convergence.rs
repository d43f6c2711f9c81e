//! The controller against a model of a cluster: from any start through any changes it comes to rest, within its bounds.
//!
//! Off the data path.
//!
//! ```text
//!   changes of an operator, nodes that die and return ──> Topology <── plan ── reports <── groups of the model, which
//!                                                            └── targets, learned late ──────> change step by step
//! ```
//!
//! The model's groups do what a group's leader does: learners, catching up, joint, plain; they stand still without a
//! quorum, learn of a topology some turns late and are led by whoever is left.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{addresses, cluster};
use crate::topology::{
    CONTROL_GROUP, CONTROL_VOTERS_MAX, GroupReport, LiveNode, NodeState, Plan, PlanBounds, Topology, Transfer, plan,
};
use ringraft_raft::{GroupId, Membership, NodeId};

const BOUNDS: PlanBounds = PlanBounds { moves_max: 3, transfers_max: 2 };
const NODES_MAX: usize = 12;
/// Turns without a change after which there will be none: each has even odds to let everybody learn everything.
const QUIET_TURNS: usize = 25;

/// What happens between two turns.
#[derive(Clone, Debug)]
enum Event {
    Add,
    Remove(prop::sample::Index),
    Replace(prop::sample::Index),
    Kill(prop::sample::Index),
    Revive,
    Turns(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Event::Add),
        2 => index().prop_map(Event::Remove),
        2 => index().prop_map(Event::Replace),
        1 => index().prop_map(Event::Kill),
        1 => Just(Event::Revive),
        6 => (1..30_u8).prop_map(Event::Turns),
    ]
}

struct Group {
    membership: Membership,
    leader: NodeId,
    term: u64,
    /// What its leader knows.
    topology: Topology,
    behind: BTreeSet<NodeId>,
}

struct World {
    topology: Topology,
    groups: Vec<Group>,
    dead: BTreeSet<NodeId>,
    next_id: u64,
    random: u64,
    /// Changes of each group's target since an operator last changed something.
    retargeted: Vec<usize>,
}

impl World {
    fn new(nodes: u64, groups: u32, factor: u32, seed: u64) -> Self {
        let topology = cluster(&(1..=nodes).collect::<Vec<_>>(), groups, factor);
        let group = |id| Group {
            membership: Membership::with(
                topology.replicas(GroupId(id)).to_vec(),
                Vec::new(),
                topology.learners(GroupId(id)),
            ),
            leader: topology.replicas(GroupId(id))[0],
            term: 1,
            topology: topology.clone(),
            behind: BTreeSet::new(),
        };
        let groups: Vec<Group> = (0..groups).map(group).collect();
        let retargeted = vec![0; groups.len()];
        Self { topology, groups, dead: BTreeSet::new(), next_id: nodes + 1, random: seed, retargeted }
    }

    /// True once in `odds` times.
    fn happens(&mut self, odds: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33).is_multiple_of(odds)
    }

    fn alive(&self) -> Vec<NodeId> {
        self.topology.nodes().iter().map(|node| node.id).filter(|id| !self.dead.contains(id)).collect()
    }

    fn some_node(&self, index: &prop::sample::Index) -> NodeId {
        index.get(self.topology.nodes()).id
    }

    fn happen(&mut self, event: &Event) {
        let next = match event {
            Event::Add if self.topology.nodes().len() < NODES_MAX => {
                self.topology.add(NodeId(self.next_id), &addresses(self.next_id, 1), self.next_id)
            }
            Event::Remove(index) => self.topology.remove(self.some_node(index)),
            Event::Replace(index) if self.topology.nodes().len() < NODES_MAX => {
                let new = self.next_id;
                self.topology.replace(self.some_node(index), NodeId(new), &addresses(new, 1), new)
            }
            Event::Kill(index) => {
                let node = self.some_node(index);
                // Lost majorities are for operators to mend: one node at a time, and never a group's only copy.
                let is_needed = |group: &Group| !group.membership.has_quorum(|other| other != node);
                if self.dead.is_empty() && !self.groups.iter().any(is_needed) {
                    self.dead.insert(node);
                }
                Ok(None)
            }
            Event::Revive => {
                self.dead.clear();
                Ok(None)
            }
            Event::Turns(turns) => {
                for _ in 0..*turns {
                    self.turn();
                }
                Ok(None)
            }
            Event::Add | Event::Replace(_) => Ok(None),
        };
        if let Ok(Some(next)) = next {
            self.next_id += 1;
            self.retargeted.fill(0);
            self.topology = next;
        }
    }

    /// Groups make progress, then the controller plans.
    fn turn(&mut self) -> Plan {
        for place in 0..self.groups.len() {
            self.progress(place);
        }
        let mut reports = Vec::new();
        let loses_reports = self.happens(2);
        for place in 0..self.groups.len() {
            if self.is_led(place) && !(loses_reports && self.happens(10)) {
                reports.push(self.report(place));
            }
        }
        let live = |node| LiveNode { node, leader_priority: 100 };
        let alive: Vec<LiveNode> = self.alive().into_iter().map(live).collect();
        let plan = plan(&self.topology, &reports, &alive, BOUNDS);
        if let Some(next) = &plan.next {
            self.check(next);
            self.topology = next.clone();
        }
        for Transfer { group, from, to } in &plan.transfers {
            let group = &mut self.groups[group.0 as usize];
            assert!(group.leader == *from && group.membership.voters().contains(to) && !group.behind.contains(to));
            (group.leader, group.term) = (*to, group.term + 1);
        }
        assert!(plan.transfers.len() <= BOUNDS.transfers_max);
        plan
    }

    /// What must hold of every step.
    fn check(&mut self, next: &Topology) {
        assert_eq!(Topology::decode(&next.encode()).as_ref(), Ok(next));
        assert_eq!(next.epoch(), self.topology.epoch() + 1);
        let staying = self.topology.nodes().iter().filter(|node| node.is_placeable()).count();
        let mut moving = 0;
        let mut newly_moving = 0;
        for (place, group) in self.groups.iter().enumerate() {
            let id = GroupId(place as u32);
            let (before, after) = (self.topology.replicas(id), next.replicas(id));
            if before != after {
                let most = if id == CONTROL_GROUP { CONTROL_VOTERS_MAX } else { next.replication_factor() as usize };
                assert_eq!(after.len(), most.min(staying), "{id}");
                assert!(after.iter().all(|node| before.contains(node) || !self.dead.contains(node)), "{id}");
                let alive = after.iter().filter(|node| !self.dead.contains(node)).count();
                assert!(alive > after.len() / 2, "{id} is left to the dead");
                self.retargeted[place] += 1;
                assert!(self.retargeted[place] <= 1, "{id} flaps");
            }
            let now = &group.membership;
            let learns = id != CONTROL_GROUP && !now.learners().is_empty();
            let was_moving = now.voters() != before || now.is_joint() || learns;
            moving += usize::from(id != CONTROL_GROUP && (was_moving || before != after));
            newly_moving += usize::from(id != CONTROL_GROUP && !was_moving && before != after);
        }
        assert!(newly_moving == 0 || moving <= BOUNDS.moves_max, "{moving} groups move at once");
        for node in self.topology.nodes().iter().filter(|node| next.node(node.id).is_none()) {
            assert_eq!(node.state, NodeState::Leaving);
            assert!(next.removed().contains(&node.id.0));
            assert!(!self.groups[1..].iter().any(|group| group.membership.contains(node.id)));
            assert!(!self.groups[0].membership.is_voter(node.id));
        }
    }

    fn is_led(&self, place: usize) -> bool {
        self.groups[place].membership.has_quorum(|node| !self.dead.contains(&node))
    }

    fn report(&self, place: usize) -> GroupReport {
        let group = &self.groups[place];
        let behind = group.behind.iter().copied().collect();
        let (epoch, membership) = (group.topology.epoch(), group.membership.clone());
        GroupReport { group: GroupId(place as u32), term: group.term, epoch, leader: group.leader, membership, behind }
    }

    /// One step of a group's leader toward the target that it knows.
    fn progress(&mut self, place: usize) {
        if !self.is_led(place) || self.happens(3) {
            return;
        }
        self.elect(place);
        if self.happens(2) {
            self.groups[place].topology = self.topology.clone();
        }
        let can_catch_up = self.happens(2);
        let dead = &self.dead;
        let group = &mut self.groups[place];
        let id = GroupId(place as u32);
        if can_catch_up {
            group.behind.retain(|node| dead.contains(node));
        }
        let now = group.membership.clone();
        let (target, learners) = (group.topology.replicas(id), group.topology.learners(id));
        let missing = target.iter().chain(&learners).filter(|node| !now.contains(**node));
        let missing: Vec<NodeId> = missing.copied().collect();
        let next = if now.is_joint() {
            now.leave_joint()
        } else if !missing.is_empty() {
            group.behind.extend(&missing);
            Membership::with(now.voters().to_vec(), Vec::new(), [now.learners(), &missing].concat())
        } else if now.voters() != target {
            if target.iter().any(|node| group.behind.contains(node)) {
                return;
            }
            now.enter_joint(target.to_vec(), learners)
        } else {
            Membership::with(now.voters().to_vec(), Vec::new(), learners)
        };
        assert!(next == now || now.may_become(&next), "{now:?} to {next:?}");
        group.behind.retain(|node| next.contains(*node));
        group.membership = next;
        if self.is_led(place) {
            self.elect(place);
        }
    }

    /// A leader that died or is no voter any more is followed by a voter that is alive.
    fn elect(&mut self, place: usize) {
        let dead = &self.dead;
        let group = &mut self.groups[place];
        let may_lead = |node: &NodeId| group.membership.voters().contains(node) && !dead.contains(node);
        if !may_lead(&group.leader) {
            group.leader = *group.membership.voters().iter().find(|node| may_lead(node)).expect("a quorum is alive");
            group.term += 1;
        }
    }

    /// Turns until nothing has changed for a while.
    fn come_to_rest(&mut self) -> usize {
        let turns_max = 200 * (self.groups.len() + NODES_MAX);
        let mut quiet = 0;
        for turn in 0..turns_max {
            let before: Vec<Membership> = self.groups.iter().map(|group| group.membership.clone()).collect();
            let plan = self.turn();
            let all_know = self.groups.iter().all(|group| group.topology.epoch() == self.topology.epoch());
            let is_quiet = all_know
                && plan.next.is_none()
                && plan.transfers.is_empty()
                && self.groups.iter().zip(&before).all(|(group, before)| group.membership == *before);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == QUIET_TURNS {
                return turn;
            }
        }
        panic!("no rest after {turns_max} turns: {:?}", self.topology);
    }

    fn check_rest(&self) {
        let wanted = self.topology.placements_of_ring(self.topology.groups());
        assert!(self.topology.nodes().iter().all(|node| node.state == NodeState::Active), "{:?}", self.topology);
        let mut led = vec![0_usize; self.topology.nodes().len()];
        for (place, group) in self.groups.iter().enumerate() {
            let id = GroupId(place as u32);
            assert_eq!(self.topology.replicas(id), wanted[place]);
            let expected = Membership::with(wanted[place].clone(), Vec::new(), self.topology.learners(id));
            assert_eq!(group.membership, expected);
            led[self.topology.nodes().iter().position(|node| node.id == group.leader).expect("a node leads")] += 1;
        }
        if self.topology.nodes().len() <= self.topology.replication_factor() as usize {
            let (fewest, most) = (led.iter().min(), led.iter().max());
            assert!(most <= fewest.map(|fewest| fewest + 1).as_ref(), "leaders {led:?}");
        }
    }
}

/// More in a longer run: `PROPTEST_CASES=2000 cargo test ...`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn the_controller_comes_to_rest_where_the_ring_wants_it(
        nodes in 1_u64..8, groups in 1_u32..24, factor in 1_u32..5, seed in any::<u64>(),
        events in prop::collection::vec(event(), 0..16),
    ) {
        let mut world = World::new(nodes, groups, factor, seed);
        for event in &events {
            world.happen(event);
        }
        world.dead.clear();
        world.come_to_rest();
        world.check_rest();
    }

    /// A node that died for good is removed: no turn of its own is needed.
    #[test]
    fn a_dead_node_is_replaced_or_drained(
        nodes in 3_u64..8, groups in 1_u32..24, seed in any::<u64>(), which in any::<prop::sample::Index>(), drains in any::<bool>(),
    ) {
        let mut world = World::new(nodes, groups, 3, seed);
        let lost = world.some_node(&which);
        world.happen(&Event::Kill(which));
        world.happen(&if drains { Event::Remove(which) } else { Event::Replace(which) });
        world.come_to_rest();
        world.check_rest();
        prop_assert!(world.topology.removed() == [lost.0]);
    }
}
