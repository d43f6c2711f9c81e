//! A shard's part in the cluster: it follows the topology, and shard 0 reads it from group 0.
//!
//! Off the data path, after the tick.
//!
//! ```text
//!   group 0's state machine ── key \0ringraft/topology ──> shard 0 ──> NodeBoard ──> every shard: adopt
//!   adopt: links, addresses, targets of the groups here, replicas that are missing; those not wanted go with a proof
//! ```
//! Invariants: only a topology that is committed in group 0, or that this node began with, is ever adopted, and never an
//! older one, whether group 0 brings it here or a peer that has it; a replica is given up only if its group's leader proved that nothing of it is needed; without an exchange a
//! shard does what it was told before.
//! What nodes tell each other is in `gossip.rs`, what the leader of group 0 decides in `lead.rs`.

mod gossip;
mod lead;

use std::sync::Arc;

use ringraft_net::wire;
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, GroupId, NodeId};
use ringraft_wal::Disk;

use self::gossip::Gossip;
use self::lead::Lead;
use super::board::{KnownGroups, NodeBoard, Services};
use super::io::Fatal;
use super::{Shard, ShardSettings, Target};
use crate::group::Group;
use crate::topology::{CONTROL_GROUP, Topology};

pub use self::gossip::{ElsewhereStatus, NodeStatus};
pub(super) use self::lead::Change;

/// What a shard knows of the cluster besides the topology.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// What other nodes said of the groups they lead.
    known: Arc<KnownGroups>,
    /// Where else this node can be reached.
    services: Arc<Services>,
    gossip: Gossip,
    lead: Lead,
    /// The text that group 0 holds, as far as applied here.
    stored: Option<Vec<u8>>,
    /// `last_applied` of group 0 when it was read.
    read_at: u64,
    /// A member said that this node was removed. It knew that from a committed topology, and ids never return.
    told_removed: bool,
    /// Requests counted when they were last told.
    requests_told: u64,
}

impl<D: Disk> Shard<D> {
    /// Meets the other shards of this node. The host calls it after each tick.
    pub fn exchange(&mut self, board: &mut NodeBoard) {
        let is_source = self.settings.shard == 0;
        self.control.known = Arc::clone(board.known());
        self.control.services = Arc::clone(board.services());
        if is_source {
            self.read_topology();
            if let Some(newer) = self.take_newer() {
                self.adopt(newer);
            }
        }
        let newest = Arc::clone(board.meet(&self.settings.topology, is_source));
        if newest != self.settings.topology {
            self.adopt(newest);
        }
        for (group, to) in board.take_wishes(self.settings.shard) {
            if let Some(replica) = self.groups.get_mut(group) {
                replica.follow_wish(to, &mut self.io);
            }
        }
        self.exchange_reloads(board);
        if self.is_report_due() {
            self.publish(board);
            self.io.metrics.end_second();
            board.publish_sample(self.settings.shard, self.sample());
            board.note_transitions(self.io.metrics.take_transitions());
            self.follow_topology();
        }
        if is_source {
            self.tell_and_forget(board);
            self.lead_cluster(board);
        }
    }

    /// The topology this shard acts on.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.settings.topology
    }

    /// Whether this node was removed from the cluster, for good: the topology says so, or a member did. Others that were
    /// removed may still talk to it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.settings.topology.removed().binary_search(&self.settings.node.0).is_ok() || self.control.told_removed
    }

    /// A member refused the link to it, since this node was removed.
    pub fn refused_as_removed(&mut self) {
        self.control.told_removed = true;
    }

    /// The nodes that may link to this one; none: it reaches none of those it knows, and does not lead group 0. They may all
    /// be gone, and whoever dials it know more.
    #[must_use]
    pub fn admitted(&self) -> Vec<u64> {
        let reaches_some = self.io.peers.nodes().any(|node| self.io.peers.is_connected(node));
        let knows_some = self.io.peers.nodes().next().is_some();
        let leads = self.groups.get(CONTROL_GROUP).is_some_and(Group::is_leader);
        let is_alone = !reaches_some && !leads && (knows_some || self.settings.shard == 0);
        let members = self.settings.topology.nodes().iter().map(|node| node.id.0);
        if is_alone { Vec::new() } else { members.collect() }
    }

    /// The topology as clients see it, with the leaders that are known here.
    #[must_use]
    pub fn client_topology(&self) -> wire::Topology {
        let topology = &self.settings.topology;
        let nodes = topology.nodes().iter();
        let nodes = nodes.map(|node| wire::NodeInfo { node: node.id.0, addresses: node.addresses.clone() }).collect();
        let mut leaders = vec![None; self.settings.groups as usize];
        for (group, known) in self.control.known.iter() {
            leaders[*group as usize] = Some(known.leader.0);
        }
        for group in self.groups.iter() {
            if let Some(leader) = group.leader() {
                leaders[group.id().0 as usize] = Some(leader.0);
            }
        }
        let epoch = topology.epoch();
        wire::Topology { epoch, groups: self.settings.groups, shards: self.settings.shards, nodes, leaders }
    }

    fn is_report_due(&self) -> bool {
        self.ticks.is_multiple_of(u64::from(self.settings.report_ticks.max(1)))
    }

    /// Reads the topology from group 0, when something was applied.
    fn read_topology(&mut self) {
        let Some(replica) = self.groups.get(CONTROL_GROUP) else { return };
        let read_at = replica.last_applied();
        if read_at == self.control.read_at {
            return;
        }
        self.control.read_at = read_at;
        let text = replica.value(Topology::KEY);
        if text == self.control.stored.as_deref() {
            return;
        }
        let text = text.map(<[u8]>::to_vec);
        let decoded = text.as_deref().map(|text| self.settings.decode(text));
        self.control.stored = text;
        match decoded {
            Some(Ok(topology)) if topology.epoch() >= self.settings.topology.epoch() => self.adopt(Arc::new(topology)),
            Some(Ok(_)) | None => {} // this node knew better before its restart, or was told
            Some(Err(error)) => self.io.fail(Fatal::Topology(error)),
        }
    }

    /// Acts on another topology from now on.
    fn adopt(&mut self, topology: Arc<Topology>) {
        if topology == self.settings.topology {
            return;
        }
        let nodes: Vec<NodeId> = topology.nodes().iter().map(|node| node.id).collect();
        self.settings.topology = topology;
        self.set_peers(&nodes);
        self.follow_topology();
    }

    /// Targets and replicas as the topology says; what cannot be done now is done with a later report.
    fn follow_topology(&mut self) {
        if self.is_removed() {
            return;
        }
        let topology = Arc::clone(&self.settings.topology);
        for group in self.groups.ids() {
            let voters = topology.replicas(group);
            // Every node is a member of group 0, and learns from it that it is one.
            let belongs = group == CONTROL_GROUP || voters.contains(&self.settings.node);
            match (belongs, self.groups.get(group).is_some()) {
                (true, false) => _ = self.create_replica(group.0),
                (false, true) => self.drop_if_proved(group),
                _ => {}
            }
            if let Ok(target) = Target::new(voters.to_vec(), topology.learners(group)) {
                self.set_target(group.0, target);
            }
        }
    }

    fn drop_if_proved(&mut self, group: GroupId) {
        if is_active(Mutant::DroppedWithoutProof) {
            let _ = self.drop_replica(group.0, EntryId { term: u64::MAX, index: u64::MAX });
            return;
        }
        let known = self.control.known.get(&group.0);
        if let Some(proof) = known.and_then(|known| known.view.excludes(self.settings.node)) {
            // Refused while its leader speaks to it, or when it holds more than was proved.
            let _ = self.drop_replica(group.0, proof);
        }
    }

    /// Whom to ask about a group that nobody here leads: who leads it as far as known, or somebody who is to hold it.
    pub(super) fn leader_hint(&self, group: GroupId) -> Option<u64> {
        let me = self.settings.node;
        let here = self.groups.get(group).and_then(|replica| replica.leader());
        let known = || self.control.known.get(&group.0).map(|known| known.leader);
        let topology = &self.settings.topology;
        let others = || topology.replicas(group).iter().copied().find(|node| *node != me);
        here.or_else(known)
            .filter(|node| *node != me && topology.node(*node).is_some())
            .or_else(others)
            .map(|node| node.0)
    }
}

impl ShardSettings {
    /// The topology of a text, which must be one of this cluster.
    fn decode(&self, text: &[u8]) -> Result<Topology, String> {
        let topology = Topology::decode(text).map_err(|error| error.to_string())?;
        let (groups, shards) = (topology.groups(), topology.shards());
        if (groups, shards) != (self.groups, self.shards) {
            let (own_groups, own_shards) = (self.groups, self.shards);
            return Err(format!(
                "it has {groups} groups and {shards} shards, this cluster has {own_groups} and {own_shards}"
            ));
        }
        Ok(topology)
    }
}
