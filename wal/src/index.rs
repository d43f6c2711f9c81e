//! Where the records of each group are: one compact location per live entry.
//!
//! Data path 6a/9 and 6b/9.
//! Invariants: the entries of a group are contiguous from `first`; a location names segment, offset and batch, so that a
//! stale one can be told from a current one.
//! It holds no bytes and no terms.

use crate::locations::Locations;
use crate::record::{Beginning, HardState, SnapshotMark};

/// Where one record is. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Low 32 bits of the segment id.
    segment: u32,
    /// Offset in the file, in units of eight bytes.
    offset_words: u32,
    length: u32,
    /// Low 32 bits of the batch sequence.
    batch: u32,
}

const _: () = assert!(size_of::<Location>() == 16);

impl Location {
    pub(crate) fn new(segment_id: u64, offset: u64, length: u32, sequence: u64) -> Self {
        Self { segment: segment_id as u32, offset_words: (offset / 8) as u32, length, batch: sequence as u32 }
    }

    /// Byte offset in the segment's file.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_words) * 8
    }

    /// Record bytes without padding.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// Record bytes with padding.
    pub(crate) fn padded(&self) -> usize {
        (self.length as usize).next_multiple_of(8)
    }

    pub(crate) fn is_in(&self, segment_id: u64) -> bool {
        self.segment == segment_id as u32
    }

    /// Whether it is in the same segment as `other`.
    pub(crate) fn is_in_segment_of(&self, other: &Self) -> bool {
        self.segment == other.segment
    }

    /// The full segment id, given one that is less than 2^31 away.
    pub(crate) fn segment_id(&self, near: u64) -> u64 {
        let distance = self.segment.wrapping_sub(near as u32) as i32;
        near.wrapping_add_signed(i64::from(distance))
    }

    /// How many batches after `sequence` this one's is.
    pub(crate) fn batches_after(&self, sequence: u64) -> usize {
        self.batch.wrapping_sub(sequence as u32) as usize
    }

    /// Whether its batch is at or before `durable_sequence` (less than 2^31 batches away).
    pub(crate) fn is_durable(&self, durable_sequence: u64) -> bool {
        self.batch.wrapping_sub(durable_sequence as u32) as i32 <= 0
    }

    pub(crate) fn is_of_batch(&self, sequence: u64) -> bool {
        self.batch == sequence as u32
    }
}

/// The live entries, the latest hard state and beginning and the newest snapshot marks of one group.
#[derive(Debug)]
pub(crate) struct GroupIndex {
    /// Index of the first location, or of the next entry if there is none.
    pub(crate) first: u64,
    pub(crate) locations: Locations,
    pub(crate) hard_state: Option<HardState>,
    /// Oldest first.
    pub(crate) marks: Vec<SnapshotMark>,
    pub(crate) beginning: Option<Beginning>,
    /// Batch of the newest mark or beginning.
    pub(crate) mark_sequence: u64,
    /// Batch and place of this group's summary in the open batch.
    pub(crate) summary: (u64, u32),
}

impl Default for GroupIndex {
    fn default() -> Self {
        let (locations, marks) = (Locations::default(), Vec::new());
        Self { first: 1, locations, hard_state: None, marks, beginning: None, mark_sequence: 0, summary: (0, 0) }
    }
}

impl GroupIndex {
    /// Index behind the last entry.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.locations.len() as u64
    }

    /// The last entry that the newest snapshot mark covers, 0 if there is none.
    pub(crate) fn covered(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.index)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Location> {
        self.locations.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        if self.locations.is_empty() { None } else { Some((self.first, self.next() - 1)) }
    }
}
