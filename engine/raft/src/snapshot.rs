//! Snapshots: the log is cut at its front, and a replica that needs what is gone begins anew at a snapshot.
//!
//! Off the data path. Raft 7, thesis 5.
//!
//! ```text
//!   host took a snapshot at i  -> compact(i):      base = i, entries up to i are gone
//!   a follower needs them      -> Ready::snapshots: the host streams its newest snapshot beside the messages
//!   all of it is durable there -> install_snapshot: the log begins at it, the answer goes after the flush
//! ```
//!
//! Relations: only what is committed is compacted; a snapshot never takes the place of entries that are held, and never of
//! committed ones (openraft #511); after it the log is empty and continues from the snapshot's last entry.
//!
//! Deliberately absent: state, files, chunks, rates. They are the host's.

use crate::{
    core::{RaftCore, RoleState},
    ids::{EntryId, Index, NodeId, Term},
    log::LogTerms,
    membership::{Membership, Memberships},
    mutants::{Mutant, is_active},
    ready::InstallOutcome,
};

impl RaftCore {
    /// The state up to and with `index` is in a durable snapshot: the log forgets these entries. What lies below the base
    /// already is no news.
    ///
    /// # Panics
    /// When `index` is not committed.
    pub fn compact(&mut self, index: Index) {
        assert!(index <= self.commit_index, "only committed entries are compacted: {index}");
        self.log.compact(index);
        self.memberships.compact(index);
        let base = self.log.base().index;
        if let RoleState::Leader(leader) = &mut self.role {
            for peer in leader.peers.iter_mut().filter(|peer| peer.next_index <= base) {
                peer.base_moved(self.now);
            }
        }
        self.check();
    }

    /// A snapshot up to `index`, asked for by `Ready::snapshots`, was sent to `peer` to its end. Its answer may be lost, so
    /// it is probed from there.
    pub fn snapshot_sent(&mut self, peer: NodeId, index: Index) {
        let index = index.min(self.commit_index);
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.peers.iter_mut().find(|progress| progress.id == peer)
        {
            progress.snapshot_sent(index, self.now);
        }
        self.check();
    }

    /// The snapshot that was asked for by `Ready::snapshots` did not reach `peer`.
    pub fn snapshot_failed(&mut self, peer: NodeId) {
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.peers.iter_mut().find(|progress| progress.id == peer)
        {
            progress.snapshot_failed(self.now);
        }
        self.check();
    }

    /// Whether this node holds `entry`, or knows that the entry at its index is committed: a snapshot that ends with it is
    /// of no use.
    #[must_use]
    pub fn covers(&self, entry: EntryId) -> bool {
        entry.index <= self.commit_index || self.log.contains(entry)
    }

    /// A whole snapshot that `from` sent as leader of `term` is in a durable file: it ends with the entry `last`, under
    /// `membership`. It is taken also when `from` was deposed since: what is in a snapshot is committed, whoever leads now.
    /// The answer is in the next `Ready`.
    pub fn install_snapshot(
        &mut self,
        from: NodeId,
        term: Term,
        last: EntryId,
        membership: Membership,
    ) -> InstallOutcome {
        if from == self.config.id || term == Term::MAX || last.term > term || membership.voters().is_empty() {
            return InstallOutcome::Ignored;
        }
        let follows = self.follow(from, term);
        let held = self.covers(last);
        if !held && matches!(self.role, RoleState::Leader(_)) {
            return InstallOutcome::Ignored; // a leader holds everything that is committed (Raft 5.4)
        }
        if !held {
            self.step_down(); // a candidate stood with another log, and perhaps has no vote by this one
            self.log = LogTerms::after(last);
            let brought =
                if is_active(Mutant::SnapshotMembersIgnored) { self.membership().clone() } else { membership };
            self.memberships = Memberships::new(brought);
            self.durable_index = last.index;
            self.commit_index = last.index;
            self.outbox.begin_at(last.index);
        }
        if follows {
            self.accept(from, last.index, last.index);
        } else if term < self.hard_state.current_term {
            self.reject(from, last.index); // tells a deposed leader the term
        }
        self.check();
        if held { InstallOutcome::Held } else { InstallOutcome::Replaced }
    }
}
