//! Reads one segment image: the batches that stand in it in unbroken order, and what lies behind them.
//!
//! Off the data path.
//! Invariants: pure, reads only the image; the batches it yields are contiguous in place, sequence and chain; everything
//! behind the first block that does not continue them is only *evidence* (claims of what was durable), never content.
//! It does not decide whether the end is a torn tail or corruption: `link` does, with all segments in view.

use std::collections::BTreeMap;

use ringraft_raft::mutants::{Mutant, is_active};

use super::{Note, RecoveryError};
use crate::batch::{self, BatchHeader, FLAG_SEAL, HEADER_BYTES, HeaderError};
use crate::config::ValidConfig;
use crate::disk::FileNumber;
use crate::index::Location;
use crate::record::{
    self, Beginning, FLAG_CARRIED, FLAG_MEMBERSHIP, HARD_STATE_BYTES, HardState, Kind, RecordView, SnapshotMark,
};

/// One record of a batch, as far as the index needs it.
#[derive(Clone, Debug)]
pub(crate) enum ScannedRecord {
    /// `membership`: the payload of an entry that brings a configuration.
    Entry {
        group: u32,
        term: u64,
        index: u64,
        location: Location,
        membership: Option<Box<[u8]>>,
    },
    HardState {
        group: u32,
        state: HardState,
    },
    SnapshotMark {
        group: u32,
        mark: SnapshotMark,
        carried: bool,
    },
    Beginning {
        group: u32,
        beginning: Beginning,
        carried: bool,
    },
}

/// One intact batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedBatch {
    pub(crate) header: BatchHeader,
    pub(crate) records_end: usize,
}

/// What the blocks behind the last intact batch say about one segment id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// The lowest sequence found.
    pub(crate) sequence_min: u64,
    /// The highest batch one of them calls durable.
    pub(crate) durable_max: u64,
    /// The lowest entry index per group in those of them that are intact.
    pub(crate) first_indexes: BTreeMap<u32, u64>,
}

/// Why the batches of a segment end where they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The segment is full.
    #[error("the segment is full")]
    Full,
    /// The last batch is a seal.
    #[error("the segment is sealed; {next} continues it")]
    Sealed {
        /// The file named by the seal.
        next: FileNumber,
        /// The segment id named by the seal.
        segment_id: u64,
    },
    /// A block of zeros.
    #[error("the block is all zeros")]
    Zero,
    /// Bytes that do not begin with a batch's magic: never written since the file was recycled, or overwritten.
    #[error("no batch begins here")]
    NotABatch,
    /// A batch of an earlier use of the file.
    #[error("a batch of another segment ({segment_id}) stands here")]
    OtherSegment {
        /// The segment it belongs to.
        segment_id: u64,
    },
    /// A header whose checksum does not match.
    #[error("the checksum of the batch header does not match")]
    HeaderChecksum,
    /// A header of another format version.
    #[error("the batch has format version {0}, this program knows version 1")]
    Version(u16),
    /// A header that contradicts itself.
    #[error("the batch header contradicts itself")]
    Contradiction,
    /// A header of another cluster, node or shard.
    #[error("the batch belongs to another cluster, node or shard")]
    Foreign,
    /// A header that belongs to another place.
    #[error("the batch was meant for block {block_offset}")]
    Misplaced {
        /// Where it belongs.
        block_offset: u32,
    },
    /// A header that does not follow the batch before.
    #[error("the batch (sequence {sequence}) does not follow the one before")]
    Chain {
        /// Its sequence.
        sequence: u64,
    },
    /// A batch that would reach beyond the segment.
    #[error("the batch would end behind the segment")]
    Bounds,
    /// No file holds the segment.
    #[error("segment {segment_id}, which is still needed, is in none of the files")]
    SegmentMissing {
        /// The segment.
        segment_id: u64,
    },
    /// The header is intact, its records are not.
    #[error("records of the batch are damaged")]
    Body,
}

impl StopReason {
    /// Nothing was ever written here by this segment, as far as one can see.
    pub(crate) fn is_untouched(self) -> bool {
        matches!(self, Self::Zero | Self::NotABatch | Self::OtherSegment { .. })
    }
}

/// What one segment image holds.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    pub(crate) file: FileNumber,
    /// `None`: block 0 does not begin a batch.
    pub(crate) segment_id: Option<u64>,
    pub(crate) batches: Vec<ScannedBatch>,
    pub(crate) records: Vec<ScannedRecord>,
    /// First block behind the intact batches.
    pub(crate) stop_block: u64,
    pub(crate) stop: StopReason,
    /// By segment id.
    pub(crate) claims: BTreeMap<u64, Claim>,
    pub(crate) notes: Vec<Note>,
}

impl SegmentScan {
    pub(crate) fn first_sequence(&self) -> u64 {
        self.batches.first().map_or(0, |batch| batch.header.sequence)
    }

    /// The intact batch of this sequence.
    pub(crate) fn batch(&self, sequence: u64) -> Option<&ScannedBatch> {
        self.batches.get(usize::try_from(sequence.checked_sub(self.first_sequence())?).ok()?)
    }

    /// The records of the batches up to and with `sequence`.
    pub(crate) fn records_up_to(&self, sequence: u64) -> &[ScannedRecord] {
        let end = self.batch(sequence).or(self.batches.last()).map_or(0, |batch| batch.records_end);
        &self.records[..end]
    }
}

/// Scans one segment file.
///
/// # Errors
/// See [`Scan::finish`].
pub(crate) fn scan(config: &ValidConfig, file: FileNumber, image: &[u8]) -> Result<SegmentScan, RecoveryError> {
    let mut scan = Scan::new(config, file);
    scan.advance(image);
    scan.finish()
}

/// A scan of one segment file that goes as far as the file was read: a whole file at once would keep a processor that
/// others wait for, and need its memory.
#[derive(Debug)]
pub struct Scan {
    config: ValidConfig,
    found: SegmentScan,
    /// Where claims are looked for next; `None`: it is still among the batches.
    claims_from: Option<u64>,
    read_bytes: u64,
}

impl Scan {
    pub(crate) fn new(config: &ValidConfig, file: FileNumber) -> Self {
        let found = SegmentScan {
            file,
            segment_id: None,
            batches: Vec::new(),
            records: Vec::new(),
            stop_block: 0,
            stop: StopReason::Full,
            claims: BTreeMap::new(),
            notes: Vec::new(),
        };
        Self { config: config.clone(), found, claims_from: None, read_bytes: 0 }
    }

    /// What is before this offset in the file is no longer needed.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.claims_from.unwrap_or(self.found.stop_block) * self.config.block_bytes as u64
    }

    /// Takes what was read of the file so far, from [`Scan::from`] on.
    pub fn advance(&mut self, image: &[u8]) {
        let (base, identity) = (self.from(), self.config.identity().checksum());
        let scanner = Scanner { config: &self.config, image, base, identity };
        self.read_bytes = base + image.len() as u64;
        if self.claims_from.is_none() && scanner.read_batches(&mut self.found) {
            self.claims_from = Some(self.found.stop_block);
        }
        if let Some(block) = self.claims_from {
            self.claims_from = Some(scanner.read_claims(block, &mut self.found));
        }
    }

    /// All of the file was read.
    ///
    /// # Errors
    /// A size other than the configured one, a batch of another WAL or format version at the very start.
    pub(crate) fn finish(self) -> Result<SegmentScan, RecoveryError> {
        let (file, expected) = (self.found.file, self.config.segment_bytes);
        if self.read_bytes != expected {
            return Err(RecoveryError::FileSize { file, expected, found: self.read_bytes });
        }
        match self.found.stop {
            StopReason::Foreign if self.found.stop_block == 0 => Err(RecoveryError::ForeignSegment { file }),
            StopReason::Version(version) if self.found.stop_block == 0 => {
                Err(RecoveryError::Version { file, offset: 0, version })
            }
            _ => Ok(self.found),
        }
    }
}

struct Scanner<'a> {
    config: &'a ValidConfig,
    /// Bytes of the file from `base` on.
    image: &'a [u8],
    base: u64,
    identity: u32,
}

impl Scanner<'_> {
    fn block(&self, block: u64) -> &[u8] {
        let start = (block * self.config.block_bytes as u64 - self.base) as usize;
        &self.image[start..start + self.config.block_bytes]
    }

    /// Whether so many blocks were read.
    fn has(&self, block: u64, blocks: u64) -> bool {
        (block + blocks) * self.config.block_bytes as u64 <= self.base + self.image.len() as u64
    }

    /// The batches, as long as each continues the one before. `false`: there may be more in what was not read yet.
    fn read_batches(&self, scan: &mut SegmentScan) -> bool {
        loop {
            if scan.stop_block == self.config.segment_blocks() {
                scan.stop = StopReason::Full;
                return true;
            }
            if !self.has(scan.stop_block, 1) {
                return false;
            }
            let header = self.header(scan.stop_block);
            if header.is_ok_and(|header| !self.has(scan.stop_block, header.blocks(self.config.block_bytes))) {
                return false;
            }
            match header.and_then(|header| self.next_batch(header, scan)) {
                Ok(header) => {
                    scan.segment_id = Some(header.segment_id);
                    scan.stop_block += header.blocks(self.config.block_bytes);
                    if header.flags & FLAG_SEAL != 0 {
                        let (next, segment_id) = self.seal_target(&header);
                        scan.stop = StopReason::Sealed { next, segment_id };
                        return true;
                    }
                }
                Err(reason) => {
                    scan.stop = reason;
                    return true;
                }
            }
        }
    }

    fn next_batch(&self, header: BatchHeader, scan: &mut SegmentScan) -> Result<BatchHeader, StopReason> {
        let stale_too = is_active(Mutant::StaleBatchAccepted);
        if let Some(last) = scan.batches.last().map(|batch| batch.header).filter(|_| !stale_too) {
            if header.segment_id != last.segment_id {
                return Err(StopReason::OtherSegment { segment_id: header.segment_id });
            }
            if header.sequence != last.sequence + 1 || header.previous_crc != last.header_crc {
                return Err(StopReason::Chain { sequence: header.sequence });
            }
        }
        let known = scan.records.len();
        if let Err(reason) = self.read_body(&header, scan) {
            scan.records.truncate(known);
            return Err(reason);
        }
        scan.batches.push(ScannedBatch { header, records_end: scan.records.len() });
        Ok(header)
    }

    /// The header at a block, if it is intact, ours, and meant for this place.
    fn header(&self, block: u64) -> Result<BatchHeader, StopReason> {
        let header = BatchHeader::decode(self.block(block)).map_err(|error| match error {
            HeaderError::NotABatch { zero: true } => StopReason::Zero,
            HeaderError::NotABatch { zero: false } => StopReason::NotABatch,
            HeaderError::Checksum => StopReason::HeaderChecksum,
            HeaderError::Version(version) => StopReason::Version(version),
            HeaderError::Contradiction => StopReason::Contradiction,
        })?;
        if header.identity != self.identity {
            return Err(StopReason::Foreign);
        }
        if u64::from(header.block_offset) != block {
            return Err(StopReason::Misplaced { block_offset: header.block_offset });
        }
        if block + header.blocks(self.config.block_bytes) > self.config.segment_blocks() {
            return Err(StopReason::Bounds);
        }
        Ok(header)
    }

    fn body(&self, header: &BatchHeader) -> (u64, &[u8]) {
        let start = u64::from(header.block_offset) * self.config.block_bytes as u64 + HEADER_BYTES as u64;
        let at = (start - self.base) as usize;
        (start, &self.image[at..at + header.body_length as usize])
    }

    fn seal_target(&self, header: &BatchHeader) -> (FileNumber, u64) {
        let (_, body) = self.body(header);
        let target = record::parse(body).ok().flatten().and_then(|(view, _)| record::seal(&view).ok());
        target.map_or((FileNumber(u32::MAX), 0), |(file, segment)| (FileNumber(file), segment))
    }

    /// Reads the records of a batch; falls back to the second copies of hard states when only those are damaged.
    fn read_body(&self, header: &BatchHeader, scan: &mut SegmentScan) -> Result<(), StopReason> {
        let (start, body) = self.body(header);
        let known = scan.records.len();
        if self.read_strict(header, start, body, scan) {
            return Ok(());
        }
        scan.records.truncate(known);
        if self.read_salvaging(header, start, body, scan) {
            scan.notes.push(Note::HardStateCopyDamaged { file: scan.file, offset: start, sequence: header.sequence });
            return Ok(());
        }
        Err(StopReason::Body)
    }

    fn read_strict(&self, header: &BatchHeader, start: u64, body: &[u8], scan: &mut SegmentScan) -> bool {
        let (mut offset, mut count, mut crc) = (0, 0, 0);
        while offset < body.len() {
            let Ok(Some((view, consumed))) = record::parse(&body[offset..]) else { return false };
            if !note_record(header, start + offset as u64, &view, scan) {
                return false;
            }
            crc = batch::digest(crc, &body[offset..]);
            offset += consumed;
            count += 1;
        }
        count == header.record_count && crc == header.records_crc
    }

    /// Accepts the batch if every damaged record is a hard state whose other copy is intact. A batch holds its hard states
    /// and, at its end and in the same order, their copies: what a damaged one was can be built from its counterpart, and
    /// the digest in the header then proves that this is what was written (and that no record is a stale one of an earlier
    /// use of the file). A batch whose whole content is known may be kept whether or not it was durable.
    fn read_salvaging(&self, header: &BatchHeader, start: u64, body: &[u8], scan: &mut SegmentScan) -> bool {
        let mut offset = 0;
        let mut heads: Vec<[u8; 8]> = Vec::new();
        // Place among the heads, and the state if it is intact.
        let mut states: Vec<(usize, Option<(u32, HardState)>)> = Vec::new();
        while offset < body.len() {
            let Ok(Some((view, consumed))) = record::parse(&body[offset..]) else {
                states.push((heads.len(), None));
                heads.push([0; 8]);
                offset += HARD_STATE_BYTES;
                continue;
            };
            if let Ok(state) = record::hard_state(&view) {
                states.push((heads.len(), Some((view.group, state))));
            }
            if !note_record(header, start + offset as u64, &view, scan) {
                return false;
            }
            heads.push(record::head(view.bytes));
            offset += consumed;
        }
        if offset != body.len() || heads.len() != header.record_count as usize || !states.len().is_multiple_of(2) {
            return false;
        }
        let half = states.len() / 2;
        for place in 0..states.len() {
            let counterpart = states[(place + half) % states.len()].1;
            let (at, state) = states[place];
            let Some((group, expected)) = state.or(counterpart) else { return false };
            let mut built = [0; HARD_STATE_BYTES];
            record::write_hard_state(&mut built, group, expected, place >= half);
            heads[at] = record::head(&built);
        }
        heads.iter().fold(0, |crc, head| batch::digest(crc, head)) == header.records_crc
    }

    /// Collects what the blocks behind the last intact batch claim, from one of them on; returns where to go on when more
    /// was read.
    fn read_claims(&self, from: u64, scan: &mut SegmentScan) -> u64 {
        for block in from..self.config.segment_blocks() {
            if !self.has(block, 1) {
                return block;
            }
            if record::read_u32(self.block(block), 0) != batch::MAGIC {
                continue;
            }
            let Ok(header) = self.header(block) else { continue };
            if !self.has(block, header.blocks(self.config.block_bytes)) {
                return block;
            }
            let claim = scan
                .claims
                .entry(header.segment_id)
                .or_insert_with(|| Claim { sequence_min: header.sequence, ..Claim::default() });
            claim.sequence_min = claim.sequence_min.min(header.sequence);
            claim.durable_max = claim.durable_max.max(header.durable_sequence);
            if scan.segment_id.is_none_or(|segment_id| segment_id == header.segment_id) {
                self.note_indexes(&header, claim);
            }
        }
        self.config.segment_blocks()
    }

    fn note_indexes(&self, header: &BatchHeader, claim: &mut Claim) {
        let (_, body) = self.body(header);
        let mut offset = 0;
        while let Ok(Some((view, consumed))) = record::parse(&body[offset..]) {
            if view.kind == Kind::Entry {
                let first = claim.first_indexes.entry(view.group).or_insert(view.index);
                *first = (*first).min(view.index);
            }
            offset += consumed;
        }
    }
}

/// Keeps what the index needs of a record; `false` if the record may not stand in a batch.
fn note_record(header: &BatchHeader, offset: u64, view: &RecordView<'_>, scan: &mut SegmentScan) -> bool {
    match view.kind {
        Kind::Entry => {
            let length = (record::HEADER_BYTES + view.payload.len()) as u32;
            let location = Location::new(header.segment_id, offset, length, header.sequence);
            let membership = (view.flags & FLAG_MEMBERSHIP != 0).then(|| Box::from(view.payload));
            let (group, term, index) = (view.group, view.term, view.index);
            scan.records.push(ScannedRecord::Entry { group, term, index, location, membership });
        }
        Kind::HardState => match record::hard_state(view) {
            Ok(state) => scan.records.push(ScannedRecord::HardState { group: view.group, state }),
            Err(_) => return false,
        },
        Kind::SnapshotMark => match record::snapshot_mark(view) {
            Ok(mark) => {
                let carried = view.flags & FLAG_CARRIED != 0;
                scan.records.push(ScannedRecord::SnapshotMark { group: view.group, mark, carried });
            }
            Err(_) => return false,
        },
        Kind::Beginning => match record::beginning(view) {
            Ok(beginning) => {
                let carried = view.flags & FLAG_CARRIED != 0;
                scan.records.push(ScannedRecord::Beginning { group: view.group, beginning, carried });
            }
            Err(_) => return false,
        },
        Kind::Seal | Kind::Pad => {}
    }
    true
}
