//! `wal.meta`: whose WAL a folder is and how many segment files there are.
//!
//! Off the data path.
//!
//! ```text
//!  0             8         10    12            16              24           28    32        48     56      60
//!  | "RWALMETA" | version | 0   | block_bytes | segment_bytes | file_count | 0   | cluster | node | shard | crc32c |
//! ```
//!
//! Two such copies, at 0 and at 4096, in a file of 8192 bytes that is replaced whole (written aside, flushed, renamed,
//! directory flushed) before a new segment file is used: a missing segment file is always noticed.

use crate::config::{Identity, ValidConfig};
use crate::record::{read_u32, read_u64};
use crate::recovery::RecoveryError;

/// Name of the file.
pub const FILE_NAME: &str = "wal.meta";
/// Bytes of the file.
pub const FILE_BYTES: usize = 2 * COPY_BYTES;

const COPY_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"RWALMETA";
const VERSION: u16 = 1;
const CRC_AT: usize = 60;

/// The content of `wal.meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Whose WAL.
    pub identity: Identity,
    /// Unit of direct I/O.
    pub block_bytes: u32,
    /// Size of each segment file.
    pub segment_bytes: u64,
    /// Segment files that were made.
    pub file_count: u32,
}

impl Meta {
    /// The content for a WAL of this configuration.
    #[must_use]
    pub fn new(config: &ValidConfig, file_count: u32) -> Self {
        Self {
            identity: *config.identity(),
            block_bytes: config.block_bytes as u32,
            segment_bytes: config.segment_bytes,
            file_count,
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut file = vec![0; FILE_BYTES];
        for start in [0, COPY_BYTES] {
            let copy = &mut file[start..start + COPY_BYTES];
            copy[0..8].copy_from_slice(MAGIC);
            copy[8..10].copy_from_slice(&VERSION.to_le_bytes());
            copy[12..16].copy_from_slice(&self.block_bytes.to_le_bytes());
            copy[16..24].copy_from_slice(&self.segment_bytes.to_le_bytes());
            copy[24..28].copy_from_slice(&self.file_count.to_le_bytes());
            copy[32..48].copy_from_slice(&self.identity.cluster);
            copy[48..56].copy_from_slice(&self.identity.node.to_le_bytes());
            copy[56..60].copy_from_slice(&self.identity.shard.to_le_bytes());
            let crc = crc32c::crc32c(&copy[..CRC_AT]);
            copy[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        }
        file
    }

    /// Reads the file: the first copy that is intact.
    ///
    /// # Errors
    /// Both copies are damaged, or it was written by another version.
    pub fn decode(file: &[u8]) -> Result<Self, RecoveryError> {
        let copies = [0, COPY_BYTES].map(|start| file.get(start..start + CRC_AT + 4));
        let intact = copies
            .into_iter()
            .flatten()
            .find(|copy| &copy[0..8] == MAGIC && crc32c::crc32c(&copy[..CRC_AT]) == read_u32(copy, CRC_AT));
        let copy = intact.ok_or(RecoveryError::Meta)?;
        let version = u16::from_le_bytes([copy[8], copy[9]]);
        if version != VERSION {
            return Err(RecoveryError::MetaVersion { version });
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&copy[32..48]);
        Ok(Self {
            identity: Identity { cluster, node: read_u64(copy, 48), shard: read_u32(copy, 56) },
            block_bytes: read_u32(copy, 12),
            segment_bytes: read_u64(copy, 16),
            file_count: read_u32(copy, 24),
        })
    }

    /// Checks that the folder is the one the configuration means.
    ///
    /// # Errors
    /// Another identity, or other sizes than it was made with.
    pub fn check(&self, config: &ValidConfig) -> Result<(), RecoveryError> {
        if self.identity != *config.identity() {
            let (found, configured) = (Box::new(self.identity), Box::new(*config.identity()));
            return Err(RecoveryError::Identity { found, configured });
        }
        let sizes = [
            ("wal.block_bytes", u64::from(self.block_bytes), config.block_bytes as u64),
            ("wal.segment_bytes", self.segment_bytes, config.segment_bytes),
        ];
        for (field, found, configured) in sizes {
            if found != configured {
                return Err(RecoveryError::Geometry { field, found, configured });
            }
        }
        Ok(())
    }
}
