//! The writes of one file that no flush has covered.
//!
//! Off the data path.
//! Invariant: later writes lie over earlier ones, in reads, in flushes and in what survives a loss of power.

/// A sector is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Bytes at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    /// Made by a write that was its own flush.
    durable: bool,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// The writes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    writes: Vec<Write>,
}

impl Unsynced {
    /// Adds a write. Returns what may go to the folder at once: everything, when nothing is unsynced any more.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8], durable: bool) -> Vec<Write> {
        self.writes.push(Write { offset, bytes: bytes.to_vec(), durable });
        if self.writes.iter().all(|write| write.durable) { self.flush() } else { Vec::new() }
    }

    /// Lays the writes over `bytes`, which were read at `offset` and reach as far as the file does.
    pub(super) fn overlay(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        for write in &self.writes {
            let (from, to) = (write.offset.max(offset), write.end().min(end));
            if from < to {
                let length = (to - from) as usize;
                let (target, source) = ((from - offset) as usize, (from - write.offset) as usize);
                bytes[target..target + length].copy_from_slice(&write.bytes[source..source + length]);
            }
        }
    }

    /// How far the writes reach.
    pub(super) fn end(&self) -> u64 {
        self.writes.iter().map(Write::end).max().unwrap_or(0)
    }

    /// Everything goes to the folder.
    pub(super) fn flush(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// The file now ends there.
    pub(super) fn truncate(&mut self, length: u64) {
        for write in &mut self.writes {
            write.bytes.truncate(length.saturating_sub(write.offset) as usize);
        }
        self.writes.retain(|write| !write.bytes.is_empty());
    }

    /// Power is lost: what survives, in order, and (sectors lost, unsynced sectors kept).
    pub(super) fn lose(&mut self, mut keep: impl FnMut() -> bool) -> (Vec<Write>, u64, u64) {
        let (mut survivors, mut lost, mut kept) = (Vec::new(), 0, 0);
        for write in self.flush() {
            if write.durable {
                survivors.push(write);
                continue;
            }
            for (number, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                if keep() {
                    kept += 1;
                    let offset = write.offset + (number * SECTOR_BYTES) as u64;
                    survivors.push(Write { offset, bytes: sector.to_vec(), durable: false });
                } else {
                    lost += 1;
                }
            }
        }
        (survivors, lost, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_see_the_latest_write() {
        let mut unsynced = Unsynced::default();
        assert!(unsynced.push(4, b"aaaa", false).is_empty());
        unsynced.push(6, b"bbbb", false);
        let mut bytes = *b"..........";
        unsynced.overlay(0, &mut bytes);
        assert_eq!(&bytes, b"....aabbbb");
        let mut middle = *b"...";
        unsynced.overlay(5, &mut middle);
        assert_eq!(&middle, b"abb");
        assert_eq!(unsynced.end(), 10);
        unsynced.truncate(7);
        assert_eq!(unsynced.end(), 7);
    }

    #[test]
    fn a_write_that_is_its_own_flush_survives_and_others_do_not() {
        let mut unsynced = Unsynced::default();
        assert_eq!(unsynced.push(0, b"alone", true).len(), 1, "with nothing before it, it goes to the folder");
        unsynced.push(0, &[1; 1024], false);
        assert!(unsynced.push(512, &[2; 512], true).is_empty());
        let (survivors, lost, kept) = unsynced.lose(|| false);
        assert_eq!((survivors.len(), lost, kept), (1, 2, 0));
        assert_eq!((survivors[0].offset, survivors[0].bytes[0]), (512, 2));
    }

    #[test]
    fn sectors_are_kept_one_by_one() {
        let mut unsynced = Unsynced::default();
        unsynced.push(4096, &[7; 2048], false);
        let mut turn = 0;
        let (survivors, lost, kept) = unsynced.lose(|| {
            turn += 1;
            turn % 2 == 0
        });
        assert_eq!((lost, kept), (2, 2));
        assert_eq!(survivors.iter().map(|write| write.offset).collect::<Vec<_>>(), [4608, 5632]);
        assert!(unsynced.flush().is_empty());
    }
}
