//! The table of a store: extendible hashing (Fagin and others, ACM TODS 4(3), 1979) over small hash tables.
//!
//! Data path 8/9.
//! Invariants: an item is in the part that the low bits of its directory hash name; a part of depth `d` is named by each
//! `2^(global - d)`-th entry of the directory; parts are numbered in the order they were made and never go.
//! A key that is added moves the items of one part at most, whatever the table holds: one big table that doubles
//! stands still for as long as it takes to move all of them.
//!
//! ```text
//!   hash  | tag 7 | ...... directory bits ...... | place in the part 10 |
//!
//!   directory  00 ─▶ part 0, depth 2        a full part is split by one more bit;
//!              01 ─▶ part 1, depth 1        when its depth is the directory's, the directory doubles: its
//!              10 ─▶ part 2, depth 2        second half begins as a copy of the first
//!              11 ─▶ part 1, depth 1
//! ```
//! It knows no keys: who looks something up says what is equal.

use hashbrown::HashTable;

use super::Item;

/// Items of a part before it is split: what a hash table of [`PART_BUCKETS`] takes.
const PART_ITEMS: usize = PART_BUCKETS / 8 * 7;
/// Buckets of a full part. A split moves them all: some 10 us.
const PART_BUCKETS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 10;
/// A directory has at most so many entries for a part. Beyond it the hashes are not what a hash should be, and a part
/// grows instead, as a plain table does.
const ENTRIES_PER_PART: usize = 64;
/// Highest depth: the bits above are the tag's.
const DEPTH_MAX: u32 = u64::BITS - 7 - PART_BITS;

/// One of the small tables.
#[derive(Debug)]
struct Part {
    items: HashTable<Item>,
    /// How many bits of the directory hash all its items share.
    depth: u32,
}

/// Items by the hash of their key.
#[derive(Debug)]
pub(super) struct Table {
    /// Part of each value of the low bits; its length is a power of two.
    directory: Vec<u32>,
    parts: Vec<Part>,
    count: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { directory: vec![0], parts: vec![Part { items: HashTable::new(), depth: 0 }], count: 0 }
    }

    /// Items.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    #[inline]
    fn part_of(&self, hash: u64) -> usize {
        self.directory[entry_of(hash) & (self.directory.len() - 1)] as usize
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(&Item) -> bool) -> Option<&Item> {
        self.parts[self.part_of(hash)].items.find(hash, is_it)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&Item) -> bool) -> Option<&mut Item> {
        let part = self.part_of(hash);
        self.parts[part].items.find_mut(hash, is_it)
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, hash: u64, is_it: impl FnMut(&Item) -> bool) -> Option<Item> {
        let part = self.part_of(hash);
        let (item, _) = self.parts[part].items.find_entry(hash, is_it).ok()?.remove();
        self.count -= 1;
        Some(item)
    }

    /// Adds an item whose key is not there.
    pub(super) fn insert(&mut self, item: Item) {
        let mut part = self.part_of(item.key_hash);
        while self.parts[part].items.len() >= PART_ITEMS && self.split(part) {
            part = self.part_of(item.key_hash);
        }
        self.count += 1;
        self.parts[part].items.insert_unique(item.key_hash, item, |item| item.key_hash);
    }

    /// Splits a part by one more bit; `false`: it has to grow instead.
    #[cold]
    fn split(&mut self, part: usize) -> bool {
        let depth = self.parts[part].depth;
        if 1 << depth == self.directory.len() {
            if depth == DEPTH_MAX || self.directory.len() >= self.parts.len() * ENTRIES_PER_PART {
                return false;
            }
            self.directory.extend_from_within(..);
        }
        let (made, bit) = (self.parts.len() as u32, 1 << depth);
        let empty = || HashTable::with_capacity(PART_ITEMS);
        let (mut low, mut high, items) = (empty(), empty(), std::mem::take(&mut self.parts[part].items));
        let one = items.iter().next().map_or(0, |item| entry_of(item.key_hash));
        for item in items {
            let side = if entry_of(item.key_hash) & bit == 0 { &mut low } else { &mut high };
            side.insert_unique(item.key_hash, item, |item| item.key_hash);
        }
        self.parts[part] = Part { items: low, depth: depth + 1 };
        self.parts.push(Part { items: high, depth: depth + 1 });
        let first = (one & (bit - 1)) | bit;
        self.directory[first..].iter_mut().step_by(bit << 1).for_each(|entry| *entry = made);
        true
    }

    /// All items, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.parts.iter().flat_map(|part| part.items.iter())
    }

    /// Where a walk ends: places are below it. Items move to places behind a walk when others come or go, and some change
    /// places without need.
    pub(super) fn places(&self) -> usize {
        self.parts.len() << PLACE_BITS
    }

    /// What is at `place`, which must be below [`Table::places`], and the place to look at next.
    pub(super) fn at(&self, place: usize) -> (Option<&Item>, usize) {
        let (part, bucket) = (&self.parts[place >> PLACE_BITS].items, place & PLACE_MASK);
        match bucket < part.num_buckets() {
            true => (part.get_bucket(bucket), place + 1),
            false => (None, (place | PLACE_MASK) + 1),
        }
    }

    /// The same, to be changed in place.
    pub(super) fn at_mut(&mut self, place: usize) -> (Option<&mut Item>, usize) {
        let (part, bucket) = (&mut self.parts[place >> PLACE_BITS].items, place & PLACE_MASK);
        match bucket < part.num_buckets() {
            true => (part.get_bucket_mut(bucket), place + 1),
            false => (None, (place | PLACE_MASK) + 1),
        }
    }
}

/// Low bits of a place: the bucket in its part. More than a part needs that is not grown beyond measure.
const PLACE_BITS: u32 = 32;
const PLACE_MASK: usize = (1 << PLACE_BITS) - 1;

/// What the directory goes by: the bits that a part's table does not use, lowest first.
#[inline]
fn entry_of(hash: u64) -> usize {
    (hash >> PART_BITS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Table {
        pub(in super::super) fn buckets(&self) -> usize {
            self.parts.iter().map(|part| part.items.num_buckets() + 1).sum()
        }

        fn check(&self) {
            let entries = self.directory.len();
            assert!(entries.is_power_of_two());
            let mut named = vec![0; self.parts.len()];
            for (entry, part) in self.directory.iter().enumerate() {
                named[*part as usize] += 1;
                let (part, items) = (&self.parts[*part as usize], &self.parts[*part as usize].items);
                let shared = (1_usize << part.depth) - 1;
                assert!(items.iter().all(|item| entry_of(item.key_hash) & shared == entry & shared));
            }
            for (part, named) in self.parts.iter().zip(named) {
                assert_eq!(named << part.depth, entries, "each part is named by its share of the directory");
            }
            assert_eq!(self.iter().count(), self.count);
            let (mut place, mut walked) = (0, 0);
            while place < self.places() {
                let (item, next) = self.at(place);
                assert!(next > place);
                (place, walked) = (next, walked + usize::from(item.is_some()));
            }
            assert_eq!(walked, self.count, "a walk passes by everything");
        }
    }

    fn item(key: u64, hash: u64) -> Item {
        Item::new(&key.to_le_bytes(), hash, b"value", 1, 0)
    }

    fn spread(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn no_key_that_comes_moves_more_than_one_part() {
        let mut table = Table::new();
        let mut largest = 0;
        for key in 0..200_000 {
            let before: Vec<usize> = match table.parts[table.part_of(spread(key))].items.len() {
                PART_ITEMS => table.parts.iter().map(|part| part.items.len()).collect(),
                _ => Vec::new(),
            };
            table.insert(item(key, spread(key)));
            let pairs = before.iter().zip(&table.parts);
            let changed = pairs.filter(|(before, part)| **before != part.items.len()).count();
            largest = largest.max(changed);
        }
        table.check();
        assert_eq!(largest, 1);
        assert!(table.parts.iter().all(|part| part.items.num_buckets() <= PART_BUCKETS));
        assert!(table.parts.len() < 2 * 200_000 / PART_ITEMS, "{} parts are less than half full", table.parts.len());
        assert!(table.directory.len() <= 4 * table.parts.len());
        for key in 0..200_000_u64 {
            let is_it = |item: &Item| item.key() == key.to_le_bytes();
            assert!(table.find(spread(key), is_it).is_some() && table.remove(spread(key), is_it).is_some());
            assert!(table.find(spread(key), is_it).is_none());
        }
        assert_eq!(table.len(), 0);
        table.check();
    }

    #[test]
    fn keys_of_one_hash_cost_what_they_cost_a_plain_table() {
        let mut table = Table::new();
        for key in 0..20_000 {
            table.insert(item(key, 7 << 50 | 3));
        }
        table.check();
        assert!(table.parts.len() <= 16 && table.directory.len() <= 16 * ENTRIES_PER_PART);
        for key in 0..20_000_u64 {
            table.insert(item(key, spread(key)));
        }
        table.check();
        assert!(table.remove(7 << 50 | 3, |item| item.key() == 19_999_u64.to_le_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..4_000_u64, 0..4_u8, any::<bool>()), 0..6_000), narrow in 0..60_u32) {
            let (mut table, mut model) = (Table::new(), BTreeMap::new());
            for (key, kind, twisted) in steps {
                let key = if twisted { key % 50 } else { key };
                let hash = spread(key) >> narrow << (narrow / 2); // fewer and fewer different ones
                let is_it = |item: &Item| item.key() == key.to_le_bytes();
                prop_assert_eq!(table.find(hash, is_it).is_some(), model.contains_key(&key));
                if kind == 0 {
                    prop_assert_eq!(table.remove(hash, is_it).is_some(), model.remove(&key).is_some());
                } else if model.insert(key, ()).is_none() {
                    table.insert(item(key, hash));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            table.check();
        }
    }
}
