//! The one who sees all nodes: the safety properties of Raft figure 3.
//!
//! Off the data path; tests only.
//!
//! Relations: at most one leader per term; equal ids mean equal prefixes; a leader holds everything committed; what was
//! committed once, on a majority of disks, is what everyone commits, for ever.
//!
//! Deliberately absent: liveness; the properties ask for it at their end.

use super::{Entry, Node};
use ringraft_raft::{Membership, NodeId, Term};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Oracle {
    /// Everything that any node has committed.
    pub committed: Vec<Entry>,
    leaders: BTreeMap<Term, NodeId>,
}

impl Oracle {
    /// Election safety and leader completeness.
    pub fn leads(&mut self, id: NodeId, term: Term, entries: &[Entry]) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "election safety: one leader in term {term}");
        let held = entries.get(..self.committed.len());
        assert_eq!(held, Some(&self.committed[..]), "leader completeness: {id} in term {term}");
    }

    /// State machine safety, and that a commit means a quorum of disks.
    pub fn commits(&mut self, id: NodeId, fresh: &[Entry], disks: &[(NodeId, Vec<Entry>)], membership: &Membership) {
        for entry in fresh {
            let position = entry.id.index as usize - 1;
            if let Some(known) = self.committed.get(position) {
                assert_eq!(entry, known, "state machine safety: {id} at {position}");
                continue;
            }
            assert_eq!(position, self.committed.len(), "commits have no gaps");
            let holds = |node| disks.iter().any(|(disk, log)| *disk == node && log.get(position) == Some(entry));
            assert!(membership.has_quorum(holds), "{id} commits {} which no quorum has on disk", entry.id);
            self.committed.push(*entry);
        }
    }

    /// Nobody drops what is committed, known to it or not.
    pub fn truncates(&self, id: NodeId, gone: &[Entry]) {
        for entry in gone {
            let committed = self.committed.get(entry.id.index as usize - 1);
            assert_ne!(committed, Some(entry), "{id} truncates a committed entry");
        }
    }

    /// Log matching, over all pairs.
    pub fn logs_match<'nodes>(&self, nodes: &(impl Iterator<Item = &'nodes Node> + Clone)) {
        for left in nodes.clone() {
            for right in nodes.clone().filter(|node| node.id > left.id) {
                let pairs = left.entries.iter().zip(&right.entries);
                let common = pairs.clone().rposition_by(|(one, other)| one.id == other.id);
                let equal = pairs.take(common).all(|(one, other)| one == other);
                assert!(equal, "log matching: {} and {} up to {common}", left.id, right.id);
            }
        }
    }
}

trait RpositionBy: Iterator {
    /// How many items there are up to and with the last one that satisfies `holds`.
    fn rposition_by(self, holds: impl Fn(&Self::Item) -> bool) -> usize;
}

impl<I: Iterator> RpositionBy for I {
    fn rposition_by(self, holds: impl Fn(&Self::Item) -> bool) -> usize {
        self.enumerate().filter(|(_, item)| holds(item)).map(|(position, _)| position + 1).last().unwrap_or(0)
    }
}
