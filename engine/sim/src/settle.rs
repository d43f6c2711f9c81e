//! The end of a run whose members changed: the topology comes to rest, and every node has exactly what it says.
//!
//! Off the data path.
//! Invariants looked for, within a bounded time after the faults: what operators asked for is done, no node joins or leaves
//! any more, every group has its placement as members and nothing else, every node holds what it is a member of and nothing
//! else, and who was removed has heard of it and stopped. A node that knows of none who is still there cannot hear: it is
//! switched off.

use ringraft_engine::topology::{NodeState, Topology};
use ringraft_raft::{GroupId, NodeId, Role};

use crate::checkers::Violation;
use crate::disk::Ending;
use crate::node::State;
use crate::world::{Checked, World};

/// Pending changes end within this.
const SETTLE_US: u64 = 120_000_000;
/// Between two looks.
const STEP_US: u64 = 250_000;

impl World {
    /// Lets pending changes of members end.
    pub(crate) fn settle(&mut self) -> Checked {
        if self.plan.members.is_none() {
            return Ok(());
        }
        let until_us = self.now_us() + SETTLE_US;
        loop {
            self.switch_strangers_off()?;
            let Some(reason) = self.why_not_settled() else { return Ok(()) };
            if self.now_us() >= until_us {
                self.describe_leaders();
                return Err(Violation::new("changes of members end", reason));
            }
            let step_us = self.now_us() + STEP_US;
            self.run_until(step_us)?;
        }
    }

    /// Nodes that were removed while they were away, and know only others that were.
    fn switch_strangers_off(&mut self) -> Checked {
        let Some(newest) = self.newest_topology().map(std::sync::Arc::clone) else { return Ok(()) };
        for node in 0..self.nodes.len() {
            let id = NodeId(node as u64 + 1);
            let Some(process) = &self.nodes[node].process else { continue };
            let knows = |topology: &Topology| topology.nodes().iter().any(|other| newest.node(other.id).is_some());
            let is_stranger = newest.removed().contains(&id.0) && !knows(process.board.topology());
            if is_stranger {
                self.note(format_args!("n{} is switched off: whom it knows is gone", node + 1));
                self.nodes[node].removed = true;
                self.end_process(node, Ending::PowerLost, None)?;
            }
        }
        Ok(())
    }

    /// What leaders know, for the report.
    pub(crate) fn describe_leaders(&mut self) {
        let hosts = self.nodes.iter().filter_map(|node| node.process.as_ref()).flat_map(|process| &process.hosts);
        let lines: Vec<String> = hosts
            .map(|host| host.shard.status())
            .map(|status| {
                let groups: Vec<_> =
                    status.groups.iter().filter(|group| group.role != "follower" || group.leader.is_none()).collect();
                let (node, peers, nodes) = (status.node, &status.peers_connected, &status.nodes);
                format!("n{node} is linked to {peers:?}, leads or wants to {groups:?}, has heard {nodes:?}")
            })
            .collect();
        for line in lines {
            self.note(format_args!("{line}"));
        }
    }

    /// What is missing for the members to be at rest.
    fn why_not_settled(&self) -> Option<String> {
        if !self.operator.is_idle() {
            return Some(format!("the operator is not done: {:?}", self.operator));
        }
        let Some(newest) = self.newest_topology() else { return Some(String::from("nobody runs")) };
        if let Some(node) = newest.nodes().iter().find(|node| node.state != NodeState::Active) {
            return Some(format!("node {} is {:?} in {newest:?}", node.id, node.state));
        }
        let nodes = (0..self.nodes.len()).find_map(|node| self.why_node_not_settled(node, newest));
        nodes.or_else(|| (0..self.plan.groups).find_map(|group| self.why_group_not_settled(group, newest)))
    }

    fn why_node_not_settled(&self, node: usize, newest: &Topology) -> Option<String> {
        let (place, id) = (&self.nodes[node], NodeId(node as u64 + 1));
        let is_member = newest.node(id).is_some();
        let Some(process) = place.process.as_ref().filter(|_| place.state == State::Running) else {
            return is_member.then(|| format!("node {id} is a member and does not run: {:?}", place.state));
        };
        if !is_member {
            let linked: Vec<_> = process.hosts.iter().map(|host| host.shard.status().peers_connected).collect();
            let known = process.board.topology().epoch();
            return Some(format!(
                "node {id} is no member and runs, knows epoch {known}, is linked to {linked:?}: {newest:?}"
            ));
        }
        for host in &process.hosts {
            if **host.shard.topology() != *newest {
                let (known, epoch) = (host.shard.topology().epoch(), newest.epoch());
                return Some(format!("node {id} knows epoch {known} of {epoch}"));
            }
        }
        let held: Vec<u32> = process.hosts.iter().flat_map(|host| host.shard.replicas()).collect();
        let belongs = |group: u32| group == 0 || newest.replicas(GroupId(group)).contains(&id);
        let wrong = (0..self.plan.groups).find(|group| held.contains(group) != belongs(*group))?;
        Some(format!(
            "node {id} holds groups {held:?}, group {wrong} is to be on {:?}",
            newest.replicas(GroupId(wrong))
        ))
    }

    fn why_group_not_settled(&self, group: u32, newest: &Topology) -> Option<String> {
        let hosts = self.nodes.iter().filter_map(|node| node.process.as_ref()).flat_map(|process| &process.hosts);
        let leads = |host: &&crate::node::Host| {
            host.shard.group_views().any(|view| view.group == group && view.role == Role::Leader)
        };
        let mut views = hosts.filter(leads).filter_map(|host| host.shard.membership(group));
        let Some(view) = views.next() else { return Some(format!("group {group} has no leader")) };
        let (voters, learners) = (newest.replicas(GroupId(group)), newest.learners(GroupId(group)));
        let members = &view.members;
        let is_it =
            view.is_committed() && !members.is_joint() && members.voters() == voters && members.learners() == learners;
        (!is_it)
            .then(|| format!("group {group} is to have voters {voters:?} and learners {learners:?}, it has {view:?}"))
    }
}
