//! The latest changes of a group, for watches that begin in the past or fall behind.
//!
//! Data path 8/9 (one copy of key and value per change).
//! Invariants: what is kept are all changes of the entries from `first_index` on, in the order they were made; an entry is
//! kept whole or not at all; memory is at most `bytes_max` and two entries; every replica keeps the same changes of an
//! entry, since they follow from the log alone.
//!
//! ```text
//!   previous, full                         current
//!   | entry 7 | entry 8 | entry 10 |       | entry 11 | entry 12 |  <- the next one is appended here
//!   first_index = 7                         when it is full too, `previous` is forgotten and its memory used again
//! ```
//! A change is an item of `ringraft_net::wire::items`.
//! It knows nothing of those who watch.

use ringraft_net::wire::items::{self, ItemRef, index_of_version};
use ringraft_raft::Index;

/// Changes of consecutive entries.
#[derive(Debug)]
struct Generation {
    first_index: Index,
    bytes: Vec<u8>,
}

/// The latest changes.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Bytes that make a generation full.
    generation_bytes: usize,
    previous: Generation,
    current: Generation,
    /// How many generations came before the current one.
    number: u64,
}

/// A place among the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    generation: u64,
    offset: usize,
}

/// What was read from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    /// Where to go on.
    pub(crate) cursor: Cursor,
    /// The entry of the change there; `None`: nothing follows.
    pub(crate) next: Option<Index>,
    /// Bytes that were passed.
    pub(crate) passed_bytes: usize,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortionBounds {
    /// Changes, at least one.
    pub(crate) changes_max: usize,
    /// Bytes of changes, one change excepted.
    pub(crate) bytes_max: usize,
    /// Bytes to pass, whether they are read or not, at least one; one change more may be.
    pub(crate) passed_bytes_max: usize,
}

impl Recent {
    /// Nothing yet: the first entry is `next`.
    pub(super) fn new(bytes_max: usize, next: Index) -> Self {
        let empty = || Generation { first_index: next, bytes: Vec::new() };
        Self { generation_bytes: (bytes_max / 2).max(1), previous: empty(), current: empty(), number: 1 }
    }

    /// The first entry whose changes are kept.
    pub(crate) fn first_index(&self) -> Index {
        self.previous.first_index
    }

    /// A watch that is told nothing, since its keys do not change, is to hear where it stands each time so much was passed
    /// over: it could not go on elsewhere from what is forgotten.
    pub(crate) fn news_bytes(&self) -> usize {
        self.generation_bytes / 4
    }

    /// The changes of entry `index` follow.
    #[inline]
    pub(super) fn begin(&mut self, index: Index) {
        if self.current.bytes.len() >= self.generation_bytes {
            std::mem::swap(&mut self.previous, &mut self.current);
            self.current.bytes.clear();
            self.current.bytes.shrink_to(2 * self.generation_bytes);
            self.current.first_index = index;
            self.number += 1;
        }
    }

    /// A key was set or removed.
    #[inline]
    pub(super) fn note(&mut self, item: &ItemRef<'_>) {
        items::push(&mut self.current.bytes, item);
    }

    /// The place of the first change of entry `index` or a later one; `None`: it is forgotten.
    pub(crate) fn seek(&self, index: Index) -> Option<Cursor> {
        if index < self.first_index() {
            return None;
        }
        let in_current = index >= self.current.first_index;
        let (generation, bytes) =
            if in_current { (self.number, &self.current.bytes) } else { (self.number - 1, &self.previous.bytes) };
        let mut all = items::items(bytes);
        let mut offset = 0;
        while let Some(Ok(item)) = all.next() {
            if index_of_version(item.version) >= index {
                break;
            }
            offset = all.offset();
        }
        Some(Cursor { generation, offset })
    }

    /// Whether nothing follows.
    pub(crate) fn is_end(&self, cursor: Cursor) -> bool {
        cursor.generation == self.number && cursor.offset == self.current.bytes.len()
    }

    /// Appends changes of keys with this prefix from `cursor` on, until a bound is reached or nothing follows; `None`: what
    /// follows is forgotten.
    pub(crate) fn read(
        &self,
        mut cursor: Cursor,
        prefix: &[u8],
        bounds: &PortionBounds,
        out: &mut Vec<u8>,
    ) -> Option<Portion> {
        let (mut passed_bytes, mut count) = (0, 0);
        loop {
            let bytes = match self.number - cursor.generation {
                0 => &self.current.bytes,
                1 => &self.previous.bytes,
                _ => return None,
            };
            let rest = &bytes[cursor.offset..];
            let mut all = items::items(rest);
            let mut offset = 0;
            while let Some(Ok(item)) = all.next() {
                let item_bytes = all.offset() - offset;
                let matches = item.key.starts_with(prefix);
                let is_full = count == bounds.changes_max || (count > 0 && out.len() + item_bytes > bounds.bytes_max);
                if matches && is_full || passed_bytes + offset >= bounds.passed_bytes_max {
                    cursor.offset += offset;
                    let next = Some(index_of_version(item.version));
                    return Some(Portion { cursor, next, passed_bytes: passed_bytes + offset });
                }
                if matches {
                    out.extend_from_slice(&rest[offset..all.offset()]);
                    count += 1;
                }
                offset = all.offset();
            }
            passed_bytes += offset;
            if cursor.generation == self.number {
                cursor.offset += offset;
                return Some(Portion { cursor, next: None, passed_bytes });
            }
            cursor = Cursor { generation: cursor.generation + 1, offset: 0 };
        }
    }

    /// Bytes of the changes that are kept.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.previous.bytes.len() + self.current.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringraft_net::wire::items::version_at;

    use super::*;

    fn versions(bytes: &[u8]) -> Vec<u64> {
        items::all_items(bytes).unwrap().iter().map(|item| item.version).collect()
    }

    proptest! {
        /// A log of entries with any number of changes, read from anywhere in portions of any size while it grows.
        #[test]
        fn whoever_keeps_up_hears_everything_once_and_in_order(
            entries in prop::collection::vec(prop::collection::vec((0..3_u8, 0..30_usize), 0..4), 1..60),
            bytes_max in 1..2_000_usize, start in 0..20_usize, prefix in prop::option::of(0..3_u8),
            portion in (1..5_usize, 1..200_usize, 1..400_usize), slow in any::<bool>(),
        ) {
            let mut recent = Recent::new(bytes_max, 1);
            let bounds = PortionBounds { changes_max: portion.0, bytes_max: portion.1, passed_bytes_max: portion.2 };
            let prefix: Vec<u8> = prefix.into_iter().collect();
            let (mut expected, mut heard, mut cursor, mut from) = (Vec::new(), Vec::new(), None, 0);
            for (index, changes) in (1..).zip(&entries) {
                recent.begin(index);
                for (position, (key, length)) in (0..).zip(changes) {
                    let version = version_at(index, position);
                    let value = vec![1; *length];
                    recent.note(&ItemRef { key: &[*key], value: Some(&value), version });
                    if prefix.is_empty() || prefix[0] == *key {
                        expected.push(version);
                    }
                }
                prop_assert!(recent.bytes() <= bytes_max + 2 + 2 * 3 * (items::ITEM_HEADER_BYTES + 31));
                if index as usize == start + 1 {
                    from = recent.first_index();
                    cursor = recent.seek(from);
                    prop_assert!(cursor.is_some() && (from == 1 || recent.seek(from - 1).is_none()));
                    prop_assert!(recent.is_end(recent.seek(index + 1).unwrap()));
                }
                let Some(at) = cursor else { continue };
                if slow && index % 7 != 0 {
                    continue;
                }
                let mut at = at;
                loop {
                    let mut out = Vec::new();
                    let Some(read) = recent.read(at, &prefix, &bounds, &mut out) else {
                        prop_assert!(slow, "it is forgotten only by who falls behind");
                        return Ok(());
                    };
                    let told = versions(&out);
                    prop_assert!(told.len() <= portion.0 && (told.len() <= 1 || out.len() <= portion.1));
                    let item_bytes_max = items::ITEM_HEADER_BYTES + 31;
                    prop_assert!(read.passed_bytes < portion.2 + item_bytes_max && read.passed_bytes >= out.len());
                    prop_assert_eq!(read.next.is_none(), recent.is_end(read.cursor));
                    heard.extend(told);
                    at = read.cursor;
                    if read.next.is_none() {
                        break;
                    }
                }
                cursor = Some(at);
                expected.retain(|version| index_of_version(*version) >= from);
                prop_assert_eq!(&heard, &expected);
            }
        }
    }

    #[test]
    fn who_falls_behind_is_told_so() {
        let mut recent = Recent::new(100, 5);
        assert_eq!((recent.first_index(), recent.seek(4)), (5, None));
        let cursor = recent.seek(5).unwrap();
        for index in 5..15 {
            recent.begin(index);
            recent.note(&ItemRef { key: b"key", value: Some(&[1; 40]), version: version_at(index, 0) });
        }
        let bounds = PortionBounds { changes_max: 9, bytes_max: 999, passed_bytes_max: 999 };
        assert_eq!(recent.read(cursor, b"", &bounds, &mut Vec::new()), None);
        assert!(recent.first_index() > 10);
        assert_eq!(recent.seek(recent.first_index() - 1), None);
    }
}
