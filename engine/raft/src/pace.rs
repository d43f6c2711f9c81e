//! How fast a member that lags behind is fed, so that it does not take from those whose requests are answered meanwhile.
//!
//! Data path 5/9.
//!
//! ```text
//!   log:  ... match_index | what is committed without it ......... commit_index | .. last
//!                          <-- more than a message: it lags -->
//! ```
//!
//! Relations: a member is fed at its own speed unless it lags, entries come in, and they are committed without it; then
//! it gets three times what comes in, and at least the rate of the configuration, so that it always catches up. When
//! nothing is committed any more, since it is needed for that, the pace ends within two windows.
//!
//! Deliberately absent: a clock. Windows are counted in ticks.

use crate::{config::Config, core::Leader, ids::Index, log::LogTerms};

/// Ticks over which is counted what comes in.
const WINDOW_TICKS: u64 = 8;
/// After so many ticks in which nothing happens a further one changes nothing.
pub(crate) const TICKS_TO_REST: u64 = 2 * WINDOW_TICKS;
/// A member that lags gets so many times what comes in.
const TIMES: u64 = 3;

/// What a leader knows of the rate of its log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// The last entry, and the last committed one, when the window began.
    began: (Index, Index),
    /// Bytes that a member that lags gets in each tick; `None`: as many as it takes.
    bytes_per_tick: Option<u64>,
}

impl Pace {
    pub(crate) fn new(last: Index, commit_index: Index) -> Self {
        Self { began: (last, commit_index), bytes_per_tick: None }
    }

    /// One tick; `now` counts them. What the configuration gives at least is `bytes_min` a tick, 0: there is no pace.
    pub(crate) fn tick(&mut self, now: u64, log: &LogTerms, commit_index: Index, bytes_min: u64) {
        if bytes_min == 0 || !now.is_multiple_of(WINDOW_TICKS) {
            return;
        }
        let (last, committed) = self.began;
        let came = log.bytes_between(last, log.last().index);
        self.bytes_per_tick =
            (came > 0 && commit_index > committed).then(|| (came.saturating_mul(TIMES) / WINDOW_TICKS).max(bytes_min));
        self.began = (log.last().index, commit_index);
    }

    pub(crate) fn bytes_per_tick(&self) -> Option<u64> {
        self.bytes_per_tick
    }
}

impl Leader {
    /// One tick; `now` counts them.
    pub(crate) fn tick_pace(&mut self, now: u64, log: &LogTerms, commit_index: Index, config: &Config) {
        self.pace.tick(now, log, commit_index, config.catch_up_bytes_per_tick);
        for peer in &mut self.peers {
            peer.refill(self.pace.bytes_per_tick());
        }
    }
}
