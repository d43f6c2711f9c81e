//! Slab: the client's requests, found by number, threaded on lists.
//!
//! Off the data path of a node.
//!
//! A request is named in frames by its correlation: 16 bits of generation above 16 bits of index. The generation changes
//! with every send, so an answer to an earlier try is not taken for one to this try.
//!
//! Invariants: a request is on at most one list; a free slot keeps its frame buffer for the next request; there are never
//! more than `capacity` slots.
//!
//! It knows no protocol.

/// No request: ends lists.
pub(super) const NONE: u32 = u32::MAX;
/// A buffer larger than this is not kept for the next request.
const KEPT_BUFFER_BYTES_MAX: usize = 16 << 10;

/// What a request is to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only gets.
    Read,
    /// Only gets, any replica, however old; becomes a `Read` when as many as there are nodes could not answer.
    StaleRead,
    /// Only gets, any replica that can tell how old it is; becomes a `Read` when the one that was asked cannot.
    ReplicaRead,
    /// Anything that changes something.
    Write,
    /// The client's own: opens a session.
    OpenSession,
    /// State of a shard.
    Status,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// The cluster is not known yet.
    Unrouted,
    /// On a list of its group.
    Waiting,
    /// Sent on this connection (by place in the table) and unanswered.
    Sent {
        connection: u32,
    },
    /// Completed, but its answer may still come; counts as sent.
    Abandoned {
        connection: u32,
    },
}

/// One request.
#[derive(Debug)]
pub(super) struct Slot {
    /// The whole frame, for another try.
    pub(super) frame: Vec<u8>,
    pub(super) tag: u64,
    pub(super) deadline_us: u64,
    /// When it was last sent; 0: never yet.
    pub(super) sent_us: u64,
    /// Where its frame begins in the connection's stream.
    pub(super) stream_offset: u64,
    /// In its session, 0 = none yet.
    pub(super) sequence: u64,
    /// Which session of the group gave it.
    pub(super) session_generation: u32,
    pub(super) group: u32,
    /// The shard asked, for `Status`.
    pub(super) asked: (u64, u16),
    pub(super) generation: u16,
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// An earlier try was sent and never answered for sure.
    pub(super) maybe_applied: bool,
    /// Replicas that could not answer it.
    pub(super) refusals: u32,
    previous: u32,
    next: u32,
}

/// Requests in an order.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { head: NONE, tail: NONE }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    #[inline]
    pub(super) fn front(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn back(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }
}

/// All requests.
#[derive(Debug)]
pub(super) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    capacity: usize,
    /// Bytes of the frames of all requests in use.
    pub(super) pending_bytes: usize,
}

impl Slab {
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), capacity, pending_bytes: 0 }
    }

    /// Requests in use.
    #[cfg(test)]
    pub(super) fn occupied(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many there have ever been at once.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A slot for a new request, with an empty frame.
    #[inline]
    pub(super) fn take(&mut self, tag: u64, kind: Kind, deadline_us: u64) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot::empty());
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.tag = tag;
        slot.kind = kind;
        slot.deadline_us = deadline_us;
        slot.sequence = 0;
        slot.sent_us = 0;
        slot.maybe_applied = false;
        slot.refusals = 0;
        Some(index)
    }

    /// The request is gone.
    #[inline]
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.previous == NONE && slot.next == NONE, "released while on a list");
        self.pending_bytes -= slot.frame.len();
        slot.place = Place::Free;
        slot.frame.clear();
        if slot.frame.capacity() > KEPT_BUFFER_BYTES_MAX {
            slot.frame = Vec::new();
        }
        self.free.push(index);
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// What stands behind a request on its list.
    #[inline]
    pub(super) fn after(&self, index: u32) -> Option<u32> {
        let next = self.slots[index as usize].next;
        (next != NONE).then_some(next)
    }

    /// A new number for the next send.
    #[inline]
    pub(super) fn next_correlation(&mut self, index: u32) -> u32 {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        u32::from(slot.generation) << 16 | index
    }

    /// The request a number names, if it is the latest number of it.
    #[inline]
    pub(super) fn find(&self, correlation: u32) -> Option<u32> {
        let index = correlation & 0xffff;
        let slot = self.slots.get(index as usize)?;
        (u32::from(slot.generation) == correlation >> 16 && slot.place != Place::Free).then_some(index)
    }

    #[inline]
    pub(super) fn push_back(&mut self, list: &mut List, index: u32) {
        let old_tail = std::mem::replace(&mut list.tail, index);
        let slot = &mut self.slots[index as usize];
        slot.previous = old_tail;
        slot.next = NONE;
        match old_tail {
            NONE => list.head = index,
            tail => self.slots[tail as usize].next = index,
        }
    }

    pub(super) fn push_front(&mut self, list: &mut List, index: u32) {
        let old_head = std::mem::replace(&mut list.head, index);
        let slot = &mut self.slots[index as usize];
        slot.previous = NONE;
        slot.next = old_head;
        match old_head {
            NONE => list.tail = index,
            head => self.slots[head as usize].previous = index,
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, list: &mut List, index: u32) {
        let slot = &mut self.slots[index as usize];
        let (previous, next) = (slot.previous, slot.next);
        slot.previous = NONE;
        slot.next = NONE;
        match previous {
            NONE => list.head = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => list.tail = previous,
            next => self.slots[next as usize].previous = previous,
        }
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            frame: Vec::new(),
            tag: 0,
            deadline_us: 0,
            sent_us: 0,
            stream_offset: 0,
            sequence: 0,
            session_generation: 0,
            group: 0,
            asked: (0, 0),
            generation: 0,
            kind: Kind::Read,
            place: Place::Free,
            maybe_applied: false,
            refusals: 0,
            previous: NONE,
            next: NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_numbers_go_stale() {
        let mut slab = Slab::new(4);
        let mut list = List::new();
        let taken: Vec<u32> = (0..4).map(|tag| slab.take(tag, Kind::Read, 0).unwrap()).collect();
        assert!(slab.take(9, Kind::Read, 0).is_none());
        for &index in &taken[1..] {
            slab.push_back(&mut list, index);
        }
        slab.push_front(&mut list, taken[0]);
        slab.remove(&mut list, taken[2]);
        let mut order = Vec::new();
        while let Some(index) = list.front() {
            slab.remove(&mut list, index);
            order.push(index);
        }
        assert_eq!(order, [taken[0], taken[1], taken[3]]);
        slab.get_mut(taken[0]).place = Place::Waiting;
        let first = slab.next_correlation(taken[0]);
        assert_eq!(slab.find(first), Some(taken[0]));
        let second = slab.next_correlation(taken[0]);
        assert_eq!((slab.find(first), slab.find(second)), (None, Some(taken[0])));
        slab.release(taken[0]);
        assert_eq!(slab.find(second), None);
        assert_eq!(slab.occupied(), 3);
    }
}
