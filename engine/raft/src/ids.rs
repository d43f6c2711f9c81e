//! Ids of nodes, groups and entries.
//!
//! Off the data path: plain values, shared by every other file.
//!
//! Relation: `EntryId` orders by (term, index), which is exactly "at least as up to date" of Raft 5.4.1.
//!
//! Deliberately absent: allocation of ids; the host owns that.

use core::fmt;

/// One process of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// One Raft group. The core itself never looks at it; it is here because every user of the core needs it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

/// A Raft term. 0 is the term before the first election.
pub type Term = u64;

/// A position in the log. 0 is the position before the first entry.
pub type Index = u64;

/// The name of an entry: two entries with equal ids are the same entry and have the same predecessors (Raft 5.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EntryId {
    /// Term of the leader that made the entry. First, so that the derived order is the order of Raft 5.4.1.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
}

impl EntryId {
    /// The position before the log.
    pub const ZERO: Self = Self { term: 0, index: 0 };

    /// An id from its parts.
    #[must_use]
    pub const fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "g{}", self.0)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::EntryId;
    use alloc::string::ToString;

    #[test]
    fn a_higher_term_is_more_up_to_date_than_a_longer_log() {
        assert!(EntryId::new(3, 1) > EntryId::new(2, 900));
        assert!(EntryId::new(3, 2) > EntryId::new(3, 1));
        assert_eq!(EntryId::default(), EntryId::ZERO);
        assert_eq!(EntryId::new(3, 7).to_string(), "3.7");
    }
}
