//! The virtual disk of one shard: what is on the medium, what is on its way there, what a crash leaves.
//!
//! Off the data path.
//!
//! ```text
//!   Shard --submit--> SimDisk --take--> Medium::begin --(time passes)--> Medium::finish --> completion
//!                                          |
//!                                          +-- crash: any subset of the unfinished blocks survives, torn or whole
//! ```
//!
//! Invariants: bytes of the medium change only when an operation ends, in a crash, or by injected damage; an operation
//! reported done is on the medium. A folder is as the production disk leaves it: segment files are counted in
//! `wal.meta` only when they are complete, files behind the count may be there, short or not.
//! It has no clock and no randomness of its own: the caller gives both.

mod damage;
mod snapshots;

use std::collections::BTreeMap;

use ringraft_engine::snapshot::NoBeginning;
use ringraft_wal::{
    Disk, DiskCompletion, DiskError, DiskOperation, Done, FileName, FileNumber, RecordPlace, Recovered, Recovery,
    RecoveryError, SnapshotFile, SnapshotName, ValidConfig,
};

use crate::random::Random;

const SECTOR_BYTES: usize = 512;

/// Memory of a [`SimDisk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffer(Vec<u8>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The disk as the shard sees it: a list of what it asked for.
#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    submitted: Vec<DiskOperation<Buffer>>,
}

impl SimDisk {
    /// What was asked for since the last call.
    pub(crate) fn take(&mut self) -> Vec<DiskOperation<Buffer>> {
        std::mem::take(&mut self.submitted)
    }
}

impl Disk for SimDisk {
    type Buffer = Buffer;

    fn allocate(&mut self, bytes: usize) -> Buffer {
        Buffer(vec![0xA5; bytes]) // not zeros: the WAL must not rely on them
    }

    fn bytes_mut(buffer: &mut Buffer) -> &mut [u8] {
        &mut buffer.0
    }

    fn trim(buffer: &mut Buffer, bytes: usize) {
        buffer.0.truncate(bytes);
    }

    fn submit(&mut self, operation: DiskOperation<Buffer>) {
        self.submitted.push(operation);
    }
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should.
    Sound,
    /// An error; of a write any part may have reached the medium.
    Failed,
    /// No space is left (only where a segment is made or a snapshot written).
    NoSpace,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process was killed: an unfinished write is there or not there.
    Killed,
    /// The power went: any subset of its blocks is there, the last of them torn.
    PowerLost,
}

/// What was done to a sound block behind the program's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    BitFlip,
    Zeroed,
    /// The bytes of another block stand there.
    Misdirected,
    /// Both copies of `wal.meta`.
    MetaLost,
    /// An old `wal.meta` is back: it counts fewer files.
    MetaOld,
    /// A segment file is shorter than it was.
    FileCut,
    /// A bit of a finished snapshot file.
    SnapshotBitFlip,
}

/// One block, or `None` while it is zeros.
type Block = Option<Box<[u8]>>;

/// A segment file.
#[derive(Clone, Debug, Default)]
struct SegmentFile {
    length: u64,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, Default)]
enum MetaFile {
    #[default]
    Missing,
    Counts(u32),
    Damaged,
}

/// Why a folder cannot be opened.
#[derive(Clone, Debug)]
pub(crate) enum OpenError {
    NoSpace,
    Refused(RecoveryError),
    NoBeginning(NoBeginning),
}

/// One shard's folder.
#[derive(Debug)]
pub(crate) struct Medium {
    config: ValidConfig,
    files: Vec<SegmentFile>,
    meta: MetaFile,
    snapshots: BTreeMap<SnapshotName, Vec<u8>>,
    /// Being written; what of it survives a crash is of no account, because the next start removes it.
    parts: BTreeMap<SnapshotName, Vec<u8>>,
    pending: Vec<(u64, DiskOperation<Buffer>)>,
    next_operation: u64,
    image: Vec<u8>,
}

impl Medium {
    /// An empty folder.
    pub(crate) fn new(config: ValidConfig) -> Self {
        Self {
            config,
            files: Vec::new(),
            meta: MetaFile::Missing,
            snapshots: BTreeMap::new(),
            parts: BTreeMap::new(),
            pending: Vec::new(),
            next_operation: 1,
            image: Vec::new(),
        }
    }

    /// The configuration of the log in it.
    pub(crate) fn config(&self) -> &ValidConfig {
        &self.config
    }

    /// Starts an operation and names it.
    pub(crate) fn begin(&mut self, operation: DiskOperation<Buffer>) -> u64 {
        let name = self.next_operation;
        self.next_operation += 1;
        self.pending.push((name, operation));
        name
    }

    /// Whether a pending operation is a read, a write or the making of a segment; `None` when it is gone.
    pub(crate) fn kind(&self, name: u64) -> Option<OperationKind> {
        let (_, operation) = self.pending.iter().find(|(pending, _)| *pending == name)?;
        Some(OperationKind::of(operation))
    }

    /// Ends an operation; `None` when a crash forgot it.
    pub(crate) fn finish(
        &mut self,
        name: u64,
        verdict: Verdict,
        random: &mut Random,
    ) -> Option<DiskCompletion<Buffer>> {
        let place = self.pending.iter().position(|(pending, _)| *pending == name)?;
        let (_, operation) = self.pending.remove(place);
        let ticket = operation.ticket();
        let failed = |operation, file: FileNumber| Err(injected(operation, file));
        let result = match (&operation, verdict) {
            (DiskOperation::Write { file, offset, buffer, length, .. }, Verdict::Sound) => {
                self.write(*file, *offset, &buffer.as_ref().as_ref()[..*length]);
                Ok(Done::Written)
            }
            (DiskOperation::Write { file, .. }, _) => {
                self.survive(&operation, Ending::PowerLost, random);
                failed("write", *file)
            }
            (DiskOperation::Read { file, offset, length, .. }, Verdict::Sound) => {
                Ok(Done::Read(Buffer(self.read(*file, *offset, *length))))
            }
            (DiskOperation::Read { file, .. }, _) => failed("read", *file),
            (DiskOperation::CreateSegment { file, .. }, Verdict::Sound) => {
                self.create(file.0);
                Ok(Done::Created)
            }
            (DiskOperation::CreateSegment { file, .. }, Verdict::NoSpace) => {
                self.leave_uncounted(file.0, 0);
                Err(DiskError::NoSpace)
            }
            (DiskOperation::CreateSegment { file, bytes, .. }, Verdict::Failed) => {
                self.leave_uncounted(file.0, *bytes / 2);
                failed("write zeros to", *file)
            }
            (operation, verdict) => self.finish_snapshot_operation(operation, verdict, random),
        };
        Some(DiskCompletion { ticket, result })
    }

    fn write(&mut self, file: FileNumber, offset: u64, bytes: &[u8]) {
        let block_bytes = self.config.block_bytes;
        let first = (offset / block_bytes as u64) as usize;
        let blocks = &mut self.files[file.0 as usize].blocks;
        for (place, block) in bytes.chunks_exact(block_bytes).enumerate() {
            match &mut blocks[first + place] {
                Some(old) => old.copy_from_slice(block),
                none => *none = Some(block.into()),
            }
        }
    }

    fn read(&self, file: FileNumber, offset: u64, length: usize) -> Vec<u8> {
        let block_bytes = self.config.block_bytes;
        let first = (offset / block_bytes as u64) as usize;
        let mut bytes = vec![0; length];
        for (place, target) in bytes.chunks_mut(block_bytes).enumerate() {
            if let Some(block) = &self.files[file.0 as usize].blocks[first + place] {
                target.copy_from_slice(block);
            }
        }
        bytes
    }

    /// The bytes of a record, as they stand on the medium.
    pub(crate) fn record(&self, place: RecordPlace) -> Vec<u8> {
        let block_bytes = self.config.block_bytes as u64;
        let start = place.offset / block_bytes * block_bytes;
        let end = (place.offset + place.bytes as u64).next_multiple_of(block_bytes);
        let mut bytes = self.read(place.file, start, (end - start) as usize);
        bytes.drain(..(place.offset - start) as usize);
        bytes.truncate(place.bytes);
        bytes
    }

    /// Makes a segment file as the production disk does: complete, then counted.
    fn create(&mut self, number: u32) {
        self.leave_uncounted(number, self.config.segment_bytes);
        self.meta = MetaFile::Counts(number + 1);
    }

    /// A file that `wal.meta` does not count (yet).
    fn leave_uncounted(&mut self, number: u32, length: u64) {
        self.files.truncate(number as usize);
        self.files.push(SegmentFile { length, blocks: vec![None; self.config.segment_blocks() as usize] });
    }

    /// The process is gone: decides what of the unfinished operations is on the medium.
    pub(crate) fn crash(&mut self, ending: Ending, random: &mut Random) {
        for (_, operation) in std::mem::take(&mut self.pending) {
            self.survive(&operation, ending, random);
        }
    }

    fn survive(&mut self, operation: &DiskOperation<Buffer>, ending: Ending, random: &mut Random) {
        match operation {
            DiskOperation::Write { file, offset, buffer, length, .. } => {
                let bytes = &buffer.as_ref().as_ref()[..*length];
                match (ending, random.below(4)) {
                    (_, 0) => {}
                    (_, 1) | (Ending::Killed, 2..) => self.write(*file, *offset, bytes),
                    (Ending::PowerLost, _) => self.survive_in_part(*file, *offset, bytes, random),
                }
            }
            DiskOperation::Read { .. } => {}
            DiskOperation::WriteSnapshot { .. }
            | DiskOperation::FinishSnapshot { .. }
            | DiskOperation::ReadSnapshot { .. }
            | DiskOperation::RemoveSnapshot { .. } => self.survive_snapshot_operation(operation, random),
            DiskOperation::CreateSegment { file, bytes, .. } => match random.below(4) {
                0 => {}
                1 => self.leave_uncounted(file.0, random.below(*bytes)),
                2 => self.leave_uncounted(file.0, *bytes),
                _ => self.create(file.0),
            },
        }
    }

    fn survive_in_part(&mut self, file: FileNumber, offset: u64, bytes: &[u8], random: &mut Random) {
        let block_bytes = self.config.block_bytes;
        for (place, block) in bytes.chunks_exact(block_bytes).enumerate() {
            let at = offset + (place * block_bytes) as u64;
            match random.below(3) {
                0 => {}
                1 => self.write(file, at, block),
                _ => {
                    let sectors = random.below((block_bytes / SECTOR_BYTES) as u64 + 1) as usize;
                    let mut torn = self.read(file, at, block_bytes);
                    torn[..sectors * SECTOR_BYTES].copy_from_slice(&block[..sectors * SECTOR_BYTES]);
                    self.write(file, at, &torn);
                }
            }
        }
    }

    /// What the production disk does before recovery: reads `wal.meta`, checks the files, makes the first segments.
    /// `steps`: how many segments may be made before the process is gone; `None`: it is not going to be.
    pub(crate) fn open(&mut self, space_segments: u32, steps: Option<u32>) -> Result<(), OpenError> {
        let count = match self.meta {
            MetaFile::Counts(count) => count,
            MetaFile::Damaged => return Err(OpenError::Refused(RecoveryError::Meta)),
            MetaFile::Missing if self.files.is_empty() => 0,
            MetaFile::Missing => return Err(OpenError::Refused(RecoveryError::MetaMissing)),
        };
        self.meta = MetaFile::Counts(count);
        let behind = self.files.get(count as usize).and_then(|file| file.blocks.first()?.as_ref());
        if behind.is_some_and(|block| Recovery::holds_batches(block)) {
            let file = FileNumber(count);
            return Err(OpenError::Refused(RecoveryError::Uncounted { file, counted: count }));
        }
        for number in 0..count {
            let (file, expected) = (FileNumber(number), self.config.segment_bytes);
            match self.files.get(number as usize) {
                None => return Err(OpenError::Refused(RecoveryError::MissingFile { file, expected: count })),
                Some(found) if found.length != expected => {
                    let found = found.length;
                    return Err(OpenError::Refused(RecoveryError::FileSize { file, expected, found }));
                }
                Some(_) => {}
            }
        }
        let wanted = (self.config.segments_ready + 1).min(self.config.segments_max);
        let made = steps.map_or(wanted, |steps| wanted.min(count + steps));
        for number in count..made {
            if number >= space_segments {
                self.leave_uncounted(number, 0);
                return Err(OpenError::NoSpace);
            }
            self.create(number);
        }
        self.parts.clear();
        Ok(())
    }

    /// Segment files counted.
    pub(crate) fn file_count(&self) -> u32 {
        match self.meta {
            MetaFile::Counts(count) => count,
            MetaFile::Missing | MetaFile::Damaged => 0,
        }
    }

    /// Runs the production recovery over the images of the files.
    pub(crate) fn recover(&mut self) -> Result<Recovered, RecoveryError> {
        let count = self.file_count();
        let mut recovery = Recovery::new(&self.config, count);
        for number in 0..count {
            self.fill_image(number);
            recovery.segment(FileNumber(number), &self.image)?;
        }
        for (name, bytes) in &self.snapshots {
            recovery.snapshot(SnapshotFile { name: *name, bytes: bytes.len() as u64 });
        }
        recovery.finish()
    }

    /// Calls `visit` with the image of every file of a recovered log, oldest first.
    pub(crate) fn images(&mut self, recovered: &Recovered, mut visit: impl FnMut(FileNumber, &[u8])) {
        for file in recovered.replay_order() {
            self.fill_image(file.0);
            visit(file, &self.image);
        }
    }

    /// The bytes of a finished snapshot.
    pub(crate) fn snapshot(&self, name: SnapshotName) -> &[u8] {
        self.snapshots.get(&name).map_or(&[], Vec::as_slice)
    }

    fn fill_image(&mut self, number: u32) {
        self.image.clear();
        self.image.resize(self.config.segment_bytes as usize, 0);
        let blocks = self.image.chunks_exact_mut(self.config.block_bytes);
        for (target, block) in blocks.zip(&self.files[number as usize].blocks) {
            if let Some(block) = block {
                target.copy_from_slice(block);
            }
        }
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        self.files.clear();
        self.meta = MetaFile::Missing;
        self.snapshots.clear();
        self.parts.clear();
        self.pending.clear();
    }
}

fn injected(operation: &'static str, file: impl Into<FileName>) -> DiskError {
    let message = String::from("injected: input/output error");
    DiskError::Io { operation, file: file.into(), errno: 5, message }
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Write,
    Read,
    Create,
    /// A piece of a snapshot.
    SnapshotWrite,
    /// A snapshot gets its final name, or is removed.
    SnapshotChange,
    /// A piece of a finished snapshot.
    SnapshotRead,
}

impl OperationKind {
    /// Whether it is about a snapshot's file, not the log.
    pub(crate) fn is_of_snapshot(self) -> bool {
        matches!(self, Self::SnapshotWrite | Self::SnapshotChange | Self::SnapshotRead)
    }

    pub(crate) fn of(operation: &DiskOperation<Buffer>) -> Self {
        match operation {
            DiskOperation::Write { .. } => Self::Write,
            DiskOperation::Read { .. } => Self::Read,
            DiskOperation::CreateSegment { .. } => Self::Create,
            DiskOperation::ReadSnapshot { .. } => Self::SnapshotRead,
            DiskOperation::WriteSnapshot { .. } => Self::SnapshotWrite,
            DiskOperation::FinishSnapshot { .. } | DiskOperation::RemoveSnapshot { .. } => Self::SnapshotChange,
        }
    }
}
