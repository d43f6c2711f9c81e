//! Watch: every change of the keys with a prefix, in all groups, across broken connections and changes of leaders.
//!
//! Off the data path.
//!
//! ```text
//!   group 0 ──▶ Progress: passes over what was told ──▶ one stream of messages
//!   group 1 ──▶          knows where to go on       ──▶ (the order of a group is kept, that between groups is none)
//! ```
//!
//! Invariants: a change of a group is told once and in the order of its log, whichever replica it comes from; what a
//! replica has forgotten is told as `Compacted`, never passed over in silence.
//! A change is behind another of its key exactly when its version is higher.
//!
//! It opens no sockets: `tokio` does.

pub mod tokio;

use crate::wire::items::{self, ItemsError, index_of_version};
use std::collections::BTreeMap;

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what is applied from now on.
    Now,
    /// With this index of every group. 1 is the beginning, which is forgotten in a cluster that has been written to much.
    Index(u64),
    /// With an index for each group, as [`tokio::Watch::positions`] tells; others from now on.
    Positions(BTreeMap<u32, u64>),
}

impl WatchFrom {
    /// The index of a group; 0: the next one.
    fn of_group(&self, group: u32) -> u64 {
        match self {
            Self::Now => 0,
            Self::Index(index) => (*index).max(1),
            Self::Positions(positions) => positions.get(&group).copied().unwrap_or(0),
        }
    }
}

/// A key was set or removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The key's group.
    pub group: u32,
    /// The index of the entry that did it.
    pub index: u64,
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; `None`: it was removed.
    pub value: Option<Vec<u8>>,
    /// Its new version; of a removal the one that a value set there would have had.
    pub version: u64,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// A key was set or removed.
    Change(Change),
    /// Changes of a group before `first_index` are forgotten and were not told: what its keys have now is to be read. The
    /// watch goes on from `first_index`.
    Compacted {
        /// The group.
        group: u32,
        /// The first index that is told.
        first_index: u64,
    },
    /// A group is watched from `index` on: told once for each, before its first change.
    Started {
        /// The group.
        group: u32,
        /// The first index that is told.
        index: u64,
    },
}

/// How far the watch of one group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything of entries before it is told; 0: the watch begins with the next one, whichever that is.
    next: u64,
    /// Changes of that entry that are told.
    told: u64,
    /// Changes of it that will come again.
    again: u64,
    started: bool,
}

impl Progress {
    pub(super) fn new(from: u64) -> Self {
        Self { next: from, told: 0, again: 0, started: false }
    }

    /// The first index that is not told.
    #[cfg(test)]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Another connection is asked; the index to begin with.
    pub(super) fn ask(&mut self) -> u64 {
        self.again = self.told;
        self.next
    }

    /// Takes the changes of one frame; adds what is new to `out`.
    pub(super) fn changes(
        &mut self,
        group: u32,
        next: u64,
        bytes: &[u8],
        out: &mut Vec<WatchMessage>,
    ) -> Result<(), ItemsError> {
        let all = items::all_items(bytes)?;
        if !std::mem::replace(&mut self.started, true) {
            // From now on: `next` is behind what stands in this frame, and whoever goes on from `index` must get that.
            let first = all.first().map_or(next, |item| index_of_version(item.version));
            let index = if self.next == 0 { first } else { self.next };
            out.push(WatchMessage::Started { group, index });
        }
        for item in all {
            let index = index_of_version(item.version);
            if index < self.next {
                continue;
            }
            if index == self.next && self.again > 0 {
                self.again -= 1;
                continue;
            }
            if index > self.next {
                (self.next, self.told, self.again) = (index, 0, 0);
            }
            self.told += 1;
            let (key, value) = (item.key.to_vec(), item.value.map(<[u8]>::to_vec));
            out.push(WatchMessage::Change(Change { group, index, key, value, version: item.version }));
        }
        self.move_to(next);
        Ok(())
    }

    /// What was to be told next is forgotten.
    pub(super) fn compacted(&mut self, group: u32, first_index: u64, out: &mut Vec<WatchMessage>) {
        self.started = true;
        self.move_to(first_index);
        out.push(WatchMessage::Compacted { group, first_index });
    }

    fn move_to(&mut self, next: u64) {
        if next > self.next {
            (self.next, self.told, self.again) = (next, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::items::{ItemRef, push, version_at};
    use proptest::prelude::*;

    fn change(message: &WatchMessage) -> Option<u64> {
        match message {
            WatchMessage::Change(change) => Some(change.version),
            _ => None,
        }
    }

    #[test]
    fn starts_are_told_once_and_gaps_always() {
        let (mut progress, mut out) = (Progress::new(WatchFrom::Now.of_group(3)), Vec::new());
        assert_eq!(progress.ask(), 0);
        progress.changes(3, 8, &[], &mut out).unwrap();
        progress.changes(3, 9, &[], &mut out).unwrap();
        assert_eq!((progress.ask(), out.as_slice()), (9, &[WatchMessage::Started { group: 3, index: 8 }][..]));
        progress.compacted(3, 20, &mut out);
        assert_eq!((progress.next(), out.pop()), (20, Some(WatchMessage::Compacted { group: 3, first_index: 20 })));
        assert!(progress.changes(3, 21, &[1, 2, 3], &mut out).is_err());
        assert_eq!(WatchFrom::Index(0).of_group(1), 1);
        assert_eq!(WatchFrom::Positions(BTreeMap::from([(1, 7)])).of_group(1), 7);
        assert_eq!(WatchFrom::Positions(BTreeMap::from([(1, 7)])).of_group(2), 0);
    }

    #[test]
    fn who_goes_on_from_where_a_watch_started_misses_nothing_of_its_first_frame() {
        let (mut progress, mut out, mut bytes) = (Progress::new(WatchFrom::Now.of_group(3)), Vec::new(), Vec::new());
        for index in [8, 9] {
            push(&mut bytes, &ItemRef { key: b"k", value: None, version: version_at(index, 0) });
        }
        progress.changes(3, 10, &bytes, &mut out).unwrap();
        assert_eq!(out[0], WatchMessage::Started { group: 3, index: 8 });
        assert_eq!(out.iter().filter_map(change).collect::<Vec<_>>(), [version_at(8, 0), version_at(9, 0)]);
        assert_eq!(progress.next(), 10);
    }

    proptest! {
        /// Replicas tell a log of entries in frames cut anywhere, connections end anywhere: each change is told once.
        #[test]
        fn no_gaps_and_no_duplicates(
            entries in prop::collection::vec(0..5_u32, 1..20), from in 1..6_u64, cuts in prop::collection::vec((1..7_usize, any::<bool>()), 1..200)
        ) {
            let log: Vec<u64> = (1..).zip(&entries).flat_map(|(index, count)| (0..*count).map(move |at| version_at(index, at))).collect();
            let (mut progress, mut out) = (Progress::new(from), Vec::new());
            let mut cuts = cuts.iter().copied().chain(std::iter::repeat((100, false)));
            let place_of = |index: u64| log.iter().position(|version| index_of_version(*version) >= index).unwrap_or(log.len());
            let mut at = place_of(progress.ask());
            while at < log.len() {
                let (count, breaks) = cuts.next().unwrap();
                let end = (at + count).min(log.len());
                let mut bytes = Vec::new();
                for version in &log[at..end] {
                    push(&mut bytes, &ItemRef { key: b"k", value: None, version: *version });
                }
                let last = index_of_version(log[end - 1]);
                let ends_inside = log.get(end).is_some_and(|version| index_of_version(*version) == last);
                progress.changes(0, if ends_inside { last } else { last + 1 }, &bytes, &mut out).unwrap();
                at = if breaks { place_of(progress.ask()) } else { end };
            }
            let told: Vec<u64> = out.iter().filter_map(change).collect();
            prop_assert_eq!(told, log[place_of(from)..].to_vec());
        }
    }
}
