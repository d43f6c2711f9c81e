//! Which groups should have another leader, so that every node leads about as many.
//!
//! Off the data path.
//!
//! ```text
//!   n1 leads 5         n2 leads 4         n3 leads 3        n1 has no group that n3 could lead, but n2 has one:
//!      └── group 8: n2 ──>└── group 5: n3 ──>┘              the chain takes one from n1 and gives one to n3
//! ```
//!
//! Invariants: leaders move only along a chain whose first node certainly leads two more than its last, and the last link
//! moves first, so that the shortest chain gets shorter with every transfer: this ends, and when it ends no assignment is
//! more even (optimal semi-matching by cost-reducing paths; Harvey, Ladner, Lovász, Tamir).
//!
//! It does not know why somebody may or may not lead: its caller names the candidates.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ringraft_raft::NodeId;

/// The leader of each group and who could be.
pub(super) struct Leaders {
    /// Nodes that are compared, sorted, with the groups they lead.
    loads: BTreeMap<NodeId, usize>,
    groups: Vec<Led>,
    /// Groups of which nobody knows who leads them: any node may lead so many more.
    unknown: usize,
}

/// From whom, to whom, by which group.
type Links = BTreeMap<NodeId, BTreeMap<NodeId, usize>>;

/// Nodes with the link by which each was reached; none for where the search began.
type Reached = BTreeMap<NodeId, Option<(NodeId, usize)>>;

/// A group whose leader may move.
pub(super) struct Led {
    /// The caller's name for it.
    pub(super) group: u32,
    pub(super) leader: NodeId,
    /// Others that could lead it.
    pub(super) candidates: Vec<NodeId>,
}

/// Give this group to that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) group: u32,
    pub(super) to: NodeId,
}

impl Leaders {
    /// Compares `nodes`, none of which leads anything yet.
    pub(super) fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self { loads: nodes.into_iter().map(|node| (node, 0)).collect(), groups: Vec::new(), unknown: 0 }
    }

    /// Counts a group for the node that leads it.
    pub(super) fn count(&mut self, leader: NodeId) {
        if let Some(load) = self.loads.get_mut(&leader) {
            *load += 1;
        }
    }

    /// A group whose leader is not known.
    pub(super) fn count_unknown(&mut self) {
        self.unknown += 1;
    }

    /// Of these the compared node that leads fewest, the first of those that are equal.
    pub(super) fn least(&self, candidates: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
        let compared = candidates.into_iter().filter_map(|node| self.loads.get(&node).map(|load| (*load, node)));
        compared.min().map(|(_, node)| node)
    }

    /// A group that may move, if its leader is compared. It is counted already.
    pub(super) fn offer(&mut self, mut led: Led) {
        led.candidates.retain(|node| self.loads.contains_key(node) && *node != led.leader);
        if self.loads.contains_key(&led.leader) && !led.candidates.is_empty() {
            self.groups.push(led);
        }
    }

    /// At most `moves_max` moves that make the loads more even, in an order in which they can be made one after another.
    /// No group is named twice.
    pub(super) fn even_out(&mut self, moves_max: usize) -> Vec<Move> {
        let mut moves = Vec::new();
        while moves.len() < moves_max {
            let Some(chain) = self.shortest_chain() else { break };
            for place in chain.into_iter().rev().take(moves_max - moves.len()) {
                moves.push(self.follow(place));
            }
        }
        moves
    }

    /// Makes one link of a chain and takes its group off the offer.
    fn follow(&mut self, (place, to): (usize, NodeId)) -> Move {
        let led = &mut self.groups[place];
        let (group, from) = (led.group, led.leader);
        led.candidates.clear();
        for (node, change) in [(from, -1), (to, 1)] {
            let load = self.loads.get_mut(&node).expect("chains link compared nodes");
            *load = load.saturating_add_signed(change);
        }
        Move { group, to }
    }

    /// The links (place of a group, to whom) of the shortest chain that makes the loads more even; of the shortest ones
    /// one whose ends differ most.
    fn shortest_chain(&self) -> Option<Vec<(usize, NodeId)>> {
        let links = self.links();
        let chains = self.loads.iter().filter_map(|(first, most)| {
            let (last, came_by) = self.best_end(*first, &links)?;
            let chain = trace(last, &came_by);
            Some((chain.len(), Reverse(most - self.loads[&last]), chain))
        });
        chains.min_by_key(|(length, difference, _)| (*length, *difference)).map(|(.., chain)| chain)
    }

    /// For each pair of nodes the first group that could move from one to the other.
    fn links(&self) -> Links {
        let mut links = Links::new();
        for (place, led) in self.groups.iter().enumerate() {
            for candidate in &led.candidates {
                links.entry(led.leader).or_default().entry(*candidate).or_insert(place);
            }
        }
        links
    }

    /// The nearest node, and of those the one that leads fewest, that leads certainly two fewer than `first`; and by which
    /// link each node was reached, breadth first.
    fn best_end(&self, first: NodeId, links: &Links) -> Option<(NodeId, Reached)> {
        let mut came_by = Reached::from([(first, None)]);
        let mut level = vec![first];
        while !level.is_empty() {
            let last = self.least(level.iter().copied())?;
            if self.loads[&last] + self.unknown + 2 <= self.loads[&first] {
                return Some((last, came_by));
            }
            let mut next_level = Vec::new();
            for node in level {
                for (next, place) in links.get(&node).into_iter().flatten() {
                    if let Entry::Vacant(entry) = came_by.entry(*next) {
                        entry.insert(Some((node, *place)));
                        next_level.push(*next);
                    }
                }
            }
            level = next_level;
        }
        None
    }
}

fn trace(last: NodeId, came_by: &Reached) -> Vec<(usize, NodeId)> {
    let mut chain = Vec::new();
    let mut node = last;
    while let Some((before, place)) = came_by[&node] {
        chain.push((place, node));
        node = before;
    }
    chain.reverse();
    chain
}

/// A leader for each group out of its replicas, as even as it can be.
pub(super) fn preferred(placements: &[Vec<NodeId>]) -> Vec<NodeId> {
    let mut leaders: Vec<NodeId> = Vec::with_capacity(placements.len());
    let mut greedy = Leaders::new(placements.iter().flatten().copied());
    for replicas in placements {
        let leader = greedy.least(replicas.iter().copied()).expect("a group has replicas, all of which are compared");
        greedy.count(leader);
        leaders.push(leader);
    }
    loop {
        let mut even = Leaders::new(placements.iter().flatten().copied());
        for (group, replicas) in (0..).zip(placements) {
            let leader = leaders[group as usize];
            even.count(leader);
            even.offer(Led { group, leader, candidates: replicas.clone() });
        }
        let moves = even.even_out(placements.len());
        if moves.is_empty() {
            return leaders;
        }
        for Move { group, to } in moves {
            leaders[group as usize] = to;
        }
    }
}
