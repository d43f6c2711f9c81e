//! The keys of a store in their order, for ranges: there from the first range on, kept with every key that comes or goes.
//!
//! Off the data path of a store that nobody lists: it has no order, and a put of a key that exists never touches one.
//! Invariants: the order holds no key that the table does not; it is whole when both have as many, and then it stays so.
//! It is built in slices of bounded work: what is walked past while the table is rearranged is found by walking again.
//! It is no part of the state: neither hash nor snapshot know of it, and no result depends on when it was built.
//!
//! ```text
//!   table  | a | . | k | c | . | b |      order   a b c        (k is not there yet: not whole)
//!                    ^ the walk goes on here
//! ```
//! Memory: a copy of each key and about 40 bytes.

use std::collections::BTreeSet;
use std::ops::Bound;

use ringraft_net::limits::{RANGE_BYTES_MAX, RANGE_KEYS_MAX};
use ringraft_net::wire::items::{self, ITEM_HEADER_BYTES, ItemRef};

use super::{Item, Store};
use crate::topology::Topology;

/// Keys that one slice adds at most.
const SLICE_KEYS: usize = 2_048;
/// Buckets that one slice visits at most.
const SLICE_BUCKETS: usize = 16_384;

/// The keys in their order, or some of them.
#[derive(Debug, Default)]
pub(super) struct Order {
    keys: BTreeSet<Box<[u8]>>,
    /// Where the walk goes on.
    cursor: usize,
}

impl Order {
    pub(super) fn insert(&mut self, key: &[u8]) {
        self.keys.insert(key.into());
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }
}

/// What to list.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Listing<'a> {
    pub(in super::super) start: &'a [u8],
    /// Exclusive; empty: none.
    pub(in super::super) end: &'a [u8],
    /// 0: as many as an answer may have.
    pub(in super::super) limit: u32,
    pub(in super::super) keys_only: bool,
}

impl Listing<'_> {
    /// It is about one key at most, and needs no order.
    pub(in super::super) fn is_of_one_key(&self) -> bool {
        !self.start.is_empty() && self.end.strip_prefix(self.start) == Some(&[0])
    }
}

impl Store {
    /// Every key is in order.
    pub(in super::super) fn is_ordered(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.keys.len() == self.table.len())
    }

    /// Goes on with putting the keys in order; answers whether they all are.
    pub(in super::super) fn build_order(&mut self) -> bool {
        let Self { table, order, .. } = self;
        let order = order.get_or_insert_with(Box::default);
        let whole_at = table.len().min(order.keys.len() + SLICE_KEYS);
        for _ in 0..SLICE_BUCKETS {
            if order.keys.len() >= whole_at {
                break;
            }
            if order.cursor >= table.places() {
                order.cursor = 0;
            }
            let (item, next) = table.at(order.cursor);
            if let Some(item) = item {
                order.insert(item.key());
            }
            order.cursor = next;
        }
        self.is_ordered()
    }

    /// Appends what is listed to `out`; answers whether more follows. Keys of the cluster itself are not listed.
    ///
    /// # Panics
    /// When the keys are not in order and it is about more than one.
    pub(in super::super) fn list(&self, listing: &Listing<'_>, out: &mut Vec<u8>) -> bool {
        let Listing { start, end, limit, keys_only } = *listing;
        if listing.is_of_one_key() {
            let found = self.find(start).filter(|_| !is_reserved(start));
            found.into_iter().for_each(|item| push(out, item, keys_only));
            return false;
        }
        if !end.is_empty() && start >= end {
            return false;
        }
        assert!(self.is_ordered(), "the order is built before it is used");
        let Some(order) = &self.order else { return false };
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let keys_max = if limit == 0 { RANGE_KEYS_MAX } else { RANGE_KEYS_MAX.min(limit as usize) };
        let (begin, mut count) = (out.len(), 0);
        for key in order.keys.range::<[u8], _>((Bound::Included(start), end)).filter(|key| !is_reserved(key)) {
            let Some(item) = self.find(key) else { continue };
            let value_bytes = if keys_only { 0 } else { item.value().len() };
            let bytes = out.len() - begin + ITEM_HEADER_BYTES + key.len() + value_bytes;
            if count == keys_max || (count > 0 && bytes > RANGE_BYTES_MAX) {
                return true;
            }
            push(out, item, keys_only);
            count += 1;
        }
        false
    }
}

fn push(out: &mut Vec<u8>, item: &Item, keys_only: bool) {
    let value = if keys_only { &[] } else { item.value() };
    items::push(out, &ItemRef { key: item.key(), value: Some(value), version: item.version });
}

fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(Topology::RESERVED)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Listed = (Vec<u8>, Vec<u8>, u64);

    fn listed(store: &Store, listing: &Listing<'_>) -> (Vec<Listed>, bool) {
        let mut out = Vec::new();
        let more = store.list(listing, &mut out);
        let items = items::all_items(&out).unwrap();
        let owned = |item: &ItemRef<'_>| (item.key.to_vec(), item.value.unwrap().to_vec(), item.version);
        (items.iter().map(owned).collect(), more)
    }

    fn everything() -> Listing<'static> {
        Listing { start: b"", end: b"", limit: 0, keys_only: false }
    }

    fn build(store: &mut Store) -> usize {
        (1..).find(|_| store.build_order()).unwrap()
    }

    #[test]
    fn the_order_is_built_in_slices_while_keys_come_and_go() {
        let mut store = Store::new();
        for number in 0..20_000_u32 {
            store.put(&number.to_be_bytes(), b"x", 1);
        }
        assert!(!store.is_ordered());
        let mut slices = 0_u32;
        while !store.build_order() {
            // New keys make the table grow, so that buckets move behind the walk.
            for number in 0..100 {
                store.put(&(100_000 + slices * 100 + number).to_be_bytes(), b"new", 2);
                store.delete(&(slices * 100 + number * 2).to_be_bytes());
            }
            slices += 1;
            assert!(slices < 1_000, "a walk that does not end");
        }
        assert!(slices >= 9, "{slices} slices");
        let mut found = store.order.as_ref().unwrap().keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
        let mut expected: Vec<_> = store.table.iter().map(|item| item.key().to_vec()).collect();
        expected.sort();
        assert_eq!(found.len(), store.len());
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_answer_is_bounded_in_keys_and_bytes_and_has_one_key_at_least() {
        let mut store = Store::new();
        for number in 0..5_000_u32 {
            store.put(&number.to_be_bytes(), b"x", 1);
        }
        assert!(build(&mut store) > 1);
        let (keys, more) = listed(&store, &everything());
        assert_eq!((keys.len(), more), (RANGE_KEYS_MAX, true));
        let (keys, more) = listed(&store, &Listing { limit: 1 << 31, start: &4_000_u32.to_be_bytes(), ..everything() });
        assert_eq!((keys.len(), more), (1_000, false));
        store.put(&[0xff, 1], &vec![1; RANGE_BYTES_MAX], 2);
        store.put(&[0xff, 2], &vec![1; RANGE_BYTES_MAX], 3);
        let large = Listing { start: &[0xff], ..everything() };
        let (keys, more) = listed(&store, &large);
        assert_eq!((keys.len(), more, keys[0].2), (1, true, 2));
        let (keys, more) = listed(&store, &Listing { keys_only: true, ..large });
        assert_eq!((keys.len(), more, keys[1].1.len()), (2, false, 0));
    }

    #[test]
    fn one_key_needs_no_order_and_the_clusters_own_are_not_shown() {
        let mut store = Store::new();
        store.put(b"a", b"1", 7);
        store.put(b"\0ringraft/topology", b"2", 8);
        let one = |start, end| Listing { start, end, ..everything() };
        assert_eq!(listed(&store, &one(b"a", b"a\0")).0, [(b"a".to_vec(), b"1".to_vec(), 7)]);
        assert!(listed(&store, &one(b"b", b"b\0")).0.is_empty());
        assert!(listed(&store, &one(b"\0ringraft/topology", b"\0ringraft/topology\0")).0.is_empty());
        assert!(store.order.is_none());
        assert!(!one(b"", b"\0").is_of_one_key() && !one(b"a", b"a\x01").is_of_one_key());
        build(&mut store);
        assert_eq!(listed(&store, &everything()).0.len(), 1);
        assert_eq!(listed(&store, &one(b"b", b"a")), (vec![], false), "an end before the start");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>, Vec<u8>),
        Delete(Vec<u8>),
        RolledBack(Vec<u8>),
        Slice,
    }

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..4_u8, 1..4)
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (any_key(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(key, value)| Step::Put(key, value)),
            2 => any_key().prop_map(Step::Delete),
            1 => any_key().prop_map(Step::RolledBack),
            1 => Just(Step::Slice),
        ]
    }

    proptest! {
        #[test]
        fn ranges_are_those_of_a_sorted_map(
            steps in prop::collection::vec(any_step(), 0..200), start in prop::collection::vec(0..4_u8, 0..3),
            end in prop::collection::vec(0..5_u8, 0..3), limit in 0..20_u32, keys_only in any::<bool>(),
        ) {
            let (mut store, mut model) = (Store::new(), BTreeMap::new());
            for (version, step) in (1..).zip(steps) {
                match step {
                    Step::Put(key, value) => {
                        store.put(&key, &value, version);
                        model.insert(key, (value, version));
                    }
                    Step::Delete(key) => {
                        store.delete(&key);
                        model.remove(&key);
                    }
                    Step::RolledBack(key) => {
                        let previous = store.take(&key);
                        store.put(&key, b"undone", version);
                        store.restore(&key, previous);
                    }
                    Step::Slice => _ = store.build_order(),
                }
            }
            build(&mut store);
            let inside = |key: &[u8]| key >= &start[..] && (end.is_empty() || key < &end[..]);
            let all: Vec<_> = model.into_iter().filter(|(key, _)| inside(key)).collect();
            let count = if limit == 0 { all.len() } else { all.len().min(limit as usize) };
            let value = |value: Vec<u8>| if keys_only { vec![] } else { value };
            let more = count < all.len();
            let expected: Vec<_> =
                all.into_iter().take(count).map(|(key, (bytes, version))| (key, value(bytes), version)).collect();
            prop_assert_eq!(listed(&store, &Listing { start: &start, end: &end, limit, keys_only }), (expected, more));
        }
    }
}
