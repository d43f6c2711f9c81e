//! The WAL's section of the configuration: every field with its unit, default and bounds, declared once.
//!
//! Off the data path.
//! Invariant: everything that takes a [`ValidConfig`] may rely on the bounds checked in [`Config::validate`].

use crate::batch;
use crate::open_batch::hard_state_bytes;
use crate::record::{self, BEGINNING_BYTES, SNAPSHOT_MARK_BYTES};
use crate::snapshots::MARKS_MAX;

/// Blocks of the last segment that are kept from entries when no other segment is ready.
const RESERVED_BLOCKS_MAX: u64 = 64;

/// Whose WAL this is. A directory of another identity is refused, and so is every batch of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The node.
    pub node: u64,
    /// The shard of the node.
    pub shard: u32,
}

impl Identity {
    /// The identity as it stands in every batch header.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let crc = crc32c::crc32c(&self.cluster);
        let crc = crc32c::crc32c_append(crc, &self.node.to_le_bytes());
        crc32c::crc32c_append(crc, &self.shard.to_le_bytes())
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "cluster ")?;
        for byte in self.cluster {
            write!(formatter, "{byte:02x}")?;
        }
        write!(formatter, ", node {}, shard {}", self.node, self.shard)
    }
}

/// The WAL's configuration. `block_bytes` and `segment_bytes` are fixed when a WAL is created; the rest may change with
/// a restart and may differ between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Unit of direct I/O; batches are whole numbers of it. Default 4096; a power of two, 512 to 65,536.
    pub block_bytes: usize,
    /// Size of a segment file. Default 64 MiB; a multiple of `block_bytes`, at least 16 blocks, at most 16 GiB.
    pub segment_bytes: u64,
    /// Segment files at most, the bound of the WAL's disk space. Default 4,096; 2 to 65,536.
    pub segments_max: u32,
    /// Segments kept ready ahead of need. Default 2; 1 to 64.
    pub segments_ready: u32,
    /// A batch grows up to this. Default 1 MiB; at least 2 blocks, at most half a segment.
    pub batch_bytes_max: usize,
    /// The longest record, header included. Default 4 MiB + 64 KiB; at most 16 MiB and what fits in a segment.
    pub record_bytes_max: usize,
    /// Batches written at the same time. Default 2; 1 to 64.
    pub flushes_in_flight_max: usize,
    /// Bytes of records that may wait for a flush. Default 32 MiB; at least `record_bytes_max` + `batch_bytes_max`.
    pub backlog_bytes_max: usize,
    /// Bytes of recent batches kept in memory as the entry cache. Default 128 MiB; any. They stand in chunks of 1 MiB,
    /// of which up to an eighth stays empty; the newest chunk and one to be filled again come on top.
    pub cache_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            segment_bytes: 64 << 20,
            segments_max: 4096,
            segments_ready: 2,
            batch_bytes_max: 1 << 20,
            record_bytes_max: (4 << 20) + (64 << 10),
            flushes_in_flight_max: 2,
            backlog_bytes_max: 32 << 20,
            cache_bytes_max: 128 << 20,
        }
    }
}

/// A configuration value out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wal.{field} = {value} is out of bounds: {bounds}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What is allowed.
    pub bounds: &'static str,
}

/// A configuration whose bounds were checked, with the identity of the WAL it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidConfig {
    config: Config,
    identity: Identity,
}

impl std::ops::Deref for ValidConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl ValidConfig {
    /// Whose WAL this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Blocks of a segment.
    #[must_use]
    pub fn segment_blocks(&self) -> u64 {
        self.segment_bytes / self.block_bytes as u64
    }

    /// Whether entry records of `bytes` in all (padding included) fit in an empty segment of a WAL with so many groups. Each
    /// batch may carry what is known of all of them; what does not fit is never taken.
    #[must_use]
    pub fn segment_takes(&self, bytes: usize, groups: usize) -> bool {
        self.blocks_of_entries(bytes, groups) + self.reserved_blocks() < self.segment_blocks()
    }

    /// Blocks that entry records of `bytes` in all take at most.
    pub(crate) fn blocks_of_entries(&self, bytes: usize, groups: usize) -> u64 {
        let batches = bytes / (self.batch_bytes_max / 2) + 2;
        let batch_bytes = batch::HEADER_BYTES + 2 * self.block_bytes;
        self.blocks(bytes + self.carried_bytes_max(groups) + batches * batch_bytes)
    }

    /// Bytes that hard states, snapshot marks and beginnings of so many groups add to a batch at most.
    pub(crate) fn carried_bytes_max(&self, groups: usize) -> usize {
        let carried = MARKS_MAX * SNAPSHOT_MARK_BYTES + BEGINNING_BYTES;
        hard_state_bytes(groups, groups, self.block_bytes) + groups * carried
    }

    pub(crate) fn reserved_blocks(&self) -> u64 {
        (self.segment_blocks() / 8).min(RESERVED_BLOCKS_MAX)
    }

    pub(crate) fn blocks(&self, bytes: usize) -> u64 {
        bytes.div_ceil(self.block_bytes) as u64
    }
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn validate(self, identity: Identity) -> Result<ValidConfig, ConfigError> {
        let block = self.block_bytes;
        let sizes_fit = block.is_power_of_two() && (512..=65_536).contains(&block);
        check(sizes_fit, "block_bytes", block as u64, "a power of two from 512 to 65,536")?;
        let segment = self.segment_bytes;
        let segment_fits =
            segment.is_multiple_of(block as u64) && segment >= 16 * block as u64 && segment <= 16_u64 << 30;
        check(segment_fits, "segment_bytes", segment, "a multiple of block_bytes, at least 16 blocks, at most 16 GiB")?;
        let files = self.segments_max;
        check((2..=65_536).contains(&files), "segments_max", u64::from(files), "from 2 to 65,536")?;
        let ready = self.segments_ready;
        check((1..=64).contains(&ready), "segments_ready", u64::from(ready), "from 1 to 64")?;
        let batch = self.batch_bytes_max;
        let batch_fits = batch >= 2 * block && batch as u64 <= segment / 2;
        check(batch_fits, "batch_bytes_max", batch as u64, "at least 2 blocks, at most half of segment_bytes")?;
        let record = self.record_bytes_max;
        let overhead = batch::HEADER_BYTES + 4 * block;
        let record_fits =
            record > record::HEADER_BYTES && record <= record::LENGTH_MAX && (record + overhead) as u64 <= segment;
        check(record_fits, "record_bytes_max", record as u64, "33 to 16 MiB, at most segment_bytes less 5 blocks")?;
        let flushes = self.flushes_in_flight_max;
        check((1..=64).contains(&flushes), "flushes_in_flight_max", flushes as u64, "from 1 to 64")?;
        let backlog = self.backlog_bytes_max;
        check(backlog >= record + batch, "backlog_bytes_max", backlog as u64, "record_bytes_max + batch_bytes_max")?;
        Ok(ValidConfig { config: self, identity })
    }
}

fn check(fits: bool, field: &'static str, value: u64, bounds: &'static str) -> Result<(), ConfigError> {
    if fits { Ok(()) } else { Err(ConfigError { field, value, bounds }) }
}
