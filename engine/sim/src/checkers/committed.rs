//! State machine safety and permanence of commits: at a committed index every replica has the same entry, for ever
//! (Raft 5.4.3), also across crashes and snapshots.
//!
//! Off the data path.
//! The first replica that commits an index fixes its entry, to the last byte: it goes into the archive. Every replica is
//! compared with that when its own commit index passes, and its terms again from its base after each restart; what its log
//! does not hold any more is in a snapshot, whose state `state_hash` compares.

use std::borrow::Cow;

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, Index, Term};

use super::archive::{Archive, Archived};
use super::{Replica, Violation};

/// How the log of a replica is read.
pub(crate) struct Log<T, R> {
    /// Its disk was damaged on purpose: records of it may be missing.
    pub(crate) damaged: bool,
    /// The term at an index.
    pub(crate) term_at: T,
    /// The verified record of an entry; `None` if there is none.
    pub(crate) record: R,
}

/// Up to where each replica was compared, by node and group.
#[derive(Debug)]
pub(crate) struct Committed {
    terms: Vec<Vec<Index>>,
    /// Bytes are compared once for each node: after a restart the production checksums have read them.
    records: Vec<Vec<Index>>,
}

impl Committed {
    pub(crate) fn new(nodes: usize, groups: usize) -> Self {
        Self { terms: vec![vec![0; groups]; nodes], records: vec![vec![0; groups]; nodes] }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.terms[node].fill(0);
    }

    /// A replica was given up: when it comes back, it has nothing.
    pub(crate) fn forget(&mut self, replica: Replica) {
        self.terms[replica.node][replica.group as usize] = 0;
        self.records[replica.node][replica.group as usize] = 0;
    }

    /// Looks at one replica, whose base is in the archive; the last entry whose commit is news, if any. What a damaged disk
    /// does not hold any more, another replica is the first to show.
    pub(crate) fn observe<'a>(
        &mut self,
        replica: Replica,
        view: &GroupView,
        log: &Log<impl Fn(Index) -> Option<Term>, impl Fn(EntryId) -> Option<Cow<'a, [u8]>>>,
        archive: &mut Archive,
    ) -> Result<Option<EntryId>, Violation> {
        let group = replica.group;
        let terms = &mut self.terms[replica.node][group as usize];
        let records = &mut self.records[replica.node][group as usize];
        let mut news = None;
        for index in view.base.index.max(*terms) + 1..=view.commit_index {
            let Some(term) = (log.term_at)(index) else {
                let seen = format!("{replica} calls index {index} committed and does not have it");
                return Err(Violation::new("committed entries are kept", seen));
            };
            let entry = EntryId { term, index };
            match archive.get(group, index) {
                Some(known) if known.term != term => {
                    let known = known.term;
                    let seen = format!("{replica} committed entry {entry}, but {known}.{index} was committed before");
                    return Err(Violation::new("state machine safety", seen));
                }
                Some(_) if index <= *records => {}
                Some(known) => match (log.record)(entry) {
                    None if log.damaged => {}
                    None => return Err(unreadable(replica, entry)),
                    Some(bytes) if known.is(&bytes) => {}
                    Some(_) => {
                        let seen = format!("{replica} committed entry {entry} with other bytes than others");
                        return Err(Violation::new("state machine safety", seen));
                    }
                },
                None => match (log.record)(entry) {
                    None if log.damaged => break,
                    None => return Err(unreadable(replica, entry)),
                    Some(bytes) => {
                        archive.push(group, Archived::new(view.hard_state.current_term, &bytes));
                        news = Some(entry);
                    }
                },
            }
            *terms = index;
        }
        *records = (*terms).max(*records);
        // What was committed stays in the log of whoever knows it.
        if view.last.index < view.commit_index {
            let seen = format!("{replica} committed up to {}, its log ends at {}", view.commit_index, view.last.index);
            return Err(Violation::new("committed entries are kept", seen));
        }
        Ok(news)
    }
}

fn unreadable(replica: Replica, entry: EntryId) -> Violation {
    let seen = format!("{replica} committed entry {entry}, its log holds no such record");
    Violation::new("committed entries are kept", seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{archive, entry_record, view};

    const REPLICA: Replica = Replica { node: 0, group: 0 };

    /// What is found when a replica shows entries of `terms` above a base, with a payload.
    fn observed(
        committed: &mut Committed,
        archive: &mut Archive,
        base: EntryId,
        terms: &[Term],
        payload: &'static [u8],
    ) -> Result<Option<EntryId>, String> {
        let last_index = base.index + terms.len() as Index;
        let term_at = |index: Index| terms.get(index.checked_sub(base.index + 1)? as usize).copied();
        let record = |entry: EntryId| Some(Cow::Owned(entry_record(entry.term, entry.index, payload)));
        let view = view(base, last_index, last_index);
        committed
            .observe(REPLICA, &view, &Log { damaged: false, term_at, record }, archive)
            .map_err(|violation| violation.property)
    }

    fn base(term: Term, index: Index) -> EntryId {
        EntryId { term, index }
    }

    #[test]
    fn what_is_committed_first_goes_into_the_archive() {
        let (mut committed, mut archive) = (Committed::new(1, 1), Archive::new(1));
        let news = observed(&mut committed, &mut archive, EntryId::ZERO, &[1, 2], b"x");
        assert_eq!(news, Ok(Some(base(2, 2))));
        assert_eq!((archive.last_index(0), archive.term_at(0, 1)), (2, Some(1)));
        assert!(archive.entries(0).iter().all(|entry| entry.payload() == b"x" && entry.committed_in == 9));
        assert_eq!(observed(&mut committed, &mut archive, EntryId::ZERO, &[1, 2], b"x"), Ok(None));
    }

    #[test]
    fn a_log_without_its_front_is_compared_above_its_base() {
        let known = || (Committed::new(1, 1), archive(&[1, 1, 2]));
        let (mut committed, mut archive) = known();
        assert_eq!(observed(&mut committed, &mut archive, base(1, 2), &[2], b""), Ok(None));
        assert_eq!(observed(&mut committed, &mut archive, base(1, 2), &[2, 5], b""), Ok(Some(base(5, 4))));
        let (mut committed, mut archive) = known();
        let other_term = observed(&mut committed, &mut archive, base(1, 2), &[3], b"");
        assert_eq!(other_term, Err(String::from("state machine safety")));
    }

    #[test]
    fn other_bytes_in_the_same_term_are_another_entry() {
        let (mut committed, mut archive) = (Committed::new(1, 1), archive(&[1, 1, 2]));
        let other = observed(&mut committed, &mut archive, base(1, 2), &[2], b"other");
        assert_eq!(other, Err(String::from("state machine safety")));
    }

    #[test]
    fn a_term_that_changes_over_a_restart_is_seen() {
        let (mut committed, mut archive) = (Committed::new(1, 1), archive(&[1, 1, 2]));
        assert_eq!(observed(&mut committed, &mut archive, EntryId::ZERO, &[1, 1, 2], b""), Ok(None));
        committed.restart(0);
        let changed = observed(&mut committed, &mut archive, base(1, 1), &[4, 2], b"");
        assert_eq!(changed, Err(String::from("state machine safety")));
    }

    #[test]
    fn a_committed_entry_that_is_missing_is_seen() {
        let found = |damaged, known: &mut Archive, term_at: fn(Index) -> Option<Term>| {
            let mut committed = Committed::new(1, 1);
            let log = Log { damaged, term_at, record: |_| None };
            committed.observe(REPLICA, &view(EntryId::ZERO, 2, 2), &log, known).is_ok()
        };
        assert!(!found(false, &mut archive(&[1, 1]), |index| (index == 1).then_some(1)), "no second entry");
        assert!(!found(false, &mut archive(&[1, 1]), |_| Some(1)), "no bytes");
        assert!(found(true, &mut archive(&[1, 1]), |_| Some(1)), "a damaged disk may hold others");
        let mut unknown = Archive::new(1);
        assert!(!found(false, &mut unknown, |_| Some(1)));
        assert!(found(true, &mut unknown, |_| Some(1)));
        assert_eq!(unknown.count(), 0, "a damaged disk gives nothing to the archive");
    }
}
