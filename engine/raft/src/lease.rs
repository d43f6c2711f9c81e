//! Leases: for how long a leader may be sure, by its own clock, that nobody else leads (thesis 6.4.1).
//!
//! Off the data path.
//!
//! ```text
//!   leader    |--Heartbeat{sent_us}-->.          lease = sent_us + shield_us * (1 - drift), for a quorum
//!   follower  |                       hears: gives no vote for election_ticks_min
//!             |                       '--HeartbeatResponse{sent_us, shield_us}-->
//! ```
//!
//! The leader's own clock is the only one that is read: what it sent comes back. The shield is what the follower promises
//! by its own configuration, one tick less than it waits, since the first tick comes at once. Clocks may differ in rate by
//! `lease_drift_percent`. That clock goes on while a process is paused, and it is what the host saw last
//! ([`RaftCore::observe_time`]): ticks stand still in a pause and would prolong a lease.
//!
//! Relations: whoever heard a leader, in whatever term and role it is since, gives no vote and is no candidate for
//! `election_ticks_min`, unless the leader asks for it; a restarted node counts as one that has just heard
//! ([`RaftCore::restarted`]). A lease ends when a transfer begins, and once a `TimeoutNow` has left it is not held again
//! in this term: that message may arrive at any later time. Without a committed entry of its own term there is none.
//!
//! Deliberately absent: clocks, and the decision whether leases may be used; `lease_drift_percent` 100 means never.

use crate::{
    core::{RaftCore, RoleState},
    ids::NodeId,
    mutants::{Mutant, is_active},
};

/// What a member's last answer says about time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// When the heartbeat was sent that it answered; 0: none that told a time.
    pub(crate) sent_us: u64,
    /// So long it gives no vote from when it heard it.
    pub(crate) shield_us: u64,
}

impl RaftCore {
    /// The host's clock shows `now_us`: one that never goes back, that goes on in pauses, and is above 0. To be told
    /// before any event, and again before [`RaftCore::holds_lease`] is asked for a request that came in.
    pub fn observe_time(&mut self, now_us: u64) {
        self.observed_us = self.observed_us.max(now_us);
    }

    /// This replica ran before and has forgotten whether it heard a leader: it counts as having heard one now. To be
    /// called after [`RaftCore::new`] unless the node never took part in this group.
    pub fn restarted(&mut self) {
        self.heard_tick = Some(self.now);
    }

    /// Whether nobody else can lead at the observed time, so that everything committed until then is known here.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.holds_lease_at(self.observed_us)
    }

    /// As [`RaftCore::holds_lease`] will say when the host's clock shows `now_us` and nothing has happened until then: for
    /// checkers.
    #[must_use]
    pub fn holds_lease_at(&self, now_us: u64) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let transfers = leader.transfer.is_some() || leader.timeout_now_sent;
        if self.commit_index < leader.first_index_of_term || (transfers && !is_active(Mutant::LeaseKeptInTransfer)) {
            return false;
        }
        let (id, now_us) = (self.config.id, self.lease_clock_us(now_us));
        let drift_percent = match self.config.lease_drift_percent {
            100 => return false,
            _ if is_active(Mutant::LeaseWithoutDrift) => 0,
            percent => u64::from(percent),
        };
        let end_us = |node: NodeId| match leader.peers.iter().find(|peer| peer.id == node) {
            _ if node == id => u64::MAX,
            Some(peer) if peer.heard.sent_us > 0 => {
                peer.heard.sent_us.saturating_add(peer.heard.shield_us / 100 * (100 - drift_percent))
            }
            _ => 0,
        };
        now_us < self.membership().quorum_value(end_us)
    }

    /// A leader led until this observed time at least: a quorum answered what it sent then. Everything committed before
    /// that time is at or below its commit index. It needs no assumption about clocks.
    #[must_use]
    pub fn led_until_us(&self) -> Option<u64> {
        let RoleState::Leader(leader) = &self.role else { return None };
        let sent_us = |node: NodeId| match leader.peers.iter().find(|peer| peer.id == node) {
            Some(peer) => peer.heard.sent_us,
            None if node == self.config.id => self.observed_us,
            None => 0,
        };
        let until_us = self.membership().quorum_value(sent_us);
        (self.commit_index >= leader.first_index_of_term && until_us > 0).then_some(until_us)
    }

    /// The clock that leases are counted by, when the host's shows `now_us`.
    pub(crate) fn lease_clock_us(&self, now_us: u64) -> u64 {
        if is_active(Mutant::LeaseIgnoresPauses) {
            return (self.now + 1) * self.config.tick_us;
        }
        now_us
    }

    /// What this node promises to whom it hears.
    pub(crate) fn shield_us(&self) -> u64 {
        u64::from(self.config.election_ticks_min - 1).saturating_mul(self.config.tick_us)
    }

    /// Whether a leader is alive as far as this node can tell (thesis 4.2.3). A leader itself is: check-quorum ends it.
    #[must_use]
    pub fn hears_leader(&self) -> bool {
        let shield_ticks = u64::from(self.config.election_ticks_min);
        let heard = self.heard_tick.is_some_and(|tick| self.now - tick < shield_ticks);
        heard || matches!(self.role, RoleState::Leader(_))
    }
}
