//! The one queue of everything that is going to happen.
//!
//! Off the data path.
//! Invariants: events come out ordered by (time, order of scheduling); virtual time never goes back; what is scheduled for
//! the past happens now.
//! It does not know what events mean.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::nemesis::{Action, Undo};
use crate::network::{LinkId, Side};

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A node's clock ticks for one shard.
    Tick { node: usize, incarnation: u32, shard: usize },
    /// A shard's turn task runs.
    Turn { node: usize, incarnation: u32, shard: usize },
    /// A disk operation comes to its end. The disk outlives the process, so the incarnation is told only to the process.
    DiskDone { node: usize, shard: usize, operation: u64 },
    /// The process has opened its data folder.
    Opened { node: usize, incarnation: u32 },
    /// Somebody starts the process.
    Start { node: usize, attempt: u32 },
    /// A paused process goes on.
    Resume { node: usize, incarnation: u32 },
    /// A gracefully stopping process has had its time.
    StopPatience { node: usize, incarnation: u32 },
    /// The front of a stream is due.
    Arrive { link: LinkId, side: Side },
    /// A whole frame between peers arrives outside of any connection (the datagram hazard).
    Frame { to: usize, shard: usize, datagram: u64 },
    /// A sender dials its peer again.
    Dial { node: usize, incarnation: u32, shard: usize, peer: usize },
    /// A connection attempt or handshake of a peer's sender took too long.
    DialPatience { node: usize, incarnation: u32, shard: usize, peer: usize, link: LinkId },
    /// The last replies of a client connection had their time.
    CloseClient { node: usize, incarnation: u32, shard: usize, link: LinkId },
    /// A client's timer.
    ClientTick { client: usize, generation: u32 },
    /// A client thinks of something to ask.
    ClientAsk { client: usize, generation: u32 },
    /// The nemesis draws its next action.
    Nemesis,
    /// The operator looks what there is to do.
    Operator,
    /// An action of a scenario.
    Act(Action),
    /// The end of a fault.
    Undo { undo: Undo, epoch: u32 },
    /// Everything is compared.
    Check,
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.order).cmp(&(self.at_us, self.order))
    }
}

/// The queue and the time.
#[derive(Debug, Default)]
pub(crate) struct Events {
    now_us: u64,
    order: u64,
    heap: BinaryHeap<Scheduled>,
}

impl Events {
    /// The moment it is.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets `event` happen at `at_us`, now at the earliest.
    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        self.heap.push(Scheduled { at_us: at_us.max(self.now_us), order: self.order, event });
    }

    /// Lets `event` happen after a while.
    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us.saturating_add(delay_us), event);
    }

    /// The next event, if it is due before `until_us`; time moves to it.
    pub(crate) fn next_before(&mut self, until_us: u64) -> Option<Event> {
        if self.heap.peek()?.at_us >= until_us {
            return None;
        }
        let next = self.heap.pop()?;
        self.now_us = next.at_us;
        Some(next.event)
    }

    /// Nothing more happens before this moment.
    pub(crate) fn advance_to(&mut self, at_us: u64) {
        self.now_us = self.now_us.max(at_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_scheduled() {
        let mut events = Events::default();
        for (at_us, client) in [(30, 0), (10, 1), (30, 2), (20, 3), (10, 4)] {
            events.at(at_us, Event::ClientAsk { client, generation: 0 });
        }
        let mut seen = Vec::new();
        while let Some(event) = events.next_before(31) {
            let Event::ClientAsk { client, .. } = event else { panic!("only these") };
            seen.push((events.now_us(), client));
            if client == 4 {
                events.at(5, Event::ClientAsk { client: 9, generation: 0 });
            }
        }
        assert_eq!(seen, [(10, 1), (10, 4), (10, 9), (20, 3), (30, 0), (30, 2)]);
    }
}
