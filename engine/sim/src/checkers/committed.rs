//! State machine safety and permanence of commits: at a committed index every replica has the same entry, for ever
//! (Raft 5.4.3), also across crashes.
//!
//! Off the data path.
//! The first replica that commits an index fixes the term of its entry, and (by log matching) the entry. Every replica is
//! compared with that when its own commit index passes, and again from the start after each restart.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{EntryId, Index, Term};

use super::{Replica, Violation};
use crate::disk::SimDisk;

/// The committed entries of every group, by their terms.
#[derive(Debug)]
pub(crate) struct Committed {
    terms: Vec<Vec<Term>>,
    /// In which term each was committed: that of whoever knew it first, which is the leader that counted.
    committed_in: Vec<Vec<Term>>,
    /// Up to where each node was compared, by node and group.
    compared: Vec<Vec<Index>>,
}

impl Committed {
    pub(crate) fn new(nodes: usize, groups: usize) -> Self {
        let (terms, committed_in) = (vec![Vec::new(); groups], vec![Vec::new(); groups]);
        Self { terms, committed_in, compared: vec![vec![0; groups]; nodes] }
    }

    pub(crate) fn of(&self, group: u32) -> &[Term] {
        &self.terms[group as usize]
    }

    /// Index and term of what was committed in a term before `term`.
    pub(crate) fn before(&self, group: u32, term: Term) -> impl Iterator<Item = (Index, Term)> {
        let entries = self.terms[group as usize].iter().zip(&self.committed_in[group as usize]);
        (1..)
            .zip(entries)
            .filter(move |(_, (_, committed_in))| **committed_in < term)
            .map(|(index, (term, _))| (index, *term))
    }

    pub(crate) fn entries(&self) -> u64 {
        self.terms.iter().map(|terms| terms.len() as u64).sum()
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.compared[node].fill(0);
    }

    /// Looks at one replica; the last entry whose commit is news, if any.
    pub(crate) fn observe(
        &mut self,
        replica: Replica,
        view: &GroupView,
        machine: &Shard<SimDisk>,
    ) -> Result<Option<EntryId>, Violation> {
        let mut news = None;
        let terms = &mut self.terms[replica.group as usize];
        let compared = &mut self.compared[replica.node][replica.group as usize];
        for index in *compared + 1..=view.commit_index {
            let Some(term) = machine.term_at(replica.group, index) else {
                let seen = format!("{replica} calls index {index} committed and does not have it");
                return Err(Violation::new("committed entries are kept", seen));
            };
            match terms.get(index as usize - 1) {
                None => {
                    terms.push(term);
                    self.committed_in[replica.group as usize].push(view.hard_state.current_term);
                    news = Some(EntryId { term, index });
                }
                Some(known) if *known == term => {}
                Some(known) => {
                    let seen =
                        format!("{replica} committed entry {term}.{index}, but {known}.{index} was committed before");
                    return Err(Violation::new("state machine safety", seen));
                }
            }
        }
        *compared = view.commit_index.max(*compared);
        // What was committed stays in the log of whoever knows it.
        if view.last.index < view.commit_index {
            let seen = format!("{replica} committed up to {}, its log ends at {}", view.commit_index, view.last.index);
            return Err(Violation::new("committed entries are kept", seen));
        }
        Ok(news)
    }
}
