//! The payload of a snapshot's first chunk: what the snapshot is of, where it belongs, who the members are.
//!
//! Off the data path.
//!
//! ```text
//!  0          4             8               16       24           32          40              48       52         56
//!  | identity | chunk_bytes | limits_digest | source | state_hash | key_count | session_count | voters | outgoing | learners |
//!  60
//!  | ids of the voters, of the outgoing voters, of the learners: u64 each |
//! ```
//! Invariants: it fits in one block with the header before it; each list of members is sorted and without repetition,
//! there is a voter, no voter is a learner.
//! The last entry stands in the header of every chunk.

use ringraft_raft::{EntryId, NodeId};

use super::chunk::{BLOCK_BYTES, ChunkBytes, HEADER_BYTES, read_u32, read_u64};
use crate::state_machine::SnapshotHead;

/// Members of each kind at most.
pub const MEMBERS_MAX: usize = 128;

const FIXED_BYTES: usize = 60;
const _: () = assert!(HEADER_BYTES + FIXED_BYTES + 3 * MEMBERS_MAX * 8 <= BLOCK_BYTES);

/// The members of a group as of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
}

/// Why lists are not those of a group's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Too many.
    #[error("more than {MEMBERS_MAX} members of one kind")]
    TooMany,
    /// Out of order, or one twice.
    #[error("members that are not sorted or come twice")]
    Order,
    /// Nobody has a vote.
    #[error("no voter")]
    NoVoter,
    /// Both a voter and a learner.
    #[error("node {0} is a voter and a learner")]
    VoterAndLearner(u64),
}

impl Members {
    /// Voters, the outgoing voters of a joint configuration, learners; each sorted.
    ///
    /// # Errors
    /// When no group has such members.
    pub fn new(voters: Vec<NodeId>, outgoing: Vec<NodeId>, learners: Vec<NodeId>) -> Result<Self, MembersError> {
        for list in [&voters, &outgoing, &learners] {
            if list.len() > MEMBERS_MAX {
                return Err(MembersError::TooMany);
            }
            if !list.is_sorted_by(|left, right| left < right) {
                return Err(MembersError::Order);
            }
        }
        if voters.is_empty() {
            return Err(MembersError::NoVoter);
        }
        if let Some(node) = learners.iter().find(|node| voters.contains(node) || outgoing.contains(node)) {
            return Err(MembersError::VoterAndLearner(node.0));
        }
        Ok(Self { voters, outgoing, learners })
    }

    /// The (incoming) voters.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The outgoing voters of a joint configuration; empty otherwise.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// The learners.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }
}

/// What a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// Checksum of the cluster's identity: protects against files of another cluster.
    pub identity: u32,
    /// Digest of the limits that decide what a log yields.
    pub limits_digest: u64,
    /// The node that took it: two nodes' snapshots of the same entry have their bytes in another order.
    pub source: NodeId,
    /// Bytes of a full data chunk.
    pub chunk_bytes: ChunkBytes,
    /// What the state must be when it is loaded.
    pub state: SnapshotHead,
    /// The members as of the last entry.
    pub members: Members,
}

/// What cannot be in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadProblem {
    /// Not as many bytes as its counts say.
    #[error("it has {bytes} bytes")]
    Length {
        /// Those there are.
        bytes: usize,
    },
    /// No chunk has this size.
    #[error("chunks of {0} bytes")]
    ChunkBytes(u32),
    /// These are no members.
    #[error(transparent)]
    Members(#[from] MembersError),
}

impl FileHead {
    /// Appends the payload.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_le_bytes());
        out.extend_from_slice(&(self.chunk_bytes.get() as u32).to_le_bytes());
        let SnapshotHead { last: _, state_hash, key_count, session_count } = self.state;
        for word in [self.limits_digest, self.source.0, state_hash, key_count, session_count] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let lists = [&self.members.voters, &self.members.outgoing, &self.members.learners];
        for list in lists {
            out.extend_from_slice(&(list.len() as u32).to_le_bytes());
        }
        for node in lists.into_iter().flatten() {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
    }

    /// Reads the payload of a head whose header names `last`.
    pub(super) fn read(payload: &[u8], last: EntryId) -> Result<Self, HeadProblem> {
        let length = HeadProblem::Length { bytes: payload.len() };
        let (fixed, mut ids) = payload.split_at_checked(FIXED_BYTES).ok_or(length)?;
        let mut list = |at: usize| -> Result<Vec<NodeId>, HeadProblem> {
            let count = read_u32(fixed, at) as usize;
            if count > MEMBERS_MAX {
                return Err(MembersError::TooMany.into());
            }
            let (own, rest) = ids.split_at_checked(count * 8).ok_or(length)?;
            ids = rest;
            Ok(own.chunks_exact(8).map(|id| NodeId(read_u64(id, 0))).collect())
        };
        let (voters, outgoing, learners) = (list(48)?, list(52)?, list(56)?);
        if !ids.is_empty() {
            return Err(length);
        }
        let chunk_bytes = read_u32(fixed, 4);
        Ok(Self {
            identity: read_u32(fixed, 0),
            limits_digest: read_u64(fixed, 8),
            source: NodeId(read_u64(fixed, 16)),
            chunk_bytes: ChunkBytes::new(chunk_bytes).ok_or(HeadProblem::ChunkBytes(chunk_bytes))?,
            state: SnapshotHead {
                last,
                state_hash: read_u64(fixed, 24),
                key_count: read_u64(fixed, 32),
                session_count: read_u64(fixed, 40),
            },
            members: Members::new(voters, outgoing, learners)?,
        })
    }
}
