//! The header of a flush batch.
//!
//! Data path 6a/9.
//!
//! ```text
//!  0       4         6       8            16         24                 32             36
//!  | magic | version | flags | segment_id | sequence | durable_sequence | block_offset | body_length |
//!  40            44             48             52         56              60           64
//!  | records_crc | record_count | previous_crc | identity | live_segments | header_crc |  records ...
//! ```
//!
//! What each field protects against stands in `FORMAT.md`. Invariant: `durable_sequence < sequence`.
//! `records_crc` is the CRC32C over the first eight bytes (checksum and length) of every record in order: with the
//! records' own checksums it covers every byte of the body, and no byte is read twice to compute it.
//! It knows nothing of files and order; `recovery` does.

use crate::record::{self, read_u32, read_u64};

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 64;
/// First bytes of every batch.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RWAL");
/// Version of the format.
pub const VERSION: u16 = 1;
/// This batch is the first of its segment.
pub const FLAG_FIRST: u16 = 1;
/// This batch is the last of its segment; its record names the next one.
pub const FLAG_SEAL: u16 = 2;

const HEADER_CRC_AT: usize = 60;
const _: () = assert!(HEADER_CRC_AT + 4 == HEADER_BYTES);

/// A decoded batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Format version.
    pub version: u16,
    /// [`FLAG_FIRST`], [`FLAG_SEAL`].
    pub flags: u16,
    /// The segment this batch belongs to; a file gets a new one each time it is used again.
    pub segment_id: u64,
    /// Position of this batch in the WAL, from 1.
    pub sequence: u64,
    /// The highest batch that was durable when this one was submitted.
    pub durable_sequence: u64,
    /// First block of this batch in its file.
    pub block_offset: u32,
    /// Bytes of all records.
    pub body_length: u32,
    /// Checksum over the records' checksums and lengths.
    pub records_crc: u32,
    /// Number of records.
    pub record_count: u32,
    /// Header checksum of the batch before.
    pub previous_crc: u32,
    /// Checksum of the WAL's identity (cluster, node, shard).
    pub identity: u32,
    /// `segment_id` minus the oldest segment that is still needed.
    pub live_segments: u32,
    /// Checksum of the header.
    pub header_crc: u32,
}

/// Why a block does not begin a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// All zeros, or other bytes that do not begin with the magic.
    NotABatch {
        /// Whether the whole block is zero.
        zero: bool,
    },
    /// The header's checksum does not match.
    Checksum,
    /// The header is intact but of another format version.
    Version(u16),
    /// The header is intact but contradicts itself.
    Contradiction,
}

impl BatchHeader {
    /// Reads and checks the header at the start of a block.
    ///
    /// # Errors
    /// What keeps the block from being the start of a batch.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() < HEADER_BYTES || read_u32(block, 0) != MAGIC {
            return Err(HeaderError::NotABatch { zero: block.iter().all(|byte| *byte == 0) });
        }
        let header_crc = read_u32(block, HEADER_CRC_AT);
        if crc32c::crc32c(&block[..HEADER_CRC_AT]) != header_crc {
            return Err(HeaderError::Checksum);
        }
        let header = Self {
            version: u16::from_le_bytes([block[4], block[5]]),
            flags: u16::from_le_bytes([block[6], block[7]]),
            segment_id: read_u64(block, 8),
            sequence: read_u64(block, 16),
            durable_sequence: read_u64(block, 24),
            block_offset: read_u32(block, 32),
            body_length: read_u32(block, 36),
            records_crc: read_u32(block, 40),
            record_count: read_u32(block, 44),
            previous_crc: read_u32(block, 48),
            identity: read_u32(block, 52),
            live_segments: read_u32(block, 56),
            header_crc,
        };
        if header.version != VERSION {
            return Err(HeaderError::Version(header.version));
        }
        let first = header.flags & FLAG_FIRST != 0;
        let sound = header.durable_sequence < header.sequence
            && u64::from(header.live_segments) < header.segment_id
            && first == (header.block_offset == 0);
        if sound { Ok(header) } else { Err(HeaderError::Contradiction) }
    }

    /// Writes the header to the start of `out` and returns its checksum.
    pub(crate) fn encode(&self, out: &mut [u8]) -> u32 {
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.segment_id.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable_sequence.to_le_bytes());
        let words = [
            self.block_offset,
            self.body_length,
            self.records_crc,
            self.record_count,
            self.previous_crc,
            self.identity,
            self.live_segments,
        ];
        for (place, word) in words.iter().enumerate() {
            out[32 + 4 * place..36 + 4 * place].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// The oldest segment that was needed when this batch was submitted.
    #[must_use]
    pub fn live_segment(&self) -> u64 {
        self.segment_id - u64::from(self.live_segments)
    }

    /// Bytes of header and records, without the zeros up to the block's end.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_length)
    }

    /// Blocks this batch takes.
    #[must_use]
    pub fn blocks(&self, block_bytes: usize) -> u64 {
        self.used_bytes().div_ceil(block_bytes as u64)
    }
}

/// Adds one record to the digest of a batch's records.
pub(crate) fn digest(crc: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, &record[..8])
}

/// Counts and digests the verified records of `body`.
pub(crate) fn digest_all(body: &[u8]) -> u32 {
    let (mut crc, mut offset) = (0, 0);
    while offset < body.len() {
        crc = digest(crc, &body[offset..]);
        offset += record::padded_record_length(&body[offset..]);
    }
    crc
}
