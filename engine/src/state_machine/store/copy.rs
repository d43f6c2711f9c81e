//! The keys' part of a snapshot: copied in slices as of its beginning, while keys are put and deleted.
//!
//! Off the data path.
//! Invariants: every item that was there at the beginning is copied exactly once, as it was then; none that came later is.
//! An item is marked with the snapshot's epoch when it is copied, when it is kept aside because it changes, and when it
//! is made while the snapshot runs.
//! The table may be rearranged between two slices, so that items move behind the cursor: the walk begins anew at the end
//! of the table until nothing is left, and marked items are passed over.
//! A slice visits a bounded number of places.

use super::{Item, Store};
use crate::state_machine::copying::Copying;
use crate::state_machine::records;
use ringraft_raft::mutants::{Mutant, is_active};

/// Buckets that one slice visits at most, so that a sparse table does not hold up the shard.
const BUCKETS_MAX: usize = 8_192;

/// Keeps what an item is before it changes or goes, unless the snapshot has it already.
#[cold]
pub(super) fn keep(copying: &mut Copying, item: &mut Item) {
    if item.copied_in != copying.epoch {
        item.copied_in = copying.epoch;
        copying.left -= 1;
        if is_active(Mutant::SnapshotWithoutPreImages) {
            return;
        }
        records::append_key(&mut copying.pending, item.key(), item.value(), item.version);
    }
}

impl Store {
    /// Begins a snapshot of the keys as they are now.
    pub(in super::super) fn begin_copy(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.copying = Some(Copying::new(self.epoch, self.table.len()));
    }

    /// A snapshot of the keys runs.
    pub(in super::super) fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Bytes kept aside for the next slices.
    pub(in super::super) fn pending_bytes(&self) -> usize {
        self.copying.as_ref().map_or(0, |copying| copying.pending.len())
    }

    /// Gives up a snapshot.
    pub(in super::super) fn abort_copy(&mut self) {
        self.copying = None;
    }

    /// Appends records until `out` has `end` bytes or a bit more, the work of one slice is done or nothing is left;
    /// answers whether more is to come.
    pub(in super::super) fn copy_slice(&mut self, out: &mut Vec<u8>, end: usize) -> bool {
        let Self { table, copying: Some(copying), .. } = self else { return false };
        copying.drain(out, end);
        for _ in 0..BUCKETS_MAX {
            if out.len() >= end || copying.left == 0 {
                break;
            }
            if copying.cursor >= table.places() {
                copying.cursor = 0;
            }
            let (item, next) = table.at_mut(copying.cursor);
            if let Some(item) = item
                && item.copied_in != copying.epoch
            {
                item.copied_in = copying.epoch;
                copying.left -= 1;
                records::append_key(out, item.key(), item.value(), item.version);
            }
            copying.cursor = next;
        }
        if copying.is_done() {
            self.copying = None;
        }
        self.copying.is_some()
    }

    /// Adds a key of a snapshot; false when it is there already.
    pub(in super::super) fn load(&mut self, key: &[u8], value: &[u8], version: u64) -> bool {
        if self.get(key).is_some() {
            return false;
        }
        self.put(key, value, version);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Content = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

    fn content(store: &Store) -> Content {
        store.table.iter().map(|item| (item.key().to_vec(), (item.value().to_vec(), item.version))).collect()
    }

    /// The keys of a stream; none may come twice.
    fn parse(mut stream: &[u8]) -> Content {
        let (mut keys, bounds) = (Content::new(), records::Bounds::new(&crate::limits::Limits::default()));
        while !stream.is_empty() {
            let (record, rest) = stream.split_at(records::wanted(stream, &bounds).unwrap());
            match records::decode(record) {
                records::Record::Key { key, value, version } => {
                    assert!(keys.insert(key.to_vec(), (value.to_vec(), version)).is_none(), "a key twice");
                }
                other => panic!("{other:?}"),
            }
            stream = rest;
        }
        keys
    }

    fn drain(store: &mut Store, out: &mut Vec<u8>, bytes: usize) {
        for round in 0.. {
            let end = out.len() + bytes;
            if !store.copy_slice(out, end) {
                return;
            }
            assert!(round < 100_000, "a walk that does not end");
        }
    }

    fn key(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    #[test]
    fn a_table_that_grows_and_is_rehashed_during_the_walk_is_copied_once() {
        let mut store = Store::new();
        for number in 0..5_000 {
            store.put(&key(number), &[7; 20], u64::from(number));
        }
        let (expected, mut out) = (content(&store), Vec::new());
        store.begin_copy();
        let buckets = store.table.buckets();
        for round in 0..2_000_u32 {
            let end = out.len() + 100;
            store.copy_slice(&mut out, end);
            // New keys make the table grow; deletions leave graves that make it rehash in place.
            for number in 0..10 {
                store.put(&key(10_000 + round * 10 + number), b"new", 1 << 40);
            }
            store.delete(&key(10_000 + round * 5));
            store.delete(&key(round * 2));
        }
        assert!(store.table.buckets() > buckets, "the table grew");
        drain(&mut store, &mut out, 1_000);
        assert_eq!(parse(&out), expected);
        assert!(!store.is_copying());
        assert_eq!(store.hash(), store.recompute_hash());
    }

    #[test]
    fn a_slice_is_bounded_in_bytes_and_in_buckets() {
        let mut store = Store::new();
        for number in 0..100_000 {
            store.put(&key(number), b"x", 1);
        }
        for number in 1..100_000 {
            store.delete(&key(number));
        }
        store.begin_copy();
        let (mut slices, mut out) = (1, Vec::new());
        while store.copy_slice(&mut out, usize::MAX) {
            slices += 1;
        }
        assert!(slices <= store.table.buckets().div_ceil(BUCKETS_MAX), "{slices} slices");
        assert_eq!(parse(&out).len(), 1);
        store.put(b"large", &[1; 10_000], 2);
        store.begin_copy();
        out.clear();
        store.put(b"large", b"small", 3);
        store.copy_slice(&mut out, 1_000);
        assert_eq!((out.len(), store.pending_bytes() > 9_000), (1_000, true), "a pre-image comes in portions");
        drain(&mut store, &mut out, 1_000);
        assert_eq!(parse(&out)[&b"large"[..]], (vec![1; 10_000], 2));
    }

    #[test]
    fn what_is_taken_and_restored_is_copied_once_as_it_was() {
        let mut store = Store::new();
        store.put(b"a", b"1", 1);
        store.put(b"b", b"2", 1);
        store.begin_copy();
        let expected = content(&store);
        let (first, none) = (store.take(b"a"), store.take(b"c"));
        store.put(b"a", b"other", 9);
        store.put(b"c", b"new", 9);
        store.restore(b"c", none);
        store.restore(b"a", first);
        let mut out = Vec::new();
        drain(&mut store, &mut out, 10);
        assert_eq!(parse(&out), expected);
        assert_eq!(content(&store), expected);
        store.begin_copy();
        out.clear();
        drain(&mut store, &mut out, 10);
        assert_eq!(parse(&out), expected, "the next snapshot has it again");
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing_behind() {
        let mut store = Store::new();
        for number in 0..1_000 {
            store.put(&key(number), b"x", 1);
        }
        store.begin_copy();
        let mut out = Vec::new();
        store.copy_slice(&mut out, 5_000);
        store.put(&key(999), b"y", 2);
        store.abort_copy();
        assert_eq!((store.is_copying(), store.pending_bytes(), store.copy_slice(&mut out, 9)), (false, 0, false));
        store.put(&key(998), b"y", 2);
        store.begin_copy();
        out.clear();
        drain(&mut store, &mut out, 5_000);
        assert_eq!(parse(&out), content(&store));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u32, u8),
        Delete(u32),
        RolledBack(u32, u8),
        Slice(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let number = 0..300_u32;
        prop_oneof![
            4 => (number.clone(), any::<u8>()).prop_map(|(number, length)| Step::Put(number, length)),
            2 => number.clone().prop_map(Step::Delete),
            1 => (number, any::<u8>()).prop_map(|(number, length)| Step::RolledBack(number, length)),
            2 => (0..600_usize).prop_map(Step::Slice),
        ]
    }

    proptest! {
        #[test]
        fn any_changes_between_any_slices(
            before in prop::collection::vec(any_step(), 0..300), during in prop::collection::vec(any_step(), 0..300)
        ) {
            let (mut store, mut out) = (Store::new(), Vec::new());
            let mut run = |store: &mut Store, steps: &[Step]| {
                for (version, step) in (1..).zip(steps) {
                    match *step {
                        Step::Put(number, length) => {
                            store.put(&key(number), &vec![1; length.into()], version);
                        }
                        Step::Delete(number) => {
                            store.delete(&key(number));
                        }
                        Step::RolledBack(number, length) => {
                            let previous = store.take(&key(number));
                            store.put(&key(number), &vec![2; length.into()], version);
                            store.restore(&key(number), previous);
                        }
                        Step::Slice(bytes) => {
                            let end = out.len() + bytes;
                            store.copy_slice(&mut out, end);
                        }
                    }
                }
            };
            run(&mut store, &before);
            let expected = content(&store);
            store.begin_copy();
            run(&mut store, &during);
            drain(&mut store, &mut out, 1_000);
            prop_assert_eq!(parse(&out), expected);
            prop_assert_eq!(store.hash(), store.recompute_hash());
        }
    }
}
