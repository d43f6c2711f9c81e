//! What stands on one replica's disk, and what can go wrong with it.
//!
//! Off the data path.
//! An image holds the bytes that the production WAL wrote: its segment files and `wal.meta`. Opening one does, in the same
//! order, what the production disk does before it recovers; recovery itself is the production one.
//!
//! Invariant: damage is a function of the image and of what stood there earlier; nothing is random.

use std::collections::BTreeMap;

use ringraft_wal::meta::{FILE_BYTES, Meta};
use ringraft_wal::{FileNumber, Recovered, Recovery, RecoveryError, ValidConfig};

/// The files of one replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The segment files.
    pub files: BTreeMap<FileNumber, Vec<u8>>,
    /// `wal.meta`; `None`: it is not there.
    pub meta: Option<Vec<u8>>,
}

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One bit of the first 64 bytes of a block (a batch's header, or the middle of its records).
    FlipHead,
    /// One bit in the middle of a block.
    FlipBody,
    /// A block of zeros.
    Zeroed,
    /// What stood there before the file was used last.
    Stale,
    /// The first half of a block as it was written, the second as it was before.
    Torn,
    /// Another block of the same file.
    Misdirected,
    /// A segment file that is not there.
    Missing,
    /// A segment file cut in half.
    Short,
    /// A segment file of no bytes.
    Empty,
    /// A segment file with a block too many.
    Long,
    /// One bit in the first copy of `wal.meta`.
    MetaFlip,
    /// One bit in both copies of `wal.meta`.
    MetaFlipBoth,
    /// `wal.meta` of zeros.
    MetaZeroed,
    /// `wal.meta` cut in half.
    MetaShort,
    /// `wal.meta` is not there.
    MetaMissing,
    /// `wal.meta` as it was before the last file that was written to was made.
    MetaStale,
}

impl Kind {
    /// Damage of one block.
    pub const OF_BLOCKS: [Self; 6] =
        [Self::FlipHead, Self::FlipBody, Self::Zeroed, Self::Stale, Self::Torn, Self::Misdirected];
    /// Damage of one segment file.
    pub const OF_FILES: [Self; 4] = [Self::Missing, Self::Short, Self::Empty, Self::Long];
    /// Damage of `wal.meta`.
    pub const OF_META: [Self; 6] =
        [Self::MetaFlip, Self::MetaFlipBoth, Self::MetaZeroed, Self::MetaShort, Self::MetaMissing, Self::MetaStale];

    /// The name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FlipHead => "bit flip in the head",
            Self::FlipBody => "bit flip in the body",
            Self::Zeroed => "zeroed",
            Self::Stale => "stale",
            Self::Torn => "torn",
            Self::Misdirected => "misdirected",
            Self::Missing => "missing",
            Self::Short => "truncated",
            Self::Empty => "emptied",
            Self::Long => "extended",
            Self::MetaFlip => "bit flip, one copy",
            Self::MetaFlipBoth => "bit flip, both copies",
            Self::MetaZeroed => "zeroed",
            Self::MetaShort => "truncated",
            Self::MetaMissing => "missing",
            Self::MetaStale => "stale",
        }
    }
}

/// One damage: what, and where. Damage of a whole file has block 0, of `wal.meta` also file 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Damage {
    /// What.
    pub kind: Kind,
    /// In which segment file.
    pub file: FileNumber,
    /// In which block of it.
    pub block: usize,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, file, block } = self;
        if Kind::OF_BLOCKS.contains(kind) {
            write!(formatter, "block {block} of {file} {}", kind.name())
        } else if Kind::OF_FILES.contains(kind) {
            write!(formatter, "{file} {}", kind.name())
        } else {
            write!(formatter, "wal.meta {}", kind.name())
        }
    }
}

impl Image {
    /// The image with `damage` done to it; `before` is what stood on the disk before the log was written.
    #[must_use]
    pub fn damaged(&self, damage: &[Damage], before: &Self, config: &ValidConfig) -> Self {
        let mut image = self.clone();
        // Whole files last: a block of a file that is gone needs no damage.
        let mut ordered = damage.to_vec();
        ordered.sort();
        for damage in ordered {
            image.damage(damage, self, before, config);
        }
        image
    }

    fn damage(&mut self, damage: Damage, written: &Self, before: &Self, config: &ValidConfig) {
        let Damage { kind, file, block } = damage;
        if Kind::OF_META.contains(&kind) {
            let used = written.files.iter().rev().find(|(_, bytes)| Recovery::holds_batches(bytes));
            self.meta = damaged_meta(kind, self.meta.take(), used.map_or(0, |(file, _)| file.0), config);
            return;
        }
        let Some(bytes) = self.files.get_mut(&file) else { return };
        let size = config.block_bytes;
        let at = block * size;
        let old = before.files.get(&file).map_or(&[][..], Vec::as_slice);
        let old =
            |range: std::ops::Range<usize>| old.get(range.clone()).map_or_else(|| vec![0; range.len()], <[u8]>::to_vec);
        match kind {
            Kind::FlipHead => bytes[at + 21] ^= 0x10,
            Kind::FlipBody => bytes[at + 96] ^= 0x04,
            Kind::Zeroed => bytes[at..at + size].fill(0),
            Kind::Stale => bytes[at..at + size].copy_from_slice(&old(at..at + size)),
            Kind::Torn => bytes[at + size / 2..at + size].copy_from_slice(&old(at + size / 2..at + size)),
            Kind::Misdirected => {
                let source = (if block == 0 { 1 } else { block - 1 }) * size;
                bytes[at..at + size].copy_from_slice(&written.files[&file][source..source + size]);
            }
            Kind::Short => bytes.truncate(bytes.len() / 2),
            Kind::Empty => bytes.clear(),
            Kind::Long => bytes.extend(vec![0; size]),
            _ => {
                self.files.remove(&file);
            }
        }
    }

    /// Does what a start does: reads `wal.meta`, looks at the files, recovers.
    ///
    /// # Errors
    /// What a start would refuse the folder with.
    pub fn open(&self, config: &ValidConfig) -> Result<Recovered, RecoveryError> {
        let Some(meta) = &self.meta else { return Err(RecoveryError::MetaMissing) };
        let meta = Meta::decode(meta)?;
        meta.check(config)?;
        let next = FileNumber(meta.file_count);
        if self.files.get(&next).is_some_and(|bytes| Recovery::holds_batches(bytes)) {
            return Err(RecoveryError::Uncounted { file: next, counted: meta.file_count });
        }
        for number in 0..meta.file_count {
            let (file, expected) = (FileNumber(number), config.segment_bytes);
            match self.files.get(&file).map(|bytes| bytes.len() as u64) {
                None => return Err(RecoveryError::MissingFile { file, expected: meta.file_count }),
                Some(found) if found != expected => return Err(RecoveryError::FileSize { file, expected, found }),
                Some(_) => {}
            }
        }
        let mut recovery = Recovery::new(config, meta.file_count);
        for number in 0..meta.file_count {
            let file = FileNumber(number);
            recovery.segment(file, &self.files[&file])?;
        }
        recovery.finish()
    }
}

fn damaged_meta(kind: Kind, meta: Option<Vec<u8>>, last_used: u32, config: &ValidConfig) -> Option<Vec<u8>> {
    let mut meta = meta?;
    let second = FILE_BYTES / 2;
    match kind {
        Kind::MetaFlip => meta[25] ^= 2,
        Kind::MetaFlipBoth => {
            meta[25] ^= 2;
            meta[second + 18] ^= 8;
        }
        Kind::MetaZeroed => meta.fill(0),
        Kind::MetaShort => meta.truncate(16),
        Kind::MetaStale => return Some(Meta::new(config, last_used).encode()),
        _ => return None,
    }
    Some(meta)
}
