//! Peer messages: what the replicas of a group tell each other.
//!
//! Data path 6b/9.
//!
//! Every head has a fixed size and decodes to a plain `Copy` value. Entries travel as the tail of an `Append` frame:
//! their records byte for byte as they are in the log, which this crate never looks into.
//!
//! Invariants: encoding appends to the caller's buffer and allocates nothing else; several frames may follow each other in
//! one buffer.
//!
//! Heartbeats are in `heartbeat.rs`. It does not know the consensus core: the engine converts.

use super::archive::{self, WireError};
use crate::frame::{self, FrameKind, FrameWriter};
use rkyv::{Archive, Deserialize, Serialize};

/// One message of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The group.
    pub group: u32,
    /// The term the message carries; see the variants of [`PeerBody`].
    pub term: u64,
    /// What it says.
    pub body: PeerBody,
}

/// The kinds of peer messages (Raft figure 2; thesis 6.4 and 9.6). `group` and `term` stand in [`PeerMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum PeerBody {
    /// Would you vote for me in `term`?
    PreVote {
        /// Term of the sender's last entry.
        last_term: u64,
        /// Index of the sender's last entry.
        last_index: u64,
    },
    /// Answer to `PreVote`.
    PreVoteResponse {
        /// Whether a vote would be given.
        granted: bool,
    },
    /// Vote for me in `term`.
    RequestVote {
        /// Term of the candidate's last entry.
        last_term: u64,
        /// Index of the candidate's last entry.
        last_index: u64,
        /// The leader asked for this election.
        forced: bool,
    },
    /// Answer to `RequestVote`.
    RequestVoteResponse {
        /// Whether the vote was given.
        granted: bool,
    },
    /// The entries after `prev`; with `count` > 0 in an `Append` frame whose tail has their records.
    AppendEntries {
        /// Term of the entry before the first.
        prev_term: u64,
        /// Its index.
        prev_index: u64,
        /// The leader's commit index.
        leader_commit: u64,
        /// How many entries follow.
        count: u32,
    },
    /// `AppendEntriesResponse` of a follower whose log matches.
    AppendAccepted {
        /// Highest index known to match, durable.
        match_index: u64,
    },
    /// `AppendEntriesResponse` of a follower that does not hold `prev`.
    AppendRejected {
        /// `prev_index` of the refused message.
        prev_index: u64,
        /// Term of the follower's entry there, or of its last.
        conflict_term: u64,
        /// First index of that term in the follower's log.
        conflict_first_index: u64,
        /// The follower's last index.
        last_index: u64,
    },
    /// The leader wants the receiver to campaign at once (thesis 3.10).
    TimeoutNow,
    /// How far must I have applied to answer reads of now? A question of a follower (thesis 6.4).
    ReadIndex {
        /// The run of the asking node's process.
        incarnation: u64,
        /// Number of the question in that run.
        question: u64,
    },
    /// Answer to `ReadIndex`.
    ReadIndexResponse {
        /// As in the question.
        incarnation: u64,
        /// As in the question.
        question: u64,
        /// So far.
        index: u64,
        /// Whether `index` is one: a quorum confirmed that the sender leads. Otherwise it does not know.
        confirmed: bool,
    },
}

/// Bytes of the archive of any [`PeerMessage`].
pub const PEER_MESSAGE_BYTES: usize = size_of::<ArchivedPeerMessage>();
const _: () = assert!(PEER_MESSAGE_BYTES == 45);

impl PeerMessage {
    /// Appends the archive.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        archive::append(out, self, 0);
    }

    /// Appends a whole `Raft` frame: a message without entries. Returns its bytes.
    #[inline]
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::Raft, 0);
        self.append_to(frame.bytes());
        frame.finish()
    }
}

/// Starts an `Append` frame: the head is written, the caller appends records to [`FrameWriter::bytes`] and calls
/// [`FrameWriter::finish`]. Dropping the writer instead takes the frame back.
#[inline]
pub fn begin_append<'a>(out: &'a mut Vec<u8>, message: &PeerMessage) -> FrameWriter<'a> {
    let mut frame = frame::begin(out, FrameKind::Append, 0);
    message.append_to(frame.bytes());
    frame.end_head();
    frame
}

/// Reads the head of a `Raft` or `Append` frame.
///
/// # Errors
/// When the bytes are not one.
#[inline]
pub fn view_peer_message(bytes: &[u8]) -> Result<PeerMessage, WireError> {
    const NAME: &str = "peer message";
    if bytes.len() != PEER_MESSAGE_BYTES {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(archive::access::<ArchivedPeerMessage>(bytes, NAME)?, NAME)
}

/// Hash of a group's state after applying everything up to an index; replicas compare theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Digest {
    /// The group.
    pub group: u32,
    /// Index of the last entry in the hash.
    pub index: u64,
    /// The hash.
    pub hash: u64,
}

/// Bytes of the archive of a [`Digest`].
pub const DIGEST_BYTES: usize = size_of::<ArchivedDigest>();
const _: () = assert!(DIGEST_BYTES == 20);

impl Digest {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::Digest, 0);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// Reads the head of a `Digest` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_digest(bytes: &[u8]) -> Result<Digest, WireError> {
    const NAME: &str = "digest";
    if bytes.len() != DIGEST_BYTES {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(archive::access::<ArchivedDigest>(bytes, NAME)?, NAME)
}

/// The head of a `Snapshot` frame: one chunk of the snapshot file of a leader (Raft 7). The chunk is the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// The group.
    pub group: u32,
    /// Term of the leader.
    pub term: u64,
    /// Term of the last entry the snapshot covers.
    pub last_term: u64,
    /// Index of that entry.
    pub last_index: u64,
    /// Where the chunk stands in the file.
    pub offset: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// Bytes of the archive of a [`SnapshotPiece`].
pub const SNAPSHOT_PIECE_BYTES: usize = size_of::<ArchivedSnapshotPiece>();
const _: () = assert!(SNAPSHOT_PIECE_BYTES == 44);

/// Starts a `Snapshot` frame: the head is written, the caller appends the chunk to [`FrameWriter::bytes`] and calls
/// [`FrameWriter::finish`].
pub fn begin_snapshot_piece<'a>(out: &'a mut Vec<u8>, piece: &SnapshotPiece) -> FrameWriter<'a> {
    let mut frame = frame::begin(out, FrameKind::Snapshot, 0);
    archive::append(frame.bytes(), piece, 0);
    frame.end_head();
    frame
}

/// Reads the head of a `Snapshot` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_snapshot_piece(bytes: &[u8]) -> Result<SnapshotPiece, WireError> {
    const NAME: &str = "snapshot piece";
    if bytes.len() != SNAPSHOT_PIECE_BYTES {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(archive::access::<ArchivedSnapshotPiece>(bytes, NAME)?, NAME)
}

/// How far the receiver of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// The group.
    pub group: u32,
    /// Term of the receiver.
    pub term: u64,
    /// Index of the last entry the snapshot covers.
    pub last_index: u64,
    /// The next chunk it wants begins here; the file's length: it has all of it; `u64::MAX`: it cannot take it now.
    pub next_offset: u64,
}

/// Bytes of the archive of a [`SnapshotAnswer`].
pub const SNAPSHOT_ANSWER_BYTES: usize = size_of::<ArchivedSnapshotAnswer>();
const _: () = assert!(SNAPSHOT_ANSWER_BYTES == 28);

impl SnapshotAnswer {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::SnapshotAnswer, 0);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// Reads the head of a `SnapshotAnswer` frame.
///
/// # Errors
/// When the bytes are not one.
pub fn view_snapshot_answer(bytes: &[u8]) -> Result<SnapshotAnswer, WireError> {
    const NAME: &str = "snapshot answer";
    if bytes.len() != SNAPSHOT_ANSWER_BYTES {
        return Err(WireError { type_name: NAME, bytes: bytes.len() });
    }
    archive::to_native(archive::access::<ArchivedSnapshotAnswer>(bytes, NAME)?, NAME)
}
