//! What a shard's groups share: the WAL and its disk, the links to peers, the client connections, counters.
//!
//! Off the data path itself; every stage of it goes through here.
//! Invariant: after a `Fatal` nothing more is sent or answered; the host ends the process.

use ringraft_net::wire;
use ringraft_raft::{EntryId, GroupId, Index, Term};
use ringraft_wal::{Disk, Wal};

use super::clients::{Asker, Clients};
use super::peers::Peers;
use crate::group::snapshots::Budget;
use crate::metrics::record::{Recorder, Rejection, Tally};
use crate::state_machine::Applied;

/// Why this node must stop at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The WAL failed: what was not yet acknowledged has an unknown outcome.
    #[error(
        "the write-ahead log failed: {0}; the node stops and must be restarted, it then reads back what the disk holds"
    )]
    Wal(String),
    /// A committed entry cannot be read or understood.
    #[error("entry {index} of group {group} is committed but cannot be applied: {error}")]
    Unreadable {
        /// The group.
        group: u32,
        /// The entry's index.
        index: Index,
        /// What is wrong with it.
        error: String,
    },
    /// A leader sent entries that contradict what is committed here: some node has lost or invented a part of its log.
    #[error(
        "leader {leader} of group {group} sent entries from index {index} that contradict what is committed here: \
         some node has lost or invented a part of its log; nothing was changed, compare the replicas before any restart"
    )]
    Conflict {
        /// The group.
        group: u32,
        /// The leader's node.
        leader: u64,
        /// The first entry of the message.
        index: Index,
    },
    /// What group 0 holds as the topology is none: a bug.
    #[error(
        "the topology in group 0 (key \\0ringraft/topology) cannot be used: {0}; the node stops rather than guess where \
         groups belong; report this"
    )]
    Topology(String),
    /// This replica's state differs from the leader's at the same index.
    #[error(
        "the state of group {group} differs from its leader's at index {index} (here {here:016x}, there {there:016x}); \
         the node stops rather than serve it: replace this replica"
    )]
    Diverged {
        /// The group.
        group: u32,
        /// The compared index.
        index: Index,
        /// This replica's hash.
        here: u64,
        /// The leader's hash.
        there: u64,
    },
}

/// Counts since the shard started.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counters {
    /// Turns of the shard.
    pub turns: u64,
    /// Entries proposed by leaders here.
    pub entries_proposed: u64,
    /// Client requests inside them.
    pub requests_proposed: u64,
    /// Reads answered.
    pub reads: u64,
    /// Of these, reads a leader answered by its lease.
    pub lease_reads: u64,
    /// Of these, reads a replica answered after asking its leader.
    pub follower_reads: u64,
    /// Replies sent to clients.
    pub replies: u64,
    /// Requests refused because a bound was reached.
    pub overloaded: u64,
    /// Requests for slots or groups served elsewhere.
    pub moved: u64,
    /// AppendEntries not taken because the disk is full.
    pub appends_refused_full: u64,
    /// Votes and terms not taken because the disk is full.
    pub messages_refused_full: u64,
    /// Client frames that were refused as malformed.
    pub bad_frames: u64,
    /// Times a leader here stepped down because its own flushes stopped.
    pub disk_stalls: u64,
    /// Receive buffers allocated (the rest was reused).
    pub buffers_allocated: u64,
    /// State digests compared with a leader's.
    pub digests_compared: u64,
    /// Entries proposed by leaders here that bring a configuration.
    pub memberships_proposed: u64,
    /// Replicas made here since the start.
    pub replicas_created: u64,
    /// Replicas given up here since the start.
    pub replicas_dropped: u64,
    /// Frames of peers for groups that this node has no replica of.
    pub frames_without_replica: u64,
    /// Snapshots taken, their mark durable.
    pub snapshots_taken: u64,
    /// Snapshots that could not be taken, sent or received.
    pub snapshots_failed: u64,
    /// Snapshots of leaders that took the place of a log here.
    pub snapshots_installed: u64,
    /// Snapshots sent to their end.
    pub snapshots_sent: u64,
    /// Bytes of changes that were looked at for watches, and what their visits cost beside.
    pub watch_bytes: u64,
}

/// The shared part of a shard.
pub(crate) struct Io<D: Disk> {
    pub(crate) wal: Wal<D>,
    pub(crate) disk: D,
    pub(crate) clients: Clients,
    pub(crate) peers: Peers,
    pub(crate) counters: Counters,
    pub(crate) metrics: Recorder,
    pub(crate) snapshots: Budget,
    pub(crate) fatal: Option<Fatal>,
    /// The host's clock, when it showed it last; 0: it has none.
    pub(crate) now_us: u64,
    /// A slice of work ended before the work did: the host gives another turn soon.
    pub(crate) more_work: bool,
}

impl<D: Disk> Io<D> {
    /// Stops the node; the first reason stands.
    pub(crate) fn fail(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
    }

    /// Answers a request with an outcome that needs no state.
    pub(crate) fn reply(&mut self, asker: Asker, position: wire::Position, outcome: wire::OutcomeRef<'_>) {
        self.counters.replies += 1;
        let out = self.clients.outgoing(asker.connection);
        wire::ReplyRef { position, outcome, term: 0 }.append_frame(out, asker.correlation);
    }

    /// Answers an operator.
    pub(crate) fn reply_admin(&mut self, asker: Asker, reply: &wire::AdminReply) {
        self.counters.replies += 1;
        reply.append_frame(self.clients.outgoing(asker.connection), asker.correlation);
    }

    /// Answers a read; the place is the position and the term.
    pub(crate) fn reply_applied(
        &mut self,
        asker: Asker,
        (position, term): (wire::Position, Term),
        outcome: Applied<'_>,
    ) {
        self.counters.replies += 1;
        self.counters.reads += 1;
        let out = self.clients.outgoing(asker.connection);
        wire::ReplyRef { position, outcome, term }.append_frame(out, asker.correlation);
    }
}

/// Where the answers of applied requests go: the part of [`Io`] that may change while the WAL's bytes are borrowed.
pub(crate) struct Replies<'a> {
    pub(crate) clients: &'a mut Clients,
    pub(crate) counters: &'a mut Counters,
    pub(crate) metrics: &'a mut Recorder,
    /// Of the group.
    pub(crate) tally: &'a mut Tally,
    pub(crate) group: GroupId,
    pub(crate) now_us: u64,
}

impl Replies<'_> {
    /// Answers a write that was applied; the place is the position and the term of the entry there.
    pub(crate) fn applied(&mut self, asker: Asker, (position, term): (wire::Position, Term), outcome: Applied<'_>) {
        self.counters.replies += 1;
        let out = self.clients.outgoing(asker.connection);
        wire::ReplyRef { position, outcome, term }.append_frame(out, asker.correlation);
    }

    /// An entry was applied; `proposed_us`: when it was proposed, if this replica did and still leads.
    pub(crate) fn entry_applied(&mut self, proposed_us: Option<u64>) {
        self.tally.applied += 1;
        self.metrics.tally.applied += 1;
        if let Some(proposed_us) = proposed_us {
            self.metrics.latencies.commit.record(self.now_us.saturating_sub(proposed_us));
        }
    }

    /// Answers a request whose entry was replaced by another leader's: it certainly did not happen.
    pub(crate) fn lost(&mut self, asker: Asker, replaced_by: EntryId) {
        self.counters.replies += 1;
        self.tally.reject(Rejection::Replaced);
        self.metrics.tally.reject(Rejection::Replaced);
        let position = wire::Position { group: self.group.0, index: replaced_by.index, position: u32::MAX };
        let outcome = wire::OutcomeRef::NotLeader { group: self.group.0, leader: None };
        let out = self.clients.outgoing(asker.connection);
        wire::ReplyRef { position, outcome, term: 0 }.append_frame(out, asker.correlation);
    }
}
