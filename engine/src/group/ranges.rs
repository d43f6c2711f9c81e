//! Ranges that wait until the keys are in order: the first ones that a replica is asked for.
//!
//! Off the data path.
//! Invariants: a range is answered from a state at least as new as the one its read was allowed on; the order is built
//! in slices, one a turn, so that nothing else waits for it; as many wait as may wait in the shard.
//! What the answer is, the state machine decides.

use std::collections::VecDeque;

use ringraft_net::wire;
use ringraft_wal::Disk;

use super::Group;
use crate::shard::clients::Asker;
use crate::shard::io::Io;

/// Requests that were allowed to read and wait for the order.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    waiting: VecDeque<(Asker, Vec<u8>)>,
}

impl Ranges {
    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Group {
    /// A range that the state cannot answer yet.
    pub(super) fn await_order(&mut self, request: &[u8], asker: Asker) {
        self.ranges.waiting.push_back((asker, request.to_vec()));
    }

    /// Goes on with the order, and answers all that wait when it is there.
    pub(crate) fn continue_ranges<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.ranges.waiting.is_empty() {
            return;
        }
        if !self.machine.build_order() {
            io.more_work = true;
            return;
        }
        for (asker, request) in std::mem::take(&mut self.ranges.waiting) {
            self.answer_read(&request, asker, io);
        }
    }

    /// The replica is given up.
    pub(super) fn close_ranges<D: Disk>(&mut self, io: &mut Io<D>) {
        for (asker, _) in std::mem::take(&mut self.ranges.waiting) {
            let message = format!("this node gives up its replica of group {}; ask another", self.id);
            io.reply(asker, self.position(), wire::OutcomeRef::Unavailable { message: &message });
        }
    }
}
