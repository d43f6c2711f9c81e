//! Heartbeats of many groups in one frame, and the answers to them.
//!
//! Off the data path of writes: what idle groups say.
//!
//! ```text
//!   leaders of a shard --Heartbeats{sent_us, [group, term, leader_commit, read_sequence]}--> the same shard of a peer
//!                     <--HeartbeatAnswers{sent_us, shield_us, [group, term, read_sequence]}--
//! ```
//!
//! Invariants: a frame holds 1 to [`HEARTBEATS_MAX`] groups, further ones follow in frames of their own; what groups have in
//! common stands once, in front of them; each record is of its group alone, as if it had come by itself.
//!
//! It gathers nothing: the engine does.

use super::archive::{self, AsVec, WireError};
use crate::frame::{self, FrameKind};
use rkyv::{
    Archive, Deserialize, Serialize,
    rancor::Source,
    ser::{Allocator, Writer},
};

/// Groups in one frame at most.
pub const HEARTBEATS_MAX: usize = 1_024;

/// The leader of a group lives; also one round of ReadIndex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Heartbeat {
    /// The group.
    pub group: u32,
    /// The leader's term.
    pub term: u64,
    /// Commit index, not above what the follower is known to hold.
    pub leader_commit: u64,
    /// The latest read round that was open.
    pub read_sequence: u64,
}

/// Heartbeats of one time, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedHeartbeats, serialize_bounds(__S: Writer + Allocator, __S::Error: Source))]
pub struct HeartbeatsRef<'a> {
    /// The leader's clock in microseconds, 0 = it has none.
    pub sent_us: u64,
    /// One for each group.
    #[rkyv(with = AsVec, omit_bounds)]
    pub groups: &'a [Heartbeat],
}

/// The same, as it is read in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[rkyv(derive(Debug))]
pub struct Heartbeats {
    /// See [`HeartbeatsRef::sent_us`].
    pub sent_us: u64,
    /// See [`HeartbeatsRef::groups`].
    pub groups: Vec<Heartbeat>,
}

/// Answer to the heartbeat of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct HeartbeatAnswer {
    /// The group.
    pub group: u32,
    /// The answering replica's term.
    pub term: u64,
    /// The sequence of the heartbeat, 0 when it was of a past term.
    pub read_sequence: u64,
}

/// Answers to heartbeats of one time, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedHeartbeatAnswers, serialize_bounds(__S: Writer + Allocator, __S::Error: Source))]
pub struct HeartbeatAnswersRef<'a> {
    /// The time in the heartbeats, 0 when they were of a past term.
    pub sent_us: u64,
    /// So long, by its own clock, the follower votes for nobody since it heard them.
    pub shield_us: u64,
    /// One for each group.
    #[rkyv(with = AsVec, omit_bounds)]
    pub groups: &'a [HeartbeatAnswer],
}

/// The same, as it is read in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[rkyv(derive(Debug))]
pub struct HeartbeatAnswers {
    /// See [`HeartbeatAnswersRef::sent_us`].
    pub sent_us: u64,
    /// See [`HeartbeatAnswersRef::shield_us`].
    pub shield_us: u64,
    /// See [`HeartbeatAnswersRef::groups`].
    pub groups: Vec<HeartbeatAnswer>,
}

/// Bytes of one group in a frame, and of what stands behind them.
pub const HEARTBEAT_BYTES: usize = size_of::<ArchivedHeartbeat>();
/// See [`HEARTBEAT_BYTES`].
pub const HEARTBEAT_ANSWER_BYTES: usize = size_of::<ArchivedHeartbeatAnswer>();
const _: () = assert!(HEARTBEAT_BYTES == 28 && size_of::<ArchivedHeartbeats>() == 16);
const _: () = assert!(HEARTBEAT_ANSWER_BYTES == 20 && size_of::<ArchivedHeartbeatAnswers>() == 24);

impl HeartbeatsRef<'_> {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::Heartbeats, 0);
        archive::append(frame.bytes(), self, self.groups.len());
        frame.finish()
    }
}

impl HeartbeatAnswersRef<'_> {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
        let mut frame = frame::begin(out, FrameKind::HeartbeatAnswers, 0);
        archive::append(frame.bytes(), self, self.groups.len());
        frame.finish()
    }
}

impl ArchivedHeartbeats {
    /// The heartbeats in the order in which they were written.
    pub fn heartbeats(&self) -> impl ExactSizeIterator<Item = Heartbeat> + '_ {
        self.groups.iter().map(|heartbeat| Heartbeat {
            group: heartbeat.group.to_native(),
            term: heartbeat.term.to_native(),
            leader_commit: heartbeat.leader_commit.to_native(),
            read_sequence: heartbeat.read_sequence.to_native(),
        })
    }
}

impl ArchivedHeartbeatAnswers {
    /// The answers in the order in which they were written.
    pub fn answers(&self) -> impl ExactSizeIterator<Item = HeartbeatAnswer> + '_ {
        self.groups.iter().map(|answer| HeartbeatAnswer {
            group: answer.group.to_native(),
            term: answer.term.to_native(),
            read_sequence: answer.read_sequence.to_native(),
        })
    }
}

/// Reads the head of a `Heartbeats` frame.
///
/// # Errors
/// When the bytes are not one, or it has no group or too many.
pub fn view_heartbeats(bytes: &[u8]) -> Result<&ArchivedHeartbeats, WireError> {
    const NAME: &str = "list of heartbeats";
    let view = archive::access::<ArchivedHeartbeats>(bytes, NAME)?;
    archive::check_bounds((1..=HEARTBEATS_MAX).contains(&view.groups.len()), bytes, NAME)?;
    Ok(view)
}

/// Reads the head of a `HeartbeatAnswers` frame.
///
/// # Errors
/// When the bytes are not one, or it has no group or too many.
pub fn view_heartbeat_answers(bytes: &[u8]) -> Result<&ArchivedHeartbeatAnswers, WireError> {
    const NAME: &str = "list of answers to heartbeats";
    let view = archive::access::<ArchivedHeartbeatAnswers>(bytes, NAME)?;
    archive::check_bounds((1..=HEARTBEATS_MAX).contains(&view.groups.len()), bytes, NAME)?;
    Ok(view)
}
