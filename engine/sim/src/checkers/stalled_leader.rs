//! A leader whose own disk makes no progress gives up, so that another can lead (etcd #15247).
//!
//! Off the data path.
//! Time is the node's own ticks: what a paused process does not count is not counted here.

use ringraft_engine::shard::Shard;
use ringraft_raft::Role;

use super::Violation;
use crate::disk::SimDisk;
use crate::plan::Plan;
use crate::world::Checked;

/// Ticks granted beyond the setting.
const MARGIN_TICKS: u32 = 3;

/// For how many ticks each shard's log has waited for its disk, by node and shard.
#[derive(Debug)]
pub(crate) struct StalledLeader {
    waited: Vec<Vec<(u64, u32)>>,
    ticks_max: u32,
}

impl StalledLeader {
    pub(crate) fn new(plan: &Plan) -> Self {
        let shards = usize::from(plan.shards);
        Self { waited: vec![vec![(0, 0); shards]; plan.nodes], ticks_max: plan.disk_stall_ticks() + MARGIN_TICKS }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.waited[node].fill((0, 0));
    }

    /// Looks at a shard after one of its ticks.
    pub(crate) fn tick(&mut self, node: usize, shard: usize, machine: &Shard<SimDisk>) -> Checked {
        let cursors = machine.log_cursors();
        let (durable, ticks) = &mut self.waited[node][shard];
        let moves = cursors.durable != *durable || cursors.submitted == cursors.durable;
        *durable = cursors.durable;
        *ticks = if moves { 0 } else { *ticks + 1 };
        if *ticks <= self.ticks_max {
            return Ok(());
        }
        let Some(view) = machine.group_views().find(|view| view.role == Role::Leader) else { return Ok(()) };
        let seen =
            format!("node {} leads group {} although its disk stands still for {ticks} ticks", node + 1, view.group);
        Err(Violation::new("a stalled leader gives up", seen))
    }
}
