//! Settings that change while a node runs: they come by way of the node's board, after a tick.
//!
//! Off the data path.
//!
//! ```text
//!   operator ── Reload ──> shard ── asks ──> board ──> host: reads the configuration again
//!   SIGHUP ──────────────────────────────────────────> host
//!   host ── live settings, what came of it ──> board ──> every shard takes them; who asked is answered
//! ```
//! Invariants: nothing here changes what a log means or what is acknowledged; all shards of a node get the same values; an
//! operator's question is answered by a reading of the configuration that began after it was asked.

use std::sync::Arc;

use ringraft_net::wire::{AdminRefusal, AdminReply};
use ringraft_wal::Disk;

use super::board::NodeBoard;
use super::clients::Asker;
use super::{Shard, SnapshotSettings};

/// The settings of a shard that may change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct LiveSettings {
    /// Requests that may wait in a shard at once.
    pub waiting_max: usize,
    /// Client connections of a shard at once.
    pub connections_max: usize,
    /// Unsent reply bytes per connection.
    pub reply_bytes_max: usize,
    /// Ticks without a finished flush after which leaders step down.
    pub disk_stall_ticks: u32,
    /// Ticks between two exchanges of state digests.
    pub digest_ticks: u32,
    /// A new member may lack so many bytes of what is committed when it gets its vote.
    pub catch_up_bytes: u64,
    /// When snapshots are taken, and how fast they move.
    pub snapshots: SnapshotSettings,
}

/// What came of a reading of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that have new values now: key and value.
    pub changed: Vec<(String, String)>,
    /// Settings that are to have new values and get them by a restart.
    pub restart: Vec<String>,
}

/// The board's part in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reloading {
    live: Option<Arc<LiveSettings>>,
    asked: u64,
    done: u64,
    outcome: Option<Arc<Result<Reloaded, String>>>,
}

impl NodeBoard {
    /// A shard wants the configuration read again; the number to ask for the outcome with.
    fn ask_for_reload(&mut self) -> u64 {
        self.reloading.asked += 1;
        self.reloading.asked
    }

    /// The newest question that no reading has answered yet, for the host.
    #[must_use]
    pub fn reload_asked(&self) -> Option<u64> {
        (self.reloading.asked > self.reloading.done).then_some(self.reloading.asked)
    }

    /// The host has read the configuration, in answer to all questions up to `asked`.
    pub fn reloaded(&mut self, asked: u64, live: Option<LiveSettings>, outcome: Result<Reloaded, String>) {
        if let Some(live) = live {
            self.reloading.live = Some(Arc::new(live));
        }
        self.reloading.done = self.reloading.done.max(asked);
        self.reloading.outcome = Some(Arc::new(outcome));
    }

    fn outcome(&self, asked: u64) -> Option<Arc<Result<Reloaded, String>>> {
        self.reloading.outcome.clone().filter(|_| self.reloading.done >= asked)
    }
}

/// A shard's part in it.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    taken: Option<Arc<LiveSettings>>,
    /// Who asked, and the number of the question once the board has it.
    askers: Vec<(Asker, Option<u64>)>,
}

/// Operators that may wait in one shard.
const ASKERS_MAX: usize = 64;

impl<D: Disk> Shard<D> {
    /// An operator wants the configuration read again.
    pub(super) fn ask_reload(&mut self, asker: Asker) {
        if self.reloads.askers.len() < ASKERS_MAX {
            return self.reloads.askers.push((asker, None));
        }
        let message = String::from("too many ask for the same: ask again");
        self.io.reply_admin(asker, &AdminReply::Refused { code: AdminRefusal::Pending, message });
    }

    /// Takes new settings and answers operators, after a tick.
    pub(super) fn exchange_reloads(&mut self, board: &mut NodeBoard) {
        let newest = board.reloading.live.clone();
        if let Some(live) =
            newest.filter(|live| !self.reloads.taken.as_ref().is_some_and(|taken| Arc::ptr_eq(taken, live)))
        {
            self.take_live(&live);
            self.reloads.taken = Some(live);
        }
        for (asker, asked) in std::mem::take(&mut self.reloads.askers) {
            let asked = asked.unwrap_or_else(|| board.ask_for_reload());
            match board.outcome(asked) {
                Some(outcome) => self.io.reply_admin(asker, &reply(&outcome)),
                None => self.reloads.askers.push((asker, Some(asked))),
            }
        }
    }

    fn take_live(&mut self, live: &LiveSettings) {
        let settings = &mut self.settings;
        settings.waiting_max = live.waiting_max;
        settings.connections_max = live.connections_max;
        settings.reply_bytes_max = live.reply_bytes_max;
        settings.disk_stall_ticks = live.disk_stall_ticks;
        settings.digest_ticks = live.digest_ticks;
        settings.snapshots = live.snapshots;
        self.consensus.catch_up_bytes = live.catch_up_bytes;
        self.io.clients.set_bounds(live.connections_max, live.reply_bytes_max);
        self.groups.for_each(|group| group.take_live(live));
    }
}

fn reply(outcome: &Result<Reloaded, String>) -> AdminReply {
    match outcome {
        Ok(Reloaded { changed, restart }) => {
            AdminReply::Reloaded { changed: changed.clone(), restart: restart.clone() }
        }
        Err(message) => AdminReply::Refused { code: AdminRefusal::Failed, message: message.clone() },
    }
}
