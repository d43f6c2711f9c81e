//! Requests: what a client asks of a group, and the checks that come before a group sees it.
//!
//! Data path 1/9: an [`ArchivedRequest`] is read in place, out of the receive buffer, the log and the followers' log.
//!
//! Invariants: every request has one archived form, written from borrowed parts ([`RequestRef`]) or owned ones
//! ([`Request`]) alike; what [`validate_request`] accepts is within the limits and of one class.
//!
//! It neither routes nor queues requests.

use super::archive::{self, AsVec, WireError};
use crate::{
    frame::{self, FrameKind},
    limits::Limits,
    slots,
};
use rkyv::{
    Archive, Deserialize, Serialize,
    rancor::Source,
    ser::{Allocator, Writer},
    with::Map,
};
use std::mem::offset_of;

/// How fresh what a read returns must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
#[repr(u8)]
pub enum Consistency {
    /// At least as new as everything acknowledged before the read was sent.
    #[default]
    Linearizable = 0,
    /// What the asked replica has applied, however old it is, or as old as [`ArchivedRequest::max_staleness_ms`] allows.
    Stale = 1,
    /// As `Linearizable`, and the leader may answer without asking anybody while it holds a lease. It relies on clocks
    /// whose rates differ by less than the cluster is configured for.
    Lease = 2,
    /// As `Linearizable`, and any replica answers: it asks the leader how far it must have applied.
    Follower = 3,
}

impl Consistency {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Linearizable, Self::Lease, Self::Follower, Self::Stale];

    /// Its name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Stale => "stale",
            Self::Lease => "lease",
            Self::Follower => "follower",
        }
    }
}

/// A name that no [`Consistency`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reads are linearizable, lease, follower or stale")]
pub struct UnknownConsistency;

impl std::str::FromStr for Consistency {
    type Err = UnknownConsistency;

    fn from_str(name: &str) -> Result<Self, UnknownConsistency> {
        Self::ALL.into_iter().find(|consistency| consistency.name() == name).ok_or(UnknownConsistency)
    }
}

/// One operation, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedOperation)]
pub enum OperationRef<'a> {
    /// Sets a key.
    Put {
        /// The key.
        #[rkyv(with = AsVec)]
        key: &'a [u8],
        /// Its new value.
        #[rkyv(with = AsVec)]
        value: &'a [u8],
    },
    /// Reads a key.
    Get {
        /// The key.
        #[rkyv(with = AsVec)]
        key: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key.
        #[rkyv(with = AsVec)]
        key: &'a [u8],
    },
    /// Sets a key when its value is the expected one.
    CompareAndSet {
        /// The key.
        #[rkyv(with = AsVec)]
        key: &'a [u8],
        /// The value it must have; `None`: it must be absent.
        #[rkyv(with = Map<AsVec>)]
        expected: Option<&'a [u8]>,
        /// Its new value.
        #[rkyv(with = AsVec)]
        value: &'a [u8],
    },
    /// Opens a session in a group; the only operation of its request.
    OpenSession {
        /// The group.
        group: u32,
    },
    /// Sets or removes a key when its version is the expected one.
    CompareVersion {
        /// The key.
        #[rkyv(with = AsVec)]
        key: &'a [u8],
        /// The version it must have; 0: it must be absent.
        version: u64,
        /// Its new value; `None`: it is removed.
        #[rkyv(with = Map<AsVec>)]
        value: Option<&'a [u8]>,
    },
    /// Reads the keys of a group in their order; the only operation of its request.
    Range {
        /// The group.
        group: u32,
        /// The first key that may be part of the answer.
        #[rkyv(with = AsVec)]
        start: &'a [u8],
        /// The first key behind; empty: there is no end.
        #[rkyv(with = AsVec)]
        end: &'a [u8],
        /// Most keys in the answer; 0: as many as an answer may have.
        limit: u32,
        /// Without the values.
        keys_only: bool,
    },
}

impl<'a> OperationRef<'a> {
    /// The key, unless the operation has none.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { key, .. }
            | Self::Get { key }
            | Self::Delete { key }
            | Self::CompareAndSet { key, .. }
            | Self::CompareVersion { key, .. } => Some(key),
            Self::OpenSession { .. } | Self::Range { .. } => None,
        }
    }

    /// The group it names, unless its key tells.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        match *self {
            Self::OpenSession { group } | Self::Range { group, .. } => Some(group),
            _ => None,
        }
    }

    /// Bytes of keys and values: what the archive grows with.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match *self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Get { key } | Self::Delete { key } => key.len(),
            Self::CompareAndSet { key, expected, value } => key.len() + expected.map_or(0, <[u8]>::len) + value.len(),
            Self::OpenSession { .. } => 0,
            Self::CompareVersion { key, value, .. } => key.len() + value.map_or(0, <[u8]>::len),
            Self::Range { start, end, .. } => start.len() + end.len(),
        }
    }
}

/// One request, borrowed: the form that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(as = ArchivedRequest, serialize_bounds(__S: Writer + Allocator, __S::Error: Source))]
pub struct RequestRef<'a> {
    /// The session, 0 = none.
    pub client: u64,
    /// Number of the request in its session, from 1. Of a stale read, which has none: how many milliseconds old what it
    /// returns may be, 0 = any.
    pub sequence: u64,
    /// All sequences below are answered; the group may forget their replies.
    pub acknowledged: u64,
    /// For requests that only read.
    pub consistency: Consistency,
    /// What to do, all or nothing.
    #[rkyv(with = AsVec, omit_bounds)]
    pub operations: &'a [OperationRef<'a>],
}

impl RequestRef<'_> {
    /// Appends the archive.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let payload: usize = self.operations.iter().map(OperationRef::payload_bytes).sum();
        out.reserve(payload + size_of::<ArchivedOperation>() * self.operations.len() + size_of::<ArchivedRequest>());
        archive::append(out, self, self.operations.len());
    }

    /// Appends a whole frame. Returns its bytes.
    #[inline]
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        let mut frame = frame::begin(out, FrameKind::Request, correlation);
        self.append_to(frame.bytes());
        frame.finish()
    }
}

/// One operation, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive)]
#[cfg_attr(test, derive(Serialize))]
#[rkyv(derive(Debug))]
#[allow(missing_docs, reason = "the same fields as `OperationRef`")]
pub enum Operation {
    /// See [`OperationRef::Put`].
    Put { key: Vec<u8>, value: Vec<u8> },
    /// See [`OperationRef::Get`].
    Get { key: Vec<u8> },
    /// See [`OperationRef::Delete`].
    Delete { key: Vec<u8> },
    /// See [`OperationRef::CompareAndSet`].
    CompareAndSet { key: Vec<u8>, expected: Option<Vec<u8>>, value: Vec<u8> },
    /// See [`OperationRef::OpenSession`].
    OpenSession { group: u32 },
    /// See [`OperationRef::CompareVersion`].
    CompareVersion { key: Vec<u8>, version: u64, value: Option<Vec<u8>> },
    /// See [`OperationRef::Range`].
    Range { group: u32, start: Vec<u8>, end: Vec<u8>, limit: u32, keys_only: bool },
}

impl Operation {
    /// The borrowed form.
    #[must_use]
    pub fn as_operation_ref(&self) -> OperationRef<'_> {
        match self {
            Self::Put { key, value } => OperationRef::Put { key, value },
            Self::Get { key } => OperationRef::Get { key },
            Self::Delete { key } => OperationRef::Delete { key },
            Self::CompareAndSet { key, expected, value } => {
                OperationRef::CompareAndSet { key, expected: expected.as_deref(), value }
            }
            Self::OpenSession { group } => OperationRef::OpenSession { group: *group },
            Self::CompareVersion { key, version, value } => {
                OperationRef::CompareVersion { key, version: *version, value: value.as_deref() }
            }
            Self::Range { group, start, end, limit, keys_only } => {
                OperationRef::Range { group: *group, start, end, limit: *limit, keys_only: *keys_only }
            }
        }
    }
}

impl From<OperationRef<'_>> for Operation {
    fn from(operation: OperationRef<'_>) -> Self {
        match operation {
            OperationRef::Put { key, value } => Self::Put { key: key.to_vec(), value: value.to_vec() },
            OperationRef::Get { key } => Self::Get { key: key.to_vec() },
            OperationRef::Delete { key } => Self::Delete { key: key.to_vec() },
            OperationRef::CompareAndSet { key, expected, value } => {
                Self::CompareAndSet { key: key.to_vec(), expected: expected.map(<[u8]>::to_vec), value: value.to_vec() }
            }
            OperationRef::OpenSession { group } => Self::OpenSession { group },
            OperationRef::CompareVersion { key, version, value } => {
                Self::CompareVersion { key: key.to_vec(), version, value: value.map(<[u8]>::to_vec) }
            }
            OperationRef::Range { group, start, end, limit, keys_only } => {
                Self::Range { group, start: start.to_vec(), end: end.to_vec(), limit, keys_only }
            }
        }
    }
}

/// One request, owned. For tests and off the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive)]
#[cfg_attr(test, derive(Serialize))]
#[rkyv(derive(Debug))]
pub struct Request {
    /// See [`RequestRef::client`].
    pub client: u64,
    /// See [`RequestRef::sequence`].
    pub sequence: u64,
    /// See [`RequestRef::acknowledged`].
    pub acknowledged: u64,
    /// See [`RequestRef::consistency`].
    pub consistency: Consistency,
    /// See [`RequestRef::operations`].
    pub operations: Vec<Operation>,
}

impl Request {
    /// Calls `encode` with the borrowed form.
    fn with_ref<R>(&self, encode: impl FnOnce(RequestRef<'_>) -> R) -> R {
        let operations: Vec<_> = self.operations.iter().map(Operation::as_operation_ref).collect();
        encode(RequestRef {
            client: self.client,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            consistency: self.consistency,
            operations: &operations,
        })
    }

    /// Appends the archive.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.with_ref(|request| request.append_to(out));
    }

    /// Appends a whole frame. Returns its bytes.
    pub fn append_frame(&self, out: &mut Vec<u8>, correlation: u32) -> usize {
        self.with_ref(|request| request.append_frame(out, correlation))
    }
}

/// Reads a request in place.
///
/// # Errors
/// When the bytes are not one.
#[inline]
pub fn view_request(bytes: &[u8]) -> Result<&ArchivedRequest, WireError> {
    archive::access(bytes, "request")
}

impl ArchivedConsistency {
    /// The plain value.
    #[must_use]
    pub fn to_native(self) -> Consistency {
        match self {
            Self::Linearizable => Consistency::Linearizable,
            Self::Stale => Consistency::Stale,
            Self::Lease => Consistency::Lease,
            Self::Follower => Consistency::Follower,
        }
    }
}

impl ArchivedOperation {
    /// The operation with its bytes borrowed from the archive.
    #[inline]
    #[must_use]
    pub fn as_operation_ref(&self) -> OperationRef<'_> {
        match self {
            Self::Put { key, value } => OperationRef::Put { key, value },
            Self::Get { key } => OperationRef::Get { key },
            Self::Delete { key } => OperationRef::Delete { key },
            Self::CompareAndSet { key, expected, value } => {
                OperationRef::CompareAndSet { key, expected: expected.as_ref().map(|bytes| &**bytes), value }
            }
            Self::OpenSession { group } => OperationRef::OpenSession { group: group.to_native() },
            Self::CompareVersion { key, version, value } => OperationRef::CompareVersion {
                key,
                version: version.to_native(),
                value: value.as_ref().map(|bytes| &**bytes),
            },
            Self::Range { group, start, end, limit, keys_only } => OperationRef::Range {
                group: group.to_native(),
                start,
                end,
                limit: limit.to_native(),
                keys_only: *keys_only,
            },
        }
    }
}

impl ArchivedRequest {
    /// How old what a stale read returns may be; `None`: as old as it is.
    #[must_use]
    pub fn max_staleness_ms(&self) -> Option<u64> {
        let bounded = self.client.to_native() == 0 && self.consistency == ArchivedConsistency::Stale;
        Some(self.sequence.to_native()).filter(|milliseconds| bounded && *milliseconds > 0)
    }

    /// The operations with their bytes borrowed from the archive.
    #[inline]
    pub fn operations(&self) -> impl ExactSizeIterator<Item = OperationRef<'_>> {
        self.operations.iter().map(ArchivedOperation::as_operation_ref)
    }
}

/// What path a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// Only gets, or a range: no entry in the log.
    Read,
    /// Anything else with keys: into the log, whole.
    Write,
    /// Opens a session: into the log.
    OpenSession,
}

/// Why a request is refused before a group sees it. A client that gets it has a bug or other limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No operations.
    #[error("the request has no operations")]
    Empty,
    /// Too many operations.
    #[error("the request has {operations} operations, at most {operations_max} are allowed; split it")]
    TooManyOperations {
        /// How many it has.
        operations: usize,
        /// The limit.
        operations_max: usize,
    },
    /// A key of no bytes or too many.
    #[error("a key has {bytes} bytes, 1 to {bytes_max} are allowed")]
    KeyLength {
        /// How many it has.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A value, or an expected value, of too many bytes.
    #[error("a value has {bytes} bytes, at most {bytes_max} are allowed")]
    ValueLength {
        /// How many it has.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// `OpenSession` beside other operations or inside a session.
    #[error("open_session must be the only operation of a request without a session")]
    OpenSessionNotAlone,
    /// A range beside other operations.
    #[error("a range must be the only operation of its request")]
    RangeNotAlone,
    /// An end of a range of too many bytes.
    #[error("a start or end of a range has {bytes} bytes, at most {bytes_max} are allowed")]
    BoundLength {
        /// How many it has.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A request in a session whose numbers contradict each other.
    #[error(
        "sequence {sequence} with acknowledged {acknowledged}: sequences start at 1 and are not below acknowledged"
    )]
    Sequence {
        /// Number of the request.
        sequence: u64,
        /// Lowest unanswered one.
        acknowledged: u64,
    },
    /// Keys of more than one group, or no such group.
    #[error("the keys of a request must be in one group; give them a common {{tag}} or send several requests")]
    CrossGroup,
    /// A session in a group, or a range of one, that does not exist.
    #[error("there is no group {group}, the cluster has {groups}")]
    NoSuchGroup {
        /// The one asked for.
        group: u32,
        /// How many there are.
        groups: u32,
    },
}

impl RequestError {
    /// The same request will never be accepted.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The connection can go on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        false
    }
}

/// Holds a request to the limits and tells its class.
///
/// # Errors
/// [`RequestError`] for the first thing that is wrong.
#[inline]
pub fn validate_request(request: &ArchivedRequest, limits: &Limits) -> Result<RequestClass, RequestError> {
    let operations = request.operations.len();
    if operations == 0 {
        return Err(RequestError::Empty);
    }
    if operations > limits.operations_max {
        return Err(RequestError::TooManyOperations { operations, operations_max: limits.operations_max });
    }
    let (client, sequence) = (request.client.to_native(), request.sequence.to_native());
    let acknowledged = request.acknowledged.to_native();
    if client != 0 && (sequence == 0 || acknowledged > sequence) {
        return Err(RequestError::Sequence { sequence, acknowledged });
    }
    if operations > 1 && request.operations.iter().any(|operation| matches!(operation, ArchivedOperation::Range { .. }))
    {
        return Err(RequestError::RangeNotAlone);
    }
    match validate_operations(request.operations(), limits)? {
        RequestClass::OpenSession if operations > 1 || client != 0 => Err(RequestError::OpenSessionNotAlone),
        class => Ok(class),
    }
}

/// Holds operations to the limits; the class of all together. An open-session among them makes it that class.
#[inline]
pub(crate) fn validate_operations<'a>(
    operations: impl IntoIterator<Item = OperationRef<'a>>,
    limits: &Limits,
) -> Result<RequestClass, RequestError> {
    let mut class = RequestClass::Read;
    for operation in operations {
        class = match (class, validate_operation(&operation, limits)?) {
            (RequestClass::OpenSession, _) | (_, RequestClass::OpenSession) => RequestClass::OpenSession,
            (RequestClass::Write, _) | (_, RequestClass::Write) => RequestClass::Write,
            (RequestClass::Read, RequestClass::Read) => RequestClass::Read,
        };
    }
    Ok(class)
}

/// Gives a written request frame the numbers of a session, and its head the checksum that goes with them. The header's
/// checksum is left to [`frame::set_correlation`], which every send needs anyway.
///
/// # Panics
/// When `frame` is not a request frame.
pub(crate) fn set_session(frame: &mut [u8], client: u64, sequence: u64, acknowledged: u64) {
    let root = frame.len() - size_of::<ArchivedRequest>();
    assert!(root >= frame::HEADER_BYTES, "a request frame ends with its root");
    let mut set = |offset: usize, number: u64| {
        frame[root + offset..root + offset + 8].copy_from_slice(&number.to_le_bytes());
    };
    set(offset_of!(ArchivedRequest, client), client);
    set(offset_of!(ArchivedRequest, sequence), sequence);
    set(offset_of!(ArchivedRequest, acknowledged), acknowledged);
    frame::set_head_checksum(frame);
}

#[inline]
fn validate_operation(operation: &OperationRef<'_>, limits: &Limits) -> Result<RequestClass, RequestError> {
    let Some(key) = operation.key() else { return validate_keyless(operation, limits) };
    if key.is_empty() || key.len() > limits.key_bytes_max {
        return Err(RequestError::KeyLength { bytes: key.len(), bytes_max: limits.key_bytes_max });
    }
    let value_bytes = match *operation {
        OperationRef::Get { .. } => return Ok(RequestClass::Read),
        OperationRef::Put { value, .. } => value.len(),
        OperationRef::CompareAndSet { expected, value, .. } => value.len().max(expected.map_or(0, <[u8]>::len)),
        OperationRef::CompareVersion { value, .. } => value.map_or(0, <[u8]>::len),
        OperationRef::Delete { .. } | OperationRef::OpenSession { .. } | OperationRef::Range { .. } => 0,
    };
    if value_bytes > limits.value_bytes_max {
        return Err(RequestError::ValueLength { bytes: value_bytes, bytes_max: limits.value_bytes_max });
    }
    Ok(RequestClass::Write)
}

/// A range may begin right behind the longest key.
fn validate_keyless(operation: &OperationRef<'_>, limits: &Limits) -> Result<RequestClass, RequestError> {
    let OperationRef::Range { start, end, .. } = *operation else { return Ok(RequestClass::OpenSession) };
    let (bytes, bytes_max) = (start.len().max(end.len()), limits.key_bytes_max + 1);
    if bytes > bytes_max { Err(RequestError::BoundLength { bytes, bytes_max }) } else { Ok(RequestClass::Read) }
}

/// The one group all operations belong to.
///
/// # Errors
/// [`RequestError::CrossGroup`], [`RequestError::NoSuchGroup`] or [`RequestError::Empty`].
#[inline]
pub fn group_of_operations<'a>(
    operations: impl IntoIterator<Item = OperationRef<'a>>,
    groups: u32,
) -> Result<u32, RequestError> {
    let mut found = None;
    for operation in operations {
        let group = match (operation.key(), operation.group()) {
            (Some(key), _) => slots::group_of_key(key, groups),
            (None, Some(group)) if group >= groups => return Err(RequestError::NoSuchGroup { group, groups }),
            (None, Some(group)) => group,
            (None, None) => return Err(RequestError::Empty),
        };
        if found.is_some_and(|other| other != group) {
            return Err(RequestError::CrossGroup);
        }
        found = Some(group);
    }
    found.ok_or(RequestError::Empty)
}

/// The one group a request belongs to.
///
/// # Errors
/// See [`group_of_operations`].
#[inline]
pub fn group_of_request(request: &ArchivedRequest, groups: u32) -> Result<u32, RequestError> {
    group_of_operations(request.operations(), groups)
}
