//! Who waits for which entry: the connections behind the requests of the entries a leader proposed.
//!
//! Data path 9/9: a reply finds its connection by (index, position in the entry).
//! Invariants: `entries` is ordered by index without gaps in the current term; the requests of an entry are
//! `count` consecutive items of `requests`, in the order of their position.
//! It does not know what a request asked for and never decides an outcome.

use std::collections::VecDeque;

use ringraft_raft::EntryId;
use ringraft_raft::mutants::{Mutant, is_active};

use crate::shard::clients::Asker;

#[derive(Debug)]
struct EntryWaiters {
    id: EntryId,
    count: u32,
    /// When it was proposed.
    proposed_us: u64,
}

/// Whom an applied entry had waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Nobody here waits for this index.
    Nobody,
    /// This very entry was waited for; it was proposed at this time.
    ForThis {
        /// When.
        proposed_us: u64,
    },
    /// Another entry took its index: those who waited have lost theirs.
    ForAnother,
}

/// The waiting requests of one group, oldest entry first.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    entries: VecDeque<EntryWaiters>,
    requests: VecDeque<Asker>,
}

impl Waiters {
    /// Adds an entry just proposed; its askers follow by [`Waiters::push`].
    pub(crate) fn open(&mut self, id: EntryId, proposed_us: u64) {
        debug_assert!(self.entries.back().is_none_or(|last| last.id.index < id.index));
        self.entries.push_back(EntryWaiters { id, count: 0, proposed_us });
    }

    /// Adds the next request of the entry opened last.
    pub(crate) fn push(&mut self, asker: Asker) {
        if let Some(last) = self.entries.back_mut() {
            last.count += 1;
            self.requests.push_back(asker);
        }
    }

    /// Takes the askers of the entry applied now, in order of position, into `out`.
    pub(crate) fn take(&mut self, applied: EntryId, out: &mut Vec<Asker>) -> Waited {
        out.clear();
        let Some(first) = self.entries.front() else { return Waited::Nobody };
        if first.id.index != applied.index {
            return Waited::Nobody;
        }
        let &EntryWaiters { id, count, proposed_us } = first;
        self.entries.pop_front();
        out.extend(self.requests.drain(..count as usize));
        if id == applied || is_active(Mutant::ReplyByIndexAlone) {
            Waited::ForThis { proposed_us }
        } else {
            Waited::ForAnother
        }
    }

    /// Takes every asker: leadership is lost and nobody here learns the outcome.
    pub(crate) fn take_all(&mut self, out: &mut Vec<Asker>) {
        out.clear();
        self.entries.clear();
        out.extend(self.requests.drain(..));
    }

    /// Waiting requests.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether one of them is this asker's.
    pub(crate) fn has(&self, asker: Asker) -> bool {
        self.requests.contains(&asker)
    }

    /// Index of the oldest entry somebody waits for.
    #[cfg(test)]
    pub(crate) fn first_index(&self) -> Option<ringraft_raft::Index> {
        self.entries.front().map(|entry| entry.id.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::clients::{Asker, ConnectionId};

    fn asker(correlation: u32) -> Asker {
        Asker { connection: ConnectionId { slot: 0, generation: 0 }, correlation }
    }

    #[test]
    fn askers_leave_with_their_entry_in_order() {
        let mut waiters = Waiters::default();
        let mut out = Vec::new();
        waiters.open(EntryId { term: 1, index: 5 }, 70);
        waiters.push(asker(1));
        waiters.push(asker(2));
        waiters.open(EntryId { term: 1, index: 6 }, 80);
        waiters.push(asker(3));
        assert_eq!(waiters.take(EntryId { term: 1, index: 4 }, &mut out), Waited::Nobody);
        assert!(out.is_empty(), "nobody waits for index 4");
        assert_eq!(waiters.take(EntryId { term: 1, index: 5 }, &mut out), Waited::ForThis { proposed_us: 70 });
        assert_eq!(out.iter().map(|asker| asker.correlation).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(waiters.first_index(), Some(6));
        assert!(waiters.has(asker(3)) && !waiters.has(asker(2)));
        let replaced = EntryId { term: 2, index: 6 };
        assert_eq!(waiters.take(replaced, &mut out), Waited::ForAnother, "another term took the index");
        assert_eq!(out[0].correlation, 3);
        assert_eq!(waiters.len(), 0);
    }
}
