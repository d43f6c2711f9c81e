//! Buffers of a connection: bytes received and not yet parsed, bytes to send and not yet sent.
//!
//! Data path 1/9 and 9/9.
//!
//! ```text
//!  ReceiveBuffer   |  consumed  |  filled: frames, perhaps part of one  |  spare: the next read goes here  |
//!  SendBuffer      |  sent      |  pending: goes out next               |
//! ```
//!
//! Invariants: a receive buffer reads straight into its spare part, which was zeroed once and not at every read; it moves
//! bytes only when the frame at its start does not fit behind; a send buffer never reorders.
//!
//! They do not bound themselves: the limits of frames and of whoever fills them do.

/// Received bytes.
#[derive(Debug, Default)]
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    /// An empty one; memory comes with the first [`ReceiveBuffer::spare`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes received and not consumed.
    #[inline]
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room for the next read, at least `bytes_min` of it.
    #[inline]
    pub fn spare(&mut self, bytes_min: usize) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.bytes.len() - self.end < bytes_min && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < bytes_min {
            self.bytes.resize(self.end + bytes_min, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// The first `count` bytes of the spare part were read into.
    ///
    /// # Panics
    /// When there is not that much spare.
    #[inline]
    pub fn fill(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "filled more than there is room");
        self.end += count;
    }

    /// The first `count` filled bytes are done with.
    ///
    /// # Panics
    /// When fewer are filled.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than was filled");
        self.start += count;
    }

    /// Appends bytes that were read elsewhere.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

/// Bytes to send.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    start: usize,
    sent_total: u64,
}

/// Sent bytes are moved out of the way when they are at least this many and more than what is pending.
const COMPACT_BYTES_MIN: usize = 64 << 10;

impl SendBuffer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What goes out next.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Nothing to send.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// The first `count` pending bytes were sent.
    ///
    /// # Panics
    /// When fewer are pending.
    #[inline]
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.start, "sent more than was pending");
        self.start += count;
        self.sent_total += count as u64;
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Where new bytes are appended. Bytes that are there must stay.
    #[inline]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.start >= COMPACT_BYTES_MIN && self.start > self.bytes.len() - self.start {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// How many bytes were sent since the beginning.
    #[must_use]
    pub fn sent_total(&self) -> u64 {
        self.sent_total
    }

    /// How many bytes were sent or are pending: the position in the stream of what is appended next.
    #[inline]
    #[must_use]
    pub fn end_total(&self) -> u64 {
        self.sent_total + (self.bytes.len() - self.start) as u64
    }

    /// Starts over for a new connection, keeps the memory.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.sent_total = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_buffer_keeps_its_bytes_in_order() {
        let mut buffer = ReceiveBuffer::new();
        let mut expected = Vec::new();
        for round in 0..200u32 {
            let bytes: Vec<u8> = (0..round % 37).map(|byte| (byte + round) as u8).collect();
            expected.extend_from_slice(&bytes);
            buffer.extend(&bytes);
            let consumed = expected.len() / 2;
            assert_eq!(buffer.filled(), &expected[..]);
            buffer.consume(consumed);
            expected.drain(..consumed);
        }
        assert!(buffer.bytes.len() < 200, "{}", buffer.bytes.len());
    }

    #[test]
    fn a_send_buffer_counts_the_stream() {
        let mut buffer = SendBuffer::new();
        for _ in 0..10 {
            buffer.tail().extend_from_slice(&[7; 30_000]);
            buffer.sent(20_000);
        }
        assert_eq!((buffer.sent_total(), buffer.end_total()), (200_000, 300_000));
        assert_eq!(buffer.pending().len(), 100_000);
        buffer.sent(100_000);
        assert!(buffer.is_empty() && buffer.bytes.is_empty());
    }
}
