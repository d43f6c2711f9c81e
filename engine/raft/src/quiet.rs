//! Ticks that change nothing but counts: a host with many idle groups need not call each of them with every tick.
//!
//! Off the data path.
//!
//! ```text
//!   quiet_ticks() = 3    tick tick tick tick        the same as    skip_ticks(3) tick
//!                         .    .    .   event                           ...      event
//! ```
//!
//! Relations: `skip_ticks(n)` with `n <= quiet_ticks()` leaves the very state that `n` times `tick` leaves, and a `ready`
//! in between would have had nothing to say; whatever else happens to the core may change `quiet_ticks()`.
//!
//! Deliberately absent: when to skip; a host tells the ticks it skipped before it brings anything else.

use crate::{
    core::{Leader, RaftCore, RoleState},
    progress::Progress,
};

impl RaftCore {
    /// So many of the next ticks do nothing, if nothing else happens before. It may be fewer than there are.
    #[must_use]
    pub fn quiet_ticks(&self) -> u32 {
        match &self.role {
            RoleState::Leader(leader) => self.quiet_ticks_of_leader(leader),
            _ => self.election_timeout.saturating_sub(self.election_elapsed).saturating_sub(1),
        }
    }

    fn quiet_ticks_of_leader(&self, leader: &Leader) -> u32 {
        let Leader { peers, heartbeat_elapsed, heartbeat_due, reads, transfer, left_joint, .. } = leader;
        let waits = *heartbeat_due || reads.open || transfer.is_some() || *left_joint > 0;
        if waits || peers.iter().any(Progress::streams) {
            return 0;
        }
        // While all are heard a quorum is: the first who falls silent is looked at, and then every tick.
        let patience = u64::from(self.config.election_ticks_max);
        let until_silent = |peer: &Progress| patience.saturating_sub(self.now - peer.heard_tick) as u32;
        let until_silence = peers.iter().map(until_silent).min().unwrap_or(u32::MAX);
        let until_heartbeat = self.config.heartbeat_ticks.saturating_sub(*heartbeat_elapsed);
        until_heartbeat.min(until_silence).saturating_sub(1)
    }

    /// So many ticks passed, at most [`RaftCore::quiet_ticks`].
    pub fn skip_ticks(&mut self, ticks: u32) {
        debug_assert!(ticks <= self.quiet_ticks(), "{ticks} ticks are not quiet");
        self.now += u64::from(ticks);
        match &mut self.role {
            RoleState::Leader(leader) => leader.heartbeat_elapsed += ticks,
            _ => self.election_elapsed += ticks,
        }
        self.check();
    }
}
