//! The WAL of one shard: cursors, batches, and what callers see of them.
//!
//! Data path 6a/9.
//!
//! ```text
//!   append ----> open batch --close--> closed batches --submit--> in flight --complete--> cached --evict--> pool
//!   accepted >=                        submitted >=               durable
//! ```
//!
//! Invariants: accepted >= submitted >= durable; batches are submitted and reported durable in order of their sequence;
//! after the first failed write nothing succeeds any more. The WAL decides and never waits: it hands operations to a
//! [`Disk`] and gets their ends through [`Wal::complete`].
//! It does not know what entries mean, nor time.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::buffers::Buffers;
use crate::config::ValidConfig;
use crate::disk::{Disk, DiskError, FileNumber, Ticket};
use crate::error::WalError;
use crate::index::GroupIndex;
use crate::open_batch::{ClosedBatch, Durable, OpenBatch};
use crate::packed::Packs;
use crate::reader::Reader;
use crate::record::{Beginning, HardState, SnapshotMark};
use crate::recovery::Recovered;
use crate::segments::Segments;
use crate::snapshots::SnapshotFiles;

/// What an append returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The batch that holds the record: it is durable when [`Wal::durable_sequence`] has reached this.
    pub sequence: u64,
    /// Bytes of the record, padding included.
    pub length: u32,
}

/// Where the bytes of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryBytes<'a> {
    /// In memory: the whole record with its padding.
    Cached(&'a [u8]),
    /// Only on disk: [`Wal::read_entries`].
    OnDisk,
    /// Not in the log.
    Missing,
}

/// Where a record stands in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The segment file.
    pub file: FileNumber,
    /// The first byte in it.
    pub offset: u64,
    /// The whole record with its padding.
    pub bytes: usize,
}

/// How large a flush batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Bytes written, header and padding included.
    pub bytes: usize,
    /// Records in it.
    pub records: u32,
}

/// Counters since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches that became durable.
    pub flushes: u64,
    /// Batches submitted.
    pub batches: u64,
    /// Bytes submitted, headers and padding included.
    pub bytes_written: u64,
    /// Bytes of records accepted, padding to 8 included.
    pub record_bytes: u64,
    /// Read operations submitted.
    pub reads: u64,
    /// Bytes of batches in memory.
    pub cache_bytes: usize,
    /// Segment files.
    pub files: u32,
    /// Segments that hold live entries, or may.
    pub segments: usize,
    /// Segments ready (or soon) to be written.
    pub pool_free: usize,
    /// Times a segment was used again.
    pub segments_recycled: u64,
    /// Times a segment was needed and none was ready.
    pub pool_empty: u64,
    /// The last attempt to make a segment met a full disk.
    pub disk_full: bool,
}

/// A closed batch, waiting, in flight, or kept as cache.
#[derive(Debug)]
pub(crate) struct Batch<D: Disk> {
    pub(crate) closed: ClosedBatch<D>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) done: bool,
}

/// A cached batch is seldom smaller. Room for as many is there from the start, not touched before it is used: a list that
/// grows by copying stands still meanwhile.
const CACHED_BATCH_BYTES: usize = 512;
const CACHED_BATCHES_MAX: usize = 1 << 17;

/// The write-ahead log of one shard.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    pub(crate) config: ValidConfig,
    pub(crate) identity: u32,
    pub(crate) groups: HashMap<u32, GroupIndex, foldhash::fast::FixedState>,
    pub(crate) segments: Segments,
    pub(crate) buffers: Buffers<D>,
    pub(crate) open: Option<OpenBatch<D>>,
    /// Closed batches, contiguous by sequence: cached ones first, then those in flight, then those waiting.
    pub(crate) batches: VecDeque<Batch<D>>,
    pub(crate) next_sequence: u64,
    pub(crate) submitted_sequence: u64,
    pub(crate) durable_sequence: u64,
    pub(crate) previous_crc: u32,
    /// Nothing may be written to the active segment before this batch is durable.
    pub(crate) segment_submit_after: u64,
    pub(crate) cache_bytes: usize,
    /// The cached batches that do without their buffers.
    pub(crate) packs: Packs,
    pub(crate) waiting_bytes: usize,
    pub(crate) next_ticket: u64,
    /// Marks behind the newest record.
    pub(crate) marks: u32,
    /// The newest batch at the last tick, and for how many ticks it has been durable and the newest.
    pub(crate) idle: (u64, u32),
    pub(crate) poison: Option<DiskError>,
    pub(crate) reader: Reader,
    pub(crate) snapshot_files: SnapshotFiles,
    pub(crate) spare_durables: Vec<Vec<Durable>>,
    pub(crate) stats: Stats,
}

impl<D: Disk> Wal<D> {
    /// Goes on from what recovery found; starts making segments ready.
    pub fn new(config: ValidConfig, recovered: Recovered, disk: &mut D) -> Self {
        let mut segments = Segments::new(&config, &recovered);
        let mut groups: HashMap<u32, GroupIndex, _> = HashMap::default();
        let newest = segments.newest_id();
        for (group, found) in recovered.groups {
            let index: &mut GroupIndex = groups.entry(group).or_default();
            index.hard_state = found.hard_state;
            index.first = found.first_index();
            index.marks = found.marks;
            index.beginning = found.beginning;
            for entry in found.entries {
                segments.add_live(entry.location.segment_id(newest));
                index.locations.push_back(entry.location);
            }
        }
        segments.release_dead();
        let batches = VecDeque::with_capacity((config.cache_bytes_max / CACHED_BATCH_BYTES).min(CACHED_BATCHES_MAX));
        let mut wal = Self {
            identity: config.identity().checksum(),
            buffers: Buffers::new(config.block_bytes),
            config,
            groups,
            segments,
            open: None,
            batches,
            next_sequence: recovered.next_sequence,
            submitted_sequence: recovered.next_sequence - 1,
            durable_sequence: recovered.next_sequence - 1,
            previous_crc: recovered.previous_crc,
            segment_submit_after: 0,
            cache_bytes: 0,
            packs: Packs::default(),
            waiting_bytes: 0,
            next_ticket: 1,
            marks: 0,
            idle: (0, 0),
            poison: None,
            reader: Reader::default(),
            snapshot_files: SnapshotFiles::default(),
            spare_durables: Vec::new(),
            stats: Stats::default(),
        };
        wal.make_segments(disk);
        wal
    }

    pub(crate) fn take_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// The batch the newest record is in.
    #[must_use]
    pub fn accepted_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// The last batch that was handed to the disk.
    #[must_use]
    pub fn submitted_sequence(&self) -> u64 {
        self.submitted_sequence
    }

    /// All batches up to this one are durable.
    #[must_use]
    pub fn durable_sequence(&self) -> u64 {
        self.durable_sequence
    }

    /// Whether records wait in the open batch.
    #[must_use]
    pub fn has_open_batch(&self) -> bool {
        self.open.is_some()
    }

    /// Batches handed to the disk and not yet known to be durable.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        (self.submitted_sequence - self.durable_sequence) as usize
    }

    /// The size of a closed batch that is still in memory, as every batch is until it is durable.
    #[must_use]
    pub fn batch_size(&self, sequence: u64) -> Option<BatchSize> {
        let first = self.batches.front()?.closed.place.sequence;
        let batch = self.batches.get(usize::try_from(sequence.checked_sub(first)?).ok()?)?;
        Some(BatchSize { bytes: batch.closed.length, records: batch.closed.header.record_count })
    }

    /// Whether a segment file is being made.
    #[must_use]
    pub fn is_making_segment(&self) -> bool {
        self.segments.creating.is_some()
    }

    /// Whether [`Wal::submit`] would hand a batch to the disk if there is one.
    #[must_use]
    pub fn can_submit(&self) -> bool {
        self.poison.is_none() && self.in_flight() < self.config.flushes_in_flight_max
    }

    /// Whether a write failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ValidConfig {
        &self.config
    }

    /// First and last index of a group's entries.
    #[must_use]
    pub fn entry_range(&self, group: u32) -> Option<(u64, u64)> {
        self.groups.get(&group)?.range()
    }

    /// The latest hard state accepted for a group.
    #[must_use]
    pub fn hard_state(&self, group: u32) -> Option<HardState> {
        self.groups.get(&group)?.hard_state
    }

    /// The newest two snapshot marks accepted for a group, oldest first.
    #[must_use]
    pub fn snapshot_marks(&self, group: u32) -> &[SnapshotMark] {
        self.groups.get(&group).map_or(&[], |known| &known.marks)
    }

    /// The latest beginning accepted for a group; `None`: its log never began anew.
    #[must_use]
    pub fn beginning(&self, group: u32) -> Option<Beginning> {
        self.groups.get(&group)?.beginning
    }

    /// Where the bytes of an entry are.
    #[must_use]
    pub fn entry_bytes(&self, group: u32, index: u64) -> EntryBytes<'_> {
        let Some(location) = self.groups.get(&group).and_then(|group| group.get(index)) else {
            return EntryBytes::Missing;
        };
        if let Some(open) = &self.open
            && location.is_of_batch(open.place.sequence)
        {
            return EntryBytes::Cached(open.record(location));
        }
        let Some(front) = self.batches.front() else { return EntryBytes::OnDisk };
        let cached = self.batches.get(location.batches_after(front.closed.place.sequence)).and_then(|batch| {
            let here = location.is_in(batch.closed.place.segment_id);
            if here { batch.closed.record(location, self.config.block_bytes, &self.packs) } else { None }
        });
        cached.map_or(EntryBytes::OnDisk, EntryBytes::Cached)
    }

    /// Where an entry stands, or will stand, on the disk.
    #[must_use]
    pub fn entry_place(&self, group: u32, index: u64) -> Option<RecordPlace> {
        let location = self.groups.get(&group)?.get(index)?;
        let file = self.segments.file_of(location.segment_id(self.segments.newest_id()))?;
        Some(RecordPlace { file, offset: location.offset(), bytes: location.padded() })
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            cache_bytes: self.cache_bytes,
            files: self.segments.file_count(),
            segments: self.segments.log().len(),
            pool_free: self.segments.free_count(),
            disk_full: self.segments.disk_full(&self.config),
            ..self.stats
        }
    }

    pub(crate) fn check_poison(&self) -> Result<(), WalError> {
        match &self.poison {
            None => Ok(()),
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
        }
    }
}
