//! Replicas that come and go while a shard runs, the nodes it is linked to, and the members its groups are to have.
//!
//! Off the data path.
//!
//! ```text
//!   create_replica: beginning (held) in the log -> an empty replica that knows no members -> the leader adds and feeds it
//!   drop_replica:   beginning (given up) in the log -> durable -> its snapshot files are removed, one per tick
//! ```
//! Invariants: what a node holds is what its log says, so a restart neither brings back a replica that was given up nor
//! loses one that was made; a replica is given up only with proof that nothing of it is needed, and when it comes back it
//! votes for nobody until it holds again what it may have acknowledged; terms and votes outlive it.
//! It does not decide who ought to be where.

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, GroupId, NodeId};
use ringraft_wal::{Beginning, Disk, RecoveredGroup, SnapshotName, WalError};

use super::Shard;
use super::io::Fatal;
use super::restore::make_group;
use crate::group::Group;
use crate::group::membership::plan::Target;
use crate::group::snapshots::Snapshots;

/// Why a replica was not made or given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// There is no such group, or it belongs to another shard.
    #[error("group {0} does not belong to this shard")]
    NotHere(u32),
    /// It is here already.
    #[error("this node holds a replica of group {0} already")]
    Exists(u32),
    /// There is none.
    #[error("this node holds no replica of group {0}")]
    Absent(u32),
    /// The one before is not gone from the disk yet.
    #[error("the replica of group {0} that was given up is not gone from the disk yet; ask again")]
    Busy(u32),
    /// The log has no room.
    #[error("the log has no room: {0}; ask again")]
    Full(String),
    /// A leader of the group speaks to this replica, or it leads itself: it is a member.
    #[error("the replica of group {0} is in use: its leader speaks to it")]
    InUse(u32),
    /// Its log is ahead of what was proved.
    #[error("the replica of group {group} holds entries up to {last}, behind {proof}: they may be needed")]
    Needed {
        /// The group.
        group: u32,
        /// Its last entry.
        last: EntryId,
        /// What was proved.
        proof: EntryId,
    },
}

impl ReplicaError {
    /// The same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Full(_) | Self::InUse(_))
    }
}

/// A replica that was given up and whose files are not removed yet.
#[derive(Debug)]
pub(super) struct Dropped {
    group: GroupId,
    /// The batch that gives it up.
    sequence: u64,
    files: Vec<u64>,
}

impl<D: Disk> Shard<D> {
    /// Tells the replica of a group, if there is one, which members the group is to have.
    pub fn set_target(&mut self, group: u32, target: Target) {
        let is_news = |replica: &Group| replica.target() != Some(&target);
        if self.groups.get(GroupId(group)).is_some_and(is_news)
            && let Some(replica) = self.groups.get_mut(GroupId(group))
        {
            replica.set_target(target);
        }
    }

    /// The nodes to be linked to from now on, without this one. Links to others are forgotten.
    pub fn set_peers(&mut self, nodes: &[NodeId]) {
        let mut peers: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != self.settings.node).collect();
        peers.sort_unstable();
        peers.dedup();
        for gone in self.io.peers.set(&peers) {
            self.groups.for_each(|group| group.unreachable(gone, &mut self.io));
        }
    }

    /// The groups this node holds a replica of.
    pub fn replicas(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.iter().map(|group| group.id().0)
    }

    /// Makes an empty replica of a group. It knows no members until its leader sends them.
    ///
    /// # Errors
    /// It is here, does not belong here, or cannot be made now.
    pub fn create_replica(&mut self, group: u32) -> Result<(), ReplicaError> {
        let id = GroupId(group);
        if !self.groups.lives_here(id) {
            return Err(ReplicaError::NotHere(group));
        }
        if self.groups.get(id).is_some() {
            return Err(ReplicaError::Exists(group));
        }
        if self.dropped.iter().any(|dropped| dropped.group == id) {
            return Err(ReplicaError::Busy(group));
        }
        let before = floor(self.io.wal.beginning(group));
        let beginning = Beginning { held: true, term: before.term, index: before.index };
        let sequence = self.begin_anew(group, beginning)?;
        let mut found = RecoveredGroup::default();
        found.hard_state = self.io.wal.hard_state(group);
        found.beginning = Some(beginning);
        let snapshots = Snapshots::new(self.settings.snapshots, self.state_limits.digest(), Vec::new());
        let made = make_group(&self.settings, &self.consensus, (id, self.state_limits), &found, None, snapshots);
        match made {
            Ok(mut made) => {
                made.began(sequence);
                made.pass(self.groups.ticks_since(self.consensus.heartbeat_ticks)); // heartbeats coincide
                self.groups.insert(made);
                self.io.counters.replicas_created += 1;
            }
            // The same settings made the other replicas.
            Err(error) => self.io.fail(Fatal::Unreadable { group, index: 0, error: error.to_string() }),
        }
        Ok(())
    }

    /// Gives up the replica of a group that this node is no member of any more: its log and snapshots are removed, its term
    /// and vote stay. `proof` is what a leader of the group told: an entry that is committed under a configuration
    /// without this node ([`super::inspect::MembershipView::excludes`]). Whoever waits here is told that it is not the leader.
    ///
    /// # Errors
    /// There is none, it may be needed, or cannot be given up now.
    pub fn drop_replica(&mut self, group: u32, proof: EntryId) -> Result<(), ReplicaError> {
        let id = GroupId(group);
        let replica = self.groups.get_mut(id).ok_or(ReplicaError::Absent(group))?;
        if replica.is_in_use() && !is_active(Mutant::DroppedWithoutProof) {
            return Err(ReplicaError::InUse(group));
        }
        let last = replica.last();
        if last > proof {
            return Err(ReplicaError::Needed { group, last, proof });
        }
        let proof = if is_active(Mutant::DroppedWithoutProof) { last } else { proof };
        let proof = proof.max(floor(self.io.wal.beginning(group)));
        let sequence = self.begin_anew(group, Beginning { held: false, term: proof.term, index: proof.index })?;
        if let Some(mut replica) = self.groups.remove(id) {
            let files = replica.close(&mut self.io);
            self.dropped.push(Dropped { group: id, sequence, files });
            self.io.counters.replicas_dropped += 1;
        }
        Ok(())
    }

    fn begin_anew(&mut self, group: u32, beginning: Beginning) -> Result<u64, ReplicaError> {
        match self.io.wal.append_beginning(group, beginning, &mut self.io.disk) {
            Ok(accepted) => Ok(accepted.sequence),
            Err(error @ WalError::Poisoned { .. }) => {
                self.io.fail(Fatal::Wal(error.to_string()));
                Err(ReplicaError::Full(error.to_string()))
            }
            Err(error) => Err(ReplicaError::Full(error.to_string())),
        }
    }

    /// Snapshot files of groups without a replica are of no use: left over by a crash.
    pub(super) fn note_leftovers(&mut self, files: impl Iterator<Item = SnapshotName>) {
        for SnapshotName { group, index } in files {
            let id = GroupId(group);
            if !self.groups.lives_here(id) || self.groups.get(id).is_some() {
                continue;
            }
            match self.dropped.iter_mut().find(|dropped| dropped.group == id) {
                Some(dropped) => dropped.files.push(index),
                None => self.dropped.push(Dropped { group: id, sequence: 0, files: vec![index] }),
            }
        }
    }

    /// A tick: removes a file of each replica that is given up for good.
    pub(super) fn remove_dropped(&mut self) {
        let durable = self.io.wal.durable_sequence();
        let io = &mut self.io;
        self.dropped.retain_mut(|dropped| {
            if dropped.sequence > durable {
                return true;
            }
            let Some(index) = dropped.files.last().copied() else { return false };
            let name = SnapshotName { group: dropped.group.0, index };
            if io.wal.remove_snapshot(name, false, &mut io.disk).is_ok() {
                dropped.files.pop(); // refused while it is being read: with a later tick
            }
            true
        });
    }
}

/// Up to where the earlier logs of a replica may have been acknowledged.
pub(super) fn floor(beginning: Option<Beginning>) -> EntryId {
    beginning.map_or(EntryId::ZERO, |before| EntryId { term: before.term, index: before.index })
}
