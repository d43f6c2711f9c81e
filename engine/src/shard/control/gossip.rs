//! Soft state: what nodes tell each other about the groups they lead, once a second, between their shards 0.
//!
//! Off the data path.
//! Invariants: of two reports of a group the one of the later term counts, of one term the later one; what is older than
//! five reports is forgotten, a node that was not heard for three is not alive; bounded by the nodes and groups there are;
//! the topology that is told is one that its teller acts on, and so one that is committed.
//! It never decides what is safe: a replica checks a proof against its own log before it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_net::slots;
use ringraft_net::wire::{self, REPORT_GROUPS_MAX, Report, ReportedGroup, TransferWish};
use ringraft_raft::{EntryId, GroupId, Membership, NodeId};
use ringraft_wal::Disk;

use super::super::Shard;
use super::super::board::{KnownGroups, LedGroup, NodeBoard, Services};
use super::super::inspect::MembershipView;
use crate::snapshot::MEMBERS_MAX;
use crate::topology::{LiveNode, Topology};

/// Reports after which a node that says nothing is not alive.
const ALIVE_REPORTS: u64 = 3;

/// Reports after which what is not said again is forgotten.
const KEPT_REPORTS: u64 = 5;

/// Wishes of others that may wait for the next tick.
const WISHES_MAX: usize = 64;

/// What shard 0 heard of other nodes.
#[derive(Debug, Default)]
pub(super) struct Gossip {
    heard: BTreeMap<NodeId, Heard>,
    groups: BTreeMap<u32, (u64, LedGroup)>,
    wishes: Vec<(GroupId, NodeId)>,
    /// A topology that another node told, newer than this one's when it came.
    newer: Option<Arc<Topology>>,
}

/// What another node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    tick: u64,
    epoch: u64,
    release: String,
    requests_per_second: u64,
    leader_priority: u32,
    services: Services,
}

/// What is known of another node, for status.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NodeStatus {
    /// The node.
    pub node: u64,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// Epoch of the topology it knows.
    pub epoch: u64,
    /// Its release.
    pub release: String,
    /// Requests per second.
    pub requests_per_second: u64,
    /// Of those that could lead a group the ones with the highest number do.
    pub leader_priority: u32,
    /// Where its HTTP is; empty: nowhere.
    pub http_address: String,
    /// Where its gRPC is; empty: nowhere.
    pub grpc_address: String,
}

/// What is known of a group without a replica here, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ElsewhereStatus {
    /// The group.
    pub group: u32,
    /// Its leader.
    pub leader: u64,
    /// The leader's term.
    pub term: u64,
}

impl Gossip {
    fn hear(&mut self, tick: u64, report: Report) -> Result<(), String> {
        let leader = NodeId(report.node);
        let heard = Heard {
            tick,
            epoch: report.epoch,
            release: report.release,
            requests_per_second: report.requests_per_second,
            leader_priority: report.leader_priority,
            services: Services { http: report.http_address, grpc: report.grpc_address },
        };
        self.heard.insert(leader, heard);
        for group in report.groups {
            let led = led_group(leader, group)?;
            let is_newer = |(_, before): &(u64, LedGroup)| before.view.term <= led.view.term;
            if self.groups.get(&led.view.group).is_none_or(is_newer) {
                self.groups.insert(led.view.group, (tick, led));
            }
        }
        Ok(())
    }

    /// What a node said it knows counts until its link breaks: it may have come back with less.
    fn relinked(&mut self, node: NodeId) {
        if let Some(heard) = self.heard.get_mut(&node) {
            heard.epoch = 0;
        }
    }

    fn forget(&mut self, before: u64) {
        self.heard.retain(|_, heard| heard.tick >= before);
        self.groups.retain(|_, (tick, _)| *tick >= before);
    }
}

/// A leader's words about a group, checked.
fn led_group(leader: NodeId, group: ReportedGroup) -> Result<LedGroup, String> {
    let lists = [&group.voters, &group.outgoing, &group.learners, &group.behind];
    if group.voters.is_empty() || lists.iter().any(|list| list.len() > MEMBERS_MAX) {
        return Err(format!("node {leader} reports impossible members of group {}", group.group));
    }
    let nodes = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect::<Vec<_>>();
    let view = MembershipView {
        group: group.group,
        leads: true,
        term: group.term,
        members: Membership::with(nodes(group.voters), nodes(group.outgoing), nodes(group.learners)),
        index: group.membership_index,
        committed: EntryId { term: group.committed_term, index: group.committed_index },
    };
    Ok(LedGroup { leader, epoch: group.epoch, view, behind: nodes(group.behind) })
}

fn reported(led: &LedGroup) -> ReportedGroup {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let members = &led.view.members;
    ReportedGroup {
        group: led.view.group,
        term: led.view.term,
        epoch: led.epoch,
        voters: numbers(members.voters()),
        outgoing: numbers(members.outgoing()),
        learners: numbers(members.learners()),
        membership_index: led.view.index,
        behind: numbers(&led.behind),
        committed_term: led.view.committed.term,
        committed_index: led.view.committed.index,
    }
}

impl<D: Disk> Shard<D> {
    /// Writes what this shard leads on the board.
    pub(super) fn publish(&mut self, board: &mut NodeBoard) {
        let (leader, epoch) = (self.settings.node, self.settings.topology.epoch());
        let leaders = self.groups.iter().filter(|group| group.is_leader());
        let led = leaders.map(|group| LedGroup { leader, epoch, view: group.membership(), behind: group.behind() });
        let led: Vec<LedGroup> = led.collect();
        let requests = self.io.counters.requests_proposed + self.io.counters.reads;
        let since = requests - std::mem::replace(&mut self.control.requests_told, requests);
        board.publish(self.settings.shard, led, since);
    }

    /// Shard 0 tells the others, forgets what is old, and passes on what it heard.
    pub(super) fn tell_and_forget(&mut self, board: &mut NodeBoard) {
        for (group, to) in std::mem::take(&mut self.control.gossip.wishes) {
            board.wish(group, to);
        }
        if !self.is_report_due() {
            return;
        }
        let period = u64::from(self.settings.report_ticks.max(1));
        self.control.gossip.forget(self.ticks.saturating_sub(KEPT_REPORTS * period));
        let known: KnownGroups =
            self.control.gossip.groups.iter().map(|(group, (_, led))| (*group, led.clone())).collect();
        board.set_known(known);
        self.report(board);
    }

    /// Tells every peer what this node leads, and the topology to those who do not know it: whoever leads group 0 now may be
    /// somebody they have never heard of, and cannot link to.
    fn report(&mut self, board: &NodeBoard) {
        let groups: Vec<ReportedGroup> = board.led().map(reported).collect();
        let mut pages: Vec<Vec<ReportedGroup>> = groups.chunks(REPORT_GROUPS_MAX).map(<[_]>::to_vec).collect();
        if pages.is_empty() {
            pages.push(Vec::new()); // who leads nothing is alive too
        }
        let epoch = self.settings.topology.epoch();
        let heard = &self.control.gossip.heard;
        let knows = |node: &NodeId| heard.get(node).is_some_and(|heard| heard.epoch >= epoch);
        let (knowing, behind): (Vec<NodeId>, Vec<NodeId>) = self.io.peers.nodes().partition(knows);
        for groups in pages {
            let mut report = Report {
                node: self.settings.node.0,
                epoch,
                release: String::from(env!("CARGO_PKG_VERSION")),
                requests_per_second: board.requests(),
                leader_priority: self.settings.leader_priority,
                groups,
                topology: String::new(),
                http_address: board.services().http.clone(),
                grpc_address: board.services().grpc.clone(),
            };
            self.io.peers.send_report(&knowing, &report);
            if !behind.is_empty() {
                report.topology = String::from_utf8_lossy(&self.settings.topology.encode()).into_owned();
                self.io.peers.send_report(&behind, &report);
            }
        }
    }

    /// A link stands, perhaps again.
    pub(in crate::shard) fn told_nothing_yet(&mut self, node: NodeId) {
        self.control.gossip.relinked(node);
    }

    /// A newer topology that another node told.
    pub(super) fn take_newer(&mut self) -> Option<Arc<Topology>> {
        self.control.gossip.newer.take().filter(|newer| newer.epoch() > self.settings.topology.epoch())
    }

    /// Another node's report.
    pub(in crate::shard) fn on_report(&mut self, from: NodeId, head: &[u8]) -> Result<(), String> {
        let report = wire::view_report(head).map_err(|error| error.to_string())?;
        if self.settings.shard != 0 || report.node != from.0 {
            return Err(format!("node {from} sent a report of node {} to shard {}", report.node, self.settings.shard));
        }
        if let Some(group) = report.groups.iter().find(|group| group.group >= self.settings.groups) {
            return Err(format!("node {from} reports group {}, which does not exist", group.group));
        }
        if report.epoch > self.settings.topology.epoch() && !report.topology.is_empty() {
            let told = self.settings.decode(report.topology.as_bytes());
            let told = told.map_err(|error| format!("node {from} tells a topology that cannot be used: {error}"))?;
            self.control.gossip.newer = Some(Arc::new(told));
        }
        self.control.gossip.hear(self.ticks, report)
    }

    /// Another node's wish that a group led here be led elsewhere.
    pub(in crate::shard) fn on_transfer_wish(&mut self, head: &[u8]) -> Result<(), String> {
        let TransferWish { group, to } = wire::view_transfer_wish(head).map_err(|error| error.to_string())?;
        let wishes = &mut self.control.gossip.wishes;
        if wishes.len() < WISHES_MAX && group < self.settings.groups {
            wishes.push((GroupId(group), NodeId(to)));
        }
        Ok(())
    }

    /// The nodes that were heard of lately, and this one.
    pub(super) fn alive(&self) -> Vec<LiveNode> {
        let live = |node, leader_priority| LiveNode { node, leader_priority };
        let heard = self.control.gossip.heard.iter().filter(|(_, heard)| self.is_fresh(heard));
        let others = heard.map(|(node, heard)| live(*node, heard.leader_priority));
        others.chain([live(self.settings.node, self.settings.leader_priority)]).collect()
    }

    fn is_fresh(&self, heard: &Heard) -> bool {
        heard.tick + ALIVE_REPORTS * u64::from(self.settings.report_ticks.max(1)) >= self.ticks
    }

    /// What is known of the other nodes; of use in shard 0 only.
    pub(in crate::shard) fn node_statuses(&self) -> Vec<NodeStatus> {
        let status = |(node, heard): (&NodeId, &Heard)| NodeStatus {
            node: node.0,
            alive: self.is_fresh(heard),
            epoch: heard.epoch,
            release: heard.release.clone(),
            requests_per_second: heard.requests_per_second,
            leader_priority: heard.leader_priority,
            http_address: heard.services.http.clone(),
            grpc_address: heard.services.grpc.clone(),
        };
        self.control.gossip.heard.iter().map(status).collect()
    }

    /// The groups of this shard that have no replica here and of which another node told that it leads them.
    pub(in crate::shard) fn elsewhere(&self) -> Vec<ElsewhereStatus> {
        let here = |group: u32| slots::shard_of_group(group, self.settings.shards) == self.settings.shard;
        let absent = |group: u32| self.groups.get(GroupId(group)).is_none();
        let known = self.control.known.iter().filter(|(group, _)| here(**group) && absent(**group));
        known.map(|(group, led)| ElsewhereStatus { group: *group, leader: led.leader.0, term: led.view.term }).collect()
    }

    /// Where else this node can be reached.
    pub(in crate::shard) fn services(&self) -> &Services {
        &self.control.services
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u64, term: u64, voters: &[u64]) -> Report {
        let group = ReportedGroup { group: 3, term, voters: voters.to_vec(), ..ReportedGroup::default() };
        Report { node, groups: vec![group], ..Report::default() }
    }

    #[test]
    fn the_later_term_counts_and_what_is_old_is_forgotten() {
        let mut gossip = Gossip::default();
        gossip.hear(10, report(1, 5, &[1, 2])).unwrap();
        gossip.hear(11, report(2, 4, &[2])).unwrap();
        assert_eq!(gossip.groups[&3].1.leader, NodeId(1), "an earlier leader does not know that it is one no more");
        gossip.hear(12, report(2, 6, &[2])).unwrap();
        gossip.hear(13, report(2, 6, &[2, 3])).unwrap();
        assert_eq!(gossip.groups[&3].1.view.members.voters(), [NodeId(2), NodeId(3)]);
        gossip.forget(13);
        assert_eq!((gossip.heard.len(), gossip.groups.len()), (1, 1));
        gossip.forget(14);
        assert_eq!((gossip.heard.len(), gossip.groups.len()), (0, 0));
    }

    #[test]
    fn where_else_a_node_is_is_the_last_it_told() {
        let mut gossip = Gossip::default();
        for http in ["a:80", "b:80"] {
            let (http_address, grpc_address) = (http.to_owned(), String::new());
            gossip.hear(10, Report { node: 1, http_address, grpc_address, ..Report::default() }).unwrap();
        }
        let expected = Services { http: String::from("b:80"), grpc: String::new() };
        assert_eq!(gossip.heard[&NodeId(1)].services, expected);
    }

    #[test]
    fn what_is_reported_comes_out_as_it_went_in_and_is_bounded() {
        let members = Membership::with(vec![NodeId(1), NodeId(2)], vec![NodeId(2), NodeId(3)], vec![NodeId(9)]);
        let committed = EntryId { term: 7, index: 44 };
        let view = MembershipView { group: 3, leads: true, term: 7, members, index: 40, committed };
        let led = LedGroup { leader: NodeId(1), epoch: 5, view, behind: vec![NodeId(9)] };
        assert_eq!(led_group(NodeId(1), reported(&led)).unwrap(), led);
        assert!(led_group(NodeId(1), ReportedGroup::default()).is_err(), "nobody votes");
        let many: Vec<u64> = (1..=MEMBERS_MAX as u64 + 1).collect();
        assert!(led_group(NodeId(1), ReportedGroup { voters: many, ..ReportedGroup::default() }).is_err());
    }
}
