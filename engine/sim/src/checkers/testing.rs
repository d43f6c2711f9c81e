//! What the tests of checkers share: archives, views of replicas and records made by hand.
//!
//! Off the data path; only in tests.

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, HardState, Index, Role, Term};
use ringraft_wal::record;

use super::archive::{Archive, Archived};

/// A whole record of group 0.
pub(super) fn entry_record(term: Term, index: Index, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_entry(&mut bytes, 0, term, index, 1, payload);
    bytes
}

/// The archive of group 0: entries of these terms from index 1, each committed in its own term, without requests.
pub(super) fn archive(terms: &[Term]) -> Archive {
    let mut archive = Archive::new(1);
    for (index, term) in (1..).zip(terms) {
        archive.push(0, Archived::new(*term, &entry_record(*term, index, b"")));
    }
    archive
}

/// A follower of group 0 with this base, commit index and last index, all of it durable and applied.
pub(super) fn view(base: EntryId, commit_index: Index, last_index: Index) -> GroupView {
    let hard_state = HardState { current_term: 9, voted_for: None };
    GroupView {
        group: 0,
        role: Role::Follower,
        leader: None,
        hard_state,
        durable_hard_state: hard_state,
        commit_index,
        last_applied: commit_index,
        base,
        last: EntryId { term: 9, index: last_index },
        durable_index: last_index,
        state_hash: 0,
        waiting: 0,
        serving: true,
    }
}
