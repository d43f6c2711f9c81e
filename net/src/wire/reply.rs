//! Replies: what a group answers.
//!
//! Data path 9/9: encoded from borrowed parts straight into the connection's outgoing buffer.
//!
//! Invariants: a reply to a request that was applied or read carries its position and term, so that clients can order
//! what they saw; `Done` has one result per operation, in their order.
//!
//! It does not decide what an answer means for a retry: that is the client's.

use super::archive::{self, AsString, AsVec, WireError};
use crate::frame::{self, FrameKind};
use rkyv::{
    Archive, Deserialize, Serialize,
    rancor::Source,
    ser::{Allocator, Writer},
    with::Map,
};

/// Where in the replicated history a request stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, Debug))]
pub struct Position {
    /// The group.
    pub group: u32,
    /// Index of the entry; for reads the index they saw; 0 when nothing was applied or read.
    pub index: u64,
    /// Which request of the entry, from 0.
    pub position: u32,
}

/// Result of one operation, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedOperationResult)]
pub enum OperationResultRef<'a> {
    /// Of a put.
    Put {
        /// The key had a value before.
        replaced: bool,
    },
    /// Of a get.
    Value(#[rkyv(with = Map<AsVec>)] Option<&'a [u8]>),
    /// Of a delete.
    Deleted {
        /// The key had a value before.
        existed: bool,
    },
    /// Of a compare-and-set.
    Compared {
        /// The value was as expected and is now the new one.
        swapped: bool,
        /// The value found when it was not as expected.
        #[rkyv(with = Map<AsVec>)]
        current: Option<&'a [u8]>,
    },
    /// Of an open-session.
    Session {
        /// The id of the session, not 0.
        client: u64,
    },
    /// Of any operation of a request none of whose operations took effect, because a comparison in it failed.
    NotApplied,
    /// Of a compare-version.
    ComparedVersion {
        /// The version was as expected: the key is set or removed.
        swapped: bool,
        /// The key's version now; 0: it has no value.
        version: u64,
    },
    /// Of a range.
    Items {
        /// The keys in their order, see [`super::items`].
        #[rkyv(with = AsVec)]
        items: &'a [u8],
        /// The range goes on behind the last of them.
        more: bool,
    },
}

/// What became of a request, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedOutcome, serialize_bounds(__S: Writer + Allocator, __S::Error: Source))]
pub enum OutcomeRef<'a> {
    /// Done, one result per operation.
    Done(#[rkyv(with = AsVec, omit_bounds)] &'a [OperationResultRef<'a>]),
    /// Not applied: this shard does not host the group.
    Moved {
        /// The group of the keys.
        group: u32,
        /// A node to ask, 0 = any.
        node: u64,
        /// The shard that hosts it, on every node.
        shard: u16,
        /// The address of that shard of that node.
        #[rkyv(with = AsString)]
        address: &'a str,
    },
    /// Not applied: this replica does not lead the group.
    NotLeader {
        /// The group.
        group: u32,
        /// Who does, as far as known.
        leader: Option<u64>,
    },
    /// Not applied: a bound is reached.
    Overloaded {
        /// A good time to wait before asking again.
        retry_after_us: u64,
    },
    /// Not applied now: the session is unknown or expired. Whether an earlier try was applied is unknown.
    SessionExpired,
    /// Not applied: the request can never be.
    BadRequest {
        /// What is wrong with it.
        #[rkyv(with = AsString)]
        message: &'a str,
    },
    /// It may have been applied or may yet be.
    OutcomeUnknown,
    /// Not applied: the node cannot serve now (starting, stopping, full).
    Unavailable {
        /// Why.
        #[rkyv(with = AsString)]
        message: &'a str,
    },
    /// Not applied now: its sequence is below `acknowledged`, its answer was given and forgotten.
    TooStale,
}

/// One reply, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedReply, serialize_bounds(__S: Writer + Allocator, __S::Error: Source))]
pub struct ReplyRef<'a> {
    /// Where it stands.
    pub position: Position,
    /// What became of it.
    #[rkyv(omit_bounds)]
    pub outcome: OutcomeRef<'a>,
    /// The term of the entry at this position; for reads that of the replica that answers. 0: nothing was applied or read,
    /// or the replica does not know any more (a repeated request whose first entry has left the log).
    pub term: u64,
}

impl ReplyRef<'_> {
    /// Appends the archive.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let items = match self.outcome {
            OutcomeRef::Done(results) => results.len(),
            _ => 0,
        };
        archive::append(out, self, items);
    }

    /// Appends a whole frame. Returns its bytes.
    #[inline]
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::Reply, correlation);
        self.append_to(frame.bytes());
        frame.finish()
    }
}

/// Appends the frame of a reply to a single operation.
#[inline]
pub fn append_done(
    out: &mut Vec<u8>,
    correlation: u32,
    (position, term): (Position, u64),
    result: OperationResultRef<'_>,
) -> usize {
    ReplyRef { position, outcome: OutcomeRef::Done(std::slice::from_ref(&result)), term }.append_frame(out, correlation)
}

/// Result of one operation, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[cfg_attr(test, derive(Serialize))]
#[rkyv(derive(Debug))]
#[allow(missing_docs, reason = "the same fields as `OperationResultRef`")]
pub enum OperationResult {
    /// See [`OperationResultRef::Put`].
    Put { replaced: bool },
    /// See [`OperationResultRef::Value`].
    Value(Option<Vec<u8>>),
    /// See [`OperationResultRef::Deleted`].
    Deleted { existed: bool },
    /// See [`OperationResultRef::Compared`].
    Compared { swapped: bool, current: Option<Vec<u8>> },
    /// See [`OperationResultRef::Session`].
    Session { client: u64 },
    /// See [`OperationResultRef::NotApplied`].
    NotApplied,
    /// See [`OperationResultRef::ComparedVersion`].
    ComparedVersion { swapped: bool, version: u64 },
    /// See [`OperationResultRef::Items`].
    Items { items: Vec<u8>, more: bool },
}

impl OperationResult {
    /// The borrowed form.
    #[must_use]
    pub fn as_result_ref(&self) -> OperationResultRef<'_> {
        match self {
            Self::Put { replaced } => OperationResultRef::Put { replaced: *replaced },
            Self::Value(value) => OperationResultRef::Value(value.as_deref()),
            Self::Deleted { existed } => OperationResultRef::Deleted { existed: *existed },
            Self::Compared { swapped, current } => {
                OperationResultRef::Compared { swapped: *swapped, current: current.as_deref() }
            }
            Self::Session { client } => OperationResultRef::Session { client: *client },
            Self::NotApplied => OperationResultRef::NotApplied,
            Self::ComparedVersion { swapped, version } => {
                OperationResultRef::ComparedVersion { swapped: *swapped, version: *version }
            }
            Self::Items { items, more } => OperationResultRef::Items { items, more: *more },
        }
    }
}

impl From<OperationResultRef<'_>> for OperationResult {
    fn from(result: OperationResultRef<'_>) -> Self {
        match result {
            OperationResultRef::Put { replaced } => Self::Put { replaced },
            OperationResultRef::Value(value) => Self::Value(value.map(<[u8]>::to_vec)),
            OperationResultRef::Deleted { existed } => Self::Deleted { existed },
            OperationResultRef::Compared { swapped, current } => {
                Self::Compared { swapped, current: current.map(<[u8]>::to_vec) }
            }
            OperationResultRef::Session { client } => Self::Session { client },
            OperationResultRef::NotApplied => Self::NotApplied,
            OperationResultRef::ComparedVersion { swapped, version } => Self::ComparedVersion { swapped, version },
            OperationResultRef::Items { items, more } => Self::Items { items: items.to_vec(), more },
        }
    }
}

/// What became of a request, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[cfg_attr(test, derive(Serialize))]
#[rkyv(derive(Debug))]
#[allow(missing_docs, reason = "the same fields as `OutcomeRef`")]
pub enum Outcome {
    /// See [`OutcomeRef::Done`].
    Done(Vec<OperationResult>),
    /// See [`OutcomeRef::Moved`].
    Moved { group: u32, node: u64, shard: u16, address: String },
    /// See [`OutcomeRef::NotLeader`].
    NotLeader { group: u32, leader: Option<u64> },
    /// See [`OutcomeRef::Overloaded`].
    Overloaded { retry_after_us: u64 },
    /// See [`OutcomeRef::SessionExpired`].
    SessionExpired,
    /// See [`OutcomeRef::BadRequest`].
    BadRequest { message: String },
    /// See [`OutcomeRef::OutcomeUnknown`].
    OutcomeUnknown,
    /// See [`OutcomeRef::Unavailable`].
    Unavailable { message: String },
    /// See [`OutcomeRef::TooStale`].
    TooStale,
}

/// One reply, owned. For tests, kept session answers and off the data path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[cfg_attr(test, derive(Serialize))]
#[rkyv(derive(Debug))]
pub struct Reply {
    /// See [`ReplyRef::position`].
    pub position: Position,
    /// See [`ReplyRef::outcome`].
    pub outcome: Outcome,
    /// See [`ReplyRef::term`].
    pub term: u64,
}

impl Reply {
    fn with_ref<R>(&self, encode: impl FnOnce(ReplyRef<'_>) -> R) -> R {
        let results: Vec<_> = match &self.outcome {
            Outcome::Done(results) => results.iter().map(OperationResult::as_result_ref).collect(),
            _ => Vec::new(),
        };
        let outcome = match &self.outcome {
            Outcome::Done(_) => OutcomeRef::Done(&results),
            Outcome::Moved { group, node, shard, address } => {
                OutcomeRef::Moved { group: *group, node: *node, shard: *shard, address }
            }
            Outcome::NotLeader { group, leader } => OutcomeRef::NotLeader { group: *group, leader: *leader },
            Outcome::Overloaded { retry_after_us } => OutcomeRef::Overloaded { retry_after_us: *retry_after_us },
            Outcome::SessionExpired => OutcomeRef::SessionExpired,
            Outcome::BadRequest { message } => OutcomeRef::BadRequest { message },
            Outcome::OutcomeUnknown => OutcomeRef::OutcomeUnknown,
            Outcome::Unavailable { message } => OutcomeRef::Unavailable { message },
            Outcome::TooStale => OutcomeRef::TooStale,
        };
        encode(ReplyRef { position: self.position, outcome, term: self.term })
    }

    /// Appends the archive.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.with_ref(|reply| reply.append_to(out));
    }

    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        self.with_ref(|reply| reply.append_frame(out, correlation))
    }
}

/// Reads a reply in place.
///
/// # Errors
/// When the bytes are not one.
#[inline]
pub fn view_reply(bytes: &[u8]) -> Result<&ArchivedReply, WireError> {
    archive::access(bytes, "reply")
}

impl ArchivedPosition {
    /// The plain value.
    #[inline]
    #[must_use]
    pub fn to_native(self) -> Position {
        Position { group: self.group.to_native(), index: self.index.to_native(), position: self.position.to_native() }
    }
}

impl ArchivedOperationResult {
    /// The result with its bytes borrowed from the archive.
    #[inline]
    #[must_use]
    pub fn as_result_ref(&self) -> OperationResultRef<'_> {
        match self {
            Self::Put { replaced } => OperationResultRef::Put { replaced: *replaced },
            Self::Value(value) => OperationResultRef::Value(value.as_ref().map(|bytes| &**bytes)),
            Self::Deleted { existed } => OperationResultRef::Deleted { existed: *existed },
            Self::Compared { swapped, current } => {
                OperationResultRef::Compared { swapped: *swapped, current: current.as_ref().map(|bytes| &**bytes) }
            }
            Self::Session { client } => OperationResultRef::Session { client: client.to_native() },
            Self::NotApplied => OperationResultRef::NotApplied,
            Self::ComparedVersion { swapped, version } => {
                OperationResultRef::ComparedVersion { swapped: *swapped, version: version.to_native() }
            }
            Self::Items { items, more } => OperationResultRef::Items { items, more: *more },
        }
    }
}

impl ArchivedReply {
    /// Everything copied out of the archive.
    #[must_use]
    pub fn to_owned_reply(&self) -> Reply {
        let outcome = match &self.outcome {
            ArchivedOutcome::Done(results) => {
                Outcome::Done(results.iter().map(|result| result.as_result_ref().into()).collect())
            }
            ArchivedOutcome::Moved { group, node, shard, address } => Outcome::Moved {
                group: group.to_native(),
                node: node.to_native(),
                shard: shard.to_native(),
                address: address.as_str().to_owned(),
            },
            ArchivedOutcome::NotLeader { group, leader } => {
                Outcome::NotLeader { group: group.to_native(), leader: leader.as_ref().map(|node| node.to_native()) }
            }
            ArchivedOutcome::Overloaded { retry_after_us } => {
                Outcome::Overloaded { retry_after_us: retry_after_us.to_native() }
            }
            ArchivedOutcome::SessionExpired => Outcome::SessionExpired,
            ArchivedOutcome::BadRequest { message } => Outcome::BadRequest { message: message.as_str().to_owned() },
            ArchivedOutcome::OutcomeUnknown => Outcome::OutcomeUnknown,
            ArchivedOutcome::Unavailable { message } => Outcome::Unavailable { message: message.as_str().to_owned() },
            ArchivedOutcome::TooStale => Outcome::TooStale,
        };
        Reply { position: self.position.to_native(), outcome, term: self.term.to_native() }
    }
}
