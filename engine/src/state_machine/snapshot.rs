//! Taking a snapshot of the state machine: a stream of records as of one entry, made in slices while entries are applied.
//!
//! Off the data path.
//! Invariants: the stream is the state as of the entry that was applied last when the snapshot began, whatever is applied
//! between its slices; at most one snapshot runs at a time; a slice does a bounded amount of work.
//! Sessions come first, since they all change at once under load; keys follow.
//! What is kept aside is at most the state as of the beginning, and `snapshot_pending_bytes` tells how much: who paces
//! the slices makes them larger, or more of them, when it grows.
//! It knows nothing of files and chunks; `crate::snapshot` does. The records are drawn in `records`.
//!
//! ```text
//!   begin_snapshot -> head      apply  slice  apply  apply  slice  slice (answers: no more)
//!                      as of here ^
//! ```

use ringraft_raft::EntryId;
use ringraft_raft::mutants::{Mutant, is_active};

use super::StateMachine;

/// What a snapshot is of; the loaded state must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last entry that was applied.
    pub last: EntryId,
    /// The state's hash after it, see [`super::StateDigest`].
    pub state_hash: u64,
    /// Live keys.
    pub key_count: u64,
    /// Open sessions.
    pub session_count: u64,
}

/// A snapshot cannot begin, since another one is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot of this group is being taken already")]
pub struct SnapshotRuns;

impl SnapshotRuns {
    /// It will be over.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }

    /// Nothing is lost.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        false
    }
}

impl StateMachine {
    /// The head of a snapshot of the state as it is.
    #[must_use]
    pub fn snapshot_head(&self) -> SnapshotHead {
        SnapshotHead {
            last: self.last_applied,
            state_hash: self.digest().hash,
            key_count: self.store.len() as u64,
            session_count: self.sessions.len() as u64,
        }
    }

    /// Begins a snapshot as of the last applied entry.
    ///
    /// # Errors
    /// When one runs.
    pub fn begin_snapshot(&mut self) -> Result<SnapshotHead, SnapshotRuns> {
        if self.snapshot_runs() {
            return Err(SnapshotRuns);
        }
        self.sessions.begin_copy();
        self.store.begin_copy();
        let mut head = self.snapshot_head();
        if is_active(Mutant::SnapshotOneAhead) {
            head.last.index += 1;
        }
        Ok(head)
    }

    /// A snapshot has begun and its last slice was not taken.
    #[must_use]
    pub fn snapshot_runs(&self) -> bool {
        self.store.is_copying()
    }

    /// Bytes that are kept aside for the next slices because what they hold has changed since.
    #[must_use]
    pub fn snapshot_pending_bytes(&self) -> usize {
        self.sessions.pending_bytes() + self.store.pending_bytes()
    }

    /// Appends the next bytes of the stream to `out`: about `bytes_max`, at most one record more, perhaps fewer or none.
    /// Answers whether more is to come; when not, the snapshot is over.
    ///
    /// # Panics
    /// When no snapshot runs.
    pub fn snapshot_slice(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        assert!(self.snapshot_runs(), "a slice of a snapshot that did not begin");
        let end = out.len().saturating_add(bytes_max);
        self.sessions.copy_slice(out, end) || self.store.copy_slice(out, end)
    }

    /// Gives up the snapshot, if one runs; what was kept for it is forgotten.
    pub fn abort_snapshot(&mut self) {
        self.sessions.abort_copy();
        self.store.abort_copy();
    }
}
