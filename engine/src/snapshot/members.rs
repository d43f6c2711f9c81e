//! The members of a group as bytes: in the head of a snapshot, and in the entries that change them.
//!
//! Off the data path.
//!
//! ```text
//!  0        4          8          12
//!  | voters | outgoing | learners | ids of the voters, of the outgoing voters, of the learners: u64 each |
//! ```
//! Invariants: each list is sorted and without repetition, there is a voter, no voter is a learner; reading never panics,
//! and what was written is read unchanged. It does not say which members may follow which: the core does.

use ringraft_raft::NodeId;

use super::chunk::{read_u32, read_u64};

/// Members of each kind at most.
pub const MEMBERS_MAX: usize = 128;

/// Bytes of the three counts.
const COUNTS_BYTES: usize = 12;
/// Bytes of all members at most.
pub(super) const MEMBERS_BYTES_MAX: usize = COUNTS_BYTES + 3 * MEMBERS_MAX * 8;

/// The members of a group.
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

/// Why bytes are not members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersProblem {
    /// Not as many bytes as the counts say.
    #[error("the length does not fit the counts")]
    Length,
    /// These are no members.
    #[error(transparent)]
    Members(#[from] MembersError),
}

impl Members {
    /// Appends the bytes.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let lists = [&self.voters, &self.outgoing, &self.learners];
        for list in lists {
            out.extend_from_slice(&(list.len() as u32).to_le_bytes());
        }
        for node in lists.into_iter().flatten() {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
    }

    /// Reads bytes that hold members and nothing else.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, MembersProblem> {
        let (counts, mut ids) = bytes.split_at_checked(COUNTS_BYTES).ok_or(MembersProblem::Length)?;
        let mut list = |at: usize| -> Result<Vec<NodeId>, MembersProblem> {
            let count = read_u32(counts, at) as usize;
            if count > MEMBERS_MAX {
                return Err(MembersError::TooMany.into());
            }
            let (own, rest) = ids.split_at_checked(count * 8).ok_or(MembersProblem::Length)?;
            ids = rest;
            Ok(own.chunks_exact(8).map(|id| NodeId(read_u64(id, 0))).collect())
        };
        let (voters, outgoing, learners) = (list(0)?, list(4)?, list(8)?);
        if !ids.is_empty() {
            return Err(MembersProblem::Length);
        }
        Ok(Self::new(voters, outgoing, learners)?)
    }
}
