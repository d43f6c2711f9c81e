//! Batches that are kept as cache without the padding of their blocks.
//!
//! Off the data path (behind 6a/9).
//! A flush of few records is a block that is nearly empty: the cache would hold 4 KiB for each entry. And a buffer that
//! stays in the cache makes the next batch fill memory nobody touched before, which costs more than a copy. What is used of
//! a batch is copied here when it is durable, and its buffer is filled again.
//!
//! ```text
//!   chunks  [ batch | batch | batch .. ][ batch | ......... ]     batches leave in the order they came, chunks with the
//!             gone    gone    here                                last of theirs
//! ```
//! Invariant: bytes in a chunk never move.

use std::collections::VecDeque;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Longest batch that is packed: a chunk is not left half empty.
pub(crate) const PACKED_BYTES_MAX: usize = CHUNK_BYTES / 8;

/// What a packed batch takes besides its bytes, nearly.
const EXTRA_BYTES: usize = 256;

/// Where a packed batch is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    chunk: u64,
    start: u32,
    bytes: u32,
}

impl Packed {
    /// What it counts in the cache.
    pub(crate) fn cost(&self) -> usize {
        self.bytes as usize + EXTRA_BYTES
    }
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    batches: u32,
}

/// The chunks.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk.
    first: u64,
    spare: Option<Vec<u8>>,
}

impl Packs {
    /// Whether a batch of so many bytes is worth a copy.
    pub(crate) fn pays(used: usize) -> bool {
        used <= PACKED_BYTES_MAX
    }

    /// Keeps a batch: what its buffer begins with.
    pub(crate) fn push(&mut self, used: &[u8]) -> Packed {
        if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() + used.len() > CHUNK_BYTES) {
            let bytes = self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
            self.chunks.push_back(Chunk { bytes, batches: 0 });
        }
        let number = self.first + self.chunks.len() as u64 - 1;
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let packed = Packed { chunk: number, start: chunk.bytes.len() as u32, bytes: used.len() as u32 };
        chunk.bytes.extend_from_slice(used);
        chunk.batches += 1;
        packed
    }

    pub(crate) fn get(&self, packed: &Packed) -> &[u8] {
        let chunk = &self.chunks[(packed.chunk - self.first) as usize];
        &chunk.bytes[packed.start as usize..][..packed.bytes as usize]
    }

    /// Forgets a batch; those before it are gone already.
    pub(crate) fn forget(&mut self, packed: &Packed) {
        let place = (packed.chunk - self.first) as usize;
        self.chunks[place].batches -= 1;
        while self.chunks.front().is_some_and(|chunk| chunk.batches == 0)
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            self.first += 1;
            chunk.bytes.clear();
            self.spare = Some(chunk.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_stays_until_it_is_forgotten_and_chunks_go_with_their_last() {
        let (mut packs, mut here) = (Packs::default(), VecDeque::new());
        for round in 0..5_000_usize {
            let bytes: Vec<u8> = (0..100 + round % 3_000).map(|at| (at * round) as u8).collect();
            here.push_back((packs.push(&bytes), bytes));
            while here.iter().map(|(packed, _)| packed.cost()).sum::<usize>() > 2_800_000 {
                let (packed, bytes) = here.pop_front().unwrap();
                assert_eq!(packs.get(&packed), bytes);
                packs.forget(&packed);
            }
            assert!(packs.chunks.len() <= 4, "{} chunks", packs.chunks.len());
        }
        assert!(here.iter().all(|(packed, bytes)| packs.get(packed) == bytes));
        here.drain(..).for_each(|(packed, _)| packs.forget(&packed));
        assert!(packs.chunks.is_empty());
        let again = packs.push(b"again");
        assert_eq!(packs.get(&again), b"again");
    }

    #[test]
    fn what_is_copied_leaves_no_large_gap_in_a_chunk() {
        assert!(Packs::pays(64) && Packs::pays(PACKED_BYTES_MAX) && !Packs::pays(PACKED_BYTES_MAX + 1));
        let mut packs = Packs::default();
        let used = vec![1; PACKED_BYTES_MAX - 1];
        for _ in 0..100 {
            packs.push(&used);
        }
        let full = packs.chunks.len() - 1;
        assert!(packs.chunks.iter().take(full).all(|chunk| CHUNK_BYTES - chunk.bytes.len() < PACKED_BYTES_MAX));
    }
}
