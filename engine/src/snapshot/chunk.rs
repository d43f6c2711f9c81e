//! One chunk: its header, how long it is, where it stands in a file, and what can be wrong with it.
//!
//! Off the data path.
//!
//! ```text
//!  0       4        8         10     11  12               16      20         24           32          40         48
//!  | magic | crc32c | version | kind | 0 | payload_length | group | head_crc | last_index | last_term | sequence | payload | zeros
//! ```
//! Invariants: the checksum covers everything behind it up to the payload's end, the zeros behind are checked one by one;
//! a chunk has a whole number of blocks, the fewest that hold it.
//! It does not know which chunk should come; `reader` does.

use std::ops::Range;

use ringraft_raft::EntryId;

use super::head::HeadProblem;

/// Unit of direct I/O: chunks are whole numbers of it.
pub const BLOCK_BYTES: usize = 4_096;
/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 48;
/// First bytes of every chunk.
pub(super) const MAGIC: [u8; 4] = *b"RSNP";
/// Version of the format, the records in the stream included.
pub(super) const VERSION: u16 = 1;
/// Bytes of the payload of the end.
pub(super) const END_BYTES: usize = 24;
/// The checksum covers what is behind this place.
const CHECKED_FROM: usize = 8;

/// Bytes of a full data chunk, header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkBytes(u32);

impl ChunkBytes {
    /// The longest: a peer's frame holds it.
    pub const MAX: Self = Self(4 << 20);

    /// A whole number of blocks, up to [`ChunkBytes::MAX`]; nothing else is a chunk size.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        let blocks = bytes / BLOCK_BYTES as u32;
        (blocks > 0 && blocks * BLOCK_BYTES as u32 == bytes && bytes <= Self::MAX.0).then_some(Self(bytes))
    }

    /// The number of bytes.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }

    /// Bytes of the stream in a full data chunk.
    #[must_use]
    pub fn payload_bytes(self) -> usize {
        self.get() - HEADER_BYTES
    }
}

impl Default for ChunkBytes {
    fn default() -> Self {
        Self(256 << 10)
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Data = 2,
    End = 3,
}

/// The header without what is the same in every chunk, and without the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) group: u32,
    /// Checksum of the snapshot's head; 0 in the head itself.
    pub(super) head_crc: u32,
    pub(super) last: EntryId,
    pub(super) sequence: u64,
}

impl Header {
    /// Writes the header into its room at the start of `chunk`, whose payload stands behind it, and appends the zeros.
    /// Answers the checksum.
    pub(super) fn seal(&self, chunk: &mut Vec<u8>) -> u32 {
        let payload_bytes = (chunk.len() - HEADER_BYTES) as u32;
        chunk[0..4].copy_from_slice(&MAGIC);
        chunk[8..10].copy_from_slice(&VERSION.to_le_bytes());
        chunk[10..12].copy_from_slice(&[self.kind as u8, 0]);
        for (place, word) in [payload_bytes, self.group, self.head_crc].into_iter().enumerate() {
            chunk[12 + 4 * place..16 + 4 * place].copy_from_slice(&word.to_le_bytes());
        }
        for (place, word) in [self.last.index, self.last.term, self.sequence].into_iter().enumerate() {
            chunk[24 + 8 * place..32 + 8 * place].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&chunk[CHECKED_FROM..]);
        chunk[4..8].copy_from_slice(&crc.to_le_bytes());
        chunk.resize(chunk.len().next_multiple_of(BLOCK_BYTES), 0);
        crc
    }

    /// Reads and checks one whole chunk: its header, its checksum, its payload.
    pub(super) fn open(chunk: &[u8]) -> Result<(Self, u32, &[u8]), ChunkProblem> {
        let expected = chunk_length(chunk)?;
        if chunk.len() != expected {
            return Err(ChunkProblem::Size { bytes: chunk.len(), expected });
        }
        let (content, zeros) = chunk.split_at(HEADER_BYTES + read_u32(chunk, 12) as usize);
        let (found, computed) = (read_u32(chunk, 4), crc32c::crc32c(&content[CHECKED_FROM..]));
        if found != computed {
            return Err(ChunkProblem::Checksum { found, computed });
        }
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(ChunkProblem::Padding);
        }
        let version = u16::from_le_bytes([chunk[8], chunk[9]]);
        if version != VERSION {
            return Err(ChunkProblem::Version(version));
        }
        let kind = match [chunk[10], chunk[11]] {
            [1, 0] => Kind::Head,
            [2, 0] => Kind::Data,
            [3, 0] => Kind::End,
            _ => return Err(ChunkProblem::Kind(chunk[10])),
        };
        let last = EntryId { index: read_u64(chunk, 24), term: read_u64(chunk, 32) };
        let (group, head_crc, sequence) = (read_u32(chunk, 16), read_u32(chunk, 20), read_u64(chunk, 40));
        Ok((Self { kind, group, head_crc, last, sequence }, found, &content[HEADER_BYTES..]))
    }
}

/// Bytes of the chunk at the start of `bytes`, of which the header must be there; what else there is of it is not looked
/// at, and may still be found wrong.
///
/// # Errors
/// When no chunk begins there.
pub fn chunk_length(bytes: &[u8]) -> Result<usize, ChunkProblem> {
    if bytes.len() < HEADER_BYTES {
        return Err(ChunkProblem::Size { bytes: bytes.len(), expected: BLOCK_BYTES });
    }
    if bytes[..4] != MAGIC {
        return Err(ChunkProblem::Magic { zero: bytes.iter().all(|byte| *byte == 0) });
    }
    let payload_bytes = read_u32(bytes, 12);
    let chunk_bytes = (HEADER_BYTES as u64 + u64::from(payload_bytes)).next_multiple_of(BLOCK_BYTES as u64);
    if chunk_bytes > ChunkBytes::MAX.get() as u64 {
        return Err(ChunkProblem::Length { payload_bytes });
    }
    Ok(chunk_bytes as usize)
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

/// Where the chunks of a whole file stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    chunk_bytes: ChunkBytes,
    data_bytes: u64,
}

impl Layout {
    /// That of a file of `file_bytes`; none when no snapshot has this length.
    #[must_use]
    pub fn new(chunk_bytes: ChunkBytes, file_bytes: u64) -> Option<Self> {
        let data_bytes = file_bytes.checked_sub(2 * BLOCK_BYTES as u64)?;
        data_bytes.is_multiple_of(BLOCK_BYTES as u64).then_some(Self { chunk_bytes, data_bytes })
    }

    /// Chunks of the file, head and end included.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        2 + self.data_bytes.div_ceil(self.chunk_bytes.get() as u64)
    }

    /// The bytes of chunk `sequence`, if there is such a one.
    #[must_use]
    pub fn place(&self, sequence: u64) -> Option<Range<u64>> {
        let (block, chunk) = (BLOCK_BYTES as u64, self.chunk_bytes.get() as u64);
        let data_end = block + self.data_bytes;
        if sequence == 0 {
            return Some(0..block);
        }
        match self.chunks().checked_sub(sequence)? {
            0 => None,
            1 => Some(data_end..data_end + block),
            _ => {
                let start = block + (sequence - 1) * chunk;
                Some(start..data_end.min(start + chunk))
            }
        }
    }
}

/// Why a chunk is not the next one of its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is wrong in chunk {sequence} (at byte {offset}): {problem}")]
pub struct ChunkError {
    /// Number of the chunk that should have come.
    pub sequence: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// What is wrong.
    pub problem: ChunkProblem,
}

impl ChunkError {
    /// The bytes were damaged or came out of order; the right ones, sent again, will do.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use ChunkProblem::*;
        matches!(self.problem, Size { .. } | Magic { .. } | Length { .. } | Checksum { .. } | Padding | Sequence { .. })
    }

    /// Another snapshot may do.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        false
    }
}

/// What is wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkProblem {
    /// Not as many bytes as its header says.
    #[error("{bytes} bytes where the chunk has {expected}")]
    Size {
        /// Those there are.
        bytes: usize,
        /// Those there should be.
        expected: usize,
    },
    /// Other bytes than the first ones of a chunk.
    #[error("no chunk begins here{}", if *zero { ", all is zero" } else { "" })]
    Magic {
        /// Whether all of them are zero.
        zero: bool,
    },
    /// More payload than any chunk has.
    #[error("its header claims a payload of {payload_bytes} bytes")]
    Length {
        /// The claim.
        payload_bytes: u32,
    },
    /// Some of the bytes are not those that were written.
    #[error("its checksum is {found:08x} but its bytes give {computed:08x}")]
    Checksum {
        /// As it stands there.
        found: u32,
        /// As it should be.
        computed: u32,
    },
    /// Something stands between its payload and the end of its block.
    #[error("the room behind its payload is not zero")]
    Padding,
    /// Intact, and of another version.
    #[error("it is of format version {0}; this program knows version {VERSION}")]
    Version(u16),
    /// Intact, and of no known kind, or not of the kind that may come here.
    #[error("a chunk of kind {0} cannot be here")]
    Kind(u8),
    /// Intact, and not the next one.
    #[error("it is chunk {found}")]
    Sequence {
        /// The number it has.
        found: u64,
    },
    /// Intact, and of another snapshot.
    #[error("it is of another snapshot: {what} is {found}, not {expected}")]
    Other {
        /// What differs.
        what: &'static str,
        /// As it stands in the chunk.
        found: u64,
        /// As it should be.
        expected: u64,
    },
    /// Intact, and with too few or too many bytes for its place.
    #[error("its payload has {payload_bytes} bytes; a chunk here has {expected}")]
    Payload {
        /// As it is.
        payload_bytes: usize,
        /// As it should be.
        expected: usize,
    },
    /// A data chunk behind one that is not full.
    #[error("data behind the last data chunk")]
    BehindLast,
    /// The head is intact and says what cannot be.
    #[error("its head cannot be: {0}")]
    Head(HeadProblem),
    /// The end does not fit what came before it.
    #[error("its {what} is {found} but the chunks before give {expected}")]
    End {
        /// What differs.
        what: &'static str,
        /// As it stands there.
        found: u64,
        /// As it should be.
        expected: u64,
    },
    /// Nothing may follow the end.
    #[error("it stands behind the end")]
    BehindEnd,
}
