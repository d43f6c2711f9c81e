//! A snapshot that an operator asks for.
//!
//! Off the data path.
//! Invariants: every request is answered once: when a snapshot of what was applied then is durable, at once if there is one,
//! or when it took too long; at most [`ASKERS_MAX`] wait.
//! How it is taken is `take.rs`'s; it waits for its turn as any other.

use ringraft_net::wire::{AdminRefusal, AdminReply};
use ringraft_wal::Disk;

use super::super::Group;
use crate::shard::clients::Asker;
use crate::shard::io::Io;

/// Operators that may wait for a snapshot of one group.
const ASKERS_MAX: usize = 16;

/// How often the patience with a peer an operator's is: the state is written at a bounded rate.
const PATIENCE_TIMES: u32 = 30;

/// An operator who waits for a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    asker: Asker,
    /// It covers what was applied when it was asked for.
    index: u64,
    ticks_left: u32,
}

impl Group {
    /// Takes a snapshot for an operator.
    pub(crate) fn take_for<D: Disk>(&mut self, asker: Asker, io: &mut Io<D>) {
        let (group, index) = (self.id.0, self.machine.last_applied());
        let durable = self.snapshot_index(io);
        if durable >= index && durable > 0 {
            return io.reply_admin(asker, &AdminReply::SnapshotTaken { group, index: durable });
        }
        let refusal = if index == 0 {
            Some((AdminRefusal::Failed, format!("nothing is applied yet in group {group}; ask again")))
        } else if self.snapshots.waiting.len() >= ASKERS_MAX {
            Some((
                AdminRefusal::Pending,
                format!("{ASKERS_MAX} operators wait for a snapshot of group {group} already"),
            ))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            return io.reply_admin(asker, &AdminReply::Refused { code, message });
        }
        let ticks_left = self.snapshots.settings.patience_ticks.saturating_mul(PATIENCE_TIMES);
        self.snapshots.waiting.push(Waiting { asker, index, ticks_left });
        self.snapshots.wanted = true;
    }

    /// A tick: whoever waits is answered or waits on; an attempt that failed is made again.
    pub(super) fn tick_askers<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.snapshots.waiting.is_empty() {
            return;
        }
        let (group, durable) = (self.id.0, self.snapshot_index(io));
        self.snapshots.waiting.retain_mut(|waiting| {
            waiting.ticks_left = waiting.ticks_left.saturating_sub(1);
            let reply = if durable >= waiting.index {
                AdminReply::SnapshotTaken { group, index: durable }
            } else if waiting.ticks_left == 0 {
                let message = format!("no snapshot of group {group} was durable in time; see the log and the status");
                AdminReply::Refused { code: AdminRefusal::TimedOut, message }
            } else {
                return true;
            };
            io.reply_admin(waiting.asker, &reply);
            false
        });
        self.snapshots.wanted |= !self.snapshots.waiting.is_empty() && self.snapshots.taking.is_none();
    }

    /// The replica is given up: nobody is left waiting.
    pub(super) fn close_askers<D: Disk>(&mut self, io: &mut Io<D>) {
        for waiting in std::mem::take(&mut self.snapshots.waiting) {
            let message = format!("the replica of group {} was given up", self.id);
            io.reply_admin(waiting.asker, &AdminReply::Refused { code: AdminRefusal::Failed, message });
        }
    }
}
