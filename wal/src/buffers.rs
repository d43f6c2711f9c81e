//! How large the buffers of batches are made.
//!
//! Data path 6a/9.
//! Invariant: a buffer is allocated when its batch begins (or outgrows what was expected) and given back when the batch is
//! durable and was copied to the cache, so few exist at a time.
//! It keeps none: sizes are powers of two, so that the allocator hands out again what was given back a moment ago.

use crate::packed::PACKED_BYTES_MAX;

/// A guess of how large the next batch gets.
#[derive(Debug)]
pub(crate) struct BufferSize {
    block_bytes: usize,
    /// Decaying maximum of recent batch lengths.
    expected_bytes: usize,
}

impl BufferSize {
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self { block_bytes, expected_bytes: block_bytes }
    }

    /// Bytes of a buffer for at least `bytes_min`: of the expected size if that is more, but not for more than `bytes_max`.
    /// What is not copied to the cache stays there in its buffer: that is no larger than it must be.
    pub(crate) fn of(&self, bytes_min: usize, bytes_max: usize) -> usize {
        let bytes = self.expected_bytes.min(bytes_max).max(bytes_min).next_multiple_of(self.block_bytes);
        if bytes <= PACKED_BYTES_MAX { bytes.next_power_of_two() } else { bytes }
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
