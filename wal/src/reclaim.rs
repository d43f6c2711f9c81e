//! Giving space back: prefixes that a group no longer needs.
//!
//! Off the data path.
//! A segment is used again when all its entries are reclaimed or replaced, in order from the oldest. Its hard states need
//! no care: the first batch of every later segment carries the latest of all groups. Invariant: reclaiming is only
//! remembered in memory and in batch headers; after a restart the host reclaims again what its snapshots cover.
//! It moves no live entries: that comes with snapshots.

use crate::disk::Disk;
use crate::index::GroupIndex;
use crate::wal::Wal;

impl<D: Disk> Wal<D> {
    /// Forgets the entries of a group below `before_index`. If that is all of them, the next entry appended must be
    /// `before_index`. Returns the number of segments that became free.
    pub fn reclaim(&mut self, group: u32, before_index: u64) -> usize {
        let newest = self.segments.newest_id();
        let known: &mut GroupIndex = self.groups.entry(group).or_default();
        if before_index <= known.first {
            return 0;
        }
        while known.first < before_index
            && let Some(location) = known.locations.pop_front()
        {
            known.first += 1;
            self.segments.remove_live(location.segment_id(newest));
        }
        known.first = before_index;
        self.segments.release_dead()
    }

    /// The index below which nothing of the oldest segment would be needed, per group that holds entries in it: what to
    /// snapshot next so that space comes back. Groups in order.
    #[must_use]
    pub fn oldest_segment_groups(&self) -> Vec<(u32, u64)> {
        let Some(oldest) = self.segments.log().front().map(|segment| segment.id) else { return Vec::new() };
        let in_oldest = |index: &GroupIndex| {
            let count = index.locations.iter().take_while(|location| location.is_in(oldest)).count();
            (count > 0).then_some(index.first + count as u64)
        };
        let mut groups: Vec<(u32, u64)> =
            self.groups.iter().filter_map(|(group, index)| Some((*group, in_oldest(index)?))).collect();
        groups.sort_unstable();
        groups
    }
}
