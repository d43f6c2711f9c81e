//! Group commit: handing batches to the disk, and reporting what became durable.
//!
//! Data path 6a/9.
//! A batch is what gathered while earlier flushes were in flight; up to `flushes_in_flight_max` overlap. Invariants: a
//! header says what was durable when its batch was submitted; completions are reported in sequence order whatever order
//! the disk ends in; the first error poisons.
//! It retries nothing but making segments, which the host's tick asks for.

use ringraft_raft::mutants::{Mutant, is_active};

use crate::disk::{Disk, DiskCompletion, DiskError, DiskOperation, Done, FileNumber};
use crate::error::WalError;
use crate::open_batch::{Durable, Held};
use crate::reader::ReadDone;
use crate::snapshots::SnapshotDone;
use crate::wal::Wal;

/// Ticks without a new record after which a log is idle.
const IDLE_TICKS: u32 = 3;

/// Marks behind an idle log: with two, damage of the last record and of one mark is still told from a torn write.
const IDLE_MARKS: u32 = 2;

/// The end of something the host asked for.
#[derive(Debug)]
pub enum Completed<B> {
    /// A read of entries.
    Read(ReadDone),
    /// An operation on a snapshot file.
    Snapshot(SnapshotDone<B>),
}

impl<D: Disk> Wal<D> {
    /// Hands what waits to the disk, as far as the number of flushes in flight allows: closed batches first, then the open
    /// one. Returns how many batches were handed over.
    ///
    /// # Errors
    /// The WAL is poisoned.
    pub fn submit(&mut self, disk: &mut D) -> Result<usize, WalError> {
        self.check_poison()?;
        let mut submitted = 0;
        while self.in_flight() < self.config.flushes_in_flight_max {
            let waiting = self.open.as_ref().map_or(self.next_sequence, |open| open.place.sequence);
            if self.submitted_sequence + 1 == waiting {
                match &self.open {
                    Some(open) if !open.is_empty() => self.close_open(),
                    _ => break,
                }
            }
            if !self.submit_next(disk) {
                break;
            }
            submitted += 1;
        }
        self.make_segments(disk);
        Ok(submitted)
    }

    /// Submits the oldest waiting batch; `false` if its segment may not be written yet.
    fn submit_next(&mut self, disk: &mut D) -> bool {
        let Some(front) = self.batches.front() else { return false };
        let sequence = self.submitted_sequence + 1;
        let place = (sequence - front.closed.place.sequence) as usize;
        let ticket = self.take_ticket();
        let batch = &mut self.batches[place];
        if batch.closed.place.submit_after > self.durable_sequence {
            return false;
        }
        self.previous_crc = batch.closed.seal_header(self.durable_sequence, self.previous_crc);
        batch.ticket = Some(ticket);
        let length = batch.closed.length;
        let offset = batch.closed.place.block * self.config.block_bytes as u64;
        disk.submit(DiskOperation::Write {
            ticket,
            file: batch.closed.place.file,
            offset,
            buffer: batch.closed.buffer(),
            length,
        });
        self.submitted_sequence = sequence;
        self.waiting_bytes -= length;
        self.stats.batches += 1;
        self.stats.bytes_written += length as u64;
        true
    }

    /// Takes the end of a disk operation. What became durable is added to `out`, in batch order; the end of a read, or of an
    /// operation on a snapshot file, is returned. New operations may be handed to the disk.
    ///
    /// # Errors
    /// A write failed, now or before: the WAL is poisoned.
    pub fn complete(
        &mut self,
        completion: DiskCompletion<D::Buffer>,
        out: &mut Vec<Durable>,
        disk: &mut D,
    ) -> Result<Option<Completed<D::Buffer>>, WalError> {
        let DiskCompletion { ticket, result } = completion;
        if let Some(snapshot) = self.snapshot_files.ended(ticket, &result) {
            return Ok(Some(Completed::Snapshot(SnapshotDone { ticket, snapshot, result })));
        }
        if let Some((creating, file)) = self.segments.creating
            && creating == ticket
        {
            self.segments.creating = None;
            match result {
                Ok(_) => {
                    self.segments.file_created(file);
                    self.make_segments(disk);
                }
                Err(DiskError::NoSpace) => self.segments.creation_refused(),
                Err(error) => self.poison(error),
            }
            return self.check_poison().map(|()| None);
        }
        if self.reader.knows(ticket) {
            let buffer = match result {
                Ok(Done::Read(buffer)) => Ok(buffer),
                Ok(_) => Err(DiskError::Short { operation: "read", file: FileNumber(0).into(), done: 0, expected: 0 }),
                Err(error) => Err(error),
            };
            let read = self.read_completed(ticket, buffer.as_ref().map(AsRef::as_ref));
            return Ok(read.map(Completed::Read));
        }
        let in_flight =
            self.batches.iter_mut().rev().filter(|batch| batch.ticket == Some(ticket)).find(|batch| !batch.done);
        let Some(batch) = in_flight else { return self.check_poison().map(|()| None) };
        match result {
            Ok(_) => batch.done = true,
            Err(_) if is_active(Mutant::FlushErrorIgnored) => batch.done = true,
            Err(error) => self.poison(error),
        }
        self.check_poison()?;
        self.advance_durable(out);
        Ok(None)
    }

    /// Keeps the first error; nothing is reported durable from here on.
    fn poison(&mut self, error: DiskError) {
        self.poison.get_or_insert(error);
    }

    fn advance_durable(&mut self, out: &mut Vec<Durable>) {
        let Some(front) = self.batches.front() else { return };
        let first = front.closed.place.sequence;
        while self.durable_sequence < self.submitted_sequence {
            let place = (self.durable_sequence + 1 - first) as usize;
            let any_later = || self.batches.range(place..).any(|batch| batch.done);
            let done = self.batches[place].done || (is_active(Mutant::DurableOutOfOrder) && any_later());
            if !done {
                break;
            }
            let batch = &mut self.batches[place];
            self.durable_sequence += 1;
            self.cache_bytes -= batch.closed.length;
            if let Some(buffer) = batch.closed.pack(&mut self.packs) {
                self.buffers.give(buffer);
            }
            self.cache_bytes += batch.closed.held_bytes();
            self.stats.flushes += 1;
            let mut durables = std::mem::take(&mut batch.closed.durables);
            out.append(&mut durables);
            if self.spare_durables.len() < 64 {
                self.spare_durables.push(durables);
            }
        }
        self.segments.on_durable(self.durable_sequence);
        self.evict();
    }

    /// Forgets the oldest batches beyond the cache's bound.
    fn evict(&mut self) {
        while self.cache_bytes > self.config.cache_bytes_max
            && let Some(front) = self.batches.front()
            && front.closed.place.sequence <= self.durable_sequence
            && let Some(batch) = self.batches.pop_front()
        {
            self.cache_bytes -= batch.closed.held_bytes();
            if let Held::Packed(packed) = batch.closed.held {
                self.packs.forget(&packed);
            }
        }
    }

    /// Asks for another segment file if fewer than `segments_ready` are free.
    pub(crate) fn make_segments(&mut self, disk: &mut D) {
        if self.poison.is_some() || !self.segments.wants_file(&self.config) {
            return;
        }
        let ticket = self.take_ticket();
        let file = FileNumber(self.segments.file_count());
        self.segments.creating = Some((ticket, file));
        disk.submit(DiskOperation::CreateSegment { ticket, file, bytes: self.config.segment_bytes });
    }

    /// One tick of the host's time: what a full disk refused is tried again after some of them, and an idle log is marked.
    pub fn tick(&mut self, disk: &mut D) {
        self.segments.tick();
        self.make_segments(disk);
        self.mark_when_idle(disk);
    }

    /// Whether a mark would tell something new: all is durable, not enough marks say so yet, and there is room to spare.
    #[must_use]
    pub fn wants_mark(&self) -> bool {
        let durable = self.durable_sequence;
        let spare = self.segments.free_count() > 0 || self.segments.blocks_left() > self.config.reserved_blocks() + 1;
        durable > 0 && durable == self.accepted_sequence() && self.marks < IDLE_MARKS && spare && self.poison.is_none()
    }

    /// Marks a log to which nothing was added for some ticks; the host's next turn submits the mark.
    fn mark_when_idle(&mut self, disk: &mut D) {
        let newest = self.accepted_sequence();
        let (before, ticks) = self.idle;
        let idle = self.durable_sequence == newest && before == newest;
        self.idle = (newest, if idle { ticks.saturating_add(1) } else { 0 });
        if self.idle.1 < IDLE_TICKS || !self.wants_mark() {
            return;
        }
        if self.append_mark(disk).is_ok() {
            self.marks += 1;
            self.idle = (self.accepted_sequence(), IDLE_TICKS); // the second follows once this one is durable
        }
    }
}
