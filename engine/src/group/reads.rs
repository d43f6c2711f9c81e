//! Linearizable reads that wait: for a majority to confirm the leader, then for the state machine to catch up.
//!
//! Off the data path of writes. Thesis 6.4, ReadIndex. `questions.rs` keeps reads of followers in the same way.
//! A round gathers every read of one turn under one context, so that one exchange of heartbeats serves them all.
//! Invariants: rounds are ordered by context; a round is served only when it is confirmed and
//! `last_applied >= index`; when leadership is lost every round fails (a read is always safe to ask again).

use std::collections::VecDeque;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{Index, ReadContext};

use crate::shard::clients::Asker;

/// One waiting read: where its request lies in the round's bytes, and who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    start: u32,
    length: u32,
    pub(crate) asker: Asker,
}

/// The reads of one context.
#[derive(Debug)]
pub(crate) struct Round {
    context: ReadContext,
    index: Option<Index>,
    bytes: Vec<u8>,
    reads: Vec<Read>,
}

impl Round {
    /// The reads with their request archives, in order of arrival.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Asker, &[u8])> {
        self.reads.iter().map(|read| {
            let start = read.start as usize;
            (read.asker, &self.bytes[start..start + read.length as usize])
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.reads.len()
    }
}

/// All waiting reads of one group.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    rounds: VecDeque<Round>,
    spare: Vec<Round>,
    waiting: usize,
    /// The newest context that a majority confirmed, and its index.
    confirmed: Option<(ReadContext, Index)>,
}

impl Reads {
    /// Adds a read under the context the core gave for it.
    pub(crate) fn push(&mut self, context: ReadContext, request: &[u8], asker: Asker) {
        if self.rounds.back().is_none_or(|round| round.context != context) {
            let mut round = self.spare.pop().unwrap_or(Round { context, index: None, bytes: vec![], reads: vec![] });
            round.context = context;
            self.rounds.push_back(round);
        }
        if let Some(round) = self.rounds.back_mut() {
            let start = round.bytes.len() as u32;
            round.bytes.extend_from_slice(request);
            round.reads.push(Read { start, length: request.len() as u32, asker });
            self.waiting += 1;
        }
    }

    /// A majority confirmed `context`: it and every earlier round of its term may be served from `index` on.
    pub(crate) fn confirm(&mut self, context: ReadContext, index: Index) {
        self.confirmed = Some((context, index));
        for round in &mut self.rounds {
            let covered = round.context.term == context.term && round.context.sequence <= context.sequence;
            if covered && round.index.is_none() {
                round.index = Some(index);
            }
        }
    }

    /// Whether what is known at `last_applied` is not older than `context`: a majority confirmed it, or a later one of its
    /// term, and that index is applied.
    pub(crate) fn is_confirmed(&self, context: ReadContext, last_applied: Index) -> bool {
        self.confirmed.is_some_and(|(newest, index)| {
            newest.term == context.term && newest.sequence >= context.sequence && index <= last_applied
        })
    }

    /// The oldest round if it can be served at `last_applied`.
    pub(crate) fn take_served(&mut self, last_applied: Index) -> Option<Round> {
        let first = self.rounds.front()?;
        if first.index.is_none_or(|index| index > last_applied && !is_active(Mutant::ReadBeforeApply)) {
            return None;
        }
        let round = self.rounds.pop_front()?;
        self.waiting -= round.len();
        Some(round)
    }

    /// Whether reads wait under the context.
    pub(crate) fn has(&self, context: ReadContext) -> bool {
        self.rounds.back().is_some_and(|round| round.context == context)
    }

    /// The newest round that is not confirmed: for failing all of them.
    pub(crate) fn take_unconfirmed(&mut self) -> Option<Round> {
        let round = self.rounds.pop_back_if(|round| round.index.is_none())?;
        self.waiting -= round.len();
        Some(round)
    }

    /// The oldest round whatever its state: for failing all of them.
    pub(crate) fn take_any(&mut self) -> Option<Round> {
        let round = self.rounds.pop_front()?;
        self.waiting -= round.len();
        Some(round)
    }

    /// Gives a round's memory back for the next one.
    pub(crate) fn recycle(&mut self, mut round: Round) {
        const SPARE_ROUNDS_MAX: usize = 8;
        if self.spare.len() < SPARE_ROUNDS_MAX {
            round.index = None;
            round.bytes.clear();
            round.reads.clear();
            self.spare.push(round);
        }
    }

    /// Waiting reads.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::clients::ConnectionId;

    fn asker(correlation: u32) -> Asker {
        Asker { connection: ConnectionId { slot: 0, generation: 0 }, correlation }
    }

    #[test]
    fn a_round_needs_confirmation_and_the_applied_index() {
        let mut reads = Reads::default();
        let (first, second) = (ReadContext { term: 2, sequence: 1 }, ReadContext { term: 2, sequence: 2 });
        reads.push(first, b"a", asker(1));
        reads.push(first, b"bc", asker(2));
        reads.push(second, b"d", asker(3));
        assert!(reads.take_served(100).is_none(), "not confirmed");
        reads.confirm(first, 10);
        assert!(reads.take_served(9).is_none(), "not applied");
        let round = reads.take_served(10).expect("served");
        let got: Vec<_> = round.requests().map(|(asker, bytes)| (asker.correlation, bytes.to_vec())).collect();
        assert_eq!(got, [(1, b"a".to_vec()), (2, b"bc".to_vec())]);
        assert!(reads.take_served(100).is_none(), "the second round is not confirmed by the first");
        assert_eq!(reads.len(), 1);
        reads.confirm(ReadContext { term: 1, sequence: 9 }, 5);
        assert!(reads.take_served(100).is_none(), "a context of another term confirms nothing");
        reads.confirm(ReadContext { term: 2, sequence: 3 }, 12);
        assert!(reads.take_served(12).is_some(), "a later context confirms earlier rounds");
        assert_eq!(reads.len(), 0);
    }

    #[test]
    fn what_is_known_is_fresh_when_a_later_context_of_its_term_is_confirmed_and_applied() {
        let mut reads = Reads::default();
        let asked = ReadContext { term: 2, sequence: 5 };
        assert!(!reads.is_confirmed(asked, 100), "nothing is confirmed");
        reads.confirm(ReadContext { term: 2, sequence: 4 }, 10);
        assert!(!reads.is_confirmed(asked, 100), "an earlier context says nothing of later moments");
        reads.confirm(asked, 10);
        assert!(!reads.is_confirmed(asked, 9), "not applied");
        assert!(reads.is_confirmed(asked, 10));
        reads.confirm(ReadContext { term: 2, sequence: 6 }, 12);
        assert!(!reads.is_confirmed(asked, 11), "the newest index counts");
        assert!(reads.is_confirmed(asked, 12));
        reads.confirm(ReadContext { term: 4, sequence: 9 }, 13);
        assert!(!reads.is_confirmed(asked, 100), "another term's");
    }
}
