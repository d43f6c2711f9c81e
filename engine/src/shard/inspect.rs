//! What a shard shows to a checker: plain values, read without changing anything and without building text.
//!
//! Off the data path.
//! Invariant: nothing here changes the shard or depends on who looks.
//! It compares nothing; the simulator's checkers do.

use ringraft_raft::{EntryId, GroupId, HardState, Index, Membership, Memberships, NodeId, Role, Term};
use ringraft_wal::{Disk, EntryBytes, RecordPlace, record};

use super::{ConfigurationError, Shard};
use crate::group::membership::encode;

/// One replica, at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The group.
    pub group: u32,
    /// Its role.
    pub role: Role,
    /// The leader as far as it knows.
    pub leader: Option<NodeId>,
    /// Term and vote, durable or not.
    pub hard_state: HardState,
    /// Term and vote known to be on disk.
    pub durable_hard_state: HardState,
    /// Highest committed entry known here.
    pub commit_index: Index,
    /// Highest applied entry.
    pub last_applied: Index,
    /// The last entry that is only in a snapshot: the log begins behind it. Index 0: the log is whole.
    pub base: EntryId,
    /// The last entry of the log, or its base.
    pub last: EntryId,
    /// Highest entry known to be on this disk; of the old log while an installed snapshot takes
    /// its place.
    pub durable_index: Index,
    /// Rolling state hash at `last_applied`.
    pub state_hash: u64,
    /// Requests and reads waiting.
    pub waiting: usize,
    /// Whether it has applied what was committed before its start.
    pub serving: bool,
}

/// Who the members of a group are, as one replica knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipView {
    /// The group.
    pub group: u32,
    /// Whether this replica leads.
    pub leads: bool,
    /// In which term.
    pub term: Term,
    /// The last configuration of its log.
    pub members: Membership,
    /// The entry that brought it, 0 if it is older than the log.
    pub index: Index,
    /// The last entry it knows to be committed.
    pub committed: EntryId,
}

impl MembershipView {
    /// Whether the configuration is committed.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.index <= self.committed.index
    }

    /// What a leader's view proves of a node that is no member by a committed configuration: up to which entry nothing of
    /// the node's replica is needed any more (see [`Shard::drop_replica`]). `None`: nothing.
    #[must_use]
    pub fn excludes(&self, node: NodeId) -> Option<EntryId> {
        let out = self.leads && self.is_committed() && !self.members.contains(node);
        (out && self.committed.term == self.term).then_some(self.committed)
    }
}

/// The cursors of a shard's log: batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCursors {
    /// The batch of the newest record.
    pub accepted: u64,
    /// The last batch handed to the disk.
    pub submitted: u64,
    /// All batches up to here are durable.
    pub durable: u64,
}

/// An entry as it stands in the log: a whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRecord<'a> {
    /// Its bytes.
    Cached(&'a [u8]),
    /// They have left the cache: where the disk holds them.
    OnDisk(RecordPlace),
}

/// Bytes and places a shard keeps that its settings bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The longest queue of unsent bytes to one peer.
    pub peer_bytes: usize,
    /// The most unsent reply bytes of one connection.
    pub reply_bytes: usize,
    /// Open client connections.
    pub connections: usize,
}

/// The configuration that a verified record of an entry brings, if it brings one.
///
/// # Errors
/// It is none that this program knows.
pub fn configuration_of(bytes: &[u8]) -> Result<Option<Membership>, ConfigurationError> {
    let brings_one = record::header(bytes).flags & record::FLAG_MEMBERSHIP != 0;
    brings_one.then(|| encode::decode(record::payload(bytes))).transpose()
}

impl<D: Disk> Shard<D> {
    /// Every replica hosted here, by group.
    pub fn group_views(&self) -> impl Iterator<Item = GroupView> + '_ {
        self.groups.iter().map(crate::group::Group::view)
    }

    /// The term of a group's entry, or of its base; `None`: no such group here, or no such entry.
    #[must_use]
    pub fn term_at(&self, group: u32, index: Index) -> Option<Term> {
        self.groups.get(GroupId(group))?.term_at(index)
    }

    /// Whether a group's replica holds a lease when this node's clock shows `now_us`.
    #[must_use]
    pub fn holds_lease(&self, group: u32, now_us: u64) -> bool {
        self.groups.holds_lease(GroupId(group), now_us)
    }

    /// The record of a group's entry; `None`: the log does not hold it.
    #[must_use]
    pub fn entry(&self, group: u32, index: Index) -> Option<EntryRecord<'_>> {
        match self.io.wal.entry_bytes(group, index) {
            EntryBytes::Cached(record) => Some(EntryRecord::Cached(record)),
            EntryBytes::OnDisk => self.io.wal.entry_place(group, index).map(EntryRecord::OnDisk),
            EntryBytes::Missing => None,
        }
    }

    /// Who the members of a group are, as the replica here knows them.
    #[must_use]
    pub fn membership(&self, group: u32) -> Option<MembershipView> {
        self.groups.get(GroupId(group)).map(crate::group::Group::membership)
    }

    /// The configurations of a group's log, as the replica here holds them.
    #[must_use]
    pub fn memberships(&self, group: u32) -> Option<&Memberships> {
        self.groups.get(GroupId(group)).map(crate::group::Group::memberships)
    }

    /// What the log of a group's replica must reach before it votes, since an earlier one was given up.
    #[must_use]
    pub fn votes_withheld_until(&self, group: u32) -> Option<EntryId> {
        self.groups.get(GroupId(group)).map(crate::group::Group::votes_withheld_until)
    }

    /// The cursors of the log.
    #[must_use]
    pub fn log_cursors(&self) -> LogCursors {
        let wal = &self.io.wal;
        LogCursors {
            accepted: wal.accepted_sequence(),
            submitted: wal.submitted_sequence(),
            durable: wal.durable_sequence(),
        }
    }

    /// What is held that is bounded.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            peer_bytes: self.io.peers.longest_queue_bytes(),
            reply_bytes: self.io.clients.longest_outgoing_bytes(),
            connections: self.io.clients.open_count(),
        }
    }
}
