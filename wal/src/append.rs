//! Taking records in: entries built in place, records taken over from a leader, hard states.
//!
//! Data path 4/9 and 6a/9.
//! Invariants: a record's bytes are copied once; an entry replaces everything of its group from its index on, in the
//! index here and in recovery alike; the first batch of a segment begins with the latest hard state, beginning and newest
//! two snapshot marks of every group, so that older segments never hold the only copy.
//! It hands nothing to the disk.

use crate::batch::{FLAG_SEAL, HEADER_BYTES};
use crate::disk::Disk;
use crate::error::WalError;
use crate::index::Location;
use crate::open_batch::{Durable, OpenBatch, Place, hard_state_bytes};
use crate::record::{
    self, BEGINNING_BYTES, FLAG_MEMBERSHIP, HARD_STATE_BYTES, HardState, Kind, RecordError, RecordHeader,
    SNAPSHOT_MARK_BYTES,
};
use crate::wal::{Accepted, Batch, Wal};

/// What is to be added.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) bytes: usize,
    pub(crate) hard_states: usize,
    pub(crate) purpose: Purpose,
}

/// What for. When no other segment is ready, the blocks that are left are kept: some from entries, so that terms and votes
/// still go, and a part of those from hard states, so that a snapshot mark still does, and space comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Entry,
    HardState,
    SnapshotMark,
}

impl<D: Disk> Wal<D> {
    /// Begins an entry whose payload of exactly or at most `payload_bytes` is then given to [`Wal::put`] piece by piece.
    ///
    /// # Errors
    /// Full, too large, out of order, or poisoned; nothing was begun then.
    pub fn begin_entry(
        &mut self,
        group: u32,
        term: u64,
        index: u64,
        payload_bytes: usize,
        disk: &mut D,
    ) -> Result<(), WalError> {
        let kind = Kind::Entry as u8;
        let header = RecordHeader { crc32c: 0, length: 0, kind, flags: 0, count: 0, group, term, index };
        self.begin(header, payload_bytes, disk)
    }

    fn begin(&mut self, header: RecordHeader, payload_bytes: usize, disk: &mut D) -> Result<(), WalError> {
        self.check_order(header.group, header.index)?;
        self.make_room_for_entry(record::HEADER_BYTES + payload_bytes, disk)?;
        self.open.as_mut().expect("room was made").begin_entry(payload_bytes, header);
        Ok(())
    }

    /// Appends an entry without requests that brings a configuration of the group; recovery hands its payload out again.
    ///
    /// # Errors
    /// Full, too large, out of order, or poisoned.
    pub fn append_membership(
        &mut self,
        group: u32,
        term: u64,
        index: u64,
        payload: &[u8],
        disk: &mut D,
    ) -> Result<Accepted, WalError> {
        let (kind, flags) = (Kind::Entry as u8, FLAG_MEMBERSHIP);
        let header = RecordHeader { crc32c: 0, length: 0, kind, flags, count: 0, group, term, index };
        self.begin(header, payload.len(), disk)?;
        self.put(payload);
        self.finish_entry(0)
    }

    /// Adds bytes to the payload of the entry that was begun.
    ///
    /// # Panics
    /// If none was begun, or more bytes come than were announced.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.open.as_mut().expect("no entry was begun").put(bytes);
    }

    /// Completes the entry that was begun; `count` is the number of requests in it.
    ///
    /// # Errors
    /// None today; the signature leaves room.
    ///
    /// # Panics
    /// If none was begun.
    pub fn finish_entry(&mut self, count: u16) -> Result<Accepted, WalError> {
        let open = self.open.as_mut().expect("no entry was begun");
        let (header, location) = open.finish_entry(count);
        Ok(self.install(header.group, header.term, header.index, location))
    }

    /// Takes over one entry record as it came from the leader: header, payload and padding. It is verified.
    ///
    /// # Errors
    /// Not a whole, intact entry record; full, out of order, or poisoned.
    pub fn append_record(&mut self, bytes: &[u8], disk: &mut D) -> Result<Accepted, WalError> {
        let (view, consumed) = record::parse(bytes)?.ok_or(RecordError::Unexpected)?;
        if consumed != bytes.len() || view.kind != Kind::Entry || view.index == 0 {
            return Err(WalError::Record(RecordError::Unexpected));
        }
        let (group, term, index) = (view.group, view.term, view.index);
        self.check_order(group, index)?;
        self.make_room_for_entry(record::HEADER_BYTES + view.payload.len(), disk)?;
        let location = self.open.as_mut().expect("room was made").push_record(bytes);
        Ok(self.install(group, term, index, location))
    }

    /// Appends a group's current term and vote.
    ///
    /// # Errors
    /// Full or poisoned. Some blocks are kept for hard states, so that this works for a while when entries are refused.
    pub fn append_hard_state(
        &mut self,
        group: u32,
        current_term: u64,
        voted_for: Option<u64>,
        disk: &mut D,
    ) -> Result<Accepted, WalError> {
        self.check_poison()?;
        let state = HardState { current_term, voted_for };
        self.make_room(Wanted { bytes: 0, hard_states: 1, purpose: Purpose::HardState }, disk)?;
        let open = self.open.as_mut().expect("room was made");
        open.push_hard_state(group, state);
        let sequence = open.place.sequence;
        self.groups.entry(group).or_default().hard_state = Some(state);
        self.summary(group).hard_state = Some((current_term, voted_for));
        self.stats.record_bytes += HARD_STATE_BYTES as u64;
        Ok(Accepted { sequence, length: HARD_STATE_BYTES as u32 })
    }

    /// Appends an empty batch whose header calls everything before it durable. Damage of a batch that nothing calls durable
    /// looks like a torn write; a mark closes that window. [`Wal::tick`] writes them when nothing else happens.
    ///
    /// # Errors
    /// Full or poisoned.
    pub fn append_mark(&mut self, disk: &mut D) -> Result<Accepted, WalError> {
        self.check_poison()?;
        let bytes = record::HEADER_BYTES;
        self.make_room(Wanted { bytes, hard_states: 0, purpose: Purpose::HardState }, disk)?;
        let open = self.open.as_mut().expect("room was made");
        open.push_mark();
        Ok(Accepted { sequence: open.place.sequence, length: record::HEADER_BYTES as u32 })
    }

    /// Whether entry records of `bytes` in all (padding included) would be taken now.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        if self.poison.is_some() || self.backlog_bytes() + bytes > self.config.backlog_bytes_max {
            return false;
        }
        let needed = self.config.blocks_of_entries(bytes, self.groups.len());
        let open_blocks = self.open.as_ref().map_or(0, |open| self.config.blocks(open.closing_bytes(0, 0)));
        if needed + open_blocks + self.kept_blocks(Purpose::Entry) <= self.segments.blocks_left() {
            return true;
        }
        self.segments.can_roll() && self.config.segment_takes(bytes, self.groups.len())
    }

    /// Whether a hard state would be taken now; it may use blocks that are kept from entries.
    #[must_use]
    pub fn has_room_for_hard_state(&self) -> bool {
        if self.poison.is_some() {
            return false;
        }
        let needed = self.config.blocks(HEADER_BYTES + self.config.carried_bytes_max(self.groups.len() + 1));
        let kept = self.kept_blocks(Purpose::HardState);
        let open_blocks = self.open.as_ref().map_or(0, |open| self.config.blocks(open.closing_bytes(0, 0)));
        needed + open_blocks + kept <= self.segments.blocks_left() || self.segments.can_roll()
    }

    fn backlog_bytes(&self) -> usize {
        self.waiting_bytes + self.open.as_ref().map_or(0, OpenBatch::used)
    }

    /// Blocks of the active segment that are not for this purpose.
    fn kept_blocks(&self, purpose: Purpose) -> u64 {
        match purpose {
            _ if self.segments.free_count() > 0 => 0,
            Purpose::Entry => self.config.reserved_blocks(),
            Purpose::HardState => (self.config.reserved_blocks() / 4).max(1),
            Purpose::SnapshotMark => 0,
        }
    }

    fn check_order(&mut self, group: u32, index: u64) -> Result<(), WalError> {
        let known = self.groups.entry(group).or_default();
        if index == 0 {
            return Err(WalError::Gap { group, index, next: known.next() });
        }
        if index <= known.covered() {
            return Err(WalError::Covered { group, index, covered: known.covered() });
        }
        if index > known.next() {
            return Err(WalError::Gap { group, index, next: known.next() });
        }
        Ok(())
    }

    fn make_room_for_entry(&mut self, length: usize, disk: &mut D) -> Result<(), WalError> {
        self.check_poison()?;
        if length > self.config.record_bytes_max {
            return Err(WalError::RecordTooLarge { bytes: length, bytes_max: self.config.record_bytes_max });
        }
        let bytes = length.next_multiple_of(record::ALIGNMENT);
        if self.backlog_bytes() + bytes > self.config.backlog_bytes_max + self.config.batch_bytes_max {
            return Err(WalError::Backlog { bytes_max: self.config.backlog_bytes_max });
        }
        self.make_room(Wanted { bytes, hard_states: 0, purpose: Purpose::Entry }, disk)
    }

    /// Makes sure the open batch can take what is wanted, and still be closed.
    pub(crate) fn make_room(&mut self, wanted: Wanted, disk: &mut D) -> Result<(), WalError> {
        if let Some(open) = &mut self.open {
            let bytes = open.closing_bytes(wanted.bytes, wanted.hard_states);
            let blocks_max = open.place.blocks_max_for(wanted.purpose);
            if self.config.blocks(bytes) <= blocks_max && bytes <= self.config.batch_bytes_max {
                open.ensure_capacity(bytes, &mut self.buffers, disk);
                return Ok(());
            }
            self.close_open();
        }
        self.open_batch(wanted, disk)
    }

    /// Opens the next batch, in the active segment or, behind a seal, in a new one.
    fn open_batch(&mut self, wanted: Wanted, disk: &mut D) -> Result<(), WalError> {
        let block = self.config.block_bytes;
        let needed = |states: usize, others_bytes: usize| {
            let states = hard_state_bytes(states + wanted.hard_states, states + wanted.hard_states, block);
            self.config.blocks(HEADER_BYTES + wanted.bytes + states + others_bytes)
        };
        let mut blocks = needed(0, 0);
        if blocks + self.kept_blocks(wanted.purpose) > self.segments.blocks_left() {
            let (states, others_bytes) = self.carried();
            blocks = needed(states, others_bytes);
            if blocks + 1 > self.config.segment_blocks() {
                return Err(WalError::RecordTooLarge {
                    bytes: blocks as usize * block,
                    bytes_max: self.config.segment_bytes as usize,
                });
            }
            self.roll(disk)?;
        }
        self.start_batch(blocks, disk);
        Ok(())
    }

    /// Hard states, and bytes of snapshot marks and beginnings, that the first batch of a segment carries over.
    fn carried(&self) -> (usize, usize) {
        let counts = self.groups.values().map(|group| {
            let beginning = if group.beginning.is_some() { BEGINNING_BYTES } else { 0 };
            (usize::from(group.hard_state.is_some()), group.marks.len() * SNAPSHOT_MARK_BYTES + beginning)
        });
        counts.fold((0, 0), |(states, bytes), (state, more)| (states + state, bytes + more))
    }

    /// Seals the active segment and begins the next.
    fn roll(&mut self, disk: &mut D) -> Result<(), WalError> {
        let cursor = self.segments.cursor;
        let seal_sequence = cursor.map(|_| self.next_sequence);
        let Some((place, next)) = self.segments.next_segment(seal_sequence) else {
            self.stats.pool_empty += 1;
            return Err(WalError::Full);
        };
        if let Some(cursor) = cursor {
            let seal = Place {
                sequence: self.next_sequence,
                segment_id: cursor.segment_id,
                file: cursor.file,
                block: cursor.next_block,
                blocks_max: 1,
                hard_state_blocks_max: 1,
                entry_blocks_max: 1,
                submit_after: 0,
            };
            self.next_sequence += 1;
            let buffer = self.buffers.take(self.config.block_bytes, self.config.block_bytes, disk);
            let mut batch =
                OpenBatch::new(seal, self.config.block_bytes, buffer, self.spare_durables.pop().unwrap_or_default());
            batch.push_seal(next.file, next.id);
            self.open = Some(batch);
            self.close_with(FLAG_SEAL);
        }
        if self.segments.log().front().is_some_and(|first| first.id > 1) {
            self.stats.segments_recycled += 1;
        }
        self.segments.begin(place, next);
        self.segment_submit_after = next.submit_after;
        Ok(())
    }

    /// Opens a batch of at least `blocks` at the cursor.
    fn start_batch(&mut self, blocks: u64, disk: &mut D) {
        let cursor = self.segments.cursor.expect("a segment is active");
        let left = self.segments.blocks_left();
        let grown = blocks.max((self.config.batch_bytes_max / self.config.block_bytes) as u64);
        let without = |purpose| left.saturating_sub(self.kept_blocks(purpose));
        let blocks_max = grown.min(left);
        let place = Place {
            sequence: self.next_sequence,
            segment_id: cursor.segment_id,
            file: cursor.file,
            block: cursor.next_block,
            blocks_max,
            hard_state_blocks_max: blocks_max.min(without(Purpose::HardState)).max(blocks),
            entry_blocks_max: blocks_max.min(without(Purpose::Entry)).max(blocks),
            submit_after: self.segment_submit_after,
        };
        self.next_sequence += 1;
        let block = self.config.block_bytes;
        let buffer = self.buffers.take(blocks as usize * block, blocks_max as usize * block, disk);
        let durables = self.spare_durables.pop().unwrap_or_default();
        self.open = Some(OpenBatch::new(place, block, buffer, durables));
        if cursor.next_block == 0 {
            self.carry_forward();
        }
    }

    /// Writes the latest hard state and beginning and the newest snapshot marks of every group forward, in order of the
    /// groups.
    fn carry_forward(&mut self) {
        let open = self.open.as_mut().expect("a batch is open");
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(group, _)| **group);
        for (group, known) in &groups {
            known.marks.iter().for_each(|mark| open.push_snapshot_mark(**group, mark, true));
            known.beginning.iter().for_each(|beginning| open.push_beginning(**group, beginning, true));
        }
        for (group, known) in groups {
            if let Some(state) = known.hard_state {
                open.push_hard_state(*group, state);
            }
        }
    }

    /// Closes the open batch; it waits to be submitted.
    pub(crate) fn close_open(&mut self) {
        self.close_with(0);
    }

    fn close_with(&mut self, flags: u16) {
        let Some(open) = self.open.take() else { return };
        let sequence = open.place.sequence;
        let closed = open.close(self.identity, self.segments.live_id(), flags);
        self.segments.declare(sequence);
        if let Some(cursor) = &mut self.segments.cursor {
            cursor.next_block += (closed.length / self.config.block_bytes) as u64;
        }
        self.buffers.note_length(closed.length);
        self.cache_bytes += closed.length;
        self.waiting_bytes += closed.length;
        self.batches.push_back(Batch { closed, ticket: None, done: false });
    }

    /// What the open batch reports about a group.
    pub(crate) fn summary(&mut self, group: u32) -> &mut Durable {
        self.marks = 0;
        let open = self.open.as_mut().expect("a batch is open");
        let sequence = open.place.sequence;
        let index = self.groups.entry(group).or_default();
        if index.summary.0 != sequence {
            index.summary = (sequence, open.durables.len() as u32);
            open.durables.push(Durable { sequence, group, entry: None, hard_state: None, snapshot: None });
        }
        &mut open.durables[index.summary.1 as usize]
    }

    /// Enters an entry into the index, in place of whatever its group has from its index on.
    fn install(&mut self, group: u32, term: u64, index: u64, location: Location) -> Accepted {
        let newest = self.segments.newest_id();
        let known = self.groups.entry(group).or_default();
        while known.next() > index {
            let replaced = known.locations.pop_back().expect("the log is that long");
            self.segments.remove_live(replaced.segment_id(newest), 1);
        }
        known.locations.push_back(location);
        self.segments.add_live(newest);
        self.summary(group).entry = Some((term, index));
        let length = location.padded();
        self.stats.record_bytes += length as u64;
        let sequence = self.open.as_ref().map_or(0, |open| open.place.sequence);
        Accepted { sequence, length: length as u32 }
    }
}
