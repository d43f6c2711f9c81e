//! Keys and values of one group, with the rolling hash over them.
//!
//! Data path 8/9.
//! Invariants: `hash` is the XOR of the items' hashes; `bytes` is the sum of key and value lengths; no result depends on
//! the table's order.
//! Overwriting a value allocates only when the new one is longer than the room there is, or takes less than a quarter of
//! it (a key does not keep the memory of the longest value it ever had).
//! It knows neither requests nor sessions.
//!
//! ```text
//!  item   | bytes: key, value in one allocation | key hash | item hash | version | key length | copied in |   56 bytes + bytes
//! ```
//! The key's hash stands in the item, so that a growing `table` is rearranged without reading the keys.
//! Who lists keys makes the store keep them in `order` too.
//! While a snapshot runs (`copy`), an item it has not copied yet is kept aside before it changes.

mod copy;
mod order;
mod table;

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

pub(super) use self::order::Listing;
use self::order::Order;
use self::table::Table;
use super::ahead::AHEAD;
use super::copying::Copying;
use super::digest;

/// Seed of the table's hash function. Any value does: no result depends on the order of the table.
const TABLE_SEED: u64 = 0x7269_6e67_7261_6674;

/// A value's memory is given back when it uses less than its 4th part and the rest is worth it.
const SLACK_BYTES: usize = 256;

/// One live key.
#[derive(Debug)]
pub(super) struct Item {
    bytes: Vec<u8>,
    key_hash: u64,
    item_hash: u64,
    /// Place in the log of the request that wrote it.
    version: u64,
    key_bytes: u32,
    /// The last snapshot that copied it or did not have to, since the item came after its beginning.
    copied_in: u32,
}

const _: () = assert!(size_of::<Item>() == 56);

impl Item {
    fn new(key: &[u8], key_hash: u64, value: &[u8], version: u64, copied_in: u32) -> Self {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        let item_hash = digest::item_hash(&bytes, key.len(), version);
        Self { bytes, key_hash, item_hash, version, key_bytes: key.len() as u32, copied_in }
    }

    #[inline]
    fn overwrite(&mut self, value: &[u8], version: u64) {
        let key_bytes = self.key_bytes as usize;
        let needed = key_bytes + value.len();
        self.bytes.truncate(key_bytes);
        if needed > self.bytes.capacity() {
            self.bytes.reserve_exact(value.len());
        } else if needed * 4 + SLACK_BYTES < self.bytes.capacity() {
            self.bytes.shrink_to(needed);
        }
        self.bytes.extend_from_slice(value);
        self.version = version;
        self.item_hash = digest::item_hash(&self.bytes, key_bytes, version);
    }

    #[inline]
    fn has_key(&self, key: &[u8], key_hash: u64) -> bool {
        self.key_hash == key_hash && self.key() == key
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    #[inline]
    fn value(&self) -> &[u8] {
        &self.bytes[self.key_bytes as usize..]
    }
}

/// All keys of a group.
#[derive(Debug)]
pub(super) struct Store {
    table: Table,
    hasher: FixedState,
    hash: u64,
    bytes: u64,
    /// Number of the latest snapshot, running or not.
    epoch: u32,
    copying: Option<Copying>,
    /// `None`: nobody has listed keys yet.
    order: Option<Box<Order>>,
}

impl Store {
    pub(super) fn new() -> Self {
        let hasher = FixedState::with_seed(TABLE_SEED);
        Self { table: Table::new(), hasher, hash: 0, bytes: 0, epoch: 0, copying: None, order: None }
    }

    /// XOR of the items' hashes.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Live keys.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(key).map(Item::value)
    }

    /// Which request wrote the key; 0: it is absent.
    #[inline]
    pub(super) fn version(&self, key: &[u8]) -> u64 {
        self.find(key).map_or(0, |item| item.version)
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<&Item> {
        let key_hash = self.hasher.hash_one(key);
        self.table.find(key_hash, |item| item.has_key(key, key_hash))
    }

    /// Brings what is known of some keys (at most [`AHEAD`]) into the processor's caches. One lookup behind the other waits
    /// for memory three times each; independent ones, with nothing between them, wait together.
    #[inline]
    pub(super) fn fetch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut hashes = [0; AHEAD];
        let count = hashes.iter_mut().zip(keys).map(|(hash, key)| *hash = self.hasher.hash_one(key)).count();
        let touched = hashes[..count].iter().fold(0, |touched, hash| {
            let item = self.table.find(*hash, |item| item.key_hash == *hash);
            touched ^ item.map_or(0, |item| item.bytes.first().unwrap_or(&0) ^ item.bytes.last().unwrap_or(&0))
        });
        std::hint::black_box(touched);
    }

    /// Sets a key in place; answers whether it had a value.
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], version: u64) -> bool {
        let key_hash = self.hasher.hash_one(key);
        if let Some(item) = self.table.find_mut(key_hash, |item| item.has_key(key, key_hash)) {
            if let Some(copying) = &mut self.copying {
                copy::keep(copying, item);
            }
            self.hash ^= item.item_hash;
            self.bytes -= item.bytes.len() as u64;
            item.overwrite(value, version);
            self.hash ^= item.item_hash;
            self.bytes += item.bytes.len() as u64;
            return true;
        }
        self.insert(Item::new(key, key_hash, value, version, self.epoch));
        false
    }

    /// Removes a key; answers whether it had a value.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.take(key).is_some()
    }

    /// Removes a key and hands its item out, as it was.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Item> {
        let key_hash = self.hasher.hash_one(key);
        let mut item = self.table.remove(key_hash, |item| item.has_key(key, key_hash))?;
        if let Some(copying) = &mut self.copying {
            copy::keep(copying, &mut item);
        }
        if let Some(order) = &mut self.order {
            order.remove(key);
        }
        self.hash ^= item.item_hash;
        self.bytes -= item.bytes.len() as u64;
        Some(item)
    }

    /// Takes back what [`Store::take`] handed out for `key`, in place of what the key has now.
    pub(super) fn restore(&mut self, key: &[u8], previous: Option<Item>) {
        self.take(key);
        if let Some(item) = previous {
            debug_assert_eq!(item.key(), key);
            self.insert(item);
        }
    }

    fn insert(&mut self, item: Item) {
        if let Some(order) = &mut self.order {
            order.insert(item.key());
        }
        self.hash ^= item.item_hash;
        self.bytes += item.bytes.len() as u64;
        self.table.insert(item);
    }

    /// The hash computed anew from every item; equals [`Store::hash`].
    pub(super) fn recompute_hash(&self) -> u64 {
        let items = self.table.iter();
        items.fold(0, |hash, item| hash ^ digest::item_hash(&item.bytes, item.key_bytes as usize, item.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwriting_in_place_keeps_the_allocation_unless_it_is_far_too_big() {
        let mut store = Store::new();
        assert!(!store.put(b"key", &[1; 1000], 1));
        let capacity = |store: &Store| store.table.iter().next().unwrap().bytes.capacity();
        let place = |store: &Store| store.get(b"key").unwrap().as_ptr();
        let before = place(&store);
        for length in [1000, 999, 400] {
            assert!(store.put(b"key", &vec![2; length], 2));
            assert_eq!(place(&store), before);
            assert_eq!(store.bytes(), 3 + length as u64);
        }
        assert!(store.put(b"key", &[3; 10], 3));
        assert!(capacity(&store) < 100, "a short value does not keep the room of a long one");
        assert_eq!(store.get(b"key"), Some(&[3; 10][..]));
        assert_eq!(store.hash(), store.recompute_hash());
    }

    #[test]
    fn what_was_taken_comes_back_as_it_was() {
        let mut store = Store::new();
        store.put(b"a", b"1", 1);
        store.put(b"b", b"2", 2);
        let (hash, bytes) = (store.hash(), store.bytes());
        let previous = store.take(b"a");
        assert_eq!(store.get(b"a"), None);
        store.put(b"a", b"other", 3);
        store.put(b"c", b"new", 3);
        store.restore(b"c", None);
        store.restore(b"a", previous);
        assert_eq!((store.hash(), store.bytes(), store.len()), (hash, bytes, 2));
        assert_eq!(store.get(b"a"), Some(&b"1"[..]));
    }

    #[test]
    fn the_hash_depends_on_the_state_and_not_on_the_way_to_it() {
        let (mut one, mut other) = (Store::new(), Store::new());
        for number in 0..1000_u32 {
            one.put(&number.to_le_bytes(), b"x", u64::from(number));
        }
        for number in (0..2000_u32).rev() {
            other.put(&number.to_le_bytes(), b"x", u64::from(number));
        }
        assert_ne!(one.hash(), other.hash());
        for number in 1000..2000_u32 {
            assert!(other.delete(&number.to_le_bytes()));
        }
        assert_eq!(one.hash(), other.hash());
        other.put(&7_u32.to_le_bytes(), b"x", 8);
        assert_ne!(one.hash(), other.hash(), "the version counts");
        assert_eq!(other.hash(), other.recompute_hash());
    }
}
