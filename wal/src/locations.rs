//! The locations of a group's entries, as a list that neither grows nor shrinks with a pause.
//!
//! Data path 6a/9.
//! Invariants: segments never fall from one location to the next, since entries come at the end; a full chunk is never
//! moved; forgetting any number from the front costs one step for each chunk.
//!
//! ```text
//!   chunks  [ . . 3 4 ][ 5 6 7 8 ][ 9 10 . . ]      the first two of the first chunk are gone: skipped
//! ```

use std::collections::VecDeque;

use crate::index::Location;

/// Locations of a chunk: 8 KiB.
const CHUNK: usize = 512;

/// Locations in chunks.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    chunks: VecDeque<Vec<Location>>,
    /// Locations at the front of the first chunk that are gone.
    skipped: usize,
    /// Locations, those that are gone included.
    count: usize,
}

impl Locations {
    pub(crate) fn len(&self) -> usize {
        self.count - self.skipped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, position: usize) -> Option<&Location> {
        let position = position + self.skipped;
        self.chunks.get(position / CHUNK)?.get(position % CHUNK)
    }

    pub(crate) fn push_back(&mut self, location: Location) {
        if self.count.is_multiple_of(CHUNK) {
            // The first one grows: most groups of many have few entries.
            let room = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push_back(Vec::with_capacity(room));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(location);
            self.count += 1;
        }
    }

    pub(crate) fn pop_back(&mut self) -> Option<Location> {
        if self.is_empty() {
            return None;
        }
        let last = self.chunks.back_mut()?.pop();
        self.count -= 1;
        if self.count.is_multiple_of(CHUNK) {
            self.chunks.pop_back();
        }
        if self.is_empty() {
            *self = Self::default();
        }
        last
    }

    /// Forgets the first `count`, of which there must be as many.
    fn drop_front(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.skipped += count;
        let gone = self.skipped / CHUNK;
        self.chunks.drain(..gone);
        self.skipped -= gone * CHUNK;
        self.count -= gone * CHUNK;
    }

    /// Forgets the first `count`, or all if there are fewer: tells `visit` the first and the number of those that are in
    /// one segment, segment by segment. Answers how many there were.
    pub(crate) fn forget(&mut self, count: usize, mut visit: impl FnMut(Location, u64)) -> usize {
        let count = count.min(self.len());
        let mut left = count;
        while left > 0
            && let Some(first) = self.get(0).copied()
        {
            let run = self.in_segment_of(&first).min(left);
            visit(first, run as u64);
            self.drop_front(run);
            left -= run;
        }
        count
    }

    /// How many at the front are in `segment`: none when the first is not.
    pub(crate) fn in_segment(&self, segment: u64) -> usize {
        self.in_front(|location| location.is_in(segment))
    }

    fn in_segment_of(&self, first: &Location) -> usize {
        self.in_front(|location| location.is_in_segment_of(first))
    }

    /// Length of the front that is so: once it ends, nothing behind it may be so again.
    fn in_front(&self, is_so: impl Fn(&Location) -> bool) -> usize {
        if !self.get(0).is_some_and(&is_so) {
            return 0;
        }
        let (mut low, mut high) = (1, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).is_some_and(&is_so) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(segment: u64, number: u64) -> Location {
        Location::new(segment, number * 8, 24, number)
    }

    #[test]
    fn a_chunk_that_is_used_up_goes_and_what_is_left_stays_where_it_is() {
        let mut list = Locations::default();
        (0..2_000).for_each(|number| list.push_back(location(number / 700, number)));
        assert_eq!((list.chunks.len(), list.in_segment(0), list.in_segment(1)), (4, 700, 0));
        let place = std::ptr::from_ref(list.get(1_999).unwrap());
        list.drop_front(1_100);
        assert_eq!((list.len(), list.chunks.len(), list.in_segment(1)), (900, 2, 300));
        assert_eq!(list.get(899).map(std::ptr::from_ref), Some(place));
        list.drop_front(900);
        assert_eq!((list.is_empty(), list.get(0)), (true, None));
        assert_eq!(list.pop_back(), None);
    }

    proptest! {
        #[test]
        fn it_is_a_list(steps in prop::collection::vec((0..4_u8, 1..900_u64), 0..60)) {
            let (mut list, mut model) = (Locations::default(), VecDeque::new());
            let mut number = 0;
            for (kind, amount) in steps {
                match kind {
                    0 | 1 => for _ in 0..amount {
                        number += 1;
                        list.push_back(location(number / 1_000, number));
                        model.push_back(location(number / 1_000, number));
                    },
                    2 => for _ in 0..amount {
                        prop_assert_eq!(list.pop_back(), model.pop_back());
                    },
                    _ => {
                        let count = model.len().min(amount as usize);
                        list.drop_front(count);
                        model.drain(..count);
                    }
                }
                prop_assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
                for position in [0, 1, 511, 512, 513, model.len().saturating_sub(1), model.len()] {
                    prop_assert_eq!(list.get(position), model.get(position));
                }
                if let Some(first) = model.front() {
                    let segment = first.segment_id(number / 1_000);
                    let count = model.iter().take_while(|location| location.is_in(segment)).count();
                    prop_assert_eq!(list.in_segment(segment), count);
                    prop_assert_eq!(list.in_segment(segment + 1_000), 0);
                }
                prop_assert!(list.chunks.len() <= model.len().div_ceil(CHUNK) + 1, "chunks that hold nothing");
            }
        }
    }
}
