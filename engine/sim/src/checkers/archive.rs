//! The archive: every entry that was committed, whole, from index 1 on, whatever the replicas' logs still hold.
//!
//! Off the data path.
//!
//! ```text
//!   archive   1 ............................................ last committed
//!   a log                        base | base + 1 ........................... last
//!                (only in a snapshot) | (compared entry by entry)
//! ```
//!
//! Relations: an entry comes in when the first replica commits it and never changes; every base is an entry of the archive,
//! and what a log says is what the archive says up to its base.
//! It is bounded by the length of a run. It decides nothing; `committed` fills it.

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, Index, Term};
use ringraft_wal::record;

use super::{Replica, Violation};
use crate::world::Checked;

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    pub(crate) term: Term,
    /// In which term it was committed: that of whoever knew it first, which is the leader that counted.
    pub(crate) committed_in: Term,
    /// The record as it stands in the logs, without padding.
    record: Box<[u8]>,
}

impl Archived {
    /// The entry of a whole record.
    pub(crate) fn new(committed_in: Term, bytes: &[u8]) -> Self {
        let header = record::header(bytes);
        Self { term: header.term, committed_in, record: bytes[..header.length as usize].into() }
    }

    /// The record as it stands in the logs, without padding.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// The requests in it; an entry that brings a configuration has none.
    pub(crate) fn payload(&self) -> &[u8] {
        record::requests(&self.record)
    }

    /// Whether a record, with or without padding, is this entry to the last byte.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.record.len()) == Some(&*self.record)
    }
}

/// The committed entries of every group.
#[derive(Debug)]
pub(crate) struct Archive {
    groups: Vec<Vec<Archived>>,
}

impl Archive {
    pub(crate) fn new(groups: usize) -> Self {
        Self { groups: vec![Vec::new(); groups] }
    }

    /// The entries of a group, from index 1.
    pub(crate) fn entries(&self, group: u32) -> &[Archived] {
        &self.groups[group as usize]
    }

    /// The entry at an index.
    pub(crate) fn get(&self, group: u32, index: Index) -> Option<&Archived> {
        self.entries(group).get((index as usize).checked_sub(1)?)
    }

    /// The term at an index; that of index 0 is 0.
    pub(crate) fn term_at(&self, group: u32, index: Index) -> Option<Term> {
        if index == 0 { Some(0) } else { self.get(group, index).map(|entry| entry.term) }
    }

    /// The last committed index of a group.
    pub(crate) fn last_index(&self, group: u32) -> Index {
        self.entries(group).len() as Index
    }

    /// Entries of all groups.
    pub(crate) fn count(&self) -> u64 {
        self.groups.iter().map(|entries| entries.len() as u64).sum()
    }

    /// Takes in the next entry of a group.
    pub(crate) fn push(&mut self, group: u32, entry: Archived) {
        self.groups[group as usize].push(entry);
    }

    /// Index and term of what was committed in a term before `term`, above `base`.
    pub(crate) fn committed_before(&self, group: u32, term: Term, base: Index) -> impl Iterator<Item = EntryId> {
        let entries = (1..).zip(self.entries(group)).skip(base as usize);
        entries
            .filter(move |(_, entry)| entry.committed_in < term)
            .map(|(index, entry)| EntryId { term: entry.term, index })
    }

    /// What a log does not hold any more was committed, and its base is the last entry of it.
    pub(crate) fn covers_base(&self, replica: Replica, view: &GroupView) -> Checked {
        let (base, last) = (view.base, self.last_index(replica.group));
        match self.term_at(replica.group, base.index) {
            Some(term) if term == base.term => Ok(()),
            found => {
                let seen = format!(
                    "the log of {replica} begins behind {base}; committed is up to {last}, there in term {found:?}"
                );
                Err(Violation::new("a snapshot holds only what is committed", seen))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{archive, entry_record, view};

    #[test]
    fn an_archived_entry_is_its_record_to_the_last_byte() {
        let bytes = entry_record(2, 7, b"abc");
        let archived = Archived::new(3, &bytes);
        assert_eq!((archived.term, archived.committed_in, archived.payload()), (2, 3, &b"abc"[..]));
        assert!(archived.is(&bytes), "padding is no part of it");
        assert!(!archived.is(&bytes[..bytes.len() - 8]));
        assert!(!archived.is(&entry_record(2, 7, b"abd")));
        assert!(!archived.is(&entry_record(1, 7, b"abc")));
    }

    #[test]
    fn terms_begin_at_zero_and_end_at_the_last_commit() {
        let archive = archive(&[1, 1, 3]);
        let terms: Vec<_> = (0..5).map(|index| archive.term_at(0, index)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(3), None]);
        assert_eq!((archive.last_index(0), archive.count()), (3, 3));
        let before: Vec<_> = archive.committed_before(0, 3, 1).collect();
        assert_eq!(before, [EntryId { term: 1, index: 2 }], "above the base, committed before term 3");
    }

    #[test]
    fn a_base_is_a_committed_entry() {
        let (archive, replica) = (archive(&[1, 1, 3]), Replica { node: 0, group: 0 });
        let covers = |term, index| archive.covers_base(replica, &view(EntryId { term, index }, 3, 3)).is_ok();
        assert!(covers(0, 0) && covers(1, 2) && covers(3, 3));
        assert!(!covers(2, 2), "another entry was committed there");
        assert!(!covers(3, 4), "nothing was committed there");
    }
}
