//! Watches: a client asks for the changes of a group from an index on, and gets them as the replica applies them.
//!
//! Off the data path.
//! Invariants: a watch is named by the correlation of its `Watch` frame, on its connection alone; of its `Changes` each
//! begins where the one before ended, so `next` is where to go on elsewhere; the last frame of a watch is `Ended`,
//! unless the connection ends first; lists and texts are bounded before anything is copied out of a frame.
//! It does not decide what a client does about the end of a watch.

use super::archive::{self, AsString, AsVec, WireError};
use crate::frame::{self, FrameKind};
use crate::limits::{KEY_BYTES_MAX, TEXT_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};

/// What a client wants to hear.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct WatchRequest {
    /// The group.
    pub group: u32,
    /// The first entry whose changes are told; 0: the next one that is applied.
    pub from: u64,
    /// What the keys begin with.
    pub prefix: Vec<u8>,
}

impl WatchRequest {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::Watch, correlation);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, Debug))]
#[repr(u8)]
pub enum WatchEnd {
    /// What was asked for is forgotten: `index` is the first entry that can be told. What the keys have now is to be read,
    /// and watched from behind.
    Compacted = 1,
    /// The client took too long to take what it was told, and what follows is forgotten.
    TooSlow = 2,
    /// This shard has no replica of the group.
    NotHere = 3,
    /// This shard has as many watches as it may.
    Overloaded = 4,
    /// The replica does not know yet how far it is, or goes away.
    Unavailable = 5,
    /// The request can never be answered.
    BadRequest = 6,
}

/// What a watch tells, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedWatchEvent)]
pub enum WatchEventRef<'a> {
    /// Changes in the order they were made; the first frame of a watch may have none.
    Changes {
        /// The group.
        group: u32,
        /// Everything of entries before this one is told; of this one what stands here, if anything.
        next: u64,
        /// The changes, see [`super::items`].
        #[rkyv(with = AsVec)]
        items: &'a [u8],
    },
    /// The watch is over.
    Ended {
        /// The group.
        group: u32,
        /// Why, for programs.
        end: WatchEnd,
        /// See [`WatchEnd::Compacted`]; else 0.
        index: u64,
        /// Why, for people.
        #[rkyv(with = AsString)]
        message: &'a str,
    },
}

impl WatchEventRef<'_> {
    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::WatchEvent, correlation);
        archive::append(frame.bytes(), self, 0);
        frame.finish()
    }
}

/// What a watch tells, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[allow(missing_docs, reason = "the same fields as `WatchEventRef`")]
pub enum WatchEvent {
    /// See [`WatchEventRef::Changes`].
    Changes { group: u32, next: u64, items: Vec<u8> },
    /// See [`WatchEventRef::Ended`].
    Ended { group: u32, end: WatchEnd, index: u64, message: String },
}

impl WatchEvent {
    /// The borrowed form.
    #[must_use]
    pub fn as_event_ref(&self) -> WatchEventRef<'_> {
        match self {
            Self::Changes { group, next, items } => WatchEventRef::Changes { group: *group, next: *next, items },
            Self::Ended { group, end, index, message } => {
                WatchEventRef::Ended { group: *group, end: *end, index: *index, message }
            }
        }
    }
}

/// Reads what a client wants to hear.
///
/// # Errors
/// When the bytes are not that, or the prefix is longer than a key.
pub fn view_watch_request(bytes: &[u8]) -> Result<WatchRequest, WireError> {
    let archived: &ArchivedWatchRequest = archive::access(bytes, "watch")?;
    archive::check_bounds(archived.prefix.len() <= KEY_BYTES_MAX, bytes, "watch")?;
    archive::to_native::<WatchRequest>(archived, "watch")
}

/// Reads what a watch tells.
///
/// # Errors
/// When the bytes are not that, or the message is too long.
pub fn view_watch_event(bytes: &[u8]) -> Result<WatchEvent, WireError> {
    let archived: &ArchivedWatchEvent = archive::access(bytes, "watch event")?;
    let is_bounded = match archived {
        ArchivedWatchEvent::Changes { .. } => true,
        ArchivedWatchEvent::Ended { message, .. } => message.len() <= TEXT_BYTES_MAX,
    };
    archive::check_bounds(is_bounded, bytes, "watch event")?;
    archive::to_native::<WatchEvent>(archived, "watch event")
}

/// Appends the frame by which a client ends the watch of this correlation. Returns its bytes.
pub fn append_unwatch(out: &mut Vec<u8>, correlation: u32) -> usize {
    frame::begin(out, FrameKind::Unwatch, correlation).finish()
}
