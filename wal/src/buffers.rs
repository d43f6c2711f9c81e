//! Buffers of batches that left the cache, to be filled again.
//!
//! Data path 6a/9.
//! Invariant: a pooled buffer is not shared. The pool is bounded; what does not fit goes back to the allocator.

use std::rc::Rc;

use crate::disk::Disk;

const POOLED_MAX: usize = 64;
const POOLED_BYTES_MAX: usize = 8 << 20;

/// The pool, and a guess of how large the next batch gets.
#[derive(Debug)]
pub(crate) struct Buffers<D: Disk> {
    free: Vec<Rc<D::Buffer>>,
    free_bytes: usize,
    block_bytes: usize,
    /// Decaying maximum of recent batch lengths.
    expected_bytes: usize,
    pub(crate) allocated: u64,
}

impl<D: Disk> Buffers<D> {
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self { free: Vec::new(), free_bytes: 0, block_bytes, expected_bytes: block_bytes, allocated: 0 }
    }

    /// A buffer of at least `bytes_min`, of the expected size if that is more, of at most `bytes_max`.
    pub(crate) fn take(&mut self, bytes_min: usize, bytes_max: usize, disk: &mut D) -> Rc<D::Buffer> {
        let bytes = self.expected_bytes.min(bytes_max).max(bytes_min).next_multiple_of(self.block_bytes);
        let sizes = self.free.iter().map(|buffer| (**buffer).as_ref().len()).enumerate();
        let best = sizes.filter(|(_, size)| *size >= bytes).min_by_key(|(_, size)| *size);
        if let Some((place, size)) = best {
            self.free_bytes -= size;
            return self.free.swap_remove(place);
        }
        self.allocated += 1;
        Rc::new(disk.allocate(bytes))
    }

    /// Takes back a buffer nobody else holds.
    pub(crate) fn give(&mut self, mut buffer: Rc<D::Buffer>) {
        let bytes = (*buffer).as_ref().len();
        if Rc::get_mut(&mut buffer).is_none() || self.free_bytes + bytes > POOLED_BYTES_MAX {
            return;
        }
        if self.free.len() == POOLED_MAX {
            let sizes = self.free.iter().map(|buffer| (**buffer).as_ref().len()).enumerate();
            let Some((place, size)) = sizes.min_by_key(|(_, size)| *size).filter(|(_, size)| *size < bytes) else {
                return;
            };
            self.free.swap_remove(place);
            self.free_bytes -= size;
        }
        self.free_bytes += bytes;
        self.free.push(buffer);
    }

    /// A batch of this length was closed.
    pub(crate) fn note_length(&mut self, bytes: usize) {
        if bytes >= self.expected_bytes {
            self.expected_bytes = bytes;
        } else {
            self.expected_bytes -= (self.expected_bytes - bytes).div_ceil(16);
        }
    }
}
