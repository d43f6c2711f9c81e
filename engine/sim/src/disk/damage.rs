//! Damage behind the program's back: flipped bits, zeroed and misdirected blocks, lost metadata, cut files.
//!
//! Off the data path.
//! Invariant: only what is durable and called so by a later batch is damaged, which is what recovery promises to notice
//! (`wal/FORMAT.md`, rows 09 to 29). Row 27, damage of the last batch that nothing calls durable, is left out: nothing on
//! the disk tells it from a torn write.

use ringraft_wal::batch::BatchHeader;

use super::{Block, Damage, Medium, MetaFile, Random};

impl Medium {
    /// Damages one place; says which, or `None` when there is nothing to damage yet.
    pub(crate) fn damage(&mut self, damage: Damage, random: &mut Random) -> Option<String> {
        match damage {
            Damage::MetaLost => {
                self.meta = MetaFile::Damaged;
                Some(String::from("wal.meta, both copies"))
            }
            Damage::MetaOld => {
                let count = self.file_count();
                self.meta = MetaFile::Counts(count.checked_sub(1).filter(|left| *left > 0)?);
                Some(format!("wal.meta counts {} files instead of {count}", count - 1))
            }
            Damage::FileCut => {
                let number = random.below(u64::from(self.file_count().max(1))) as usize;
                let file = self.files.get_mut(number)?;
                file.length /= 2;
                Some(format!("{number:04}.segment is cut to {} bytes", file.length))
            }
            Damage::SnapshotBitFlip => self.damage_snapshot(random),
            Damage::BitFlip | Damage::Zeroed | Damage::Misdirected => self.damage_block(damage, random),
        }
    }

    fn damage_block(&mut self, damage: Damage, random: &mut Random) -> Option<String> {
        let targets = self.called_durable();
        if targets.is_empty() {
            return None;
        }
        let (number, place) = *random.pick(&targets);
        let (other_number, other_place) = *random.pick(&targets);
        let other: Block = self.files[other_number].blocks[other_place].clone();
        let target = &mut self.files[number].blocks[place];
        match damage {
            Damage::Zeroed => *target = None,
            Damage::Misdirected => *target = other,
            _ => {
                let bytes = target.as_mut()?;
                let bit = random.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Some(format!("{damage:?} in block {place} of {number:04}.segment"))
    }

    /// Blocks (file, block) of batches that a later batch calls durable.
    fn called_durable(&self) -> Vec<(usize, usize)> {
        let mut batches = Vec::new();
        let mut called = 0;
        for (number, file) in self.files.iter().enumerate() {
            let mut place = 0;
            while let Some(Some(block)) = file.blocks.get(place)
                && let Ok(header) = BatchHeader::decode(block)
            {
                called = called.max(header.durable_sequence);
                let blocks = header.blocks(self.config.block_bytes) as usize;
                batches.push((header.sequence, number, place..place + blocks));
                place += blocks;
            }
        }
        let durable = batches.into_iter().filter(|(sequence, ..)| *sequence <= called);
        durable.flat_map(|(_, number, blocks)| blocks.map(move |block| (number, block))).collect()
    }
}
