//! Requests that wait to become entries: bytes stay in the receive buffer until they are copied into the WAL.
//!
//! Data path 4/9.
//! Invariant: a request's bytes are copied once, from the buffer the socket filled into the WAL's open batch.
//! The number and bytes of waiting requests are bounded by the shard's admission, not here.

use std::collections::VecDeque;
use std::rc::Rc;

use ringraft_net::buffer::ReceiveBuffer;

use crate::payload::{ENTRY_REQUESTS_MAX, REQUEST_PREFIX_BYTES};
use crate::shard::clients::Asker;

/// One admitted request: a range of a shared receive buffer and who asked.
#[derive(Debug)]
pub(crate) struct Proposal {
    buffer: Rc<ReceiveBuffer>,
    start: u32,
    length: u32,
    pub(crate) asker: Asker,
    /// When it came in.
    arrived_us: u64,
}

impl Proposal {
    /// A request lying at `start..start + length` of the filled part of `buffer`.
    pub(crate) fn new(buffer: Rc<ReceiveBuffer>, start: usize, length: usize, asker: Asker, arrived_us: u64) -> Self {
        debug_assert!(start + length <= buffer.filled().len());
        Self { buffer, start: start as u32, length: length as u32, asker, arrived_us }
    }

    /// The request's archive.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer.filled()[self.start as usize..(self.start + self.length) as usize]
    }
}

/// The next entry's extent: how many of the waiting requests it takes and its payload bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextEntry {
    pub(crate) count: usize,
    pub(crate) payload_bytes: usize,
}

/// Waiting requests of one group, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    queue: VecDeque<Proposal>,
}

impl Proposals {
    pub(crate) fn push(&mut self, proposal: Proposal) {
        self.queue.push_back(proposal);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether one of them is this asker's.
    pub(crate) fn has(&self, asker: Asker) -> bool {
        self.queue.iter().any(|proposal| proposal.asker == asker)
    }

    /// When the oldest one came in.
    pub(crate) fn oldest_us(&self) -> Option<u64> {
        self.queue.front().map(|proposal| proposal.arrived_us)
    }

    /// What the next entry takes: at least one request, then as many as fit in `entry_bytes_max` of payload.
    pub(crate) fn next_entry(&self, entry_bytes_max: usize) -> NextEntry {
        let mut next = NextEntry { count: 0, payload_bytes: 0 };
        for proposal in &self.queue {
            let bytes = REQUEST_PREFIX_BYTES + proposal.length as usize;
            let full = next.payload_bytes + bytes > entry_bytes_max || next.count == ENTRY_REQUESTS_MAX;
            if next.count > 0 && full {
                break;
            }
            next.count += 1;
            next.payload_bytes += bytes;
        }
        next
    }

    /// Takes the first `count` requests.
    pub(crate) fn drain(&mut self, count: usize) -> impl Iterator<Item = Proposal> + '_ {
        self.queue.drain(..count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::clients::ConnectionId;

    fn proposal(length: usize) -> Proposal {
        let asker = Asker { connection: ConnectionId { slot: 0, generation: 0 }, correlation: 0 };
        let mut buffer = ReceiveBuffer::new();
        buffer.extend(&vec![7; length]);
        Proposal::new(Rc::new(buffer), 0, length, asker, length as u64)
    }

    #[test]
    fn an_entry_takes_what_fits_and_at_least_one() {
        let mut proposals = Proposals::default();
        for length in [1000, 10, 10, 10] {
            proposals.push(proposal(length));
        }
        assert_eq!(proposals.next_entry(100), NextEntry { count: 1, payload_bytes: 1004 });
        assert_eq!(proposals.oldest_us(), Some(1000));
        assert_eq!(proposals.drain(1).count(), 1);
        assert_eq!(proposals.oldest_us(), Some(10));
        assert_eq!(proposals.next_entry(28), NextEntry { count: 2, payload_bytes: 28 });
        assert_eq!(proposals.next_entry(27), NextEntry { count: 1, payload_bytes: 14 });
        assert_eq!(proposals.len(), 3);
        assert!(!proposals.is_empty());
    }
}
