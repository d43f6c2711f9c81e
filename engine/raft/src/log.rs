//! What the core knows of its log: the runs of terms and the cumulative bytes.
//!
//! Data path 5/9.
//!
//! ```text
//!   base      runs                          offsets (bytes of records up to and with an index)
//!   (4, 100)  [101: term 4] [105: term 6]   100:0  101:48  102:400 ...
//!    |         101 102 103 104 105 106
//!    +-- the last entry that is not in the log: EntryId::ZERO, or the compaction point
//! ```
//!
//! Relations: indexes are contiguous in `base.index + 1 ..= last.index`; runs grow strictly in index and in term;
//! offsets never fall. A term lookup is a binary search in the runs, the bytes between two entries are one subtraction.
//!
//! Deliberately absent: the entries.

use crate::{
    ids::{EntryId, Index, Term},
    message::EntryMeta,
};
use alloc::{collections::VecDeque, vec::Vec};

/// Entries per chunk of offsets: a full chunk is never moved again, so growth has no pauses.
const CHUNK_ENTRIES: usize = 512;

/// Terms and lengths of a log, without the entries.
#[derive(Clone, Debug)]
pub struct LogTerms {
    base: EntryId,
    last: EntryId,
    runs: Vec<Run>,
    offsets: Offsets,
}

/// Entries of one term that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    first_index: Index,
    term: Term,
}

impl Default for LogTerms {
    fn default() -> Self {
        Self::new()
    }
}

impl LogTerms {
    /// An empty log of a new group.
    #[must_use]
    pub fn new() -> Self {
        Self::after(EntryId::ZERO)
    }

    /// An empty log whose entries up to and with `base` are compacted, hence committed.
    #[must_use]
    pub fn after(base: EntryId) -> Self {
        let mut offsets = Offsets::default();
        offsets.push(0);
        Self { base, last: base, runs: Vec::new(), offsets }
    }

    /// Adds the entry after the last one: recovery calls this once per entry, in order.
    ///
    /// # Panics
    /// When the term is below the last entry's: such a log cannot exist (Raft 5.3).
    pub fn push(&mut self, meta: EntryMeta) -> EntryId {
        assert!(meta.term >= self.last.term, "terms of a log never fall: {} after {}", meta.term, self.last);
        let id = EntryId { term: meta.term, index: self.last.index + 1 };
        if self.runs.last().is_none_or(|run| run.term != meta.term) {
            self.runs.push(Run { first_index: id.index, term: meta.term });
        }
        self.offsets.push(self.offset(self.last.index) + u64::from(meta.length));
        self.last = id;
        id
    }

    /// The entry before the first one.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.base
    }

    /// The index of the first entry, present or to come.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.base.index + 1
    }

    /// The last entry, or `base` when there is none.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.index == self.base.index
    }

    /// The term at `index`; known from `base` to the last entry.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.last.index {
            return Some(self.last.term);
        }
        if index <= self.base.index || index > self.last.index {
            return (index == self.base.index).then_some(self.base.term);
        }
        Some(self.runs[self.run_of(index)].term)
    }

    /// Whether `entry` is in the log (or its base).
    #[must_use]
    pub fn contains(&self, entry: EntryId) -> bool {
        self.term_at(entry.index) == Some(entry.term)
    }

    /// Position of the run that holds `index`, which is in the log.
    fn run_of(&self, index: Index) -> usize {
        self.runs.partition_point(|run| run.first_index <= index) - 1
    }

    /// The first index of the term at `index`, as far as the log reaches back.
    pub(crate) fn first_index_of_term_at(&self, index: Index) -> Index {
        if index <= self.base.index || self.is_empty() {
            return self.base.index;
        }
        self.runs[self.run_of(index.min(self.last.index))].first_index
    }

    /// The last index not above `bound` whose term is `term`.
    pub(crate) fn last_index_of_term(&self, term: Term, bound: Index) -> Option<Index> {
        let position = self.runs.partition_point(|run| run.term < term);
        let run = self.runs.get(position).filter(|run| run.term == term && run.first_index <= bound);
        match run {
            Some(_) => {
                let end = self.runs.get(position + 1).map_or(self.last.index, |next| next.first_index - 1);
                Some(end.min(bound))
            }
            None => (self.base.term == term && self.base.index <= bound).then_some(self.base.index),
        }
    }

    /// Bytes of the records after `after`, up to and with `through`; what is not in the log counts nothing.
    pub(crate) fn bytes_between(&self, after: Index, through: Index) -> u64 {
        self.offset(through).saturating_sub(self.offset(after))
    }

    /// How many entries after `after` fit into `bytes_max`.
    pub(crate) fn count_within(&self, after: Index, bytes_max: u64) -> u64 {
        let start = self.offset(after);
        let (mut low, mut high) = (after, self.last.index.max(after));
        if self.offset(high) - start <= bytes_max {
            return high - after;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.offset(middle) - start <= bytes_max {
                low = middle;
            } else {
                high = middle;
            }
        }
        low - after
    }

    fn offset(&self, index: Index) -> u64 {
        self.offsets.get((index.clamp(self.base.index, self.last.index) - self.base.index) as usize)
    }

    /// Removes the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "the log is never truncated into its compacted part: {from}");
        if from > self.last.index {
            return;
        }
        self.offsets.truncate((from - self.base.index) as usize);
        while self.runs.last().is_some_and(|run| run.first_index >= from) {
            self.runs.pop();
        }
        let term = self.runs.last().map_or(self.base.term, |run| run.term);
        self.last = EntryId { term, index: from - 1 };
    }

    /// Forgets the entries up to and with `to`, which becomes the base.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.last.index, "only what is in the log is compacted: {to}");
        let Some(term) = self.term_at(to).filter(|_| to > self.base.index) else { return };
        self.offsets.drop_front((to - self.base.index) as usize);
        let gone = self.runs.partition_point(|run| run.first_index <= to);
        if to < self.last.index && self.runs.get(gone).is_none_or(|next| next.first_index > to + 1) {
            // The run that holds `to` goes on behind it.
            self.runs.drain(..gone - 1);
            self.runs[0].first_index = to + 1;
        } else {
            self.runs.drain(..gone);
        }
        self.base = EntryId { term, index: to };
    }

    /// Whether the relations of the file head hold.
    #[cfg(debug_assertions)]
    pub(crate) fn is_consistent(&self) -> bool {
        let grows = |pair: &[Run]| pair[0].first_index < pair[1].first_index && pair[0].term < pair[1].term;
        let ends = match self.runs.last() {
            None => self.last == self.base,
            Some(run) => run.first_index <= self.last.index && run.term == self.last.term,
        };
        let starts = self.runs.first().is_none_or(|run| run.first_index == self.first_index());
        starts
            && ends
            && self.runs.windows(2).all(grows)
            && self.offsets.len() as u64 == self.last.index - self.base.index + 1
    }
}

/// A list of numbers in chunks that grows at its end and shrinks at both.
#[derive(Clone, Debug, Default)]
struct Offsets {
    chunks: VecDeque<Vec<u64>>,
    spare: Option<Vec<u64>>,
    /// Numbers at the front of the first chunk that are gone.
    skipped: usize,
    /// Numbers, those that are gone included.
    count: usize,
}

impl Offsets {
    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.count - self.skipped
    }

    fn get(&self, position: usize) -> u64 {
        let position = position + self.skipped;
        self.chunks[position / CHUNK_ENTRIES][position % CHUNK_ENTRIES]
    }

    fn push(&mut self, value: u64) {
        if self.count.is_multiple_of(CHUNK_ENTRIES) {
            self.chunks.push_back(self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK_ENTRIES)));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(value);
            self.count += 1;
        }
    }

    /// Keeps the first `count`.
    fn truncate(&mut self, count: usize) {
        let count = count + self.skipped;
        let chunks = count.div_ceil(CHUNK_ENTRIES);
        while self.chunks.len() > chunks {
            let chunk = self.chunks.pop_back();
            self.keep_spare(chunk);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.truncate(count - (chunks - 1) * CHUNK_ENTRIES);
        }
        self.count = count;
    }

    /// Forgets the first `count`.
    fn drop_front(&mut self, count: usize) {
        self.skipped += count;
        while self.skipped >= CHUNK_ENTRIES {
            let chunk = self.chunks.pop_front();
            self.keep_spare(chunk);
            self.skipped -= CHUNK_ENTRIES;
            self.count -= CHUNK_ENTRIES;
        }
    }

    fn keep_spare(&mut self, chunk: Option<Vec<u64>>) {
        self.spare = chunk.map(|mut chunk| {
            chunk.clear();
            chunk
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(base: EntryId, terms: &[Term]) -> LogTerms {
        let mut log = LogTerms::after(base);
        for term in terms {
            log.push(EntryMeta { term: *term, length: 10 });
        }
        log
    }

    #[test]
    fn terms_are_known_from_the_base_to_the_last_entry() {
        let log = log(EntryId::new(4, 100), &[4, 4, 6, 6, 9]);
        let terms: Vec<_> = (99..=106).map(|index| log.term_at(index)).collect();
        assert_eq!(terms, [None, Some(4), Some(4), Some(4), Some(6), Some(6), Some(9), None]);
        assert_eq!((log.first_index(), log.last()), (101, EntryId::new(9, 105)));
        assert!(log.contains(EntryId::new(6, 104)) && !log.contains(EntryId::new(6, 105)));
    }

    #[test]
    fn conflict_lookups_find_the_ends_of_terms() {
        let log = log(EntryId::new(4, 100), &[4, 4, 6, 6, 9]);
        assert_eq!([100, 102, 104, 105].map(|index| log.first_index_of_term_at(index)), [100, 101, 103, 105]);
        assert_eq!(log.last_index_of_term(6, 105), Some(104));
        assert_eq!(log.last_index_of_term(6, 103), Some(103));
        assert_eq!(log.last_index_of_term(6, 102), None);
        assert_eq!(log.last_index_of_term(4, 100), Some(100));
        assert_eq!(log.last_index_of_term(5, 105), None);
    }

    #[test]
    #[should_panic(expected = "terms of a log never fall")]
    fn a_falling_term_is_a_programmer_error() {
        log(EntryId::ZERO, &[2, 1]);
    }

    #[test]
    #[should_panic(expected = "never truncated into its compacted part")]
    fn truncation_below_the_base_is_a_programmer_error() {
        log(EntryId::new(1, 5), &[2]).truncate(5);
    }

    proptest! {
        #[test]
        fn the_log_behaves_like_a_list(
            base in 0_u64..3,
            steps in prop::collection::vec((0_u8..5, 0_u64..3, 1_u32..50, 1_usize..700), 1..40),
        ) {
            let mut log = LogTerms::after(EntryId::new(base, base));
            let mut model: Vec<EntryMeta> = Vec::new();
            let (mut base, mut term) = (base, base);
            let mut base_term = base;
            for (kind, step, length, count) in steps {
                if kind < 2 {
                    term += step;
                    for _ in 0..count {
                        log.push(EntryMeta { term, length });
                        model.push(EntryMeta { term, length });
                    }
                } else if kind < 4 {
                    model.truncate(model.len().saturating_sub(count));
                    log.truncate(base + model.len() as u64 + 1);
                    term = model.last().map_or(base_term, |meta| meta.term);
                } else {
                    let gone = count.min(model.len());
                    base_term = model[..gone].last().map_or(base_term, |meta| meta.term);
                    model.drain(..gone);
                    base += gone as u64;
                    log.compact(base);
                    prop_assert_eq!(log.base(), EntryId::new(base_term, base));
                }
                prop_assert!(log.is_consistent());
                prop_assert_eq!(log.last(), EntryId::new(term, base + model.len() as u64));
                let after = model.len() / 3;
                let bytes: u64 = model[after..].iter().map(|meta| u64::from(meta.length)).sum();
                prop_assert_eq!(log.bytes_between(base + after as u64, log.last().index), bytes);
                let mut room = bytes / 2;
                let fitting = model[after..].iter().take_while(|meta| {
                    let fits = u64::from(meta.length) <= room;
                    room = room.saturating_sub(u64::from(meta.length));
                    fits
                });
                prop_assert_eq!(log.count_within(base + after as u64, bytes / 2), fitting.count() as u64);
            }
            for (position, meta) in model.iter().enumerate() {
                prop_assert_eq!(log.term_at(base + 1 + position as u64), Some(meta.term));
            }
        }
    }
}
