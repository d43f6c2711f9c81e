//! What the leader of group 0 decides for the cluster: it writes the topology, plans moves, answers operators.
//!
//! Off the data path.
//!
//! ```text
//!   operator's change, or plan(topology, reports, alive) -> next topology
//!      -> compare-and-set of the key in group 0's log -> applied -> adopted -> the operator is answered
//! ```
//! Invariants: one write is under way at a time; a write changes exactly the topology it was made from, since the value it
//! replaces is compared when it is applied; an operator is answered when the change is in force, or told why it is not, by
//! what is committed after the question came (a ReadIndex: who leads no more and has not heard of it refuses nothing); who
//! stops leading answers that it does not lead.
//! It keeps nothing that the next leader would need.

use std::collections::VecDeque;
use std::rc::Rc;

use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::wire::{AdminRefusal, AdminReply, OperationRef, RequestRef, TransferWish};
use ringraft_raft::{NodeId, ReadContext};
use ringraft_wal::Disk;

use super::super::Shard;
use super::super::board::{LedGroup, NodeBoard};
use super::super::clients::Asker;
use crate::group::Group;
use crate::group::proposals::Proposal;
use crate::topology::{CONTROL_GROUP, ChangeError, GroupReport, PlanBounds, Topology, plan};

/// Groups on the move and transfers in one plan.
const BOUNDS: PlanBounds = PlanBounds { moves_max: 4, transfers_max: 4 };

/// Reports between two looks at what became of a write.
const WRITE_REPORTS: u32 = 4;

/// Reports for which an operator waits.
const CHANGE_REPORTS: u32 = 10;

/// Operators that may wait.
const CHANGES_MAX: usize = 16;

/// What an operator wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Change {
    Add { node: NodeId, addresses: Vec<String>, instance: u64 },
    Remove { node: NodeId },
    Replace { old: NodeId, node: NodeId, addresses: Vec<String>, instance: u64 },
}

impl Change {
    /// The topology with it; `None`: it is in force.
    fn apply(&self, topology: &Topology) -> Result<Option<Topology>, ChangeError> {
        match self {
            Self::Add { node, addresses, instance } => topology.add(*node, addresses, *instance),
            Self::Remove { node } => topology.remove(*node),
            Self::Replace { old, node, addresses, instance } => topology.replace(*old, *node, addresses, *instance),
        }
    }
}

#[derive(Debug)]
struct PendingChange {
    asker: Asker,
    change: Change,
    /// From when on this leader is to know that it leads.
    since: Option<ReadContext>,
    ticks_left: u32,
}

/// What a leader of group 0 has under way.
#[derive(Debug, Default)]
pub(super) struct Lead {
    changes: VecDeque<PendingChange>,
    write: Option<Write>,
}

/// A topology on its way into the log.
#[derive(Debug)]
struct Write {
    /// What it replaces.
    before: Option<Vec<u8>>,
    ticks_left: u32,
}

impl<D: Disk> Shard<D> {
    /// An operator wants the nodes changed.
    pub(in crate::shard) fn change_nodes(&mut self, change: Change, asker: Asker) {
        let group = CONTROL_GROUP.0;
        let leads = self.groups.get(CONTROL_GROUP).is_some_and(|replica| replica.is_leader()) && !self.stopping;
        let reply = if self.settings.shard != 0 {
            AdminReply::Moved { group, shard: 0 }
        } else if !leads {
            AdminReply::NotLeader { group, leader: self.leader_hint(CONTROL_GROUP) }
        } else if self.control.lead.changes.len() >= CHANGES_MAX {
            let message = format!("{CHANGES_MAX} changes of nodes are under way; ask again");
            AdminReply::Refused { code: AdminRefusal::Pending, message }
        } else {
            let ticks_left = CHANGE_REPORTS * self.settings.report_ticks.max(1);
            return self.control.lead.changes.push_back(PendingChange { asker, change, since: None, ticks_left });
        };
        self.io.reply_admin(asker, &reply);
    }

    /// The topology, for whoever asks.
    pub(in crate::shard) fn topology_reply(&self) -> AdminReply {
        let text = String::from_utf8_lossy(&self.settings.topology.encode()).into_owned();
        AdminReply::Topology { text, shared: self.settings.shared.as_ref().clone() }
    }

    /// A tick of shard 0: whatever the leader of group 0 has to do.
    pub(super) fn lead_cluster(&mut self, board: &mut NodeBoard) {
        let leads = self.groups.get(CONTROL_GROUP).is_some_and(Group::has_taken_over);
        if !leads || self.stopping {
            self.control.lead.write = None;
            let is_leader = self.groups.get(CONTROL_GROUP).is_some_and(|replica| replica.is_leader());
            if !is_leader || self.stopping {
                self.give_changes_up();
            }
            return;
        }
        self.settle_write();
        self.settle_changes();
        if self.control.lead.write.is_some() {
            return;
        }
        let topology = self.settings.topology.clone();
        if self.control.stored.is_none() {
            return self.write_topology(&topology); // a brand-new cluster
        }
        if let Some(next) = self.next_change() {
            return self.write_topology(&next);
        }
        if self.is_report_due() {
            self.plan_step(board);
        }
    }

    /// A write that is applied, or replaced by another, or given up: another one may be made. One that is in the log without
    /// being committed stays the only one.
    fn settle_write(&mut self) {
        let Some(write) = &mut self.control.lead.write else { return };
        write.ticks_left = write.ticks_left.saturating_sub(1);
        if write.ticks_left == 0 {
            write.ticks_left = WRITE_REPORTS * self.settings.report_ticks.max(1);
            let control = self.groups.get(CONTROL_GROUP);
            if control.is_some_and(|replica| replica.holds_write_of(Asker::NOBODY)) {
                return;
            }
            self.control.lead.write = None;
        } else if write.before != self.control.stored {
            self.control.lead.write = None;
        }
    }

    /// Operators whose change is in force, is refused, or took too long.
    fn settle_changes(&mut self) {
        let topology = self.settings.topology.clone();
        let seen = self.control.read_at;
        for mut pending in std::mem::take(&mut self.control.lead.changes) {
            pending.ticks_left = pending.ticks_left.saturating_sub(1);
            let control = self.groups.get_mut(CONTROL_GROUP);
            let is_followed =
                control.is_some_and(|replica| replica.is_followed(&mut pending.since, seen, &mut self.io));
            let is_known = is_followed && self.control.stored.is_some();
            let reply = match pending.change.apply(&topology) {
                Ok(None) if is_known => self.topology_reply(),
                Err(error) if is_known => {
                    AdminReply::Refused { code: AdminRefusal::NotAllowed, message: error.to_string() }
                }
                _ if pending.ticks_left == 0 => {
                    let message =
                        "the change was not committed in time; ask what became of it, and again if it did not";
                    AdminReply::Refused { code: AdminRefusal::TimedOut, message: String::from(message) }
                }
                Ok(Some(next)) if is_known && next.encode().len() > self.settings.limits.value_bytes_max => {
                    let message = "the topology would be longer than value_bytes_max: remove nodes first";
                    AdminReply::Refused { code: AdminRefusal::NotAllowed, message: String::from(message) }
                }
                _ => {
                    self.control.lead.changes.push_back(pending);
                    continue;
                }
            };
            self.io.reply_admin(pending.asker, &reply);
        }
    }

    fn next_change(&self) -> Option<Topology> {
        let first = self.control.lead.changes.front()?;
        first.change.apply(&self.settings.topology).ok().flatten()
    }

    fn give_changes_up(&mut self) {
        let leader = self.leader_hint(CONTROL_GROUP);
        for pending in std::mem::take(&mut self.control.lead.changes) {
            let reply = AdminReply::NotLeader { group: CONTROL_GROUP.0, leader };
            self.io.reply_admin(pending.asker, &reply);
        }
    }

    /// The next step toward what the ring wants.
    fn plan_step(&mut self, board: &mut NodeBoard) {
        let reports: Vec<GroupReport> = board.led().chain(board.known().values()).map(LedGroup::report).collect();
        let planned = plan(&self.settings.topology, &reports, &self.alive(), BOUNDS);
        for transfer in planned.transfers {
            if transfer.from == self.settings.node {
                board.wish(transfer.group, transfer.to);
            } else {
                let wish = TransferWish { group: transfer.group.0, to: transfer.to.0 };
                self.io.peers.send_transfer_wish(transfer.from, wish);
            }
        }
        if let Some(next) = planned.next {
            self.write_topology(&next);
        }
    }

    /// Proposes a topology in the place of the one that group 0 holds. Nobody waits for the answer: it is read off the
    /// state when it is applied.
    fn write_topology(&mut self, next: &Topology) {
        let value = next.encode();
        if value.len() > self.settings.limits.value_bytes_max {
            return; // a change is refused before; a plan adds no more than a few digits
        }
        let before = self.control.stored.clone();
        let operation = OperationRef::CompareAndSet { key: Topology::KEY, expected: before.as_deref(), value: &value };
        let mut bytes = Vec::new();
        RequestRef {
            client: 0,
            sequence: 0,
            acknowledged: 0,
            consistency: ringraft_net::wire::Consistency::Linearizable,
            operations: &[operation],
        }
        .append_to(&mut bytes);
        let mut buffer = ReceiveBuffer::new();
        buffer.extend(&bytes);
        if let Some(replica) = self.groups.get_mut(CONTROL_GROUP) {
            let now_us = self.io.now_us;
            replica.request(Proposal::new(Rc::new(buffer), 0, bytes.len(), Asker::NOBODY, now_us));
            let ticks_left = WRITE_REPORTS * self.settings.report_ticks.max(1);
            self.control.lead.write = Some(Write { before, ticks_left });
        }
    }
}
