//! From a client's frame to its group: validation, routing, bounds.
//!
//! Data path 2/9 and 3/9.
//! Invariants: a request that breaks a bound is answered and changes nothing; all keys of a request live in one group;
//! a request for a group of another shard gets `Moved` with the address to ask.
//! What an operator asks for comes in here too.
//! It does not look into values.

use std::rc::Rc;

use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::Frame;
use ringraft_net::slots;
use ringraft_net::wire::{
    self, AdminRefusal, AdminReply, AdminRequest, Consistency, OperationRef, Outcome, Position, Reply, RequestClass,
};
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{GroupId, NodeId};
use ringraft_wal::Disk;

use super::clients::{Asker, ConnectionId};
use super::control::Change;
use super::io::Io;
use super::{Shard, ShardSettings};
use crate::group::Group;
use crate::group::proposals::Proposal;
use crate::metrics::record::Rejection;
use crate::topology::Topology;

/// How long a client should wait after `Overloaded`, in microseconds.
const RETRY_AFTER_US: u64 = 2_000;

impl<D: Disk> Shard<D> {
    /// Takes one request of a client.
    pub(super) fn request(&mut self, connection: ConnectionId, buffer: &Rc<ReceiveBuffer>, parsed: &Frame<'_>) {
        let asker = Asker { connection, correlation: parsed.correlation };
        if let Err(outcome) = self.admit(asker, buffer, parsed) {
            let position = Position { group: 0, index: 0, position: u32::MAX };
            self.io.counters.replies += 1;
            self.note_rejected(parsed, &outcome);
            Reply { position, outcome, term: 0 }.append_frame(self.io.clients.outgoing(connection), asker.correlation);
        }
    }

    fn admit(&mut self, asker: Asker, buffer: &Rc<ReceiveBuffer>, parsed: &Frame<'_>) -> Result<(), Outcome> {
        let request = wire::view_request(parsed.head).map_err(bad_request)?;
        let class = wire::validate_request(request, &self.settings.limits).map_err(bad_request)?;
        let group = GroupId(wire::group_of_request(request, self.settings.groups).map_err(bad_request)?);
        if class != RequestClass::Read && request.operations().any(|operation| is_reserved(&operation)) {
            let message = String::from("keys that begin with \\0ringraft/ are the cluster's own: choose another key");
            return Err(Outcome::BadRequest { message });
        }
        if !self.groups.lives_here(group) {
            self.io.counters.moved += 1;
            return Err(self.moved(group));
        }
        let Some(replica) = self.groups.get_mut(group) else {
            return Err(Outcome::NotLeader { group: group.0, leader: self.leader_hint(group) });
        };
        if self.stopping {
            return Err(stopping_outcome(&self.settings, replica));
        }
        let waiting = replica.waiting();
        self.io.metrics.waiting.observe(waiting as u64 + 1);
        if waiting >= self.settings.waiting_max && !is_active(Mutant::QueueUnbounded) {
            self.io.counters.overloaded += 1;
            return Err(Outcome::Overloaded { retry_after_us: RETRY_AFTER_US });
        }
        match class {
            RequestClass::Read => {
                let io = &mut self.io;
                match (request.consistency.to_native(), request.max_staleness_ms()) {
                    (Consistency::Linearizable, _) => replica.read(parsed.head, asker, io),
                    (Consistency::Lease, _) => replica.read_leased(parsed.head, asker, io),
                    (Consistency::Follower, _) => replica.read_here(parsed.head, asker, io),
                    (Consistency::Stale, None) => replica.read_stale(parsed.head, asker, io),
                    (Consistency::Stale, Some(bound_ms)) => replica.read_bounded(parsed.head, bound_ms, asker, io),
                }
            }
            RequestClass::Write | RequestClass::OpenSession => {
                if !replica.is_leader() {
                    let leader = replica.leader().map(|node| node.0);
                    return Err(Outcome::NotLeader { group: group.0, leader });
                }
                let start = parsed.head.as_ptr().addr() - buffer.filled().as_ptr().addr();
                let arrived_us = self.io.now_us;
                replica.request(Proposal::new(Rc::clone(buffer), start, parsed.head.len(), asker, arrived_us));
            }
        }
        Ok(())
    }

    /// Counts what was not taken, also for the group it was for if this shard has a replica of it.
    fn note_rejected(&mut self, parsed: &Frame<'_>, outcome: &Outcome) {
        let Some(reason) = Rejection::of_admission(outcome) else { return };
        self.io.metrics.tally.reject(reason);
        let request = wire::view_request(parsed.head).ok();
        let group = request.and_then(|request| wire::group_of_request(request, self.settings.groups).ok());
        if let Some(replica) = group.and_then(|group| self.groups.get_mut(GroupId(group))) {
            replica.note_rejected(reason);
        }
    }

    /// Takes what an operator asks for.
    pub(super) fn administrate(&mut self, asker: Asker, request: AdminRequest) {
        match request {
            AdminRequest::Transfer { group, to } => {
                let is_known = to == 0 || self.settings.topology.node(NodeId(to)).is_some();
                self.ask_replica(group, is_known.then_some(to).ok_or(to), asker, |replica, io| {
                    replica.transfer(to, asker, io);
                });
            }
            AdminRequest::Snapshot { group } => {
                self.ask_replica(group, Ok(0), asker, |replica, io| replica.take_for(asker, io));
            }
            AdminRequest::Topology => {
                let reply = self.topology_reply();
                self.io.reply_admin(asker, &reply);
            }
            AdminRequest::Reload => self.ask_reload(asker),
            AdminRequest::AddNode { node, addresses, instance } => {
                self.change_nodes(Change::Add { node: NodeId(node), addresses, instance }, asker);
            }
            AdminRequest::RemoveNode { node } => self.change_nodes(Change::Remove { node: NodeId(node) }, asker),
            AdminRequest::ReplaceNode { old, node, addresses, instance } => {
                let (old, node) = (NodeId(old), NodeId(node));
                self.change_nodes(Change::Replace { old, node, addresses, instance }, asker);
            }
        }
    }

    /// Asks the replica of a group, or says why not; `node`: one that the cluster has, or the one it has not.
    fn ask_replica(
        &mut self,
        group: u32,
        node: Result<u64, u64>,
        asker: Asker,
        ask: impl FnOnce(&mut Group, &mut Io<D>),
    ) {
        let refused = |code, message| Err(AdminReply::Refused { code, message });
        let settings = &self.settings;
        let lives_here = if group >= settings.groups {
            let message = format!("there is no group {group}; groups are 0 to {}", settings.groups - 1);
            refused(AdminRefusal::UnknownGroup, message)
        } else if let Err(to) = node {
            refused(AdminRefusal::UnknownNode, format!("the cluster has no node {to}"))
        } else if self.groups.lives_here(GroupId(group)) {
            Ok(())
        } else {
            Err(AdminReply::Moved { group, shard: slots::shard_of_group(group, settings.shards) })
        };
        let leader = lives_here.is_ok().then(|| self.leader_hint(GroupId(group))).flatten();
        match (lives_here, self.groups.get_mut(GroupId(group))) {
            (Ok(()), Some(replica)) => ask(replica, &mut self.io),
            (Ok(()), None) => self.io.reply_admin(asker, &AdminReply::NotLeader { group, leader }),
            (Err(reply), _) => self.io.reply_admin(asker, &reply),
        }
    }

    fn moved(&self, group: GroupId) -> Outcome {
        let shard = slots::shard_of_group(group.0, self.settings.shards);
        let own = self.settings.topology.node(self.settings.node);
        let address = own.and_then(|node| node.addresses.get(usize::from(shard))).cloned().unwrap_or_default();
        Outcome::Moved { group: group.0, node: self.settings.node.0, shard, address }
    }
}

/// A stopping node takes no requests: they go to the next leader as soon as it is known.
fn stopping_outcome(settings: &ShardSettings, replica: &Group) -> Outcome {
    match replica.leader().filter(|leader| *leader != settings.node) {
        Some(leader) => Outcome::NotLeader { group: replica.id().0, leader: Some(leader.0) },
        None => Outcome::Unavailable { message: String::from("this node is stopping; ask another") },
    }
}

/// Whether a key is the cluster's own.
#[inline]
fn is_reserved(operation: &OperationRef<'_>) -> bool {
    operation.key().is_some_and(|key| key.starts_with(Topology::RESERVED))
}

fn bad_request(error: impl std::fmt::Display) -> Outcome {
    Outcome::BadRequest { message: error.to_string() }
}
