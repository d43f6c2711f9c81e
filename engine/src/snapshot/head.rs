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
use super::members::{MEMBERS_BYTES_MAX, Members, MembersError, MembersProblem};
use crate::state_machine::SnapshotHead;

/// Bytes before the members.
const FIXED_BYTES: usize = 48;
const _: () = assert!(HEADER_BYTES + FIXED_BYTES + MEMBERS_BYTES_MAX <= BLOCK_BYTES);

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
        self.members.append(out);
    }

    /// Reads the payload of a head whose header names `last`.
    pub(super) fn read(payload: &[u8], last: EntryId) -> Result<Self, HeadProblem> {
        let length = HeadProblem::Length { bytes: payload.len() };
        let (fixed, members) = payload.split_at_checked(FIXED_BYTES).ok_or(length)?;
        let members = Members::read(members).map_err(|problem| match problem {
            MembersProblem::Length => length,
            MembersProblem::Members(error) => error.into(),
        })?;
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
            members,
        })
    }
}
