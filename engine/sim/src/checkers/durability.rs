//! Durability: after a crash a replica has everything it had reported durable, vote included; a damaged one stops instead.
//!
//! Off the data path.
//!
//! ```text
//!   before   known.base | known.base + 1 ......... last durable
//!   after            base | base + 1 ................. last      compared: from base + 1 to the last durable
//! ```
//!
//! What lies at or below the new base is in a snapshot: the base must be in the archive, and `state_hash` compares the
//! state. The base may lie beyond what this replica had committed only where a leader's snapshot took the place of its log;
//! of what it held behind that, entries that contradict the base are gone with right.

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, HardState, Index, Term};

use super::archive::Archive;
use super::{Replica, Violation};
use crate::world::Checked;

/// What a replica had reported durable when its process ended.
#[derive(Clone, Debug, Default)]
struct Durable {
    base: EntryId,
    /// Terms of the entries behind the base.
    terms: Vec<Term>,
    hard_state: HardState,
}

impl Durable {
    fn last_index(&self) -> Index {
        self.base.index + self.terms.len() as Index
    }

    fn last(&self) -> EntryId {
        self.terms.last().map_or(self.base, |term| EntryId { term: *term, index: self.last_index() })
    }

    /// The term of an entry behind the base.
    fn term_at(&self, index: Index) -> Option<Term> {
        self.terms.get(index.checked_sub(self.base.index + 1)? as usize).copied()
    }

    /// Whether a snapshot that ends with `base` takes the place of this log: it holds something else there, or nothing.
    fn gives_way_to(&self, base: EntryId) -> bool {
        base.index > self.base.index && self.term_at(base.index) != Some(base.term)
    }
}

/// By node and group.
#[derive(Debug)]
pub(crate) struct Durability {
    known: Vec<Vec<Durable>>,
}

impl Durability {
    pub(crate) fn new(nodes: usize, groups: usize) -> Self {
        Self { known: vec![vec![Durable::default(); groups]; nodes] }
    }

    /// The process ends.
    pub(crate) fn note(&mut self, replica: Replica, view: &GroupView, term_at: impl Fn(Index) -> Option<Term>) {
        let hard_state = view.durable_hard_state;
        if view.durable_index < view.base.index {
            // A snapshot is taking the place of the log: it may come back with either.
            self.known[replica.node][replica.group as usize] = Durable { hard_state, ..Durable::default() };
            return;
        }
        let base = view.base;
        let terms = (base.index + 1..=view.durable_index).filter_map(term_at).collect();
        self.known[replica.node][replica.group as usize] = Durable { base, terms, hard_state };
    }

    /// The replica was given up; its term and vote stay. Returns up to where its log was durable: no more was acknowledged.
    pub(crate) fn given_up(&mut self, replica: Replica) -> EntryId {
        let known = &mut self.known[replica.node][replica.group as usize];
        let last = known.last();
        *known = Durable { hard_state: known.hard_state, ..Durable::default() };
        last
    }

    /// The process is back without the replica: it had none, or an empty one that was made just before.
    pub(crate) fn check_absent(&self, replica: Replica) -> Checked {
        let last = self.known[replica.node][replica.group as usize].last_index();
        if last == 0 {
            return Ok(());
        }
        let seen = format!("{replica} had entries up to index {last} on its disk and is not there after its restart");
        Err(Violation::new("durable entries survive", seen))
    }

    /// Whether a replica without a process had reported a committed entry durable.
    pub(crate) fn holds(&self, replica: Replica, entry: EntryId) -> bool {
        let known = &self.known[replica.node][replica.group as usize];
        entry.index <= known.base.index || known.term_at(entry.index) == Some(entry.term)
    }

    /// The node's disk was emptied on purpose.
    pub(crate) fn forget(&mut self, node: usize) {
        self.known[node].fill(Durable::default());
    }

    /// The process is back, with a base that is in the archive.
    pub(crate) fn check(
        &self,
        replica: Replica,
        view: &GroupView,
        archive: &Archive,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> Checked {
        let known = &self.known[replica.node][replica.group as usize];
        let from = if known.gives_way_to(view.base) { known.last_index() } else { view.base.index };
        for index in from + 1..=known.last_index() {
            // A log may come back with more of its front than it had kept.
            let expected = known.term_at(index).or_else(|| archive.term_at(replica.group, index));
            let found = term_at(index);
            if found != expected {
                let seen = format!(
                    "{replica} had reported index {index} of term {expected:?} durable and has {found:?} after its restart: \
                     behind {} up to {}, now behind {} up to {}",
                    known.base,
                    known.last_index(),
                    view.base,
                    view.last
                );
                return Err(Violation::new("durable entries survive", seen));
            }
        }
        let (before, now) = (known.hard_state, view.hard_state);
        let same_term = before.current_term == now.current_term;
        let kept = now.current_term > before.current_term
            || same_term && (before.voted_for.is_none() || before.voted_for == now.voted_for);
        if kept {
            return Ok(());
        }
        let seen = format!("{replica} had {before:?} on disk and has {now:?} after its restart");
        Err(Violation::new("durable votes survive", seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{archive, view};

    const REPLICA: Replica = Replica { node: 0, group: 0 };
    const ARCHIVED: [Term; 4] = [1, 1, 2, 2];

    /// A log: its base's index and the terms of the entries from index 1, of which those up to the base are not shown.
    fn at(base: Index, terms: &[Term]) -> impl Fn(Index) -> Option<Term> {
        move |index: Index| if index <= base { None } else { terms.get(index as usize - 1).copied() }
    }

    fn based(index: Index, terms: &[Term], archive: &Archive) -> GroupView {
        let base = EntryId { term: archive.term_at(0, index).unwrap(), index };
        view(base, index, terms.len() as Index)
    }

    /// Whether a log that ended as `before` (base, terms) may come back as `after`.
    fn may_become(before: (Index, &[Term]), after: (Index, &[Term])) -> bool {
        let (mut durability, archive) = (Durability::new(1, 1), archive(&ARCHIVED));
        durability.note(REPLICA, &based(before.0, before.1, &archive), at(before.0, before.1));
        durability.check(REPLICA, &based(after.0, after.1, &archive), &archive, at(after.0, after.1)).is_ok()
    }

    #[test]
    fn nothing_durable_behind_the_base_is_lost_or_changed() {
        assert!(may_become((0, &[1, 1, 2]), (0, &[1, 1, 2])));
        assert!(!may_become((0, &[1, 1, 2]), (0, &[1, 1])));
        assert!(!may_become((0, &[1, 1, 2]), (0, &[1, 1, 3])));
        assert!(may_become((2, &[1, 1, 2, 5]), (3, &[1, 1, 2, 5])));
        assert!(!may_become((2, &[1, 1, 2, 5]), (3, &[1, 1, 2])), "what is behind the new base stays");
        assert!(!may_become((2, &[1, 1, 2, 5]), (3, &[1, 1, 2, 6])));
    }

    #[test]
    fn a_log_may_come_back_with_more_of_its_front() {
        assert!(may_become((3, &[1, 1, 2, 5]), (1, &[1, 1, 2, 5])));
        assert!(!may_become((3, &[1, 1, 2, 5]), (1, &[1, 4, 2, 5])), "but with the front that was committed");
        assert!(!may_become((3, &[1, 1, 2]), (1, &[1, 1])), "and with all of it");
    }

    #[test]
    fn a_leaders_snapshot_takes_the_place_of_what_contradicts_it() {
        assert!(may_become((0, &[1, 1]), (4, &ARCHIVED)), "it lay behind");
        assert!(may_become((0, &[1, 1, 1, 1, 1]), (4, &ARCHIVED)), "it held other entries");
        assert!(!may_become((0, &[1, 1, 2, 2, 5]), (4, &ARCHIVED)), "an entry behind the base it agrees with stays");
    }

    #[test]
    fn a_node_that_is_down_holds_what_its_snapshot_covers() {
        let (mut durability, archive) = (Durability::new(1, 1), archive(&ARCHIVED));
        durability.note(REPLICA, &based(2, &ARCHIVED[..3], &archive), at(2, &ARCHIVED));
        let holds = |term, index| durability.holds(REPLICA, EntryId { term, index });
        assert!(holds(1, 1) && holds(2, 3));
        assert!(!holds(3, 3) && !holds(2, 4));
    }
}
