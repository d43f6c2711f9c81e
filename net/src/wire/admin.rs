//! Admin messages: what an operator asks of the leader of a group, and the answer.
//!
//! Off the data path.
//!
//! Invariants: a request names its group and goes to the shard that hosts it; it is answered once, with what became of it
//! or with a code that programs understand and a sentence for people; asking again is always safe; lists and texts are
//! bounded (`limits`) before anything is copied out of a frame.
//!
//! It does not decide who may ask: whoever reaches the port may.

use super::archive::{self, WireError};
use crate::frame::{self, FrameKind};
use crate::limits::{ADDRESS_BYTES_MAX, SETTINGS_MAX, SHARDS_MAX, TEXT_BYTES_MAX, TOPOLOGY_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum AdminRequest {
    /// The leader of the group hands leadership over. Answered when the new leader is known, or an error is.
    Transfer {
        /// The group.
        group: u32,
        /// The node that is to lead; 0: the voter that holds most of the log among those that can be reached.
        to: u64,
    },
    /// The asked replica takes a snapshot. Answered when it is durable, at once if nothing is new.
    Snapshot {
        /// The group.
        group: u32,
    },
    /// The topology as the asked node knows it.
    Topology,
    /// A node joins. Goes to the leader of group 0, as the next two; answered when it is committed.
    AddNode {
        /// Its id.
        node: u64,
        /// Addresses of its shards, in order.
        addresses: Vec<String>,
        /// Identity of its data directory; 0: not known.
        instance: u64,
    },
    /// A node leaves: what it holds is moved away, then it is deleted.
    RemoveNode {
        /// Its id.
        node: u64,
    },
    /// A node takes the place of another one, which leaves.
    ReplaceNode {
        /// The node that leaves.
        old: u64,
        /// The new one's id.
        node: u64,
        /// Addresses of its shards, in order.
        addresses: Vec<String>,
        /// Identity of its data directory; 0: not known.
        instance: u64,
    },
    /// The asked node reads its configuration again.
    Reload,
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
    /// A snapshot is durable.
    SnapshotTaken {
        /// The group.
        group: u32,
        /// The last entry it covers.
        index: u64,
    },
    /// The topology, with what was asked for.
    Topology {
        /// Its text, see `engine/src/topology`.
        text: String,
        /// The settings all nodes share: key and value.
        shared: Vec<(String, String)>,
    },
    /// The configuration was read again.
    Reloaded {
        /// Settings that have new values from now on: key and value.
        changed: Vec<(String, String)>,
        /// Settings that keep their values until a restart.
        restart: Vec<String>,
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
    /// The nodes or the topology do not admit it: the message says why and what to do.
    NotAllowed = 8,
    /// It failed on this node; the message says why.
    Failed = 9,
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
        archive::append(frame.bytes(), self, usize::MAX);
        frame.finish()
    }
}

impl AdminReply {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::AdminReply, correlation);
        archive::append(frame.bytes(), self, usize::MAX);
        frame.finish()
    }
}

/// Reads the head of an `Admin` frame.
///
/// # Errors
/// When the bytes are not one, or are out of its bounds.
pub fn view_admin_request(bytes: &[u8]) -> Result<AdminRequest, WireError> {
    const NAME: &str = "admin request";
    let archived = archive::access::<ArchivedAdminRequest>(bytes, NAME)?;
    archive::check_bounds(archived.is_bounded(), bytes, NAME)?;
    archive::to_native(archived, NAME)
}

/// Reads the head of an `AdminReply` frame.
///
/// # Errors
/// When the bytes are not one, or are out of its bounds.
pub fn view_admin_reply(bytes: &[u8]) -> Result<AdminReply, WireError> {
    const NAME: &str = "admin reply";
    let archived = archive::access::<ArchivedAdminReply>(bytes, NAME)?;
    archive::check_bounds(archived.is_bounded(), bytes, NAME)?;
    archive::to_native(archived, NAME)
}

impl ArchivedAdminRequest {
    fn is_bounded(&self) -> bool {
        match self {
            Self::AddNode { addresses, .. } | Self::ReplaceNode { addresses, .. } => {
                addresses.len() <= SHARDS_MAX && addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
            }
            Self::Transfer { .. } | Self::Snapshot { .. } | Self::Topology | Self::RemoveNode { .. } | Self::Reload => {
                true
            }
        }
    }
}

impl ArchivedAdminReply {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Refused { message, .. } => message.len() <= TEXT_BYTES_MAX,
            Self::Topology { text, shared } => {
                text.len() <= TOPOLOGY_BYTES_MAX
                    && shared.len() <= SETTINGS_MAX
                    && shared.iter().all(|pair| pair.0.len() <= TEXT_BYTES_MAX && pair.1.len() <= TEXT_BYTES_MAX)
            }
            Self::Reloaded { changed, restart } => {
                changed.len() <= SETTINGS_MAX
                    && restart.len() <= SETTINGS_MAX
                    && changed.iter().all(|pair| pair.0.len() <= TEXT_BYTES_MAX && pair.1.len() <= TEXT_BYTES_MAX)
                    && restart.iter().all(|key| key.len() <= TEXT_BYTES_MAX)
            }
            Self::Transferred { .. } | Self::NotLeader { .. } | Self::Moved { .. } | Self::SnapshotTaken { .. } => true,
        }
    }
}
