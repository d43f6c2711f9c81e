//! A disk in memory, for tests and the simulator.
//!
//! Off the data path.
//! Nothing ends by itself: operations wait until [`MemDisk::finish`] or [`MemDisk::fail`] ends them, in any order. A
//! [`MemDisk::crash`] decides block by block what of the unfinished writes reached the medium. Invariant: bytes change
//! only when a write ends, or in a crash.
//! It has no clock and no randomness; the caller decides everything.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::ValidConfig;
use crate::disk::{Disk, DiskCompletion, DiskError, DiskOperation, Done, FileName, FileNumber};
use crate::error::WalError;
use crate::group_commit::Completed;
use crate::open_batch::Durable;
use crate::recovery::{Recovered, Recovery, RecoveryError};
use crate::snapshots::{SnapshotFile, SnapshotName};
use crate::wal::Wal;

/// Memory of a [`MemDisk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemBuffer {
    bytes: Vec<u8>,
    /// What the disk counts the buffers by that it allocated.
    _alive: Rc<()>,
}

impl AsRef<[u8]> for MemBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a crash leaves of one block of an unfinished write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// The block is as before.
    Lost,
    /// The block is as written.
    Kept,
    /// Only this many bytes from its start were written.
    Torn(usize),
}

/// The disk.
#[derive(Debug, Default)]
pub struct MemDisk {
    files: BTreeMap<FileNumber, Vec<u8>>,
    snapshots: BTreeMap<SnapshotName, Vec<u8>>,
    parts: BTreeMap<SnapshotName, Vec<u8>>,
    pending: Vec<DiskOperation<MemBuffer>>,
    block_bytes: usize,
    alive: Rc<()>,
    /// Files there may be; making more fails with [`DiskError::NoSpace`].
    pub files_max: Option<u32>,
}

impl MemDisk {
    /// A disk with `files` zeroed segment files, as a fresh WAL has them.
    #[must_use]
    pub fn new(config: &ValidConfig, files: u32) -> Self {
        let zeros = vec![0; config.segment_bytes as usize];
        let files = (0..files).map(|number| (FileNumber(number), zeros.clone())).collect();
        Self { files, block_bytes: config.block_bytes, ..Self::default() }
    }

    /// Operations that did not end yet, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[DiskOperation<MemBuffer>] {
        &self.pending
    }

    /// Buffers it allocated that somebody still has.
    #[must_use]
    pub fn buffers_alive(&self) -> usize {
        Rc::strong_count(&self.alive) - 1
    }

    /// The files' content.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<FileNumber, Vec<u8>> {
        &self.files
    }

    /// The files' content, to be damaged.
    pub fn files_mut(&mut self) -> &mut BTreeMap<FileNumber, Vec<u8>> {
        &mut self.files
    }

    /// The finished snapshot files.
    #[must_use]
    pub fn snapshots(&self) -> &BTreeMap<SnapshotName, Vec<u8>> {
        &self.snapshots
    }

    /// The finished snapshot files, to be damaged or put there.
    pub fn snapshots_mut(&mut self) -> &mut BTreeMap<SnapshotName, Vec<u8>> {
        &mut self.snapshots
    }

    /// The snapshots that are being written.
    #[must_use]
    pub fn parts(&self) -> &BTreeMap<SnapshotName, Vec<u8>> {
        &self.parts
    }

    /// Ends a pending operation the way a sound disk does.
    ///
    /// # Panics
    /// If there is no such operation.
    pub fn finish(&mut self, place: usize) -> DiskCompletion<MemBuffer> {
        let operation = self.pending.remove(place);
        let ticket = operation.ticket();
        let result = match operation {
            DiskOperation::Write { file, offset, buffer, length, .. } => {
                let target = &mut self.files.get_mut(&file).expect("the file was made")[offset as usize..];
                target[..length].copy_from_slice(&(*buffer).as_ref()[..length]);
                Ok(Done::Written)
            }
            DiskOperation::Read { file, offset, length, .. } => {
                let bytes = &self.files[&file][offset as usize..offset as usize + length];
                Ok(Done::Read(MemBuffer { bytes: bytes.to_vec(), ..MemBuffer::default() }))
            }
            DiskOperation::WriteSnapshot { snapshot, offset, buffer, length, .. } => {
                let part = self.parts.entry(snapshot).or_default();
                part.resize(offset as usize, 0);
                part.extend_from_slice(&(*buffer).as_ref()[..length]);
                Ok(Done::Written)
            }
            DiskOperation::FinishSnapshot { snapshot, bytes, .. } => self.finish_snapshot(snapshot, bytes),
            DiskOperation::ReadSnapshot { snapshot, offset, length, .. } => {
                self.read_snapshot(snapshot, offset, length)
            }
            DiskOperation::RemoveSnapshot { snapshot, part, .. } => {
                if part {
                    self.parts.remove(&snapshot)
                } else {
                    self.snapshots.remove(&snapshot)
                };
                Ok(Done::Removed)
            }
            DiskOperation::CreateSegment { file, bytes, .. } => {
                if self.files_max.is_some_and(|files_max| file.0 >= files_max) {
                    Err(DiskError::NoSpace)
                } else {
                    self.files.insert(file, vec![0; bytes as usize]);
                    Ok(Done::Created)
                }
            }
        };
        DiskCompletion { ticket, result }
    }

    fn finish_snapshot(&mut self, snapshot: SnapshotName, bytes: u64) -> Result<Done<MemBuffer>, DiskError> {
        let part = self.parts.remove(&snapshot).unwrap_or_default();
        let done = part.len() as u64;
        if done != bytes {
            let file = FileName::Part(snapshot);
            return Err(DiskError::Short { operation: "finish", file, done, expected: bytes });
        }
        self.snapshots.insert(snapshot, part);
        Ok(Done::Finished)
    }

    fn read_snapshot(&self, snapshot: SnapshotName, offset: u64, length: usize) -> Result<Done<MemBuffer>, DiskError> {
        let bytes = self.snapshots.get(&snapshot).map_or(&[][..], Vec::as_slice);
        let found = bytes.get(offset as usize..).unwrap_or_default();
        match found.get(..length) {
            Some(found) => Ok(Done::Read(MemBuffer { bytes: found.to_vec(), ..MemBuffer::default() })),
            None => {
                let (file, done) = (FileName::Snapshot(snapshot), found.len() as u64);
                Err(DiskError::Short { operation: "read", file, done, expected: length as u64 })
            }
        }
    }

    /// Ends a pending operation with an error; nothing of it reaches the medium.
    ///
    /// # Panics
    /// If there is no such operation.
    pub fn fail(&mut self, place: usize, error: DiskError) -> DiskCompletion<MemBuffer> {
        let ticket = self.pending.remove(place).ticket();
        DiskCompletion { ticket, result: Err(error) }
    }

    /// Ends all operations, oldest first, and those they lead to; gathers what became durable and what the host asked for.
    ///
    /// # Errors
    /// What [`Wal::complete`] says.
    pub fn run(&mut self, wal: &mut Wal<Self>, out: &mut Vec<Durable>) -> Result<Vec<Completed<MemBuffer>>, WalError> {
        let mut completed = Vec::new();
        while !self.pending.is_empty() {
            let completion = self.finish(0);
            completed.extend(wal.complete(completion, out, self)?);
        }
        Ok(completed)
    }

    /// The unfinished writes' blocks, in the order of submission: file and block.
    #[must_use]
    pub fn unsynced_blocks(&self) -> Vec<(FileNumber, u64)> {
        let mut blocks = Vec::new();
        for operation in &self.pending {
            if let DiskOperation::Write { file, offset, length, .. } = operation {
                let first = offset / self.block_bytes as u64;
                let behind = first + (length / self.block_bytes) as u64;
                blocks.extend((first..behind).map(|block| (*file, block)));
            }
        }
        blocks
    }

    /// The disk as it is after a crash. `keep` is asked for each unfinished block in the order of
    /// [`MemDisk::unsynced_blocks`]. Files being made, finished or removed are as before; part files are gone, as the next
    /// start removes them whatever is in them.
    #[must_use]
    pub fn crash(&self, keep: &mut dyn FnMut(FileNumber, u64) -> Survival) -> Self {
        let mut files = self.files.clone();
        for operation in &self.pending {
            let DiskOperation::Write { file, offset, buffer, length, .. } = operation else { continue };
            let target = files.get_mut(file).expect("the file was made");
            for start in (0..*length).step_by(self.block_bytes) {
                let at = *offset as usize + start;
                let bytes = match keep(*file, at as u64 / self.block_bytes as u64) {
                    Survival::Lost => 0,
                    Survival::Kept => self.block_bytes,
                    Survival::Torn(bytes) => bytes.min(self.block_bytes),
                };
                target[at..at + bytes].copy_from_slice(&(**buffer).as_ref()[start..start + bytes]);
            }
        }
        let (snapshots, parts, pending) = (self.snapshots.clone(), BTreeMap::new(), Vec::new());
        Self {
            files,
            snapshots,
            parts,
            pending,
            block_bytes: self.block_bytes,
            alive: Rc::default(),
            files_max: self.files_max,
        }
    }

    /// Recovers from the files.
    ///
    /// # Errors
    /// What recovery says.
    pub fn recover(&self, config: &ValidConfig) -> Result<Recovered, RecoveryError> {
        let count = self.files.keys().next_back().map_or(0, |last| last.0 + 1);
        let mut recovery = Recovery::new(config, count);
        for (file, image) in &self.files {
            recovery.segment(*file, image)?;
        }
        for (name, bytes) in &self.snapshots {
            recovery.snapshot(SnapshotFile { name: *name, bytes: bytes.len() as u64 });
        }
        recovery.finish()
    }
}

impl Disk for MemDisk {
    type Buffer = MemBuffer;

    fn allocate(&mut self, bytes: usize) -> MemBuffer {
        // Not zeros: the WAL must not rely on them.
        MemBuffer { bytes: vec![0xA5; bytes], _alive: Rc::clone(&self.alive) }
    }

    fn bytes_mut(buffer: &mut MemBuffer) -> &mut [u8] {
        &mut buffer.bytes
    }

    fn trim(buffer: &mut MemBuffer, bytes: usize) {
        buffer.bytes.truncate(bytes);
    }

    fn submit(&mut self, operation: DiskOperation<MemBuffer>) {
        self.pending.push(operation);
    }
}
