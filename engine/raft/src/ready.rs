//! `Ready`: everything the host has to do after it gave the core an event, and the values that go with it.
//!
//! Data path 5/9: the only way out of the core.
//!
//! ```text
//!   messages      may go at once ----------------------------------> network
//!   hard_state --> WAL --+
//!   (records)  --> WAL --+-- durable --> after_flush --------------> network
//!   commit_index --> apply --> reads whose index is applied -------> replies
//! ```
//!
//! Relations: `after_flush` waits for `hard_state` and for every record accepted or proposed before this `Ready`, in the
//! order of the WAL; at most one `AppendEntriesResponse` is in it.
//!
//! Deliberately absent: the records; the host has them already when it steps or proposes.

use crate::{
    ids::{EntryId, Index, NodeId, Term},
    membership::Membership,
    message::{HardState, Message},
};
use alloc::vec::Vec;
use core::fmt;

/// Reusable output of `RaftCore::ready`, which clears it first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// To persist, in WAL order with the records around it.
    pub hard_state: Option<HardState>,
    /// The empty entry of a new leader: append an entry record of this id without requests, before any proposal.
    /// The core counts it with `NOOP_LENGTH` bytes.
    pub noop: Option<EntryId>,
    /// May go at once. An `AppendEntries` names entries whose records the host adds.
    pub messages: Vec<(NodeId, Message)>,
    /// Only when `hard_state` and all records so far are durable; at once when nothing is waiting for a flush.
    pub after_flush: Vec<(NodeId, Message)>,
    /// `Some` when it advanced: entries up to it may be applied.
    pub commit_index: Option<Index>,
    /// Confirmed read rounds in order: every read with the context may be served once `index` is applied.
    pub reads: Vec<ReadReady>,
    /// Leadership was lost: reads that were not confirmed up to and in this `Ready` never will be.
    pub reads_failed: bool,
    /// Members that need what the log no longer holds: the host sends each its newest snapshot, and says `snapshot_sent`
    /// or `snapshot_failed` in the end.
    pub snapshots: Vec<NodeId>,
    /// The next configuration of a joint one that is committed: the leader's host proposes it.
    pub membership_due: Option<Membership>,
    /// `Some` when role, leader or term changed: the new ones.
    pub role: Option<(Role, Option<NodeId>, Term)>,
}

impl Ready {
    /// An empty value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.hard_state = None;
        self.noop = None;
        self.messages.clear();
        self.after_flush.clear();
        self.commit_index = None;
        self.reads.clear();
        self.reads_failed = false;
        self.snapshots.clear();
        self.membership_due = None;
        self.role = None;
    }

    /// Whether there is nothing to do but to send.
    #[must_use]
    pub fn has_only_messages(&self) -> bool {
        self.hard_state.is_none()
            && self.noop.is_none()
            && self.commit_index.is_none()
            && self.reads.is_empty()
            && !self.reads_failed
            && self.snapshots.is_empty()
            && self.membership_due.is_none()
            && self.role.is_none()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.has_only_messages() && self.messages.is_empty() && self.after_flush.is_empty()
    }
}

/// The part a replica plays at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win an election (thesis 9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// What a leader does with a follower at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProgressState {
    /// Looks for the point where the logs meet: one message at a time.
    Probe,
    /// Streams within the window.
    Replicate,
    /// Waits for a snapshot to be installed.
    Snapshot,
}

/// The name of a read round, made by a leader and never reused (etcd #20418).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadContext {
    /// Term of the leader that made it.
    pub term: Term,
    /// Counts the rounds of that leader.
    pub sequence: u64,
}

/// A confirmed read round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadReady {
    /// Which round.
    pub context: ReadContext,
    /// Reads of the round see at least every entry up to here.
    pub index: Index,
}

/// What `RaftCore::step_append` did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum AppendOutcome {
    /// Nothing was taken: stale, malformed or not continuing this log.
    Ignored,
    /// The host appends the records of `entries[skip..]` right away.
    Accepted {
        /// Leading entries that were held already.
        skip: usize,
        /// Own entries from this index on were replaced; always followed by at least one new entry.
        truncate_from: Option<Index>,
    },
}

/// Why a proposal was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProposeError {
    /// Only the leader proposes.
    NotLeader {
        /// The leader, when one is known.
        leader: Option<NodeId>,
    },
    /// `uncommitted_bytes_max` is reached; try again when something was committed.
    Overloaded,
    /// Leadership is being handed over; it goes on here or there within an election timeout.
    Transferring,
}

impl ProposeError {
    /// Whether the same node may take it a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Overloaded | Self::Transferring)
    }

    /// Whether the node must stop: never.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        false
    }
}

impl fmt::Display for ProposeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(formatter, "not the leader, {leader} is"),
            Self::NotLeader { leader: None } => formatter.write_str("not the leader, and none is known"),
            Self::Overloaded => formatter.write_str("too many uncommitted bytes"),
            Self::Transferring => formatter.write_str("leadership is being handed over"),
        }
    }
}

impl core::error::Error for ProposeError {}

/// Why a change of membership was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeError {
    /// Only the leader proposes, and not while it hands over.
    NotLeader {
        /// The leader, when one is known.
        leader: Option<NodeId>,
    },
    /// The change before is not committed yet, or nothing of this term is.
    Pending,
    /// The configuration may not follow the current one.
    NotAllowed,
}

impl ChangeError {
    /// Whether the same node may take it a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Pending)
    }

    /// Whether the node must stop: never.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        false
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(formatter, "not the leader, {leader} is"),
            Self::NotLeader { leader: None } => formatter.write_str("not the leader, and none is known"),
            Self::Pending => formatter.write_str("an earlier change of members is not finished yet"),
            Self::NotAllowed => formatter.write_str("voters change only through a joint configuration, one at a time"),
        }
    }
}

impl core::error::Error for ChangeError {}

/// Why leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferError {
    /// Only the leader hands over.
    NotLeader {
        /// The leader, when one is known.
        leader: Option<NodeId>,
    },
    /// The target has no vote here, or is this node.
    NotAVoter,
    /// It is being handed over already.
    Pending,
}

impl fmt::Display for TransferError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(formatter, "not the leader, {leader} is"),
            Self::NotLeader { leader: None } => formatter.write_str("not the leader, and none is known"),
            Self::NotAVoter => formatter.write_str("the target is no other voter of the group"),
            Self::Pending => formatter.write_str("leadership is being handed over already"),
        }
    }
}

impl core::error::Error for TransferError {}

/// What a replica did with a whole snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InstallOutcome {
    /// No leader can have sent it: forget it.
    Ignored,
    /// The log holds all of it already: forget the snapshot, keep log and state.
    Held,
    /// The log was replaced: state and log now begin at the snapshot; the host voids the old one with a mark.
    Replaced,
}

/// Why a read was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadError {
    /// Only the leader answers reads.
    NotLeader {
        /// The leader, when one is known.
        leader: Option<NodeId>,
    },
    /// The leader has not committed an entry of its own term yet, so it does not know the commit index (thesis 6.4).
    NotReady,
}

impl ReadError {
    /// Whether the same node may take it a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NotReady)
    }

    /// Whether the node must stop: never.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        false
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(formatter, "not the leader, {leader} is"),
            Self::NotLeader { leader: None } => formatter.write_str("not the leader, and none is known"),
            Self::NotReady => formatter.write_str("the leader has not committed in its own term yet"),
        }
    }
}

impl core::error::Error for ReadError {}
