//! Reading entries back from the disk, for lagging followers and slow state machines.
//!
//! Off the data path (6b/9 when a follower lags behind the cache).
//! Invariants: what is returned is verified (checksum, group, index) and contiguous; if the log changes while the disk
//! reads, only entries that are still current are returned. Neighbouring records are read together.
//! It keeps nothing: the cache is the recent batches' own buffers.

use crate::disk::{Disk, DiskError, DiskOperation, FileNumber, Ticket};
use crate::error::{ReadError, WalError};
use crate::index::Location;
use crate::record;
use crate::wal::Wal;

/// Names one call of [`Wal::read_entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadTicket(u64);

/// The end of a read.
#[derive(Debug)]
pub struct ReadDone {
    /// Which call.
    pub ticket: ReadTicket,
    /// The group.
    pub group: u32,
    /// The index that was asked for first.
    pub first_index: u64,
    /// Whole records with their padding, contiguous from `first_index`. Empty if the log changed meanwhile.
    pub result: Result<Vec<u8>, ReadError>,
}

/// Records further apart than this are not read with one operation.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// One operation reads at most this, or one record.
const RANGE_BYTES_MAX: u64 = 1 << 20;

/// One read operation: a range of blocks and the entries in it.
#[derive(Debug)]
struct Range {
    ticket: Ticket,
    segment_id: u64,
    file: FileNumber,
    offset: u64,
    end: u64,
    /// Places in the read's list of locations.
    first: usize,
    behind: usize,
    done: bool,
}

#[derive(Debug)]
struct PendingRead {
    ticket: ReadTicket,
    group: u32,
    first_index: u64,
    locations: Vec<Location>,
    /// Where each record goes in `bytes`; one more at the end.
    places: Vec<usize>,
    ranges: Vec<Range>,
    bytes: Vec<u8>,
    error: Option<ReadError>,
}

/// Reads under way.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<PendingRead>,
    next: u64,
}

impl Reader {
    pub(crate) fn under_way(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        self.pending.iter().any(|read| read.ranges.iter().any(|range| range.ticket == ticket))
    }
}

impl<D: Disk> Wal<D> {
    /// Reads entries of a group from the disk: contiguous from `first_index`, at least one, up to `bytes_max`. The end comes
    /// out of [`Wal::complete`]. Callers bound how many reads they have under way.
    ///
    /// # Errors
    /// The first entry is not in the log, or not flushed yet (then it is in the cache).
    pub fn read_entries(
        &mut self,
        group: u32,
        first_index: u64,
        bytes_max: usize,
        disk: &mut D,
    ) -> Result<ReadTicket, WalError> {
        let locations = self.plan(group, first_index, bytes_max)?;
        let mut places = Vec::with_capacity(locations.len() + 1);
        let mut total = 0;
        for location in &locations {
            places.push(total);
            total += location.padded();
        }
        places.push(total);
        let ranges = self.ranges(&locations);
        for range in &ranges {
            self.stats.reads += 1;
            let (ticket, file, offset) = (range.ticket, range.file, range.offset);
            disk.submit(DiskOperation::Read { ticket, file, offset, length: (range.end - range.offset) as usize });
        }
        self.reader.next += 1;
        let ticket = ReadTicket(self.reader.next);
        let bytes = vec![0; total];
        self.reader.pending.push(PendingRead {
            ticket,
            group,
            first_index,
            locations,
            places,
            ranges,
            bytes,
            error: None,
        });
        Ok(ticket)
    }

    /// The locations to read: flushed ones only.
    fn plan(&self, group: u32, first_index: u64, bytes_max: usize) -> Result<Vec<Location>, WalError> {
        let missing = WalError::Missing { group, index: first_index };
        let known = self.groups.get(&group).ok_or_else(|| missing.clone())?;
        let mut locations = Vec::new();
        let mut bytes = 0;
        let mut index = first_index;
        while let Some(location) = known.get(index) {
            let too_many = !locations.is_empty() && bytes + location.padded() > bytes_max;
            if too_many || !location.is_durable(self.durable_sequence) {
                break;
            }
            bytes += location.padded();
            locations.push(*location);
            index += 1;
        }
        if locations.is_empty() {
            let is_known = known.get(first_index).is_some();
            return Err(if is_known { WalError::NotFlushed { group, index: first_index } } else { missing });
        }
        Ok(locations)
    }

    /// Joins neighbouring records into ranges of whole blocks.
    fn ranges(&mut self, locations: &[Location]) -> Vec<Range> {
        let newest = self.segments.newest_id();
        let block = self.config.block_bytes as u64;
        let mut ranges: Vec<Range> = Vec::new();
        for (place, location) in locations.iter().enumerate() {
            let segment_id = location.segment_id(newest);
            let offset = location.offset() / block * block;
            let end = (location.offset() + location.padded() as u64).next_multiple_of(block);
            if let Some(last) = ranges.last_mut()
                && last.segment_id == segment_id
                && offset >= last.offset
                && offset <= last.end + GAP_BYTES_MAX
                && end - last.offset <= RANGE_BYTES_MAX
            {
                last.end = last.end.max(end);
                last.behind = place + 1;
                continue;
            }
            let file = self.segments.file_of(segment_id).expect("a live entry's segment is in the log");
            let ticket = self.take_ticket();
            ranges.push(Range { ticket, segment_id, file, offset, end, first: place, behind: place + 1, done: false });
        }
        ranges
    }

    /// Takes the bytes of one range; returns the whole read when it was the last.
    pub(crate) fn read_completed(&mut self, ticket: Ticket, bytes: Result<&[u8], &DiskError>) -> Option<ReadDone> {
        let place =
            self.reader.pending.iter().position(|read| read.ranges.iter().any(|range| range.ticket == ticket))?;
        let read = &mut self.reader.pending[place];
        let (group, first_index) = (read.group, read.first_index);
        let known = self.groups.get(&group);
        let range = read.ranges.iter_mut().find(|range| range.ticket == ticket)?;
        range.done = true;
        for entry in range.first..range.behind {
            let (location, index) = (read.locations[entry], first_index + entry as u64);
            // The log changed while the disk read: what was asked for is not wanted any more.
            if known.and_then(|known| known.get(index)) != Some(&location) {
                continue;
            }
            let target = &mut read.bytes[read.places[entry]..read.places[entry + 1]];
            let taken = bytes.map_err(|error| ReadError::Disk(error.clone())).and_then(|bytes| {
                let start = (location.offset() - range.offset) as usize;
                let found = bytes.get(start..start + location.padded()).unwrap_or_default();
                take_record(found, group, index, target).map_err(|error| {
                    let (file, offset) = (range.file, location.offset());
                    ReadError::Damaged { group, index, file, offset, error }
                })
            });
            if let Err(error) = taken {
                read.error.get_or_insert(error);
            }
        }
        if read.ranges.iter().any(|range| !range.done) {
            return None;
        }
        let mut read = self.reader.pending.swap_remove(place);
        let current = read.locations.iter().enumerate().take_while(|(entry, location)| {
            known.and_then(|known| known.get(first_index + *entry as u64)) == Some(*location)
        });
        let entries = current.count();
        read.bytes.truncate(read.places[entries]);
        let result = match read.error {
            Some(error) => Err(error),
            None => Ok(read.bytes),
        };
        Some(ReadDone { ticket: read.ticket, group, first_index, result })
    }
}

/// Verifies one record and copies it.
fn take_record(found: &[u8], group: u32, index: u64, target: &mut [u8]) -> Result<(), record::RecordError> {
    let (view, _) = record::parse(found)?.ok_or(record::RecordError::Unexpected)?;
    if view.kind != record::Kind::Entry
        || view.group != group
        || view.index != index
        || view.bytes.len() != target.len()
    {
        return Err(record::RecordError::Unexpected);
    }
    target.copy_from_slice(view.bytes);
    Ok(())
}
