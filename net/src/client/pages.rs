//! Pages: a listing of the whole cluster, merged in key order from the answers of its groups.
//!
//! Off the data path.
//!
//! ```text
//!   group 0   a  d  f ...   --.
//!   group 1   b  c          --+--> a b c d ...  the page, until it is full; `next` is where the next one begins
//!   group 2   (not answered) -'    nothing is taken while a group that may have a smaller key has not answered
//! ```
//!
//! Invariants: a page has the keys of the range in order, each once, without gaps, as far as each group had them when it
//! answered; it ends at `limit` keys or [`PAGE_BYTES_MAX`]; memory is bounded by the page and one answer of each group.
//! It is no snapshot of the cluster: each group is read at its own moment.
//!
//! It sends nothing: `tokio` does.

use crate::limits::RANGE_KEYS_MAX;
use crate::wire::Operation;
use crate::wire::items::{self, ItemRef, ItemsError};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Keys of a page whose query names no limit.
pub const PAGE_KEYS: usize = 1_000;
/// A page ends before it has more bytes of keys and values than this, unless its first key has.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeQuery {
    /// The first key that may be part of the answer.
    pub start: Vec<u8>,
    /// The first key behind; empty: there is no end.
    pub end: Vec<u8>,
    /// Most keys of a page; 0: [`PAGE_KEYS`].
    pub limit: u32,
    /// Without the values.
    pub keys_only: bool,
}

impl RangeQuery {
    /// All keys that begin with these bytes.
    #[must_use]
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        Self { end: prefix_end(&start), start, ..Self::default() }
    }

    /// At most so many keys of it.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// What comes after a page: `cursor` is its [`RangePage::next`].
    #[must_use]
    pub fn after(self, cursor: Vec<u8>) -> Self {
        Self { start: cursor, ..self }
    }
}

/// The first key behind all that begin with `prefix`; empty: there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    end
}

/// The first key behind `key`.
#[must_use]
pub fn key_behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A key and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty when only keys were asked for.
    pub value: Vec<u8>,
    /// Its version: what `compare_version_and_set` takes. Not 0, and higher with every write of the key.
    pub version: u64,
}

impl From<ItemRef<'_>> for KeyValue {
    fn from(item: ItemRef<'_>) -> Self {
        let value = item.value.unwrap_or_default().to_vec();
        Self { key: item.key.to_vec(), value, version: item.version }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangePage {
    /// The keys in their order.
    pub items: Vec<KeyValue>,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<Vec<u8>>,
}

/// What one group has answered so far.
#[derive(Debug)]
struct Source {
    /// Taken from the front into the heap.
    items: VecDeque<KeyValue>,
    /// Where its next answer begins.
    start: Vec<u8>,
    /// It may have more.
    more: bool,
    /// One of its items is in the heap.
    in_heap: bool,
}

/// A page in the making.
#[derive(Debug)]
pub(super) struct Merge {
    query: RangeQuery,
    limit: usize,
    /// Keys asked for at once.
    portion: u32,
    sources: Vec<Source>,
    /// The smallest key of each group that has any left, with its group.
    heads: BinaryHeap<Reverse<(KeyValue, usize)>>,
    page: Vec<KeyValue>,
    page_bytes: usize,
    full: bool,
}

impl Merge {
    /// The beginning of a page over `groups` groups.
    pub(super) fn new(query: &RangeQuery, groups: u32) -> Self {
        let limit = if query.limit == 0 { PAGE_KEYS } else { query.limit as usize };
        // Keys are spread evenly: about as many from each, and some for luck.
        let portion = (limit / groups.max(1) as usize * 2 + 16).min(limit).min(RANGE_KEYS_MAX) as u32;
        let source = |_| Source { items: VecDeque::new(), start: query.start.clone(), more: true, in_heap: false };
        Self {
            limit,
            portion,
            sources: (0..groups).map(source).collect(),
            heads: BinaryHeap::new(),
            page: Vec::new(),
            page_bytes: 0,
            full: false,
            query: query.clone(),
        }
    }

    /// What has to be asked before the page can go on; nothing: it is done.
    pub(super) fn questions(&self) -> Vec<(u32, Operation)> {
        let (end, keys_only) = (&self.query.end, self.query.keys_only);
        let ask = |(group, source): (u32, &Source)| {
            let (start, end, limit) = (source.start.clone(), end.clone(), self.portion);
            (group, Operation::Range { group, start, end, limit, keys_only })
        };
        let waiting = (0..).zip(&self.sources).filter(|(_, source)| source.more && !source.in_heap);
        if self.full { Vec::new() } else { waiting.map(ask).collect() }
    }

    /// Takes what a group answered; the page goes on when all that were asked have.
    pub(super) fn answer(&mut self, group: u32, bytes: &[u8], more: bool) -> Result<(), ItemsError> {
        let Some(source) = self.sources.get_mut(group as usize) else { return Ok(()) };
        for item in items::items(bytes) {
            source.items.push_back(item?.into());
        }
        // An answer without keys that promises more would be asked for ever.
        source.more = more && !source.items.is_empty();
        if let Some(last) = source.items.back() {
            source.start = key_behind(&last.key);
        }
        Ok(())
    }

    /// Takes keys into the page as far as the answers reach.
    pub(super) fn go_on(&mut self) {
        for group in 0..self.sources.len() {
            self.lift(group);
        }
        let mut missing = self.sources.iter().filter(|source| source.more && !source.in_heap).count();
        while missing == 0 && !self.full {
            let Some(Reverse((item, group))) = self.heads.pop() else { return };
            let bytes = item.key.len() + item.value.len();
            let is_full = self.page.len() >= self.limit || self.page_bytes + bytes > PAGE_BYTES_MAX;
            if is_full && !self.page.is_empty() {
                self.full = true;
                self.heads.push(Reverse((item, group)));
                return;
            }
            self.page_bytes += bytes;
            self.page.push(item);
            self.sources[group].in_heap = false;
            self.lift(group);
            missing = usize::from(self.sources[group].more && !self.sources[group].in_heap);
            self.full = self.page.len() >= self.limit;
        }
    }

    /// The next key of a group goes into the heap, unless one is there.
    fn lift(&mut self, group: usize) {
        let source = &mut self.sources[group];
        if !source.in_heap
            && let Some(item) = source.items.pop_front()
        {
            source.in_heap = true;
            self.heads.push(Reverse((item, group)));
        }
    }

    /// The page, when there is nothing left to ask.
    pub(super) fn into_page(self) -> RangePage {
        let more = !self.heads.is_empty() || self.sources.iter().any(|source| source.more);
        let next = self.page.last().filter(|_| more).map(|last| key_behind(&last.key));
        RangePage { items: self.page, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    /// What a group answers.
    fn answer(model: &Model, groups: u32, operation: &Operation, bytes_max: usize) -> (Vec<u8>, bool) {
        let Operation::Range { group, start, end, limit, keys_only } = operation else { panic!("{operation:?}") };
        let inside = |key: &[u8]| key >= &start[..] && (end.is_empty() || key < &end[..]);
        let of_group = |key: &[u8]| slots::group_of_key(key, groups) == *group;
        let (mut bytes, mut count) = (Vec::new(), 0);
        for (key, value) in model.iter().filter(|(key, _)| inside(key) && of_group(key)) {
            if count == *limit || (count > 0 && bytes.len() > bytes_max) {
                return (bytes, true);
            }
            let value = if *keys_only { &[][..] } else { value };
            items::push(&mut bytes, &ItemRef { key, value: Some(value), version: 1 });
            count += 1;
        }
        (bytes, false)
    }

    fn page(model: &Model, groups: u32, query: &RangeQuery, bytes_max: usize) -> RangePage {
        let mut merge = Merge::new(query, groups);
        for round in 0.. {
            let questions = merge.questions();
            if questions.is_empty() {
                return merge.into_page();
            }
            assert!(round < 10_000, "a page that does not end");
            for (group, operation) in questions {
                let (bytes, more) = answer(model, groups, &operation, bytes_max);
                merge.answer(group, &bytes, more).unwrap();
            }
            merge.go_on();
        }
        unreachable!()
    }

    #[test]
    fn ends_of_prefixes() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"");
        assert_eq!(prefix_end(b""), b"");
        let query = RangeQuery::prefix("a").limit(3).after(b"ax\0".to_vec());
        assert_eq!((&query.start[..], &query.end[..], query.limit), (&b"ax\0"[..], &b"b"[..], 3));
    }

    #[test]
    fn an_answer_without_keys_ends_its_group_whatever_it_promises() {
        let mut merge = Merge::new(&RangeQuery::default(), 1);
        merge.answer(0, &[], true).unwrap();
        merge.go_on();
        assert!(merge.questions().is_empty());
        assert_eq!(merge.into_page(), RangePage::default());
    }

    #[test]
    fn a_page_is_bounded_in_bytes_and_has_one_key_at_least() {
        let value = vec![1; PAGE_BYTES_MAX / 2 + 1];
        let model: Model = (0..3_u8).map(|key| (vec![key], value.clone())).collect();
        let first = page(&model, 2, &RangeQuery::default(), 1);
        assert_eq!((first.items.len(), first.next), (1, Some(vec![0, 0])));
    }

    proptest! {
        #[test]
        fn pages_are_the_range_in_order(
            keys in prop::collection::btree_map(prop::collection::vec(0..4_u8, 1..5), prop::collection::vec(any::<u8>(), 0..9), 0..120),
            start in prop::collection::vec(0..4_u8, 0..3), end in prop::collection::vec(0..4_u8, 0..3),
            groups in 1..9_u32, limit in 0..40_u32, keys_only in any::<bool>(), bytes_max in 1..400_usize,
        ) {
            let query = RangeQuery { start, end, limit, keys_only };
            let inside = |key: &Vec<u8>| *key >= query.start && (query.end.is_empty() || *key < query.end);
            let expected: Vec<_> = keys.iter().filter(|(key, _)| inside(key)).collect();
            let (mut found, mut next) = (Vec::new(), query.clone());
            loop {
                let page = page(&keys, groups, &next, bytes_max);
                let keys_max = if limit == 0 { PAGE_KEYS } else { limit as usize };
                prop_assert!(page.items.len() <= keys_max);
                prop_assert!(page.next.is_none() || !page.items.is_empty());
                found.extend(page.items);
                let Some(cursor) = page.next else { break };
                next = next.after(cursor);
            }
            prop_assert_eq!(found.len(), expected.len());
            for (item, (key, value)) in found.iter().zip(expected) {
                prop_assert_eq!(&item.key, key);
                let expected = if keys_only { &[][..] } else { &value[..] };
                prop_assert_eq!(&item.value, expected);
            }
        }
    }
}
