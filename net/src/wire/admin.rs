//! Admin messages: what an operator asks of the leader of a group, and the answer.
//!
//! Off the data path.
//!
//! Invariants: a request names its group and goes to the shard that hosts it; it is answered once, with what became of it
//! or with a code that programs understand and a sentence for people; asking again is always safe.
//!
//! It does not decide who may ask: whoever reaches the port may.

use super::archive::{self, WireError};
use crate::frame::{self, FrameKind};
use rkyv::{Archive, Deserialize, Serialize};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum AdminRequest {
    /// The leader of the group hands leadership over. Answered when the new leader is known, or an error is.
    Transfer {
        /// The group.
        group: u32,
        /// The node that is to lead; 0: the voter that holds most of the log among those that can be reached.
        to: u64,
    },
}

/// What became of an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum AdminReply {
    /// The node that was asked for leads the group, from now on or already.
    Transferred {
        /// The group.
        group: u32,
        /// Its leader.
        leader: u64,
        /// The leader's term.
        term: u64,
    },
    /// Nothing was done: this replica does not lead the group.
    NotLeader {
        /// The group.
        group: u32,
        /// Who does, as far as known.
        leader: Option<u64>,
    },
    /// Nothing was done: this shard does not host the group.
    Moved {
        /// The group.
        group: u32,
        /// The shard that hosts it, on every node.
        shard: u16,
    },
    /// It was not done.
    Refused {
        /// Why, for programs.
        code: AdminRefusal,
        /// Why, for people.
        message: String,
    },
}

/// Why an [`AdminRequest`] was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum AdminRefusal {
    /// The cluster has no such group.
    UnknownGroup = 1,
    /// The cluster has no such node.
    UnknownNode = 2,
    /// The node has no vote in the group.
    NotAVoter = 3,
    /// The leader has no connection to the node, or to no other voter.
    Unreachable = 4,
    /// Leadership is being handed over already.
    Pending = 5,
    /// It did not happen in time; the asked node leads on.
    TimedOut = 6,
    /// Another node than the one that was asked for became the leader.
    OtherLeader = 7,
}

impl AdminRefusal {
    /// The same request may be done a little later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Pending | Self::TimedOut | Self::OtherLeader)
    }
}

impl AdminRequest {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::Admin, correlation);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

impl AdminReply {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::AdminReply, correlation);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// Reads the head of an `Admin` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_admin_request(bytes: &[u8]) -> Result<AdminRequest, WireError> {
    const NAME: &str = "admin request";
    archive::to_native(archive::access::<ArchivedAdminRequest>(bytes, NAME)?, NAME)
}

/// Reads the head of an `AdminReply` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_admin_reply(bytes: &[u8]) -> Result<AdminReply, WireError> {
    const NAME: &str = "admin reply";
    archive::to_native(archive::access::<ArchivedAdminReply>(bytes, NAME)?, NAME)
}
