//! Frames: how bytes of a connection become messages and back.
//!
//! Data path 1/9: the first thing that reads a client's bytes, and the last that writes them.
//!
//! ```text
//!  0       2         3      4             8             12            16              20                24
//!  +-------+---------+------+-------------+-------------+-------------+---------------+-----------------+------+------+
//!  | magic | version | kind | head_length | tail_length | correlation | head_checksum | header_checksum | head | tail |
//!  |  u16  |   u8    |  u8  |     u32     |     u32     |     u32     |      u32      |       u32       |      |      |
//!  +-------+---------+------+-------------+-------------+-------------+---------------+-----------------+------+------+
//! ```
//!
//! All integers are little endian. `header_checksum` is the CRC32C of bytes 0..20, `head_checksum` that of the head. The
//! header has its own so that a flipped bit in a length is found at once, and not after waiting for bytes that will never
//! come. The tail carries its own checksums (WAL records).
//!
//! Invariants: what [`parse`] returns has a correct header and head, lies within the limits, and `total_bytes` is exactly
//! the header, the head and the tail; a frame is parsed the same however the stream was split.
//!
//! It does not look into heads or tails, and copies nothing.

use crate::limits::Limits;
use ringraft_raft::mutants::{Mutant, is_active};

/// First two bytes of every frame.
pub const MAGIC: u16 = 0x5252;
/// Version of the frame header.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 24;

const HEADER_CHECKSUM_OFFSET: usize = 20;
const HEAD_CHECKSUM_OFFSET: usize = 16;
const _: () = assert!(HEADER_CHECKSUM_OFFSET + 4 == HEADER_BYTES && HEAD_CHECKSUM_OFFSET + 4 == HEADER_CHECKSUM_OFFSET);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// The dialing side says who it is and whom it wants.
    Hello = 1,
    /// The accepting side says who it is and shows the topology.
    Welcome = 2,
    /// The accepting side says why it will not talk; nothing follows.
    Refused = 3,
    /// A client's request.
    Request = 4,
    /// The answer to one, with its correlation.
    Reply = 5,
    /// One message of a group's consensus, without entries.
    Raft = 6,
    /// An `AppendEntries` head with entry records as its tail.
    Append = 7,
    /// Hash of a group's state at an index.
    Digest = 8,
    /// A client asks for the state of a shard.
    Status = 9,
    /// The answer: JSON text as the head.
    StatusReply = 10,
    /// The sender is about to close on purpose.
    Goodbye = 11,
    /// An operator asks something of a group.
    Admin = 12,
    /// The answer, with its correlation.
    AdminReply = 13,
    /// A chunk of a snapshot as its tail.
    Snapshot = 14,
    /// How far the receiver of a snapshot is.
    SnapshotAnswer = 15,
    /// How a node and the groups it leads are.
    Report = 16,
    /// A wish that a group be led by another node.
    TransferWish = 17,
    /// Heartbeats of many groups.
    Heartbeats = 18,
    /// The answers to them.
    HeartbeatAnswers = 19,
    /// A client wants to hear the changes of a group.
    Watch = 20,
    /// Changes, or the end of a watch, with its correlation.
    WatchEvent = 21,
    /// The client does not want to hear more of the watch with its correlation.
    Unwatch = 22,
}

impl FrameKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Request,
        Self::Reply,
        Self::Raft,
        Self::Append,
        Self::Digest,
        Self::Status,
        Self::StatusReply,
        Self::Goodbye,
        Self::Admin,
        Self::AdminReply,
        Self::Snapshot,
        Self::SnapshotAnswer,
        Self::Report,
        Self::TransferWish,
        Self::Heartbeats,
        Self::HeartbeatAnswers,
        Self::Watch,
        Self::WatchEvent,
        Self::Unwatch,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }
}

/// One frame, borrowed from the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// Number the asking side chose; an answer repeats it.
    pub correlation: u32,
    /// The archive; its checksum was right.
    pub head: &'a [u8],
    /// Bytes with checksums of their own.
    pub tail: &'a [u8],
    /// How many received bytes the frame is.
    pub total_bytes: usize,
}

/// Why bytes are not a frame. The connection cannot go on after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes do not start like a frame.
    #[error(
        "not a ringraft frame: starts with {found:#06x}, not {MAGIC:#06x}; is the address that of a ringraft shard?"
    )]
    Magic {
        /// What stood there.
        found: u16,
    },
    /// A frame header of another version.
    #[error("frame version {found}, but this side speaks {VERSION}; run the same release on both sides")]
    Version {
        /// What stood there.
        found: u8,
    },
    /// The header was damaged.
    #[error("frame header checksum {stored:#010x}, but its bytes give {computed:#010x}")]
    HeaderChecksum {
        /// From the frame.
        stored: u32,
        /// From its bytes.
        computed: u32,
    },
    /// An intact header with a kind this release does not know.
    #[error("unknown frame kind {found}; run the same release on both sides")]
    Kind {
        /// What stood there.
        found: u8,
    },
    /// The frame announces more bytes than the connection allows.
    #[error("frame of {bytes} bytes, but at most {bytes_max} are allowed here")]
    TooLarge {
        /// Header, head and tail.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The head was damaged.
    #[error("frame head checksum {stored:#010x}, but its bytes give {computed:#010x}")]
    HeadChecksum {
        /// From the frame.
        stored: u32,
        /// From its bytes.
        computed: u32,
    },
}

impl FrameError {
    /// A new connection may succeed: the bytes were damaged on the way, not meant differently.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::HeaderChecksum { .. } | Self::HeadChecksum { .. })
    }

    /// The connection must be closed. True of every frame error: the start of the next frame is unknown.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// Reads the first frame of `bytes`.
///
/// `Ok(None)` means that more bytes are needed; see [`bytes_needed`] for how many.
///
/// # Errors
/// [`FrameError`] when the bytes cannot be, or become, a frame of this release within `limits`.
#[inline]
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<Frame<'a>>, FrameError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        check_prefix(bytes)?;
        return Ok(None);
    };
    let header = Header::read(header, limits)?;
    if body.len() < header.head_length + header.tail_length {
        return Ok(None);
    }
    let (head, body) = body.split_at(header.head_length);
    let computed = crc32c::crc32c(head);
    if computed != header.head_checksum && !is_active(Mutant::DamagedFrameTaken) {
        return Err(FrameError::HeadChecksum { stored: header.head_checksum, computed });
    }
    let tail = &body[..header.tail_length];
    let total_bytes = HEADER_BYTES + head.len() + tail.len();
    Ok(Some(Frame { kind: header.kind, correlation: header.correlation, head, tail, total_bytes }))
}

/// How many bytes the first frame of `bytes` has in all, as far as can be told yet: what a receive buffer must hold
/// before [`parse`] can answer. Never more than the limits allow.
///
/// # Errors
/// The same as [`parse`] gives for the header.
pub fn bytes_needed(bytes: &[u8], limits: &Limits) -> Result<usize, FrameError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        check_prefix(bytes)?;
        return Ok(HEADER_BYTES);
    };
    let header = Header::read(header, limits)?;
    Ok(HEADER_BYTES + header.head_length + header.tail_length)
}

/// Garbage should be refused at its first bytes, not when there are enough for a header.
fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    if let Some(&[low, high]) = bytes.first_chunk::<2>() {
        let found = u16::from_le_bytes([low, high]);
        if found != MAGIC {
            return Err(FrameError::Magic { found });
        }
    }
    match bytes.get(2) {
        Some(&found) if found != VERSION => Err(FrameError::Version { found }),
        _ => Ok(()),
    }
}

struct Header {
    kind: FrameKind,
    correlation: u32,
    head_length: usize,
    tail_length: usize,
    head_checksum: u32,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<Self, FrameError> {
        let magic = u16::from_le_bytes([bytes[0], bytes[1]]);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        if bytes[2] != VERSION {
            return Err(FrameError::Version { found: bytes[2] });
        }
        let stored = read_u32(bytes, HEADER_CHECKSUM_OFFSET);
        let computed = crc32c::crc32c(&bytes[..HEADER_CHECKSUM_OFFSET]);
        if stored != computed && !is_active(Mutant::DamagedFrameTaken) {
            return Err(FrameError::HeaderChecksum { stored, computed });
        }
        let kind = FrameKind::from_number(bytes[3]).ok_or(FrameError::Kind { found: bytes[3] })?;
        let (head_length, tail_length) = (read_u32(bytes, 4), read_u32(bytes, 8));
        let total = HEADER_BYTES as u64 + u64::from(head_length) + u64::from(tail_length);
        if total > limits.frame_bytes_max as u64 {
            return Err(FrameError::TooLarge { bytes: total, bytes_max: limits.frame_bytes_max });
        }
        Ok(Self {
            kind,
            correlation: read_u32(bytes, 12),
            head_length: head_length as usize,
            tail_length: tail_length as usize,
            head_checksum: read_u32(bytes, HEAD_CHECKSUM_OFFSET),
        })
    }
}

#[inline]
fn read_u32(bytes: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

/// A frame being written at the end of an outgoing buffer. Head bytes first, then [`FrameWriter::end_head`], then tail
/// bytes if any, then [`FrameWriter::finish`]. Dropped unfinished it takes its bytes back.
#[derive(Debug)]
#[must_use = "a frame that is not finished is removed again"]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// 0 until `end_head`; a frame's head never ends at offset 0.
    head_end: usize,
    finished: bool,
}

/// Starts a frame at the end of `out`.
#[inline]
pub fn begin(out: &mut Vec<u8>, kind: FrameKind, correlation: u32) -> FrameWriter<'_> {
    let start = out.len();
    let mut header = [0u8; HEADER_BYTES];
    header[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    header[2] = VERSION;
    header[3] = kind as u8;
    header[12..16].copy_from_slice(&correlation.to_le_bytes());
    out.extend_from_slice(&header);
    FrameWriter { out, start, head_end: 0, finished: false }
}

impl FrameWriter<'_> {
    /// The buffer, to append head or tail bytes to. Bytes before the frame must not be touched.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Everything appended so far is the head; what follows is the tail.
    #[inline]
    pub fn end_head(&mut self) {
        self.head_end = self.out.len();
    }

    /// Bytes of the frame so far.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// Fills in lengths and checksums. Returns the bytes of the frame.
    ///
    /// # Panics
    /// When head or tail are longer than 4 GiB: the callers bound both far below.
    #[inline]
    pub fn finish(mut self) -> usize {
        let head_end = if self.head_end == 0 { self.out.len() } else { self.head_end };
        let head_start = self.start + HEADER_BYTES;
        let head_length = u32::try_from(head_end - head_start).expect("head below 4 GiB");
        let tail_length = u32::try_from(self.out.len() - head_end).expect("tail below 4 GiB");
        let frame = &mut self.out[self.start..];
        let head_checksum = crc32c::crc32c(&frame[HEADER_BYTES..HEADER_BYTES + head_length as usize]);
        frame[4..8].copy_from_slice(&head_length.to_le_bytes());
        frame[8..12].copy_from_slice(&tail_length.to_le_bytes());
        frame[HEAD_CHECKSUM_OFFSET..HEADER_CHECKSUM_OFFSET].copy_from_slice(&head_checksum.to_le_bytes());
        let header_checksum = crc32c::crc32c(&frame[..HEADER_CHECKSUM_OFFSET]);
        frame[HEADER_CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&header_checksum.to_le_bytes());
        self.finished = true;
        self.out.len() - self.start
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

/// Gives an already written frame another correlation, and its header the checksum that goes with it: a retry sends the
/// same request bytes under a new number.
///
/// # Panics
/// When `frame` is shorter than a header.
pub fn set_correlation(frame: &mut [u8], correlation: u32) {
    frame[12..16].copy_from_slice(&correlation.to_le_bytes());
    let checksum = crc32c::crc32c(&frame[..HEADER_CHECKSUM_OFFSET]);
    frame[HEADER_CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Gives a frame without a tail the head checksum that goes with its changed head. [`set_correlation`] must follow.
pub(crate) fn set_head_checksum(frame: &mut [u8]) {
    let checksum = crc32c::crc32c(&frame[HEADER_BYTES..]);
    frame[HEAD_CHECKSUM_OFFSET..HEADER_CHECKSUM_OFFSET].copy_from_slice(&checksum.to_le_bytes());
}
