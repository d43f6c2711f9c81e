//! What a running snapshot keeps beside the part of the state it walks: how far it is, and what changed before it came by.
//!
//! Off the data path (a change of what is not copied yet passes through it, data path 8/9).
//! Relations: `left` is the number of parts that are neither in `pending` nor taken from there; whole records are added
//! to `pending`, bytes are taken in the same order, so that records never mix.
//!
//! ```text
//!   parts   | copied, or newer than the snapshot |  not copied: `left` of them, in any place  |
//!                       ^ a slice walks on from `cursor`        | about to change
//!                       |                                       v
//!   stream  <--- slice ---------------- first ----- pending: pre-images
//! ```
//! It knows neither keys nor sessions.

use std::collections::VecDeque;

/// Memory of an emptied queue that is worth giving back.
const SLACK_BYTES: usize = 1 << 20;

/// One walk of a snapshot.
#[derive(Debug)]
pub(super) struct Copying {
    /// The number of this snapshot; parts with another one are not copied yet.
    pub(super) epoch: u32,
    /// Parts not copied yet.
    pub(super) left: usize,
    /// Where the next slice goes on.
    pub(super) cursor: usize,
    /// Records for the next slice.
    pub(super) pending: VecDeque<u8>,
}

impl Copying {
    /// The beginning of snapshot `epoch` over `parts`.
    pub(super) fn new(epoch: u32, parts: usize) -> Self {
        Self { epoch, left: parts, cursor: 0, pending: VecDeque::new() }
    }

    /// Moves pending bytes to `out` until it has `end` bytes.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>, end: usize) {
        let taken = self.pending.len().min(end.saturating_sub(out.len()));
        let (front, back) = self.pending.as_slices();
        let from_front = taken.min(front.len());
        out.extend_from_slice(&front[..from_front]);
        out.extend_from_slice(&back[..taken - from_front]);
        self.pending.drain(..taken);
        if self.pending.is_empty() && self.pending.capacity() > SLACK_BYTES {
            self.pending = VecDeque::new();
        }
    }

    /// Everything is copied and taken.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_their_order_in_any_portions() {
        let mut copying = Copying::new(1, 0);
        let (mut expected, mut out) = (Vec::<u8>::new(), Vec::new());
        for round in 0..200_usize {
            let record: Vec<u8> = (0..round % 37).map(|number| (number * round) as u8).collect();
            copying.pending.extend(&record);
            expected.extend(&record);
            let end = out.len() + round % 23;
            copying.drain(&mut out, end);
            assert!(out.len() <= end);
            assert_eq!(out, expected[..out.len()]);
        }
        assert!(!copying.is_done());
        copying.drain(&mut out, usize::MAX);
        assert_eq!(out, expected);
        assert!(copying.is_done());
    }
}
