//! Bounded queues: nothing that waits exceeds what the settings allow.
//!
//! Off the data path.

use ringraft_engine::shard::inspect::{GroupView, Held};

use super::{Replica, Violation};
use crate::plan::Plan;
use crate::world::Checked;

/// The bounds of every shard.
#[derive(Debug)]
pub(crate) struct Bounds {
    waiting_max: usize,
    peer_bytes_max: usize,
    reply_bytes_max: usize,
    connections_max: usize,
}

impl Bounds {
    pub(crate) fn new(plan: &Plan) -> Self {
        // A frame that alone exceeds the bound may go into an empty queue; the last reply may cross its bound.
        let append = plan.wal.record_bytes_max + plan.consensus.append_bytes_max as usize;
        let frame = append.max(plan.snapshots.chunk_bytes.get()) + 4_096;
        Self {
            // The cluster writes the topology beside what clients ask.
            waiting_max: plan.waiting_max + 1,
            peer_bytes_max: plan.peer_queue_bytes_max.max(frame),
            reply_bytes_max: plan.reply_bytes_max + 2 * plan.limits.request_bytes_max as usize,
            connections_max: plan.connections_max,
        }
    }

    pub(crate) fn group(&self, replica: Replica, view: &GroupView) -> Checked {
        if view.waiting <= self.waiting_max {
            return Ok(());
        }
        let seen = format!("{replica}: {} requests wait, at most {} may", view.waiting, self.waiting_max);
        Err(Violation::new("bounded queues", seen))
    }

    pub(crate) fn shard(&self, node: usize, shard: usize, held: &Held) -> Checked {
        let within = held.peer_bytes <= self.peer_bytes_max
            && held.reply_bytes <= self.reply_bytes_max
            && held.connections <= self.connections_max;
        if within {
            return Ok(());
        }
        Err(Violation::new("bounded queues", format!("node {} shard {shard} holds {held:?}: {self:?}", node + 1)))
    }
}
