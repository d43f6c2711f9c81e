//! Buffers of batches: how large they are made, and a few to be filled again.
//!
//! Data path 6a/9.
//! Invariants: a pooled buffer is not shared; the pool is bounded.
//! A buffer is given back when its batch is durable and was copied to the cache, so few exist at a time. One that was
//! shortened stays short: flushes of like sizes take turns with the same memory, others ask the allocator, for powers of
//! two, so that it hands out again what it got back a moment ago.

use std::rc::Rc;

use crate::disk::Disk;
use crate::packed::PACKED_BYTES_MAX;

/// Buffers kept at most: those of the flushes under way, and some more.
const POOLED_MAX: usize = 8;

/// The pool, and a guess of how large the next batch gets.
#[derive(Debug)]
pub(crate) struct Buffers<D: Disk> {
    free: Vec<Rc<D::Buffer>>,
    block_bytes: usize,
    /// Decaying maximum of recent batch lengths.
    expected_bytes: usize,
}

impl<D: Disk> Buffers<D> {
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self { free: Vec::with_capacity(POOLED_MAX), block_bytes, expected_bytes: block_bytes }
    }

    /// A buffer of at least `bytes_min`, for the expected size if that is more, but not for more than `bytes_max`.
    pub(crate) fn take(&mut self, bytes_min: usize, bytes_max: usize, disk: &mut D) -> Rc<D::Buffer> {
        let bytes = self.expected_bytes.min(bytes_max).max(bytes_min).next_multiple_of(self.block_bytes);
        let sizes = self.free.iter().map(|buffer| (**buffer).as_ref().len()).enumerate();
        if let Some((place, _)) = sizes.filter(|(_, size)| *size >= bytes).min_by_key(|(_, size)| *size) {
            return self.free.swap_remove(place);
        }
        // What is not copied to the cache stays there in its buffer: that is no larger than it must be.
        Rc::new(disk.allocate(if bytes <= PACKED_BYTES_MAX { bytes.next_power_of_two() } else { bytes }))
    }

    /// Takes back a buffer nobody else holds; a full pool keeps the larger ones.
    pub(crate) fn give(&mut self, mut buffer: Rc<D::Buffer>) {
        if Rc::get_mut(&mut buffer).is_none() {
            return;
        }
        if self.free.len() == POOLED_MAX {
            let length = (*buffer).as_ref().len();
            let sizes = self.free.iter().map(|buffer| (**buffer).as_ref().len()).enumerate();
            let Some((place, _)) = sizes.min_by_key(|(_, size)| *size).filter(|(_, size)| *size < length) else {
                return;
            };
            self.free.swap_remove(place);
        }
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
