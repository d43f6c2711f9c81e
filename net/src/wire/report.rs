//! What nodes tell each other once a second: how they are, and what the groups they lead look like.
//!
//! Off the data path, on the links of shard 0.
//!
//! Invariants: a frame holds at most [`REPORT_GROUPS_MAX`] groups, further ones follow in frames of their own; what is
//! said of a group is said by the node that leads it in that term.
//!
//! It is soft state: nothing breaks when frames are lost, and whoever reads it checks what it builds on.

use super::archive::{self, WireError};
use crate::frame::{self, FrameKind};
use crate::limits::{ADDRESS_BYTES_MAX, TOPOLOGY_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};

/// Groups in one frame at most.
pub const REPORT_GROUPS_MAX: usize = 1_024;

/// One group, as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct ReportedGroup {
    /// The group.
    pub group: u32,
    /// The leader's term.
    pub term: u64,
    /// Epoch of the topology the leader acts on.
    pub epoch: u64,
    /// Members with a vote, by the last configuration of the log.
    pub voters: Vec<u64>,
    /// Those that have one until a change is over.
    pub outgoing: Vec<u64>,
    /// Members without a vote.
    pub learners: Vec<u64>,
    /// Index of the entry that brought this configuration; 0: it is older than the log.
    pub membership_index: u64,
    /// Members that have not caught up with the leader.
    pub behind: Vec<u64>,
    /// Term of the last committed entry.
    pub committed_term: u64,
    /// Its index.
    pub committed_index: u64,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Report {
    /// The node.
    pub node: u64,
    /// Epoch of the topology it knows.
    pub epoch: u64,
    /// Its release.
    pub release: String,
    /// Requests per second in all its shards.
    pub requests_per_second: u64,
    /// Of those that could lead a group the ones with the highest number do.
    pub leader_priority: u32,
    /// Groups it leads, or a part of them.
    pub groups: Vec<ReportedGroup>,
    /// The text of that topology, for who may not know it; empty for others.
    pub topology: String,
    /// Where its HTTP is; empty: nowhere.
    pub http_address: String,
    /// Where its gRPC is; empty: nowhere.
    pub grpc_address: String,
}

impl Report {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::Report, 0);
        archive::append(frame.bytes(), self, usize::MAX);
        frame.finish()
    }
}

/// Reads the head of a `Report` frame.
///
/// # Errors
/// When the bytes are not one, it has too many groups, or its topology is longer than any.
pub fn view_report(bytes: &[u8]) -> Result<Report, WireError> {
    const NAME: &str = "report";
    let report = archive::access::<ArchivedReport>(bytes, NAME)?;
    let addresses = [&report.http_address, &report.grpc_address];
    if report.groups.len() > REPORT_GROUPS_MAX
        || report.topology.len() > TOPOLOGY_BYTES_MAX
        || addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX)
    {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(report, NAME)
}

/// The wish that the receiver hand a group it leads to another of its voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct TransferWish {
    /// The group.
    pub group: u32,
    /// The node that should lead it.
    pub to: u64,
}

/// Bytes of the archive of a [`TransferWish`].
pub const TRANSFER_WISH_BYTES: usize = size_of::<ArchivedTransferWish>();
const _: () = assert!(TRANSFER_WISH_BYTES == 12);

impl TransferWish {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::TransferWish, 0);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// Reads the head of a `TransferWish` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_transfer_wish(bytes: &[u8]) -> Result<TransferWish, WireError> {
    const NAME: &str = "transfer wish";
    if bytes.len() != TRANSFER_WISH_BYTES {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(archive::access::<ArchivedTransferWish>(bytes, NAME)?, NAME)
}
