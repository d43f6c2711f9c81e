//! Which segment files hold the log, which are free, and where the next batch goes.
//!
//! Data path 6a/9.
//!
//! ```text
//!   free (ready) --take--> log (active) --seal--> log --no live entries--> free (undeclared)
//!        ^                                                                      |
//!        +------ the batch that says so in its header is durable <-- declare ---+
//! ```
//!
//! Invariants: `log` is ordered by segment id and its last element is the active segment; a free file is written only
//! after a batch that declares its segment dead is durable; the last block of every segment is kept for its seal.
//! It does no I/O and knows no groups.

use std::collections::VecDeque;

use crate::config::ValidConfig;
use crate::disk::{FileNumber, Ticket};
use crate::recovery::{Cursor, Recovered};

/// A segment of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) file: FileNumber,
    pub(crate) live_entries: u64,
}

/// When a free file may be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reusable {
    Now,
    /// When this batch is durable: it declares the segment dead.
    After(u64),
    /// No batch that declares it was closed yet.
    Undeclared,
}

/// A segment to write next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextSegment {
    pub(crate) file: FileNumber,
    pub(crate) id: u64,
    /// Nothing may be written to it before this batch is durable.
    pub(crate) submit_after: u64,
}

/// The segments of a WAL.
#[derive(Debug)]
pub(crate) struct Segments {
    log: VecDeque<Segment>,
    free: VecDeque<(FileNumber, Reusable)>,
    next_id: u64,
    file_count: u32,
    segment_blocks: u64,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) creating: Option<(Ticket, FileNumber)>,
    /// The last attempt to create a file met a full disk.
    no_space: bool,
    /// Ticks until the next attempt after that.
    retry_ticks: u32,
}

/// Pause between two attempts to create a file on a full disk: each one takes and gives back what little space there is.
const RETRY_TICKS: u32 = 8;

impl Segments {
    pub(crate) fn new(config: &ValidConfig, recovered: &Recovered) -> Self {
        let log = recovered.segments.iter();
        Self {
            log: log.map(|segment| Segment { id: segment.id, file: segment.file, live_entries: 0 }).collect(),
            free: recovered.free_files.iter().map(|file| (*file, Reusable::Now)).collect(),
            next_id: recovered.next_segment_id,
            file_count: recovered.file_count,
            segment_blocks: config.segment_blocks(),
            cursor: recovered.cursor,
            creating: None,
            no_space: false,
            retry_ticks: 0,
        }
    }

    /// Blocks batches may take in the active segment; the seal's is not among them.
    pub(crate) fn blocks_left(&self) -> u64 {
        self.cursor.map_or(0, |cursor| (self.segment_blocks - cursor.next_block).saturating_sub(1))
    }

    /// The id of the oldest segment that is still needed.
    pub(crate) fn live_id(&self) -> u64 {
        self.log.front().map_or(self.next_id, |segment| segment.id)
    }

    pub(crate) fn log(&self) -> &VecDeque<Segment> {
        &self.log
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn file_count(&self) -> u32 {
        self.file_count
    }

    fn find(&mut self, segment_id: u64) -> Option<&mut Segment> {
        let place = self.log.binary_search_by_key(&segment_id, |segment| segment.id).ok()?;
        self.log.get_mut(place)
    }

    pub(crate) fn file_of(&self, segment_id: u64) -> Option<FileNumber> {
        let place = self.log.binary_search_by_key(&segment_id, |segment| segment.id).ok()?;
        Some(self.log[place].file)
    }

    /// The highest id in use; every location's segment is near it.
    pub(crate) fn newest_id(&self) -> u64 {
        self.log.back().map_or(self.next_id, |segment| segment.id)
    }

    pub(crate) fn add_live(&mut self, segment_id: u64) {
        if let Some(segment) = self.find(segment_id) {
            segment.live_entries += 1;
        }
    }

    pub(crate) fn remove_live(&mut self, segment_id: u64, count: u64) {
        if let Some(segment) = self.find(segment_id) {
            assert!(segment.live_entries >= count, "an entry of segment {segment_id} was removed twice");
            segment.live_entries -= count;
        }
    }

    /// Moves the oldest segments without live entries to the free ones, in order. The newest segment stays: it holds the
    /// hard states. Returns how many moved.
    pub(crate) fn release_dead(&mut self) -> usize {
        let mut released = 0;
        while self.log.len() > 1
            && let Some(first) = self.log.front()
            && first.live_entries == 0
        {
            self.free.push_back((first.file, Reusable::Undeclared));
            self.log.pop_front();
            released += 1;
        }
        released
    }

    /// The batch `sequence` was closed with the present [`Segments::live_id`] in its header.
    pub(crate) fn declare(&mut self, sequence: u64) {
        for (_, reusable) in &mut self.free {
            if *reusable == Reusable::Undeclared {
                *reusable = Reusable::After(sequence);
            }
        }
    }

    pub(crate) fn on_durable(&mut self, durable_sequence: u64) {
        for (_, reusable) in &mut self.free {
            if matches!(*reusable, Reusable::After(sequence) if sequence <= durable_sequence) {
                *reusable = Reusable::Now;
            }
        }
    }

    /// Whether a segment could be begun now. One whose death no batch has declared yet needs a seal to do so, and a seal
    /// needs an active segment.
    pub(crate) fn can_roll(&self) -> bool {
        self.free.iter().any(|(_, reusable)| self.cursor.is_some() || *reusable != Reusable::Undeclared)
    }

    /// Picks the next segment without taking it. `seal_sequence`: the batch that will seal the active segment, if there is
    /// one.
    pub(crate) fn next_segment(&self, seal_sequence: Option<u64>) -> Option<(usize, NextSegment)> {
        let waits = |reusable: &Reusable| match *reusable {
            Reusable::Now => Some(0),
            Reusable::After(sequence) => Some(sequence),
            Reusable::Undeclared => seal_sequence,
        };
        let candidates = self.free.iter().enumerate();
        let (place, file, submit_after) = candidates
            .filter_map(|(place, (file, reusable))| Some((place, *file, waits(reusable)?)))
            .min_by_key(|(place, _, submit_after)| (*submit_after, *place))?;
        Some((place, NextSegment { file, id: self.next_id, submit_after }))
    }

    /// Makes the picked segment the active one.
    pub(crate) fn begin(&mut self, place: usize, next: NextSegment) {
        self.free.remove(place);
        self.next_id += 1;
        self.log.push_back(Segment { id: next.id, file: next.file, live_entries: 0 });
        self.cursor = Some(Cursor { segment_id: next.id, file: next.file, next_block: 0 });
    }

    /// Whether another file should be made now.
    pub(crate) fn wants_file(&self, config: &ValidConfig) -> bool {
        self.creating.is_none()
            && self.retry_ticks == 0
            && self.free.len() < config.segments_ready as usize
            && self.file_count < config.segments_max
    }

    pub(crate) fn file_created(&mut self, file: FileNumber) {
        self.file_count = file.0 + 1;
        self.free.push_back((file, Reusable::Now));
        self.no_space = false;
    }

    /// The disk has no space for another file.
    pub(crate) fn creation_refused(&mut self) {
        self.no_space = true;
        self.retry_ticks = RETRY_TICKS;
    }

    /// One tick of the host's time.
    pub(crate) fn tick(&mut self) {
        self.retry_ticks = self.retry_ticks.saturating_sub(1);
    }

    /// Whether a file is needed and the disk has no space for it.
    pub(crate) fn disk_full(&self, config: &ValidConfig) -> bool {
        self.no_space && self.free.len() < config.segments_ready as usize
    }
}
