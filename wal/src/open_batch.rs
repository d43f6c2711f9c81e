//! The batch that gathers records until it can be written.
//!
//! Data path 4/9 and 6a/9.
//! Records are built in place: the caller's bytes are copied once, into the buffer that is written to disk and kept as the
//! entry cache. Invariants: its place in the segment is fixed when it is opened, so locations are final at once; one hard
//! state per group, and when it is closed a second copy of each stands in other blocks than the first.
//! It does not touch the disk.

use std::rc::Rc;

use crate::append::Purpose;
use crate::batch::{self, BatchHeader, FLAG_FIRST, HEADER_BYTES, VERSION};
use crate::buffers::Buffers;
use crate::disk::{Disk, FileNumber};
use crate::index::Location;
use crate::packed::{Packed, Packs};
use crate::record::{
    self, BEGINNING_BYTES, Beginning, HARD_STATE_BYTES, HardState, RecordHeader, SNAPSHOT_MARK_BYTES, SnapshotMark,
};

/// What became durable of one group with one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The batch.
    pub sequence: u64,
    /// The group.
    pub group: u32,
    /// Term and index of the last entry of the group in the batch, behind a beginning or a snapshot mark that replaces the
    /// log if there is one.
    pub entry: Option<(u64, u64)>,
    /// Current term and vote, if the batch holds them.
    pub hard_state: Option<(u64, Option<u64>)>,
    /// Index of the newest snapshot mark in the batch, behind a beginning if there is one.
    pub snapshot: Option<u64>,
}

/// Where a new batch stands and how far it may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) segment_id: u64,
    pub(crate) file: FileNumber,
    pub(crate) block: u64,
    /// Blocks it may take at most.
    pub(crate) blocks_max: u64,
    /// Blocks it may take when a hard state is added: some are left for snapshot marks when no segment is ready.
    pub(crate) hard_state_blocks_max: u64,
    /// Blocks it may take when an entry is added: some are left for hard states when no segment is ready.
    pub(crate) entry_blocks_max: u64,
    pub(crate) submit_after: u64,
}

impl Place {
    pub(crate) fn blocks_max_for(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Entry => self.entry_blocks_max,
            Purpose::HardState => self.hard_state_blocks_max,
            Purpose::SnapshotMark => self.blocks_max,
        }
    }
}

/// The entry record that is being built at the end of the batch.
#[derive(Clone, Copy, Debug)]
struct Building {
    start: usize,
    payload_bytes: usize,
    header: RecordHeader,
}

/// The open batch.
#[derive(Debug)]
pub(crate) struct OpenBatch<D: Disk> {
    pub(crate) place: Place,
    block_bytes: usize,
    buffer: Rc<D::Buffer>,
    used: usize,
    record_count: u32,
    /// Group and offset of each hard state.
    hard_states: Vec<(u32, usize)>,
    pub(crate) durables: Vec<Durable>,
    building: Option<Building>,
}

/// Where the bytes of a closed batch are.
#[derive(Debug)]
pub(crate) enum Held<D: Disk> {
    /// Where they were gathered.
    Buffer(Rc<D::Buffer>),
    /// Durable, and copied out of its buffer.
    Packed(Packed),
}

/// A batch that is complete but for its header.
#[derive(Debug)]
pub(crate) struct ClosedBatch<D: Disk> {
    pub(crate) place: Place,
    pub(crate) header: BatchHeader,
    pub(crate) held: Held<D>,
    pub(crate) length: usize,
    pub(crate) durables: Vec<Durable>,
}

impl<D: Disk> OpenBatch<D> {
    pub(crate) fn new(place: Place, block_bytes: usize, buffer: Rc<D::Buffer>, durables: Vec<Durable>) -> Self {
        Self {
            place,
            block_bytes,
            buffer,
            used: HEADER_BYTES,
            record_count: 0,
            hard_states: Vec::new(),
            durables,
            building: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes of the batch when `bytes` of records and `hard_states` more hard states were added and it was closed.
    pub(crate) fn closing_bytes(&self, bytes: usize, hard_states: usize) -> usize {
        self.used + bytes + hard_state_bytes(self.hard_states.len() + hard_states, hard_states, self.block_bytes)
    }

    /// Makes the buffer large enough to be closed at `bytes`.
    pub(crate) fn ensure_capacity(&mut self, bytes: usize, buffers: &mut Buffers<D>, disk: &mut D) {
        let capacity = (*self.buffer).as_ref().len();
        if bytes <= capacity {
            return;
        }
        let bytes_max = self.place.blocks_max as usize * self.block_bytes;
        let mut larger = buffers.take(bytes.max((2 * capacity).min(bytes_max)), bytes_max, disk);
        let target = D::bytes_mut(Rc::get_mut(&mut larger).expect("a pooled buffer is not shared"));
        target[..self.used].copy_from_slice(&(*self.buffer).as_ref()[..self.used]);
        buffers.give(std::mem::replace(&mut self.buffer, larger));
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        D::bytes_mut(Rc::get_mut(&mut self.buffer).expect("the open batch's buffer is not shared"))
    }

    fn location(&self, start: usize, length: usize) -> Location {
        let offset = self.place.block * self.block_bytes as u64 + start as u64;
        Location::new(self.place.segment_id, offset, length as u32, self.place.sequence)
    }

    pub(crate) fn begin_entry(&mut self, payload_bytes: usize, header: RecordHeader) {
        assert!(self.building.is_none(), "the entry before was not finished");
        let start = self.used;
        self.building = Some(Building { start, payload_bytes, header });
        self.used += record::HEADER_BYTES;
    }

    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        let building = self.building.as_ref().expect("no entry was begun");
        assert!(
            end - building.start <= record::HEADER_BYTES + building.payload_bytes,
            "more payload than announced to begin_entry"
        );
        let start = std::mem::replace(&mut self.used, end);
        self.bytes_mut()[start..end].copy_from_slice(bytes);
    }

    /// Completes the entry; returns its header and where it is.
    pub(crate) fn finish_entry(&mut self, count: u16) -> (RecordHeader, Location) {
        let building = self.building.take().expect("no entry was begun");
        let (start, length) = (building.start, self.used - building.start);
        let header = RecordHeader { count, ..building.header };
        record::finish(&mut self.bytes_mut()[start..], length, header);
        self.used = start + length.next_multiple_of(record::ALIGNMENT);
        self.record_count += 1;
        (header, self.location(start, length))
    }

    /// Copies a verified record.
    pub(crate) fn push_record(&mut self, bytes: &[u8]) -> Location {
        let start = self.used;
        self.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        self.record_count += 1;
        self.location(start, record::header(bytes).length as usize)
    }

    /// Adds or replaces the hard state of a group.
    pub(crate) fn push_hard_state(&mut self, group: u32, state: HardState) {
        if let Some((_, offset)) = self.hard_states.iter().find(|(known, _)| *known == group).copied() {
            record::write_hard_state(&mut self.bytes_mut()[offset..], group, state, false);
            return;
        }
        let start = self.used;
        record::write_hard_state(&mut self.bytes_mut()[start..], group, state, false);
        self.hard_states.push((group, start));
        self.used += HARD_STATE_BYTES;
        self.record_count += 1;
    }

    pub(crate) fn push_snapshot_mark(&mut self, group: u32, mark: &SnapshotMark, carried: bool) {
        let start = self.used;
        record::write_snapshot_mark(&mut self.bytes_mut()[start..], group, mark, carried);
        self.used += SNAPSHOT_MARK_BYTES;
        self.record_count += 1;
    }

    pub(crate) fn push_beginning(&mut self, group: u32, beginning: &Beginning, carried: bool) {
        let start = self.used;
        record::write_beginning(&mut self.bytes_mut()[start..], group, beginning, carried);
        self.used += BEGINNING_BYTES;
        self.record_count += 1;
    }

    pub(crate) fn push_seal(&mut self, next_file: FileNumber, next_segment: u64) {
        let start = self.used;
        record::write_seal(&mut self.bytes_mut()[start..], next_file.0, next_segment);
        self.used += record::SEAL_BYTES;
        self.record_count += 1;
    }

    /// A filler record, so that the batch is not empty.
    pub(crate) fn push_mark(&mut self) {
        let start = self.used;
        record::write_pad(&mut self.bytes_mut()[start..], record::HEADER_BYTES);
        self.used += record::HEADER_BYTES;
        self.record_count += 1;
    }

    /// The padded bytes of a record of this batch.
    pub(crate) fn record(&self, location: &Location) -> &[u8] {
        let start = (location.offset() - self.place.block * self.block_bytes as u64) as usize;
        &(*self.buffer).as_ref()[start..start + location.padded()]
    }

    /// Puts the second copies of the hard states where no first copy is.
    fn push_copies(&mut self) {
        let Some((_, last)) = self.hard_states.last().copied() else { return };
        let last_block = (last + HARD_STATE_BYTES - 1) / self.block_bytes;
        if self.used / self.block_bytes == last_block {
            let gap = self.used.next_multiple_of(self.block_bytes) - self.used;
            let pad = if gap >= record::HEADER_BYTES { gap } else { gap + self.block_bytes };
            let start = self.used;
            record::write_pad(&mut self.bytes_mut()[start..], pad);
            self.used += pad;
            self.record_count += 1;
        }
        let hard_states = std::mem::take(&mut self.hard_states);
        for (group, offset) in &hard_states {
            let bytes = &(*self.buffer).as_ref()[*offset..*offset + HARD_STATE_BYTES];
            let header = record::header(bytes);
            let voted_for =
                (bytes[record::HEADER_BYTES + 8] != 0).then(|| record::read_u64(bytes, record::HEADER_BYTES));
            let state = HardState { current_term: header.term, voted_for };
            let start = self.used;
            record::write_hard_state(&mut self.bytes_mut()[start..], *group, state, true);
            self.used += HARD_STATE_BYTES;
            self.record_count += 1;
        }
    }

    /// Ends the batch. What depends on the moment of submission is filled in by [`ClosedBatch::seal_header`].
    pub(crate) fn close(mut self, identity: u32, live_segment: u64, flags: u16) -> ClosedBatch<D> {
        assert!(self.building.is_none(), "an entry was not finished");
        self.push_copies();
        let used = self.used;
        let length = used.next_multiple_of(self.block_bytes);
        assert!(length as u64 <= self.place.blocks_max * self.block_bytes as u64, "a batch outgrew its place");
        self.bytes_mut()[used..length].fill(0);
        D::trim(Rc::get_mut(&mut self.buffer).expect("the open batch's buffer is not shared"), length);
        let first = if self.place.block == 0 { FLAG_FIRST } else { 0 };
        let header = BatchHeader {
            version: VERSION,
            flags: flags | first,
            segment_id: self.place.segment_id,
            sequence: self.place.sequence,
            durable_sequence: 0,
            block_offset: self.place.block as u32,
            body_length: (used - HEADER_BYTES) as u32,
            records_crc: batch::digest_all(&(*self.buffer).as_ref()[HEADER_BYTES..used]),
            record_count: self.record_count,
            previous_crc: 0,
            identity,
            live_segments: (self.place.segment_id - live_segment) as u32,
            header_crc: 0,
        };
        ClosedBatch { place: self.place, header, held: Held::Buffer(self.buffer), length, durables: self.durables }
    }
}

impl<D: Disk> ClosedBatch<D> {
    /// Writes the header with what is known only at submission; returns its checksum.
    pub(crate) fn seal_header(&mut self, durable_sequence: u64, previous_crc: u32) -> u32 {
        self.header.durable_sequence = durable_sequence;
        self.header.previous_crc = previous_crc;
        let Held::Buffer(buffer) = &mut self.held else { unreachable!("what is packed was submitted") };
        let buffer = Rc::get_mut(buffer).expect("an unsubmitted batch's buffer is not shared");
        self.header.header_crc = self.header.encode(D::bytes_mut(buffer));
        self.header.header_crc
    }

    /// The padded bytes of a record of this batch.
    pub(crate) fn record<'a>(&'a self, location: &Location, block_bytes: usize, packs: &'a Packs) -> Option<&'a [u8]> {
        let start = location.offset().checked_sub(self.place.block * block_bytes as u64)? as usize;
        let bytes = match &self.held {
            Held::Buffer(buffer) => (**buffer).as_ref(),
            Held::Packed(packed) => packs.get(packed),
        };
        bytes.get(start..start + location.padded())
    }

    /// The buffer, to be written.
    pub(crate) fn buffer(&self) -> Rc<D::Buffer> {
        match &self.held {
            Held::Buffer(buffer) => Rc::clone(buffer),
            Held::Packed(_) => unreachable!("what is packed was submitted"),
        }
    }

    /// Copies what is used out of the buffer, and hands that out.
    pub(crate) fn pack(&mut self, packs: &mut Packs) -> Option<Rc<D::Buffer>> {
        let used = HEADER_BYTES + self.header.body_length as usize;
        let Held::Buffer(buffer) = &self.held else { return None };
        if !Packs::pays(used) {
            return None;
        }
        let packed = packs.push(&(**buffer).as_ref()[..used]);
        match std::mem::replace(&mut self.held, Held::Packed(packed)) {
            Held::Buffer(buffer) => Some(buffer),
            Held::Packed(_) => None,
        }
    }

    /// What it counts in the cache.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.held {
            Held::Buffer(_) => self.length,
            Held::Packed(packed) => packed.cost(),
        }
    }
}

/// Bytes hard states add to a batch that is closed with `all` of them, `added` of which are not in it yet: their own
/// records, the filler up to another block, the copies.
pub(crate) fn hard_state_bytes(all: usize, added: usize, block_bytes: usize) -> usize {
    if all == 0 { 0 } else { added * HARD_STATE_BYTES + block_bytes + record::HEADER_BYTES + all * HARD_STATE_BYTES }
}
