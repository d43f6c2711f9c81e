//! The requests of a client that are not at their end: a slab addressed by the correlation of their frames.
//!
//! Invariants: a correlation names one request until its end; a late reply to an ended one finds nothing (generation);
//! the number of requests is bounded by `in_flight_max`.

use super::links::LinkId;

/// One request on its way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    generation: u16,
    pub(super) used: bool,
    pub(super) tag: u64,
    pub(super) group: u32,
    /// The whole frame, sent as it is on every try.
    pub(super) frame: Vec<u8>,
    /// The session its sequence belongs to.
    pub(super) client: u64,
    /// Sequence in the group's session, 0 without one.
    pub(super) sequence: u64,
    pub(super) read: bool,
    /// Whether this opens the session of `group` for the client itself.
    pub(super) opens_session: bool,
    /// Whether any try has been sent: the outcome may be unknown then.
    pub(super) sent: bool,
    pub(super) attempts: u32,
    pub(super) deadline_us: u64,
    /// `Some`: waits until then for its next try.
    pub(super) retry_at_us: Option<u64>,
    pub(super) link: Option<LinkId>,
}

/// All requests of a client.
#[derive(Debug)]
pub(super) struct Requests {
    slots: Vec<Pending>,
    free: Vec<u32>,
    in_flight_max: usize,
}

const SLOT_BITS: u32 = 20;
/// Requests at once at most: a correlation has 20 bits for the place and 12 for the generation.
pub(super) const IN_FLIGHT_MAX: usize = 1 << SLOT_BITS;

impl Requests {
    pub(super) fn new(in_flight_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), in_flight_max: in_flight_max.min(IN_FLIGHT_MAX) }
    }

    /// A free place and the correlation that names it; `None` when the bound is reached.
    pub(super) fn insert(&mut self) -> Option<(u32, u32)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.in_flight_max => {
                self.slots.push(Pending::default());
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let pending = &mut self.slots[slot as usize];
        pending.generation = pending.generation.wrapping_add(1) & 0xFFF;
        pending.used = true;
        pending.sent = false;
        pending.attempts = 0;
        pending.retry_at_us = None;
        pending.link = None;
        pending.frame.clear();
        Some((slot, u32::from(pending.generation) << SLOT_BITS | slot))
    }

    /// The place a correlation names, if its request has not ended.
    pub(super) fn find(&self, correlation: u32) -> Option<u32> {
        let slot = correlation & (IN_FLIGHT_MAX as u32 - 1);
        let pending = self.slots.get(slot as usize)?;
        (pending.used && u32::from(pending.generation) == correlation >> SLOT_BITS).then_some(slot)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Pending {
        &mut self.slots[slot as usize]
    }

    pub(super) fn get(&self, slot: u32) -> &Pending {
        &self.slots[slot as usize]
    }

    /// Ends a request; its memory stays for the next one.
    pub(super) fn remove(&mut self, slot: u32) {
        const FRAME_BYTES_KEPT: usize = 16 << 10;
        let pending = &mut self.slots[slot as usize];
        pending.used = false;
        if pending.frame.capacity() > FRAME_BYTES_KEPT {
            pending.frame = Vec::new();
        }
        self.free.push(slot);
    }

    /// Places of the requests that fulfil a condition.
    pub(super) fn matching(&self, condition: impl Fn(&Pending) -> bool) -> Vec<u32> {
        let used = self.slots.iter().enumerate().filter(|(_, pending)| pending.used && condition(pending));
        used.map(|(slot, _)| slot as u32).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_finds_nothing() {
        let mut requests = Requests::new(1);
        let (slot, first) = requests.insert().expect("room");
        assert_eq!(requests.find(first), Some(slot));
        assert_eq!(requests.insert(), None, "the bound holds");
        requests.remove(slot);
        assert_eq!(requests.find(first), None);
        let (_, second) = requests.insert().expect("room");
        assert_ne!(first, second);
        assert_eq!(requests.find(first), None);
        assert_eq!(requests.len(), 1);
    }
}
