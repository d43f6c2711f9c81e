//! The messages between the cores of one group, after the Raft thesis, and the values they carry.
//!
//! Data path 5/9: what leaves a leader and what comes back.
//!
//! Relations: a message is `Copy` and names entries, it never holds a payload; `prev.index + count` is the last entry an
//! `AppendEntries` names; a granted `PreVoteResponse` carries the term that was asked for, every other response the
//! current term of its sender.
//!
//! Deliberately absent: encoding (the wire is `net`'s), and `InstallSnapshot`: a host streams a snapshot beside the
//! messages and tells the core when it is whole (`RaftCore::install_snapshot`).

use crate::{
    ids::{EntryId, Index, NodeId, Term},
    membership::Membership,
};
use core::fmt;

/// What must survive a crash besides the log (Raft figure 2, persistent state).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// Latest term this node has seen.
    pub current_term: Term,
    /// Who got this node's vote in `current_term`.
    pub voted_for: Option<NodeId>,
}

/// All that the core knows of an entry besides its index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryMeta {
    /// Term of the entry.
    pub term: Term,
    /// Bytes of its record, header included. Counted for windows and bounds only.
    pub length: u32,
}

/// An `AppendEntries` with what the host found in its records.
#[derive(Clone, Copy, Debug)]
pub struct IncomingEntries<'a> {
    /// The leader's term.
    pub term: Term,
    /// The entry before the first one.
    pub prev: EntryId,
    /// The leader's commit index.
    pub leader_commit: Index,
    /// The entries after `prev`.
    pub entries: &'a [EntryMeta],
    /// The configurations that some of them bring, by index.
    pub changes: &'a [(Index, Membership)],
}

/// One message from one core of a group to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Would you vote for me in `term`? Changes nothing at the receiver (thesis 9.6).
    PreVote {
        /// The term the sender would campaign in: its current term + 1.
        term: Term,
        /// The sender's last entry.
        last: EntryId,
    },
    /// Answer to `PreVote`.
    PreVoteResponse {
        /// Granted: the term that was asked for. Refused: the sender's current term.
        term: Term,
        /// Whether a vote would be given.
        granted: bool,
    },
    /// Vote for me in `term` (Raft 5.2, 5.4.1).
    RequestVote {
        /// The candidate's term.
        term: Term,
        /// The candidate's last entry.
        last: EntryId,
        /// The leader asked for this election, so that nobody holds on to it (thesis 3.10, 4.2.3).
        forced: bool,
    },
    /// Answer to `RequestVote`.
    RequestVoteResponse {
        /// Current term of the voter.
        term: Term,
        /// Whether the vote was given in that term.
        granted: bool,
    },
    /// The entries after `prev`, whose records the host adds (Raft 5.3). With `count` 0 it only asks about `prev`.
    AppendEntries {
        /// The leader's term.
        term: Term,
        /// The entry before the first one named.
        prev: EntryId,
        /// The leader's commit index.
        leader_commit: Index,
        /// How many entries follow `prev`.
        count: u32,
    },
    /// Answer to `AppendEntries`.
    AppendEntriesResponse {
        /// Current term of the follower.
        term: Term,
        /// What became of it.
        result: AppendResult,
    },
    /// The leader lives; also one round of ReadIndex (thesis 6.4).
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Commit index, not above what the follower is known to hold: there is no `prev` to check it by.
        leader_commit: Index,
        /// The latest read round that was open when this was sent.
        read_sequence: u64,
        /// The leader's clock when this was made; 0: it has none.
        sent_us: u64,
    },
    /// Answer to `Heartbeat`.
    HeartbeatResponse {
        /// Current term of the follower.
        term: Term,
        /// The sequence of the heartbeat; 0 when it was of a past term.
        read_sequence: u64,
        /// The time in the heartbeat; 0 when it was of a past term.
        sent_us: u64,
        /// So long, by its own clock, the follower votes for nobody since it heard the heartbeat.
        shield_us: u64,
    },
    /// The leader wants the receiver to lead: campaign at once (thesis 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
}

impl Message {
    /// The term the message carries.
    #[must_use]
    pub const fn term(&self) -> Term {
        match *self {
            Self::PreVote { term, .. }
            | Self::PreVoteResponse { term, .. }
            | Self::RequestVote { term, .. }
            | Self::RequestVoteResponse { term, .. }
            | Self::AppendEntries { term, .. }
            | Self::AppendEntriesResponse { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatResponse { term, .. }
            | Self::TimeoutNow { term } => term,
        }
    }
}

/// What a follower did with an `AppendEntries`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to here and is durable up to here.
    Accepted {
        /// Highest index known to match.
        match_index: Index,
    },
    /// The follower does not hold `prev`. The other fields let the leader skip whole terms (Raft 5.3, end).
    Rejected {
        /// `prev.index` of the refused message, so that the leader can tell stale answers.
        prev_index: Index,
        /// Term of the follower's entry at `prev_index`, or of its last entry when the log is shorter.
        conflict_term: Term,
        /// First index of that term in the follower's log.
        conflict_first_index: Index,
        /// The follower's last index.
        last_index: Index,
    },
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = |granted| if granted { "granted" } else { "refused" };
        match *self {
            Self::PreVote { term, last } => write!(formatter, "PreVote term={term} last={last}"),
            Self::PreVoteResponse { term, granted } => {
                write!(formatter, "PreVoteResponse term={term} {}", answer(granted))
            }
            Self::RequestVote { term, last, forced } => {
                let forced = if forced { " forced" } else { "" };
                write!(formatter, "RequestVote term={term} last={last}{forced}")
            }
            Self::RequestVoteResponse { term, granted } => {
                write!(formatter, "RequestVoteResponse term={term} {}", answer(granted))
            }
            Self::AppendEntries { term, prev, leader_commit, count } => {
                write!(formatter, "AppendEntries term={term} prev={prev} commit={leader_commit} count={count}")
            }
            Self::AppendEntriesResponse { term, result } => {
                write!(formatter, "AppendEntriesResponse term={term} {result}")
            }
            Self::Heartbeat { term, leader_commit, read_sequence, .. } => {
                write!(formatter, "Heartbeat term={term} commit={leader_commit} read={read_sequence}")
            }
            Self::HeartbeatResponse { term, read_sequence, .. } => {
                write!(formatter, "HeartbeatResponse term={term} read={read_sequence}")
            }
            Self::TimeoutNow { term } => write!(formatter, "TimeoutNow term={term}"),
        }
    }
}

impl fmt::Display for AppendResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Accepted { match_index } => write!(formatter, "accepted match={match_index}"),
            Self::Rejected { prev_index, conflict_term, conflict_first_index, last_index } => write!(
                formatter,
                "rejected prev={prev_index} conflict={conflict_term}.{conflict_first_index} last={last_index}"
            ),
        }
    }
}
